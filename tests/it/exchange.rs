//! `signpost exchange` walks the flows of Entra against its twin, with tokens of a real cluster.

use std::{fs, path::Path, time::Duration};

use base64ct::{Base64UrlUnpadded, Encoding as _};
use serde_json::{Value, json};
use signpost::clock;
use tempfile::TempDir;

use crate::support::{
    cluster::{Cluster, ISSUER},
    entra_twin::EntraTwin,
    signpost::{Finished, Signpost},
};

const WITHIN: Duration = Duration::from_mins(1);
pub(crate) const AUDIENCE: &str = "api://AzureADTokenExchange";
pub(crate) const TENANT: &str = "5f6c0b9e-7d3a-4f0e-9f0e-2b1f6d1c9a10";
pub(crate) const WORKLOAD: &str = "85075aa5-1d73-42de-812a-95348218e4b2";
pub(crate) const BLUEPRINT: &str = "0b1f2f2c-6a1e-4d53-9f7e-5f0a7c9d3e11";
pub(crate) const AGENT: &str = "3f0e5a7b-9c1d-4e2f-8a6b-7d4c2e1f0a99";
pub(crate) const UPN: &str = "agent@team.example";
pub(crate) const USER: &str = "c7b1f0de-2a48-4c39-9d6e-51a0f3e2d897";

/// A cluster, its documents as files, and the twin that trusts one of its service accounts.
pub(crate) struct Stage {
    cluster: std::sync::Arc<Cluster>,
    pub(crate) folder: TempDir,
    pub(crate) twin: EntraTwin,
}

impl Stage {
    pub(crate) fn set() -> Self {
        let cluster = Cluster::shared();
        let folder = TempDir::new().expect("a temporary folder");
        let keys = cluster.keys.iter().flat_map(|key| ["--source".as_ref(), key.public.as_os_str()]);
        let arguments = ["jwks".as_ref(), "--issuer".as_ref(), ISSUER.as_ref(), "--output-dir".as_ref()];
        Signpost::new(arguments.into_iter().chain([folder.path().as_os_str()]).chain(keys))
            .finish(WITHIN)
            .expect_code(0);
        let twin =
            EntraTwin::start_with(&Self::directory(folder.path(), "system:serviceaccount:default:signpost"));
        let stage = Self { cluster, folder, twin };
        stage.write("token", &stage.token(AUDIENCE));
        stage
    }

    /// The twin knows an application and a blueprint that trust this subject, and the blueprint's agent identity.
    pub(crate) fn directory(documents: &Path, subject: &str) -> Value {
        let read = |name: &str| fs::read_to_string(documents.join(name)).expect("it is published");
        json!({
            "now": clock::now().as_second(), "jwks_seconds": 0,
            "documents": {
                (format!("{ISSUER}/.well-known/openid-configuration")):
                    {"status": 200, "body": read(".well-known/openid-configuration")},
                (format!("{ISSUER}/openid/v1/jwks")): {"status": 200, "body": read("openid/v1/jwks")},
            },
            "tenants": tenants(ISSUER, subject),
        })
    }

    pub(crate) fn token(&self, audience: &str) -> String {
        self.cluster.server.token("default", "signpost", &[audience], 600)
    }

    pub(crate) fn write(&self, name: &str, text: &str) -> String {
        let path = self.folder.path().join(name);
        fs::write(&path, text).expect("the folder can be written");
        path.to_str().expect("a name of ours").to_owned()
    }

    /// The command, with the environment of a pod that the webhook has changed.
    pub(crate) fn exchange(&self, client: &str, arguments: &[&str]) -> Finished {
        let path = |name: &str| self.folder.path().join(name).to_str().expect("a name of ours").to_owned();
        let [discovery, jwks] = [".well-known/openid-configuration", "openid/v1/jwks"].map(path);
        let fixed = ["--discovery", &discovery, "--jwks", &jwks];
        let arguments = ["exchange"].iter().chain(arguments).chain(&fixed).copied().collect::<Vec<_>>();
        Signpost::new(arguments)
            .env("AZURE_FEDERATED_TOKEN_FILE", path("token"))
            .env("AZURE_TENANT_ID", TENANT)
            .env("AZURE_CLIENT_ID", client)
            .env("AZURE_AUTHORITY_HOST", self.twin.url())
            .finish(WITHIN)
    }
}

