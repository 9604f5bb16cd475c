//! The answers of the public listener to relying parties, browsers and hostile clients.

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::time::{Duration, Instant};

use rustix::fs::{CWD, Mode, mkfifoat};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::cluster::{Cluster, ISSUER};
use crate::support::http_client::{Request, Response};
use crate::support::installation::{DISCOVERY, DOCUMENTS, Installation, JWKS, Service, api_server, files};
use crate::support::pki::KeyFiles;

/// `FIRST_REQUEST` of the listener.
const HEADER_TIME: Duration = Duration::from_secs(10);

/// Every case has its own name, so that an answer confused by a cache is detected.
#[test]
fn what_a_client_sends_beyond_method_and_path_changes_nothing() {
    let cluster = Cluster::shared();
    let folder = TempDir::new().expect("a temporary folder");
    let kubeconfig = folder.path().join("kubeconfig");
    cluster.server.admin_kubeconfig(&kubeconfig);
    let installation = Installation::new(ISSUER, &json!({"sources": [api_server(&kubeconfig)]}));
    let service = installation.run_until_ready();
    for document in DOCUMENTS {
        let url = service.url(document);
        let head = Request::new("HEAD", &url).answer().expect_status(200);
        let plain = Request::get(&url).answer().expect_status(200);
        assert!(head.body.is_empty());
        assert!(!plain.body.is_empty(), "HEAD has emptied the answer to GET");
        assert_eq!(headers(&head), headers(&plain));
        assert_eq!(plain.header("content-type"), Some("application/json"));
        assert_eq!(plain.header("cache-control"), Some("public, max-age=300"));
        assert_eq!(plain.header("access-control-allow-origin"), Some("*"));
        assert_eq!(plain.header("x-content-type-options"), Some("nosniff"));
        assert_eq!(plain.header("content-length"), Some(plain.body.len().to_string().as_str()));
        let etag = plain.header("etag").expect("an entity tag").to_owned();
        for (name, value) in [
            ("host", "evil.example"),
            ("x-forwarded-host", "evil.example"),
            ("x-forwarded-proto", "http"),
            ("authorization", "Bearer of-the-client"),
            ("cookie", "session=of-the-client"),
            ("range", "bytes=0-3"),
            ("accept", "text/html"),
            ("accept-encoding", "gzip, br"),
            ("origin", "https://evil.example"),
            ("if-modified-since", "Sat, 01 Jan 2050 00:00:00 GMT"),
            ("if-none-match", "\"another\""),
        ] {
            let answer = Request::get(&url).header(name, value).answer().expect_status(200);
            assert_eq!(answer.body, plain.body, "{name}");
            assert_eq!(headers(&answer), headers(&plain), "{name}");
        }
        for query in ["?", "?x=1", "?x=2", "?issuer=https://evil.example"] {
            let answer = Request::get(&format!("{url}{query}")).answer().expect_status(200);
            assert_eq!((&answer.body, headers(&answer)), (&plain.body, headers(&plain)), "{query}");
        }
        for tag in [etag.clone(), format!("W/{etag}"), format!("\"other\", {etag}"), "*".to_owned()] {
            for method in ["GET", "HEAD"] {
                let request = Request::new(method, &url).header("if-none-match", &tag);
                let answer = request.answer().expect_status(304);
                assert!(answer.body.is_empty());
                assert_eq!(answer.header("etag"), Some(etag.as_str()));
                assert_eq!(answer.header("cache-control"), Some("public, max-age=300"));
            }
        }
    }
    let discovery: Value = service.get(DISCOVERY).json();
    assert_eq!(discovery["issuer"], ISSUER);
    assert_eq!(discovery["jwks_uri"], format!("{ISSUER}/{JWKS}"), "the API server's own is private");
    assert_eq!(discovery.as_object().map(serde_json::Map::len), Some(5), "{discovery}");
}

#[test]
fn other_methods_and_other_paths_are_refused_without_a_word_too_many() {
    let (_folder, _installation, service) = small_service();
    for document in DOCUMENTS {
        let url = service.url(document);
        for method in ["POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND"] {
            let answer = Request::new(method, &url).body("{}").answer().expect_status(405);
            assert_eq!(answer.header("allow"), Some("GET, HEAD"), "{method}");
            assert_eq!(answer.header("cache-control"), Some("no-store"), "{method}");
        }
        service.get(document).expect_status(200);
    }
    let root = format!("http://{}", service.address());
    for path in [
        "",
        "/",
        "/cluster",
        "/cluster/",
        "/openid/v1/jwks",
        "/.well-known/openid-configuration",
        "/cluster/openid/v1/jwks/",
        "/cluster//openid/v1/jwks",
        "/cluster/openid%2Fv1%2Fjwks",
        "/CLUSTER/openid/v1/jwks",
        "/metrics",
        "/status.json",
        "/healthz",
    ] {
        for method in ["GET", "POST"] {
            let answer = Request::new(method, &format!("{root}{path}")).answer().expect_status(404);
            assert_eq!(answer.text(), "not found\n", "{method} {path}");
            assert_eq!(answer.header("cache-control"), Some("no-store"), "{method} {path}");
        }
    }
    assert_eq!(service.metric("signpost_http_requests_total", "document=\"jwks\",code=\"405\""), Some(7.0));
    assert_eq!(service.metric("signpost_http_requests_total", "document=\"unknown\""), Some(26.0));
}

#[test]
fn the_admin_listener_writes_nothing() {
    let (_folder, installation, service) = small_service();
    let ledger = installation.ledger();
    for path in ["/healthz", "/readyz", "/metrics", "/status.json"] {
        let url = service.admin(path).expect_status(200);
        assert!(!url.body.is_empty());
    }
    for path in ["/", "/debug", "/openid/v1/jwks"] {
        service.admin(path).expect_status(404);
    }
    assert_eq!(installation.ledger(), ledger);
}

