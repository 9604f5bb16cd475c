//! A hub that publishes for another cluster, whose API server is the real one.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::cluster::{Cluster, ISSUER};
use crate::support::http_client::Request;
use crate::support::installation::{Installation, JWKS, Service, directory_target};
use crate::support::nginx::{Location, Nginx};
use crate::support::pki::ServerTls;

fn source(url: &str, more: &Value) -> Value {
    let mut source = json!({"kind": "url", "name": "edge", "url": url, "every": "1s"});
    source.as_object_mut().expect("it is one").extend(more.as_object().expect("it is one").clone());
    json!({"sources": [source]})
}

fn answers(service: &Service) -> u64 {
    service.source()["answers"].as_u64().unwrap_or_default()
}

fn fails(service: &mut Service, reason: &str) {
    service.until(reason, |service| {
        service.source()["error"].as_str().is_some_and(|error| error.contains(reason))
    });
}

fn write(file: &Path, content: impl AsRef<[u8]>) {
    fs::write(file, content).expect("the folder can be written");
}

#[test]
fn a_hub_publishes_for_another_cluster_and_keeps_the_last_good_keys_whatever_becomes_of_it() {
    let cluster = Cluster::shared();
    let folder = TempDir::new().expect("a temporary folder");
    let [token, ca] = ["token", "ca.crt"].map(|name| folder.path().join(name));
    write(&ca, fs::read(cluster.server.ca_file()).expect("the CA file can be read"));
    write(&token, format!("{}\n", cluster.server.token("default", "signpost", &[], 3600)));
    let url = format!("{}/{JWKS}", cluster.server.url());
    let settings = source(&url, &json!({"bearer_token_file": token, "ca_file": ca}));
    let installation = Installation::new(ISSUER, &settings);
    let mut service = installation.run_until_ready();
    service.until("it is polled", |service| answers(service) >= 3);
    let published = service.served();
    assert_eq!(2, published.jwks().matches("\"kid\"").count(), "{}", published.jwks());
    assert_eq!(service.source()["issuer_matches"], true);
    let log = service.running.stderr();
    assert_eq!((log.matches("WARN").count(), log.matches("ERROR").count()), (0, 0), "{log}");

    write(&token, "wrong");
    fails(&mut service, "401 Unauthorized");
    assert!(!service.running.stderr().contains("Bearer"));
    write(&token, cluster.server.token("default", "signpost", &[], 3600));
    service.until("the new token counts", |service| service.source_is_up("edge"));

    let elsewhere = TempDir::new().expect("a temporary folder");
    let other = ServerTls::create(elsewhere.path());
    let own = fs::read(cluster.server.ca_file()).expect("the CA file can be read");
    write(&ca, fs::read(&other.ca).expect("it was written"));
    // The previous connection is not reused.
    fails(&mut service, "no TLS connection to");
    write(&ca, "not PEM");
    fails(&mut service, "holds no certificates");
    write(&ca, own);
    service.until("the right authority counts again", |service| service.source_is_up("edge"));
    assert_eq!(service.served(), published);
}

#[test]
fn the_keys_of_another_cluster_than_the_one_that_is_meant_are_refused() {
    let cluster = Cluster::shared();
    let folder = TempDir::new().expect("a temporary folder");
    let token = folder.path().join("token");
    write(&token, cluster.server.token("default", "signpost", &[], 3600));
    let url = format!("{}/{JWKS}", cluster.server.url());
    let settings = source(&url, &json!({"bearer_token_file": token, "ca_file": cluster.server.ca_file()}));
    let published = |mut settings: Value| {
        settings["targets"] = json!([directory_target(&folder.path().join("public"))]);
        Installation::new("https://oidc.example/another", &settings)
    };
    let said = published(settings).sync().expect_code(2);
    let reason = format!("source `edge` has issuer `{ISSUER}`, expected `https://oidc.example/another`");
    assert!(said.stderr.contains(&reason), "{}{}", said.stdout, said.stderr);

    let mut anonymous = source(&url, &json!({"ca_file": cluster.server.ca_file()}));
    anonymous["allow_issuer_mismatch"] = json!(true);
    let said = published(anonymous).sync().expect_code(2);
    assert!(said.stderr.contains("bearer_token_file"), "{}{}", said.stdout, said.stderr);
}

#[test]
fn a_change_is_seen_behind_the_tags_of_a_real_web_server() {
    let folder = TempDir::new().expect("a temporary folder");
    let cluster = Cluster::shared();
    fs::create_dir_all(folder.path().join("openid/v1")).expect("the folder can be written");
    write(&folder.path().join(JWKS), cluster.server.jwks().body);
    let nginx = Nginx::start(&[("/edge/", Location::Folder(folder.path().to_owned()))]);
    let url = format!("{}/edge/{JWKS}", nginx.url());
    let tag = Request::get(&url).ca_file(nginx.ca_file()).answer().header("etag").map(str::to_owned);
    assert!(tag.is_some(), "nginx offers a tag");
    let installation = Installation::new(ISSUER, &source(&url, &json!({"ca_file": nginx.ca_file()})));
    let mut service = installation.run_until_ready();
    service.until("it is polled", |service| answers(service) >= 3);
    // There is no discovery document beside it.
    assert_eq!(1, service.running.stderr().matches("the issuer of these keys is not checked").count());
    service.until("a change is seen", |service| {
        let mut jwks: Value = cluster.server.jwks().json();
        jwks["keys"].as_array_mut().expect("a list").truncate(1);
        write(&folder.path().join(JWKS), jwks.to_string());
        service.status()["keys"]
            .as_array()
            .is_some_and(|keys| keys.iter().any(|key| key["state"] == "missing"))
    });
}
