//! The JWKS of a provider of Google's workload identity federation, as a target: against the twin of Google.

use std::{fs, path::Path, time::Duration};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{
    cluster::{Cluster, ISSUER},
    fault_proxy::{Action, FaultProxy, Rule},
    google_twin::{AUDIENCE, GoogleTwin, PROVIDER, WRITER},
    installation::{Installation, files},
    pki::KeyFiles,
    signpost::{Finished, Signpost},
};

const WITHIN: Duration = Duration::from_mins(1);

/// An issuer with one key, whose only target is the provider.
struct Stage {
    twin: GoogleTwin,
    proxy: FaultProxy,
    installation: Installation,
    keys: TempDir,
}

impl Stage {
    fn set() -> Self {
        let keys = TempDir::new().expect("a temporary folder");
        KeyFiles::rsa(keys.path(), "first");
        let twin = GoogleTwin::start(ISSUER);
        let proxy = FaultProxy::start(&twin.url());
        let sources = json!([files(&[&keys.path().join("*.pub")])]);
        let target = target(&proxy.url());
        let installation = Installation::new(
            ISSUER,
            &json!({"sources": sources, "targets": [target], "schedule": "* * * * *"}),
        );
        Self { twin, proxy, installation, keys }
    }

    fn verb(&self, verb: &[&str]) -> Signpost {
        self.installation.verb_without_credentials(verb).env("GOOGLE_BEARER_TOKEN", WRITER)
    }

    #[track_caller]
    fn sync(&self) -> Finished {
        self.verb(&["sync"]).finish(WITHIN)
    }

    /// The JWKS of the keys of the folder, as Signpost prints it.
    fn printed(&self) -> String {
        printed(&self.keys.path().join("*.pub"))
    }
}

fn target(endpoint: &str) -> Value {
    json!({"name": "google", "url": format!("gcp-wif://{PROVIDER}"), "endpoint": endpoint})
}

fn printed(keys: &Path) -> String {
    let keys = keys.to_str().expect("it is text");
    Signpost::new(["jwks", "--source", keys]).finish(WITHIN).expect_code(0).stdout.trim_end().to_owned()
}

#[track_caller]
fn says(told: &Finished, parts: &[&str]) {
    let text = format!("{}{}", told.stdout, told.stderr);
    for part in parts {
        assert!(text.contains(part), "{part}\n{text}");
    }
}

#[test]
fn google_accepts_a_token_of_a_cluster_that_it_cannot_reach_once_its_keys_are_there() {
    let cluster = Cluster::shared();
    let twin = GoogleTwin::start(ISSUER);
    let token = cluster.server.token("default", "signpost", &[AUDIENCE], 600);
    let before = twin.exchange(&token);
    assert_eq!(before.json()["error_description"], "Error connecting to the given credential's issuer.");

    let sources: Vec<_> = cluster.keys.iter().map(|key| key.public.as_path()).collect();
    let settings = json!({"sources": [files(&sources)], "targets": [target(&twin.url())]});
    let installation = Installation::new(ISSUER, &settings);
    let sync = || installation.verb_without_credentials(["sync"]).env("GOOGLE_BEARER_TOKEN", WRITER);
    let told = sync().finish(WITHIN).expect_code(0);
    says(&told, &["google", "wrote jwks"]);
    assert!(!told.stdout.contains("discovery"), "there is none\n{}", told.stdout);
    let answer = twin.exchange(&token).expect_status(200).json();
    assert_eq!(answer["token_type"], "Bearer");

    let told = sync().finish(WITHIN).expect_code(0);
    assert!(!told.stdout.contains("wrote"), "a second pass writes nothing\n{}", told.stdout);
}

#[test]
fn keys_that_only_the_provider_has_stay_and_a_removed_one_goes() {
    let stage = Stage::set();
    let elsewhere = TempDir::new().expect("a temporary folder");
    KeyFiles::rsa(elsewhere.path(), "theirs");
    let theirs: Value = serde_json::from_str(&printed(&elsewhere.path().join("*.pub"))).expect("it is JSON");
    stage.twin.edit(|provider| provider["oidc"]["jwksJson"] = json!(theirs.to_string()));
    let told = stage.sync().expect_code(0);
    says(&told, &["unmanaged"]);
    let held: Value = serde_json::from_str(stage.twin.jwks().as_str().expect("a JWKS")).expect("it is JSON");
    let held = held["keys"].as_array().expect("keys");
    assert!(held.len() == 2 && held.contains(&theirs["keys"][0]), "{held:?}");

    // Somebody takes it out of the provider: it does not come back.
    stage.twin.edit(|provider| provider["oidc"]["jwksJson"] = json!(stage.printed()));
    let told = stage.sync().expect_code(0);
    assert!(!told.stdout.contains("wrote"), "{}", told.stdout);
}

