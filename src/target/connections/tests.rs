use bytes::Bytes;
use object_store::client::HttpErrorKind;
use tokio::net::TcpListener;

use super::*;

#[tokio::test]
async fn a_store_is_asked_without_encryption_only_where_that_is_allowed() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    drop(listener);
    let connections = Connections::default();
    let ask = async |options: ClientOptions| {
        let client = connections.connect(&options).expect("a client");
        let request = http::Request::get(&url).body(Bytes::new().into()).expect("a request");
        client.execute(request).await.expect_err("nothing listens").kind()
    };
    assert_eq!(ask(ClientOptions::new().with_allow_http(true)).await, HttpErrorKind::Connect);
    assert_ne!(ask(ClientOptions::new()).await, HttpErrorKind::Connect);
}

#[tokio::test]
async fn a_busy_service_gets_the_time_that_it_asks_for_and_not_more() {
    let answer = |status: u16, retry_after: &str| {
        let response = http::Response::builder().status(status).header(RETRY_AFTER, retry_after);
        asked_to_wait(&response.body(Bytes::new().into()).expect("a response"))
    };
    assert_eq!(answer(429, "2"), Some(Duration::from_secs(2)));
    assert_eq!(answer(503, "0"), Some(Duration::ZERO));
    assert_eq!(answer(503, "soon"), None);
    assert_eq!(answer(200, "2"), None);
}

#[tokio::test]
async fn an_answer_of_a_busy_service_is_passed_on_when_its_time_is_over() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    let busy = axum::Router::new().fallback(async || (StatusCode::TOO_MANY_REQUESTS, [(RETRY_AFTER, "1")]));
    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn(async move { axum::serve(listener, busy).await.expect("it serves") });

    let options = ClientOptions::new().with_allow_http(true);
    let client = Connections::default().connect(&options).expect("a client");
    let request = http::Request::get(&url).body(Bytes::new().into()).expect("a request");
    let asked = tokio::time::Instant::now();
    let response = client.execute(request).await.expect("it answers");
    assert_eq!(response.status(), StatusCode::TOO_MANY_REQUESTS);
    assert!(asked.elapsed() >= Duration::from_secs(1), "{:?}", asked.elapsed());
}
