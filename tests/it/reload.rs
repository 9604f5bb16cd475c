//! SIGHUP: issuers without changes in the new configuration continue undisturbed.

use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::http_client::Request;
use crate::support::installation::{DISCOVERY, DOCUMENTS, Installation, JWKS, Service, directory_target};
use crate::support::pki::KeyFiles;
use crate::support::port::Port;
use crate::support::signpost::Signpost;

/// How many times the configuration changes under load.
const RELOADS: usize = 60;

struct Scene {
    installation: Installation,
    folder: TempDir,
    key: PathBuf,
}

impl Scene {
    /// The process starts with these issuers, all of which have the same key.
    fn new(names: &[&str]) -> Self {
        let folder = TempDir::new().expect("a temporary folder");
        let key = KeyFiles::rsa(folder.path(), "sa").public;
        let scene = Self { installation: Installation::new(&url(names[0]), &json!({})), folder, key };
        scene.configure(&names.iter().map(|name| scene.issuer(name)).collect::<Vec<_>>());
        scene
    }

    /// An issuer with a single poll, so that a second answer means a second start.
    fn issuer(&self, name: &str) -> Value {
        json!({
            "issuer": url(name),
            "sources": [{"kind": "files", "name": "files", "paths": [self.key], "every": "1h"}],
            "targets": [directory_target(&self.public(name))],
        })
    }

    fn changed(&self, name: &str, max_age: &str) -> Value {
        let mut issuer = self.issuer(name);
        issuer["jwks_max_age"] = json!(max_age);
        issuer
    }

    fn public(&self, name: &str) -> PathBuf {
        self.folder.path().join("public").join(name)
    }

    fn configure(&self, issuers: &[Value]) {
        self.installation.configure_issuers(issuers);
    }

    /// The directories of all ledgers whose issuer has this name.
    fn ledger(&self, name: &str) -> PathBuf {
        let all = fs::read_dir(self.installation.data_dir().join("issuers")).expect("ledgers were written");
        let directories = all.map(|entry| entry.expect("it can be read").path());
        let directory = directories.into_iter().find(|path| {
            path.file_name().expect("it has a name").to_string_lossy().contains(&format!("-{name}-"))
        });
        directory.expect("it has a ledger").join("ledger.json")
    }
}

fn url(name: &str) -> String {
    format!("https://oidc.example/{name}")
}

fn path(name: &str, document: &str) -> String {
    format!("/{name}/{document}")
}

fn get(service: &Service, name: &str) -> u16 {
    Request::get(&format!("http://{}{}", service.address(), path(name, JWKS))).answer().status
}

fn status(service: &Service) -> Value {
    service.admin("/status.json").expect_status(200).json()
}

/// Sends SIGHUP and waits until the file was accepted or rejected.
#[track_caller]
fn reload(service: &mut Service) -> Value {
    let reads = |service: &Service| status(service)["configuration"]["reads"].as_u64();
    let before = reads(service);
    service.running.signal(Signal::HUP);
    service.until("the configuration was read", |service| reads(service) != before);
    status(service)["configuration"].take()
}

#[track_caller]
fn taken(service: &mut Service) {
    let configuration = reload(service);
    assert_eq!(configuration["alarm"], Value::Null, "{configuration}");
}

#[track_caller]
fn refused(service: &mut Service, reasons: &[&str]) {
    let configuration = reload(service);
    let alarm = configuration["alarm"].as_str().expect("it is refused");
    let log = service.running.stderr();
    for reason in reasons {
        assert!(alarm.contains(reason), "`{reason}` is not in {alarm}");
        assert!(log.contains(reason), "`{reason}` is not in {log}");
    }
    assert_eq!(service.metric("signpost_config_reload_successful", ""), Some(0.0));
}

