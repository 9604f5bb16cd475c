//! Connections of the public listener: their lifetime, their number, and their end with the process.

use std::fs;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, prlimit};
use serde_json::json;
use tempfile::TempDir;
use tokio::task::JoinSet;

use crate::support::connection::{Connection, Protocol, Trust};
use crate::support::installation::{Installation, JWKS, Service, files};
use crate::support::pki::{KeyFiles, ServerTls};
use crate::support::signpost::Signpost;

const ISSUER: &str = "https://oidc.example/cluster";
const PATH: &str = "/cluster/openid/v1/jwks";
/// `FIRST_REQUEST` and `HANDSHAKE` of the listener.
const PATIENCE: Duration = Duration::from_secs(10);
/// Tolerance for a busy machine.
const SLACK: Duration = Duration::from_secs(5);

struct Scene {
    _folder: TempDir,
    tls: ServerTls,
    installation: Installation,
}

impl Scene {
    fn new(mut listener: serde_json::Value, encrypted: bool) -> Self {
        let folder = TempDir::new().expect("a temporary folder");
        let (key, tls) = (KeyFiles::rsa(folder.path(), "key"), ServerTls::create(folder.path()));
        if encrypted {
            listener["tls"] = json!({"certificate": tls.certificate, "private_key": tls.key});
        }
        let settings = json!({"sources": [files(&[&key.public])]});
        let installation = Installation::with_listener(ISSUER, &settings, listener);
        Self { _folder: folder, tls, installation }
    }
}

/// Waits for the end of a connection.
fn ends(mut stream: TcpStream) -> Duration {
    let started = Instant::now();
    stream.set_read_timeout(Some(PATIENCE + 2 * SLACK)).expect("a duration");
    let mut rest = [0; 1024];
    loop {
        match stream.read(&mut rest) {
            Ok(0) => return started.elapsed(),
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                panic!("it is still open after {:?}", started.elapsed())
            }
            Err(_) => return started.elapsed(),
        }
    }
}

#[test]
fn a_peer_that_says_nothing_or_not_enough_is_cut_off() {
    let (plain, encrypted) = (Scene::new(json!({}), false), Scene::new(json!({}), true));
    let (plain_service, encrypted_service) =
        (plain.installation.run_until_ready(), encrypted.installation.run_until_ready());
    // Half of HTTP/2's preface, all of it, a TLS record without end.
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    let settings = [&preface[..], &[0, 0, 0, 4, 0, 0, 0, 0, 0]].concat();
    let cases: [(&Service, &[u8]); 6] = [
        (&plain_service, b""),
        (&plain_service, b"G"),
        (&plain_service, &preface[..12]),
        (&plain_service, &settings),
        (&encrypted_service, b""),
        (&encrypted_service, b"\x16\x03\x01\x02\x00"),
    ];
    let silent: Vec<_> = cases
        .iter()
        .map(|(service, said)| {
            let mut stream = TcpStream::connect(service.address()).expect("it listens");
            stream.write_all(said).expect("it reads");
            (thread::spawn(move || ends(stream)), said)
        })
        .collect();
    for (ended, said) in silent {
        let took = ended.join().unwrap_or_else(|_| panic!("{said:?}"));
        assert!(took > PATIENCE / 2 && took < PATIENCE + SLACK, "{said:?}: {took:?}");
    }
    plain_service.get(JWKS).expect_status(200);
}

