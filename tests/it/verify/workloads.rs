//! Service accounts and pods of a real API server, with typical faults.

use std::fs;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::{AUDIENCE, JWKS, Page, Stage, WITHIN, parts, publish};
use crate::support::api_server::{ApiServer, Options};
use crate::support::cluster::ISSUER;
use crate::support::etcd::Etcd;
use crate::support::fault_proxy::{Action, Rule};
use crate::support::signpost::Finished;

const REFUSED: i32 = 1;
const CLIENT: &str = "85075aa5-1d73-42de-812a-95348218e4b2";

/// A namespace of the shared cluster that no other test uses.
pub(super) struct Team<'a> {
    stage: &'a Stage,
    kubeconfig: TempDir,
    name: &'static str,
}

impl<'a> Team<'a> {
    pub(super) fn create(stage: &'a Stage, name: &'static str) -> Self {
        stage.cluster.server.create_namespace(name);
        let kubeconfig = TempDir::new().expect("a temporary folder");
        stage.cluster.server.admin_kubeconfig(&kubeconfig.path().join("config"));
        Self { stage, kubeconfig, name }
    }

    pub(super) fn account(&self, name: &str, annotations: &Value) {
        let object = json!({
            "apiVersion": "v1", "kind": "ServiceAccount",
            "metadata": {"name": name, "annotations": annotations},
        });
        self.create_object("serviceaccounts", &object);
    }

    fn create_object(&self, kind: &str, object: &Value) {
        self.stage.cluster.server.create(&format!("/api/v1/namespaces/{}/{kind}", self.name), object);
    }

    /// A pod as its author wrote it, before any webhook.
    pub(super) fn pod(&self, account: &str, change: impl FnOnce(&mut Value)) {
        let mut pod = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": format!("{account}-0"), "labels": {}},
            "spec": {
                "serviceAccountName": account,
                "automountServiceAccountToken": false,
                "containers": [{"name": "main", "image": "example.com/app:1"}],
            },
        });
        change(&mut pod);
        self.create_object("pods", &pod);
    }

    pub(super) fn verify(&self, arguments: &[&str]) -> Finished {
        let config = self.kubeconfig.path().join("config");
        let arguments = arguments.iter().copied().chain(["--source", "kubernetes:test"]);
        self.stage.verify(arguments).env("KUBECONFIG", config).finish(WITHIN)
    }
}

/// The changes of azure-workload-identity 1.6.0 to a pod.
pub(super) fn as_the_webhook_does(pod: &mut Value) {
    pod["metadata"]["labels"]["azure.workload.identity/use"] = json!("true");
    let folder = "/var/run/secrets/azure/wi/token";
    pod["spec"]["containers"][0]["env"] = json!([
        {"name": "AZURE_CLIENT_ID", "value": CLIENT},
        {"name": "AZURE_TENANT_ID", "value": CLIENT},
        {"name": "AZURE_FEDERATED_TOKEN_FILE", "value": format!("{folder}/azure-identity-token")},
        {"name": "AZURE_AUTHORITY_HOST", "value": "https://login.microsoftonline.com/"},
    ]);
    pod["spec"]["containers"][0]["volumeMounts"] = json!([{"name": "token", "mountPath": folder}]);
    pod["spec"]["volumes"] = json!([{"name": "token", "projected": {"sources": [{"serviceAccountToken": {
        "audience": AUDIENCE, "expirationSeconds": 3600, "path": "azure-identity-token",
    }}]}}]);
}

pub(super) fn annotated() -> Value {
    json!({"azure.workload.identity/client-id": CLIENT})
}

