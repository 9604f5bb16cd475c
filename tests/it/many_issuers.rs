//! Many issuers in one process: each is independent, and a faulty one delays no other.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::cluster::Cluster;
use crate::support::fault_proxy::{Action, FaultProxy, Rule};
use crate::support::http_client::Request;
use crate::support::installation::{Installation, JWKS, directory_target, files, s3_target};
use crate::support::pki::KeyFiles;
use crate::support::s3::S3;

/// Number of issuers with a source that hangs, and of others with a target that hangs.
const HUNG: usize = 100;
/// The healthy issuer is polled every second. A hung request takes 10 s, so an issuer that had to wait for it
/// would be late by several times that.
const PUBLISHED_WITHIN: Duration = Duration::from_secs(4);

const HEALTHY: &str = "https://oidc.example/healthy";

#[test]
fn a_hundred_sources_and_a_hundred_targets_that_hang_delay_no_other_issuer() {
    let (cluster, s3) = (Cluster::shared(), S3::start());
    let folder = TempDir::new().expect("a temporary folder");
    let at = |name: &str| folder.path().join(name);
    let hang = || [Rule::new(Action::Delay(Duration::from_hours(1)))];
    let (servers, stores) = (cluster.proxy(), FaultProxy::start(&s3.url()));
    servers.script(hang());
    stores.script(hang());
    let kubeconfig = cluster.kubeconfig_through(&servers, folder.path());
    let key = at("key.pub");
    let new_key = |name: &str| {
        let new = KeyFiles::rsa(folder.path(), name).public;
        fs::rename(new, &key).expect("it can be replaced");
    };
    new_key("first");

    let mut issuers = vec![json!({
        "issuer": HEALTHY,
        "sources": [files(&[&key])],
        "targets": [directory_target(&at("public"))],
    })];
    issuers.extend((0..HUNG).map(|index| {
        json!({
            "issuer": format!("https://oidc.example/source-{index}"),
            "sources": [{"kind": "api-server", "kubeconfig": kubeconfig, "discover": false, "every": "1s"}],
        })
    }));
    issuers.extend((0..HUNG).map(|index| {
        json!({
            "issuer": format!("https://oidc.example/target-{index}"),
            "sources": [files(&[&key])],
            "targets": [s3_target(&stores.url(), &format!("oidc/{index}"))],
        })
    }));
    let installation = Installation::new(HEALTHY, &json!({}));
    installation.configure_issuers(&issuers);
    let mut service = installation.run();
    let known = |issuer: &Value| issuer["sources"].as_object().is_some_and(|sources| !sources.is_empty());
    service.until("all sources were asked, and some of what hangs was given up once", |service| {
        let status = service.admin("/status.json").expect_status(200).json();
        let issuers = status["issuers"].as_object().expect("issuers");
        let failed = |issuer: &&Value| issuer["targets"]["s3"]["failures"].as_u64() >= Some(1);
        issuers.values().filter(|issuer| known(issuer)).count() == 1 + 2 * HUNG
            // They share the request limit of one server, so the last ones have to wait for a slot.
            && issuers.values().filter(failed).count() >= HUNG / 4
    });
    // The others are not ready, and report it.
    assert_eq!(service.admin("/readyz").status, 503);

    let document = at("public").join(JWKS);
    for round in 0..5 {
        let before = service.get(JWKS).expect_status(200).text();
        new_key(&format!("key-{round}"));
        let changed = Instant::now();
        while service.get(JWKS).text() == before
            || fs::read_to_string(&document).expect("published") == before
        {
            assert!(changed.elapsed() < PUBLISHED_WITHIN, "{}", service.running.stderr());
            thread::sleep(Duration::from_millis(20));
        }
    }
    let url = format!("http://{}/target-{}/{JWKS}", service.address(), HUNG - 1);
    Request::get(&url).answer().expect_status(200);
}
