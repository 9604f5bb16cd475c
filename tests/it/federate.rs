//! `signpost federate` puts trust in place at the twin of Microsoft Graph and Azure Resource Manager, signed in as
//! an application that trusts a service account itself; `exchange` proves each trust with tokens of a real cluster.

use std::{fs, path::PathBuf, time::Duration};

use serde_json::{Value, json};
use signpost::clock;
use tempfile::TempDir;

use crate::support::{
    api_server::{ADMIN_TOKEN, Bearer},
    cluster::{Cluster, ISSUER},
    entra_twin::EntraTwin,
    signpost::{Finished, Signpost},
};

mod clusters;
mod troubles;
mod walkthroughs;

const WITHIN: Duration = Duration::from_mins(2);
const AUDIENCE: &str = "api://AzureADTokenExchange";
const TENANT: &str = "5f6c0b9e-7d3a-4f0e-9f0e-2b1f6d1c9a10";
const OPERATOR: &str = "1d2c3b4a-0f1e-4d2c-8b3a-9e8d7c6b5a40";
const WORKLOAD: &str = "85075aa5-1d73-42de-812a-95348218e4b2";
const BLUEPRINT: &str = "0b1f2f2c-6a1e-4d53-9f7e-5f0a7c9d3e11";
const AGENT: &str = "3f0e5a7b-9c1d-4e2f-8a6b-7d4c2e1f0a99";
const MANAGED: &str = "6a5b4c3d-2e1f-4a0b-9c8d-7e6f5a4b3c2d";
const SUBSCRIPTION: &str = "c0ffee00-1111-4222-8333-444455556666";
const SUBJECT: &str = "system:serviceaccount:default:signpost";

/// A cluster, its published documents, and a tenant in which one application may write.
struct Stage {
    cluster: std::sync::Arc<Cluster>,
    folder: TempDir,
    twin: EntraTwin,
}

fn resource_id() -> String {
    format!(
        "/subscriptions/{SUBSCRIPTION}/resourceGroups/team/providers/Microsoft.ManagedIdentity/userAssignedIdentities/app"
    )
}

impl Stage {
    /// With more members of the twin's directory.
    fn set(more: &Value) -> Self {
        let cluster = Cluster::shared();
        let folder = TempDir::new().expect("a temporary folder");
        let keys = cluster.keys.iter().flat_map(|key| ["--source".as_ref(), key.public.as_os_str()]);
        let arguments = ["jwks".as_ref(), "--issuer".as_ref(), ISSUER.as_ref(), "--output-dir".as_ref()];
        Signpost::new(arguments.into_iter().chain([folder.path().as_os_str()]).chain(keys))
            .finish(WITHIN)
            .expect_code(0);
        let twin = EntraTwin::start_with(&Self::directory(&folder, more));
        let stage = Self { cluster, folder, twin };
        let token = stage.cluster.server.token("default", "signpost", &[AUDIENCE], 600);
        fs::write(stage.path("token"), token).expect("the folder can be written");
        stage.cluster.server.kubeconfig(&stage.path("kubeconfig"), &Bearer::Token(ADMIN_TOKEN));
        stage
    }