#[test]
fn a_jwks_that_google_prints_in_another_way_is_left_alone() {
    let stage = Stage::set();
    let jwks: Value = serde_json::from_str(&stage.printed()).expect("it is JSON");
    let spaced = serde_json::to_string_pretty(&jwks).expect("it is JSON");
    stage.twin.edit(|provider| provider["oidc"]["jwksJson"] = json!(spaced));
    let told = stage.sync().expect_code(0);
    assert!(!told.stdout.contains("wrote"), "{}", told.stdout);
    assert_eq!(stage.twin.jwks(), spaced);
}

#[test]
fn a_provider_that_cannot_be_ours_is_refused_with_a_way_out() {
    let stage = Stage::set();
    let refused = |change: &dyn Fn(&mut Value), parts: &[&str]| {
        stage.twin.change(|world| {
            world["providers"][PROVIDER] = json!({"oidc": {"issuerUri": ISSUER}});
            change(world);
        });
        for arguments in [["sync"].as_slice(), &["sync", "--adopt"]] {
            says(&stage.verb(arguments).finish(WITHIN).expect_code(2), parts);
        }
        assert_eq!(stage.twin.jwks(), Value::Null);
    };
    let other = "https://other.example";
    let with = |field: &'static str, value: Value| {
        move |world: &mut Value| world["providers"][PROVIDER][field] = value.clone()
    };
    refused(
        &with("oidc", json!({"issuerUri": other})),
        &[
            "it trusts issuer `https://other.example`, expected `https://",
            "hint: correct `issuer`, or name the provider",
        ],
    );
    refused(
        &|world| world["providers"][PROVIDER] = json!({"saml": {}}),
        &[
            "it has no `oidc`, so it is a provider of another kind",
            "hint: name a provider that was made with `create-oidc`",
        ],
    );
    refused(&with("state", json!("DELETED")), &["it is deleted", "providers undelete`"]);
    refused(
        &|world| world["providers"] = json!({}),
        &[
            &format!("there is no workload identity pool provider `{PROVIDER}`"),
            "create-oidc kind-1 --project=123456789 --location=global --workload-identity-pool=clusters",
        ],
    );
    refused(
        &|world| world["tokens"][WRITER] = json!(["iam.workloadIdentityPoolProviders.get"]),
        &["cannot write `oidc.jwksJson` of target `google`", "`PERMISSION_DENIED`", "hint: give the writer"],
    );
    refused(
        &|world| world["tokens"] = json!({}),
        &["`UNAUTHENTICATED`", "hint: check `GOOGLE_APPLICATION_CREDENTIALS`"],
    );
}

#[test]
fn a_key_that_google_trusts_is_dropped_only_by_the_operator() {
    let stage = Stage::set();
    let odd = json!({"keys": [{"kty": "OKP", "crv": "Ed25519", "kid": "odd", "x": "AAAA"}]}).to_string();
    stage.twin.edit(|provider| provider["oidc"]["jwksJson"] = json!(odd));
    says(&stage.sync().expect_code(2), &["the JWKS that it trusts cannot be read", "hint: correct it there"]);
    assert_eq!(stage.twin.jwks(), odd);

    let mut both: Value = serde_json::from_str(&stage.printed()).expect("it is JSON");
    both["keys"]
        .as_array_mut()
        .expect("keys")
        .push(json!({"kty": "OKP", "crv": "Ed25519", "kid": "odd", "x": "AAAA"}));
    stage.twin.edit(|provider| provider["oidc"]["jwksJson"] = json!(both.to_string()));
    says(
        &stage.sync().expect_code(2),
        &["it would no longer trust `odd` (Ed25519)", "`signpost sync --adopt`"],
    );
    stage.verb(&["sync", "--adopt"]).finish(WITHIN).expect_code(0);
    assert_eq!(stage.twin.jwks(), stage.printed());
}

#[test]
fn an_operation_is_waited_for_and_its_failure_is_told() {
    let stage = Stage::set();
    stage.twin.change(|world| (world["polls"], world["stale"]) = (json!(3), json!(2)));
    stage.sync().expect_code(0);
    assert_eq!(stage.twin.jwks(), stage.printed());

    KeyFiles::rsa(stage.keys.path(), "second");
    stage.twin.change(|world| {
        world["fails"] = json!({"code": 13, "message": "Internal error encountered."});
        world["stale"] = json!(0);
    });
    let told = stage.sync().expect_code(2);
    says(&told, &["the answer was `operation failed with code 13`: Internal error encountered."]);
    stage.sync().expect_code(0);
    assert_eq!(stage.twin.jwks(), stage.printed());
}

