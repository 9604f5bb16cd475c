//! Nodes that take their orders from a ledger in a `ConfigMap`, and what holds as long as nodes do not trust each
//! other.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use base64ct::{Base64UrlUnpadded, Encoding as _};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::api_server::{ADMIN_TOKEN, ApiServer, Bearer, write_kubeconfig};
use crate::support::config_map::ConfigMap;
use crate::support::etcd::Etcd;
use crate::support::eventually::eventually;
use crate::support::external_signer::ExternalSigner;
use crate::support::http_client::Response;
use crate::support::installation::{Installation, JWKS, Service, directory_target};

const ISSUER: &str = "https://issuer.example";
const OTHERS: &str = "api://AzureADTokenExchange";
const MAP: &str = "signpost-ledger";

/// A control-plane node: an API server, and the signer that it asks.
struct Node {
    name: &'static str,
    signer: ExternalSigner,
    server: ApiServer,
    kubeconfig: PathBuf,
}

impl Node {
    /// Its signer reads the ledger through its own API server, which cannot start before the signer.
    fn start(name: &'static str, etcd: &Etcd, folder: &Path) -> Self {
        let kubeconfig = folder.join(name);
        let ledger = format!("ledger: {{config_map: {MAP}/ledger, kubeconfig: {}}}", kubeconfig.display());
        let mut signer = ExternalSigner::of_several(ISSUER, name, &ledger);
        let mut server = ApiServer::stopped(etcd, signer.options());
        write_kubeconfig(&kubeconfig, &server.url(), server.ca_file(), &Bearer::Token(ADMIN_TOKEN));
        signer.restart();
        server.restart();
        Self { name, signer, server, kubeconfig }
    }

    fn request(&self, audience: &str) -> Response {
        let body = json!({
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "spec": {"audiences": [audience], "expirationSeconds": 600},
        });
        let path = "/api/v1/namespaces/shop/serviceaccounts/till/token";
        self.server.admin_request("POST", path).json(&body).answer()
    }

    fn token(&self, audience: &str) -> String {
        self.server.token("shop", "till", &[audience], 600)
    }

    fn accepts(&self, token: &str, audience: &str) -> bool {
        self.server.review(token, &[audience])["authenticated"] == true
    }

    fn announced(&self) -> BTreeSet<String> {
        self.signer.announcement()["keys"].as_object().expect("keys").keys().cloned().collect()
    }

    fn sources(&self) -> [Value; 2] {
        let announcements = self.signer.data_dir().join("announcements");
        [
            json!({"kind": "announcements", "name": format!("keys of {}", self.name), "directory": announcements, "every": "1s"}),
            json!({"kind": "api-server", "name": self.name, "kubeconfig": self.kubeconfig, "discover": false, "every": "1s"}),
        ]
    }
}

/// A publisher of these nodes, whose ledger is in the cluster.
fn publisher(nodes: &[&Node], public: &Path) -> Installation {
    let sources: Vec<_> = nodes.iter().flat_map(|node| node.sources()).collect();
    let settings = json!({
        "jwks_max_age": "1s", "propagation": "2s", "margin": "1s", "rotate_after": "720h", "max_token_lifetime": "10m",
        "sources": sources,
        "targets": [directory_target(public)],
        "ledger": {"config_map": format!("{MAP}/ledger"), "kubeconfig": nodes[0].kubeconfig},
    });
    Installation::new(ISSUER, &settings)
}

fn kids(jwks: &[u8]) -> BTreeSet<String> {
    let jwks: Value = serde_json::from_slice(jwks).unwrap_or_default();
    let keys = jwks["keys"].as_array().cloned().unwrap_or_default();
    keys.iter().map(|key| key["kid"].as_str().expect("a kid").to_owned()).collect()
}

fn signed_with(token: &str) -> String {
    let header = token.split('.').next().expect("a header");
    let header: Value =
        serde_json::from_slice(&Base64UrlUnpadded::decode_vec(header).expect("base64url")).expect("JSON");
    header["kid"].as_str().expect("a kid").to_owned()
}

fn ready(server: &ApiServer) {
    server.create_namespace("shop");
    server.create_service_account("shop", "till");
}

