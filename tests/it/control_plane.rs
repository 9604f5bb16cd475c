//! Several API servers with their own addresses and host names: the real `EndpointSlice`, the real identity
//! Leases.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::api_server::{ADMIN_TOKEN, ApiServer, Bearer, Options};
use crate::support::control_plane::{Balancer, ControlPlane, inside, on};
use crate::support::eventually::eventually;
use crate::support::installation::{Installation, JWKS, Service};
use crate::support::pki::KeyFiles;
use crate::support::signpost::Signpost;

const ISSUER: &str = "https://oidc.example/cluster";
/// Time limit from the first answer of an API server with a new signing key until that key is public.
const PUBLIC_WITHIN: Duration = Duration::from_secs(2);

struct World {
    folder: TempDir,
    plane: ControlPlane,
}

/// A key, and the ID that OpenSSL computes.
#[derive(Clone)]
struct Key {
    files: KeyFiles,
    kid: String,
}

impl World {
    fn new() -> Self {
        Self { folder: TempDir::new().expect("a temporary folder"), plane: ControlPlane::new() }
    }

    fn key(&self, name: &str) -> Key {
        let files = KeyFiles::rsa(self.folder.path(), name);
        let out = Signpost::new(["jwks", "--source", &files.public.display().to_string()])
            .finish(Duration::from_mins(1))
            .expect_code(0);
        let jwks: Value = serde_json::from_str(&out.stdout).expect("a JWKS");
        Key { files, kid: jwks["keys"][0]["kid"].as_str().expect("a kid").to_owned() }
    }

    /// Uses only this key, for signing and verification.
    fn options(key: &Key) -> Options {
        Options::new(ISSUER, &key.files)
    }

    fn start(&self, number: u8, key: &Key) -> ApiServer {
        self.plane.start(number, &Self::options(key))
    }

    fn kubeconfig(&self, name: &str, server: &ApiServer, token: &str) -> PathBuf {
        let file = self.folder.path().join(name);
        server.kubeconfig(&file, &Bearer::Token(token));
        file
    }

    fn admin(&self, server: &ApiServer) -> PathBuf {
        self.kubeconfig("admin", server, ADMIN_TOKEN)
    }
}

/// With the default interval, so that anything seen sooner is seen for another reason.
fn installation(kubeconfig: &Path, more: &Value) -> Installation {
    let mut source = json!({"kind": "api-server", "kubeconfig": kubeconfig});
    source.as_object_mut().expect("it is one").extend(more.as_object().expect("it is one").clone());
    Installation::new(ISSUER, &json!({"sources": [source]}))
}

fn name(server: &ApiServer) -> String {
    format!("kubernetes {}", server.url())
}

fn sources(service: &Service) -> BTreeSet<String> {
    service.status()["sources"].as_object().map(|all| all.keys().cloned().collect()).unwrap_or_default()
}

fn is_public(service: &Service, kid: &str) -> bool {
    let answer = service.get(JWKS);
    answer.status == 200 && answer.text().contains(kid)
}

fn state(service: &Service, kid: &str) -> String {
    let status = service.status();
    let keys = status["keys"].as_array().expect("keys are a list");
    let key =
        keys.iter().find(|key| key["kid"] == kid).unwrap_or_else(|| panic!("{kid} is unknown: {keys:?}"));
    key["state"].as_str().expect("a word").to_owned()
}

/// Restarts with another key, and returns how long after its first answer with it the key was public, and how
/// long after `lister` listed it.
fn time_until_public(
    server: &mut ApiServer,
    options: Options,
    key: &Key,
    service: &Service,
    lister: &ApiServer,
) -> [Duration; 2] {
    server.begin(options);
    let (server, service) = (&*server, service);
    thread::scope(|scope| {
        let answered = scope.spawn(|| {
            let look = || {
                let answer = server.admin_request("GET", &format!("/{JWKS}")).send().ok()?;
                answer.text().contains(&key.kid).then(Instant::now)
            };
            eventually("the API server answers with its key", look).0
        });
        let listed = scope.spawn(|| {
            let look =
                || listed(lister).contains(&server.options().host.as_ref()?.listed_url()).then(Instant::now);
            eventually("it is listed", look).0
        });
        let look = || is_public(service, &key.kid).then(Instant::now);
        let public = eventually("the key is public", look).0;
        [answered, listed]
            .map(|seen| public.saturating_duration_since(seen.join().expect("it comes to pass")))
    })
}

