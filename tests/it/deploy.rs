//! `deploy/`: what the API server says of the manifests, and that their rights are those that are used.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::api_server::{ApiServer, Options};
use crate::support::control_plane::{ControlPlane, HERE, inside};
use crate::support::etcd::Etcd;
use crate::support::eventually::eventually;
use crate::support::http_client::Request;
use crate::support::kubectl::Kubectl;
use crate::support::pki::KeyFiles;
use crate::support::pod::Pod;
use crate::support::signpost::Signpost;

/// Every kustomization there is, the base first.
const KUSTOMIZATIONS: [&str; 4] = ["base", "azure", "aws", "google"];
/// The issuer of the base's configuration.
const ISSUER: &str = "https://oidc.example.com";
const NAMESPACE: &str = "signpost";
const ACCOUNT: &str = "system:serviceaccount:signpost:signpost";

fn folder(kustomization: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy").join(kustomization)
}

fn start(folder: &TempDir) -> (Etcd, ApiServer) {
    let etcd = Etcd::start();
    let server = ApiServer::start(&etcd, Options::new(ISSUER, &KeyFiles::rsa(folder.path(), "sa")));
    (etcd, server)
}

fn of_kind<'a>(objects: &'a [Value], kind: &str) -> impl Iterator<Item = &'a Value> {
    objects.iter().filter(move |object| object["kind"] == kind)
}

fn deployment(objects: &[Value]) -> &Value {
    of_kind(objects, "Deployment").next().expect("a Deployment")
}

/// The objects of a kustomization as the API server would store them.
#[track_caller]
fn dry_run(kubectl: &Kubectl, kustomization: &str) -> (Vec<Value>, String) {
    let folder = folder(kustomization).display().to_string();
    kubectl.objects(["apply", "--dry-run=server", "--output=json", "-k", &folder])
}

/// What the ReplicaSet controller would make of a template.
fn pod_of(template: &Value) -> Value {
    let mut pod = template.clone();
    pod["apiVersion"] = json!("v1");
    pod["kind"] = json!("Pod");
    pod["metadata"]["name"] = json!("signpost-0");
    pod["metadata"]["namespace"] = json!(NAMESPACE);
    pod
}

#[test]
fn every_manifest_is_accepted_in_a_namespace_that_enforces_restricted() {
    let keys = TempDir::new().expect("a temporary folder");
    let (_etcd, server) = start(&keys);
    let kubectl = Kubectl::of(&server);
    let namespace = folder("base").join("namespace.yaml").display().to_string();
    kubectl.run(["apply", "-f", &namespace]).expect_code(0);
    let create = ["create", "--dry-run=server", "-f", "-"];
    for kustomization in KUSTOMIZATIONS {
        let (objects, said) = dry_run(&kubectl, kustomization);
        // Pod security warns of Deployments, and refuses Pods alone.
        assert_eq!(said, "", "{kustomization}");
        let pod = pod_of(&deployment(&objects)["spec"]["template"]);
        kubectl.feed(create, &pod.to_string()).expect_code(0);
    }

    // It is enforced, and every word in the manifest about it is needed.
    let (objects, _) = dry_run(&kubectl, "base");
    let pod = pod_of(&deployment(&objects)["spec"]["template"]);
    for (pointer, member) in [
        ("/spec/securityContext", "runAsNonRoot"),
        ("/spec/securityContext", "seccompProfile"),
        ("/spec/containers/0/securityContext", "allowPrivilegeEscalation"),
        ("/spec/containers/0/securityContext", "capabilities"),
    ] {
        let mut lax = pod.clone();
        let context = lax.pointer_mut(pointer).and_then(Value::as_object_mut).expect("it is there");
        context.remove(member).expect("it is there");
        let refused = kubectl.feed(create, &lax.to_string()).expect_code(1);
        assert!(refused.stderr.contains("violates PodSecurity \"restricted:"), "{}", refused.stderr);
    }
}

#[test]
fn every_configuration_in_deploy_is_accepted() {
    for kustomization in KUSTOMIZATIONS {
        let file = folder(kustomization).join("config.yaml");
        let check = Signpost::new(["config", "check", "--config", &file.display().to_string()]);
        let checked = check.finish(Duration::from_secs(30));
        assert_eq!(checked.code, Some(0), "{}: {}", file.display(), checked.stderr);
    }
}

/// The rules that a service account has in a namespace, less those that every one has.
fn rules(server: &ApiServer, namespace: &str) -> BTreeSet<String> {
    let of = |account: &str| {
        let token = server.token(NAMESPACE, account, &[], 600);
        let review = json!({"spec": {"namespace": namespace}});
        let path = "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews";
        let mut answer =
            server.request_as(&token, "POST", path).json(&review).answer().expect_status(201).json();
        let rules = answer["status"]["resourceRules"].as_array_mut().expect("a list").drain(..);
        rules.map(|rule| rule.to_string()).collect::<BTreeSet<_>>()
    };
    of("signpost").difference(&of("somebody")).cloned().collect()
}

