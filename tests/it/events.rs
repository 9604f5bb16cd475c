//! Kubernetes Events at a real API server: their contents, their number, and independence from them.

use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use signpost::{
    core::jose::issuer::Issuer,
    kubernetes::{
        Access,
        events::{Events, Pod},
    },
    reconcile::event_loop::run_events,
    telemetry::{event_source::EventQueue, status::StatusStore},
};

use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use crate::support::{
    api_server::{ApiServer, Bearer, Options, write_kubeconfig},
    etcd::Etcd,
    eventually::eventually,
    fault_proxy::FaultProxy,
    installation::{Installation, directory_target, files},
    pki::KeyFiles,
};

const ISSUER: &str = "https://oidc.example/events";
const EVENTS: &str = "/apis/events.k8s.io/v1/namespaces/signpost/events";
const RBAC: &str = "/apis/rbac.authorization.k8s.io/v1/namespaces/signpost";
const POD: &str = "signpost-0";

/// A cluster with a pod in it, and the kubeconfig of the pod's service account.
struct World {
    server: ApiServer,
    uid: String,
    folder: TempDir,
    _etcd: Etcd,
}

impl World {
    fn start() -> Self {
        let folder = TempDir::new().expect("a temporary folder");
        let etcd = Etcd::start();
        let key = KeyFiles::ec(folder.path(), "cluster");
        let server = ApiServer::start(&etcd, Options::new("https://oidc.example/cluster", &key));
        server.create_namespace("signpost");
        server.create_service_account("signpost", "signpost");
        let pod = server.create(
            "/api/v1/namespaces/signpost/pods",
            &json!({
                "metadata": {"name": POD},
                "spec": {"containers": [{"name": "signpost", "image": "signpost"}]},
            }),
        );
        let uid = pod["metadata"]["uid"].as_str().expect("a UID").to_owned();
        Self { server, uid, folder, _etcd: etcd }
    }

    fn allow_events(&self) {
        let rule =
            json!({"apiGroups": ["events.k8s.io"], "resources": ["events"], "verbs": ["create", "patch"]});
        self.server
            .create(&format!("{RBAC}/roles"), &json!({"metadata": {"name": "events"}, "rules": [rule]}));
        self.server.create(
            &format!("{RBAC}/rolebindings"),
            &json!({
                "metadata": {"name": "events"},
                "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "events"},
                "subjects": [{"kind": "ServiceAccount", "namespace": "signpost", "name": "signpost"}],
            }),
        );
    }

    /// A kubeconfig of the service account for `url`.
    fn kubeconfig(&self, url: &str) -> std::path::PathBuf {
        let file = self.folder.path().join("kubeconfig");
        let token = self.server.token("signpost", "signpost", &[], 3600);
        write_kubeconfig(&file, url, self.server.ca_file(), &Bearer::Token(&token));
        file
    }

    /// The Events that an administrator sees, by reason.
    fn events(&self, reason: &str) -> Vec<Value> {
        let mut list = self.server.admin_request("GET", EVENTS).answer().expect_status(200).json();
        let items = list["items"].as_array_mut().expect("a list").drain(..);
        items.filter(|event| event["reason"] == reason).collect()
    }

    /// An installation that sends Events about the pod.
    fn installation(&self, keys: &Path) -> Installation {
        let settings = json!({
            "sources": [files(&[keys])],
            "targets": [directory_target(&self.folder.path().join("public"))],
        });
        let pod = format!("signpost/{POD}");
        let kubeconfig = self.kubeconfig(&self.server.url());
        let events = json!({"pod": pod, "pod_uid": self.uid, "kubeconfig": kubeconfig});
        Installation::with_listener(ISSUER, &settings, json!({"events": events}))
    }
}

