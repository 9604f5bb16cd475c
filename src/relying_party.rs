//! Reads documents as a relying party would: anonymously, without redirects, in little time.

use std::time::Duration;

use bytes::BytesMut;
use reqwest::{Client, header::CONTENT_TYPE, redirect::Policy};

use crate::core::verification::Exhibit;

/// Longest that one document may take; what Microsoft Entra waits is not documented.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Longest document that is read, in bytes.
const MAX_DOCUMENT: usize = 1024 * 1024;

/// Somebody who has a token and wants to know whether to believe it.
#[derive(Clone, Debug)]
pub struct RelyingParty(Client);

impl RelyingParty {
    /// Trusts the certificate authorities of the system, or those of `SSL_CERT_FILE`.
    ///
    /// # Errors
    ///
    /// Fails when they cannot be loaded.
    pub fn new() -> Result<Self, ReadError> {
        let client = Client::builder().redirect(Policy::none()).timeout(TIMEOUT).build();
        client.map(Self).map_err(|source| ReadError { url: "https://".to_owned(), source })
    }

    /// Reads one document; whatever the answer says is evidence.
    ///
    /// # Errors
    ///
    /// Fails when there is no answer: that says as much about this machine as about the issuer.
    pub async fn read(&self, url: &str) -> Result<Exhibit, ReadError> {
        let failed = |source| ReadError { url: url.to_owned(), source };
        let mut response = self.0.get(url).send().await.map_err(failed)?;
        let content_type = response.headers().get(CONTENT_TYPE);
        let content_type = content_type.and_then(|value| value.to_str().ok()).map(str::to_owned);
        let mut body = BytesMut::new();
        while let Some(chunk) = response.chunk().await.map_err(failed)? {
            body.extend_from_slice(&chunk);
            if body.len() > MAX_DOCUMENT {
                // What is cut off cannot be parsed, and is reported so.
                body.truncate(MAX_DOCUMENT);
                break;
            }
        }
        let status = response.status().as_u16();
        Ok(Exhibit::Answer { url: url.to_owned(), status, content_type, bytes: body.to_vec() })
    }
}

/// There was no answer.
#[derive(Debug, thiserror::Error)]
#[error("cannot read `{url}` as a relying party would")]
pub struct ReadError {
    url: String,
    source: reqwest::Error,
}

impl ReadError {
    /// What the operator can do.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        self.source.is_connect().then(|| {
            "try `curl` on the URL from outside the cluster; or check offline with `--discovery FILE --jwks FILE`"
                .to_owned()
        })
    }
}
