//! Keys rotate under load and faults, and no valid token is refused.
//!
//! Two API servers on one etcd, each with its own signer; a publisher whose ledger is in the cluster, and
//! which publishes to a store, a directory and over HTTP. A token is checked repeatedly during its lifetime:
//! by both API servers, and with every copy of the JWKS that a relying party may still have, from each
//! target. `make soak` runs it for long.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::azurite::{self, Azurite};
use crate::support::clock::Clock;
use crate::support::components::variable;
use crate::support::config_map::ConfigMap;
use crate::support::etcd::Etcd;
use crate::support::eventually::eventually;
use crate::support::fault_proxy::FaultProxy;
use crate::support::http_client::Request;
use crate::support::installation::{Installation, JWKS, Service};
use crate::two_signers::{MAP as NAMESPACE, Node};

mod chaos;
mod load;

use self::chaos::FAULTS;
use self::load::{Api, Load, Place};

const ISSUER: &str = "https://issuer.example/soak";
const AUDIENCE: &str = "api://AzureADTokenExchange";
/// How long a relying party caches a JWKS: the longest that the configuration permits.
const CACHED: Duration = Duration::from_secs(8);
/// Default duration, in seconds.
const SECONDS: u64 = 100;
/// How long no key is rotated after a ledger was restored.
const HELD: Duration = Duration::from_secs(40);

/// All processes of the test.
struct World {
    nodes: [Node; 2],
    /// The process IDs of the API servers.
    ids: [u32; 2],
    /// How often a signer was killed at a specific moment.
    kills: usize,
    publisher: Option<Service>,
    installation: Installation,
    publisher_clock: Clock,
    signers_clock: Clock,
    proxy: FaultProxy,
    azurite: Azurite,
    #[expect(dead_code, reason = "it runs until it is dropped")]
    etcd: Etcd,
    folder: TempDir,
}

impl World {
    fn new() -> Self {
        let folder = TempDir::new().expect("a folder");
        let (azurite, etcd) = (Azurite::start(), Etcd::start());
        azurite.create_public_container("oidc");
        let proxy = FaultProxy::start(azurite.url().trim_end_matches(azurite::ACCOUNT));
        let (publisher_clock, signers_clock) = (Clock::right(), Clock::right());
        let settings =
            "margin: 3s, max_token_lifetime: 10m, rotate_after: 40s, propagation: 8s, jwks_max_age: 2s";
        let mut nodes = ["node-1", "node-2"]
            .map(|name| Node::start_by(&signers_clock, name, ISSUER, settings, &etcd, folder.path()));
        let server = &nodes[0].server;
        server.create_namespace("shop");
        server.create_service_account("shop", "till");
        server.create_namespace(NAMESPACE);
        let [one, two] = &nodes;
        one.admit(two);
        two.admit(one);
        let mut sources: Vec<_> = nodes.iter().map(Node::source).collect();
        sources.push(json!({"kind": "announcements", "every": "1s"}));
        let installation = Installation::new(
            ISSUER,
            &json!({
                "jwks_max_age": "2s", "propagation": "8s", "rotate_after": "40s", "margin": "3s",
                "max_token_lifetime": "10m",
                "sources": sources,
                "ledger": {"config_map": format!("{NAMESPACE}/ledger"), "kubeconfig": nodes[0].kubeconfig},
                "targets": [
                    {"name": "blob", "url": format!("az://{}/oidc", azurite::ACCOUNT), "endpoint": format!("{}/{}", proxy.url(), azurite::ACCOUNT)},
                    {"name": "directory", "url": format!("file://{}", folder.path().join("public").display())},
                ],
            }),
        );
        let ids = nodes.each_mut().map(|node| node.server.id());
        let mut world = Self {
            nodes,
            ids,
            kills: 0,
            publisher: None,
            installation,
            publisher_clock,
            signers_clock,
            proxy,
            azurite,
            etcd,
            folder,
        };
        world.restart_publisher();
        world
    }

    /// Kills the publisher, if it runs, and starts it.
    fn restart_publisher(&mut self) {
        if let Some(mut running) = self.publisher.take() {
            running.running.kill();
        }
        let set = self.publisher_clock.environment();
        let command = set
            .into_iter()
            .fold(self.installation.verb(["run"]), |command, (name, value)| command.env(name, value));
        self.publisher = Some(self.installation.run_as(command));
    }

    fn publisher(&self) -> &Service {
        self.publisher.as_ref().expect("it runs")
    }

    fn public_file(&self) -> PathBuf {
        self.folder.path().join("public").join(JWKS)
    }

    fn places(&self) -> Vec<(&'static str, Place)> {
        vec![
            ("blob", Place::Url(format!("{}/oidc/{JWKS}", self.azurite.url()))),
            ("directory", Place::File(self.public_file())),
            ("http", Place::Url(self.publisher().url(JWKS))),
        ]
    }

    fn map_path() -> String {
        format!("/api/v1/namespaces/{NAMESPACE}/configmaps/{}", ConfigMap::NAME)
    }

