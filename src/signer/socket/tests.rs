use std::os::unix::net::UnixListener as Other;

use tempfile::TempDir;

use super::*;

fn access() -> Access {
    Access { mode: 0o660, ..Access::default() }
}

fn bind(path: &Path) -> Result<Socket, SocketError> {
    Socket::bind(&SocketName::File(path.to_owned()), access())
}

#[tokio::test]
async fn a_socket_has_its_mode_and_is_gone_when_nobody_listens_any_more() {
    let folder = TempDir::new().expect("a folder");
    let path = folder.path().join("s.sock");
    let socket = bind(&path).expect("it listens");
    assert_eq!(fs::metadata(&path).expect("it is there").permissions().mode() & 0o777, 0o660);
    assert_eq!(fs::read_dir(folder.path()).expect("a folder").count(), 1);
    drop(socket);
    assert!(!path.exists());
}

#[tokio::test]
async fn a_socket_at_which_nobody_answers_is_replaced() {
    let folder = TempDir::new().expect("a folder");
    let path = folder.path().join("s.sock");
    // Its file outlives it.
    drop(Other::bind(&path).expect("it listens"));
    assert!(path.exists());
    let _socket = bind(&path).expect("it listens");
    assert!(Stream::connect(&path).is_ok());
}

#[tokio::test]
async fn what_is_in_use_is_left_alone() {
    let folder = TempDir::new().expect("a folder");
    let path = folder.path().join("s.sock");
    let first = bind(&path).expect("it listens");
    assert!(matches!(bind(&path), Err(SocketError::Taken { .. })));
    // Another process created a socket there.
    fs::remove_file(&path).expect("it is ours");
    let other = Other::bind(&path).expect("it listens");
    drop(first);
    assert!(path.exists());
    drop(other);
    let file = folder.path().join("file");
    fs::write(&file, "").expect("it is ours");
    assert!(matches!(bind(&file), Err(SocketError::NoSocket { .. })));
    let missing = bind(&folder.path().join("missing/s.sock")).expect_err("there is no directory");
    assert!(missing.hint().is_some_and(|hint| hint.starts_with("create the directory")));
}

#[tokio::test]
async fn a_name_without_a_file_can_be_taken_once() {
    let name = SocketName::Abstract(format!("signpost-test-{}", std::process::id()));
    let first = Socket::bind(&name, access()).expect("it listens");
    assert!(matches!(Socket::bind(&name, access()), Err(SocketError::Taken { .. })));
    drop(first);
    assert!(Socket::bind(&name, access()).is_ok());
}

#[test]
fn root_we_ourselves_and_those_who_are_named_may_connect() {
    let us = geteuid().as_raw();
    let access = Access { mode: 0o660, gid: Some(70), uids: BTreeSet::from([71]) };
    assert!(access.allows(0, 5) && access.allows(us, 5) && access.allows(71, 5) && access.allows(99, 70));
    assert!(!access.allows(99, 71) && !Access::default().allows(99, 0));
}

fn meter() -> Arc<SignerMetrics> {
    Arc::new(SignerMetrics::new(
        crate::core::signer::announcement::NodeName::parse("node-1").expect("a name"),
    ))
}

#[tokio::test]
async fn a_connection_that_says_nothing_ends_and_one_that_speaks_stays() {
    use futures_util::StreamExt as _;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    let folder = TempDir::new().expect("a folder");
    let path = folder.path().join("s.sock");
    let socket = bind(&path).expect("it listens");
    let mut connections = Box::pin(socket.connections(meter(), Duration::from_millis(50)));
    let mut peer = tokio::net::UnixStream::connect(&path).await.expect("it listens");
    let mut connection = connections.next().await.expect("for ever").expect("a connection");
    for _ in 0..3 {
        peer.write_all(b"x").await.expect("it is open");
        assert_eq!(connection.read_u8().await.expect("it is open"), b'x');
    }
    let end = connection.read_u8().await.expect_err("it is silent");
    assert_eq!(end.kind(), io::ErrorKind::UnexpectedEof);
    drop(connection);
    assert_eq!(peer.read(&mut [0]).await.expect("it is closed in order"), 0);
}
