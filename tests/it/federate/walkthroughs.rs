//! What guides for Agent ID on Kubernetes and for workload identity do, in at most five commands each, from an
//! existing blueprint and agent identity.

use super::*;
use crate::{exchange::unsigned, support::kubectl::Kubectl};

/// The commands of a walk-through.
struct Walk<'a> {
    stage: &'a Stage,
    commands: usize,
}

impl<'a> Walk<'a> {
    fn of(stage: &'a Stage) -> Self {
        Self { stage, commands: 0 }
    }

    /// A command of Signpost that has to succeed.
    fn signpost(&mut self, client: &str, arguments: &[&str]) -> Finished {
        self.commands += 1;
        assert!(self.commands <= 5, "at most five commands");
        self.stage.run(client, arguments).expect_code(0)
    }

    /// A token of a service account, in a file that the environment names.
    fn token(&mut self, account: &str) {
        let arguments = ["token", "--source", "kubernetes:test", "--service-account", account];
        let told = self.signpost(OPERATOR, &arguments);
        fs::write(self.stage.path("workload-token"), told.stdout).expect("the folder can be written");
    }

    fn exchange(&mut self, client: &str, arguments: &[&str]) -> Finished {
        let [discovery, jwks, token] =
            [".well-known/openid-configuration", "openid/v1/jwks", "workload-token"]
                .map(|it| self.stage.path(it).to_str().expect("a name of ours").to_owned());
        let fixed = ["--token", &token, "--discovery", &discovery, "--jwks", &jwks];
        self.signpost(client, &[&["exchange"], arguments, &fixed].concat())
    }
}

/// A namespace of its own with a service account.
fn account(stage: &Stage, namespace: &str, name: &str) -> String {
    stage.cluster.server.create_namespace(namespace);
    stage.cluster.server.create_service_account(namespace, name);
    format!("{namespace}/{name}")
}

#[test]
fn an_issuer_is_published_and_a_blueprint_trusts_it() {
    let stage = Stage::set(&json!({"blueprints_on_v1": false}));
    let sidecar = account(&stage, "entra-demo", "sidecar-sa");
    let mut walk = Walk::of(&stage);
    let site = stage.path("site");
    let site = site.to_str().expect("a name of ours");
    let data = stage.path("data");
    let data = data.to_str().expect("a name of ours");
    let publish =
        ["sync", "--issuer", ISSUER, "--source", "kubernetes:test", "--target", site, "--data-dir", data];
    walk.signpost(OPERATOR, &publish);
    let mut directory = stage.twin.directory();
    for name in [".well-known/openid-configuration", "openid/v1/jwks"] {
        let body = fs::read_to_string(stage.path("site").join(name)).expect("it is published");
        directory["documents"][format!("{ISSUER}/{name}")] = json!({"status": 200, "body": body});
    }
    stage.twin.replace(&directory);
    let trust =
        ["federate", "apply", "--client-id", BLUEPRINT, "--issuer", ISSUER, "--service-account", &sidecar];
    walk.signpost(OPERATOR, &trust);
    walk.token(&sidecar);
    let told = walk.exchange(BLUEPRINT, &["blueprint", "--agent", AGENT]);
    assert!(told.stdout.starts_with("accepted"), "{}", told.stdout);
}

