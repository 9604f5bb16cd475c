//! The ledger in a `ConfigMap` of a real API server.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use serde_json::{Value, json};
use signpost::{
    core::{
        jose::{issuer::Issuer, jwk::Jwk, public_key::PublicKey},
        ledger::{
            Ledger, Retention, StoredLedger, TargetObservation,
            merge::{SourceAnswer, SourceReport, merge},
        },
    },
    kubernetes::Access,
    store::{ConfigMapStore, FileStore, LedgerStore},
};
use tempfile::TempDir;

use crate::support::{
    api_server::{Bearer, write_kubeconfig},
    cluster::Cluster,
    config_map::ConfigMap,
    fault_proxy::{Action, Rule},
    installation::{DOCUMENTS, Installation, JWKS, Service, directory_target, files, s3_target},
    pki::KeyFiles,
    s3::S3,
};

const ISSUER: &str = "https://oidc.example/in-cluster";

/// The `ledger` of an issuer's settings.
fn ledger_in(map: &ConfigMap, kubeconfig: &Path) -> Value {
    json!({"config_map": map.reference(), "kubeconfig": kubeconfig})
}

/// A source that follows a folder of key files.
fn folder_of_keys(folder: &Path) -> Value {
    json!({"kind": "files", "name": "files", "paths": [folder], "every": "1s"})
}

fn kids(jwks: &str) -> Vec<String> {
    let jwks: Value = serde_json::from_str(jwks).unwrap_or_default();
    let keys = jwks["keys"].as_array().cloned().unwrap_or_default();
    keys.iter().map(|key| key["kid"].as_str().expect("a kid").to_owned()).collect()
}

/// Two stores that do not share memory, as in two pods: each finds its own last statement, whatever the other
/// has written since, and the sequence counts every update of both.
#[test]
fn two_writers_lose_no_update_in_a_thousand_rounds() {
    const EACH: usize = 500;
    let cluster = Cluster::shared();
    let map = ConfigMap::in_new_namespace(&cluster.server, "thousand-rounds");
    let folder = TempDir::new().expect("a temporary folder");
    let kubeconfig = folder.path().join("kubeconfig");
    cluster.server.admin_kubeconfig(&kubeconfig);
    let issuer = Issuer::parse(ISSUER).expect("valid");
    let key = PublicKey::rsa(&[0xa5; 256], &[1, 0, 1]).expect("odd and long enough");
    let retention =
        Retention { max_token_lifetime: Duration::from_mins(1), margin: Duration::ZERO, profiles: [].into() };

    let lost_rounds: usize = thread::scope(|scope| {
        let writers = [0, 1].map(|writer: usize| {
            let access = Access { kubeconfig: Some(kubeconfig.clone()), ..Access::default() };
            let map = ConfigMapStore::new("thousand-rounds".to_owned(), ConfigMap::NAME.to_owned(), access);
            let copy = FileStore::new(folder.path().join(writer.to_string()), Vec::new());
            let store = LedgerStore::config_map(map, copy, issuer.clone(), Vec::new());
            let (key, retention) = (key.clone(), retention.clone());
            scope.spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
                runtime.expect("a runtime").block_on(write(&store, writer, EACH, &key, &retention))
            })
        });
        writers.map(|writer| writer.join().expect("it does not panic")).iter().sum()
    });
    let ledger = map.ledger();
    assert_eq!(ledger["sequence"], 2 * EACH + 1, "an update was lost");
    assert!(lost_rounds > 0, "the two never met, so nothing was shown");
}

/// Alternately reports that its target serves the key and that it does not; returns how many updates had to
/// be decided again.
async fn write(
    store: &LedgerStore,
    writer: usize,
    count: usize,
    key: &PublicKey,
    retention: &Retention,
) -> usize {
    let mut known = store.read_last_known().await.expect("empty");
    let mut decisions = 0;
    let jwk = Jwk::of_public_key(key.clone());
    let place = writer.to_string();
    let shows = |ledger: &Ledger| ledger.entries().values().any(|entry| entry.shown.contains_key(&place));
    for round in 0..count {
        let now = Timestamp::UNIX_EPOCH;
        let (stored, ()) = store
            .update(|found: &StoredLedger| {
                decisions += 1;
                let ledger = known.reconcile(found, now, retention.wait())?;
                let reports =
                    [SourceReport { source: "a".to_owned(), answer: SourceAnswer::Keys(vec![jwk.clone()]) }];
                let ledger = ledger.observe(&merge(&ledger, &reports), now, retention).ledger;
                assert_eq!(shows(&ledger), round % 2 == 1, "the update before was lost");
                let view = if round % 2 == 0 { [jwk.kid().clone()].into() } else { BTreeSet::new() };
                let observation = TargetObservation::of_own_listener(view);
                Ok((ledger.observe_target(&place, &observation, Some(now)), ()))
            })
            .await
            .expect("stored");
        assert!(stored.sequence() > known.sequence(), "it went back");
        assert_eq!(stored.incidents(), [], "the other's update was taken for damage");
        known = stored;
    }
    decisions - count
}

