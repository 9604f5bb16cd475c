//! The HTTP client for all requests: user agent, trust, time limits, size limits.
//!
//! One TLS set-up and one pool serve thousands of sources and targets. Redirects are not followed:
//! credentials must not travel on, and the configured URL decides which server is trusted.

use std::{
    collections::BTreeMap,
    error::Error,
    io::{self, Read as _},
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use flate2::read::MultiGzDecoder;
use reqwest::{
    Certificate, Client, ClientBuilder, Response,
    header::{CONTENT_ENCODING, HeaderMap},
    redirect::Policy,
};
use tokio::{sync::OnceCell, task::spawn_blocking};

use crate::{
    blocking,
    core::{
        jose::publication::sha256_hex,
        text::{Hint, in_utf8},
    },
};

/// The `User-Agent` of every request: firewalls refuse requests without one.
pub const USER_AGENT: &str = concat!(env!("CARGO_PKG_NAME"), "/", env!("CARGO_PKG_VERSION"));
/// Longest wait for a connection, including TLS.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Time limit of one request, including its body: well below the 30 s between two polls. The documents are
/// small: a slower service is faulty, and the next pass retries.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// Largest file of certificate authorities, in bytes: that of a system takes a tenth of it.
const MAX_CA_FILE: u64 = 4 * 1024 * 1024;

/// The trusted certificate authorities.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Trust {
    /// Those of the system, or of `SSL_CERT_FILE`.
    #[default]
    System,
    /// Those of this file in addition to the system's.
    Also(PathBuf),
    /// Only those of this file.
    Only(PathBuf),
}

impl Trust {
    /// # Errors
    ///
    /// Fails when the file cannot be read.
    async fn read(&self) -> Result<Option<(&Path, Vec<u8>)>, ClientError> {
        let (Self::Also(path) | Self::Only(path)) = self else { return Ok(None) };
        let pem = blocking::read(path, MAX_CA_FILE).await;
        let pem = pem.map_err(|source| ClientError::Unreadable { path: path.clone(), source })?;
        Ok(Some((path, in_utf8(&pem).into_owned())))
    }

    fn apply(
        &self,
        builder: ClientBuilder,
        file: Option<(&Path, &[u8])>,
    ) -> Result<ClientBuilder, ClientError> {
        let Some((path, pem)) = file else { return Ok(builder) };
        let unusable = |source| ClientError::Unusable { path: path.to_owned(), source };
        let trusted = Certificate::from_pem_bundle(pem).map_err(|source| unusable(Some(source)))?;
        if trusted.is_empty() {
            return Err(unusable(None));
        }
        Ok(match self {
            Self::Only(_) => builder.tls_certs_only(trusted),
            Self::System | Self::Also(_) => builder.tls_certs_merge(trusted),
        })
    }
}

/// Builds a client that is not shared, from the common settings and those that `adapt` adds.
///
/// # Errors
///
/// Fails when the certificate authorities cannot be loaded.
pub async fn client(
    trust: &Trust,
    adapt: impl FnOnce(ClientBuilder) -> ClientBuilder + Send + 'static,
) -> Result<Client, ClientError> {
    let file = trust.read().await?;
    make(trust, file.as_ref().map(|(path, pem)| (*path, pem.as_slice())), adapt).await
}

/// On a blocking thread: loading the certificates of the system takes longer than the rest of the start.
async fn make(
    trust: &Trust,
    file: Option<(&Path, &[u8])>,
    adapt: impl FnOnce(ClientBuilder) -> ClientBuilder + Send + 'static,
) -> Result<Client, ClientError> {
    let common = Client::builder()
        .user_agent(USER_AGENT)
        .redirect(Policy::none())
        .connect_timeout(CONNECT_TIMEOUT)
        .timeout(REQUEST_TIMEOUT);
    let builder = trust.apply(common, file)?;
    let made = spawn_blocking(move || adapt(builder).build()).await.expect("making a client does not panic");
    let path = file.map(|(path, _)| path.to_owned());
    made.map_err(|source| match path {
        Some(path) => ClientError::Unusable { path, source: Some(source) },
        None => ClientError::System(source),
    })
}

/// The shared clients. Each is built on first use, and again when its `ca_file` has changed.
#[derive(Clone, Debug, Default)]
pub struct HttpClients(Arc<Clients>);

#[derive(Debug, Default)]
struct Clients {
    encrypted: OnceCell<Client>,
    plain: OnceCell<Client>,
    /// With the digest of the trusted file.
    trusting: Mutex<BTreeMap<Trust, (String, Client)>>,
}

impl HttpClients {
    /// The client for an address; unencrypted only for `http`.
    #[must_use]
    pub fn to(&self, scheme: &str, trust: Trust) -> SharedClient {
        SharedClient { clients: Arc::clone(&self.0), plain: scheme == "http", trust }
    }
}