#[test]
fn pods_that_would_not_come_as_far_as_asking_are_told_why() {
    let stage = Stage::set();
    let team = Team::create(&stage, "faults");
    let mut page = Page::default();
    team.account("good", &annotated());
    team.pod("good", as_the_webhook_does);
    let told = team.verify(&["--service-account", "faults/good"]);
    page.note("as it should be", &told, "PUB-PRIVATE", None, 0);

    team.account("unlabelled", &annotated());
    team.pod("unlabelled", |_| {});
    let told = team.verify(&["--service-account", "faults/unlabelled"]);
    page.note("E2.23 no label", &told, "POD-LABEL", Some(7_000_218), REFUSED);
    team.account("bare", &annotated());
    team.pod("bare", |pod| pod["metadata"]["labels"]["azure.workload.identity/use"] = json!("true"));
    let told = team.verify(&["--pod", "faults/bare-0"]);
    page.note("E2.23 the webhook was away", &told, "POD-ENV", Some(7_000_218), REFUSED);
    team.account("named", &json!({"azure.workload.identity/client-id": "my-identity"}));
    let told = team.verify(&["--service-account", "faults/named"]);
    page.note("E2.24 a name for a client ID", &told, "CLIENT-ID", Some(700_016), REFUSED);
    team.account("host", &annotated());
    team.pod("host", |pod| {
        as_the_webhook_does(pod);
        pod["spec"]["containers"][0]["env"][3]["value"] = json!("");
    });
    let told = team.verify(&["--service-account", "faults/host"]);
    page.note("E2.25 no authority", &told, "AUTH-HOST", Some(50_049), REFUSED);

    team.account("default", &json!({}));
    team.pod("default", as_the_webhook_does);
    let subject = "system:serviceaccount:faults:good";
    let told = team.verify(&["--pod", "faults/default-0", "--subject", subject]);
    page.note("E2.4 a pod without its account", &told, "FIC-SUB", Some(700_213), REFUSED);
    // The annotation is on a Service: the webhook finds none, and gives the pod no client ID.
    team.account("service", &json!({}));
    let service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "service", "annotations": annotated()},
        "spec": {"ports": [{"port": 80}]},
    });
    team.create_object("services", &service);
    team.pod("service", |pod| {
        as_the_webhook_does(pod);
        pod["spec"]["containers"][0]["env"].as_array_mut().expect("variables").remove(0);
    });
    let told = team.verify(&["--service-account", "faults/service"]);
    page.note("E2.23 the annotation is elsewhere", &told, "SA-ANNOT", None, 0);
    let mut brief = annotated();
    brief["azure.workload.identity/service-account-token-expiration"] = json!("600");
    team.account("brief", &brief);
    let told = team.verify(&["--service-account", "faults/brief"]);
    page.note("a life that the webhook refuses", &told, "POD-EXP", None, REFUSED);
    // Webhooks before 1.6.0 had this path.
    team.account("path", &annotated());
    team.pod("path", |pod| {
        as_the_webhook_does(pod);
        let old = "/var/run/secrets/azure/tokens/azure-identity-token";
        pod["spec"]["containers"][0]["env"][2]["value"] = json!(old);
    });
    let told = team.verify(&["--service-account", "faults/path"]);
    page.note("the path of before", &told, "POD-ENV", Some(7_000_218), REFUSED);

    // The ConfigMap of the walk-through for agent blueprints, and the rest of an earlier secret.
    let settings = json!({
        "AzureAd__Instance": "https://login.microsoftonline.com/",
        "AzureAd__TenantId": CLIENT,
        "AzureAd__ClientId": CLIENT,
        "AzureAd__ClientCredentials__0__SourceType": "ClientSecret",
        "AzureAd__ClientCredentials__0__ClientSecret": "left-over",
        "AzureAd__ClientCredentials__1__SourceType": "SignedAssertionFilePath",
        "AzureAd__ClientCredentials__1__SignedAssertionFileDiskPath":
            "/var/run/secrets/tokens/azure-identity-token",
    });
    let map =
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "sidecar"}, "data": settings});
    team.create_object("configmaps", &map);
    team.account("sidecar", &json!({}));
    team.pod("sidecar", |pod| {
        pod["spec"]["containers"][0]["envFrom"] = json!([{"configMapRef": {"name": "sidecar"}}]);
        pod["spec"]["containers"][0]["volumeMounts"] =
            json!([{"name": "token", "mountPath": "/var/run/secrets/tokens"}]);
        pod["spec"]["volumes"] = json!([{"name": "token", "projected": {"sources": [{"serviceAccountToken": {
            "audience": AUDIENCE, "expirationSeconds": 3600, "path": "azure-identity-token",
        }}]}}]);
    });
    let told = team.verify(&["--service-account", "faults/sidecar"]);
    assert!(!told.stdout.contains("left-over"), "{}", told.stdout);
    page.note("a secret before the token", &told, "SIDE-SECRET", Some(7_000_215), REFUSED);
    page.compare("workloads");
}

