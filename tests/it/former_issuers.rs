//! An issuer is moved: the documents of the previous one stay, with the same keys, and the ledger continues.

use std::{fs, path::Path};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{
    api_server::{ApiServer, Options},
    cluster::Cluster,
    config_map::ConfigMap,
    etcd::Etcd,
    http_client::Request,
    installation::{DISCOVERY, Installation, JWKS, Service, api_server, directory_target, files, s3_target},
    pki::KeyFiles,
    s3::S3,
};

const OLD: &str = "https://old.example/cluster";
const NEW: &str = "https://new.example/c2";

/// A document of an issuer, requested by the issuer's host name.
fn served(service: &Service, issuer: &str, document: &str) -> Value {
    let (host, path) = issuer.trim_start_matches("https://").split_once('/').expect("a path");
    let url = format!("http://{}/{path}/{document}", service.address());
    Request::get(&url).header("host", host).answer().expect_status(200).json()
}

fn published(folder: &Path, document: &str) -> Value {
    serde_json::from_slice(&fs::read(folder.join(document)).expect("published")).expect("JSON")
}

#[test]
fn a_moved_issuer_goes_on_with_its_ledger_and_the_documents_of_the_old_one_stay() {
    let s3 = S3::start();
    s3.create_bucket("oidc");
    let cluster = Cluster::shared();
    let folder = TempDir::new().expect("a temporary folder");
    let kubeconfig = folder.path().join("kubeconfig");
    cluster.server.admin_kubeconfig(&kubeconfig);
    let [stays, leaves] = ["stays", "leaves"].map(|name| KeyFiles::rsa(folder.path(), name).public);
    let map = ConfigMap::in_new_namespace(&cluster.server, "moved");
    let ledgers = [Value::Null, json!({"config_map": map.reference(), "kubeconfig": kubeconfig})];
    for (round, ledger) in ledgers.iter().enumerate() {
        let place = |name: &str| folder.path().join(format!("{name}-{round}"));
        let old_targets =
            json!([directory_target(&place("old")), s3_target(&s3.url(), &format!("oidc/{round}"))]);
        let with = |mut settings: Value| {
            if !ledger.is_null() {
                settings["ledger"] = ledger.clone();
            }
            settings
        };
        let mut new_target = directory_target(&place("new"));
        new_target["name"] = "new".into();
        let mut installation = Installation::new(
            OLD,
            &with(json!({"sources": [files(&[&stays, &leaves])], "targets": old_targets})),
        );
        installation.sync().expect_code(0);
        installation.configure(&with(json!({"sources": [files(&[&stays])], "targets": old_targets})));
        installation.sync().expect_code(0);
        let keys = published(&place("old"), JWKS);
        let lineage = installation.finish(["ledger", "show", "--output", "json"]).expect_code(0).stdout;
        let lineage: Value = serde_json::from_str(&lineage).expect("JSON");
        assert_eq!(keys["keys"].as_array().expect("keys").len(), 2);

        // The issuer is renamed.
        installation.rename(NEW);
        installation.configure(&with(json!({
            "sources": [files(&[&stays])],
            "targets": [new_target],
            "previous_issuers": [{"issuer": OLD, "targets": old_targets}],
        })));
        let plan = installation.finish(["sync", "--dry-run"]).expect_code(1).stdout;
        assert_eq!(plan.matches("unchanged").count(), 2, "{plan}");
        let mut service = installation.run_until_ready();
        service.until("all targets are true", |service| {
            ["directory", "s3", "new"].iter().all(|target| service.target(target)["up"] == true)
        });
        for (issuer, place) in [(OLD, place("old")), (NEW, place("new"))] {
            assert_eq!(served(&service, issuer, JWKS), keys, "{issuer}");
            assert_eq!(published(&place, JWKS), keys, "{issuer}");
            for discovery in [served(&service, issuer, DISCOVERY), published(&place, DISCOVERY)] {
                assert_eq!(discovery["issuer"], issuer);
                assert_eq!(discovery["jwks_uri"], format!("{issuer}/{JWKS}"));
            }
        }
        let status = service.status();
        assert_eq!(
            (&status["previous_issuers"], &status["lineage"]),
            (&json!([OLD]), &lineage[0]["lineage"])
        );
        assert_eq!(status["ledger"]["incidents"].as_array().expect("told").len(), 1, "{status}");
        assert!(status["ledger"]["incidents"].to_string().contains("was taken over for this issuer"));
        assert_eq!(status["alarms"], json!([]));
        assert_eq!(service.metric("signpost_previous_issuer", OLD), Some(1.0));
        service.stop();

        // The operator restores the previous configuration.
        installation.rename(OLD);
        installation.configure(&with(json!({
            "sources": [files(&[&stays])],
            "targets": old_targets,
            "previous_issuers": [{"issuer": NEW, "targets": [new_target]}],
        })));
        installation.sync().expect_code(0);
        assert_eq!(published(&place("old"), JWKS), keys);
        // The operator removes the previous issuer: its documents stay where they are.
        installation.configure(&with(json!({"sources": [files(&[&stays])], "targets": old_targets})));
        installation.sync().expect_code(0);
        assert_eq!(published(&place("new"), JWKS), keys);
    }
}

/// The new name is published first, then kube-apiserver signs with it, and still accepts the old one.
#[test]
fn an_api_server_may_name_the_former_issuer_until_it_is_switched() {
    let folder = TempDir::new().expect("a temporary folder");
    let key = KeyFiles::rsa(folder.path(), "sa");
    let etcd = Etcd::start();
    let mut server = ApiServer::start(&etcd, Options::new(OLD, &key));
    let kubeconfig = folder.path().join("kubeconfig");
    server.admin_kubeconfig(&kubeconfig);
    let settings = |former: Value| {
        json!({"sources": [api_server(&kubeconfig)], "previous_issuers": former,
               "targets": [directory_target(&folder.path().join("public"))]})
    };
    let refused = Installation::new(NEW, &settings(json!([]))).sync().expect_code(2).stderr;
    assert!(refused.contains(&format!("has issuer `{OLD}`, expected `{NEW}`")), "{refused}");

    let installation = Installation::new(NEW, &settings(json!([{"issuer": OLD}])));
    let mut service = installation.run_until_ready();
    assert_eq!(service.source()["issuer_matches"], true);
    assert!(
        service.running.stderr().contains("it still names previous issuer"),
        "{}",
        service.running.stderr()
    );
    assert_eq!(served(&service, OLD, JWKS), served(&service, NEW, JWKS));

    let switched = Options { issuers: vec![NEW.to_owned(), OLD.to_owned()], ..Options::new(NEW, &key) };
    server.restart_with(switched);
    service.until("the API server is asked again", |service| service.source()["up"] == true);
    assert_eq!(service.source()["issuer_matches"], true);
    assert_eq!(served(&service, OLD, DISCOVERY)["issuer"], OLD);
    assert_eq!(service.stop().code, Some(0));
}
