use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures_util::future::join_all;
use object_store::client::HttpClient;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
    task::JoinSet,
    time::{sleep, timeout},
};

use super::{RequestLimits, WIDTH};

/// A faulty limit blocks without end.
const DEADLINE: Duration = Duration::from_mins(1);

/// A server that counts its connections, and answers them if `answers`.
async fn server(tasks: &mut JoinSet<()>, answers: bool) -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}/", listener.local_addr().expect("an address"));
    let connections = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&connections);
    tasks.spawn(async move {
        let mut open = Vec::new();
        loop {
            let (mut connection, _) = listener.accept().await.expect("a connection");
            counter.fetch_add(1, Ordering::SeqCst);
            if answers {
                let mut request = [0; 1024];
                let _ = connection.read(&mut request).await;
                let _ = connection.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
            }
            open.push(connection);
        }
    });
    (url, connections)
}

async fn ask(client: &HttpClient, url: &str) {
    let request = http::Request::get(url).body(Bytes::new().into()).expect("a request");
    client.execute(request).await.expect("an answer");
}

#[tokio::test]
async fn a_server_gets_no_more_requests_at_once_than_its_lane_is_wide_and_holds_up_no_other() {
    let client = reqwest::Client::builder().no_proxy().tls_certs_only([]).build().expect("a client");
    let client = RequestLimits::default().over(HttpClient::new(client));
    let mut tasks = JoinSet::new();
    let (hangs, connections) = server(&mut tasks, false).await;
    let (answers, _) = server(&mut tasks, true).await;
    let hung = join_all((0..WIDTH * 3).map(|_| ask(&client, &hangs)));
    let others = async {
        while connections.load(Ordering::SeqCst) < WIDTH {
            sleep(Duration::from_millis(1)).await;
        }
        ask(&client, &answers).await;
    };
    tokio::select! {
        _ = hung => unreachable!("it never answers"),
        others = timeout(DEADLINE, others) => others.expect("the other server has to wait"),
    }
    assert_eq!(connections.load(Ordering::SeqCst), WIDTH);
}