/// Reads the public JWKS repeatedly; every key in `owed` must always be in it.
struct Witness<'a> {
    service: &'a Service,
    owed: Mutex<BTreeSet<String>>,
    over: AtomicBool,
    looks: AtomicUsize,
}

impl<'a> Witness<'a> {
    fn of(service: &'a Service) -> Self {
        let (owed, over, looks) = (Mutex::default(), AtomicBool::new(false), AtomicUsize::new(0));
        Self { service, owed, over, looks }
    }

    fn owe(&self, key: &Key) {
        self.owed.lock().expect("no panic").insert(key.kid.clone());
    }

    fn watch(&self) {
        while !self.over.load(Ordering::Relaxed) {
            let owed = self.owed.lock().expect("no panic").clone();
            let shown = self.service.get(JWKS).expect_status(200).text();
            for kid in owed {
                assert!(shown.contains(&kid), "{kid} was away for a moment: {shown}");
            }
            self.looks.fetch_add(1, Ordering::Relaxed);
            thread::sleep(Duration::from_millis(50));
        }
    }
}

#[test]
#[expect(clippy::print_stdout, reason = "the figures are wanted")]
fn the_union_is_right_at_every_poll_while_api_servers_restart_join_and_die() {
    inside("control_plane::the_union_is_right_at_every_poll_while_api_servers_restart_join_and_die", || {
        let world = World::new();
        let [a, b, b2, c] = ["a", "b", "b2", "c"].map(|name| world.key(name));
        let (first, mut second) = (world.start(1, &a), world.start(2, &b));
        first.create_service_account("default", "signpost");
        let installation = installation(&world.admin(&first), &json!({"probe": "default/signpost"}));
        let mut service = installation.run_until_ready();
        let both = BTreeSet::from([name(&first), name(&second)]);
        service.until("both API servers are asked", |service| {
            sources(service) == both && is_public(service, &a.kid) && is_public(service, &b.kid)
        });
        service.until("the key of each is known that signs", |service| {
            let status = service.status();
            let signs = |server, key: &Key| status["sources"][name(server)]["signs_with"] == *key.kid;
            signs(&first, &a) && signs(&second, &b)
        });
        let (service, mut third) = (&service, None);
        let witness = Witness::of(service);
        witness.owe(&a);
        witness.owe(&b);
        thread::scope(|scope| {
            let watched = scope.spawn(|| witness.watch());

            let options = Options { host: second.options().host.clone(), ..World::options(&b2) };
            let restarted = time_until_public(&mut second, options, &b2, service, &first);
            witness.owe(&b2);

            let options = on(world.plane.host(3), &World::options(&c));
            let mut joining = ApiServer::stopped(&world.plane.etcd, options.clone());
            let joined = time_until_public(&mut joining, options, &c, service, &first);
            witness.owe(&c);
            let joining = third.insert(joining);

            let killed = Instant::now();
            second.stop();
            let left =
                eventually("it leaves the list", || (!listed(&first).contains(&second.url())).then_some(()))
                    .1;
            // It is kept for a minute and reported as failing until then, and its key is listed.
            assert!(sources(service).contains(&name(&second)));
            assert_eq!(state(service, &b2.kid), "listed");
            let three = BTreeSet::from([name(&first), name(joining)]);
            let waited = Instant::now();
            while sources(service) != three || state(service, &b2.kid) != "missing" {
                assert!(waited.elapsed() < Duration::from_secs(150), "{}", service.status());
                thread::sleep(Duration::from_millis(100));
            }
            let dropped = killed.elapsed();
            assert!(!service.admin("/metrics").text().contains(&second.url()), "a series without a source");

            witness.over.store(true, Ordering::Relaxed);
            watched.join().expect("no key that is owed was ever away");
            println!(
                "public after the first answer and after the listing: {restarted:?} (restart), {joined:?} (join); killed: off the list \
                 after {left:?}, not asked any more after {dropped:?}; {:?} looks",
                witness.looks
            );
            assert!(restarted[0] < PUBLIC_WITHIN, "{restarted:?}");
            // kube-apiserver lists itself a second and more after its first answer; until then no client
            // finds it.
            assert!(joined[1] < PUBLIC_WITHIN, "{joined:?}");
        });
    });
}

