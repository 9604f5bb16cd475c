//! Reads the documents where relying parties read them: at `public_url`, and with `anonymous` at the store's
//! address.
//!
//! A private store looks right with credentials, while relying parties get 403. The address for `anonymous`
//! is derived, not configured: then a failure is known to come from the store, and the hint can explain how
//! to permit access.
//!
//! Reads are conditional only while the last read was correct. nginx derives tags from size and time in
//! seconds, so two JWKS written within a second may share a tag, and the older one would look current without
//! end. Weak tags do not guarantee equal bytes and are not used.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard},
};

use bytes::Bytes;
use reqwest::{
    Response, StatusCode,
    header::{ETAG, HeaderValue, IF_NONE_MATCH},
};
use url::Url;

use crate::{
    core::{
        freshness::CacheFields,
        jose::publication::{Document, Paths},
        tls_fault::TlsFault,
    },
    http_client::{self, BodyError, innermost},
};

use super::{
    MAX_DOCUMENT_BYTES,
    connections::{Connections, checked},
    error::Cause,
    object::service_code,
};

/// A URL below which relying parties read a target.
#[derive(Debug)]
pub(super) struct PublicUrl {
    /// Without a trailing `/`.
    base: String,
    /// The URL of the JWKS.
    jwks: String,
    connections: Connections,
    /// Whether it is the address of the store itself, which controls anonymous reads.
    is_store: bool,
    seen: Mutex<BTreeMap<Document, CachedDocument>>,
}

/// The last document received, to interpret an answer without a body.
#[derive(Clone, Debug)]
struct CachedDocument {
    /// A strong tag: a weak one does not guarantee equal bytes.
    e_tag: HeaderValue,
    got: Got,
}

/// A document as relying parties get it.
#[derive(Clone, Debug)]
pub(super) struct Got {
    pub(super) bytes: Bytes,
    /// Its caching headers.
    pub(super) cache: CacheFields,
    pub(super) content_type: Option<String>,
}

impl PublicUrl {
    pub(super) fn new(base: &str, is_store: bool, connections: &Connections) -> Result<Self, Cause> {
        let url = Url::parse(base).map_err(|error| Cause::Address {
            address: base.to_owned(),
            reason: format!("is not a URL: {error}"),
        })?;
        checked(&url)?;
        let base = base.strip_suffix('/').unwrap_or(base).to_owned();
        let connections = connections.clone();
        let jwks = format!("{base}/{}", Paths::default().of(Document::Jwks));
        Ok(Self { base, jwks, connections, is_store, seen: Mutex::default() })
    }

    /// The same URL with the JWKS at another path or URL.
    pub(super) fn with_jwks(mut self, paths: &Paths, elsewhere: Option<&str>) -> Self {
        let below = || format!("{}/{}", self.base, paths.of(Document::Jwks));
        self.jwks = elsewhere.map_or_else(below, str::to_owned);
        self
    }

    async fn get(&self, url: &str, known: Option<HeaderValue>) -> Result<Response, Cause> {
        let scheme = url.split(':').next().unwrap_or_default();
        let client = self.connections.to(scheme);
        let request = client.get().await?.get(url);
        let request = known.into_iter().fold(request, |request, e_tag| request.header(IF_NONE_MATCH, e_tag));
        request.send().await.map_err(|error| failed(&error))
    }

    /// Without a trailing `/`.
    pub(super) fn base(&self) -> &str {
        &self.base
    }

    /// The URL of one document for relying parties.
    pub(super) fn of(&self, document: Document) -> String {
        match document {
            Document::Jwks => self.jwks.clone(),
            Document::Discovery => format!("{}/{}", self.base, Paths::default().of(document)),
        }
    }

    /// Whether a URL can be read without credentials.
    pub(super) async fn is_readable(&self, url: &str) -> Result<bool, Cause> {
        Ok(self.get(url, None).await?.status() == StatusCode::OK)
    }

    /// Reads a document without credentials. Once it was `expected`, answers have no body until it changes.
    pub(super) async fn read(&self, document: Document, expected: &Bytes) -> Result<Got, Cause> {
        // Conditional only while the document is as expected: the tag of nginx contains only size and second,
        // so the tag of an older document may equal that of the new one.
        let known = self.lock().get(&document).filter(|seen| seen.got.bytes == expected).cloned();
        let response = self.get(&self.of(document), known.as_ref().map(|seen| seen.e_tag.clone())).await?;
        let field = |name: &str| Some(response.headers().get(name)?.to_str().ok()?.to_owned());
        let cache = CacheFields::of(field);
        match (response.status(), known) {
            // Not every store repeats the caching headers in a 304.
            (StatusCode::NOT_MODIFIED, Some(CachedDocument { got, .. })) => {
                return Ok(if cache.cache_control.is_some() { Got { cache, ..got } } else { got });
            }
            (StatusCode::OK, _) => {}
            (status, _) if self.is_store => {
                let body = bounded(response).await.unwrap_or_default();
                let code = service_code(&String::from_utf8_lossy(&body));
                return Err(Cause::NotPublic { status, code });
            }
            (status, _) => return Err(Cause::PublicStatus { status }),
        }
        let e_tag = response.headers().get(ETAG).filter(|tag| tag.as_bytes().starts_with(b"\"")).cloned();
        let content_type = field("content-type");
        let bytes = bounded(response).await?;
        let mut seen = self.lock();
        if let Some(e_tag) = e_tag.filter(|_| bytes == expected) {
            // Shares the bytes in memory instead of a copy.
            let got = Got { bytes: expected.clone(), cache, content_type };
            seen.insert(document, CachedDocument { e_tag, got: got.clone() });
            Ok(got)
        } else {
            seen.remove(&document);
            Ok(Got { bytes, cache, content_type })
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Document, CachedDocument>> {
        self.seen.lock().expect("nobody panics while holding it")
    }
}

/// Reads no more than the longest document, whatever `Content-Length` says.
pub(super) async fn bounded(response: Response) -> Result<Bytes, Cause> {
    http_client::body(response, MAX_DOCUMENT_BYTES).await.map_err(|error| match error {
        BodyError::Failed(error) => failed(&error),
        BodyError::TooLong => Cause::TooLong,
        BodyError::Encoded { coding } => Cause::Encoded { coding },
    })
}

pub(super) fn failed(error: &reqwest::Error) -> Cause {
    if error.is_timeout() {
        Cause::TimedOut
    } else if let Some(fault) = TlsFault::of(error) {
        Cause::Tls(fault)
    } else if error.is_connect() {
        Cause::Unreachable(innermost(error))
    } else {
        Cause::Other(innermost(error))
    }
}

#[cfg(test)]
mod tests;
