//! Nodes with a ledger in a `ConfigMap`, before and after they trust each other.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use base64ct::{Base64UrlUnpadded, Encoding as _};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::api_server::{ADMIN_TOKEN, ApiServer, Bearer, write_kubeconfig};
use crate::support::clock::Clock;
use crate::support::config_map::ConfigMap;
use crate::support::etcd::Etcd;
use crate::support::eventually::eventually;
use crate::support::external_signer::{ExternalSigner, request};
use crate::support::http_client::Response;
use crate::support::installation::{Installation, JWKS, directory_target};

mod rights;

const ISSUER: &str = "https://issuer.example";
const OTHERS: &str = "api://AzureADTokenExchange";
/// The namespace of the ledger.
pub(crate) const MAP: &str = "signpost-ledger";

/// A control-plane node: an API server, and its signer.
pub(crate) struct Node {
    pub(crate) name: &'static str,
    pub(crate) signer: ExternalSigner,
    pub(crate) server: ApiServer,
    pub(crate) kubeconfig: PathBuf,
}

impl Node {
    /// Its signer reads the ledger through its own API server, which cannot start before the signer.
    fn start(name: &'static str, etcd: &Etcd, folder: &Path) -> Self {
        Self::start_as(&Bearer::Token(ADMIN_TOKEN), name, etcd, folder, &[])
    }

    /// The same with another user for the signer, and further flags for the API server.
    fn start_as(user: &Bearer, name: &'static str, etcd: &Etcd, folder: &Path, flags: &[String]) -> Self {
        let signer = Self::signer(name, ISSUER, "margin: 1s, rotate_after: 720h", folder);
        Self::start_with(signer, user, name, etcd, folder, flags)
    }

    /// The same with its own waits and clock.
    pub(crate) fn start_by(
        clock: &Clock,
        name: &'static str,
        issuer: &str,
        waits: &str,
        etcd: &Etcd,
        folder: &Path,
    ) -> Self {
        let mut signer = Self::signer(name, issuer, waits, folder);
        clock.environment().into_iter().for_each(|(name, value)| signer.set_environment(name, value));
        signer.log_little();
        Self::start_with(signer, &Bearer::Token(ADMIN_TOKEN), name, etcd, folder, &[])
    }

    /// A signer that reads the ledger of the cluster.
    fn signer(name: &str, issuer: &str, waits: &str, folder: &Path) -> ExternalSigner {
        let kubeconfig = folder.join(name);
        let ledger = format!("ledger: {{config_map: {MAP}/ledger, kubeconfig: {}}}", kubeconfig.display());
        ExternalSigner::of_several(issuer, name, &format!("{waits}, {ledger}"))
    }

    fn start_with(
        mut signer: ExternalSigner,
        user: &Bearer,
        name: &'static str,
        etcd: &Etcd,
        folder: &Path,
        flags: &[String],
    ) -> Self {
        let kubeconfig = folder.join(name);
        let mut options = signer.options();
        options.extra_flags.extend_from_slice(flags);
        let mut server = ApiServer::stopped(etcd, options);
        write_kubeconfig(&kubeconfig, &server.url(), server.ca_file(), user);
        signer.restart();
        server.restart();
        Self { name, signer, server, kubeconfig }
    }

    pub(crate) fn request(&self, audience: &str) -> Response {
        request(&self.server, audience)
    }

    fn token(&self, audience: &str) -> String {
        self.server.token("shop", "till", &[audience], 600)
    }

    fn accepts(&self, token: &str, audience: &str) -> bool {
        self.server.review(token, &[audience])["authenticated"] == true
    }

    /// The operator admits the other node here, by its announcement file.
    pub(crate) fn admit(&self, other: &Self) {
        let file = other.signer.data_dir().join(format!("announcements/{}.json", other.name));
        let file = file.to_str().expect("UTF-8");
        let admit = |more: &[&str]| {
            let words: Vec<_> = ["signer", "admit", file].iter().chain(more).copied().collect();
            self.signer.verb(&words).finish(Duration::from_secs(30))
        };
        let unsure = admit(&[]).expect_code(2);
        assert!(
            unsure.stderr.contains("cluster-admin here") && unsure.stderr.contains("`--yes`"),
            "{}",
            unsure.stderr
        );
        admit(&["--yes"]).expect_code(0);
    }