/// Two replicas of one installation, each with its own data directory.
#[test]
fn two_replicas_publish_the_same_and_do_not_fight() {
    let cluster = Cluster::shared();
    let map = ConfigMap::in_new_namespace(&cluster.server, "replicas");
    let s3 = S3::start();
    s3.create_bucket("oidc");
    let folder = TempDir::new().expect("a temporary folder");
    let kubeconfig = folder.path().join("kubeconfig");
    cluster.server.admin_kubeconfig(&kubeconfig);
    let (keys, public, made) = (folder.path().join("keys"), folder.path().join("public"), folder.path());
    fs::create_dir(&keys).expect("the folder can be written");
    let add = |name: &str| {
        let public = KeyFiles::rsa(made, name).public;
        fs::copy(public, keys.join(name)).expect("the folder can be written");
    };
    add("0");
    let settings = json!({
        "sources": [folder_of_keys(&keys)],
        "targets": [s3_target(&s3.url(), "oidc/c1"), directory_target(&public)],
        "ledger": ledger_in(&map, &kubeconfig),
        "schedule": "* * * * *",
    });
    let [one, other] = [(); 2].map(|()| Installation::new(ISSUER, &settings));
    let [mut one, mut other] = [one.run(), other.run()];
    let places = || [s3.get(&format!("/oidc/c1/{JWKS}")).text(), read(&public.join(JWKS))];

    for count in 1..=5 {
        if count > 1 {
            add(&count.to_string());
        }
        // The number of keys never decreases, anywhere.
        let mut seen = [count - 1; 4];
        one.until("all places show all keys", |one| {
            let [first, second] = places();
            let now =
                [one.get(JWKS).text(), other.get(JWKS).text(), first, second].map(|jwks| kids(&jwks).len());
            assert!(now.iter().zip(seen).all(|(now, before)| *now >= before), "{now:?} after {seen:?}");
            seen = now;
            now == [count; 4]
        });
        assert_eq!(one.served(), other.served());
        assert_eq!(places(), [one.served().jwks(), one.served().jwks()]);
    }
    assert_eq!(map.ledger()["incidents"], Value::Null);
    for service in [&mut one, &mut other] {
        for target in ["s3", "directory"] {
            service.until("the target is true", |service| service.target(target)["up"] == true);
            assert_eq!(service.target(target)["error"], Value::Null);
        }
    }

    // Both check everything once more, by schedule, and write nothing.
    let fingerprint = || {
        let etags = DOCUMENTS.map(|document| {
            let answer = s3.get(&format!("/oidc/c1/{document}"));
            (answer.header("etag").map(str::to_owned), answer.header("last-modified").map(str::to_owned))
        });
        let files =
            DOCUMENTS.map(|document| fs::metadata(public.join(document)).and_then(|it| it.modified()).ok());
        (map.object().expect("it is there")["metadata"]["resourceVersion"].clone(), etags, files)
    };
    one.until("all is recorded", |_| {
        let ledger = map.ledger();
        let mut entries = ledger["keys"].as_object().expect("keys").values();
        entries.all(|entry| entry["shown"].as_object().is_some_and(|places| places.len() == 3))
    });
    let checks = |service: &Service| service.target("s3")["checks"].as_u64().expect("a number");
    let (before, looks) = (fingerprint(), [checks(&one), checks(&other)]);
    one.until("both have looked", |one| checks(one) > looks[0] && checks(&other) > looks[1]);
    assert_eq!(fingerprint(), before, "they fight");
    assert_eq!(one.stop().code, Some(0));
    assert_eq!(other.stop().code, Some(0));
}

