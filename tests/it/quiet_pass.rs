//! The requests of a pass without changes, counted in front of the real services.

use std::collections::BTreeMap;
use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::azurite::{self, Azurite};
use crate::support::cluster::{Cluster, ISSUER};
use crate::support::fault_proxy::FaultProxy;
use crate::support::installation::{
    DISCOVERY, DOCUMENTS, Installation, JWKS, Service, azure_target, directory_target, files, s3_target,
};
use crate::support::s3::S3;

const STORES: [&str; 2] = ["azure", "s3"];

/// Two API servers and two stores, each behind a proxy, and a directory.
struct Scene {
    cluster: std::sync::Arc<Cluster>,
    azurite: Azurite,
    s3: S3,
    instances: [FaultProxy; 2],
    stores: [FaultProxy; 2],
    folder: TempDir,
}

impl Scene {
    fn start() -> Self {
        let (cluster, azurite, s3) = thread::scope(|scope| {
            let (cluster, azurite) = (scope.spawn(Cluster::shared), scope.spawn(Azurite::start));
            let s3 = S3::start();
            (cluster.join().expect("it starts"), azurite.join().expect("it starts"), s3)
        });
        azurite.create_public_container("oidc");
        s3.create_bucket("oidc");
        let stores = [
            FaultProxy::start(azurite.url().trim_end_matches(azurite::ACCOUNT)),
            FaultProxy::start(&s3.url()),
        ];
        let instances = [cluster.proxy(), cluster.proxy()];
        let folder = TempDir::new().expect("a temporary folder");
        Self { cluster, azurite, s3, instances, stores, folder }
    }

    /// An installation with both API servers as sources, which publishes below `prefix`.
    fn installation(&self, prefix: &str) -> Installation {
        let kubeconfig = self.cluster.kubeconfig_through(&self.instances[0], self.folder.path());
        let source = json!({
            "kind": "api-server",
            "kubeconfig": kubeconfig,
            "instances": self.instances.each_ref().map(|instance| json!({"url": instance.url()})),
            "probe": "default/signpost",
            "every": "1s",
        });
        self.installation_of(&source, prefix)
    }

    fn installation_of(&self, source: &Value, prefix: &str) -> Installation {
        let place = format!("oidc/{prefix}");
        let settings = json!({
            "sources": [source],
            "targets": [
                azure_target(&self.stores[0].url(), &place),
                s3_target(&self.stores[1].url(), &place),
                directory_target(&self.folder.path().join(prefix)),
            ],
            "schedule": "* * * * *",
        });
        Installation::new(ISSUER, &settings)
    }

    fn forget(&self) {
        self.instances.iter().chain(&self.stores).for_each(FaultProxy::forget);
    }
}

/// Number of requests by method and path, for paths that contain `part`.
fn asked(proxy: &FaultProxy, part: &str) -> BTreeMap<String, usize> {
    let mut asked = BTreeMap::new();
    for seen in proxy.seen().iter().filter(|seen| seen.path.contains(part)) {
        *asked.entry(format!("{} {}", seen.method, seen.path)).or_default() += 1;
    }
    asked
}

fn counts<'a>(counts: impl IntoIterator<Item = (&'a str, usize)>) -> BTreeMap<String, usize> {
    counts.into_iter().map(|(what, count)| (what.to_owned(), count)).collect()
}

/// `METHOD /path/of/document` for both documents of a store, with this count.
fn documents(method: &str, store: &str, prefix: &str, times: usize) -> BTreeMap<String, usize> {
    let account = if store == "azure" { format!("/{}", azurite::ACCOUNT) } else { String::new() };
    DOCUMENTS.iter().map(|document| (format!("{method} {account}/oidc/{prefix}/{document}"), times)).collect()
}

fn settle(service: &mut Service) {
    service.until("all is true", |service| {
        let up = |of: &Value| of.as_object().is_some_and(|of| of.values().all(|each| each["up"] == true));
        let status = service.status();
        let count = |of: &Value| of.as_object().map_or(0, serde_json::Map::len);
        count(&status["sources"]) >= 1
            && count(&status["targets"]) == 3
            && up(&status["sources"])
            && up(&status["targets"])
    });
}

