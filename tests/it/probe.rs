//! The periodic check of a running service on its own tokens, against the public documents.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use openssl::pkey::PKey;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::api_server::{ApiServer, Bearer, Options, write_kubeconfig};
use crate::support::etcd::Etcd;
use crate::support::eventually::eventually;
use crate::support::http_client::Request;
use crate::support::installation::{DISCOVERY, Installation, JWKS, Service, api_server, directory_target};
use crate::support::nginx::{Location, Nginx};
use crate::support::pki::KeyFiles;
use crate::support::port::Port;
use crate::support::secrets::{Secrets, has_token};
use crate::support::signpost::Signpost;

mod exchange;
mod parties;

const WITHIN: Duration = Duration::from_mins(1);
const EVENTS: &str = "/apis/events.k8s.io/v1/namespaces/signpost/events";
const REFUSED: &str = "tokens would not be accepted";
const RECOVERED: &str = "tokens would be accepted again";

/// A cluster whose issuer is a separate web server, and a pod that publishes for it.
struct World {
    issuer: String,
    nginx: Nginx,
    server: ApiServer,
    folder: TempDir,
    _etcd: Etcd,
}

impl World {
    fn start() -> Self {
        let folder = TempDir::new().expect("a temporary folder");
        let public = folder.path().join("public");
        fs::create_dir(&public).expect("the folder is ours");
        let nginx = Nginx::start(&[("/cluster/", Location::Folder(public))]);
        let issuer = format!("{}/cluster", nginx.url());
        let (etcd, key) = (Etcd::start(), KeyFiles::rsa(folder.path(), "sa"));
        let server = ApiServer::start(&etcd, Options::new(&issuer, &key));
        server.create_namespace("signpost");
        server.create_service_account("signpost", "signpost");
        let token = json!({"apiGroups": [""], "resources": ["serviceaccounts/token"], "verbs": ["create"]});
        let events =
            json!({"apiGroups": ["events.k8s.io"], "resources": ["events"], "verbs": ["create", "patch"]});
        allow(&server, "signpost", &json!([token, events]));
        Self { issuer, nginx, server, folder, _etcd: etcd }
    }

    fn public(&self) -> PathBuf {
        self.folder.path().join("public")
    }

    /// A kubeconfig of Signpost's service account.
    fn kubeconfig(&self) -> PathBuf {
        let file = self.folder.path().join("kubeconfig");
        let token = self.server.token("signpost", "signpost", &[], 3600);
        write_kubeconfig(&file, &self.server.url(), self.server.ca_file(), &Bearer::Token(&token));
        file
    }

    fn installation(&self) -> Installation {
        let file = self.kubeconfig();
        let settings = json!({
            "sources": [api_server(&file)],
            "targets": [directory_target(&self.public())],
            "verify": {"every": "1s"},
        });
        let events = json!({"pod": "signpost/signpost-0", "kubeconfig": file});
        Installation::with_listener(&self.issuer, &settings, json!({"events": events}))
    }

    /// The same issuer with the key of another cluster.
    fn of_another_cluster(&self) -> PathBuf {
        let (other, key) = (self.folder.path().join("other"), KeyFiles::rsa(self.folder.path(), "other"));
        let arguments = ["jwks", "--issuer", &self.issuer, "--output-dir"].map(PathBuf::from);
        let arguments = arguments.into_iter().chain([other.clone(), "--source".into(), key.public]);
        Signpost::new(arguments).finish(WITHIN).expect_code(0);
        other
    }

    /// The text contains neither a token nor a part of the cluster's key.
    #[track_caller]
    fn assert_silent(&self, what: &str, text: impl AsRef<[u8]>) {
        let pem = fs::read(self.server.options().signing_key.as_ref().expect("it has one")).expect("ours");
        let mut secrets = Secrets::default();
        secrets.add_key(&PKey::private_key_from_pem(&pem).expect("it is a key"));
        secrets.assert_not_in(what, &text);
        assert!(!has_token(&text), "{what}: {}", String::from_utf8_lossy(text.as_ref()));
    }

