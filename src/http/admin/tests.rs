use std::sync::Arc;

use axum::{
    body::Body,
    http::{Request, StatusCode},
};
use tower::ServiceExt as _;

use super::{Views, router};

async fn ask(ready: bool, path: &str) -> StatusCode {
    let views = Views {
        metrics: Arc::new(String::new),
        status: Arc::new(String::new),
        ready: Arc::new(move || ready),
    };
    let request = Request::get(path).body(Body::empty()).expect("valid");
    router(views).oneshot(request).await.expect("infallible").status()
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
