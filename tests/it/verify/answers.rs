//! What Entra answered is evidence too: the request, the identity, the code.

use std::path::Path;

use serde_json::{Value, json};
use signpost::core::verification::situation::Situation;
use tempfile::TempDir;

use crate::support::{
    cluster::ISSUER,
    signpost::{Finished, Signpost},
};

use super::{SUBJECT, Stage, WITHIN};

const TENANT: &str = "0f6d2b1c-94e7-4a55-b3f2-7c1d9e8a6b50";
const CLIENT: &str = "85075aa5-1d73-42de-812a-95348218e4b2";
const OBJECT: &str = "c7b1f0de-2a48-4c39-9d6e-51a0f3e2d897";

/// The request of a pod, as it was sent.
fn request(token: &str, changes: &str) -> String {
    format!(
        "POST https://login.microsoftonline.com/{TENANT}/oauth2/v2.0/token\ngrant_type=client_credentials\n\
         scope=https://graph.microsoft.com/.default\n\
         client_assertion_type=urn:ietf:params:oauth:client-assertion-type:jwt-bearer\nclient_assertion={token}\n{changes}"
    )
}

fn file(folder: &Path, name: &str, text: &str) -> String {
    let path = folder.join(name);
    std::fs::write(&path, text).expect("the folder can be written");
    path.to_str().expect("a name of ours").to_owned()
}

fn verify(stage: &Stage, arguments: &[&str]) -> Finished {
    stage.verify(arguments.iter().copied()).finish(WITHIN)
}

#[test]
fn a_request_is_judged_with_the_identity_that_it_is_for() {
    let stage = Stage::set();
    let folder = TempDir::new().expect("a temporary folder");
    let credential = json!([{"name": "app", "issuer": ISSUER, "subject": SUBJECT, "audiences": ["api://AzureADTokenExchange"]}]);
    let credentials = file(folder.path(), "credentials.json", &credential.to_string());
    let identity = json!({"clientId": CLIENT, "principalId": OBJECT, "tenantId": TENANT});
    let identity = file(folder.path(), "identity.json", &identity.to_string());
    let with = |form: &str| {
        let request = file(folder.path(), "request.txt", &request(&stage.token(), form));
        verify(&stage, &["--request", &request, "--credentials", &credentials, "--credentials", &identity])
    };
    with(&format!("client_id={CLIENT}")).expect_code(0);
    let told = with(&format!("client_id={OBJECT}")).expect_code(1);
    assert!(
        told.stdout.contains("would answer AADSTS700016") && told.stdout.contains("CLIENT-ID"),
        "{}",
        told.stdout
    );

    let blueprint =
        json!({"@odata.type": "#microsoft.graph.agentIdentityBlueprint", "appId": CLIENT, "id": OBJECT});
    let blueprint = file(folder.path(), "blueprint.json", &blueprint.to_string());
    let form = format!("client_id={CLIENT}");
    let request =
        request(&stage.token(), &form).replace("https://graph.microsoft.com", "api://AzureADTokenExchange");
    let request = file(folder.path(), "request.txt", &request);
    let told =
        verify(&stage, &["--request", &request, "--credentials", &credentials, "--credentials", &blueprint]);
    let told = told.expect_code(1);
    assert!(told.stdout.contains("would answer AADSTS82008"), "{}", told.stdout);
}

#[test]
fn an_answer_is_explained_compared_and_told_without_names() {
    let stage = Stage::set();
    let folder = TempDir::new().expect("a temporary folder");
    let text = request(&stage.token(), &format!("client_id={CLIENT}"));
    let request = file(folder.path(), "request.txt", &text);
    let credential = json!([{"name": "app", "issuer": ISSUER, "subject": "system:serviceaccount:secretteam:app", "audiences": ["api://AzureADTokenExchange"]}]);
    let credentials = file(folder.path(), "credentials.json", &credential.to_string());
    let report = folder.path().join("situation.yaml");
    let report = report.to_str().expect("a name of ours");
    let arguments =
        ["--request", &request, "--credentials", &credentials, "--got", "AADSTS700213", "--report", report];
    let told = verify(&stage, &arguments).expect_code(1);
    assert!(told.stdout.contains("Entra answered AADSTS700213: as predicted"), "{}", told.stdout);
    assert!(told.stdout.contains("fix: make the credential name the token's `sub`"), "{}", told.stdout);
    assert!(told.stderr.contains("look at it"), "{}", told.stderr);

    let again = verify(&stage, &arguments).expect_code(2);
    assert!(again.stderr.contains("name a new file"), "{}", again.stderr);
    let written = std::fs::read_to_string(report).expect("it is written");
    for name in [CLIENT, TENANT, "secretteam", stage.token().rsplit('.').next().expect("a part")] {
        assert!(!written.contains(name), "{name} is in:\n{written}");
    }
    let situation: Situation = serde_saphyr::from_str(&written).expect("a situation");
    assert_eq!(situation.answer.code(), Some(700_213));

    let arguments =
        ["--request", &request, "--credentials", &credentials, "--got", "7000272", "--output", "json"];
    let told = verify(&stage, &arguments).expect_code(1);
    let told: Value = serde_json::from_str(&told.stdout).expect("JSON");
    assert_eq!(told["answered"]["agreement"], "missed");
    assert!(told["answered"]["fix"].as_str().is_some_and(|fix| fix.contains("signpost sync")), "{told}");
}

#[test]
fn a_request_and_another_token_are_not_mixed() {
    let (stage, folder) = (Stage::set(), TempDir::new().expect("a temporary folder"));
    let token = stage.token();
    let request = file(folder.path(), "request.txt", &request(&token, &format!("client_id={CLIENT}")));
    let judged = |token: &str| {
        let token = file(folder.path(), "token", token);
        verify(&stage, &["--request", &request, "--token", &token])
    };
    let told = judged("eyJ.other.token").expect_code(2);
    assert!(told.stderr.contains("are two different tokens"), "{}", told.stderr);
    judged(&token).expect_code(0);
}

#[test]
fn a_request_that_is_none_is_told_without_its_values() {
    let folder = TempDir::new().expect("a temporary folder");
    for (text, fault) in [
        ("{\"client_secret\": \"hidden\"}", "line 1 is neither a URL nor `name=value`"),
        ("client_secret=hidden\nclient_secret=hidden", "field `client_secret` occurs twice"),
        ("", "neither a URL nor a field"),
    ] {
        let request = file(folder.path(), "request.txt", text);
        let told = Signpost::new(["verify", "--request", &request]).finish(WITHIN).expect_code(2);
        assert!(told.stderr.contains(fault) && !told.stderr.contains("hidden"), "{}", told.stderr);
    }
    let told = Signpost::new(["verify", "--token", "x", "--got", "hidden"]).finish(WITHIN).expect_code(2);
    assert!(told.stderr.contains("is no answer, expected one such as `AADSTS700213`"), "{}", told.stderr);
}
