//! Reads the documents where relying parties read them.

use bytes::{Bytes, BytesMut};
use reqwest::{Client, Response, StatusCode};
use url::Url;

use crate::core::publication::Document;

use super::{
    MAX_DOCUMENT_BYTES,
    connections::{Connections, checked, innermost},
    error::Cause,
};

/// The URL below which a target is public.
#[derive(Debug)]
pub(super) struct PublicUrl {
    /// Without a trailing `/`.
    base: String,
    client: Client,
}

impl PublicUrl {
    pub(super) fn new(base: &str, connections: &Connections) -> Result<Self, Cause> {
        let url = Url::parse(base).map_err(|error| Cause::Address {
            address: base.to_owned(),
            reason: format!("is not a URL: {error}"),
        })?;
        checked(&url)?;
        let base = base.strip_suffix('/').unwrap_or(base).to_owned();
        Ok(Self { base, client: connections.to(url.scheme())?.clone() })
    }

    /// Where a relying party finds one document.
    pub(super) fn of(&self, document: Document) -> String {
        format!("{}/{}", self.base, document.path())
    }

    /// Reads a document, without credentials.
    pub(super) async fn read(&self, url: &str) -> Result<Bytes, Cause> {
        let response = self.client.get(url).send().await.map_err(|error| failed(&error))?;
        if response.status() != StatusCode::OK {
            return Err(Cause::PublicStatus { status: response.status() });
        }
        bounded(response).await
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