    fn events(&self, reason: &str) -> Vec<Value> {
        let mut list = self.server.admin_request("GET", EVENTS).answer().expect_status(200).json();
        let items = list["items"].as_array_mut().expect("a list").drain(..);
        items.filter(|event| event["reason"] == reason).collect()
    }
}

/// Grants Signpost these permissions in a namespace.
fn allow(server: &ApiServer, namespace: &str, rules: &Value) {
    let group = "rbac.authorization.k8s.io";
    let path = format!("/apis/{group}/v1/namespaces/{namespace}");
    let role = json!({"metadata": {"name": "signpost"}, "rules": rules});
    server.create(&format!("{path}/roles"), &role);
    let subject = json!({"kind": "ServiceAccount", "namespace": "signpost", "name": "signpost"});
    let of = json!({"apiGroup": group, "kind": "Role", "name": "signpost"});
    let binding = json!({"metadata": {"name": "signpost"}, "roleRef": of, "subjects": [subject]});
    server.create(&format!("{path}/rolebindings"), &binding);
}

fn succeeds(service: &Service) -> Option<bool> {
    service.metric("signpost_verify_success", "").map(|value| value > 0.5)
}

#[test]
fn a_key_that_the_world_does_not_see_is_told_until_it_does() {
    let mut world = World::start();
    let installation = world.installation();
    let mut service = installation
        .run_as(installation.verb(["run", "--log", "debug"]).env("SSL_CERT_FILE", world.nginx.ca_file()));
    service.until("tokens are accepted", |service| succeeds(service) == Some(true));
    let found = service.status()["verification"].take();
    assert_eq!(
        (&found["outcome"], &found["for"], &found["failures"]),
        (&json!("accepted"), &json!("local"), &json!(0))
    );
    assert_eq!(service.metric("signpost_verify_findings", "level=\"error\""), Some(0.0));
    let well = format!("[+]{}: a local relying party would accept its tokens", world.issuer);
    assert!(
        service.admin("/readyz?verbose").text().contains(&well),
        "{}",
        service.admin("/readyz?verbose").text()
    );

    let other = world.of_another_cluster();
    world.nginx.point(&[("/cluster/", Location::Folder(other))]);
    service.until("the missing key is seen", |service| succeeds(service) == Some(false));
    let found = service.status()["verification"].take();
    let kid = service.source()["signs_with"].as_str().expect("a kid").to_owned();
    let first = &found["findings"][0];
    assert_eq!((&found["outcome"], &first["id"]), (&json!("refused"), &json!("JWKS-KID")), "{found}");
    assert_eq!((&first["likely_first"], &first["level"]), (&json!(true), &json!("error")));
    assert!(first["seen"].as_str().is_some_and(|seen| seen.contains(&kid)), "{first}");
    assert!(service.metric("signpost_verify_findings", "level=\"error\"") >= Some(1.0));
    let told = format!(
        "a local relying party would refuse its tokens, JWKS-KID: {}",
        first["seen"].as_str().expect("words")
    );
    let readiness = service.admin("/readyz").expect_status(200).text();
    assert!(readiness.contains(&format!("[-]{}: {told}", world.issuer)), "{readiness}");
    let (event, _) = eventually("it is told", || world.events("VerificationFailed").pop());
    assert_eq!((&event["type"], &event["action"]), (&json!("Warning"), &json!("Verify")));
    for path in ["/status.json", "/metrics", "/readyz?verbose"] {
        world.assert_silent(path, service.admin(path).body);
    }
    assert_eq!(event["note"], format!("{told} (issuer `{}`)", world.issuer));

    world.nginx.point(&[("/cluster/", Location::Folder(world.public()))]);
    service.until("it is healed", |service| succeeds(service) == Some(true));
    let (event, _) = eventually("that is told", || world.events("VerificationRecovered").pop());
    assert_eq!(event["type"], "Normal");
    world.assert_silent("the Events", world.server.admin_request("GET", EVENTS).answer().body);

    world.nginx.stop();
    service.until("that nobody answers is seen", |service| succeeds(service) == Some(false));
    let found = service.status()["verification"].take();
    assert_eq!(
        (&found["outcome"], &found["findings"][0]["id"]),
        (&json!("unknown"), &json!("PUB-REACH")),
        "{found}"
    );
    world.nginx.restart();
    service.until("it is reached again", |service| succeeds(service) == Some(true));

    // Without a token there is no new verdict, and the last one stays.
    world.server.stop();
    service.until("that there is no token is seen", |service| {
        service.metric("signpost_verify_failures_total", "") >= Some(1.0)
    });
    assert_eq!(succeeds(&service), Some(true));
    let found = service.status()["verification"].take();
    assert_eq!(found["outcome"], "accepted");
    assert!(found["error"].is_string(), "{found}");
    world.server.restart();
    service.until("there is one again", |service| service.status()["verification"]["error"].is_null());

    let log = service.stop().expect_code(0).stderr;
    let lines = |text: &str| log.lines().filter(|line| line.contains(text)).count();
    assert_eq!((lines(REFUSED), lines(RECOVERED)), (2, 2), "{log}");
    assert_eq!(lines("tokens are verified again"), 1, "{log}");
    assert!(log.contains("DEBUG"), "it was as loud as it was told to be");
    world.assert_silent("the log", log);
}