#[test]
fn a_node_takes_its_orders_from_a_config_map_and_goes_on_when_that_is_gone_or_nonsense() {
    let (etcd, folder) = (Etcd::start(), TempDir::new().expect("a temporary folder"));
    let mut node = Node::start("node-1", &etcd, folder.path());
    ready(&node.server);
    let map = ConfigMap::in_new_namespace(&node.server, MAP);
    let first = node.signer.signing();
    node.request(OTHERS).expect_status(500);

    let public = folder.path().join("public");
    let mut service = publisher(&[&node], &public).run();
    let (token, _) = eventually("it is ordered to sign for others", || {
        let answer = node.request(OTHERS);
        (answer.status == 201).then(|| answer.json()["status"]["token"].as_str().expect("a token").to_owned())
    });
    assert_eq!(signed_with(&token), first);
    assert!(kids(&fs::read(public.join(JWKS)).expect("it is published")).contains(&first));
    assert_eq!(map.ledger()["orders"]["node-1"]["sign"], first.as_str());

    // Nobody needs the publisher or its ledger to go on.
    service.running.kill();
    let ordered = map.ledger_text();
    map.replace_data(&json!({"ledger.json": "{"}));
    eventually("it says so", || {
        let said = node.signer.running().stderr();
        said.contains("cannot read the ledger, and goes on with the orders of before").then_some(())
    });
    assert_eq!(signed_with(&node.token(OTHERS)), first);
    map.delete();
    node.signer.kill();
    node.signer.restart();
    assert_eq!(signed_with(&node.token(OTHERS)), first, "what it was ordered is on its disk");

    // A key that is not its own, and one that is.
    let standby = node.signer.standby();
    let order = |kid: &str| {
        let mut ledger: Value = serde_json::from_str(&ordered).expect("JSON");
        ledger["orders"]["node-1"] = json!({"sign": kid, "at": just_after(&ledger), "why": "asked"});
        ledger["sequence"] = (ledger["sequence"].as_u64().expect("a number") + 1).into();
        ledger
    };
    let stranger = "c3RyYW5nZXI";
    map.create(&json!({"data": {"ledger.json": order(stranger).to_string()}}));
    eventually("it refuses", || {
        node.signer
            .running()
            .stderr()
            .contains(&format!("key `{stranger}` is not of this node"))
            .then_some(())
    });
    assert_eq!(signed_with(&node.token(OTHERS)), first);
    map.replace_data(&json!({"ledger.json": order(&standby).to_string()}));
    eventually("it obeys", || (signed_with(&node.token(OTHERS)) == standby).then_some(()));
    assert!(node.accepts(&token, OTHERS), "the tokens of before live on");
}

/// A moment after the order that stands in a ledger.
fn just_after(ledger: &Value) -> String {
    let at = ledger["orders"]["node-1"]["at"].as_str().expect("a time").parse::<jiff::Timestamp>();
    (at.expect("a time") + jiff::SignedDuration::from_secs(1)).to_string()
}

#[test]
fn where_an_api_server_does_not_trust_the_keys_of_another_node_nobody_is_given_a_key_for_others() {
    let (etcd, folder) = (Etcd::start(), TempDir::new().expect("a temporary folder"));
    let one = Node::start("node-1", &etcd, folder.path());
    let two = Node::start("node-2", &etcd, folder.path());
    ready(&one.server);
    let map = ConfigMap::in_new_namespace(&one.server, MAP);
    let public = folder.path().join("public");
    let mut service = publisher(&[&one, &two], &public).run_until_ready();
    let waits = |service: &Service, node: &str| -> Vec<String> {
        let waits = service.status()["nodes"][node]["waits_for"].as_array().cloned().unwrap_or_default();
        waits.iter().map(|wait| wait.as_str().expect("text").to_owned()).collect()
    };
    // Every place shows them and no copy can lack them: this alone is in the way.
    for (node, other) in [(&one, &two), (&two, &one)] {
        let expected = [format!("API server {} does not verify it yet", other.name)];
        service.until(&format!("{} waits for the other API server alone", node.name), |service| {
            waits(service, node.name) == expected
        });
    }
    let all: BTreeSet<_> = one.announced().union(&two.announced()).cloned().collect();
    assert_eq!(kids(&fs::read(public.join(JWKS)).expect("it is published")), all);
    assert_eq!(map.ledger()["orders"].as_object().map_or(0, serde_json::Map::len), 0);
    for (node, other) in [(&one, &two), (&two, &one)] {
        node.request(OTHERS).expect_status(500);
        // What the publisher shows never becomes what an API server verifies with.
        assert_eq!(kids(&node.server.jwks().expect_status(200).body), node.announced());
        let own = node.token(ISSUER);
        assert_eq!(signed_with(&own), node.signer.signing());
        assert!(node.accepts(&own, ISSUER) && !other.accepts(&own, ISSUER));
    }
    service.stop().expect_code(0);
}