    fn announced(&self) -> BTreeSet<String> {
        self.signer.announcement()["keys"].as_object().expect("keys").keys().cloned().collect()
    }

    pub(crate) fn source(&self) -> Value {
        json!({"kind": "api-server", "name": self.name, "kubeconfig": self.kubeconfig, "discover": false, "every": "1s"})
    }
}

/// A publisher of these nodes, whose ledger is in the cluster.
fn publisher(nodes: &[&Node], public: &Path) -> Installation {
    let mut sources: Vec<_> = nodes.iter().map(|node| node.source()).collect();
    sources.push(json!({"kind": "announcements", "every": "1s"}));
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

fn issued_at(token: &str) -> i64 {
    let claims = Base64UrlUnpadded::decode_vec(token.split('.').nth(1).expect("claims")).expect("base64url");
    let claims: Value = serde_json::from_slice(&claims).expect("JSON");
    claims["iat"].as_i64().expect("a number")
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

    // The nodes continue without the publisher and its ledger.
    service.running.kill();
    let ordered = map.ledger_text();
    map.replace_data(&json!({"ledger.json": "{"}));
    eventually("it says so", || {
        let said = node.signer.running().stderr();
        said.contains("cannot read the ledger, keeping the previous orders").then_some(())
    });
    assert_eq!(signed_with(&node.token(OTHERS)), first);
    map.delete();
    node.signer.kill();
    node.signer.restart();
    assert_eq!(signed_with(&node.token(OTHERS)), first, "what it was ordered is on its disk");

    // A key that is not its own, and one that is.
    let standby = node.signer.standby();
    let order = |kid: &str, later: i64| {
        let mut ledger: Value = serde_json::from_str(&ordered).expect("JSON");
        ledger["orders"]["node-1"] = json!({"sign": kid, "at": after(&ledger, later), "reason": "asked"});
        ledger["sequence"] = (ledger["sequence"].as_u64().expect("a number") + 1).into();
        ledger
    };
    let stranger = "c3RyYW5nZXI";
    map.create(&json!({"data": {"ledger.json": order(stranger, 1).to_string()}}));
    eventually("it refuses", || {
        node.signer
            .running()
            .stderr()
            .contains(&format!("key `{stranger}` does not belong to this node"))
            .then_some(())
    });
    assert_eq!(signed_with(&node.token(OTHERS)), first);
    map.replace_data(&json!({"ledger.json": order(&standby, 2).to_string()}));
    eventually("it obeys", || (signed_with(&node.token(OTHERS)) == standby).then_some(()));
    assert!(node.accepts(&token, OTHERS), "the tokens of before live on");
}

/// A time this many seconds after the order in a ledger.
fn after(ledger: &Value, seconds: i64) -> String {
    let at = ledger["orders"]["node-1"]["at"].as_str().expect("a time").parse::<jiff::Timestamp>();
    (at.expect("a time") + jiff::SignedDuration::from_secs(seconds)).to_string()
}

#[test]
fn a_node_joins_once_it_is_admitted_and_tokens_of_each_are_accepted_by_both() {
    let (etcd, folder) = (Etcd::start(), TempDir::new().expect("a temporary folder"));
    let mut one = Node::start("node-1", &etcd, folder.path());
    ready(&one.server);
    let ids = one.server.id();
    let map = ConfigMap::in_new_namespace(&one.server, MAP);
    let public = folder.path().join("public");
    let service = publisher(&[&one], &public).run_until_ready();
    eventually("the first may sign for others", || (one.request(OTHERS).status == 201).then_some(()));
    service.stop().expect_code(0);
    let mut two = Node::start("node-2", &etcd, folder.path());
    let ids = [ids, two.server.id()];
    let installation = publisher(&[&one, &two], &public);
    let mut service = installation.run_until_ready();

    // The second node is not admitted: only its own API server trusts it, and it gets no order.
    service.until("the stranger is told of", |service| {
        service.status()["alarms"]
            .to_string()
            .contains("node `node-2` announces keys, but no node has admitted it")
    });
    two.request(OTHERS).expect_status(500);
    let own = two.token(ISSUER);
    assert!(two.accepts(&own, ISSUER) && !one.accepts(&own, ISSUER));
    assert_eq!(map.ledger()["orders"].as_object().expect("orders").len(), 1);

    let own = one.signer.data_dir().join("announcements/node-1.json");
    let cut_off = folder.path().join("cut-off.json");
    fs::write(&cut_off, &fs::read(&own).expect("it is announced")[..100]).expect("the folder is ours");
    for (file, expected) in [(&own, "`node-1` is this node"), (&cut_off, "not a signed announcement")] {
        let words = ["signer", "admit", file.to_str().expect("UTF-8"), "--yes"];
        let refused = one.signer.verb(&words).finish(Duration::from_secs(30)).expect_code(2);
        assert!(refused.stderr.contains(expected) && refused.stderr.contains("hint: "), "{}", refused.stderr);
    }

    // Each is admitted by hand on the other; from then on they read each other's ConfigMap.
    for (node, other) in [(&one, &two), (&two, &one)] {
        node.admit(other);
    }
    for (node, other) in [(&one, &two), (&two, &one)] {
        eventually("an API server verifies the keys of the other node", || {
            let verified = kids(&node.server.jwks().expect_status(200).body);
            other.announced().is_subset(&verified).then_some(())
        });
    }
    eventually("the second may sign for others", || (two.request(OTHERS).status == 201).then_some(()));
    let both: BTreeSet<_> = one.announced().union(&two.announced()).cloned().collect();
    assert_eq!(kids(&fs::read(public.join(JWKS)).expect("it is published")), both);

    // An order in the very second of a rotation request would suffice.
    let ordered = map.ledger()["orders"]["node-2"]["at"].as_str().expect("a time").to_owned();
    let ordered = ordered.parse::<jiff::Timestamp>().expect("a time").as_second();
    eventually("a second passes", || (issued_at(&two.token(ISSUER)) > ordered).then_some(()));

    // A rotation of both, one after the other, while each accepts the tokens of the other.
    let before = [&one, &two].map(|node| (node.signer.signing(), node.token(OTHERS)));
    installation.finish(["rotate", "start"]).expect_code(0);
    service.until("both sign with their next keys", |_| {
        let signing = [&one, &two].map(|node| node.signer.signing());
        signing[0] != before[0].0 && signing[1] != before[1].0
    });
    let tokens = [&one, &two].map(|node| node.token(OTHERS));
    for token in before.iter().map(|(_, token)| token).chain(&tokens) {
        for node in [&one, &two] {
            assert!(node.accepts(token, OTHERS), "{} refuses a token of {}", node.name, signed_with(token));
        }
        assert!(kids(&fs::read(public.join(JWKS)).expect("published")).contains(&signed_with(token)));
    }
    assert_eq!([one.server.id(), two.server.id()], ids, "no API server was restarted");

    // A single pass reads their announcements too.
    service.stop().expect_code(0);
    fs::remove_dir_all(installation.data_dir().join("announcements")).expect("it was carried there");
    let pass = installation.finish(["sync"]).expect_code(0);
    assert!(installation.data_dir().join("announcements/node-2.json").exists(), "{}", pass.stderr);

    // Once it is expelled, its tokens are refused here, whatever any node announces.
    one.signer.verb(&["signer", "expel", "node-2"]).finish(Duration::from_secs(30)).expect_code(0);
    eventually("it is trusted no more", || (!one.accepts(&tokens[1], OTHERS)).then_some(()));
    assert!(one.accepts(&tokens[0], OTHERS) && two.accepts(&tokens[1], OTHERS));
}