#[test]
fn the_embedded_default_finds_its_own_tokens_accepted() {
    let (folder, public, admin) = (TempDir::new().expect("a temporary folder"), Port::free(), Port::free());
    let data = folder.path().join("data").display().to_string();
    let (public, admin) = (public.address(), admin.address());
    let mut running =
        Signpost::new(["run", "--listen", &public, "--admin-listen", &admin, "--data-dir", &data]).start();
    running.wait_for(&format!("http://{admin}/healthz"));
    let (found, _) = eventually("it is verified", || {
        let status = Request::get(&format!("http://{admin}/status.json")).answer().json();
        let found = status["issuers"][format!("http://{public}")]["verification"].clone();
        found["outcome"].is_string().then_some(found)
    });
    assert_eq!((&found["outcome"], &found["for"]), (&json!("accepted"), &json!("local")), "{found}");
    for document in [DISCOVERY, JWKS] {
        Request::get(&format!("http://{public}/{document}")).answer().expect_status(200);
    }
    let metrics = Request::get(&format!("http://{admin}/metrics")).answer().text();
    let line = format!("signpost_verify_success{{issuer=\"http://{public}\"}} 1.0");
    assert!(metrics.lines().any(|found| found == line), "{metrics}");
    running.terminate();
    let log = running.finish(WITHIN).expect_code(0).stderr;
    assert!(!log.contains("accepted"), "that all is well is no news: {log}");
}

/// No tick of the schedule happens within the test: the check repairs the documents at once, without an
/// alarm.
#[test]
fn documents_that_somebody_deletes_or_edits_are_put_right_as_soon_as_that_is_noticed() {
    let world = World::start();
    let file = world.kubeconfig();
    let settings = json!({
        "sources": [api_server(&file)],
        "targets": [directory_target(&world.public())],
        "verify": {"every": "2s"},
        "schedule": "0 0 29 2 *",
    });
    let installation = Installation::new(&world.issuer, &settings);
    let mut service =
        installation.run_as(installation.verb(["run"]).env("SSL_CERT_FILE", world.nginx.ca_file()));
    service.until("it is verified", |service| succeeds(service) == Some(true));
    let [jwks, discovery] = [JWKS, DISCOVERY].map(|document| world.public().join(document));
    let good = [&jwks, &discovery].map(|file| fs::read(file).expect("published"));
    let are_good = || [&jwks, &discovery].map(|file| fs::read(file).unwrap_or_default()) == good;

    fs::remove_file(&jwks).expect("the folder is ours");
    service.until("the JWKS is back", |_| are_good());
    let found = |service: &Service, what: &str| {
        let log = service.running.stderr();
        log.lines().any(|line| line.contains("target was changed by another writer") && line.contains(what))
    };
    service.until("it says so", |service| found(service, "found=\"jwks deleted\""));

    let edited = String::from_utf8(good[1].clone()).expect("text").replace("jwks_uri", "jwks_url");
    fs::write(&discovery, edited).expect("the folder is ours");
    service.until("the discovery document is right", |_| are_good());
    service.until("it says so", |service| found(service, "found=\"discovery edited\""));
    let log = service.running.stderr();
    assert!(!log.contains(REFUSED), "{log}");
}
