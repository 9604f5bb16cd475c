use std::sync::Arc;

use futures_util::FutureExt as _;
use http::{HeaderMap, Method, Request, StatusCode, Version, header};
use http_body_util::BodyExt as _;

use super::{Counters, Routes, Slot};
use crate::core::{
    jose::{
        issuer::Issuer,
        jwk_set::Profile,
        publication::{Document, Publication, Terms},
    },
    tests::{rsa_key, terms},
};

const JWKS: &str = "/c1/openid/v1/jwks";
const DISCOVERY: &str = "/c1/.well-known/openid-configuration";

fn publication() -> Publication {
    Publication::render(&terms(), Profile::Entra, [rsa_key(1)]).expect("one key")
}

fn routes(issuers: impl IntoIterator<Item = (Terms, Slot)>) -> Routes {
    let routes = Routes::new(Arc::default());
    routes.set(issuers);
    routes
}

fn terms_of(issuer: &str) -> Terms {
    let issuer = Issuer::parse(issuer).expect("valid");
    Terms { jwks_uri: issuer.jwks_uri(), issuer, max_age: terms().max_age }
}

fn published(publication: &Publication) -> Slot {
    let slot = Slot::default();
    slot.publish(publication);
    slot
}

fn served() -> Routes {
    routes([(terms(), published(&publication()))])
}

fn ask(
    routes: &Routes,
    method: Method,
    target: &str,
    fields: &[(&str, &str)],
) -> (StatusCode, HeaderMap, Vec<u8>) {
    let mut request = Request::builder().method(method).uri(target);
    if fields.iter().all(|(name, _)| *name != "host") {
        request = request.header(header::HOST, "k8s.example");
    }
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    let (parts, body) = routes.answer(&request.body(()).expect("valid")).into_parts();
    let body = body.collect().now_or_never().expect("in memory").expect("infallible");
    (parts.status, parts.headers, body.to_bytes().to_vec())
}

#[test]
fn documents_are_served_with_the_bytes_of_the_publication_and_these_headers_alone() {
    for (path, document) in [(JWKS, Document::Jwks), (DISCOVERY, Document::Discovery)] {
        let (status, headers, body) = ask(&served(), Method::GET, path, &[]);
        assert_eq!(StatusCode::OK, status);
        assert_eq!(publication().bytes(document), &body);
        let mut named: Vec<_> =
            headers.iter().map(|(name, value)| (name.as_str(), value.to_str().expect("ascii"))).collect();
        named.sort_unstable();
        let etag = publication().etag(document);
        let expected = [
            ("access-control-allow-origin", "*"),
            ("cache-control", "public, max-age=300"),
            ("content-type", "application/json"),
            ("etag", etag.as_str()),
            ("x-content-type-options", "nosniff"),
        ];
        // `Content-Length` is added on the way to the socket, from the body's size.
        assert_eq!(expected.to_vec(), named);
    }
}

#[test]
fn a_known_entity_tag_is_answered_without_a_body() {
    let etag = publication().etag(Document::Jwks);
    for tags in [etag.clone(), format!("W/{etag}"), format!("\"other\", {etag}"), "*".to_owned()] {
        let (status, headers, body) = ask(&served(), Method::GET, JWKS, &[("if-none-match", &tags)]);
        assert_eq!((StatusCode::NOT_MODIFIED, 0), (status, body.len()), "{tags}");
        assert_eq!(etag, headers[header::ETAG]);
        // RFC 9110 section 15.4.5: the cache has the other fields.
        assert_eq!((None, None), (headers.get(header::CONTENT_TYPE), headers.get(header::CONTENT_LENGTH)));
    }
    let (status, ..) = ask(&served(), Method::GET, JWKS, &[("if-none-match", "\"other\"")]);
    assert_eq!(StatusCode::OK, status);
}