/// The source stores the key, and each target that it shows it.
#[test]
fn a_new_key_costs_one_pass_of_the_ledger_and_one_for_each_target() {
    const TARGETS: usize = 3;
    let cluster = Cluster::shared();
    let map = ConfigMap::in_new_namespace(&cluster.server, "passes");
    let proxy = cluster.proxy();
    let folder = TempDir::new().expect("a temporary folder");
    let kubeconfig = folder.path().join("kubeconfig");
    let token = Bearer::Token(crate::support::api_server::ADMIN_TOKEN);
    write_kubeconfig(&kubeconfig, &proxy.url(), cluster.server.ca_file(), &token);
    let keys = folder.path().join("keys");
    fs::create_dir(&keys).expect("the folder can be written");
    let add = |name: &str| {
        fs::copy(KeyFiles::rsa(folder.path(), name).public, keys.join(name))
            .expect("the folder can be written");
    };
    let targets: Vec<_> = (0..TARGETS)
        .map(|index| {
            let mut target = directory_target(&folder.path().join(format!("public-{index}")));
            target["name"] = json!(format!("target-{index}"));
            target
        })
        .collect();
    add("first");
    let settings = json!({
        "sources": [folder_of_keys(&keys)],
        "targets": targets,
        "ledger": ledger_in(&map, &kubeconfig),
        "schedule": "0 0 1 1 *",
    });
    let mut service = Installation::new(ISSUER, &settings).run_until_ready();
    let are_recorded = |count: usize| {
        let ledger = map.ledger();
        let entries = ledger["keys"].as_object().expect("keys");
        let shown = |entry: &Value| entry["shown"].as_object().map_or(0, serde_json::Map::len);
        entries.len() == count && entries.values().all(|entry| shown(entry) == TARGETS + 1)
    };
    // Passes besides those of the polls; one less while a poll is under way.
    let others = |service: &Service| {
        let now = || {
            thread::sleep(Duration::from_millis(100));
            let passes = proxy.count("GET", "configmaps");
            passes - usize::try_from(service.source()["answers"].as_u64().expect("a number")).expect("small")
        };
        (0..30).map(|_| now()).max().expect("some")
    };
    service.until("the first key is recorded", |_| are_recorded(1));
    let (passes, writes) = (others(&service), proxy.count("PUT", "configmaps"));
    add("second");
    service.until("the second key is recorded", |_| are_recorded(2));
    // The pass in which the key appeared is one of a poll.
    assert_eq!(others(&service) - passes, TARGETS);
    assert_eq!(proxy.count("PUT", "configmaps") - writes, 1 + TARGETS);
    assert_eq!(service.stop().code, Some(0));
}

fn read(file: &Path) -> String {
    fs::read_to_string(file).unwrap_or_default()
}

#[test]
fn the_rights_to_get_and_update_one_config_map_are_enough_and_less_is_told_with_the_command() {
    let cluster = Cluster::shared();
    let map = ConfigMap::in_new_namespace(&cluster.server, "least-rights");
    cluster.server.create_service_account("least-rights", "signpost");
    let folder = TempDir::new().expect("a temporary folder");
    let token = folder.path().join("token");
    fs::write(&token, cluster.server.token("least-rights", "signpost", &[], 3600)).expect("written");
    let kubeconfig = folder.path().join("kubeconfig");
    cluster.server.kubeconfig(&kubeconfig, &Bearer::TokenFile(&token));
    let key = KeyFiles::rsa(folder.path(), "key").public;
    let settings = json!({
        "sources": [files(&[&key])],
        "targets": [directory_target(&folder.path().join("public"))],
        "ledger": ledger_in(&map, &kubeconfig),
    });
    let installation = Installation::new(ISSUER, &settings);

    let refused = installation.sync().expect_code(2).stderr;
    let hint = "hint: let it keep its ledger: `kubectl create role signpost-ledger --namespace=least-rights \
                --verb=get,update --resource=configmaps --resource-name=ledger && kubectl create rolebinding \
                signpost-ledger --namespace=least-rights --role=signpost-ledger \
                --serviceaccount=least-rights:signpost`";
    assert!(refused.starts_with("error: cannot read ConfigMap `least-rights/ledger`\n"), "{refused}");
    assert!(refused.contains(hint), "{refused}");
    assert!(!folder.path().join("public").exists(), "published without a ledger");

    // The permissions of the hint.
    let rbac = "/apis/rbac.authorization.k8s.io/v1/namespaces/least-rights";
    cluster.server.create(
        &format!("{rbac}/roles"),
        &json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role",
            "metadata": {"name": "signpost-ledger"},
            "rules": [{"apiGroups": [""], "resources": ["configmaps"], "resourceNames": ["ledger"],
                       "verbs": ["get", "update"]}],
        }),
    );
    cluster.server.create(
        &format!("{rbac}/rolebindings"),
        &json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
            "metadata": {"name": "signpost-ledger"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "signpost-ledger"},
            "subjects": [{"kind": "ServiceAccount", "name": "signpost", "namespace": "least-rights"}],
        }),
    );
    let refused = installation.sync().expect_code(2).stderr;
    assert!(refused.starts_with("error: cannot write ConfigMap `least-rights/ledger`\n"), "{refused}");
    assert!(
        refused.contains("hint: make it, empty: `kubectl create configmap ledger --namespace=least-rights`"),
        "{refused}"
    );
    map.create(&json!({}));
    installation.sync().expect_code(0);
    installation.finish(["sync", "--dry-run"]).expect_code(0);
    let object = map.object().expect("it is there");
    assert_eq!(object["metadata"]["labels"]["app.kubernetes.io/name"], "signpost");
    assert_eq!(object["metadata"]["annotations"]["signpost/issuer"], ISSUER);

    // The operator's commands read and write it too.
    let shown = installation.finish(["ledger", "show"]).expect_code(0).stdout;
    assert!(shown.contains(map.ledger()["lineage"].as_str().expect("a lineage")), "{shown}");
    let stranger = KeyFiles::rsa(folder.path(), "stranger").public;
    let jwks = |key: &PathBuf| {
        installation.finish(["jwks".as_ref(), "--source".as_ref(), key.as_os_str()]).expect_code(0).stdout
    };
    fs::write(folder.path().join("public").join(JWKS), jwks(&stranger)).expect("the folder is ours");
    installation.sync().expect_code(0);
    let kid = kids(&jwks(&stranger)).remove(0);
    installation.finish(["ledger", "adopt", "--", &kid]).expect_code(0);
    assert!(map.ledger()["keys"][&kid].is_object());
}

