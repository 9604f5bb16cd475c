//! Failures, other writers and wrong inputs.

use super::*;

#[test]
fn a_lost_answer_a_busy_service_and_another_writer_end_at_the_plan() {
    let faults = json!([
        {"method": "POST", "path_contains": "federatedIdentityCredentials", "status": 429, "retry_after": 2},
        {"method": "POST", "path_contains": "federatedIdentityCredentials", "status": 503},
        {"method": "POST", "path_contains": "federatedIdentityCredentials", "after": true},
        {"method": "GET", "path_contains": "/federatedIdentityCredentials"},
    ]);
    let others = json!([
        {"name": "pipeline", "issuer": "https://ci.example.com", "subject": "repo:team/app", "audience": AUDIENCE},
        {"name": "typo", "issuer": format!("{ISSUER}/"), "subject": SUBJECT, "audience": AUDIENCE},
    ]);
    let stage = Stage::set(&json!({"tenants": {WORKLOAD: {"credentials": others}}}));
    let told = stage.federate(&[
        "plan",
        "--client-id",
        WORKLOAD,
        "--issuer",
        ISSUER,
        "--service-account",
        "default/signpost",
    ]);
    let told = told.expect_code(1);
    for part in ["nearly   typo", "^ an extra final `/`", "others   1, which stay as they are"] {
        assert!(told.stdout.contains(part), "{part}: {}", told.stdout);
    }
    let mut directory = stage.twin.directory();
    directory["faults"] = faults;
    stage.twin.replace(&directory);
    let told = stage.apply(&["--client-id", WORKLOAD]);
    let failed_first = told.code == Some(2);
    if failed_first {
        // The list that a plan begins with has no answer: nothing was written, and it goes on the next time.
        assert!(told.stdout.contains("does not answer"), "{}", told.stdout);
        stage.apply(&["--client-id", WORKLOAD]).expect_code(0);
    }
    assert!(failed_first, "the first list was to fail: {}{}", told.stdout, told.stderr);
    let left = stage.credentials(WORKLOAD);
    let names: Vec<_> = left.iter().map(|it| it["name"].as_str().expect("a name")).collect();
    assert_eq!(names.len(), 3, "{names:?}");
    assert!(names.contains(&"pipeline") && names.contains(&"typo"), "{names:?}");
    assert!(stage.twin.directory()["faults"].as_array().expect("a list").is_empty(), "every fault was met");
    stage.exchange(WORKLOAD, &["workload"]).expect_code(0);
}

#[test]
fn an_audience_is_corrected_and_a_moved_issuer_is_trusted_before_the_old_one_is_removed() {
    const OLD: &str = "https://old.example/cluster";
    let there = json!([
        {"name": "wrong", "issuer": ISSUER, "subject": SUBJECT, "audience": "api://other"},
        {"name": "old", "issuer": OLD, "subject": SUBJECT, "audience": AUDIENCE},
        {"name": "old-web", "issuer": OLD, "subject": "system:serviceaccount:default:web", "audience": AUDIENCE},
    ]);
    let stage = Stage::set(&json!({"tenants": {WORKLOAD: {"credentials": there}}}));
    let retire = ["remove", "--client-id", WORKLOAD, "--moved-from", OLD, "--moved-to", ISSUER, "--yes"];
    let told = stage.federate(&retire).expect_code(1);
    assert!(told.stdout.contains("keep     old-web: the new issuer has no counterpart"), "{}", told.stdout);
    assert_eq!(stage.credentials(WORKLOAD).len(), 3, "nothing may go yet");

    let moved = ["apply", "--client-id", WORKLOAD, "--moved-from", OLD, "--issuer", ISSUER];
    let told = stage.federate(&moved).expect_code(0);
    assert!(told.stdout.contains(&format!("audience {AUDIENCE} instead of api://other")), "{}", told.stdout);
    assert!(told.stdout.contains("done: 2 written"), "{}", told.stdout);
    stage.exchange(WORKLOAD, &["workload"]).expect_code(0);
    stage.federate(&retire).expect_code(0);
    let left = stage.credentials(WORKLOAD);
    assert!(left.len() == 2 && left.iter().all(|it| it["issuer"] == ISSUER), "{left:?}");
}

