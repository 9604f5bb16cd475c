use std::net::SocketAddr;

use axum::{Router, response::Redirect, routing::get};
use tokio::{net::TcpListener, task::JoinSet};

use super::*;
use crate::target::{TargetError, tests::chain};

/// Serves the routes as long as the task set lives.
async fn serve(router: Router) -> (SocketAddr, JoinSet<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let mut tasks = JoinSet::new();
    tasks.spawn(async move { axum::serve(listener, router).await.expect("it serves") });
    (address, tasks)
}

async fn read(router: Router, below: &str) -> Result<Bytes, TargetError> {
    let (address, _tasks) = serve(router).await;
    let connections = Connections::default();
    let public_url = PublicUrl::new(&format!("http://{address}{below}"), &connections).expect("a URL");
    public_url
        .read(&public_url.of(Document::Jwks))
        .await
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
}

#[tokio::test]
async fn a_missing_document_is_an_error_with_its_status() {
    let error = read(Router::new(), "").await.expect_err("there is none");
    assert_eq!(chain(&error), "cannot read target `t`: the answer was `404 Not Found`, expected `200 OK`");
    assert!(error.hint().expect("there is something to do about it").starts_with("let everybody read it"));
}

#[tokio::test]
async fn a_document_that_is_too_long_is_given_up() {
    let long = get(|| async { vec![b'x'; 1024 * 1024 + 1] });
    let error = read(Router::new().route("/openid/v1/jwks", long), "").await.expect_err("it is too long");
    assert_eq!(chain(&error), "cannot read target `t`: it is longer than 1048576 bytes");
}
