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