#[test]
fn a_poll_is_one_request_and_a_tick_is_one_head_per_document() {
    let scene = Scene::start();
    let quiet = scene.installation("quiet");
    let keys = scene.cluster.keys.each_ref().map(|key| key.public.as_path());
    let edited = scene.installation_of(&files(&keys), "edited");
    let started = Instant::now();
    let mut service = quiet.run_until_ready();
    settle(&mut service);
    let mut other = edited.run_until_ready();
    settle(&mut other);
    let good = scene.azurite.get(&format!("oidc/edited/{JWKS}")).expect_status(200).text();
    let (ledger, sequence) = (fingerprint(&quiet), service.status()["sequence"].take());
    let checks =
        |service: &Service, target: &str| service.target(target)["checks"].as_u64().expect("a number");
    let answers = |service: &Service, instance: &FaultProxy| {
        let source = format!("kubernetes {}", instance.url());
        service.status()["sources"][source]["answers"].as_u64().expect("a number")
    };
    // One document is edited and one deleted; only the schedule shows this to the other instance.
    scene.azurite.put(&format!("oidc/edited/{JWKS}"), "text/plain", "edited");
    scene.s3.delete(&format!("/oidc/edited/{DISCOVERY}"));

    service.until("six polls", |service| {
        scene.instances.iter().all(|instance| {
            let polls = usize::try_from(answers(service, instance)).expect("a small number");
            // Equal when no poll is in flight.
            polls >= 6 && polls == instance.count("GET", JWKS)
        })
    });
    service.until("a tick", |service| STORES.iter().all(|target| checks(service, target) >= 2));
    other.until("what somebody did is put right", |_| {
        scene.azurite.get(&format!("oidc/edited/{JWKS}")).text() == good
            && scene.s3.get(&format!("/oidc/edited/{DISCOVERY}")).status == 200
    });

    for (target, store) in STORES.iter().zip(&scene.stores) {
        // The first check has read, written and read back.
        let ticks = usize::try_from(checks(&service, target) - 1).expect("a small number");
        let mut expected = documents("HEAD", target, "quiet", ticks);
        expected.extend(documents("GET", target, "quiet", 2));
        expected.extend(documents("PUT", target, "quiet", 1));
        assert_eq!(asked(store, "quiet"), expected);
    }
    for instance in &scene.instances {
        let mut asked = asked(instance, "");
        asked.remove(&format!("GET /{JWKS}"));
        let minutes = usize::try_from(started.elapsed().as_secs() / 60).expect("a small number");
        assert!(asked.values().all(|count| *count <= 1 + minutes) && asked.len() == 2, "{asked:?}");
    }
    assert_eq!(fingerprint(&quiet), ledger, "a quiet pass has written the ledger");
    assert_eq!(service.status()["sequence"], sequence);
    assert_eq!(service.metric("signpost_target_writes_total", "azure"), Some(2.0));
    let log = service.running.stderr();
    let published = log.matches("INFO published").count();
    assert_eq!((published, log.matches("WARN").count(), log.matches("ERROR").count()), (3, 0, 0), "{log}");
}

#[test]
fn the_issuer_and_the_signing_key_are_asked_for_once_a_minute_and_no_more() {
    let scene = Scene::start();
    let installation = scene.installation("checks");
    let mut service = installation.run_until_ready();
    settle(&mut service);
    service.until("both have been probed", |_| {
        scene.instances.iter().all(|instance| instance.count("POST", "/token") == 1)
    });
    service.until("a few polls", |_| scene.instances.iter().all(|instance| instance.count("GET", JWKS) >= 6));
    service.running.terminate();
    for instance in &scene.instances {
        let polls = instance.count("GET", JWKS);
        let expected = counts([
            ("GET /openid/v1/jwks", polls),
            ("GET /.well-known/openid-configuration", 1),
            ("POST /api/v1/namespaces/default/serviceaccounts/signpost/token", 1),
        ]);
        assert_eq!(asked(instance, ""), expected);
    }
}

/// With API servers discovered through the cluster, a poll is still one request: the cluster is listed once,
/// and watched.
#[test]
fn the_cluster_is_listed_and_watched_once_however_often_its_api_servers_are_polled() {
    let cluster = Cluster::shared();
    let (proxy, folder) = (cluster.proxy(), TempDir::new().expect("a temporary folder"));
    let kubeconfig = cluster.kubeconfig_through(&proxy, folder.path());
    let source =
        json!({"kind": "api-server", "kubeconfig": kubeconfig, "probe": "default/signpost", "every": "1s"});
    let mut service = Installation::new(ISSUER, &json!({"sources": [source]})).run_until_ready();
    service.until("a few polls", |service| service.source()["answers"].as_u64() >= Some(12));
    service.running.terminate();
    let polls = proxy.count("GET", JWKS);
    let expected = counts([
        ("GET /openid/v1/jwks", polls),
        ("GET /.well-known/openid-configuration", 1),
        ("GET /apis/discovery.k8s.io/v1/namespaces/default/endpointslices", 2),
        ("GET /apis/coordination.k8s.io/v1/namespaces/kube-system/leases", 2),
        ("POST /api/v1/namespaces/default/serviceaccounts/signpost/token", 1),
    ]);
    assert_eq!(asked(&proxy, ""), expected);
    let watches = proxy
        .seen()
        .iter()
        .filter(|seen| seen.query.as_ref().is_some_and(|it| it.contains("watch=1")))
        .count();
    assert_eq!(watches, 2);
}

/// A new process does not know the content of a version, so it reads both documents once where a service only
/// requests their headers.
#[test]
fn a_quiet_sync_reads_everything_once_and_writes_nothing() {
    let scene = Scene::start();
    let installation = scene.installation("sync");
    installation.sync().expect_code(0);
    let ledger = fingerprint(&installation);
    for _ in 0..2 {
        scene.forget();
        let told = installation.sync().expect_code(0);
        assert_eq!(told.stdout.matches("unchanged").count(), 3, "{}", told.stdout);
        for instance in &scene.instances {
            let expected = counts([("GET /openid/v1/jwks", 1), ("GET /.well-known/openid-configuration", 1)]);
            assert_eq!(asked(instance, ""), expected);
        }
        for (name, store) in STORES.iter().zip(&scene.stores) {
            assert_eq!(asked(store, ""), documents("GET", name, "sync", 1));
        }
        assert_eq!(fingerprint(&installation), ledger, "a quiet pass has written the ledger");
    }
}

/// The bytes of the ledger, and when it was last written.
fn fingerprint(installation: &Installation) -> (Vec<u8>, Duration) {
    let file = installation.ledger_file();
    let modified = fs::metadata(&file).and_then(|metadata| metadata.modified()).expect("a time");
    let modified = modified.duration_since(std::time::UNIX_EPOCH).expect("after 1970");
    (fs::read(file).expect("a ledger"), modified)
}
