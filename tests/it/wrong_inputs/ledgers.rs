use std::fs;

use serde_json::{Value, json};

use super::{COULD_NOT, Transcript};
use crate::support::{cluster::Cluster, config_map::ConfigMap, pki::KeyFiles};

const SYNC: &str = "sync --config config.yaml";

#[test]
fn places_of_ledgers_and_former_issuers_that_cannot_be_are_named() {
    let mut it = Transcript::new();
    let issuer = |name: &str, more: &str| {
        format!(
            "  - issuer: https://{name}.example\n    sources: [{{kind: files, paths: [/sa.pub]}}]\n{more}"
        )
    };
    let mut refuses = |what: &str, issuers: &[String]| {
        it.write("config.yaml", format!("data_dir: /nowhere\nissuers:\n{}", issuers.concat()));
        it.refuses(what, "config check --config config.yaml", COULD_NOT);
    };
    let one = |more: &str| [issuer("k8s", more)];
    refuses("no ConfigMap", &one("    ledger: {kubeconfig: /etc/kubeconfig}\n"));
    refuses("a ConfigMap without namespace", &one("    ledger: {config_map: ledger}\n"));
    refuses("names that Kubernetes refuses", &one("    ledger: {config_map: Team/led_ger}\n"));
    refuses("a ledger that is a text", &one("    ledger: team/ledger\n"));
    refuses("a misspelt key of a ledger", &one("    ledger: {config_map: team/ledger, configmap: x}\n"));
    let shared = "    ledger: {config_map: team/ledger}\n";
    refuses("one ConfigMap for two issuers", &[issuer("a", shared), issuer("b", shared)]);
    refuses(
        "an issuer that is its own former one",
        &one("    previous_issuers: [{issuer: \"https://k8s.example/\"}]\n"),
    );
    let former = "    previous_issuers: [{issuer: https://old.example}]\n";
    refuses("one former issuer of two", &[issuer("a", former), issuer("b", former)]);
    refuses("a former issuer that is there still", &[issuer("old", ""), issuer("b", former)]);
    refuses("a former issuer without TLS", &one("    previous_issuers: [{issuer: http://old.example}]\n"));
    let targets = |name: &str, url: &str| {
        format!(
            "    targets: [{{url: \"s3://bucket\", name: eu}}]\n    previous_issuers: [{{issuer: https://old.example, \
             targets: [{{url: \"{url}\", name: {name}}}]}}]\n"
        )
    };
    refuses("a former issuer in the same place", &one(&targets("old", "s3://bucket")));
    refuses("targets of one name", &one(&targets("eu", "s3://bucket/old")));
    it.compare("places_of_ledgers");
}

#[test]
fn a_config_map_that_cannot_hold_the_ledger_is_left_as_it_is() {
    let mut it = Transcript::new();
    let cluster = Cluster::shared();
    let kubeconfig = it.path("kubeconfig");
    cluster.server.admin_kubeconfig(&kubeconfig);
    let map = ConfigMap::in_new_namespace(&cluster.server, "wrong-ledgers");
    fs::create_dir(it.path("keys")).expect("the folder is ours");
    KeyFiles::rsa(&it.path("keys"), "sa");
    let folder = it.folder.path().to_owned();
    let config = |map: &str, issuer: &str| {
        json!({
            "data_dir": folder.join("data"),
            "issuers": [{
                "issuer": issuer,
                "sources": [{"kind": "files", "paths": [folder.join("keys/sa.pub")]}],
                "targets": [{"url": format!("file://{}", folder.join("out").display())}],
                "ledger": {"config_map": map, "kubeconfig": kubeconfig},
            }],
        })
        .to_string()
    };
    it.write("config.yaml", config("no-such-namespace/ledger", "https://k8s.example"));
    it.refuses("in no namespace", SYNC, COULD_NOT);
    it.write("config.yaml", config(&map.reference(), "https://k8s.example"));
    let mut refuses = |what: &str, object: Value| {
        map.create(&object);
        let before = map.object();
        it.refuses_silently(&format!("{SYNC} --dry-run"), COULD_NOT, |it| it);
        it.refuses(what, SYNC, COULD_NOT);
        assert_eq!(map.object(), before, "it was changed");
        map.delete();
    };
    refuses("somebody else's", json!({"data": {"app.yaml": "a: b", "logo": "x"}}));
    refuses("immutable", json!({"immutable": true}));
    refuses("binary", json!({"binaryData": {"ledger.json": "AAECAw=="}}));
    refuses("no ledger", json!({"data": {"ledger.json": "{\"version\": 1"}}));
    refuses("of a newer version", json!({"data": {"ledger.json": "{\"version\": 3}"}}));

    // One that holds the ledger of another issuer, and then one of another lineage.
    it.succeeds(SYNC);
    let good = map.ledger_text();
    let lineage = map.ledger()["lineage"].as_str().expect("a lineage").to_owned();
    it.write("config.yaml", config(&map.reference(), "https://other.example"));
    it.refuses("of another issuer", SYNC, COULD_NOT);
    it.refuses("nobody to adopt", "ledger adopt nobody --config config.yaml", COULD_NOT);
    it.write("config.yaml", config(&map.reference(), "https://k8s.example"));
    map.replace_data(&json!({"ledger.json": good.replace(&lineage, "0000000000000001")}));
    it.replace(lineage, "LINEAGE");
    it.refuses("of another lineage", SYNC, COULD_NOT);
    it.compare("config_maps");
}