/// Promise 7, for an API server that is down or hangs.
#[test]
fn publications_go_on_while_the_api_server_with_the_ledger_is_away() {
    let cluster = Cluster::shared();
    let map = ConfigMap::in_new_namespace(&cluster.server, "away");
    let mut proxy = cluster.proxy();
    let folder = TempDir::new().expect("a temporary folder");
    let kubeconfig = folder.path().join("kubeconfig");
    let token = Bearer::Token(crate::support::api_server::ADMIN_TOKEN);
    write_kubeconfig(&kubeconfig, &proxy.url(), cluster.server.ca_file(), &token);
    let (keys, public) = (folder.path().join("keys"), folder.path().join("public"));
    fs::create_dir(&keys).expect("the folder can be written");
    let add = |name: &str| {
        fs::copy(KeyFiles::rsa(folder.path(), name).public, keys.join(name))
            .expect("the folder can be written");
    };
    add("first");
    let settings = json!({
        "sources": [folder_of_keys(&keys)],
        "targets": [directory_target(&public)],
        "ledger": ledger_in(&map, &kubeconfig),
    });
    let installation = Installation::new(ISSUER, &settings);
    let mut service = installation.run_until_ready();
    service.until("the target is true", |service| service.target("directory")["up"] == true);
    let good = service.served();

    // Down while a key is added: it is not stored, so it is not served.
    proxy.stop();
    add("second");
    service.until("it is told", |service| service.metric("signpost_ledger_up", ISSUER) == Some(0.0));
    service.until("it goes on asking", |service| service.status()["ledger"]["failures"].as_u64() > Some(3));
    assert_eq!(service.served(), good);
    let ready = service.admin("/readyz").expect_status(200).text();
    assert!(ready.contains("ledger is not stored: "), "{ready}");
    let log = service.running.stderr();
    let mut reasons: Vec<_> = log.lines().filter_map(|line| line.split_once("ledger not stored")).collect();
    let count = reasons.len();
    reasons.sort_by_key(|(_, reason)| *reason);
    reasons.dedup_by_key(|(_, reason)| *reason);
    assert!(count > 0 && reasons.len() == count, "a reason is logged once: {log}");

    // A process that starts meanwhile serves what the previous one knew.
    service.stop();
    let mut service = installation.run_until_ready();
    assert_eq!(service.served(), good);
    assert_eq!(read(&public.join(JWKS)), good.jwks());

    proxy.restart();
    service.until("the new key is served", |service| kids(&service.get(JWKS).text()).len() == 2);
    service.until("the new key is published", |_| kids(&read(&public.join(JWKS))).len() == 2);
    assert_eq!(service.metric("signpost_ledger_up", ISSUER), Some(1.0));
    assert_eq!(map.ledger()["incidents"], Value::Null, "nothing was damaged");

    // It accepts requests and does not answer: documents are served as fast as before.
    proxy.script([Rule::new(Action::Delay(Duration::from_mins(2))).path_contains("configmaps")]);
    proxy.forget();
    add("third");
    let started = Instant::now();
    while proxy.count("GET", "configmaps") < 2 {
        let asked = Instant::now();
        service.get(JWKS).expect_status(200);
        // A request that waited for the ledger would take 10 s.
        assert!(asked.elapsed() < Duration::from_secs(5), "a hanging API server delays readers");
        assert!(started.elapsed() < Duration::from_mins(1), "it is not asked again");
        thread::sleep(Duration::from_millis(50));
    }
    proxy.script([]);
    service.until("the third key is served", |service| kids(&service.get(JWKS).text()).len() == 3);
    assert_eq!(service.stop().code, Some(0));
}