/// The URLs in the `EndpointSlice`.
fn listed(server: &ApiServer) -> BTreeSet<String> {
    let path = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices/kubernetes";
    let slice = server.admin_request("GET", path).answer().json();
    let endpoints = slice["endpoints"].as_array().cloned().unwrap_or_default();
    let port = slice["ports"][0]["port"].clone();
    endpoints
        .iter()
        .map(|endpoint| format!("https://{}:{port}", endpoint["addresses"][0].as_str().expect("an address")))
        .collect()
}

#[test]
#[expect(clippy::print_stdout, reason = "the figure is wanted")]
fn a_start_is_noticed_by_its_lease_behind_a_balancer_that_keeps_its_connections_open() {
    inside(
        "control_plane::a_start_is_noticed_by_its_lease_behind_a_balancer_that_keeps_its_connections_open",
        || {
            let world = World::new();
            let [a, b, b2] = ["a", "b", "b2"].map(|name| world.key(name));
            let first = world.start(1, &a);
            let host = world.plane.host(2).advertising("10.77.0.22");
            Balancer::start("10.77.0.22", format!("{}:6443", host.address()));
            let mut second = ApiServer::start(&world.plane.etcd, on(host, &World::options(&b)));
            let mut service = installation(&world.admin(&first), &json!({})).run_until_ready();
            service.until("both API servers are asked", |service| {
                sources(service).contains("kubernetes https://10.77.0.22:6443") && is_public(service, &b.kid)
            });
            let polls = |service: &Service| {
                service.status()["sources"]["kubernetes https://10.77.0.22:6443"]["answers"].as_u64()
            };
            // A started server is polled every second for a while, and so are all others.
            let quiet = Instant::now();
            let mut before = polls(&service);
            eventually("it is polled as seldom as in a quiet hour", || {
                let now = polls(&service);
                let changed = std::mem::replace(&mut before, now) != now;
                (!changed && quiet.elapsed() > Duration::from_secs(12)).then_some(())
            });

            let options = Options { host: second.options().host.clone(), ..World::options(&b2) };
            let public = time_until_public(&mut second, options, &b2, &service, &first);
            println!("public {public:?} after the first answer and the listing");
            assert!(public[0] < PUBLIC_WITHIN, "{public:?}");
            assert!(
                service.source_is_up("kubernetes https://10.77.0.22:6443"),
                "no connection was seen to end"
            );
        },
    );
}

#[test]
fn api_servers_that_cannot_be_reached_are_no_alarm_while_the_url_answers() {
    inside("control_plane::api_servers_that_cannot_be_reached_are_no_alarm_while_the_url_answers", || {
        let world = World::new();
        let a = world.key("a");
        // An unreachable address.
        let host = world.plane.host(1).advertising("192.0.2.11");
        let server = ApiServer::start(&world.plane.etcd, on(host, &World::options(&a)));
        let installation = installation(&world.admin(&server), &json!({}));
        let mut service = installation.run_until_ready();
        service.until("whoever answers at the URL is asked", |service| {
            sources(service) == BTreeSet::from(["kubernetes".to_owned()])
                && service.source_is_up("kubernetes")
        });
        service.running.wait_for_output("are not reachable from here");
        let log = service.running.stderr();
        assert_eq!((log.matches("WARN").count(), log.matches("ERROR").count()), (1, 0), "{log}");
        assert!(log.contains("discover: false"), "{log}");
        assert_eq!(sources(&service), BTreeSet::from(["kubernetes".to_owned()]));
    });
}

