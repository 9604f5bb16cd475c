//! Failures, other writers and wrong inputs.

use std::{fs::Permissions, os::unix::fs::PermissionsExt as _};

use super::*;

#[test]
fn a_lost_answer_a_busy_service_and_another_writer_end_at_the_plan() {
    let faults = json!([
        {"method": "POST", "path_contains": "federatedIdentityCredentials", "status": 429, "retry_after": 2},
        {"method": "POST", "path_contains": "federatedIdentityCredentials", "status": 503},
        {"method": "POST", "path_contains": "federatedIdentityCredentials", "after": true},
        {"method": "GET", "path_contains": "/federatedIdentityCredentials", "status": 503},
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
    let told = stage.federate(&moved).expect_code(2);
    assert!(
        told.stderr.contains("refused from then on: `wrong`"),
        "a correction is asked about: {}",
        told.stderr
    );
    let told = stage.federate(&[&moved[..], &["--yes"]].concat()).expect_code(0);
    assert!(told.stdout.contains(&format!("audience {AUDIENCE} instead of api://other")), "{}", told.stdout);
    assert!(told.stdout.contains("done: 2 written"), "{}", told.stdout);
    stage.exchange(WORKLOAD, &["workload"]).expect_code(0);
    let slash = format!("{OLD}/");
    let typo = ["apply", "--client-id", WORKLOAD, "--moved-from", &slash, "--issuer", ISSUER];
    let told = stage.federate(&typo).expect_code(1);
    assert!(told.stdout.contains("nothing here trusts this issuer"), "{}", told.stdout);
    let nowhere = ["remove", "--client-id", WORKLOAD, "--moved-from", ISSUER, "--moved-to", ISSUER, "--yes"];
    let told = stage.federate(&nowhere).expect_code(2);
    assert!(told.stderr.contains("the same before and after"), "{}", told.stderr);
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
    let told =
        stage.federate(&["consent", "--agent", BLUEPRINT, "--scope", "User.Read", "--yes"]).expect_code(2);
    assert!(told.stderr.contains("is no agent identity"), "{}", told.stderr);
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

/// The Azure CLI itself is too large to be installed here: a program in its place prints what it prints
/// (2.91.0), and notes how it was called.
#[test]
fn one_signs_in_as_the_environment_and_the_flags_say() {
    let stage = Stage::set(&json!({"tokens": {
        "WORD": {"audience": "graph", "grants": ["Application.ReadWrite.All"], "tenant": TENANT},
        "ARM-WORD": {"audience": "arm", "tenant": TENANT},
    }}));
    let apply = ["federate", "apply", "--issuer", ISSUER, "--service-account"];
    let signed_out = |arguments: &[&str]| {
        let signpost =
            Signpost::new(apply.iter().chain(arguments)).env("AZURE_AUTHORITY_HOST", stage.twin.url());
        signpost.env("AZURE_TENANT_ID", TENANT)
    };
    let by_secret = signed_out(&["team/secret", "--client-id", WORKLOAD]).env("AZURE_CLIENT_ID", OPERATOR);
    by_secret.env("AZURE_CLIENT_SECRET", "secret").finish(WITHIN).expect_code(0);

    let word = stage.path("word");
    fs::write(&word, "WORD\n").expect("the folder can be written");
    let word = word.to_str().expect("a name of ours");
    let by_token = signed_out(&["team/token", "--client-id", WORKLOAD, "--graph-token", word]);
    by_token.finish(WITHIN).expect_code(0);
    let told = signed_out(&["team/token", "--managed-identity", &resource_id(), "--graph-token", word]);
    let told = told.finish(WITHIN).expect_code(2);
    assert!(told.stdout.contains("is for Microsoft Graph"), "{}", told.stdout);

    let bin = stage.path("bin");
    fs::create_dir(&bin).expect("the folder can be written");
    let (az, calls) = (bin.join("az"), stage.path("calls"));
    let script = format!(
        "#!/bin/sh\necho \"$*\" >> '{}'\ncase \"$*\" in *graph*) word=WORD;; *) word=ARM-WORD;; esac\n\
         echo '{{\"accessToken\": \"'$word'\", \"expires_on\": 1, \"tokenType\": \"Bearer\"}}'\n",
        calls.display()
    );
    fs::write(&az, script).expect("the folder can be written");
    fs::set_permissions(&az, Permissions::from_mode(0o755)).expect("it is ours");
    let path = format!("{}:/usr/bin:/bin", bin.display());
    let by_cli = signed_out(&["team/cli", "--client-id", MANAGED]).env("PATH", &path);
    by_cli.finish(WITHIN).expect_code(0);
    let called = fs::read_to_string(&calls).expect("it was called");
    let called: Vec<_> = called.lines().collect();
    let call = |scope| format!("account get-access-token --output json --scope {scope} --tenant {TENANT}");
    let scopes = ["https://graph.microsoft.com/.default", "https://management.azure.com/.default"];
    assert_eq!(called, scopes.map(call), "once for each service");
    fs::write(&az, "#!/bin/sh\necho 'ERROR: Please run az login to setup account.' >&2\nexit 1\n")
        .expect("it is ours");
    let told =
        signed_out(&["team/cli", "--client-id", MANAGED]).env("PATH", &path).finish(WITHIN).expect_code(2);
    assert!(told.stdout.contains("Please run az login"), "{}", told.stdout);
    assert_eq!(stage.credentials(WORKLOAD).len(), 2);
    assert_eq!(stage.credentials(MANAGED).len(), 1);
}