/// There is no token to verify, whatever the issuer serves.
#[test]
fn nothing_is_judged_where_nobody_has_a_token() {
    let stage = Stage::set();
    let team = Team::create(&stage, "nobody");
    let told = team.verify(&["--service-account", "nobody/typo", "--issuer", ISSUER]).expect_code(2);
    let error = "error: service account `nobody/typo` does not exist in this cluster\n  hint: `kubectl get \
                 serviceaccounts --namespace=nobody` lists";
    assert!(told.stderr.starts_with(error), "{}", told.stderr);
    assert!(told.stdout.is_empty(), "{}", told.stdout);
    // A pod outlives its service account.
    team.account("gone", &annotated());
    team.pod("gone", as_the_webhook_does);
    let path = "/api/v1/namespaces/nobody/serviceaccounts/gone";
    stage.cluster.server.admin_request("DELETE", path).answer().expect_status(200);
    let told = team.verify(&["--pod", "nobody/gone-0", "--issuer", ISSUER]).expect_code(2);
    assert!(told.stderr.contains("`nobody/gone` does not exist"), "{}", told.stderr);
    let told = team.verify(&["--namespace", "nobody", "--all", "--issuer", ISSUER]).expect_code(2);
    assert!(told.stderr.contains("there is no service account"), "{}", told.stderr);

    let file = stage.folder.path().join("credentials.json");
    fs::write(&file, "[]").expect("it is ours");
    for flag in
        [["--subject", "a"], ["--audience", "a"], ["--credentials", file.to_str().expect("a name of ours")]]
    {
        let told = stage.verify(["--issuer", ISSUER].into_iter().chain(flag)).finish(WITHIN).expect_code(2);
        assert!(told.stderr.starts_with("error: there is no token to compare with"), "{}", told.stderr);
        assert!(told.stdout.is_empty(), "{}", told.stdout);
    }
    let told = stage.verify(["--issuer", ISSUER]).finish(WITHIN).expect_code(0);
    assert!(told.stdout.contains("would accept the issuer; no token was judged"), "{}", told.stdout);
}

/// A Job keeps its finished pods.
#[test]
fn a_finished_pod_refuses_nothing_unless_it_is_named() {
    let stage = Stage::set();
    let team = Team::create(&stage, "jobs");
    team.account("job", &annotated());
    team.pod("job", |_| {});
    team.verify(&["--service-account", "jobs/job"]).expect_code(REFUSED);
    let path = "/api/v1/namespaces/jobs/pods/job-0/status";
    let finished = json!({"status": {"phase": "Succeeded"}});
    let patch = stage.cluster.server.admin_request("PATCH", path).body(finished.to_string());
    patch.header("content-type", "application/merge-patch+json").answer().expect_status(200);
    let told = team.verify(&["--service-account", "jobs/job"]).expect_code(0);
    assert!(!told.stdout.contains("job-0"), "{}", told.stdout);
    team.verify(&["--namespace", "jobs", "--all"]).expect_code(0);
    let told = team.verify(&["--pod", "jobs/job-0"]).expect_code(REFUSED);
    assert!(told.stdout.contains("POD-LABEL  pod `job-0`"), "{}", told.stdout);
}

#[test]
fn a_whole_namespace_is_one_line_each_and_then_the_reasons() {
    let stage = Stage::set();
    let team = Team::create(&stage, "whole");
    for (name, annotations) in
        [("a-good", annotated()), ("b-typo", json!({"azure.workload.identity/client-id": "x"}))]
    {
        team.account(name, &annotations);
        team.pod(name, as_the_webhook_does);
    }
    let told = team.verify(&["--namespace", "whole", "--all"]).expect_code(REFUSED);
    let lines: Vec<_> = told.stdout.lines().collect();
    assert!(lines[0].starts_with("accepted  whole/a-good"), "{}", told.stdout);
    assert!(lines[1].starts_with("refused   whole/b-typo"), "{}", told.stdout);
    assert!(lines[1].contains("CLIENT-ID") && lines[2].is_empty(), "{}", told.stdout);
    let reasons = "refused: Microsoft Entra would answer AADSTS700016 to the token of `whole/b-typo`";
    assert!(told.stdout.contains(reasons), "{}", told.stdout);
    super::snapshot("namespace", &told.stdout);
    let told = team.verify(&["--namespace", "whole", "--all", "--for", "all"]).expect_code(REFUSED);
    let begins = |line: &str, begin: &str| assert!(line.starts_with(begin), "{line}");
    let lines: Vec<_> = told.stdout.lines().take(6).collect();
    begins(lines[1], "accepted  whole/a-good, AWS              AWS-AUD");
    begins(lines[3], "refused   whole/b-typo, Microsoft Entra  CLIENT-ID");
    begins(lines[5], "accepted  whole/b-typo, Google Cloud");
}

