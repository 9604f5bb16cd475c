//! `deploy/`: whether an API server accepts the manifests, and what their roles allow.
//!
//! [`service`] runs the service under them.

mod audit;
mod service;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::api_server::{ApiServer, Options};
use crate::support::etcd::Etcd;
use crate::support::eventually::eventually;
use crate::support::kubectl::Kubectl;
use crate::support::pki::KeyFiles;
use crate::support::signpost::Signpost;

/// Every kustomization, the base first.
const KUSTOMIZATIONS: [&str; 4] = ["base", "azure", "aws", "google"];
/// The issuer of the base's configuration.
const ISSUER: &str = "https://oidc.example.com";
const NAMESPACE: &str = "signpost";

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

/// The pod that the `ReplicaSet` controller would create from a template.
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
        // Pod Security only warns about Deployments, and rejects only Pods.
        assert_eq!(said, "", "{kustomization}");
        let pod = pod_of(&deployment(&objects)["spec"]["template"]);
        kubectl.feed(create, &pod.to_string()).expect_code(0);
    }

    // Pod Security is enforced, and every security setting of the manifest is required.
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
    let configurations = KUSTOMIZATIONS.map(|kustomization| folder(kustomization).join("config.yaml"));
    for file in configurations.into_iter().chain([folder("signer").join("signpost.yaml")]) {
        let check = Signpost::new(["config", "check", "--config", &file.display().to_string()]);
        let checked = check.finish(Duration::from_secs(30));
        assert_eq!(checked.code, Some(0), "{}: {}", file.display(), checked.stderr);
    }
}

/// The arguments that kubeadm generates from its configuration and the patch.
#[test]
fn the_patch_for_kubeadm_leaves_arguments_that_fit_the_signer() {
    let read = |name: &str| fs::read_to_string(folder("signer").join(name)).expect("it is there");
    let kubeadm = read("kubeadm.yaml");
    let arguments = kubeadm.lines().filter_map(|line| line.trim().strip_prefix("- {name: "));
    let arguments = arguments.map(|line| {
        let (name, value) = line.trim_end_matches('}').split_once(", value: ").expect("a value");
        format!("--{name}={}", value.trim_matches('"'))
    });
    let mut command: Vec<String> = ["kube-apiserver".to_owned()].into_iter().chain(arguments).collect();
    let patch = read("kube-apiserver0+json.yaml");
    for line in patch.lines().filter_map(|line| line.strip_prefix("- ")) {
        assert!(line.contains("path: /spec/containers/0/command/-1"), "{line}");
        if let Some((_, value)) = line.split_once(", value: ") {
            assert_eq!(
                command.last().map(String::as_str),
                Some(value.trim_end_matches('}').trim_matches('"'))
            );
        } else {
            command.pop();
        }
    }
    let manifest = TempDir::new().expect("a temporary folder");
    let file = manifest.path().join("kube-apiserver.yaml");
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "spec": {
            "hostNetwork": true,
            "containers": [{"image": "registry.k8s.io/kube-apiserver:v1.37.1", "command": command}],
        },
    });
    fs::write(&file, pod.to_string()).expect("the folder is ours");
    let config = folder("signer").join("signpost.yaml");
    let (config, file) = (config.to_str().expect("UTF-8"), file.to_str().expect("UTF-8"));
    let checked = Signpost::new(["signer", "check", "--config", config, "--apiserver-manifest", file]);
    let checked = checked.finish(Duration::from_secs(30)).expect_code(0);
    assert!(checked.stdout.contains("ok    key files"), "{}", checked.stdout);
}

#[test]
fn what_a_signer_needs_is_accepted_by_an_api_server() {
    let keys = TempDir::new().expect("a temporary folder");
    let (_etcd, server) = start(&keys);
    let kubectl = Kubectl::of(&server);
    kubectl.run(["apply", "-f", &folder("base").join("namespace.yaml").display().to_string()]).expect_code(0);
    for name in ["rbac.yaml", "static-pod.yaml"] {
        let file = folder("signer").join(name).display().to_string();
        kubectl.run(["apply", "--dry-run=server", "-f", &file]).expect_code(0);
    }
}

/// The permissions of a service account in a namespace, without those that every one has.
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

    // Checks the same by requests that slightly wider rules would allow.
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