/// The purpose of each permission, and its Role: namespace, name, rule.
fn roles() -> [(&'static str, &'static str, Value); 3] {
    let rule = |group: &str, resource: &str, verbs: &[&str]| json!([{"apiGroups": [group], "resources": [resource], "verbs": verbs}]);
    [
        ("default", "slices", rule("discovery.k8s.io", "endpointslices", &["list", "watch"])),
        ("kube-system", "leases", rule("coordination.k8s.io", "leases", &["list", "watch"])),
        ("default", "token", rule("", "serviceaccounts/token", &["create"])),
    ]
}

fn grant(server: &ApiServer, account: &str, (namespace, name, rules): &(&str, &str, Value)) {
    let path = format!("/apis/rbac.authorization.k8s.io/v1/namespaces/{namespace}");
    let name = format!("{account}-{name}");
    let role = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": name}, "rules": rules});
    server.create(&format!("{path}/roles"), &role);
    let binding = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "RoleBinding",
        "metadata": {"name": name},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name},
        "subjects": [{"kind": "ServiceAccount", "namespace": "default", "name": account}],
    });
    server.create(&format!("{path}/rolebindings"), &binding);
}

#[test]
fn a_right_that_is_lacking_is_named_once_and_everything_else_goes_on() {
    inside("control_plane::a_right_that_is_lacking_is_named_once_and_everything_else_goes_on", || {
        let world = World::new();
        let a = world.key("a");
        let server = world.start(1, &a);
        let services = ["slices", "leases", "token", "nothing"].map(|lacking| {
            server.create_service_account("default", lacking);
            for role in roles().iter().filter(|role| role.1 != lacking) {
                grant(&server, lacking, role);
            }
            let token = server.token("default", lacking, &[], 3600);
            let kubeconfig = world.kubeconfig(lacking, &server, &token);
            let installation = installation(&kubeconfig, &json!({}));
            (installation.run_until_ready(), installation)
        });
        let [(mut slices, _i), (mut leases, _j), (mut token, _k), (mut nothing, _l)] = services;
        let direct = BTreeSet::from([name(&server)]);
        let url = BTreeSet::from(["kubernetes".to_owned()]);
        for service in [&mut leases, &mut token, &mut nothing] {
            service.until("the API server is found", |service| sources(service) == direct);
        }
        slices.until("whoever answers at the URL is asked", |service| sources(service) == url);
        for service in [&mut slices, &mut leases, &mut nothing] {
            service.until("the key that signs is known", |service| {
                service.status().to_string().contains("signs_with")
            });
        }
        for (service, what, command) in [
            (
                &mut slices,
                "cannot list the API servers",
                "kubectl create role signpost-endpointslices --namespace=default --verb=list,watch --resource=endpointslices.discovery.k8s.io",
            ),
            (
                &mut leases,
                "cannot watch starts of API servers",
                "kubectl create role signpost-leases --namespace=kube-system --verb=list,watch --resource=leases.coordination.k8s.io",
            ),
            (
                &mut token,
                "cannot determine the signing key",
                "kubectl create role signpost-token --namespace=default --verb=create --resource=serviceaccounts/token",
            ),
        ] {
            service.running.wait_for_output(what);
            let log = service.running.stderr();
            assert_eq!((log.matches("WARN").count(), log.matches("ERROR").count()), (1, 0), "{log}");
            assert!(log.contains(command), "{log}");
        }
        let log = nothing.running.stderr();
        assert_eq!((log.matches("WARN").count(), log.matches("ERROR").count()), (0, 0), "{log}");

        let [role, ..] = roles();
        grant(&server, "slices", &role);
        slices.until("the right is used once it is granted", |service| sources(service) == direct);
    });
}
