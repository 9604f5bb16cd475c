//! The command line for people and scripts: help, versions, pipes, JSON output.

use std::fs;
use std::process::{Command, Stdio};
use std::time::Duration;

use openssl::bn::BigNum;
use openssl::pkey::PKey;
use openssl::rsa::Rsa;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::eventually::eventually;
use crate::support::pki::KeyFiles;
use crate::support::port::Port;
use crate::support::signpost::{Finished, Signpost};

const WITHIN: Duration = Duration::from_mins(1);
const VERBS: [&str; 12] = [
    "",
    "run",
    "sync",
    "jwks",
    "token",
    "verify",
    "ledger",
    "ledger show",
    "ledger adopt",
    "config check",
    "config show",
    "config schema",
];

fn signpost(folder: &TempDir, arguments: &str) -> Finished {
    Signpost::new(arguments.split_whitespace()).current_dir(folder.path()).finish(WITHIN)
}

#[test]
fn every_verb_explains_itself_with_examples_that_can_be_pasted() {
    let mut page = String::new();
    for verb in VERBS {
        for width in [80, 100] {
            let arguments = verb.split_whitespace().chain(["--help"]);
            let help = Signpost::new(arguments)
                .env("COLUMNS", width.to_string())
                .finish(WITHIN)
                .expect_code(0)
                .stdout;
            let long: Vec<_> = help.lines().filter(|line| line.chars().count() > width).collect();
            assert!(long.is_empty(), "{verb} at {width} columns: {long:#?}");
            // An example with a line break does not work when pasted.
            for example in help
                .lines()
                .skip_while(|line| !line.starts_with("Example"))
                .skip(1)
                .take_while(|line| !line.is_empty())
            {
                assert!(example.starts_with("  "), "{verb} at {width} columns breaks: {example}");
            }
            if width == 100 {
                let help: Vec<_> = help.lines().map(str::trim_end).collect();
                page += &format!("$ signpost {verb} --help\n{}\n\n", help.join("\n"));
            }
        }
    }
    insta::with_settings!({ prepend_module_to_snapshot => false, omit_expression => true }, {
        insta::assert_snapshot!("help", page.trim_end());
    });
}

#[test]
fn a_slip_of_the_fingers_is_understood_and_a_hint_has_none_of_its_flags() {
    let folder = TempDir::new().expect("a folder");
    for (typed, error, hint) in [
        ("version", "unknown verb `version`", "`signpost --version` prints it"),
        ("help rotate strt", "unknown verb `strt`", "`signpost rotate --help` lists its flags and arguments"),
        (
            "verify -token x",
            "unknown flag `-token`, did you mean `--token`?",
            "`signpost verify --help` lists its flags and arguments",
        ),
        (
            "run --issuer --source x",
            "`--issuer <URL>` has no value, expected one",
            "`signpost run --help` lists its flags and arguments",
        ),
    ] {
        let told = signpost(&folder, typed).expect_code(2).stderr;
        assert!(told.contains(&format!("error: {error}\n")), "{typed}: {told}");
        assert!(told.contains(&format!("hint: {hint}")), "{typed}: {told}");
    }
    fs::write(folder.path().join("sa.pub"), "").expect("ours");
    let told = signpost(&folder, "signer import sa.pub --issuer https://a.example").expect_code(2).stderr;
    assert!(
        told.contains("name the private key, such as `sa.key`: by its name this is the public half"),
        "{told}"
    );
}

#[test]
fn without_a_verb_the_help_is_shown_and_that_is_a_failure() {
    let folder = TempDir::new().expect("a temporary folder");
    let finished = signpost(&folder, "").expect_code(2);
    assert!(finished.stderr.contains("Usage: signpost"), "{}", finished.stderr);
    let version = format!("signpost {}\n", env!("CARGO_PKG_VERSION"));
    assert_eq!(version, signpost(&folder, "--version").expect_code(0).stdout);
}

#[test]
fn a_reader_that_stops_early_is_no_error() {
    for verb in ["config schema", "--help"] {
        let script = format!("{{ \"$0\" {verb}; echo \"$?\" >&2; }} | true");
        let output = Command::new("/bin/sh")
            .args(["-c", &script, env!("CARGO_BIN_EXE_signpost")])
            .stdin(Stdio::null())
            .output()
            .expect("/bin/sh starts");
        assert_eq!("0\n", String::from_utf8_lossy(&output.stderr), "{verb}");
    }
}

