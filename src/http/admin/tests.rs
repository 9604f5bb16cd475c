use std::sync::Arc;

use axum::{
    body::Body,
    http::{Request, StatusCode},
    response::Response,
};
use http_body_util::BodyExt as _;
use tower::ServiceExt as _;

use super::{Views, router};

async fn ask(ready: bool, path: &str) -> StatusCode {
    answer(ready, path).await.status()
}

async fn answer(ready: bool, path: &str) -> Response {
    let views = Views {
        metrics: Arc::new(String::new),
        status: Arc::new(String::new),
        ready: Arc::new(move || ready),
        checks: Arc::new(|all| {
            let checks = [(true, "one is well".to_owned()), (false, "one is not".to_owned())];
            checks.into_iter().filter(|(right, _)| all || !right).collect()
        }),
    };
    let request = Request::get(path).body(Body::empty()).expect("valid");
    router(views).oneshot(request).await.expect("infallible")
}

#[tokio::test]
async fn liveness_depends_on_nothing() {
    assert_eq!(StatusCode::OK, ask(true, "/healthz").await);
    assert_eq!(StatusCode::OK, ask(false, "/healthz").await);
}

#[tokio::test]
async fn readiness_says_whether_there_is_something_true_to_serve() {
    assert_eq!(StatusCode::OK, ask(true, "/readyz").await);
    assert_eq!(StatusCode::SERVICE_UNAVAILABLE, ask(false, "/readyz").await);
}

#[tokio::test]
async fn readiness_names_what_is_wrong_and_if_asked_what_is_right() {
    for (path, text) in
        [("/readyz", "[-]one is not\nready\n"), ("/readyz?verbose", "[+]one is well\n[-]one is not\nready\n")]
    {
        let body = answer(true, path).await.into_body().collect().await.expect("infallible").to_bytes();
        assert_eq!(text, String::from_utf8_lossy(&body));
    }
}
