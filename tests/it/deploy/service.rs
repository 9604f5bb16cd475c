//! The service as `deploy/` runs it: its permissions, configuration, environment, user and read-only root.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

use super::audit::{self, expect_each_used_and_nothing_else, granted};
use super::{ISSUER, NAMESPACE, deployment, dry_run, folder, of_kind, pod_of};
use crate::support::api_server::{ApiServer, Options};
use crate::support::control_plane::{ControlPlane, HERE, inside};
use crate::support::eventually::eventually;
use crate::support::http_client::Request;
use crate::support::kubectl::Kubectl;
use crate::support::pki::KeyFiles;
use crate::support::pod::Pod;
use crate::support::signpost::Running;

const LEDGER: &str = "/api/v1/namespaces/signpost/configmaps/signpost-ledger";
const EVENTS: &str = "/apis/events.k8s.io/v1/namespaces/signpost/events";

#[test]
fn the_service_works_with_exactly_these_rights_and_uses_every_one_of_them() {
    inside("deploy::service::the_service_works_with_exactly_these_rights_and_uses_every_one_of_them", || {
        let mut world = World::start();
        let mut service = world.run();
        expect_confined(service.id());
        let refused = Request::get("http://127.0.0.1:9090/readyz").send();
        assert!(refused.is_err(), "the admin listener is bound to more than the pod's address");

        let (kid, _) = eventually("the key that signs is seen to be public", || {
            let source = source()?;
            (source["signing_key_public"] == true)
                .then(|| source["signs_with"].as_str().map(str::to_owned))?
        });
        let served = Request::get(&format!("http://{HERE}:8080/openid/v1/jwks")).answer().expect_status(200);
        assert!(served.text().contains(&kid), "{}", served.text());

        let (stored, _) = eventually("the ledger is in the ConfigMap", || world.ledger());
        assert!(stored.contains(&kid), "{stored}");
        // Applying the manifests again removes nothing.
        world.apply();
        assert_eq!(world.ledger(), Some(stored));

        let (event, _) = eventually("the key is told", || world.events("KeyAppeared").pop());
        assert_eq!(event["regarding"]["uid"], world.pod["metadata"]["uid"]);
        world.count_up_an_event();

        service.terminate();
        service.finish(Duration::from_secs(30)).expect_code(0);
        world.server.stop();
        expect_each_used_and_nothing_else(&world.audit_log(), &granted(&world.objects));
    });
}

/// A cluster of one API server on a separate host, with `deploy/base` applied.
struct World {
    server: ApiServer,
    kubectl: Kubectl,
    /// The objects of the manifests.
    objects: Vec<Value>,
    pod: Value,
    folder: TempDir,
    _plane: ControlPlane,
}

impl World {
    fn start() -> Self {
        let folder = TempDir::new().expect("a temporary folder");
        let policy = folder.path().join("policy.json");
        fs::write(&policy, audit::POLICY).expect("the folder can be written");
        let mut options = Options::new(ISSUER, &KeyFiles::rsa(folder.path(), "sa"));
        options.extra_flags.push(format!("--audit-policy-file={}", policy.display()));
        options.extra_flags.push(format!("--audit-log-path={}", log_in(&folder).display()));
        let plane = ControlPlane::new();
        let server = plane.start(1, &options);
        let kubectl = Kubectl::of(&server);
        let mut world =
            Self { server, kubectl, objects: Vec::new(), pod: Value::Null, folder, _plane: plane };
        world.apply();
        world.objects = dry_run(&world.kubectl, "base").0;
        let pod = pod_of(&deployment(&world.objects)["spec"]["template"]).to_string();
        let created = world.kubectl.feed(["create", "--output=json", "-f", "-"], &pod).expect_code(0);
        world.pod = serde_json::from_str(&created.stdout).expect("JSON");
        world
    }

    #[track_caller]
    fn apply(&self) {
        self.kubectl.run([Path::new("apply"), Path::new("-k"), &folder("base")]).expect_code(0);
    }

    fn audit_log(&self) -> PathBuf {
        log_in(&self.folder)
    }

