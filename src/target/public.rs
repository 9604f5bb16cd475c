//! Reads the documents where relying parties read them.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard},
};

use bytes::{Bytes, BytesMut};
use reqwest::{
    Response, StatusCode,
    header::{ETAG, HeaderValue, IF_NONE_MATCH},
};
use url::Url;

use crate::core::publication::Document;

use super::{
    MAX_DOCUMENT_BYTES,
    connections::{Connections, SharedClient, checked, innermost},
    error::Cause,
    object::service_code,
};

/// A URL below which relying parties read a target.
#[derive(Debug)]
pub(super) struct PublicUrl {
    /// Without a trailing `/`.
    base: String,
    client: SharedClient,
    /// Whether it is the address of the store itself, which alone knows whom it lets read.
    is_store: bool,
    seen: Mutex<BTreeMap<Document, Seen>>,
}

/// What a reader was given, so that an answer without a body can be understood.
#[derive(Debug)]
struct Seen {
    /// Strong: a weak one does not promise the same bytes.
    e_tag: HeaderValue,
    bytes: Bytes,
}

impl PublicUrl {
    pub(super) fn new(base: &str, is_store: bool, connections: &Connections) -> Result<Self, Cause> {
        let url = Url::parse(base).map_err(|error| Cause::Address {
            address: base.to_owned(),
            reason: format!("is not a URL: {error}"),
        })?;
        checked(&url)?;
        let base = base.strip_suffix('/').unwrap_or(base).to_owned();
        Ok(Self { base, client: connections.to(url.scheme()), is_store, seen: Mutex::default() })
    }

    /// Where a relying party finds one document.
    pub(super) fn of(&self, document: Document) -> String {
        format!("{}/{}", self.base, document.path())
    }

    /// Reads a document, without credentials. Once it was `expected`, the answer has no body until it
    /// is something else.
    pub(super) async fn read(&self, document: Document, expected: &Bytes) -> Result<Bytes, Cause> {
        let request = self.client.get().await?.get(self.of(document));
        // Only while it is what it should be: the tag of nginx says size and second alone, so that one of
        // an older document might be that of the new one too.
        let known =
            self.lock().get(&document).filter(|seen| seen.bytes == expected).map(|seen| seen.e_tag.clone());
        let is_known = known.is_some();
        let request = known.into_iter().fold(request, |request, e_tag| request.header(IF_NONE_MATCH, e_tag));
        let response = request.send().await.map_err(|error| failed(&error))?;
        match response.status() {
            StatusCode::NOT_MODIFIED if is_known => return Ok(expected.clone()),
            StatusCode::OK => {}
            status if self.is_store => {
                let body = bounded(response).await.unwrap_or_default();
                let code = service_code(&String::from_utf8_lossy(&body));
                return Err(Cause::NotPublic { status, code });
            }
            status => return Err(Cause::PublicStatus { status }),
        }
        let e_tag = response.headers().get(ETAG).filter(|tag| tag.as_bytes().starts_with(b"\"")).cloned();
        let bytes = bounded(response).await?;
        let mut seen = self.lock();
        match e_tag.filter(|_| bytes == expected) {
            // The bytes that are in memory already, not a copy of them.
            Some(e_tag) => seen.insert(document, Seen { e_tag, bytes: expected.clone() }),
            None => seen.remove(&document),
        };
        Ok(bytes)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Document, Seen>> {
        self.seen.lock().expect("nobody panics while holding it")
    }
}

/// Reads no further than the longest document, whatever the length that the headers promise.
async fn bounded(mut response: Response) -> Result<Bytes, Cause> {
    let mut body = BytesMut::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| failed(&error))? {
        body.extend_from_slice(&chunk);
        if body.len() as u64 > MAX_DOCUMENT_BYTES {
            return Err(Cause::TooLong);
        }
    }
    Ok(body.freeze())
}

fn failed(error: &reqwest::Error) -> Cause {
    if error.is_timeout() {
        Cause::TimedOut
    } else if error.is_connect() {
        Cause::Unreachable(innermost(error))
    } else {
        Cause::Other(innermost(error))
    }
}

#[cfg(test)]
mod tests;