    /// `None` while the API server does not answer.
    fn ledger(&self) -> Option<Value> {
        let answer = self.nodes[0].server.admin_request("GET", &Self::map_path()).send().ok()?;
        (answer.status == 200).then_some(())?;
        serde_json::from_str(answer.json()["data"]["ledger.json"].as_str()?).ok()
    }

    /// Whether every node signs with its ordered key, and tokens of it were seen.
    fn is_settled(&self, load: &Load) -> bool {
        let (Some(ledger), kids) = (self.ledger(), load.kids()) else { return false };
        self.nodes.iter().all(|node| {
            let signing = node.signer.signing();
            ledger["orders"][node.name]["sign"] == signing.as_str() && kids.contains(&signing)
        })
    }

    /// Restores an older ledger, as a backup of the cluster would.
    fn put_back(&self, ledger: &Value) {
        let change = json!({"data": {"ledger.json": ledger.to_string()}});
        let server = &self.nodes[0].server;
        let request = server.admin_request("PATCH", &Self::map_path());
        request
            .header("content-type", "application/merge-patch+json")
            .body(change.to_string())
            .answer()
            .expect_status(200);
    }

    /// Everything that helps to explain a failed wait.
    fn tell(&mut self) -> String {
        let status =
            Request::get(&self.publisher().admin_url("/status.json")).send().map(|answer| answer.text());
        let end = |log: String| {
            log.lines().rev().take(60).collect::<Vec<_>>().into_iter().rev().collect::<Vec<_>>().join("\n")
        };
        let publisher = end(self.publisher().running.stderr());
        let signers = self.nodes.each_mut().map(|node| end(node.signer.running().stderr()));
        format!("{status:?}\n--- publisher\n{publisher}\n--- signers\n{}", signers.join("\n---\n"))
    }
}

/// Waits until more keys have signed than `before`.
fn progress(load: &Load, before: usize) -> usize {
    eventually("the next key signs", || Some(load.kids().len()).filter(|now| *now > before)).0
}

#[test]
#[expect(clippy::print_stdout, clippy::print_stderr, reason = "its figures are the point of a long run")]
fn no_live_token_is_refused_while_keys_change_and_everything_fails_in_turn() {
    let number = |text: std::ffi::OsString| text.to_str().expect("a number").parse().expect("a number");
    let seconds = Duration::from_secs(variable("SIGNPOST_SOAK_SECONDS").map_or(SECONDS, number));
    let mut world = World::new();
    for node in &world.nodes {
        eventually("it may sign for others", || (node.request(AUDIENCE).status == 201).then_some(()));
    }
    let load = Load::on(world.places());
    let (began, mut met) = (Instant::now(), BTreeMap::<String, usize>::new());
    let apis = world.nodes.each_ref().map(|node| [Api::of(&node.server), Api::of(&node.server)]);
    thread::scope(|scope| {
        load.spawn(scope, apis);
        let chaos = catch_unwind(AssertUnwindSafe(|| {
            let backup = world.ledger().expect("a ledger");
            let mut known = progress(&load, 1);
            for (round, fault) in (1..).zip(FAULTS.iter().cycle()) {
                if began.elapsed() >= seconds {
                    break;
                }
                *met.entry(world.suffer(*fault)).or_default() += 1;
                if round % 3 == 0 {
                    known = progress(&load, known);
                }
            }
            // A restored ledger rotates no key for a retention, which is ten minutes here.
            world.publisher_clock.set(0);
            world.signers_clock.set(0);
            // An older order may be in transit.
            eventually("every order is obeyed", || world.is_settled(&load).then_some(()));
            world.put_back(&backup);
            eventually("the backup is recognised", || {
                world.publisher().status()["ledger"]["hold_until"].is_string().then_some(())
            });
            let (kids, restored) = (load.kids(), Instant::now());
            eventually("it is old enough", || (restored.elapsed() > HELD).then_some(()));
            assert_eq!(load.kids(), kids, "a key was switched");
        }));
        load.stop();
        if let Err(panic) = chaos {
            eprintln!("{met:#?}\n{:#?}\n{}", load.refused(), world.tell());
            resume_unwind(panic);
        }
    });
    let ran = began.elapsed().as_secs();
    let [tokens, dead, checks, reviews, unminted] = load.counts();
    let rotations = load.kids().len().saturating_sub(2);
    println!(
        "{ran} s: {rotations} rotations, {tokens} tokens of which {dead} lived to their end, {checks} checks with a \
         JWKS, {reviews} reviews, {unminted} tokens that nobody signed"
    );
    for (what, times) in &met {
        println!("{times:4} times: {what}");
    }
    assert_eq!(load.refused(), [""; 0], "{}", world.tell());
    assert!(rotations >= 3, "{rotations} rotations\n{}", world.tell());
    assert!(tokens > 500 && checks > 1000 && reviews > 100, "{tokens} {checks} {reviews}");
    let ids = world.nodes.each_mut().map(|node| node.server.id());
    assert_eq!(ids, world.ids, "an API server was restarted, and not by this test");
}
