use std::{io::Write as _, net::SocketAddr, sync::Arc};

use axum::{Router, response::Redirect, routing::get};
use flate2::{Compression, write::GzEncoder};
use http::{HeaderMap, header::CONTENT_ENCODING};
use tokio::{net::TcpListener, task::JoinSet};

use super::*;
use crate::{
    core::text::Hint,
    target::{TargetError, tests::chain},
};

/// Serves the routes as long as the task set lives.
async fn serve(router: Router) -> (SocketAddr, JoinSet<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let mut tasks = JoinSet::new();
    tasks.spawn(async move { axum::serve(listener, router).await.expect("it serves") });
    (address, tasks)
}

/// A cache that records requests and answers.
#[derive(Clone, Default)]
struct Cdn {
    shows: Arc<Mutex<(&'static str, &'static str)>>,
    answers: Arc<Mutex<Vec<Answered>>>,
}

/// The tag in the request, and the status of the answer.
type Answered = (Option<String>, u16);

impl Cdn {
    fn router(&self) -> Router {
        let cdn = self.clone();
        let answer = async move |headers: HeaderMap| {
            let (e_tag, body) = *cdn.shows.lock().expect("no panic");
            let asked = headers.get(IF_NONE_MATCH).map(|tag| tag.to_str().expect("text").to_owned());
            let unchanged = asked.as_deref() == Some(e_tag);
            let status = if unchanged { StatusCode::NOT_MODIFIED } else { StatusCode::OK };
            cdn.answers.lock().expect("no panic").push((asked, status.as_u16()));
            (status, [(ETAG, e_tag)], if unchanged { "" } else { body })
        };
        Router::new().route("/openid/v1/jwks", get(answer))
    }

    fn shows(&self, e_tag: &'static str, body: &'static str) {
        *self.shows.lock().expect("no panic") = (e_tag, body);
    }

    fn last(&self) -> Answered {
        self.answers.lock().expect("no panic").last().cloned().expect("it was asked")
    }
}

#[tokio::test]
async fn what_was_right_is_not_transferred_again_until_it_changes() {
    let cdn = Cdn::default();
    cdn.shows("\"old\"", "old");
    let (address, _tasks) = serve(cdn.router()).await;
    let connections = Connections::default();
    let public_url = PublicUrl::new(&format!("http://{address}"), false, &connections).expect("a URL");
    let read = async |expected: &'static str| {
        let expected = Bytes::from_static(expected.as_bytes());
        public_url.read(Document::Jwks, &expected).await.expect("it is there").bytes
    };
    assert_eq!((read("old").await, cdn.last()), ("old".into(), (None, 200)));
    assert_eq!((read("old").await, cdn.last()), ("old".into(), (Some("\"old\"".to_owned()), 304)));

    // A new document that is not there yet is requested in full, because the old tag might be that of the new
    // one.
    assert_eq!((read("new").await, cdn.last()), ("old".into(), (None, 200)));
    cdn.shows("\"old\"", "new");
    assert_eq!((read("new").await, cdn.last()), ("new".into(), (None, 200)));
    assert_eq!((read("new").await, cdn.last()), ("new".into(), (Some("\"old\"".to_owned()), 304)));

    cdn.shows("\"edited\"", "edited");
    assert_eq!((read("new").await, cdn.last()), ("edited".into(), (Some("\"old\"".to_owned()), 200)));
    assert_eq!((read("new").await, cdn.last()), ("edited".into(), (None, 200)));
}

/// A 304 without `Cache-Control` does not revoke the earlier value.
#[tokio::test]
async fn how_long_a_document_may_be_kept_is_known_without_reading_it_again() {
    let says = Arc::new(Mutex::new(Some("max-age=60")));
    let answer = {
        let says = Arc::clone(&says);
        async move |headers: HeaderMap| {
            let unchanged = headers.contains_key(IF_NONE_MATCH);
            let status = if unchanged { StatusCode::NOT_MODIFIED } else { StatusCode::OK };
            let cache_control =
                says.lock().expect("no panic").map(|says| (http::header::CACHE_CONTROL, says));
            let fields: HeaderMap = cache_control
                .into_iter()
                .chain([(ETAG, "\"1\"")])
                .map(|(n, v)| (n, HeaderValue::from_static(v)))
                .collect();
            (status, fields, "keys")
        }
    };
    let (address, _tasks) = serve(Router::new().route("/openid/v1/jwks", get(answer))).await;
    let public_url =
        PublicUrl::new(&format!("http://{address}"), false, &Connections::default()).expect("a URL");
    let read = async || {
        let got = public_url.read(Document::Jwks, &Bytes::from_static(b"keys")).await.expect("it is there");
        assert_eq!(
            (&*got.bytes, got.content_type.as_deref()),
            (&b"keys"[..], Some("text/plain; charset=utf-8"))
        );
        got.cache.cache_control
    };
    assert_eq!(read().await.as_deref(), Some("max-age=60"));
    *says.lock().expect("no panic") = None;
    assert_eq!(read().await.as_deref(), Some("max-age=60"), "the 304 says nothing");
    *says.lock().expect("no panic") = Some("max-age=90");
    assert_eq!(read().await.as_deref(), Some("max-age=90"), "the 304 says something else");
}