    /// Starts the process of the pod, and waits until it is ready.
    fn run(&self) -> Running {
        let text =
            |pointer: &str| self.pod.pointer(pointer).and_then(Value::as_str).expect("a text").to_owned();
        let configuration =
            of_kind(&self.objects, "ConfigMap").find_map(|map| map["data"]["config.yaml"].as_str());
        let pod = Pod::new(
            &self.pod["spec"],
            [
                ("status.podIP", HERE.to_owned()),
                ("metadata.name", text("/metadata/name")),
                ("metadata.namespace", text("/metadata/namespace")),
                ("metadata.uid", text("/metadata/uid")),
            ],
        )
        .with_access(&self.server.token(NAMESPACE, "signpost", &[], 3600), self.server.ca_file())
        .with_file("/etc/signpost/config.yaml", configuration.expect("a configuration"));
        let mut running = pod.command(&self.server.url()).start();
        running.wait_for(&format!("http://{HERE}:9090/readyz"));
        running
    }

    fn ledger(&self) -> Option<String> {
        let map = self.server.admin_request("GET", LEDGER).answer().expect_status(200).json();
        map["data"]["ledger.json"].as_str().map(str::to_owned)
    }

    fn events(&self, reason: &str) -> Vec<Value> {
        let mut list = self.server.admin_request("GET", EVENTS).answer().json();
        let events = list["items"].as_array_mut().expect("a list").drain(..);
        events.filter(|event| event["reason"] == reason).collect()
    }

    /// Makes a source fail twice: a repeated Event is counted up, once a minute.
    fn count_up_an_event(&mut self) {
        for failure in 1..=2 {
            let failures = || source()?["failures"].as_u64();
            let before = failures().expect("it runs");
            self.server.stop();
            eventually("the failure is noticed", || failures().filter(|failures| *failures > before));
            self.server.restart();
            eventually(&format!("the end of failure {failure} is told"), || {
                self.events("SourceRecovered").pop()
            });
        }
        let started = Instant::now();
        while self.events("SourceFailed").iter().all(|event| event["series"]["count"] != 2) {
            assert!(started.elapsed() < Duration::from_mins(4), "{:?}", self.events("SourceFailed"));
            std::thread::sleep(Duration::from_millis(250));
        }
    }
}

fn log_in(folder: &TempDir) -> PathBuf {
    folder.path().join("audit.log")
}

/// The status of the only source, which was discovered by its `EndpointSlice`.
fn source() -> Option<Value> {
    let answer = Request::get(&format!("http://{HERE}:9090/status.json")).send().ok()?;
    let mut status = answer.json();
    let sources = status["issuers"][ISSUER]["sources"].as_object_mut()?;
    let (name, source) = sources.iter_mut().next()?;
    assert!(name.starts_with("kubernetes https://10."), "{name}");
    Some(source.take())
}

/// Checks in `/proc` that the security contexts of the Deployment are in effect.
#[track_caller]
fn expect_confined(process: u32) {
    let of = |file: &str| fs::read_to_string(format!("/proc/{process}/{file}")).expect("it runs");
    let status = of("status");
    let is = |line: &str| status.lines().any(|found| found == line);
    // A user namespace with a single user permits no other UID.
    let is_alone = of("uid_map").split_whitespace().last() == Some("1");
    if !is_alone {
        assert!(is("Uid:\t65532\t65532\t65532\t65532") && is("NoNewPrivs:\t1"), "{status}");
        assert!(is("CapEff:\t0000000000000000") && is("CapBnd:\t0000000000000000"), "{status}");
    }
    // A line such as `23 1 8:1 / / ro,relatime - ext4 /dev/sda1 rw`: the fifth field is the mount point, the
    // sixth its options.
    for line in of("mountinfo").lines() {
        let words: Vec<&str> = line.split(' ').collect();
        let kept = ["/proc", "/sys", "/dev"].iter().any(|kernel| words[4].starts_with(kernel));
        let is_writable = words[5].split(',').any(|option| option == "rw");
        assert!(!is_writable || kept || words[4] == "/var/lib/signpost", "it can be written: {line}");
    }
}
