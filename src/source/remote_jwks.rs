//! Reads a JWKS over https, usually that of another cluster, so that one hub publishes for many.
//!
//! Uses reqwest and not kube's client, which would bring kubeconfigs, credential plugins and hints about
//! `kubectl` to a plain `GET`. The server is not trusted: answers are limited in time and size, and redirects
//! are not followed, because the token would travel on. With a wrong URL an issuer would publish another
//! cluster's keys, so for the URL of an API server, the discovery document beside it must name the issuer.

use std::{
    path::{Path, PathBuf},
    sync::Mutex,
};

use bytes::Bytes;
use http::{
    HeaderMap, HeaderValue, StatusCode,
    header::{ACCEPT, AUTHORIZATION, DATE, ETAG, IF_NONE_MATCH},
};
use jiff::fmt::rfc2822::DateTimeParser;
use reqwest::Response;
use zeroize::Zeroizing;

use super::{Fetched, foreign_kids};
use crate::{
    blocking,
    core::{
        jose::{
            discovery::{InvalidDiscovery, ReceivedDiscovery},
            issuer::{DISCOVERY_PATH, JWKS_PATH},
            jwk_set::{InvalidJwks, ReceivedJwks},
        },
        text::{Hint, in_utf8},
        tls_fault::TlsFault,
    },
    http_client::{self, BodyError, ClientError, HttpClients, SharedClient, Trust, innermost},
};

/// Largest answer, in bytes: a JWKS of a hundred RSA-4096 keys takes a tenth of it.
const MAX_ANSWER: u64 = 1024 * 1024;
/// Largest token file, in bytes.
const MAX_FILE: u64 = 1024 * 1024;

/// The URL of the JWKS, and how to reach it.
#[derive(Clone, Debug)]
pub struct Place {
    /// `https`, or `http` on loopback.
    pub url: String,
    /// Read for every request.
    pub bearer_token_file: Option<PathBuf>,
    /// Replaces the certificate authorities of the system. Read for every request.
    pub ca_file: Option<PathBuf>,
}

#[derive(Debug)]
pub struct RemoteJwks {
    name: String,
    place: Place,
    client: SharedClient,
    known: Mutex<Cached>,
}

/// State kept between two requests.
#[derive(Debug, Default)]
struct Cached {
    /// The last answer and its entity tag, for a conditional request.
    tagged: Option<(HeaderValue, Fetched)>,
    /// Why the issuer of the keys cannot be checked.
    unchecked: Option<String>,
}

impl RemoteJwks {
    #[must_use]
    pub fn new(name: String, place: Place, clients: &HttpClients) -> Self {
        let trust = place.ca_file.clone().map_or(Trust::System, Trust::Only);
        let client = clients.to(place.url.split(':').next().unwrap_or_default(), trust);
        Self { name, place, client, known: Mutex::default() }
    }

    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Reads the JWKS; an unchanged one is not transferred again.
    ///
    /// # Errors
    ///
    /// Fails when there is no answer in time, or one that is not a JWKS with at least one key.
    pub async fn fetch(&self) -> Result<Fetched, RemoteError> {
        let url = &self.place.url;
        let before = self.known().tagged.clone();
        let tag = before.as_ref().map(|(tag, _)| tag);
        let response = self.get(url, tag).await?;
        let server_time = response
            .headers()
            .get(DATE)
            .and_then(|date| DateTimeParser::new().parse_timestamp(date.as_bytes()).ok());
        let mut fetched = match (response.status(), before) {
            (StatusCode::NOT_MODIFIED, Some((_, before))) => Fetched { server_time, ..before },
            (StatusCode::OK, _) => {
                let tag = response.headers().get(ETAG).cloned();
                let body = self.body(response).await?;
                let received = ReceivedJwks::parse(&in_utf8(&body)).map_err(RemoteError::Jwks)?;
                let ReceivedJwks { keys, left_out } = received;
                let notes = foreign_kids(&keys).collect();
                let fetched = Fetched { keys, left_out, notes, server_time, ..Fetched::default() };
                self.known().tagged = tag.map(|tag| (tag, fetched.clone()));
                fetched
            }
            (status, _) => return Err(self.refused(url, status)),
        };
        fetched.notes.extend(self.known().unchecked.clone());
        Ok(fetched)
    }

    /// Reads the issuer that an API server reports; `None` where the URL is not that of an API server, or
    /// reading is not permitted.
    ///
    /// # Errors
    ///
    /// Fails when there is no answer in time, or one that is not a discovery document.
    pub async fn issuer(&self) -> Result<Option<String>, RemoteError> {
        let base = self.place.url.strip_suffix(JWKS_PATH).filter(|base| base.ends_with('/'));
        let Some(url) = base.map(|base| format!("{base}{DISCOVERY_PATH}")) else {
            self.known().unchecked = Some(format!(
                "the issuer of the keys at `{}` is not checked: it does not end with `{JWKS_PATH}`",
                self.place.url
            ));
            return Ok(None);
        };
        let response = self.get(&url, None).await?;
        match response.status() {
            StatusCode::OK => {
                let document = ReceivedDiscovery::parse(&in_utf8(&self.body(response).await?))?;
                self.known().unchecked = None;
                Ok(Some(document.issuer))
            }
            status @ (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::NOT_FOUND) => {
                self.known().unchecked = Some(format!(
                    "the issuer of these keys is not checked: `{url}` was answered with status {status}"
                ));
                Ok(None)
            }
            status => Err(self.refused(&url, status)),
        }
    }