#[test]
fn the_rights_are_these_and_no_others() {
    let keys = TempDir::new().expect("a temporary folder");
    let (_etcd, server) = start(&keys);
    let kubectl = Kubectl::of(&server);
    kubectl.run(["apply", "-k", &folder("base").display().to_string()]).expect_code(0);
    server.create_service_account(NAMESPACE, "somebody");
    server.create_service_account("kube-system", "admin");
    eventually("the roles are known", || (!rules(&server, NAMESPACE).is_empty()).then_some(()));

    let rule = |group: &str, resource: &str, verbs: &[&str], names: &[&str]| {
        let mut rule = json!({"verbs": verbs, "apiGroups": [group], "resources": [resource]});
        if !names.is_empty() {
            rule["resourceNames"] = json!(names);
        }
        rule.to_string()
    };
    for (namespace, expected) in [
        (
            NAMESPACE,
            vec![
                rule("", "configmaps", &["get", "update"], &["signpost-ledger"]),
                rule("", "serviceaccounts/token", &["create"], &["signpost"]),
                rule("events.k8s.io", "events", &["create", "patch"], &[]),
            ],
        ),
        ("default", vec![rule("discovery.k8s.io", "endpointslices", &["list", "watch"], &[])]),
        ("kube-system", vec![rule("coordination.k8s.io", "leases", &["list", "watch"], &[])]),
        ("kube-public", vec![]),
    ] {
        assert_eq!(rules(&server, namespace), expected.into_iter().collect(), "in {namespace}");
    }

    // The same by trying: what a rule would allow if it were a little wider.
    let token = server.token(NAMESPACE, "signpost", &[], 3600);
    let object = json!({"metadata": {"name": "x"}});
    let token_request = json!({"spec": {"audiences": ["x"], "expirationSeconds": 600}});
    let signpost = "/api/v1/namespaces/signpost";
    for (method, path, body, allowed) in [
        ("GET", "/openid/v1/jwks".to_owned(), Value::Null, true),
        ("GET", format!("{signpost}/configmaps/signpost-ledger"), Value::Null, true),
        ("POST", format!("{signpost}/serviceaccounts/signpost/token"), token_request.clone(), true),
        ("POST", format!("{signpost}/serviceaccounts/somebody/token"), token_request.clone(), false),
        (
            "POST",
            "/api/v1/namespaces/kube-system/serviceaccounts/admin/token".to_owned(),
            token_request,
            false,
        ),
        ("POST", format!("{signpost}/configmaps"), object.clone(), false),
        ("GET", format!("{signpost}/configmaps"), Value::Null, false),
        ("GET", format!("{signpost}/configmaps/kube-root-ca.crt"), Value::Null, false),
        ("DELETE", format!("{signpost}/configmaps/signpost-ledger"), Value::Null, false),
        ("GET", format!("{signpost}/secrets"), Value::Null, false),
        ("GET", "/api/v1/secrets".to_owned(), Value::Null, false),
        ("GET", format!("{signpost}/pods"), Value::Null, false),
        ("POST", format!("{signpost}/pods"), object.clone(), false),
        ("GET", format!("{signpost}/events"), Value::Null, false),
        ("POST", "/apis/events.k8s.io/v1/namespaces/default/events".to_owned(), object.clone(), false),
        ("GET", "/apis/discovery.k8s.io/v1/endpointslices".to_owned(), Value::Null, false),
        ("GET", "/apis/coordination.k8s.io/v1/namespaces/default/leases".to_owned(), Value::Null, false),
        ("POST", "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases".to_owned(), object, false),
        ("GET", "/api/v1/nodes".to_owned(), Value::Null, false),
        ("GET", "/api/v1/namespaces".to_owned(), Value::Null, false),
        ("GET", "/metrics".to_owned(), Value::Null, false),
    ] {
        let answer = server.request_as(&token, method, &path).json(&body).answer();
        assert_eq!(answer.status != 403, allowed, "{method} {path}: {} {}", answer.status, answer.text());
    }
}

/// Metadata of every request that the daemon makes.
const AUDIT_POLICY: &str = r#"{
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived"],
    "rules": [
        {"level": "Metadata", "users": ["system:serviceaccount:signpost:signpost"]},
        {"level": "None"}
    ]
}"#;

/// What was asked: verb, then group, resource, name and namespace, or a path.
type Asked = (String, String);

