//! Serves the two documents of every issuer.
//!
//! From socket to bytes nothing is rendered, locked or allocated that depends on the request: headers
//! and bodies are made once per publication and swapped atomically.

use std::{
    collections::HashMap,
    convert::Infallible,
    future::{Ready, ready},
    sync::Arc,
};

use arc_swap::{ArcSwap, ArcSwapOption};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::{body::Incoming, service::Service};

use crate::core::{
    issuer::Issuer,
    publication::{Document, MEDIA_TYPE, Publication},
};

mod counters;

pub use counters::Counters;

/// Seconds after which a client should ask again when nothing could be published yet: the next poll of a
/// source that fails is one second away.
const RETRY_AFTER: HeaderValue = HeaderValue::from_static("5");

/// Fields of an answer, with room for those that the connection adds.
const FIELDS: usize = 8;

/// What one issuer serves now: empty until its first publication.
#[derive(Clone, Default)]
pub struct Slot(Arc<ArcSwapOption<Rendered>>);

struct Rendered {
    cache_control: HeaderValue,
    jwks: File,
    discovery: File,
}

struct File {
    etag: HeaderValue,
    /// What `Content-Length` says where no body says it: HTTP/2 sends the body that it is given, even to
    /// `HEAD`.
    length: HeaderValue,
    body: Bytes,
}

impl Slot {
    /// Serves this publication from the next request on.
    pub fn publish(&self, publication: &Publication) {
        let file = |document| File {
            etag: HeaderValue::try_from(publication.etag(document)).expect("an entity tag is ASCII"),
            length: publication.bytes(document).len().into(),
            body: publication.bytes(document).clone(),
        };
        self.0.store(Some(Arc::new(Rendered {
            cache_control: HeaderValue::try_from(publication.cache_control()).expect("a number is ASCII"),
            jwks: file(Document::Jwks),
            discovery: file(Document::Discovery),
        })));
    }
}

/// Which issuer's documents are served where. Cheap to clone; every clone sees what [`Routes::set`] sets.
#[derive(Clone)]
pub struct Routes {
    table: Arc<ArcSwap<Table>>,
    counters: Arc<Counters>,
}

/// By the path of the issuer; more than one where issuers differ in their host alone.
type Table = HashMap<Box<str>, Vec<Route>>;

struct Route {
    authority: Box<str>,
    slot: Slot,
}

impl Routes {
    /// No routes yet: every path is unknown.
    #[must_use]
    pub fn new(counters: Arc<Counters>) -> Self {
        Self { table: Arc::default(), counters }
    }

    /// Serves these issuers and no others from the next request on; no request meets half of them.
    pub fn set(&self, issuers: impl IntoIterator<Item = (Issuer, Slot)>) {
        let mut table = Table::new();
        for (issuer, slot) in issuers {
            let route = Route { authority: issuer.authority().into(), slot };
            table.entry(issuer.path().into()).or_default().push(route);
        }
        table.shrink_to_fit();
        self.table.store(Arc::new(table));
    }

    /// What is answered to a request; its body is never looked at.
    pub fn answer<B>(&self, request: &Request<B>) -> Response<Full<Bytes>> {
        let table = self.table.load();
        let Some((document, route)) = find(&table, request) else {
            self.counters.count_unknown();
            return plain(StatusCode::NOT_FOUND, "not found\n");
        };
        let response = route.slot.answer(document, request.method(), request.headers());
        self.counters.count(document, response.status());
        response
    }
}

/// The document that a path is of, by the issuer's path, and by host only where several issuers share it.
fn find<'a, B>(table: &'a Table, request: &Request<B>) -> Option<(Document, &'a Route)> {
    let (document, issuer) = Document::IN_WRITE_ORDER.into_iter().find_map(|document| {
        let below = request.uri().path().strip_suffix(document.path())?;
        Some((document, below.strip_suffix('/')?))
    })?;
    let route = match table.get(issuer)?.as_slice() {
        [route] => route,
        routes => {
            let host = host(request)?;
            routes.iter().find(|route| route.authority.as_bytes().eq_ignore_ascii_case(host))?
        }
    };
    Some((document, route))
}

/// The authority of the request: HTTP/2 has it in its target, HTTP/1.1 in a field.
fn host<B>(request: &Request<B>) -> Option<&[u8]> {
    let target = request.uri().authority().map(|authority| authority.as_str().as_bytes());
    target.or_else(|| Some(request.headers().get(header::HOST)?.as_bytes()))
}

impl Slot {
    fn answer(&self, document: Document, method: &Method, headers: &HeaderMap) -> Response<Full<Bytes>> {
        if method != Method::GET && method != Method::HEAD {
            let mut response = plain(StatusCode::METHOD_NOT_ALLOWED, "method not allowed\n");
            response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
            return response;
        }
        let rendered = self.0.load();
        let Some(rendered) = rendered.as_deref() else {
            let mut response = plain(StatusCode::SERVICE_UNAVAILABLE, "no keys are known yet\n");
            response.headers_mut().insert(header::RETRY_AFTER, RETRY_AFTER);
            return response;
        };
        let file = match document {
            Document::Jwks => &rendered.jwks,
            Document::Discovery => &rendered.discovery,
        };
        let mut response = Response::new(Full::default());
        let fields = response.headers_mut();
        fields.reserve(FIELDS);
        fields.insert(header::CACHE_CONTROL, rendered.cache_control.clone());
        fields.insert(header::ETAG, file.etag.clone());
        // Browsers may read it from any origin: it is public, and some relying parties are web pages.
        fields.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
        fields.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        if headers.get(header::IF_NONE_MATCH).is_some_and(|tags| matches(tags, &file.etag)) {
            *response.status_mut() = StatusCode::NOT_MODIFIED;
            return response;
        }
        fields.insert(header::CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE));
        if method == Method::HEAD {
            fields.insert(header::CONTENT_LENGTH, file.length.clone());
        } else {
            *response.body_mut() = Full::new(file.body.clone());
        }
        response
    }
}

impl Service<Request<Incoming>> for Routes {
    type Response = Response<Full<Bytes>>;
    type Error = Infallible;
    type Future = Ready<Result<Self::Response, Infallible>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        ready(Ok(self.answer(&request)))
    }
}

/// Whether `If-None-Match` names the tag (RFC 9110 section 13.1.2: weak comparison).
fn matches(tags: &HeaderValue, etag: &HeaderValue) -> bool {
    let (tags, etag) = (tags.as_bytes(), etag.as_bytes());
    tags == b"*"
        || tags.split(|byte| *byte == b',').any(|tag| {
            let tag = tag.trim_ascii();
            tag.strip_prefix(b"W/").unwrap_or(tag) == etag
        })
}

fn plain(status: StatusCode, text: &'static str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from_static(text.as_bytes())));
    *response.status_mut() = status;
    let fields = response.headers_mut();
    fields.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    fields.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    fields.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

#[cfg(test)]
mod tests;