#[test]
fn an_agent_beside_its_sidecar_acts_as_itself() {
    let stage = Stage::set(&json!({}));
    let file = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/agent/sidecar.yaml");
    let manifest = fs::read_to_string(file).expect("it is in the repository");
    let manifest = manifest.replace("BLUEPRINT", BLUEPRINT).replace("TENANT", TENANT);
    let applied = stage.path("sidecar.yaml");
    fs::write(&applied, manifest).expect("the folder can be written");
    let kubectl = Kubectl::of(&stage.cluster.server);
    let applied = applied.to_str().expect("a name of ours").to_owned();
    let (objects, warnings) = kubectl.objects(["apply", "--output=json", "-f", &applied]);
    assert_eq!(warnings, "", "also of Pod Security");
    let deployment = objects.iter().find(|it| it["kind"] == "Deployment").expect("a Deployment");
    let mut pod = deployment["spec"]["template"].clone();
    pod["apiVersion"] = json!("v1");
    pod["kind"] = json!("Pod");
    pod["metadata"]["name"] = json!("agent-0");
    stage.cluster.server.create("/api/v1/namespaces/agents/pods", &pod);

    let mut walk = Walk::of(&stage);
    walk.signpost(
        OPERATOR,
        &["federate", "apply", "--cluster", "--namespace", "agents", "--source", "kubernetes:test"],
    );
    let [discovery, jwks] = [".well-known/openid-configuration", "openid/v1/jwks"]
        .map(|it| stage.path(it).to_str().expect("a name of ours").to_owned());
    let verify = ["verify", "--pod", "agents/agent-0", "--source", "kubernetes:test"];
    let told =
        walk.signpost(OPERATOR, &[&verify[..], &["--discovery", &discovery, "--jwks", &jwks]].concat());
    assert!(!told.stdout.contains("warning"), "{}", told.stdout);
    walk.token("agents/agent");
    let told = walk.exchange(BLUEPRINT, &["agent", "--agent", AGENT]);
    assert!(told.stdout.starts_with("accepted"), "{}", told.stdout);
}

#[test]
fn an_agent_acts_on_behalf_of_a_user() {
    let stage = Stage::set(&json!({}));
    let sidecar = account(&stage, "behalf", "agent");
    let claims = json!({
        "iss": format!("https://login.microsoftonline.com/{TENANT}/v2.0"), "aud": BLUEPRINT, "tid": TENANT,
        "scp": "access_as_user", "sub": "person", "nbf": clock::now().as_second() - 60,
        "exp": clock::now().as_second() + 3000,
    });
    let user = stage.path("user-token");
    fs::write(&user, unsigned(&claims)).expect("the folder can be written");
    let user = user.to_str().expect("a name of ours");
    let behalf = [
        "on-behalf-of",
        "--agent",
        AGENT,
        "--user-token",
        user,
        "--scope",
        "https://graph.microsoft.com/User.Read",
    ];
    let mut walk = Walk::of(&stage);
    let trust =
        ["federate", "apply", "--client-id", BLUEPRINT, "--issuer", ISSUER, "--service-account", &sidecar];
    walk.signpost(OPERATOR, &trust);
    walk.token(&sidecar);
    let [discovery, jwks, token] = [".well-known/openid-configuration", "openid/v1/jwks", "workload-token"]
        .map(|it| stage.path(it).to_str().expect("a name of ours").to_owned());
    let fixed = ["--token", &token, "--discovery", &discovery, "--jwks", &jwks];
    let told = stage.run(BLUEPRINT, &[&["exchange"], &behalf[..], &fixed].concat()).expect_code(1);
    assert!(told.stdout.contains("AADSTS65001"), "nobody has consented: {}", told.stdout);
    walk.signpost(OPERATOR, &["federate", "blueprint", "--client-id", BLUEPRINT]);
    walk.signpost(OPERATOR, &["federate", "consent", "--agent", AGENT, "--scope", "User.Read", "--yes"]);
    let told = walk.exchange(BLUEPRINT, &behalf);
    assert!(told.stdout.starts_with("accepted"), "{}", told.stdout);
}

#[test]
fn a_managed_identity_is_trusted_as_the_cluster_annotates_it() {
    let stage = Stage::set(&json!({}));
    stage.cluster.server.create_namespace("finance");
    let metadata =
        json!({"name": "backend-sa", "annotations": {"azure.workload.identity/client-id": MANAGED}});
    let object = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata});
    stage.cluster.server.create("/api/v1/namespaces/finance/serviceaccounts", &object);
    let mut walk = Walk::of(&stage);
    let cluster = ["--cluster", "--namespace", "finance", "--source", "kubernetes:test"];
    walk.signpost(OPERATOR, &[&["federate", "apply"], &cluster[..]].concat());
    let told = walk.signpost(OPERATOR, &[&["federate", "list"], &cluster[..]].concat());
    assert!(
        told.stdout.contains("finance/backend-sa") && told.stdout.contains("trusted: "),
        "{}",
        told.stdout
    );
    walk.token("finance/backend-sa");
    let told = walk.exchange(MANAGED, &["workload"]);
    assert!(told.stdout.starts_with("accepted"), "{}", told.stdout);
}
