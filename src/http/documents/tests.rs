use std::sync::Arc;

use axum::{
    Router,
    body::Body,
    http::{HeaderMap, Method, Request, StatusCode, header},
};
use http_body_util::BodyExt as _;
use tower::ServiceExt as _;

use super::{Counters, Routes, Slot, router};
use crate::core::{
    issuer::Issuer,
    jwk_set::Profile,
    publication::{Document, Publication, Terms},
    tests::{rsa_key, terms},
};

const JWKS: &str = "/c1/openid/v1/jwks";
const DISCOVERY: &str = "/c1/.well-known/openid-configuration";

fn publication() -> Publication {
    Publication::render(&terms(), Profile::Entra, [rsa_key(1)]).expect("one key")
}

fn serving(issuers: impl IntoIterator<Item = (Issuer, Slot)>, counters: Arc<Counters>) -> Router {
    let routes = Routes::new(counters);
    routes.set(issuers);
    router(routes)
}

fn served() -> Router {
    let slot = Slot::default();
    slot.publish(&publication());
    serving([(terms().issuer, slot)], Arc::default())
}

async fn ask(
    router: &Router,
    method: Method,
    path: &str,
    fields: &[(&str, &str)],
) -> (StatusCode, HeaderMap, Vec<u8>) {
    let mut request = Request::builder().method(method).uri(path);
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    let request = request.body(Body::empty()).expect("valid");
    let response = router.clone().oneshot(request).await.expect("infallible");
    let (parts, body) = response.into_parts();
    (parts.status, parts.headers, body.collect().await.expect("in memory").to_bytes().to_vec())
}

#[tokio::test]
async fn documents_are_served_with_the_bytes_of_the_publication_and_these_headers_alone() {
    for (path, document) in [(JWKS, Document::Jwks), (DISCOVERY, Document::Discovery)] {
        let (status, headers, body) = ask(&served(), Method::GET, path, &[]).await;
        assert_eq!(StatusCode::OK, status);
        assert_eq!(publication().bytes(document), &body);
        let mut named: Vec<_> =
            headers.iter().map(|(name, value)| (name.as_str(), value.to_str().expect("ascii"))).collect();
        named.sort_unstable();
        let etag = publication().etag(document);
        let length = body.len().to_string();
        let expected = [
            ("access-control-allow-origin", "*"),
            ("cache-control", "public, max-age=300"),
            ("content-length", length.as_str()),
            ("content-type", "application/json"),
            ("etag", etag.as_str()),
            ("x-content-type-options", "nosniff"),
        ];
        // axum adds the length from the body's size; over a socket hyper does.
        assert_eq!(expected.to_vec(), named);
    }
}

#[tokio::test]
async fn a_known_entity_tag_is_answered_without_a_body() {
    let etag = publication().etag(Document::Jwks);
    for tags in [etag.clone(), format!("W/{etag}"), format!("\"other\", {etag}"), "*".to_owned()] {
        let (status, headers, body) = ask(&served(), Method::GET, JWKS, &[("if-none-match", &tags)]).await;
        assert_eq!((StatusCode::NOT_MODIFIED, 0), (status, body.len()), "{tags}");
        assert_eq!(etag, headers[header::ETAG]);
    }
    let (status, ..) = ask(&served(), Method::GET, JWKS, &[("if-none-match", "\"other\"")]).await;
    assert_eq!(StatusCode::OK, status);
}

#[tokio::test]
async fn other_methods_are_refused_with_the_allowed_ones() {
    for method in [Method::POST, Method::PUT, Method::DELETE, Method::OPTIONS] {
        let (status, headers, _) = ask(&served(), method, JWKS, &[]).await;
        assert_eq!(StatusCode::METHOD_NOT_ALLOWED, status);
        assert_eq!("GET, HEAD", headers[header::ALLOW]);
    }
}

#[tokio::test]
async fn query_strings_are_ignored_and_other_paths_are_unknown() {
    let (status, ..) = ask(&served(), Method::GET, &format!("{JWKS}?x=1"), &[]).await;
    assert_eq!(StatusCode::OK, status);
    for path in
        ["/", "/c1", "/openid/v1/jwks", "/c1/openid/v1/jwks/", "/c1//openid/v1/jwks", "/c2/openid/v1/jwks"]
    {
        let (status, ..) = ask(&served(), Method::GET, path, &[]).await;
        assert_eq!(StatusCode::NOT_FOUND, status, "{path}");
    }
}

#[tokio::test]
async fn nothing_published_yet_is_a_503_that_says_when_to_come_back() {
    let router = serving([(terms().issuer, Slot::default())], Arc::default());
    let (status, headers, body) = ask(&router, Method::GET, JWKS, &[]).await;
    assert_eq!(StatusCode::SERVICE_UNAVAILABLE, status);
    assert_eq!("5", headers[header::RETRY_AFTER]);
    assert!(!body.starts_with(b"{"), "never an empty set");
}

#[tokio::test]
async fn a_host_is_ignored_where_one_issuer_alone_has_the_path_and_decides_where_two_have() {
    let (status, ..) = ask(&served(), Method::GET, JWKS, &[("host", "evil.example")]).await;
    assert_eq!(StatusCode::OK, status);

    let other = Issuer::parse("https://other.example/c1").expect("valid");
    let other_terms = Terms { jwks_uri: other.jwks_uri(), issuer: other.clone(), max_age: terms().max_age };
    let (ours, theirs) = (Slot::default(), Slot::default());
    ours.publish(&publication());
    theirs.publish(&Publication::render(&other_terms, Profile::Entra, [rsa_key(2)]).expect("one key"));
    let both = serving([(terms().issuer, ours), (other, theirs)], Arc::default());
    let (_, _, body) = ask(&both, Method::GET, DISCOVERY, &[("host", "OTHER.example")]).await;
    assert!(String::from_utf8_lossy(&body).contains("https://other.example/c1"));
    let (status, ..) = ask(&both, Method::GET, DISCOVERY, &[("host", "evil.example")]).await;
    assert_eq!(StatusCode::NOT_FOUND, status);
}

#[tokio::test]
async fn every_answer_is_counted_once() {
    let counters = Arc::new(Counters::default());
    let slot = Slot::default();
    let router = serving([(terms().issuer, slot.clone())], Arc::clone(&counters));
    ask(&router, Method::GET, JWKS, &[]).await;
    slot.publish(&publication());
    ask(&router, Method::GET, JWKS, &[]).await;
    ask(&router, Method::GET, "/nowhere", &[]).await;
    let counted: Vec<_> = counters.totals().into_iter().filter(|(.., count)| *count > 0).collect();
    assert_eq!(vec![("unknown", 404, 1), ("jwks", 200, 1), ("jwks", 503, 1)], counted);
}
