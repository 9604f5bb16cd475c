//! Hostile issuers: whatever they answer, the command ends soon, uses little memory, and contacts no other
//! server.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use bytes::Bytes;
use futures_util::stream;
use http::StatusCode;

use super::WITHIN;
use crate::support::in_process::InProcess;
use crate::support::scripted::Scripted;
use crate::support::signpost::{Finished, Signpost};

const REFUSED: i32 = 1;
const UNKNOWN: i32 = 2;

fn verify(issuer: &str) -> Finished {
    Signpost::new(["verify", "--issuer", issuer]).finish(WITHIN)
}

fn answering(body: impl Into<Vec<u8>>) -> Scripted {
    let body = String::from_utf8(body.into()).expect("a test of text");
    Scripted::start(move |_| (200, body.clone()))
}

#[track_caller]
fn refuses(told: &Finished, id: &str, seen: &str, code: i32) {
    assert_eq!(told.code, Some(code), "{}{}", told.stdout, told.stderr);
    let line = told.stdout.lines().find(|line| line.contains(&format!("  {id}  ")));
    assert!(line.is_some_and(|line| line.contains(seen)), "no {id} with `{seen}` in\n{}", told.stdout);
}

#[test]
fn a_body_without_an_end_is_not_read_to_its_end() {
    let sent = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&sent);
    let chunk = Bytes::from(vec![b' '; 64 * 1024]);
    let router = Router::new().fallback(move || {
        let (chunk, count) = (chunk.clone(), Arc::clone(&count));
        async move {
            // A gigabyte, if it were read in full.
            let chunks = (0..16_384).map(move |_| {
                count.fetch_add(chunk.len(), Ordering::Relaxed);
                Ok::<_, Infallible>(chunk.clone())
            });
            Body::from_stream(stream::iter(chunks))
        }
    });
    let server = InProcess::serve(router);
    refuses(&verify(&server.url()), "PUB-REACH", "the response is larger than", REFUSED);
    let sent = sent.load(Ordering::Relaxed);
    assert!(sent < 64 * 1024 * 1024, "{sent} bytes were taken");
}

#[test]
fn a_trickle_does_not_extend_the_time() {
    let router = Router::new().fallback(|| async {
        let drops = stream::unfold((), |()| async {
            tokio::time::sleep(Duration::from_millis(200)).await;
            Some((Ok::<_, Infallible>(Bytes::from_static(b" ")), ()))
        });
        Body::from_stream(drops)
    });
    let server = InProcess::serve(router);
    let begun = Instant::now();
    refuses(&verify(&server.url()), "PUB-REACH", "no answer within 10 s", UNKNOWN);
    assert!(begun.elapsed() < Duration::from_secs(30), "{:?}", begun.elapsed());
}

fn redirecting(to: impl Fn(&Request) -> String + Clone + Send + Sync + 'static) -> InProcess {
    InProcess::serve(Router::new().fallback(move |request: Request| {
        let to = to(&request);
        async move {
            let response = Response::builder().status(StatusCode::FOUND).header("location", to);
            response.body(Body::empty()).expect("a response")
        }
    }))
}

#[test]
fn a_redirect_leads_neither_round_nor_inside() {
    let round = redirecting(|request| format!("{}x", request.uri().path()));
    refuses(&verify(&round.url()), "PUB-REACH", "one redirect too many", REFUSED);
    let metadata = redirecting(|_| "http://169.254.169.254/latest/meta-data/".to_owned());
    refuses(&verify(&metadata.url()), "PUB-REACH", "not a public address", REFUSED);
    let inside = redirecting(|_| "https://10.96.0.1/".to_owned());
    refuses(&verify(&inside.url()), "PUB-REACH", "not a public address", REFUSED);
}

