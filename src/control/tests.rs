use std::{os::unix::fs::MetadataExt as _, sync::Arc};

use tempfile::TempDir;
use tokio::sync::Notify;

use super::*;

fn wanted() -> Request {
    Request::Rotation { issuer: Some("https://issuer.example".to_owned()) }
}

/// Runs `talk` while a service echoes its requests.
async fn beside_a_service<T>(data_dir: &Path, talk: impl Future<Output = T>) -> T {
    let stop = Arc::new(Notify::new());
    let control = Control::listen(data_dir).expect("listens");
    let stopped = Arc::clone(&stop);
    let answer =
        |request: Request| async move { Reply::Refused { error: format!("{request:?}"), hint: None } };
    let service = control.serve(answer, async move { stopped.notified().await });
    let talk = async {
        let told = talk.await;
        stop.notify_one();
        told
    };
    tokio::join!(talk, service).0
}

#[tokio::test]
async fn what_is_asked_is_answered_and_the_socket_goes_with_the_service() {
    let folder = TempDir::new().expect("a folder");
    // Longer than the path of a socket may be.
    let deep = folder.path().join("d".repeat(120));
    fs::create_dir(&deep).expect("made");
    for _ in 0..2 {
        let reply = beside_a_service(&deep, async {
            let mode = fs::metadata(deep.join(NAME)).expect("it is there").mode();
            assert_eq!(mode & 0o777, 0o600, "{mode:o}");
            ask(&deep, &wanted()).await.expect("answered")
        });
        let Reply::Refused { error, .. } = reply.await else { panic!("another answer") };
        assert_eq!(error, format!("{:?}", wanted()));
        let names: Vec<_> = fs::read_dir(&deep).expect("readable").collect();
        assert!(names.is_empty(), "{names:?}");
    }
}

#[tokio::test]
async fn without_a_service_it_is_said_what_to_do() {
    let folder = TempDir::new().expect("a folder");
    let missing = folder.path().join("missing");
    // A socket that an ended process has left.
    drop(Control::listen(folder.path()).expect("listens"));
    for data_dir in [folder.path(), &missing] {
        let error = ask(data_dir, &wanted()).await.err().expect("nobody is there");
        assert!(matches!(error, ControlError::NobodyListens { .. }), "{error}");
        assert!(error.hint().expect("a hint").starts_with("start `signpost run`"));
    }
}

#[tokio::test]
async fn whoever_talks_nonsense_or_nothing_harms_nobody() {
    let folder = TempDir::new().expect("a folder");
    beside_a_service(folder.path(), async {
        let socket = folder.path().join(NAME);
        let silent: Vec<_> = (0..MAX_CONVERSATIONS - 1)
            .map(|_| std::os::unix::net::UnixStream::connect(&socket).expect("connected"))
            .collect();
        for nonsense in
            ["\n", "{}\n", "{\"rotation\":{}}\n", "[1\n", "{\"rotate\":{\"ask\":{\"start\":{}}}}\n"]
        {
            let mut stream = UnixStream::connect(&socket).await.expect("connected");
            stream.write_all(nonsense.as_bytes()).await.expect("sent");
            let line = line(&mut stream).await.expect("an answer");
            let text = String::from_utf8(line).expect("text");
            let is_refused = text.starts_with("{\"refused\":{\"error\":\"");
            assert!(is_refused || nonsense.contains("rotation"), "{nonsense}: {text}");
        }
        drop(UnixStream::connect(&socket).await);
        assert!(ask(folder.path(), &wanted()).await.is_ok());
        drop(silent);
    })
    .await;
}