#[test]
fn more_connections_than_the_limit_wait_until_one_ends() {
    let scene = Scene::new(json!({"max_connections": 3}), false);
    let service = scene.installation.run_until_ready();
    let request = format!("GET {PATH} HTTP/1.1\r\nhost: a\r\n\r\n");
    let ask = || {
        let mut stream = TcpStream::connect(service.address()).expect("it listens");
        stream.write_all(request.as_bytes()).expect("the kernel takes it");
        stream
    };
    let answer = |stream: &mut TcpStream, within| {
        stream.set_read_timeout(Some(within)).expect("a duration");
        let mut begin = [0; 12];
        stream.read_exact(&mut begin).is_ok_and(|()| begin == *b"HTTP/1.1 200")
    };
    let mut taken: Vec<_> = (0..3).map(|_| ask()).collect();
    assert!(taken.iter_mut().all(|stream| answer(stream, 2 * SLACK)));
    assert_eq!(service.metric("signpost_http_connections", ""), Some(3.0));
    let mut waiting = ask();
    assert!(!answer(&mut waiting, Duration::from_secs(1)), "it is the fourth");
    assert_eq!(service.metric("signpost_http_connections", ""), Some(3.0));
    assert_eq!(service.admin("/readyz").status, 200, "operators have connections of their own");
    drop(taken.pop());
    assert!(answer(&mut waiting, 2 * SLACK), "its turn has come");
}

#[test]
fn a_process_without_file_descriptors_recovers_and_does_not_spin() {
    let scene = Scene::new(json!({}), false);
    let mut service = scene.installation.run_until_ready();
    let pid = service.running.pid();
    let open = fs::read_dir(format!("/proc/{pid}/fd")).expect("it runs").count() as u64;
    let most = Some(4096);
    let limit = |current| {
        prlimit(Some(pid), Resource::Nofile, Rlimit { current, maximum: most }).expect("it is ours");
    };
    limit(Some(open + 4));
    let streams: Vec<_> =
        (0..20).map(|_| TcpStream::connect(service.address()).expect("the kernel accepts")).collect();
    let deadline = Instant::now() + 2 * PATIENCE;
    while !service.running.stderr().contains("cannot accept connections") {
        assert!(Instant::now() < deadline, "{}", service.running.stderr());
        thread::sleep(Duration::from_millis(20));
    }
    let before = cpu(&service);
    thread::sleep(Duration::from_secs(1));
    let used = cpu(&service) - before;
    assert!(used < 50, "it has used {used} hundredths of a second");
    assert!(service.running.is_running());
    // In this order: a connection that ends over the limit makes room for one.
    limit(most);
    drop(streams);
    service.until("it answers again", |service| {
        TcpStream::connect(service.address()).is_ok() && service.get(JWKS).status == 200
    });
    assert_eq!(service.running.stderr().matches("cannot accept connections").count(), 1);
}

#[test]
fn a_service_takes_all_the_open_files_that_it_may_have() {
    let scene = Scene::new(json!({}), false);
    let mut shell = Command::new("/bin/sh");
    shell.args(["-c", "ulimit -S -n 256 && ulimit -H -n 512 && exec \"$0\" \"$@\""]);
    let config = scene.installation.config_file();
    let service = scene.installation.run_as(Signpost::within(shell, ["run"]).env("SIGNPOST_CONFIG", config));
    let limits = fs::read_to_string(format!("/proc/{}/limits", service.running.id())).expect("it runs");
    let files = limits.lines().find(|line| line.starts_with("Max open files")).expect("a limit");
    assert_eq!(files.split_whitespace().skip(3).take(2).collect::<Vec<_>>(), ["512", "512"]);
}