#[tokio::test]
async fn a_weak_tag_promises_no_bytes() {
    let cdn = Cdn::default();
    cdn.shows("W/\"1\"", "keys");
    let (address, _tasks) = serve(cdn.router()).await;
    let connections = Connections::default();
    let public_url = PublicUrl::new(&format!("http://{address}"), false, &connections).expect("a URL");
    for _ in 0..2 {
        public_url.read(Document::Jwks, &Bytes::from_static(b"keys")).await.expect("it is there");
        assert_eq!(cdn.last(), (None, 200));
    }
}

#[tokio::test]
async fn a_store_that_is_private_says_why_in_its_own_words() {
    let body = "<Error><Code>PublicAccessNotPermitted</Code></Error>";
    let router = Router::new().route("/openid/v1/jwks", get((StatusCode::CONFLICT, body)));
    let (address, _tasks) = serve(router).await;
    let connections = Connections::default();
    let store = PublicUrl::new(&format!("http://{address}"), true, &connections).expect("a URL");
    let cause = store.read(Document::Jwks, &Bytes::new()).await.expect_err("it is private");
    assert_eq!(
        cause.to_string(),
        "without credentials the answer was `409 Conflict` (`PublicAccessNotPermitted`), expected `200 OK`"
    );
}

async fn read(router: Router, below: &str) -> Result<Bytes, TargetError> {
    let (address, _tasks) = serve(router).await;
    let connections = Connections::default();
    let public_url = PublicUrl::new(&format!("http://{address}{below}"), false, &connections).expect("a URL");
    public_url
        .read(Document::Jwks, &Bytes::new())
        .await
        .map(|got| got.bytes)
        .map_err(|cause| TargetError::new("t", "read", None, cause))
}

#[tokio::test]
async fn a_document_is_read_below_the_public_url() {
    let router = || Router::new().route("/cluster-a/openid/v1/jwks", get("keys"));
    assert_eq!(read(router(), "/cluster-a").await.expect("it is there"), "keys");
    assert_eq!(read(router(), "/cluster-a/").await.expect("it is there"), "keys");
}

#[tokio::test]
async fn a_redirect_is_no_document() {
    let router = Router::new()
        .route("/openid/v1/jwks", get(|| async { Redirect::temporary("/elsewhere") }))
        .route("/elsewhere", get("keys"));
    let error = read(router, "").await.expect_err("relying parties do not follow it");
    assert_eq!(
        chain(&error),
        "cannot read target `t`: the answer was `307 Temporary Redirect`, expected `200 OK`"
    );
    let hint = error.hint().expect("there is something to do about it");
    assert!(hint.contains("jwks-rsa, PyJWT and jose read no JWKS behind one"), "{hint}");
}

#[tokio::test]
async fn a_missing_document_is_an_error_with_its_status() {
    let error = read(Router::new(), "").await.expect_err("there is none");
    assert_eq!(chain(&error), "cannot read target `t`: the answer was `404 Not Found`, expected `200 OK`");
    assert!(
        error
            .hint()
            .expect("there is something to do about it")
            .starts_with("make it readable without credentials")
    );
}

#[tokio::test]
async fn a_coding_that_nobody_asked_for_is_undone_or_named() {
    let mut gzip = GzEncoder::new(Vec::new(), Compression::best());
    gzip.write_all(b"keys").expect("in memory");
    let gzip = gzip.finish().expect("in memory");
    let encoded = |coding: &'static str| {
        let gzip = gzip.clone();
        Router::new().route("/openid/v1/jwks", get(async move || ([(CONTENT_ENCODING, coding)], gzip)))
    };
    assert_eq!(read(encoded("gzip"), "").await.expect("gzip"), "keys");
    let error = read(encoded("br"), "").await.expect_err("another coding");
    assert_eq!(chain(&error), "cannot read target `t`: it is encoded as `br`, which was not requested");
    assert!(error.hint().is_some_and(|hint| hint.starts_with("serve it as it is")));
}

#[tokio::test]
async fn a_document_that_is_too_long_is_given_up() {
    let long = get(|| async { vec![b'x'; 1024 * 1024 + 1] });
    let error = read(Router::new().route("/openid/v1/jwks", long), "").await.expect_err("it is too long");
    assert_eq!(chain(&error), "cannot read target `t`: it is longer than 1048576 bytes");
}