/// An application and a blueprint that trust this subject, and an agent identity of the blueprint with its user.
pub(crate) fn tenants(issuer: &str, subject: &str) -> Value {
    let credential =
        json!([{"name": "signpost", "issuer": issuer, "subject": subject, "audience": AUDIENCE}]);
    json!({TENANT: {
        WORKLOAD: {"kind": "application", "client_id": WORKLOAD, "tenant": TENANT, "credentials": credential},
        BLUEPRINT: {"kind": "blueprint", "client_id": BLUEPRINT, "tenant": TENANT, "credentials": credential},
        AGENT: {
            "kind": "agent-identity", "client_id": AGENT, "tenant": TENANT, "blueprint": BLUEPRINT,
            "credentials": [], "agent_users": [UPN, USER],
        },
    }})
}

/// What a user's client would send to a service that is this application.
pub(crate) fn user_token(audience: &str) -> String {
    unsigned(&json!({
        "iss": format!("https://login.microsoftonline.com/{TENANT}/v2.0"), "aud": audience, "tid": TENANT,
        "scp": "access_as_user", "sub": "person", "nbf": clock::now().as_second() - 60,
        "exp": clock::now().as_second() + 3000,
    }))
}

/// A token of Entra, as far as the twin looks at one.
pub(crate) fn unsigned(claims: &Value) -> String {
    let part = |value: &Value| Base64UrlUnpadded::encode_string(value.to_string().as_bytes());
    format!("{}.{}.AAAA", part(&json!({"alg": "RS256", "kid": "entra"})), part(claims))
}

#[test]
fn a_pod_exchanges_its_token_by_its_own_environment() {
    let stage = Stage::set();
    let told = stage.exchange(WORKLOAD, &["workload"]).expect_code(0);
    assert!(told.stdout.starts_with("accepted: Microsoft Entra issued the token"), "{}", told.stdout);
    assert!(told.stdout.contains("; as predicted"), "{}", told.stdout);

    let told = stage.exchange(WORKLOAD, &["workload", "--print-token"]).expect_code(0);
    assert_eq!(told.stdout, "of-the-twin", "the token and nothing else");
    assert!(!told.stderr.contains(told.stdout.trim()), "the token is printed once");
}

#[test]
fn an_agent_is_walked_to_step_by_step() {
    let stage = Stage::set();
    for (verb, steps) in [
        (&["blueprint", "--agent", AGENT][..], 1),
        (&["agent", "--agent", AGENT], 2),
        (&["agent-user", "--agent", AGENT, "--username", UPN], 3),
        (&["agent-user", "--agent", AGENT, "--user-id", USER], 3),
    ] {
        let arguments: Vec<_> = verb.iter().chain(&["--output", "json"]).copied().collect();
        let told = stage.exchange(BLUEPRINT, &arguments).expect_code(0);
        let told: Value = serde_json::from_str(&told.stdout).expect("JSON");
        assert_eq!(told["steps"].as_array().expect("a list").len(), steps, "{told}");
        for step in told["steps"].as_array().expect("a list") {
            let claims = step["claims"].as_array().expect("a list");
            assert!(claims.iter().all(|claim| claim["expected"].is_null()), "{verb:?}: {step}");
            assert_ne!(step["agreement"], "false_red", "{step}");
        }
    }
}