/// `--api-audiences` with the audience of the exchange: a token for Microsoft also opens the cluster.
#[test]
fn keys_and_audiences_of_the_api_server_are_looked_at() {
    let stage = Stage::set();
    let team = Team::create(&stage, "own");
    team.account("app", &json!({}));
    let server = stage.cluster.server.discovery().json();
    let own = server["issuer"].as_str().expect("an issuer").to_owned();
    let told = team.verify(&["--service-account", "own/app", "--audience", &own]).expect_code(0);
    assert!(told.stdout.contains("K8S-APIAUD  the API server accepts a token for"), "{}", told.stdout);
    publish(&own, &[&stage.cluster.keys[0]], stage.folder.path());
    let told = team.verify(&["--service-account", "own/app"]).expect_code(0);
    assert!(told.stdout.contains("JWKS-MATCH  keys of the API server are not published"), "{}", told.stdout);
    assert!(!told.stdout.contains("K8S-APIAUD  "), "{}", told.stdout);
}

/// Signs with a key that it does not verify with: it refuses its own tokens, and lists only the other key.
#[test]
fn an_api_server_that_refuses_its_own_tokens_is_told_so_though_entra_would_take_them() {
    let stage = Stage::set();
    let keys = &stage.cluster.keys;
    let options =
        Options { verification_keys: vec![keys[1].public.clone()], ..Options::new(ISSUER, &keys[0]) };
    let etcd = Etcd::start();
    let server = ApiServer::start(&etcd, options);
    server.create_service_account("default", "signpost");
    let own = server.token("default", "signpost", &[], 600);
    assert_ne!(server.review(&own, &[])["authenticated"], true);
    let config = stage.folder.path().join("kubeconfig");
    server.admin_kubeconfig(&config);
    let arguments = ["--service-account", "default/signpost", "--source", "kubernetes:test"];
    let told = stage.verify(arguments).env("KUBECONFIG", config).finish(WITHIN);
    let mut page = Page::default();
    let kid = parts(&own)[0]["kid"].as_str().expect("a kid").to_owned();
    page.replace(kid, "KID");
    page.note("a key of its own", &told, "K8S-KEYPAIR", Some(7_000_272), 0);
    page.compare("keypair");
}

/// Behind one URL, the keys come from another API server than the signature: it receives the key a moment
/// later.
#[test]
fn a_key_that_rolls_through_api_servers_is_looked_for_again() {
    let stage = Stage::set();
    let proxy = stage.cluster.proxy();
    let config = stage.cluster.kubeconfig_through(&proxy, stage.folder.path());
    let other = TempDir::new().expect("a temporary folder");
    publish(ISSUER, &[&stage.cluster.keys[1]], other.path());
    let jwks: &'static str = fs::read_to_string(other.path().join(JWKS)).expect("it is ours").leak();
    let behind = || {
        let headers = vec![("content-type", "application/jwk-set+json")];
        Rule::new(Action::Answer { status: 200, headers, body: jwks }).path_contains(JWKS)
    };
    let verify = || {
        let arguments = ["--service-account", "default/signpost", "--source", "kubernetes:test"];
        stage.verify(arguments).env("KUBECONFIG", &config).finish(WITHIN).expect_code(0).stdout
    };
    proxy.script([behind().once()]);
    let told = verify();
    assert!(told.contains("K8S-KEYPAIR") && !told.contains("  K8S-KEYPAIR  "), "{told}");
    assert_eq!(proxy.count("GET", JWKS), 2);
    proxy.forget();
    proxy.script([behind()]);
    let told = verify();
    assert!(told.contains("warning  K8S-KEYPAIR  the API server has just signed with kid"), "{told}");
    assert_eq!(proxy.count("GET", JWKS), 3, "it gives up");
    let order: Vec<_> = proxy.seen().iter().map(|seen| seen.path.clone()).collect();
    let place = |part: &str| order.iter().position(|path| path.contains(part)).expect("it was asked");
    assert!(place("/token") < place(JWKS), "the keys are read after the token is made: {order:?}");
}

/// The command changes nothing, and skips what it may not read.
#[test]
fn who_may_not_look_is_told_what_to_allow() {
    let stage = Stage::set();
    let folder = TempDir::new().expect("a temporary folder");
    let token = stage.cluster.server.token("default", "signpost", &[], 600);
    let file = folder.path().join("config");
    stage.cluster.server.kubeconfig(&file, &crate::support::api_server::Bearer::Token(&token));
    let arguments = ["--service-account", "default/signpost", "--source", "kubernetes:test"];
    let told = stage.verify(arguments).env("KUBECONFIG", &file).finish(WITHIN).expect_code(2);
    assert!(told.stderr.starts_with("error: cannot read from the cluster\n"), "{}", told.stderr);
    let hint = "hint: let it read: `kubectl create rolebinding signpost-verify --namespace=default \
                --clusterrole=view --serviceaccount=default:signpost`";
    assert!(told.stderr.contains(hint), "{}", told.stderr);
    assert!(!told.stderr.contains(&token) && told.stdout.is_empty(), "a token is shown");
}