#[test]
fn a_condition_may_have_several_lines_and_the_one_of_writers_is_heeded_too() {
    let etag = publication().etag(Document::Jwks);
    let status = |fields: &[(&str, &str)]| ask(&served(), Method::GET, JWKS, fields).0;
    let lines = [("if-none-match", "\"other\""), ("if-none-match", etag.as_str())];
    assert_eq!(StatusCode::NOT_MODIFIED, status(&lines));
    assert_eq!(StatusCode::OK, status(&[("if-match", "\"other\""), ("if-match", &etag)]));
    assert_eq!(StatusCode::OK, status(&[("if-match", "*")]));
    let weak = format!("W/{etag}");
    for fields in [[("if-match", "\"other\"")], [("if-match", weak.as_str())]] {
        let (status, _, body) = ask(&served(), Method::GET, JWKS, &fields);
        assert_eq!((StatusCode::PRECONDITION_FAILED, 0), (status, body.len()));
    }
}

#[test]
fn head_is_answered_as_get_without_the_body_whatever_the_answer() {
    let empty = routes([(terms(), Slot::default())]);
    for (routes, path) in [(&served(), JWKS), (&served(), "/nowhere"), (&empty, JWKS)] {
        let (status, mut headers, body) = ask(routes, Method::HEAD, path, &[]);
        let (of_get, get_headers, document) = ask(routes, Method::GET, path, &[]);
        assert_eq!((of_get, 0), (status, body.len()), "{path}");
        assert_eq!(document.len().to_string(), headers.remove(header::CONTENT_LENGTH).expect("a length"));
        assert_eq!(get_headers, headers);
    }
    let etag = publication().etag(Document::Jwks);
    let (status, headers, _) = ask(&served(), Method::HEAD, JWKS, &[("if-none-match", &etag)]);
    assert_eq!((StatusCode::NOT_MODIFIED, None), (status, headers.get(header::CONTENT_LENGTH)));
}

#[test]
fn a_request_without_one_host_is_refused_as_http_1_1_demands() {
    let status = |version: Version, hosts: &[&str]| {
        let mut request = Request::builder().uri(JWKS).version(version);
        for host in hosts {
            request = request.header(header::HOST, *host);
        }
        served().answer(&request.body(()).expect("valid")).status()
    };
    assert_eq!(StatusCode::OK, status(Version::HTTP_11, &["k8s.example:443"]));
    assert_eq!(StatusCode::OK, status(Version::HTTP_10, &[]));
    assert_eq!(StatusCode::OK, status(Version::HTTP_2, &[]));
    for hosts in
        [&[][..], &["k8s.example", "k8s.example"], &["k8s.example", "evil.example"], &["a b"], &["u@k8s"]]
    {
        assert_eq!(StatusCode::BAD_REQUEST, status(Version::HTTP_11, hosts), "{hosts:?}");
    }
}

#[test]
fn other_methods_are_refused_with_the_allowed_ones() {
    for method in [Method::POST, Method::PUT, Method::DELETE, Method::OPTIONS] {
        let (status, headers, _) = ask(&served(), method, JWKS, &[]);
        assert_eq!(StatusCode::METHOD_NOT_ALLOWED, status);
        assert_eq!("GET, HEAD", headers[header::ALLOW]);
    }
}

#[test]
fn query_strings_are_ignored_and_other_paths_are_unknown() {
    let (status, ..) = ask(&served(), Method::GET, &format!("{JWKS}?x=1"), &[]);
    assert_eq!(StatusCode::OK, status);
    for path in
        ["/", "/c1", "/openid/v1/jwks", "/c1/openid/v1/jwks/", "/c1//openid/v1/jwks", "/c2/openid/v1/jwks"]
    {
        let (status, ..) = ask(&served(), Method::GET, path, &[]);
        assert_eq!(StatusCode::NOT_FOUND, status, "{path}");
    }
}

#[test]
fn nothing_published_yet_is_a_503_that_says_when_to_come_back() {
    let empty = routes([(terms(), Slot::default())]);
    let (status, headers, body) = ask(&empty, Method::GET, JWKS, &[]);
    assert_eq!(StatusCode::SERVICE_UNAVAILABLE, status);
    assert_eq!("5", headers[header::RETRY_AFTER]);
    assert!(!body.starts_with(b"{"), "never an empty set");
}