#[test]
fn a_pass_is_told_to_programs_in_the_same_shape_each_time() {
    let folder = TempDir::new().expect("a temporary folder");
    KeyFiles::rsa(folder.path(), "sa");
    let kid = {
        let jwks: Value =
            serde_json::from_str(&signpost(&folder, "jwks --source sa.pub").stdout).expect("JSON");
        jwks["keys"][0]["kid"].clone()
    };
    let sync = "sync --issuer https://k8s.example --source sa.pub --target out --output json";
    let told = |arguments: &str, code: i32| -> Value {
        serde_json::from_str(&signpost(&folder, arguments).expect_code(code).stdout).expect("JSON")
    };
    let report = |dry_run: bool, target: Value| {
        let mut target = target;
        target["name"] = json!(format!("file://{}/out", folder.path().display()));
        target["required_for_rotation"] = json!(true);
        json!({"dry_run": dry_run, "issuers": [{
            "issuer": "https://k8s.example",
            "sources": [{"name": folder.path().join("sa.pub"), "keys": 1}],
            "targets": [target],
            "conditions": [],
        }]})
    };
    let dry_run = format!("{sync} --dry-run");
    let both = json!(["jwks", "discovery"]);
    assert_eq!(
        report(true, json!({"result": "differs", "documents": both, "added": [kid], "removed": []})),
        told(&dry_run, 1)
    );
    assert!(!folder.path().join("signpost-data").exists(), "a dry run writes nothing");
    assert_eq!(report(false, json!({"result": "written", "documents": both})), told(sync, 0));
    assert_eq!(report(false, json!({"result": "unchanged", "documents": []})), told(sync, 0));
    assert_eq!(
        report(true, json!({"result": "unchanged", "documents": [], "added": [], "removed": []})),
        told(&dry_run, 0)
    );
}

/// `kube-apiserver`'s output for this key, from Kubernetes' own tests (`openidmetadata_test.go`).
const KUBERNETES: &str = r#"{"use":"sig","kty":"RSA","kid":"JHJehTTTZlsspKHT-GaJxK7Kd1NQgZJu3fyK6K_QDYU","alg":"RS256","n":"249XwEo9k4tM8fMxV7zxOhcrP-WvXn917koM5Qr2ZXs4vo26e4ytdlrV0bQ9SlcLpQVSYjIxNfhTZdDt-ecIzshKuv1gKIxbbLQMOuK1eA_4HALyEkFgmS_tleLJrhc65tKPMGD-pKQ_xhmzRuCG51RoiMgbQxaCyYxGfNLpLAZK9L0Tctv9a0mJmGIYnIOQM4kC1A1I1n3EsXMWmeJUj7OTh_AjjCnMnkgvKT2tpKxYQ59PgDgU8Ssc7RDSmSkLxnrv-OrN80j6xrw0OjEiB4Ycr0PqfzZcvy8efTtFQ_Jnc4Bp1zUtFXt7-QeevePtQ2EcyELXE0i63T1CujRMWw","e":"AQAB"}"#;