/// The requests that the API server answered, and those that it forbade.
fn audited(log: &Path) -> (BTreeSet<Asked>, BTreeSet<Asked>) {
    let (mut allowed, mut forbidden) = (BTreeSet::new(), BTreeSet::new());
    let text = fs::read_to_string(log).expect("it was written");
    for entry in text.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON")) {
        let part = |name: &str| entry["objectRef"][name].as_str().unwrap_or_default().to_owned();
        let what = match entry["objectRef"]["resource"].as_str() {
            None => entry["requestURI"].as_str().expect("a path").to_owned(),
            Some(resource) => {
                let subresource = part("subresource");
                let resource = if subresource.is_empty() {
                    resource.to_owned()
                } else {
                    format!("{resource}/{subresource}")
                };
                object(&part("apiGroup"), &resource, &part("name"), &part("namespace"))
            }
        };
        let asked = (entry["verb"].as_str().expect("a verb").to_owned(), what);
        match entry["responseStatus"]["code"].as_u64() {
            Some(403) => forbidden.insert(asked),
            _ => allowed.insert(asked),
        };
    }
    (allowed, forbidden)
}

fn object(group: &str, resource: &str, name: &str, namespace: &str) -> String {
    format!("{group}/{resource} {name} in {namespace}")
}

/// What the roles allow, and whether a request is one of it.
fn granted(objects: &[Value]) -> Vec<(String, Box<dyn Fn(&Asked) -> bool>)> {
    let mut granted: Vec<(String, Box<dyn Fn(&Asked) -> bool>)> = Vec::new();
    let texts = |rule: &Value, key: &str| -> Vec<String> {
        let list = rule[key].as_array().into_iter().flatten();
        list.map(|text| text.as_str().expect("a text").to_owned()).collect()
    };
    for role in of_kind(objects, "Role") {
        let namespace = role["metadata"]["namespace"].as_str().expect("a namespace").to_owned();
        for rule in role["rules"].as_array().expect("rules") {
            for (verb, group) in texts(rule, "verbs").iter().zip(texts(rule, "apiGroups").iter().cycle()) {
                for resource in texts(rule, "resources") {
                    let (verb, group, namespace) = (verb.clone(), group.clone(), namespace.clone());
                    let names = texts(rule, "resourceNames");
                    let label = format!("{verb} {}", object(&group, &resource, &names.join(","), &namespace));
                    let is_one = move |(asked, what): &Asked| {
                        let begins = what.starts_with(&format!("{group}/{resource} "));
                        let named = names.is_empty()
                            || names.iter().any(|name| *what == object(&group, &resource, name, &namespace));
                        *asked == verb && begins && named && what.ends_with(&format!(" in {namespace}"))
                    };
                    granted.push((label, Box::new(is_one)));
                }
            }
        }
    }
    for path in ["/openid/v1/jwks", "/.well-known/openid-configuration"] {
        granted.push((format!("get {path}"), Box::new(move |(verb, what)| verb == "get" && what == path)));
    }
    granted
}

fn events(server: &ApiServer, reason: &str) -> Vec<Value> {
    let path = "/apis/events.k8s.io/v1/namespaces/signpost/events";
    let mut list = server.admin_request("GET", path).answer().json();
    let events = list["items"].as_array_mut().expect("a list").drain(..);
    events.filter(|event| event["reason"] == reason).collect()
}