#[test]
fn an_agent_acts_on_behalf_of_a_user() {
    let stage = Stage::set();
    let file = stage.write("user", &user_token(BLUEPRINT));
    let arguments = ["on-behalf-of", "--agent", AGENT, "--user-token", &file];
    stage.exchange(BLUEPRINT, &arguments).expect_code(0);
    let arguments = ["on-behalf-of", "--refresh", "--agent", AGENT, "--user-token", &file];
    let told = stage.exchange(BLUEPRINT, &[&arguments[..], &["--output", "json"]].concat()).expect_code(0);
    let steps = serde_json::from_str::<Value>(&told.stdout).expect("JSON")["steps"].take();
    let legs: Vec<_> = steps.as_array().expect("a list").iter().map(|step| step["leg"].as_str()).collect();
    assert_eq!(legs, ["blueprint", "on-behalf-of", "blueprint", "refresh"].map(Some));
    let printed = stage.exchange(BLUEPRINT, &[&arguments[..], &["--print-token"]].concat()).expect_code(0);
    assert_eq!(printed.stdout, "of-the-twin");
    for text in [&told.stdout, &told.stderr, &printed.stderr] {
        assert!(!text.contains("refresh-of-the-twin"), "{text}");
    }
    let alone = ["on-behalf-of", "--refresh", "--user-token", &stage.write("user", &user_token(WORKLOAD))];
    stage.exchange(WORKLOAD, &alone).expect_code(0);
    let file = stage.write("user", &user_token(WORKLOAD));
    let arguments = ["on-behalf-of", "--agent", AGENT, "--user-token", &file];
    let told = stage.exchange(BLUEPRINT, &arguments).expect_code(1);
    assert!(
        told.stdout.contains("AADSTS500131 to step 2") && told.stdout.contains("OBO-AUD"),
        "{}",
        told.stdout
    );
    assert!(told.stdout.contains("; as predicted"), "{}", told.stdout);
}

#[test]
fn a_refusal_is_explained_beside_its_prediction() {
    let stage = Stage::set();
    stage.twin.replace(&Stage::directory(stage.folder.path(), "system:serviceaccount:team:app"));
    let credentials = json!([{"name": "signpost", "issuer": ISSUER, "subject": "system:serviceaccount:team:app", "audiences": [AUDIENCE]}]);
    let credentials = stage.write("credentials.json", &credentials.to_string());
    let told = stage.exchange(WORKLOAD, &["workload", "--credentials", &credentials]).expect_code(1);
    for part in [
        "refused: Microsoft Entra answered AADSTS700213 to step 1",
        "fix: make the credential name the token's `sub`",
        "for Microsoft's support: trace ",
        "predicted: refused AADSTS700213 (FIC-SUB",
        "; as predicted",
    ] {
        assert!(told.stdout.contains(part), "{part}: {}", told.stdout);
    }
    let token = fs::read_to_string(stage.folder.path().join("token")).expect("it is there");
    let signature = token.rsplit('.').next().expect("a part");
    assert!(!format!("{}{}", told.stdout, told.stderr).contains(signature));

    let told = stage
        .exchange(AGENT, &["workload", "--client-id", "9c1f2e3d-0000-4000-8000-000000000000"])
        .expect_code(1);
    assert!(told.stdout.contains("AADSTS700016"), "{}", told.stdout);
}

#[test]
fn a_token_is_sent_to_nobody_else() {
    let stage = Stage::set();
    for authority in [
        "https://login.example",
        "http://login.microsoftonline.com",
        "https://login.microsoftonline.com:8443",
        "login",
    ] {
        let told = stage.exchange(WORKLOAD, &["workload", "--authority", authority]).expect_code(2);
        assert!(
            told.stderr.contains("is no token endpoint of Microsoft Entra"),
            "{authority}: {}",
            told.stderr
        );
    }
    let told = stage.exchange(WORKLOAD, &["workload", "--authority", "http://127.0.0.1:9"]).expect_code(2);
    assert!(told.stderr.contains("does not answer"), "{}", told.stderr);
}