#[test]
fn a_client_that_trickles_its_header_is_cut_off_and_nobody_else_notices() {
    let (_folder, _installation, service) = small_service();
    let started = Instant::now();
    let mut slow: Vec<TcpStream> = (0..50)
        .map(|_| {
            let mut stream = TcpStream::connect(service.address()).expect("it listens");
            stream
                .write_all(b"GET /cluster/openid/v1/jwks HTTP/1.1\r\nhost: a\r\nx-slow: ")
                .expect("it reads");
            stream.set_read_timeout(Some(2 * HEADER_TIME)).expect("a duration");
            stream
        })
        .collect();
    service.get(JWKS).expect_status(200);
    // A byte now and then does not extend the limit.
    while started.elapsed() < HEADER_TIME / 2 {
        slow[0].write_all(b"a").expect("it is not cut off yet");
        service.get(JWKS).expect_status(200);
        std::thread::sleep(Duration::from_millis(250));
    }
    for mut stream in slow {
        let mut answer = Vec::new();
        // With a 408 or without: the connection ends, possibly with a reset.
        let _ = stream.read_to_end(&mut answer);
        assert!(!answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer));
        let (took, least) = (started.elapsed(), HEADER_TIME.mul_f32(0.9));
        assert!(took >= least && took < HEADER_TIME + Duration::from_secs(5), "it took {took:?}");
    }
    service.get(JWKS).expect_status(200);
}

#[test]
fn a_header_without_end_is_refused_and_does_not_fill_the_memory() {
    let (_folder, _installation, service) = small_service();
    let mut stream = TcpStream::connect(service.address()).expect("it listens");
    stream.set_read_timeout(Some(2 * HEADER_TIME)).expect("a duration");
    let started = Instant::now();
    let mut sent =
        stream.write_all(b"GET /cluster/openid/v1/jwks HTTP/1.1\r\nhost: a\r\nx-long: ").map(|()| 0);
    while let Ok(bytes) = sent {
        assert!(bytes < 8 * 1024 * 1024, "it reads on and on");
        sent = stream.write_all(&[b'a'; 4096]).map(|()| bytes + 4096);
    }
    assert!(started.elapsed() < HEADER_TIME / 2, "only the timeout has ended it");
    service.get(JWKS).expect_status(200);
}

/// Without a cluster: an issuer with a path whose key is in a file.
fn small_service() -> (TempDir, Installation, Service) {
    let folder = TempDir::new().expect("a temporary folder");
    let key = KeyFiles::rsa(folder.path(), "key");
    let installation = Installation::new(ISSUER, &json!({"sources": [files(&[&key.public])]}));
    let service = installation.run_until_ready();
    (folder, installation, service)
}

/// As `nc -N` and some proxies send them.
#[test]
fn whoever_has_no_more_to_send_still_gets_its_answer() {
    let (_folder, _installation, service) = small_service();
    for document in DOCUMENTS {
        let mut stream = TcpStream::connect(service.address()).expect("it listens");
        let request = format!("GET /cluster/{document} HTTP/1.1\r\nhost: localhost\r\n\r\n");
        stream.write_all(request.as_bytes()).expect("it reads");
        stream.shutdown(Shutdown::Write).expect("it is open");
        let mut answer = String::new();
        stream.set_read_timeout(Some(HEADER_TIME)).expect("a time limit");
        stream.read_to_string(&mut answer).expect("it is answered, and closed");
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
        assert!(answer.ends_with(&service.get(document).text()), "{answer}");
    }
}

/// All but the time.
fn headers(answer: &Response) -> Vec<(String, String)> {
    let mut headers: Vec<_> = answer
        .headers
        .iter()
        .filter(|(name, _)| *name != "date")
        .map(|(name, value)| (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned()))
        .collect();
    headers.sort();
    headers
}

/// Reading the public half hangs here; on a slow machine it is the check of the private one that takes time.
#[test]
fn what_the_ledger_says_is_served_while_the_keyring_is_opened_and_its_faults_end_the_start() {
    let settings = json!({"sources": [{"kind": "embedded"}]});
    let installation = Installation::new("http://127.0.0.1:8080/embedded", &settings);
    let mut service = installation.run_until_ready();
    service.until("the standby key is public as well", |service| {
        service.get(JWKS).json()["keys"].as_array().is_some_and(|keys| keys.len() == 2)
    });
    let before = service.served();
    service.stop().expect_code(0);
    let keys = fs::read_dir(installation.data_dir().join("keys")).expect("there is a keyring");
    let keys = keys.map(|entry| entry.expect("it can be read").path()).collect::<Vec<_>>();
    let half = |extension| keys.iter().find(|path| path.extension().is_some_and(|it| it == extension));
    let (private, public) = (half("pem").expect("a key"), half("pub").expect("its public half"));

    fs::remove_file(public).expect("it is ours");
    mkfifoat(CWD, public, Mode::RUSR | Mode::WUSR).expect("a pipe can be made");
    let mut service = installation.run_until_ready();
    assert_eq!(service.served(), before);
    assert_eq!(service.status()["sources"], json!({}), "the keyring is open already");
    drop(File::options().write(true).open(public).expect("it is being read"));
    service.until("the keyring is open", |service| service.source_is_up("embedded"));
    service.stop().expect_code(0);

    fs::set_permissions(private, fs::Permissions::from_mode(0o644)).expect("it is ours");
    let refused = installation.finish(["run"]).expect_code(2).stderr;
    assert!(refused.contains("has mode 0644, expected 0600"), "{refused}");
}