#[test]
fn a_write_whose_answer_is_lost_is_found_by_the_next_pass() {
    let stage = Stage::set();
    stage.proxy.script([Rule::new(Action::LoseAnswer).method("PATCH").once()]);
    stage.sync().expect_code(2);
    assert_eq!(stage.twin.jwks(), stage.printed(), "it took effect");
    let told = stage.sync().expect_code(0);
    assert!(!told.stdout.contains("wrote"), "{}", told.stdout);
}

#[test]
fn a_busy_service_is_asked_again_when_it_says() {
    let stage = Stage::set();
    let busy = || Action::Answer {
        status: 429,
        headers: vec![("retry-after", "1"), ("content-type", "application/json")],
        body: r#"{"error": {"code": 429, "status": "RESOURCE_EXHAUSTED", "message": "Quota exceeded."}}"#,
    };
    stage.proxy.script([Rule::new(busy()).method("GET").once(), Rule::new(busy()).method("PATCH").once()]);
    let started = std::time::Instant::now();
    stage.sync().expect_code(0);
    assert!(started.elapsed() >= Duration::from_secs(2), "{:?}", started.elapsed());
    stage.proxy.script([Rule::new(busy())]);
    says(&stage.sync().expect_code(2), &["the answer was `RESOURCE_EXHAUSTED`"]);
}

#[test]
fn an_aborted_write_is_decided_again() {
    let stage = Stage::set();
    let aborted = Action::Answer {
        status: 409,
        headers: vec![("content-type", "application/json")],
        body: r#"{"error": {"code": 409, "status": "ABORTED", "message": "There were concurrent changes."}}"#,
    };
    stage.proxy.script([Rule::new(aborted).method("PATCH").times(2)]);
    stage.sync().expect_code(0);
    assert_eq!(stage.twin.jwks(), stage.printed());
}

#[test]
fn a_write_that_somebody_else_replaces_is_noticed_and_loses_no_key() {
    let stage = Stage::set();
    let elsewhere = TempDir::new().expect("a temporary folder");
    KeyFiles::rsa(elsewhere.path(), "theirs");
    stage.twin.change(|world| world["another"] = json!(printed(&elsewhere.path().join("*.pub"))));
    stage.sync().expect_code(0);
    let held: Value = serde_json::from_str(stage.twin.jwks().as_str().expect("a JWKS")).expect("it is JSON");
    assert_eq!(held["keys"].as_array().map(Vec::len), Some(2), "{held}");
    assert_eq!(stage.proxy.count("PATCH", PROVIDER), 2);
}

#[test]
fn the_name_of_an_operation_leads_nowhere_else() {
    let stage = Stage::set();
    let odd = Action::Answer {
        status: 200,
        headers: vec![("content-type", "application/json")],
        body: r#"{"name": "projects/123456789/serviceAccounts/x:signBlob"}"#,
    };
    stage.proxy.script([Rule::new(odd).method("PATCH")]);
    says(
        &stage.sync().expect_code(2),
        &["the operation has the odd name `projects/123456789/serviceAccounts/x:signBlob`"],
    );
    assert!(stage.proxy.seen().iter().all(|request| request.path == format!("/v1/{PROVIDER}")));
}

#[test]
fn what_somebody_else_takes_away_is_repaired_by_a_running_service() {
    let stage = Stage::set();
    let mut service = stage.installation.run_as(stage.verb(&["run"]));
    service.until("it is published", |service| service.target("google")["writes"] == 1);
    assert_eq!(service.target("google")["public_url"], Value::Null, "Google alone reads it");
    KeyFiles::rsa(stage.keys.path(), "second");
    service.until("the new key is there", |_| stage.twin.jwks() == stage.printed());
    let one = TempDir::new().expect("a temporary folder");
    fs::copy(stage.keys.path().join("first.pub"), one.path().join("first.pub")).expect("it can be copied");
    let fewer = printed(&one.path().join("*.pub"));
    stage.twin.edit(|provider| provider["oidc"]["jwksJson"] = json!(fewer));
    service.until("it is repaired", |_| stage.twin.jwks() == stage.printed());
    let log = service.running.stderr();
    assert!(log.contains("target was changed by another writer, repairing it"), "{log}");
    service.stop();
}