/// Requests the documents of these issuers until `stop`; returns the number of answers that satisfied
/// `check`.
fn load(address: &str, names: &[&str], stop: &AtomicBool, check: impl Fn(u16, &[u8])) -> usize {
    let client = reqwest::Client::builder().no_proxy().tls_certs_only([]).build().expect("a client");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let mut count = 0;
        while !stop.load(Ordering::Relaxed) {
            for name in names {
                for document in DOCUMENTS {
                    let url = format!("http://{address}{}", path(name, document));
                    let answer =
                        client.get(&url).send().await.unwrap_or_else(|error| panic!("{url}: {error}"));
                    let code = answer.status().as_u16();
                    check(code, &answer.bytes().await.unwrap_or_else(|error| panic!("{url}: {error}")));
                    count += 1;
                }
            }
        }
        count
    })
}

#[test]
fn a_reload_under_load_fails_no_request_of_an_issuer_that_stays_or_changes() {
    let scene = Scene::new(&["stays", "changes", "goes"]);
    let mut service = scene.installation.run_until_ready();
    let (address, stop) = (service.address().to_owned(), AtomicBool::new(false));
    let jwks = service.get(JWKS).expect_status(200).body;
    let requests = thread::scope(|scope| {
        let lasting = [(); 2].map(|()| {
            scope.spawn(|| {
                load(&address, &["stays", "changes"], &stop, |code, body| {
                    assert_eq!(code, 200, "{}", String::from_utf8_lossy(body));
                    assert!(body == jwks || body.starts_with(b"{\"issuer\""), "neither document");
                })
            })
        });
        let passing = scope.spawn(|| {
            load(&address, &["goes", "comes"], &stop, |code, body| {
                assert!([200, 404, 503].contains(&code), "{code} {}", String::from_utf8_lossy(body));
            })
        });
        let reloads = scope.spawn(|| {
            for round in 0..RELOADS {
                let max_age = format!("{}s", 60 + round);
                let (come, gone) = if round % 2 == 0 { ("comes", "goes") } else { ("goes", "comes") };
                scene.configure(&[
                    scene.issuer("stays"),
                    scene.changed("changes", &max_age),
                    scene.issuer(come),
                ]);
                taken(&mut service);
                assert_eq!(get(&service, gone), 404);
                if round % 5 == 0 {
                    fs::write(scene.installation.config_file(), "isuers: []").expect("it can be written");
                    refused(&mut service, &["isuers", "unknown key"]);
                }
            }
        });
        let reloaded = reloads.join();
        stop.store(true, Ordering::Relaxed);
        reloaded.expect("every reload did what it should");
        let counts = lasting.map(|load| load.join().expect("no request of theirs failed"));
        passing.join().expect("nothing but routes came and went");
        counts.iter().sum::<usize>()
    });
    assert!(requests > 2_000, "only {requests} requests were made");
    let last = format!("public, max-age={}", 60 + RELOADS - 1);
    service.until("the last change is served", |service| {
        let changes = format!("http://{}{}", service.address(), path("changes", JWKS));
        Request::get(&changes).answer().header("cache-control") == Some(last.as_str())
    });
    // It was not even polled again.
    assert_eq!(service.status()["sources"]["files"]["answers"], 1);
    let log = service.running.stderr();
    assert_eq!(log.matches("issuer changed").count(), RELOADS, "{log}");
    assert_eq!(log.matches("issuer added").count(), RELOADS, "{log}");
    assert_eq!(log.matches("issuer removed").count(), RELOADS, "{log}");
    service.stop().expect_code(0);
}