#[test]
fn a_change_of_keys_and_a_failure_are_events_about_the_pod() {
    let world = World::start();
    world.allow_events();
    let keys = ["first", "second"].map(|name| KeyFiles::rsa(world.folder.path(), name));
    let drop_in = world.folder.path().join("keys");
    std::fs::create_dir(&drop_in).expect("the folder can be written");
    let put =
        |key: &KeyFiles, name| std::fs::copy(&key.public, drop_in.join(name)).expect("it can be copied");
    put(&keys[0], "first.pub");
    let installation = world.installation(&drop_in);
    let mut service = installation.run_until_ready();
    put(&keys[1], "second.pub");
    let (appeared, _) = eventually("both keys are told", || {
        let events = world.events("KeyAppeared");
        (events.len() == 2).then_some(events)
    });

    let kids = service.status()["keys"].as_array().expect("a list").clone();
    for kid in kids.iter().map(|key| key["kid"].as_str().expect("a kid")) {
        let note = format!("key `{kid}` appeared and is published (issuer `{ISSUER}`)");
        let event = appeared.iter().find(|event| event["note"] == note.as_str());
        let event = event.unwrap_or_else(|| panic!("`{note}` is not among {appeared:?}"));
        assert_eq!(
            (&event["type"], &event["action"], &event["reportingController"], &event["reportingInstance"]),
            (&json!("Normal"), &json!("StoreLedger"), &json!("signpost"), &json!(POD)),
        );
        let pod = json!({"apiVersion": "v1", "kind": "Pod", "namespace": "signpost", "name": POD, "uid": world.uid});
        assert_eq!(event["regarding"], pod);
        assert_eq!(event["series"], Value::Null);
    }

    // The query of `kubectl describe pod`.
    std::fs::remove_dir_all(&drop_in).expect("the folder can be written");
    let described =
        format!("/api/v1/namespaces/signpost/events?fieldSelector=involvedObject.uid={}", world.uid);
    let (failed, _) = eventually("the failure is told", || {
        let list = world.server.admin_request("GET", &described).answer().expect_status(200).json();
        list["items"].as_array()?.iter().find(|event| event["reason"] == "SourceFailed").cloned()
    });
    assert_eq!(failed["type"], "Warning");
    let message = failed["message"].as_str().expect("a message");
    assert!(message.starts_with("source `files` failed, keeping its last good keys: "), "{message}");
    service.until("what was told is counted", |service| {
        service.admin("/metrics").text().lines().any(|line| line == "signpost_events_sent_total 3")
    });
}

/// The count of a series is updated once a minute, and an Event that has expired in between is created again.
#[test]
#[expect(clippy::print_stdout, reason = "the figures are wanted")]
fn a_thousand_flaps_are_two_events_with_a_count() {
    let world = World::start();
    world.allow_events();
    let proxy = FaultProxy::start_trusting(&world.server.url(), Some(world.server.ca_file()));
    let kubeconfig = Some(world.kubeconfig(&proxy.url()));
    let pod = Pod { namespace: "signpost".to_owned(), name: POD.to_owned(), uid: Some(world.uid.clone()) };
    let events = Events::new(Access { kubeconfig, ..Access::default() }, pod, jiff::Timestamp::UNIX_EPOCH);
    let (queue, stop) = (EventQueue::default(), CancellationToken::new());
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let runtime = runtime.expect("a runtime");
    let sending = runtime.spawn(run_events(queue.clone(), events, stop.clone()));

    let (board, issuer) = (StatusStore::with_events(queue), Issuer::parse(ISSUER).expect("an issuer"));
    let started = Instant::now();
    for flap in 0..1000 {
        board.source(&issuer, "files", |status| {
            status.up = flap % 2 == 1;
            status.failures += 1;
        });
    }
    let (event, _) = eventually("the first one is sent", || world.events("SourceFailed").pop());
    let name = event["metadata"]["name"].as_str().expect("a name");
    world.server.admin_request("DELETE", &format!("{EVENTS}/{name}")).answer().expect_status(200);
    let counts = || {
        let count = |event: &Value| event["series"]["count"].as_i64().unwrap_or(1);
        let of = |reason| world.events(reason).iter().map(count).collect::<Vec<_>>();
        [of("SourceFailed"), of("SourceRecovered")]
    };
    while counts() != [vec![500], vec![500]] {
        assert!(started.elapsed() < Duration::from_mins(3), "{:?}", counts());
        std::thread::sleep(Duration::from_millis(200));
    }
    let requests = proxy.count("POST", EVENTS) + proxy.count("PATCH", EVENTS);
    println!("1,000 flaps: 2 Events, {requests} requests, all counted after {:?}", started.elapsed());
    assert!((4..=5).contains(&requests), "{requests} requests");
    stop.cancel();
    runtime.block_on(sending).expect("it ends when it is told to");
}

#[test]
fn without_the_right_to_tell_the_service_goes_on_and_says_so_once() {
    let world = World::start();
    let key = KeyFiles::rsa(world.folder.path(), "key");
    let installation = world.installation(&key.public);
    let mut service = installation.run_until_ready();
    let failures = |service: &crate::support::installation::Service| {
        let page = service.admin("/metrics").text();
        let line = page.lines().find_map(|line| line.strip_prefix("signpost_events_failed_total "));
        line.and_then(|count| count.parse::<u64>().ok()).unwrap_or(0)
    };
    service.until("the refusal is counted", |service| failures(service) >= 1);
    service.until("it publishes", |service| service.target("directory")["up"] == true);
    assert_eq!(service.admin("/readyz").status, 200);

    world.allow_events();
    eventually("what was kept is told", || world.events("KeyAppeared").pop());
    service.running.wait_for_output("Kubernetes Events are sent again");
    let log = service.stop().expect_code(0).stderr;
    assert_eq!(log.matches("cannot send Kubernetes Events").count(), 1, "{log}");
    assert!(log.contains("kubectl create role signpost-events --namespace signpost"), "{log}");
}