/// The configuration, the environment, the user, the read-only root and the rights are those of `deploy/`,
/// and so is what an API server on a host of its own says of itself.
#[test]
fn the_service_works_with_exactly_these_rights_and_uses_every_one_of_them() {
    inside("deploy::the_service_works_with_exactly_these_rights_and_uses_every_one_of_them", || {
        let folder = TempDir::new().expect("a temporary folder");
        let (policy, log) = (folder.path().join("policy.json"), folder.path().join("audit.log"));
        fs::write(&policy, AUDIT_POLICY).expect("the folder can be written");
        let mut options = Options::new(ISSUER, &KeyFiles::rsa(folder.path(), "sa"));
        options.extra_flags.push(format!("--audit-policy-file={}", policy.display()));
        options.extra_flags.push(format!("--audit-log-path={}", log.display()));
        let plane = ControlPlane::new();
        let mut server = plane.start(1, &options);
        let kubectl = Kubectl::of(&server);
        let base = self::folder("base").display().to_string();
        kubectl.run(["apply", "-k", &base]).expect_code(0);
        let (objects, _) = dry_run(&kubectl, "base");

        let template = &deployment(&objects)["spec"]["template"];
        let created = kubectl.feed(["create", "--output=json", "-f", "-"], &pod_of(template).to_string());
        let created: Value = serde_json::from_str(&created.expect_code(0).stdout).expect("JSON");
        let uid = created["metadata"]["uid"].as_str().expect("a UID").to_owned();
        let configuration =
            of_kind(&objects, "ConfigMap").find_map(|map| map["data"]["config.yaml"].as_str());
        let pod = Pod::new(
            &template["spec"],
            [
                ("status.podIP", HERE.to_owned()),
                ("metadata.name", "signpost-0".to_owned()),
                ("metadata.namespace", NAMESPACE.to_owned()),
                ("metadata.uid", uid.clone()),
            ],
        )
        .with_access(&server.token(NAMESPACE, "signpost", &[], 3600), server.ca_file())
        .with_file("/etc/signpost/config.yaml", configuration.expect("a configuration"));
        let (host, port) =
            server.url().trim_start_matches("https://").split_once(':').map(owned).expect("a port");
        let mut running = pod.command(&host, port.parse().expect("a port")).start();

        running.wait_for(&format!("http://{HERE}:9090/readyz"));
        let refused = Request::get("http://127.0.0.1:9090/readyz").send();
        assert!(refused.is_err(), "the admin listener is bound to more than the pod's address");
        let status = || {
            let answer = Request::get(&format!("http://{HERE}:9090/status.json")).send().ok()?;
            Some(answer.json()["issuers"][ISSUER].clone())
        };
        let kid = eventually("the key that signs is seen to be public", || {
            let status = status()?;
            let source = status["sources"].as_object()?.values().next()?.clone();
            (source["signing_key_public"] == true)
                .then(|| source["signs_with"].as_str().map(str::to_owned))?
        });
        let served = Request::get(&format!("http://{HERE}:8080/openid/v1/jwks")).answer().expect_status(200);
        assert!(served.text().contains(&kid.0), "{}", served.text());
        let names = status().expect("running")["sources"]
            .as_object()
            .expect("a map")
            .keys()
            .cloned()
            .collect::<Vec<_>>();
        assert_eq!(names, [format!("kubernetes {}", server.url())], "found by its EndpointSlice");

        let ledger = || {
            let path = "/api/v1/namespaces/signpost/configmaps/signpost-ledger";
            let map = server.admin_request("GET", path).answer().expect_status(200).json();
            map["data"]["ledger.json"].as_str().map(str::to_owned)
        };
        let (stored, _) = eventually("the ledger is in the ConfigMap", ledger);
        assert!(stored.contains(&kid.0), "{stored}");
        // Whoever applies the manifests again takes nothing away.
        kubectl.run(["apply", "-k", &base]).expect_code(0);
        assert_eq!(ledger(), Some(stored));

        let (event, _) = eventually("the key is told", || events(&server, "KeyAppeared").pop());
        assert_eq!(event["regarding"]["uid"], uid.as_str());

        // What happens again is counted up, once a minute.
        for restart in 1..=2 {
            let failures = || {
                let status = status()?;
                status["sources"].as_object()?.values().next()?["failures"].as_u64()
            };
            let before = failures().expect("running");
            server.stop();
            eventually("the failure is noticed", || failures().filter(|failures| *failures > before));
            server.restart();
            eventually(&format!("the end of failure {restart} is told"), || {
                events(&server, "SourceRecovered").pop()
            });
        }
        let started = Instant::now();
        while events(&server, "SourceFailed").iter().all(|event| event["series"]["count"] != 2) {
            assert!(started.elapsed() < Duration::from_mins(4), "{:?}", events(&server, "SourceFailed"));
            std::thread::sleep(Duration::from_millis(250));
        }
        running.terminate();
        let said = running.finish(Duration::from_secs(30)).expect_code(0).stderr;
        server.stop();

        let (allowed, forbidden) = audited(&log);
        let granted = granted(&objects);
        for (right, is_one) in &granted {
            assert!(
                allowed.iter().any(|asked| is_one(asked)),
                "nothing uses the right to {right}:\n{allowed:#?}"
            );
        }
        let by_anybody = "authentication.k8s.io/selfsubjectreviews";
        for asked in &allowed {
            let rightly = granted.iter().any(|(_, is_one)| is_one(asked)) || asked.1.starts_with(by_anybody);
            assert!(rightly, "{ACCOUNT} was allowed {asked:?} without a rule in `deploy/`");
        }
        // An API server that has just started refuses until it knows its roles.
        let never: Vec<_> = forbidden.difference(&allowed).collect();
        assert_eq!(never, Vec::<&Asked>::new(), "it asks for what it may not have\n{said}");
    });
}

fn owned((one, other): (&str, &str)) -> (String, String) {
    (one.to_owned(), other.to_owned())
}