#[test]
fn a_host_is_ignored_where_one_issuer_alone_has_the_path_and_decides_where_two_have() {
    let (status, ..) = ask(&served(), Method::GET, JWKS, &[("host", "evil.example")]);
    assert_eq!(StatusCode::OK, status);

    let other = terms_of("https://other.example/c1");
    let theirs = Publication::render(&other, Profile::Entra, [rsa_key(2)]).expect("one key");
    let both = routes([(terms(), published(&publication())), (other, published(&theirs))]);
    let (_, _, body) = ask(&both, Method::GET, DISCOVERY, &[("host", "OTHER.example")]);
    assert!(String::from_utf8_lossy(&body).contains("https://other.example/c1"));
    let (_, _, body) = ask(&both, Method::GET, DISCOVERY, &[("host", "other.example:443")]);
    assert!(String::from_utf8_lossy(&body).contains("https://other.example/c1"), "the port of https");
    let (status, ..) = ask(&both, Method::GET, DISCOVERY, &[("host", "other.example:80")]);
    assert_eq!(StatusCode::NOT_FOUND, status);
    let in_target = format!("https://other.example{DISCOVERY}");
    let (_, _, body) = ask(&both, Method::GET, &in_target, &[("host", "evil.example")]);
    assert!(String::from_utf8_lossy(&body).contains("https://other.example/c1"), "as HTTP/2 has it");
    let (status, ..) = ask(&both, Method::GET, DISCOVERY, &[("host", "evil.example")]);
    assert_eq!(StatusCode::NOT_FOUND, status);
}

#[test]
fn the_jwks_is_served_where_jwks_uri_says_and_nowhere_else() {
    let terms = Terms { jwks_uri: "https://issuer.example/c1/keys.json".to_owned(), ..terms() };
    let routes = routes([(terms, published(&publication()))]);
    let status = |path: &str| ask(&routes, Method::GET, path, &[]).0;
    assert_eq!(
        [status("/c1/keys.json"), status(DISCOVERY), status(JWKS)],
        [StatusCode::OK, StatusCode::OK, StatusCode::NOT_FOUND]
    );
}

#[test]
fn every_answer_is_counted_once() {
    let counters = Arc::new(Counters::default());
    let slot = Slot::default();
    let routes = Routes::new(Arc::clone(&counters));
    routes.set([(terms(), slot.clone())]);
    ask(&routes, Method::GET, JWKS, &[]);
    slot.publish(&publication());
    ask(&routes, Method::GET, JWKS, &[]);
    ask(&routes, Method::GET, "/nowhere", &[]);
    let counted: Vec<_> = counters.totals().into_iter().filter(|(.., count)| *count > 0).collect();
    assert_eq!(vec![("unknown", 404, 1), ("jwks", 200, 1), ("jwks", 503, 1)], counted);
}

#[test]
fn a_change_of_the_routes_is_whole_and_seen_by_every_clone() {
    let routes = served();
    let clone = routes.clone();
    let other = terms_of("https://k8s.example/c2");
    let (status, ..) = ask(&clone, Method::GET, "/c2/openid/v1/jwks", &[]);
    assert_eq!(StatusCode::NOT_FOUND, status);
    routes.set([(other, published(&publication()))]);
    let (status, ..) = ask(&clone, Method::GET, "/c2/openid/v1/jwks", &[]);
    assert_eq!(StatusCode::OK, status);
    let (status, ..) = ask(&clone, Method::GET, JWKS, &[]);
    assert_eq!(StatusCode::NOT_FOUND, status, "an issuer that is left out is no longer served");
}

#[test]
fn an_issuer_without_a_path_is_served_at_the_root() {
    let issuer = terms_of("https://k8s.example/");
    let routes = routes([(issuer, published(&publication()))]);
    for target in ["/openid/v1/jwks", "/.well-known/openid-configuration"] {
        assert_eq!(StatusCode::OK, ask(&routes, Method::GET, target, &[]).0);
    }
    for target in ["/", "//openid/v1/jwks", "/c1/openid/v1/jwks", "*"] {
        assert_eq!(StatusCode::NOT_FOUND, ask(&routes, Method::GET, target, &[]).0, "{target}");
    }
}