#[test]
fn a_configuration_with_faults_is_refused_as_a_whole_and_told_everywhere() {
    let scene = Scene::new(&["stays"]);
    let mut service = scene.installation.run_until_ready();
    let good = fs::read_to_string(scene.installation.config_file()).expect("it was written");
    let served = service.served();
    let write = |text: &str| fs::write(scene.installation.config_file(), text).expect("it can be written");

    write(&good.replace("\"kind\":\"files\"", "\"kind\":\"fils\"").replace("\"url\"", "\"ulr\""));
    refused(&mut service, &["problems in", "`fils`", "ulr: unknown key"]);
    write("issuers: [");
    refused(&mut service, &["1 problem in"]);
    fs::remove_file(scene.installation.config_file()).expect("it was written");
    refused(&mut service, &["cannot read", "config.yaml"]);
    let other = Port::free();
    let moved = good.replace(service.address(), &other.address());
    write(&moved);
    refused(&mut service, &["listen", &other.address(), "while the process runs", "restart signpost"]);
    assert_eq!(service.served(), served);
    assert_eq!(service.admin("/readyz").status, 200);

    write(&good);
    taken(&mut service);
    assert_eq!(service.metric("signpost_config_reload_successful", ""), Some(1.0));
    assert_eq!(service.served(), served);
    assert_eq!(service.status()["sources"]["files"]["answers"], 1, "a refused configuration restarted it");
    let log = service.running.stderr();
    assert_eq!(log.matches("configuration rejected").count(), 4, "{log}");
}

#[test]
fn a_removed_issuer_is_gone_and_its_ledger_stays() {
    let scene = Scene::new(&["stays", "goes"]);
    let mut service = scene.installation.run_until_ready();
    let document = scene.public("goes").join(JWKS);
    service.until("it is published", |_| document.exists());
    let lineage = status(&service)["issuers"][url("goes")]["lineage"].take();

    scene.configure(&[scene.issuer("stays")]);
    taken(&mut service);
    assert_eq!((get(&service, "goes"), get(&service, "stays")), (404, 200));
    assert_eq!(status(&service)["issuers"].as_object().map(serde_json::Map::len), Some(1));
    assert_eq!(service.metric("signpost_ready", "goes"), None);
    assert!(scene.ledger("goes").exists() && document.exists());

    scene.configure(&[scene.issuer("stays"), scene.issuer("goes")]);
    taken(&mut service);
    service.until("it is served again", |service| get(service, "goes") == 200);
    assert_eq!(status(&service)["issuers"][url("goes")]["lineage"], lineage);
}

#[test]
fn an_issuer_that_cannot_start_harms_nobody_and_starts_once_it_can() {
    let scene = Scene::new(&["stays", "breaks"]);
    let mut service = scene.installation.run_until_ready();
    scene.configure(&[scene.issuer("stays")]);
    taken(&mut service);
    let ledger = scene.ledger("breaks");
    let good = fs::read(&ledger).expect("it was written");
    fs::write(&ledger, good.iter().rev().copied().collect::<Vec<_>>()).expect("it can be written");
    let _ = fs::remove_file(ledger.with_file_name("ledger.previous.json"));

    scene.configure(&[scene.issuer("stays"), scene.issuer("breaks")]);
    taken(&mut service);
    service.until("its alarm rings", |service| {
        let alarms = status(service)["issuers"][url("breaks")]["alarms"].to_string();
        alarms.contains("cannot start") && alarms.contains("damaged ledger")
    });
    assert_eq!((get(&service, "breaks"), get(&service, "stays")), (503, 200));
    assert_eq!(service.admin("/readyz").status, 200);

    fs::write(&ledger, good).expect("it can be written");
    service.until("it starts", |service| get(service, "breaks") == 200);
    service.until("its alarm is over", |service| {
        status(service)["issuers"][url("breaks")]["alarms"] == json!([])
    });
}

#[test]
fn without_a_configuration_file_a_hangup_ends_the_process() {
    let scene = Scene::new(&["stays"]);
    let (public, admin) = (Port::free(), Port::free());
    let data = scene.folder.path().join("embedded");
    let arguments = ["run", "--listen", &public.address(), "--admin-listen", &admin.address(), "--data-dir"];
    let arguments = arguments.into_iter().map(PathBuf::from).chain([data]);
    let mut running = Signpost::new(arguments.map(PathBuf::into_os_string)).start();
    running.wait_for(&format!("http://{}/{DISCOVERY}", public.address()));
    running.signal(Signal::HUP);
    running.finish(Duration::from_mins(1)).expect_code(0);
}