#[test]
fn who_may_not_and_what_cannot_is_told_with_what_to_do() {
    let stage = Stage::set(&json!({"tenants": {OPERATOR: {"grants": ["Application.Read.All"]}}}));
    let told = stage.apply(&["--client-id", WORKLOAD]).expect_code(2);
    assert!(told.stdout.contains("Authorization_RequestDenied"), "{}", told.stdout);
    assert!(told.stdout.contains("Application.ReadWrite.OwnedBy"), "{}", told.stdout);
    let told = stage.apply(&["--client-id", AGENT]).expect_code(2);
    assert!(told.stdout.contains(&format!("pass `--client-id {BLUEPRINT}`")), "{}", told.stdout);
    let told = stage.apply(&["--client-id", "9c1f2e3d-0000-4000-8000-000000000000"]).expect_code(2);
    assert!(told.stdout.contains("no application, managed identity or blueprint"), "{}", told.stdout);
    let told = stage
        .federate(&["apply", "--client-id", WORKLOAD, "--service-account", "default/signpost"])
        .expect_code(2);
    assert!(told.stderr.contains("no issuer to trust"), "{}", told.stderr);
    let told = stage.apply(&["--client-id", "my-identity"]).expect_code(2);
    assert!(told.stderr.contains("`my-identity` is no id, expected a GUID"), "{}", told.stderr);
    let told = stage.run(WORKLOAD, &["federate", "list", "--client-id", WORKLOAD]).expect_code(2);
    assert!(told.stderr.contains("refuses the sign-in: AADSTS70025"), "{}", told.stderr);
    assert!(told.stderr.contains("hint: "), "{}", told.stderr);
    let arguments = ["federate", "list", "--client-id", WORKLOAD, "--sign-in", "secret"];
    let told = stage.run(OPERATOR, &arguments).expect_code(2);
    assert!(told.stderr.contains("`AZURE_CLIENT_SECRET` is not set"), "{}", told.stderr);
    let arguments = ["federate", "list", "--client-id", WORKLOAD, "--sign-in", "azure-cli"];
    let told = Signpost::new(arguments).env("PATH", "/nowhere").finish(WITHIN).expect_code(2);
    assert!(told.stderr.contains("the Azure CLI cannot be run"), "{}", told.stderr);
    assert!(told.stderr.contains("az login"), "{}", told.stderr);
}

#[test]
fn a_full_identity_is_told_before_anything_is_written() {
    let full: Vec<_> = (0..20)
        .map(|it| json!({"name": format!("it-{it}"), "issuer": "https://ci.example.com", "subject": format!("repo:{it}"), "audience": AUDIENCE}))
        .collect();
    let stage = Stage::set(&json!({"tenants": {WORKLOAD: {"credentials": full}}}));
    let told = stage.apply(&["--client-id", WORKLOAD]).expect_code(1);
    assert!(told.stdout.contains("room for 20 federated credentials: 20 are there"), "{}", told.stdout);
    assert!(stage.writes().is_empty());
}

#[test]
fn no_token_is_printed() {
    let stage = Stage::set(&json!({}));
    let told = stage.federate(&[
        "apply",
        "--client-id",
        WORKLOAD,
        "--issuer",
        ISSUER,
        "--service-account",
        "default/signpost",
        "--output",
        "json",
        "--log",
        "trace",
    ]);
    let told = told.expect_code(0);
    let all = format!("{}{}", told.stdout, told.stderr);
    assert!(!all.contains("eyJ"), "{all}");
    let document: Value = serde_json::from_str(&told.stdout).expect("JSON");
    assert_eq!(document["identities"][0]["kind"], "application");
    assert_eq!(document["identities"][0]["written"].as_array().expect("a list").len(), 1);
}
