use tokio::net::TcpListener;

use super::*;

#[tokio::test]
async fn http_needs_an_address_that_says_so() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    let connections = Connections::new().expect("clients can be made");
    let error = connections.to("https").get(&url).send().await.expect_err("http is refused");
    assert!(error.is_builder(), "{error:?}");
}