/// The client for one kind of address, built on first use.
#[derive(Clone, Debug)]
pub struct SharedClient {
    clients: Arc<Clients>,
    plain: bool,
    trust: Trust,
}

impl SharedClient {
    /// # Errors
    ///
    /// Fails when the certificate authorities cannot be loaded; the next request tries again.
    pub async fn get(&self) -> Result<Client, ClientError> {
        if self.plain {
            // Unencrypted services are local; a proxy would only read the credentials.
            let plain = || make(&self.trust, None, ClientBuilder::no_proxy);
            return self.clients.plain.get_or_try_init(plain).await.cloned();
        }
        let encrypted = |builder: ClientBuilder| builder.https_only(true);
        let Some((path, pem)) = self.trust.read().await? else {
            return self
                .clients
                .encrypted
                .get_or_try_init(|| make(&self.trust, None, encrypted))
                .await
                .cloned();
        };
        let digest = sha256_hex(&pem);
        if let Some((known, client)) = self.trusting().get(&self.trust)
            && *known == digest
        {
            return Ok(client.clone());
        }
        let client = make(&self.trust, Some((path, &pem)), encrypted).await?;
        self.trusting().insert(self.trust.clone(), (digest, client.clone()));
        Ok(client)
    }

    fn trusting(&self) -> std::sync::MutexGuard<'_, BTreeMap<Trust, (String, Client)>> {
        self.clients.trusting.lock().expect("nobody panics while holding it")
    }
}

#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error("cannot load the certificate authorities that are to be trusted")]
    System(#[source] reqwest::Error),
    #[error("cannot read `{path}`", path = path.display())]
    Unreadable { path: PathBuf, source: io::Error },
    #[error("`{path}` holds no certificates that can be trusted", path = path.display())]
    Unusable { path: PathBuf, source: Option<reqwest::Error> },
}

impl Hint for ClientError {
    fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::System(_) => "install the system's CA certificates, or name a bundle in `SSL_CERT_FILE`",
            Self::Unreadable { .. } => "name a file that this process can read",
            Self::Unusable { .. } => "name a file with the certificates of the authorities, PEM",
        };
        Some(hint.to_owned())
    }
}

/// The content coding of an answer although none was requested; `None`: not encoded.
#[must_use]
pub fn content_coding(headers: &HeaderMap) -> Option<String> {
    let named = headers.get_all(CONTENT_ENCODING).iter();
    let named: Vec<_> =
        named.map(|value| String::from_utf8_lossy(value.as_bytes()).to_ascii_lowercase()).collect();
    let codings = named.iter().flat_map(|value| value.split(',')).map(str::trim);
    let codings: Vec<_> = codings.filter(|coding| !matches!(*coding, "" | "identity")).collect();
    (!codings.is_empty()).then(|| codings.join(", "))
}

/// The body of an answer, limited to `limit` bytes. An unrequested coding is decoded: RFC 9110 section 12.5.3
/// allows it, and stores return what was uploaded.
///
/// # Errors
///
/// Fails when the answer is truncated, is too long, or has a coding other than `gzip`.
pub async fn body(mut response: Response, limit: u64) -> Result<Bytes, BodyError> {
    let coding = content_coding(response.headers());
    let mut body = BytesMut::new();
    while let Some(chunk) = response.chunk().await.map_err(BodyError::Failed)? {
        if (body.len() + chunk.len()) as u64 > limit {
            return Err(BodyError::TooLong);
        }
        body.extend_from_slice(&chunk);
    }
    match coding {
        None => Ok(body.freeze()),
        Some(coding) => decoded(&body, coding, limit).map(Bytes::from),
    }
}

fn decoded(body: &[u8], coding: String, limit: u64) -> Result<Vec<u8>, BodyError> {
    if !matches!(coding.as_str(), "gzip" | "x-gzip") {
        return Err(BodyError::Encoded { coding });
    }
    let mut plain = Vec::new();
    let mut decoder = MultiGzDecoder::new(body).take(limit + 1);
    match decoder.read_to_end(&mut plain) {
        Ok(length) if length as u64 > limit => Err(BodyError::TooLong),
        Ok(_) => Ok(plain),
        Err(_) => Err(BodyError::Encoded { coding }),
    }
}

#[derive(Debug)]
pub enum BodyError {
    Failed(reqwest::Error),
    TooLong,
    /// The content coding is not supported.
    Encoded {
        coding: String,
    },
}

/// The innermost text of a failure; the layers around it only say that it failed.
#[must_use]
pub fn innermost(error: &(dyn Error + 'static)) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}

#[cfg(test)]
mod tests;
