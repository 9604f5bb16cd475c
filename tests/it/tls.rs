//! TLS from files: which certificate is served, and the effect of changed files.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use openssl::x509::X509;
use rustix::process::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::support::connection::{Connection, Protocol, Trust};
use crate::support::http_client::Request;
use crate::support::installation::{Installation, Service, files};
use crate::support::pki::{KeyFiles, ServerTls};

const ISSUER: &str = "https://oidc.example/cluster";
const PATH: &str = "/cluster/openid/v1/jwks";
const PROTOCOLS: [Protocol; 2] = [Protocol::Http1, Protocol::Http2];
/// Longest wait until new files are served: they are checked every five seconds, on a busy machine.
const SEEN_WITHIN: Duration = Duration::from_mins(1);

/// A folder as kubelet creates it from a Secret: all files change at once, by one symlink.
struct SecretVolume {
    folder: TempDir,
    generation: usize,
}

impl SecretVolume {
    fn new() -> Self {
        let folder = TempDir::new().expect("a temporary folder");
        for name in ["tls.crt", "tls.key"] {
            symlink(Path::new("..data").join(name), folder.path().join(name)).expect("the folder is ours");
        }
        Self { folder, generation: 0 }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn put(&mut self, certificate: impl AsRef<[u8]>, key: impl AsRef<[u8]>) {
        self.generation += 1;
        let data = format!("..{}", self.generation);
        fs::create_dir(self.path(&data)).expect("the folder is ours");
        fs::write(self.path(&data).join("tls.crt"), certificate).expect("the folder is ours");
        let private_key = self.path(&data).join("tls.key");
        fs::write(&private_key, key).expect("the folder is ours");
        fs::set_permissions(private_key, fs::Permissions::from_mode(0o640)).expect("it is ours");
        symlink(data, self.path("..data_tmp")).expect("the folder is ours");
        fs::rename(self.path("..data_tmp"), self.path("..data")).expect("the folder is ours");
    }

    fn put_pair(&mut self, pair: &ServerTls) {
        self.put(read(&pair.certificate), read(&pair.key));
    }
}

/// A service over TLS, and certificates for it.
struct Scene {
    _folder: TempDir,
    volume: SecretVolume,
    pairs: Vec<ServerTls>,
    trust: Trust,
    installation: Installation,
}

impl Scene {
    /// The first of the pairs is served at the start.
    fn new(pairs: usize) -> Self {
        let folder = TempDir::new().expect("a temporary folder");
        let pairs: Vec<_> = (0..pairs)
            .map(|number| {
                let folder = folder.path().join(number.to_string());
                fs::create_dir(&folder).expect("the folder is ours");
                ServerTls::create(&folder)
            })
            .collect();
        let key = KeyFiles::rsa(folder.path(), "key");
        let mut volume = SecretVolume::new();
        volume.put_pair(&pairs[0]);
        let tls = json!({"certificate": volume.path("tls.crt"), "private_key": volume.path("tls.key")});
        let settings = json!({"sources": [files(&[&key.public])]});
        let installation = Installation::with_listener(ISSUER, &settings, json!({"tls": tls}));
        let trust = Trust::in_files(&pairs.iter().map(|pair| &*pair.ca).collect::<Vec<_>>());
        Self { _folder: folder, volume, pairs, trust, installation }
    }
}

fn read(path: &Path) -> Vec<u8> {
    fs::read(path).expect("it is there")
}

fn der(pair: &ServerTls) -> Vec<u8> {
    X509::from_pem(&read(&pair.certificate)).expect("it is a certificate").to_der().expect("it has DER")
}

fn tls_status(service: &Service) -> Value {
    service.admin("/status.json").expect_status(200).json()["tls"].take()
}

/// The certificate of a new handshake.
async fn shown(address: &str, trust: &Trust) -> Vec<u8> {
    let connection = Connection::open(address, Protocol::Http1, Some(trust)).await.expect("it is answered");
    connection.certificate.expect("TLS has one")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_is_replaced_under_load_and_no_request_fails() {
    let mut scene = Scene::new(4);
    let service = scene.installation.run_until_ready();
    let address = Arc::<str>::from(service.address());
    let (stop, answers) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let mut clients = JoinSet::new();
    for (protocol, keeps) in (0..80).map(|client| (PROTOCOLS[client % 2], client < 64)) {
        let (address, trust) = (Arc::clone(&address), scene.trust.clone());
        let (stop, answers) = (Arc::clone(&stop), Arc::clone(&answers));
        clients.spawn(async move {
            let open = || Connection::open(&address, protocol, Some(&trust));
            let mut connection = open().await.unwrap_or_else(|error| panic!("{protocol:?}: {error}"));
            while !stop.load(Ordering::Relaxed) {
                let answer =
                    connection.get(PATH).await.unwrap_or_else(|error| panic!("{protocol:?}: {error:?}"));
                assert_eq!(answer.status(), 200);
                assert!(answer.body().starts_with(b"{\"keys\":[{"));
                answers.fetch_add(1, Ordering::Relaxed);
                if !keeps {
                    connection = open().await.unwrap_or_else(|error| panic!("{protocol:?}: {error}"));
                }
            }
        });
    }
    for pair in &scene.pairs[1..] {
        let before = answers.load(Ordering::Relaxed);
        scene.volume.put_pair(pair);
        let (expected, replaced) = (der(pair), Instant::now());
        while shown(&address, &scene.trust).await != expected {
            assert!(replaced.elapsed() < SEEN_WITHIN, "new handshakes still show the old certificate");
            assert_eq!(clients.len(), 80);
            sleep(Duration::from_millis(50)).await;
        }
        // Open connections keep the certificate that they began with.
        while answers.load(Ordering::Relaxed) < before + 2000 {
            assert!(clients.try_join_next().is_none(), "a client has failed");
            sleep(Duration::from_millis(20)).await;
        }
    }
    stop.store(true, Ordering::Relaxed);
    while let Some(ended) = clients.join_next().await {
        ended.expect("no request failed");
    }
    assert!(answers.load(Ordering::Relaxed) >= 6000);
    assert_eq!(service.metric("signpost_tls_reload_failures_total", ""), Some(0.0));
    assert_eq!(service.running.stderr().matches("certificate replaced").count(), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broken_pair_keeps_the_one_before_and_is_told_once() {
    let mut scene = Scene::new(2);
    let mut service = scene.installation.run_until_ready();
    let address = service.address().to_owned();
    let [first, second] = &scene.pairs[..] else { panic!("two pairs") };
    let expired = TempDir::new().expect("a temporary folder");
    let expired = ServerTls::expired(expired.path());
    let (certificate, key) = (read(&second.certificate), read(&second.key));
    let cases: [(&[u8], &[u8], &str); 5] = [
        (&certificate, &read(&first.key), "does not belong to the first certificate"),
        (&certificate[..certificate.len() / 2], &key, "cannot use a certificate in"),
        (&certificate, b"", "no private key in"),
        (&certificate, &key[..key.len() / 2], "cannot use a private key in"),
        (&read(&expired.certificate), &read(&expired.key), "is valid from 2020-01-01T00:00:00Z"),
    ];
    for (certificate, key, reason) in cases {
        scene.volume.put(certificate, key);
        service.until(reason, |service| {
            tls_status(service)["error"].as_str().is_some_and(|error| error.contains(reason))
        });
        let told = |service: &Service| {
            let log = service.running.stderr();
            log.lines().filter(|line| line.contains("not replaced") && line.contains(reason)).count()
        };
        service.until("it is told", |service| told(service) == 1);
        assert_eq!(service.metric("signpost_tls_up", ""), Some(0.0), "{reason}");
        assert_eq!(shown(&address, &scene.trust).await, der(first), "{reason}");
        // A signal triggers another check; a known failure is not logged again.
        let failures = service.metric("signpost_tls_reload_failures_total", "").expect("it is there");
        service.running.signal(Signal::HUP);
        service.until("it was looked at again", |service| {
            service.metric("signpost_tls_reload_failures_total", "") > Some(failures)
        });
        assert_eq!(told(&service), 1, "{reason}");
    }
    scene.volume.put_pair(second);
    service.until("it is over", |service| service.metric("signpost_tls_up", "") == Some(1.0));
    assert_eq!(tls_status(&service)["error"], Value::Null);
    assert_eq!(shown(&address, &scene.trust).await, der(second));
    let log = service.running.stderr();
    assert_eq!(log.matches("usable again").count(), 1, "{log}");
    assert!(!log.contains("PRIVATE"), "{log}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn documents_are_the_same_over_each_protocol_and_only_tls_is_strict() {
    let scene = Scene::new(1);
    let encrypted = scene.installation.run_until_ready();
    let key = KeyFiles::rsa(scene.volume.folder.path(), "other");
    let plain = Installation::new(ISSUER, &json!({"sources": [files(&[&key.public])]}));
    let plain = plain.run_until_ready();
    for (service, trust) in [(&encrypted, Some(&scene.trust)), (&plain, None)] {
        let mut answers = Vec::new();
        for protocol in PROTOCOLS {
            let mut connection =
                Connection::open(service.address(), protocol, trust).await.expect("it is answered");
            let answer = connection.get(PATH).await.expect("it is answered");
            assert_eq!(answer.status(), 200);
            let strict = answer.headers().get("strict-transport-security");
            assert_eq!(strict.map(http::HeaderValue::as_bytes), trust.map(|_| &b"max-age=31536000"[..]));
            let head = connection.request("HEAD", PATH).await.expect("it is answered");
            assert_eq!((head.status().as_u16(), head.body().len()), (200, 0), "{protocol:?}");
            assert_eq!(head.headers()["content-length"], answer.body().len().to_string(), "{protocol:?}");
            let unknown = connection.get("/").await.expect("it is answered");
            assert_eq!(unknown.status(), 404);
            assert_eq!(unknown.headers().contains_key("strict-transport-security"), trust.is_some());
            let mut headers = answer.headers().clone();
            headers.remove("date");
            answers.push((headers, answer.into_body()));
        }
        assert_eq!(answers[0], answers[1]);
    }
    let in_plain_text = Request::get(&format!("http://{}{PATH}", encrypted.address())).send();
    assert!(in_plain_text.is_err(), "TLS is not answered in plain text");
}

#[test]
fn an_expired_certificate_is_served_at_the_start_and_told() {
    let mut scene = Scene::new(1);
    let folder = TempDir::new().expect("a temporary folder");
    scene.volume.put_pair(&ServerTls::expired(folder.path()));
    let service = scene.installation.run_until_ready();
    let log = service.running.stderr();
    assert!(log.contains("relying parties will refuse the certificate"), "{log}");
    assert_eq!(
        service.metric("signpost_tls_certificate_not_after_timestamp_seconds", ""),
        Some(1_609_459_200.0)
    );
}

#[test]
fn a_private_key_that_everybody_can_read_is_told() {
    let scene = Scene::new(1);
    let key = scene.volume.path("tls.key");
    let told = |service: &Service| service.running.stderr().contains("private key is world-readable");
    assert!(!told(&scene.installation.run_until_ready()), "a group may read it");
    fs::set_permissions(key, fs::Permissions::from_mode(0o644)).expect("it is ours");
    assert!(told(&scene.installation.run_until_ready()));
}
