//! Verified tokens are secret: no output of the command contains a token or key, at any log level.

use std::fs;
use std::path::Path;

use openssl::pkey::PKey;
use serde_json::json;

use super::workloads::{Team, annotated, as_the_webhook_does};
use super::{Stage, WITHIN, claims, parts, signed};
use crate::support::api_server::ADMIN_TOKEN;
use crate::support::secrets::{Secrets, has_token};
use crate::support::signpost::Finished;

/// Log level and output format.
const WAYS: [(&str, &str); 2] = [("debug", "text"), ("trace", "json")];

fn keys_of(stage: &Stage) -> Secrets {
    let mut secrets = Secrets::default();
    for key in &stage.cluster.keys {
        let pem = fs::read(&key.private).expect("it is ours");
        secrets.add_key(&PKey::private_key_from_pem(&pem).expect("it is a key"));
    }
    secrets.add_text(ADMIN_TOKEN.as_bytes());
    secrets
}

#[track_caller]
fn says_nothing(secrets: &Secrets, what: &str, said: &Finished) {
    secrets.assert_not_said(what, said);
    assert!(!has_token(&said.stdout) && !has_token(&said.stderr), "{what} has a token: {said:?}");
}

#[test]
fn a_token_that_is_judged_is_not_shown_whatever_is_wrong_with_it() {
    let stage = Stage::set();
    let mut secrets = keys_of(&stage);
    let good = stage.token();
    let key = &stage.cluster.keys[0];
    let [header, _] = parts(&good);
    let mut unsigned = header.clone();
    unsigned["alg"] = json!("none");
    let mut old = claims();
    old["exp"] = json!(1_700_003_600);
    let pem = fs::read_to_string(&key.private).expect("it is ours");
    let tokens = [
        good.clone(),
        format!("\"{good}\""),
        format!("Bearer {good}"),
        format!("{good}\n\n"),
        format!("{good}.{good}"),
        good.replace('.', ". "),
        good.replace('.', "=."),
        good[..good.len() - 20].to_owned(),
        signed(key, &unsigned, &claims()),
        signed(key, &header, &old),
        signed(&stage.cluster.keys[1], &header, &claims()),
        json!({"token": good}).to_string(),
        pem,
    ];
    for token in &tokens {
        token
            .split(['.', '\n'])
            .filter(|part| part.len() >= 40)
            .for_each(|part| secrets.add_text(part.as_bytes()));
    }
    assert!(secrets.are_in(good.as_bytes()), "the search does not work");
    for token in &tokens {
        for (log, output) in WAYS {
            let arguments = ["--token", "-", "--log", log, "--output", output, "--for", "all"];
            let said = stage.verify(arguments).stdin(token).finish(WITHIN);
            assert!(!said.stdout.is_empty(), "{said:?}");
            says_nothing(&secrets, output, &said);
        }
    }
    // In the wrong place.
    let misplaced =
        ["--token", "--issuer", "--subject", "--audience", "--jwks", "--credentials", "--pod", "--wait"];
    for flag in misplaced {
        let given = format!("{flag}={good}");
        let rest = if flag == "--token" { None } else { Some("--token=-") };
        for (log, output) in WAYS {
            let arguments = [given.as_str(), "--log", log, "--output", output].into_iter().chain(rest);
            let said = stage.verify(arguments).stdin(&good).finish(WITHIN);
            assert_ne!(said.code, Some(0), "{said:?}");
            says_nothing(&secrets, flag, &said);
        }
    }
}

#[test]
fn a_token_that_a_cluster_makes_is_not_shown() {
    let stage = Stage::set();
    let team = Team::create(&stage, "silence");
    for name in ["app", "job"] {
        team.account(name, &annotated());
        team.pod(name, as_the_webhook_does);
    }
    let secrets = keys_of(&stage);
    let whose: [(&[&str], i32); 4] = [
        (&["--service-account", "silence/app"], 0),
        (&["--pod", "silence/job-0"], 0),
        (&["--namespace", "silence", "--all"], 0),
        (&["--service-account", "silence/app", "--audience", "https://oidc.example/cluster"], 1),
    ];
    for (arguments, code) in whose {
        for (log, output) in WAYS {
            let said =
                team.verify(&[arguments, &["--log", log, "--output", output]].concat()).expect_code(code);
            assert!(said.stdout.contains("silence/"), "{said:?}");
            says_nothing(&secrets, output, &said);
        }
    }
}

#[test]
fn no_snapshot_has_a_token_or_a_key() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/snapshots");
    let pages = fs::read_dir(folder).expect("it is there").map(|entry| entry.expect("readable").path());
    let mut count = 0;
    for page in pages {
        let text = fs::read_to_string(&page).expect("text");
        assert!(!has_token(&text) && !text.contains("-----BEGIN"), "{}", page.display());
        count += 1;
    }
    assert!(count > 30, "only {count} pages");
}