#[test]
fn the_jwks_of_a_key_file_has_the_bytes_of_kube_apiserver() {
    let folder = TempDir::new().expect("a temporary folder");
    let jwk: Value = serde_json::from_str(KUBERNETES).expect("JSON");
    let number = |member: &str| {
        let text = jwk[member].as_str().expect("a number").replace('-', "+").replace('_', "/");
        let padded = format!("{text}{}", "=".repeat((4 - text.len() % 4) % 4));
        let bytes = openssl::base64::decode_block(&padded).expect("base64");
        BigNum::from_slice(&bytes).expect("a number")
    };
    let key = Rsa::from_public_components(number("n"), number("e")).and_then(PKey::from_rsa).expect("a key");
    fs::write(folder.path().join("sa.pub"), key.public_key_to_pem().expect("PEM")).expect("it is ours");
    let expected = format!("{{\"keys\":[{KUBERNETES}]}}");
    assert_eq!(expected, signpost(&folder, "jwks --source sa.pub").expect_code(0).stdout);

    let finished = signpost(&folder, "jwks --source sa.pub --issuer https://k8s.example --output-dir out");
    assert_eq!(
        "wrote out/openid/v1/jwks\nwrote out/.well-known/openid-configuration\n",
        finished.expect_code(0).stderr
    );
    let read = |path: &str| fs::read_to_string(folder.path().join("out").join(path)).expect("it was written");
    assert_eq!(expected, read("openid/v1/jwks"));
    let beside = fs::read_dir(folder.path().join("out/openid/v1")).expect("it was made").count();
    assert_eq!(1, beside, "what was staged is gone");
    assert!(read(".well-known/openid-configuration").starts_with(r#"{"issuer":"https://k8s.example","#));
}

/// One kid of 64 begins with a hyphen.
#[test]
fn a_kid_that_looks_like_a_flag_is_a_kid() {
    let folder = TempDir::new().expect("a temporary folder");
    for arguments in [["adopt", "-UrW"].as_slice(), &["adopt", "--", "-hVx"]] {
        let told = Signpost::new(["ledger"].iter().chain(arguments))
            .current_dir(folder.path())
            .finish(WITHIN)
            .expect_code(2);
        assert!(told.stderr.starts_with("error: no ledger in"), "{}", told.stderr);
    }
}

#[test]
fn documents_written_by_hand_name_the_jwks_uri_of_the_configuration() {
    let folder = TempDir::new().expect("a temporary folder");
    let key = KeyFiles::rsa(folder.path(), "sa").public;
    let config = format!(
        "issuers: [{{issuer: \"https://a.example\", jwks_uri: \"https://b.example/keys\", jwks_served_elsewhere: true, \
         sources: [{{kind: files, paths: [{}]}}]}}]",
        key.display()
    );
    fs::write(folder.path().join("config.yaml"), config).expect("the folder can be written");
    Signpost::new(["jwks", "--config", "config.yaml", "--output-dir", "out"])
        .current_dir(folder.path())
        .finish(WITHIN)
        .expect_code(0);
    let discovery = fs::read_to_string(folder.path().join("out/.well-known/openid-configuration"));
    let discovery = discovery.expect("it was written");
    assert!(discovery.contains(r#""jwks_uri":"https://b.example/keys""#), "{discovery}");
}

#[test]
fn a_token_that_is_asked_for_while_the_service_starts_is_waited_for() {
    let (public, admin) = (Port::free().address(), Port::free().address());
    let folder = TempDir::new().expect("a folder");
    let data = folder.path().join("data");
    let data_dir = data.to_str().expect("UTF-8");
    let run = ["run", "--listen", &public, "--admin-listen", &admin, "--data-dir", data_dir];
    let mut running = Signpost::new(run).start();
    eventually("it can be asked", || data.join("control.sock").exists().then_some(()));
    let token = Signpost::new(["token", "--data-dir", data_dir]).finish(Duration::from_mins(1));
    assert_eq!(token.code, Some(0), "{}\n{}", token.stderr, running.stderr());
    running.wait_for_output("signs and publishes by itself");
}

#[test]
fn the_welcome_is_for_a_first_look_and_not_for_what_somebody_has_configured() {
    let (public, admin) = (Port::free().address(), Port::free().address());
    let folder = TempDir::new().expect("a folder");
    let config = folder.path().join("signpost.yaml");
    let text = format!(
        "listen: {public}\nadmin_listen: {admin}\ndata_dir: {}\nissuers:\n  - issuer: http://{public}\n    \
         sources: [{{kind: embedded}}]\n",
        folder.path().join("data").display()
    );
    fs::write(&config, text).expect("the folder is ours");
    let mut running = Signpost::new(["run", "--config", config.to_str().expect("UTF-8")]).start();
    running.wait_for(&format!("http://{public}/openid/v1/jwks"));
    running.wait_for_output("started");
    running.terminate();
    let said = running.finish(Duration::from_mins(1)).expect_code(0).stderr;
    assert!(!said.contains("signs and publishes by itself"), "{said}");
}