/// CPU time of the process: fields 14 and 15 of `/proc/PID/stat`, in hundredths of a second.
fn cpu(service: &Service) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{}/stat", service.running.pid())).expect("it runs");
    let (_, fields) = stat.rsplit_once(") ").expect("it has a name");
    let ticks = fields.split(' ').skip(11).take(2).map(|field| field.parse::<u64>().expect("a number"));
    ticks.sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_is_told_to_end_under_load_answers_every_request_that_it_took() {
    for encrypted in [false, true] {
        let scene = Scene::new(json!({}), encrypted);
        let mut service = scene.installation.run_until_ready();
        let trust = encrypted.then(|| Trust::in_files(&[&scene.tls.ca]));
        let answers = Arc::new(AtomicUsize::new(0));
        let mut clients = JoinSet::new();
        for client in 0..32 {
            let protocol = [Protocol::Http1, Protocol::Http2][client % 2];
            let answers = Arc::clone(&answers);
            let mut connection =
                Connection::open(service.address(), protocol, trust.as_ref()).await.expect("it listens");
            clients.spawn(async move {
                loop {
                    match connection.get(PATH).await {
                        Ok(answer) => assert_eq!(answer.status(), 200),
                        // Not accepted: the connection had ended before.
                        Err(error) if error.is_canceled() || error.is_closed() => return,
                        // Nor was this: a graceful GOAWAY covers requests that the server has not begun to
                        // process (RFC 9113 section 6.8).
                        Err(error) if format!("{error:?}").contains("GoAway(b\"\", NO_ERROR") => return,
                        Err(error) => panic!("{protocol:?}, encrypted {encrypted}: {error:?}"),
                    }
                    answers.fetch_add(1, Ordering::Relaxed);
                    if connection.is_over().await {
                        return;
                    }
                }
            });
        }
        let enough = async {
            while answers.load(Ordering::Relaxed) < 2000 {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(6 * PATIENCE, enough).await.expect("it answers");
        service.running.terminate();
        while let Some(ended) = clients.join_next().await {
            ended.expect("no request was lost");
        }
        let finished = service.running.finish(4 * PATIENCE).expect_code(0);
        assert!(!finished.stderr.contains("some tasks did not stop in time"), "{}", finished.stderr);
    }
}

/// A body in the answer to `HEAD` is a protocol error for an HTTP/2 client (RFC 9113 section 8.1.1).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn head_is_answered_without_a_body_whatever_the_answer() {
    let scene = Scene::new(json!({}), false);
    let empty = TempDir::new().expect("a temporary folder");
    let mut settings = json!({"sources": [files(&[&empty.path().join("*.pub")])]});
    settings["sources"][0]["optional"] = json!(true);
    let nothing = Installation::new(ISSUER, &settings);
    let (full, nothing) = (scene.installation.run_until_ready(), nothing.run());
    for protocol in [Protocol::Http1, Protocol::Http2] {
        for (service, path, status) in [(&full, PATH, 200), (&full, "/nowhere", 404), (&nothing, PATH, 503)] {
            let mut connection =
                Connection::open(service.address(), protocol, None).await.expect("it listens");
            let answer = connection.request("HEAD", path).await.expect("an answer without a fault");
            assert_eq!((answer.status().as_u16(), answer.body().len()), (status, 0), "{protocol:?}");
            let of_get = connection.get(path).await.expect("the connection is good for more");
            assert_eq!(answer.headers()["content-length"], of_get.body().len().to_string());
        }
    }
}

/// RFC 9112 section 3.2.
#[test]
fn a_request_of_http_1_1_is_for_one_host() {
    let scene = Scene::new(json!({}), false);
    let service = scene.installation.run_until_ready();
    for (host, status) in [
        ("host: oidc.example\r\n", "200"),
        ("host: oidc.example:443\r\n", "200"),
        ("", "400"),
        ("host: oidc.example\r\nhost: oidc.example\r\n", "400"),
        ("host: oidc.example\r\nhost: evil.example\r\n", "400"),
    ] {
        let mut stream = TcpStream::connect(service.address()).expect("it listens");
        write!(stream, "GET {PATH} HTTP/1.1\r\n{host}connection: close\r\n\r\n").expect("it listens");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("it is text");
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{host:?}: {answer}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_idles_does_not_hold_up_the_end() {
    let scene = Scene::new(json!({}), false);
    let mut service = scene.installation.run_until_ready();
    let mut idle = Vec::new();
    for protocol in [Protocol::Http1, Protocol::Http2] {
        let mut connection = Connection::open(service.address(), protocol, None).await.expect("it listens");
        connection.get(PATH).await.expect("it is answered");
        idle.push(connection);
    }
    let _silent = TcpStream::connect(service.address()).expect("it listens");
    let started = Instant::now();
    service.running.terminate();
    service.running.finish(PATIENCE).expect_code(0);
    assert!(started.elapsed() < PATIENCE, "{:?}", started.elapsed());
}