/// The issuer's own service may be contacted. A link from it to another one on this machine does not mean
/// that the operator permits that too.
#[test]
fn nothing_else_on_this_machine_is_asked_and_credentials_of_others_are_not_sent() {
    let other = Scripted::start(|_| (200, "{}".to_owned()));
    let (by_address, by_name) = (other.url(), other.url().replace("127.0.0.1", "localhost"));
    for (url, seen) in
        [(&by_address, "not a public address, nor of this issuer"), (&by_name, "not public addresses: `")]
    {
        let to = format!("{url}/secrets");
        let leads = redirecting(move |_| to.clone());
        refuses(&verify(&leads.url()), "PUB-REACH", seen, REFUSED);
        let server = answering(format!(r#"{{"issuer":"x","jwks_uri":"{url}/secrets"}}"#));
        refuses(&verify(&server.url()), "PUB-REACH", "not public addresses: `", REFUSED);
    }
    assert!(other.seen().is_empty(), "{:?}", other.seen());

    let own = redirecting(|request| {
        let host = request.headers()["host"].to_str().expect("text");
        format!("http://user:hunter2@{host}/again")
    });
    let told = verify(&own.url());
    refuses(&told, "PUB-REACH", "it has a user name or password", REFUSED);
    assert!(!told.stdout.contains("hunter2"), "{}", told.stdout);
    let server = Scripted::start(|seen| {
        let host = seen.headers["host"].to_str().expect("text");
        (200, format!(r#"{{"issuer":"http://{host}","jwks_uri":"http://user:hunter2@{host}/jwks"}}"#))
    });
    let told = verify(&server.url());
    refuses(&told, "PUB-REACH", "the URL has a user name or password", REFUSED);
    assert!(!told.stdout.contains("hunter2"), "{}", told.stdout);
    let asked: Vec<_> = server
        .seen()
        .into_iter()
        .map(|seen| (seen.path, seen.headers.contains_key("authorization")))
        .collect();
    assert!(asked.iter().all(|(path, sent)| path != "/jwks" && !sent), "{asked:?}");
}

/// The `jwks_uri` of the discovery document is only followed to the internet.
#[test]
fn a_jwks_uri_leads_not_inside() {
    let document = r#"{"issuer":"x","jwks_uri":"https://10.96.0.1/openid/v1/jwks"}"#;
    let server = answering(document);
    refuses(&verify(&server.url()), "PUB-REACH", "not public addresses: `10.96.0.1`", REFUSED);
}

#[test]
fn a_name_that_leads_to_this_machine_is_not_asked_for_a_public_issuer() {
    let server = Scripted::start(|_| (200, "{}".to_owned()));
    let address = server.url().trim_start_matches("http://").to_owned();
    let arguments = ["verify", "--issuer", "https://oidc.example", "--connect-to", &address];
    let told = Signpost::new(arguments).finish(WITHIN);
    refuses(&told, "PUB-REACH", "not public addresses: `127.0.0.1`", REFUSED);
    assert!(server.seen().is_empty(), "{:?}", server.seen());
}

#[test]
fn documents_that_mean_two_things_or_nothing_are_refused() {
    let nested = "[".repeat(500_000);
    for (body, seen) in [
        (nested.as_str(), "recursion limit exceeded"),
        (r#"{"issuer":"a","jwks_uri":"b","issuer":"c"}"#, "member `issuer` is duplicated"),
        (r#"{"issuer":1e999}"#, "number out of range"),
        ("", "EOF while parsing"),
        ("[]", "no object"),
    ] {
        refuses(&verify(&answering(body).url()), "DISC-PARSE", seen, REFUSED);
    }
    let router = Router::new().fallback(|| async { Body::from(&b"{\"issuer\":\"\xff\"}"[..]) });
    refuses(&verify(&InProcess::serve(router).url()), "DISC-PARSE", "invalid unicode", REFUSED);
}

#[test]
fn what_is_asked_is_bounded_and_carries_nothing() {
    let server = Scripted::start(|seen| {
        let host = seen.headers["host"].to_str().expect("text");
        (200, format!(r#"{{"issuer":"http://{host}","jwks_uri":"http://{host}/jwks"}}"#))
    });
    verify(&server.url()).expect_code(REFUSED);
    let seen = server.seen();
    assert_eq!(seen.len(), 4, "each document twice: {seen:?}");
    for request in seen {
        let mut names: Vec<_> = request.headers.keys().map(http::HeaderName::as_str).collect();
        names.sort_unstable();
        assert_eq!(names, ["accept", "host", "user-agent"]);
        assert_eq!((request.method.as_str(), request.query), ("GET", None));
    }
}
