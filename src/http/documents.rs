//! Serves the two documents of every issuer.
//!
//! From socket to bytes nothing is rendered, locked or allocated that depends on the request: headers and
//! bodies are made once per publication and swapped atomically.

use std::{
    collections::HashMap,
    convert::Infallible,
    future::{Ready, ready},
    sync::Arc,
};

use arc_swap::{ArcSwap, ArcSwapOption};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Version, header};
use http_body_util::Full;
use hyper::{
    body::{Body as _, Incoming},
    service::Service,
};

use crate::core::jose::publication::{Document, MEDIA_TYPE, Publication, Terms};

mod counters;

pub use counters::Counters;

/// `Retry-After` in seconds before the first publication: the next poll of a failing source is one second
/// away.
const RETRY_AFTER: HeaderValue = HeaderValue::from_static("5");

/// Header fields of an answer, with room for those that the connection adds.
const FIELDS: usize = 8;

/// The documents that one issuer serves now: empty until its first publication.
#[derive(Clone, Default)]
pub struct Slot(Arc<ArcSwapOption<Rendered>>);

struct Rendered {
    cache_control: HeaderValue,
    jwks: File,
    discovery: File,
}

struct File {
    etag: HeaderValue,
    body: Bytes,
}

impl Slot {
    /// Serves this publication from the next request on.
    pub fn publish(&self, publication: &Publication) {
        let file = |document| File {
            etag: HeaderValue::try_from(publication.etag(document)).expect("an entity tag is ASCII"),
            body: publication.bytes(document).clone(),
        };
        self.0.store(Some(Arc::new(Rendered {
            cache_control: HeaderValue::try_from(publication.cache_control()).expect("a number is ASCII"),
            jwks: file(Document::Jwks),
            discovery: file(Document::Discovery),
        })));
    }
}

/// The routes to all issuers' documents. Cheap to clone; every clone sees what [`Routes::set`] sets.
#[derive(Clone)]
pub struct Routes {
    table: Arc<ArcSwap<Table>>,
    counters: Arc<Counters>,
}

/// By the path of the document; more than one where issuers differ only in their host.
type Table = HashMap<Box<str>, Vec<Route>>;

struct Route {
    authority: Box<str>,
    /// The default port, which a client may include or omit.
    port: &'static [u8],
    document: Document,
    slot: Slot,
}

impl Routes {
    /// No routes yet: every path is unknown.
    #[must_use]
    pub fn new(counters: Arc<Counters>) -> Self {
        Self { table: Arc::default(), counters }
    }

    /// Replaces the served issuers from the next request on, atomically.
    pub fn set(&self, issuers: impl IntoIterator<Item = (Terms, Slot)>) {
        let mut table = Table::new();
        for (terms, slot) in issuers {
            let (issuer, paths) = (&terms.issuer, terms.paths());
            let port: &[u8] = if issuer.as_str().starts_with("http://") { b":80" } else { b":443" };
            for document in Document::IN_WRITE_ORDER {
                let path = format!("{}/{}", issuer.path(), paths.of(document));
                let route =
                    Route { authority: issuer.authority().into(), port, document, slot: slot.clone() };
                table.entry(path.into()).or_default().push(route);
            }
        }
        table.shrink_to_fit();
        self.table.store(Arc::new(table));
    }

    /// Answers a request; its body is not read.
    pub fn answer<B>(&self, request: &Request<B>) -> Response<Full<Bytes>> {
        let mut response = self.answer_in_full(request);
        // HTTP/2 sends a given body even to `HEAD`.
        if request.method() == Method::HEAD {
            let length = response.body().size_hint().exact().unwrap_or_default();
            *response.body_mut() = Full::default();
            if length > 0 {
                response.headers_mut().insert(header::CONTENT_LENGTH, length.into());
            }
        }
        response
    }

    fn answer_in_full<B>(&self, request: &Request<B>) -> Response<Full<Bytes>> {
        let table = self.table.load();
        if !names_one_host(request) {
            self.counters.count_unknown();
            return plain(StatusCode::BAD_REQUEST, "expected one Host\n");
        }
        let Some(route) = find(&table, request) else {
            self.counters.count_unknown();
            return plain(StatusCode::NOT_FOUND, "not found\n");
        };
        let response = route.slot.answer(route.document, request.method(), request.headers());
        self.counters.count(route.document, response.status());
        response
    }
}

/// The document at a path; the host matters only where several issuers share the path.
fn find<'a, B>(table: &'a Table, request: &Request<B>) -> Option<&'a Route> {
    match table.get(request.uri().path())?.as_slice() {
        [route] => Some(route),
        routes => {
            let host = host(request)?;
            routes.iter().find(|route| {
                let host = host.strip_suffix(route.port).unwrap_or(host);
                route.authority.as_bytes().eq_ignore_ascii_case(host)
            })
        }
    }
}

/// The authority of the request: in the target for HTTP/2, in a field for HTTP/1.1.
fn host<B>(request: &Request<B>) -> Option<&[u8]> {
    let target = request.uri().authority().map(|authority| authority.as_str().as_bytes());
    target.or_else(|| Some(request.headers().get(header::HOST)?.as_bytes()))
}

/// Whether the request names exactly one host, as HTTP/1.1 requires (RFC 9112 section 3.2): with two names,
/// two parsers may choose different ones.
fn names_one_host<B>(request: &Request<B>) -> bool {
    let mut hosts = request.headers().get_all(header::HOST).iter();
    let is_host = |host: &HeaderValue| {
        host.as_bytes()
            .iter()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-._~%!$&'()*+,;=:[]".contains(byte))
    };
    match (hosts.next(), hosts.next()) {
        (Some(host), None) => is_host(host),
        (None, _) => request.version() != Version::HTTP_11,
        (Some(_), Some(_)) => false,
    }
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
        if named(headers, &header::IF_MATCH, &file.etag, Comparison::Strong) == Some(false) {
            *response.status_mut() = StatusCode::PRECONDITION_FAILED;
            return response;
        }
        if named(headers, &header::IF_NONE_MATCH, &file.etag, Comparison::Weak) == Some(true) {
            *response.status_mut() = StatusCode::NOT_MODIFIED;
            return response;
        }
        fields.insert(header::CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE));
        *response.body_mut() = Full::new(file.body.clone());
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

/// Whether weak tags match (RFC 9110 section 8.8.3.2).
#[derive(Clone, Copy, PartialEq, Eq)]
enum Comparison {
    Strong,
    Weak,
}

/// Whether a condition names the tag, in any of its lines (RFC 9110 section 13.1); `None` without a
/// condition.
fn named(headers: &HeaderMap, condition: &HeaderName, etag: &HeaderValue, how: Comparison) -> Option<bool> {
    let names_it = |tags: &HeaderValue| {
        tags.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii).any(|tag| {
            let strong = tag.strip_prefix(b"W/").filter(|_| how == Comparison::Weak).unwrap_or(tag);
            tag == b"*" || strong == etag.as_bytes()
        })
    };
    let mut lines = headers.get_all(condition).iter().peekable();
    lines.peek()?;
    Some(lines.any(names_it))
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
