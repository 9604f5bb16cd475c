use std::io::Write as _;

use axum::{Router, response::IntoResponse, routing::get};
use flate2::{Compression, write::GzEncoder};
use tokio::{net::TcpListener, task::JoinSet};

use super::*;

const LIMIT: u64 = 1024;

fn gzip(plain: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(plain).expect("in memory");
    encoder.finish().expect("in memory")
}

/// Reads an answer with this body and these lines of `Content-Encoding`.
async fn read(lines: &[&'static str], sent: Vec<u8>) -> Result<Bytes, BodyError> {
    let lines: Vec<_> = lines.iter().map(|line| (CONTENT_ENCODING, *line)).collect();
    let answer = async move || {
        let mut response = sent.clone().into_response();
        for (name, line) in &lines {
            response.headers_mut().append(name, line.parse().expect("a field"));
        }
        response
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    let mut tasks = JoinSet::new();
    let router = Router::new().route("/", get(answer));
    tasks.spawn(async move { axum::serve(listener, router).await.expect("it serves") });
    let client = HttpClients::default().to("http", Trust::System).get().await.expect("a client");
    body(client.get(url).send().await.expect("an answer"), LIMIT).await
}

fn encoded(read: Result<Bytes, BodyError>) -> String {
    match read {
        Err(BodyError::Encoded { coding }) => coding,
        other => panic!("it cannot be read: {other:?}"),
    }
}

#[tokio::test]
async fn a_coding_that_nobody_asked_for_is_undone_or_named() {
    for lines in [&[][..], &["identity"], &[""]] {
        assert_eq!("keys", read(lines, b"keys".to_vec()).await.expect("as it is"));
    }
    for lines in [&["gzip"][..], &["x-gzip"], &["GZIP"], &["identity, gzip"], &["identity", "gzip"]] {
        assert_eq!("keys", read(lines, gzip(b"keys")).await.expect("gzip"), "{lines:?}");
    }
    assert_eq!("br", encoded(read(&["br"], b"keys".to_vec()).await));
    assert_eq!("gzip, gzip", encoded(read(&["gzip", "gzip"], gzip(&gzip(b"keys"))).await));
    assert_eq!("gzip", encoded(read(&["gzip"], b"keys".to_vec()).await), "it says so and is none");
}

#[tokio::test]
async fn an_answer_is_bounded_before_and_behind_its_coding() {
    let long = vec![b' '; 1025];
    assert_eq!(1024, read(&[], long[1..].to_vec()).await.expect("just short enough").len());
    assert_eq!(1024, read(&["gzip"], gzip(&long[1..])).await.expect("just short enough").len());
    assert!(matches!(read(&[], long.clone()).await, Err(BodyError::TooLong)));
    assert!(matches!(read(&["gzip"], gzip(&long)).await, Err(BodyError::TooLong)));
    let bomb = gzip(&vec![0; 512 * 1024]);
    assert!(bomb.len() < 1024, "{} bytes", bomb.len());
    assert!(matches!(read(&["gzip"], bomb).await, Err(BodyError::TooLong)));
}

#[tokio::test]
async fn a_file_without_certificates_is_named() {
    let folder = tempfile::TempDir::new().expect("a folder");
    let path = folder.path().join("ca.crt");
    let client = HttpClients::default().to("https", Trust::Also(path.clone()));
    let error = async || client.get().await.expect_err("nobody can be trusted").to_string();
    assert_eq!(format!("cannot read `{}`", path.display()), error().await);
    std::fs::write(&path, "no PEM").expect("it is ours");
    assert_eq!(format!("`{}` holds no certificates that can be trusted", path.display()), error().await);
}