    fn directory(folder: &TempDir, more: &Value) -> Value {
        let read = |name: &str| fs::read_to_string(folder.path().join(name)).expect("it is published");
        let own = json!([{"name": "own", "issuer": ISSUER, "subject": SUBJECT, "audience": AUDIENCE}]);
        let documents = |issuer: &str| {
            let (discovery, jwks) = (".well-known/openid-configuration", "openid/v1/jwks");
            [discovery, jwks].map(|name| {
                let body = read(name).replace(ISSUER, issuer);
                (format!("{issuer}/{name}"), json!({"status": 200, "body": body}))
            })
        };
        let documents: serde_json::Map<_, _> = documents(ISSUER).into_iter().collect();
        let mut directory = json!({
            "now": clock::now().as_second(), "jwks_seconds": 0, "documents": documents, "distinct_tokens": true,
            "subscriptions": [SUBSCRIPTION],
            "tenants": {TENANT: {
                OPERATOR: {"kind": "application", "client_id": OPERATOR, "tenant": TENANT, "credentials": own},
                WORKLOAD: {"kind": "application", "client_id": WORKLOAD, "tenant": TENANT, "credentials": []},
                BLUEPRINT: {"kind": "blueprint", "client_id": BLUEPRINT, "tenant": TENANT, "credentials": []},
                AGENT: {
                    "kind": "agent-identity", "client_id": AGENT, "tenant": TENANT, "blueprint": BLUEPRINT,
                    "credentials": [], "grants": [], "agent_users": [],
                },
                MANAGED: {
                    "kind": "managed-identity", "client_id": MANAGED, "tenant": TENANT, "credentials": [],
                    "resource_id": resource_id(),
                },
            }},
        });
        for (name, value) in more.as_object().expect("members") {
            match (name.as_str(), value) {
                ("tenants", Value::Object(identities)) => {
                    for (id, members) in identities {
                        for (member, value) in members.as_object().expect("members") {
                            directory["tenants"][TENANT][id][member] = value.clone();
                        }
                    }
                }
                _ => directory[name] = value.clone(),
            }
        }
        directory
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn run(&self, client: &str, arguments: &[&str]) -> Finished {
        Signpost::new(arguments)
            .env("AZURE_FEDERATED_TOKEN_FILE", self.path("token"))
            .env("AZURE_TENANT_ID", TENANT)
            .env("AZURE_CLIENT_ID", client)
            .env("AZURE_AUTHORITY_HOST", self.twin.url())
            .env("KUBECONFIG", self.path("kubeconfig"))
            .finish(WITHIN)
    }

    fn federate(&self, arguments: &[&str]) -> Finished {
        self.run(OPERATOR, &[&["federate"], arguments].concat())
    }

    /// Trusts the service account of the token.
    fn apply(&self, identity: &[&str]) -> Finished {
        let trust = ["--issuer", ISSUER, "--service-account", "default/signpost"];
        self.federate(&[&["apply"], identity, &trust].concat())
    }

    fn exchange(&self, client: &str, arguments: &[&str]) -> Finished {
        let [discovery, jwks] =
            [".well-known/openid-configuration", "openid/v1/jwks"].map(|it| self.path(it));
        let documents = [discovery, jwks].map(|it| it.to_str().expect("a name of ours").to_owned());
        let fixed = ["--discovery", &documents[0], "--jwks", &documents[1]];
        self.run(client, &[&["exchange"], arguments, &fixed].concat())
    }

    /// The credentials that the twin has of an identity.
    fn credentials(&self, client: &str) -> Vec<Value> {
        let directory = self.twin.directory();
        directory["tenants"][TENANT][client]["credentials"].as_array().expect("a list").clone()
    }

    /// The writes that the twin has seen.
    fn writes(&self) -> Vec<Value> {
        let log = self.twin.log();
        let is_write = |it: &&Value| {
            it["method"] != "GET" && !it["path"].as_str().expect("a path").contains("/oauth2/v2.0/token")
        };
        log.as_array().expect("a list").iter().filter(is_write).cloned().collect()
    }
}

#[test]
fn an_application_is_made_to_trust_a_service_account_and_accepts_its_token() {
    let stage = Stage::set(&json!({}));
    stage.exchange(WORKLOAD, &["workload"]).expect_code(1);
    let identity = ["--client-id", WORKLOAD];
    let trust = ["--issuer", ISSUER, "--service-account", "default/signpost"];
    let plan = [&["plan"][..], &identity, &trust].concat();
    let told = stage.federate(&plan).expect_code(1);
    assert!(told.stdout.contains("create   default-signpost-"), "{}", told.stdout);
    assert!(told.stdout.contains("to create: 1, to correct: 0, to remove: 0"), "{}", told.stdout);
    assert!(stage.writes().is_empty(), "a plan writes nothing");

    let told = stage.apply(&identity).expect_code(0);
    assert!(
        told.stderr.contains("created `default-signpost-") && told.stderr.contains("(1 of 1)"),
        "{}",
        told.stderr
    );
    assert!(told.stdout.contains("done: 1 written"), "{}", told.stdout);
    let told = stage.exchange(WORKLOAD, &["workload"]).expect_code(0);
    assert!(told.stdout.starts_with("accepted"), "{}", told.stdout);

    let writes = stage.writes().len();
    let told = stage.apply(&identity).expect_code(0);
    assert!(told.stdout.contains("nothing was written"), "{}", told.stdout);
    assert_eq!(stage.writes().len(), writes, "a second time writes nothing");
    stage.federate(&plan).expect_code(0);
    let told = stage.federate(&["list", "--client-id", WORKLOAD]).expect_code(0);
    assert!(told.stdout.contains(SUBJECT) && told.stdout.contains(ISSUER), "{}", told.stdout);

    let name = stage.credentials(WORKLOAD)[0]["name"].as_str().expect("a name").to_owned();
    let remove = ["remove", "--client-id", WORKLOAD, "--name", &name];
    let told = stage.federate(&remove).expect_code(2);
    assert!(told.stderr.contains("confirmation needs a terminal"), "{}", told.stderr);
    stage.federate(&[&remove[..], &["--yes"]].concat()).expect_code(0);
    assert!(stage.credentials(WORKLOAD).is_empty());
    stage.exchange(WORKLOAD, &["workload"]).expect_code(1);
    let told = stage.federate(&[&remove[..], &["--yes"]].concat()).expect_code(1);
    assert!(told.stdout.contains("there is none of this name"), "{}", told.stdout);
}

#[test]
fn a_managed_identity_is_found_by_its_client_id_and_written_at_the_pace_that_azure_allows() {
    let stage = Stage::set(&json!({"writes_per_second": 0.25}));
    stage.apply(&["--client-id", MANAGED]).expect_code(0);
    stage.exchange(MANAGED, &["workload"]).expect_code(0);
    let more = ["--service-account", "team/a", "--service-account", "team/b"];
    let id = resource_id();
    let apply = [&["apply", "--managed-identity", &id, "--issuer", ISSUER][..], &more].concat();
    let told = stage.federate(&apply).expect_code(0);
    assert!(told.stderr.contains("waiting 4 s: Azure takes a write"), "{}", told.stderr);
    assert_eq!(stage.credentials(MANAGED).len(), 3);
    let refused = stage.writes().iter().filter(|it| it["status"] == 429).count();
    assert!(refused <= 1, "only a write after another process's can be too early: {refused}");
}

#[test]
fn a_blueprint_is_written_in_the_version_that_knows_it_and_its_agent_acts() {
    let stage = Stage::set(&json!({"blueprints_on_v1": false}));
    let told = stage.apply(&["--client-id", BLUEPRINT]).expect_code(0);
    assert!(told.stdout.contains("agent blueprint"), "{}", told.stdout);
    let paths: Vec<_> =
        stage.writes().iter().map(|it| it["path"].as_str().expect("a path").to_owned()).collect();
    assert!(paths.iter().all(|path| path.starts_with("/beta/")), "{paths:?}");
    stage.exchange(BLUEPRINT, &["blueprint", "--agent", AGENT]).expect_code(0);

    let offer = ["blueprint", "--client-id", BLUEPRINT];
    let told = stage.federate(&[&offer[..], &["--dry-run"]].concat()).expect_code(1);
    assert!(told.stdout.contains("would add scope `access_as_user`"), "{}", told.stdout);
    stage.federate(&offer).expect_code(0);
    let told = stage.federate(&offer).expect_code(0);
    assert!(told.stdout.contains("nothing was written"), "{}", told.stdout);

    let told = stage.federate(&["consent", "--agent", AGENT, "--scope", "User.Read"]).expect_code(2);
    assert!(told.stderr.contains("on behalf of every user of the tenant"), "{}", told.stderr);
    let consent = ["consent", "--agent", AGENT, "--yes", "--scope", "User.Read"];
    let told = stage.federate(&consent).expect_code(0);
    assert!(told.stdout.contains("added scope `User.Read`"), "{}", told.stdout);
    let told = stage.federate(&[&consent[..], &["--scope", "Mail.Read"]].concat()).expect_code(0);
    assert!(!told.stdout.contains("User.Read`") && told.stdout.contains("`Mail.Read`"), "{}", told.stdout);
    let grants = &stage.twin.directory()["oauth2_permission_grants"];
    assert_eq!(grants.as_array().expect("a list").len(), 1, "{grants}");
    let told = stage.federate(&["consent", "--agent", AGENT, "--yes", "--scope", "User.Reed"]).expect_code(2);
    assert!(
        told.stderr.contains("no scope `User.Reed`") && told.stderr.contains("`User.Read`"),
        "{}",
        told.stderr
    );
}