    async fn get(&self, url: &str, tag: Option<&HeaderValue>) -> Result<Response, RemoteError> {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, HeaderValue::from_static("application/jwk-set+json, application/json"));
        if let Some(tag) = tag {
            headers.insert(IF_NONE_MATCH, tag.clone());
        }
        if let Some(path) = &self.place.bearer_token_file {
            headers.insert(AUTHORIZATION, bearer(path).await?);
        }
        self.client
            .get()
            .await?
            .get(url)
            .headers(headers)
            .send()
            .await
            .map_err(|error| self.no_answer(&error))
    }

    async fn body(&self, response: Response) -> Result<Bytes, RemoteError> {
        let url = || self.place.url.clone();
        http_client::body(response, MAX_ANSWER).await.map_err(|error| match error {
            BodyError::Failed(error) => self.no_answer(&error),
            BodyError::TooLong => RemoteError::TooLarge { url: url() },
            BodyError::Encoded { coding } => RemoteError::Encoded { url: url(), coding },
        })
    }

    fn known(&self) -> std::sync::MutexGuard<'_, Cached> {
        self.known.lock().expect("nobody panics while holding it")
    }

    fn no_answer(&self, error: &reqwest::Error) -> RemoteError {
        if let Some(fault) = TlsFault::of(error) {
            return RemoteError::Tls { url: self.place.url.clone(), fault };
        }
        let reason = if error.is_timeout() { "it took too long".to_owned() } else { innermost(error) };
        RemoteError::NoAnswer { url: self.place.url.clone(), reason, connected: !error.is_connect() }
    }

    fn refused(&self, url: &str, status: StatusCode) -> RemoteError {
        let shows_token = self.place.bearer_token_file.is_some();
        RemoteError::Status { url: url.to_owned(), status, shows_token }
    }
}

/// The `Authorization` header from a token file. A trailing line break is common and ignored.
async fn bearer(path: &Path) -> Result<HeaderValue, RemoteError> {
    let bytes = blocking::read(path, MAX_FILE).await;
    let bytes = bytes.map_err(|source| RemoteError::File { path: path.to_owned(), source })?;
    let text = Zeroizing::new(in_utf8(&bytes).into_owned());
    let header = Zeroizing::new([b"Bearer ", text.trim_ascii()].concat());
    let unusable = |_| RemoteError::TokenFile { path: path.to_owned() };
    let mut value = HeaderValue::from_bytes(&header).map_err(unusable)?;
    value.set_sensitive(true);
    Ok(value)
}

#[derive(Debug, thiserror::Error)]
pub enum RemoteError {
    #[error("cannot read `{path}`", path = path.display())]
    File { path: PathBuf, source: std::io::Error },
    #[error("token file `{path}` has characters that are not valid in a token", path = path.display())]
    TokenFile { path: PathBuf },
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error("no answer from `{url}`: {reason}")]
    NoAnswer { url: String, reason: String, connected: bool },
    #[error("no TLS connection to `{url}`: {fault}")]
    Tls { url: String, fault: TlsFault },
    #[error("`{url}` was answered with status {status}")]
    Status { url: String, status: StatusCode, shows_token: bool },
    #[error("the answer of `{url}` has more than {MAX_ANSWER} bytes")]
    TooLarge { url: String },
    #[error("the answer of `{url}` is encoded as `{coding}`, which was not requested")]
    Encoded { url: String, coding: String },
    #[error("cannot use its JWKS")]
    Jwks(#[source] InvalidJwks),
    #[error("cannot use its discovery document")]
    Discovery(#[from] InvalidDiscovery),
}

impl Hint for RemoteError {
    fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Client(error) => return error.hint(),
            Self::Tls { fault, .. } => return Some(fault.fix("`ca_file` of the source")),
            Self::Encoded { .. } => "serve it without `Content-Encoding`",
            Self::NoAnswer { connected: false, .. } => {
                "try `curl` on the URL from here; `HTTPS_PROXY` and `NO_PROXY` are honoured"
            }
            Self::Status { status, .. } if status.is_redirection() => {
                "name the URL that it leads to: redirects are not followed"
            }
            Self::Status {
                status: StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN,
                shows_token: false,
                ..
            } => "name a file with a token in `bearer_token_file`, or let the document be read anonymously",
            Self::Status { status: StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN, .. } => {
                "renew the token in `bearer_token_file`, and let its owner read the document"
            }
            _ => return None,
        };
        Some(hint.to_owned())
    }
}

#[cfg(test)]
mod tests;
