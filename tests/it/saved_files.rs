//! Text files as editors and shells save them: with a byte order mark, in UTF-16 as PowerShell's `>` writes
//! it, with Windows line endings. All are read; what clients would make of a token file is reported.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::installation::{DISCOVERY, Installation, JWKS};
use crate::support::signpost::{Finished, Signpost};

const ISSUER: &str = "https://oidc.example/people";
const SUBJECT: &str = "system:serviceaccount:demo:demo";
const WITHIN: Duration = Duration::from_mins(1);

/// A way to save a text.
type Save = fn(&str) -> Vec<u8>;

/// Ways to save a text, and the finding about a token saved in that way.
const WAYS: [(&str, Save, Option<&str>); 5] = [
    ("as it is", |text| text.as_bytes().to_vec(), None),
    (
        "UTF-8 with a mark",
        |text| ["\u{feff}", text].concat().into_bytes(),
        Some("begins with a byte order mark"),
    ),
    (
        "PowerShell 5",
        |text| utf_16(&crlf(&format!("{text}\n"))),
        Some("it is in UTF-16, and it ends with a line break"),
    ),
    (
        "big-endian",
        |text| [0xfe, 0xff].into_iter().chain(text.encode_utf16().flat_map(u16::to_be_bytes)).collect(),
        Some("it is in UTF-16"),
    ),
    ("PowerShell 7", |text| crlf(&format!("{text}\n")).into_bytes(), Some("it ends with a line break")),
];

fn crlf(text: &str) -> String {
    text.replace('\n', "\r\n")
}

fn utf_16(text: &str) -> Vec<u8> {
    [0xff, 0xfe].into_iter().chain(text.encode_utf16().flat_map(u16::to_le_bytes)).collect()
}

struct Files(TempDir);

impl Files {
    fn save(&self, name: &str, content: Vec<u8>) -> String {
        let path: PathBuf = self.0.path().join(name);
        fs::write(&path, content).expect("the folder is ours");
        path.to_str().expect("text").to_owned()
    }
}

fn said(arguments: &[&str]) -> Finished {
    Signpost::new(arguments).finish(WITHIN)
}

#[test]
fn files_that_people_saved_are_read_and_a_token_file_is_told_from_its_token() {
    let installation = Installation::new(ISSUER, &json!({"sources": [{"kind": "embedded"}]}));
    let service = installation.run_until_ready();
    let data_dir = installation.data_dir();
    let data_dir = data_dir.to_str().expect("text");
    let minted = said(&["token", "--data-dir", data_dir, "--expiration", "10m"]).expect_code(0);
    // The output is a file here, which holds exactly the token.
    assert!(!minted.stdout.ends_with('\n'), "{:?}", minted.stdout);
    let (jwks, discovery) = (service.get(JWKS).text(), service.get(DISCOVERY).text());
    service.stop().expect_code(0);
    // As `az … show` prints it: one object.
    let credential = json!({"name": "one", "issuer": ISSUER, "subject": SUBJECT, "audiences": ["api://AzureADTokenExchange"]});
    let config = fs::read_to_string(installation.config_file()).expect("it is ours");
    let manifest = "\
apiVersion: v1
kind: Pod
spec:
  containers:
    - command:
        - kube-apiserver
        - --service-account-issuer=https://oidc.example/people
        - --service-account-signing-endpoint=/run/signpost/signer.sock
";
    let key = Path::new(data_dir).join("keys");
    let key = fs::read_dir(key).expect("a keyring").map(|entry| entry.expect("it can be read").path());
    let key = key.into_iter().find(|path| path.extension().is_some_and(|extension| extension == "pub"));
    let key = fs::read_to_string(key.expect("a public key")).expect("PEM");
    let files = Files(TempDir::new().expect("a temporary folder"));
    for (way, save, told) in WAYS {
        let token = files.save("token", save(&minted.stdout));
        let (jwks, discovery) = (files.save("jwks", save(&jwks)), files.save("discovery", save(&discovery)));
        let credentials = files.save("credentials", save(&credential.to_string()));
        let verify =
            ["verify", "--output", "json", "--token", &token, "--jwks", &jwks, "--discovery", &discovery];
        let report = said(&[&verify[..], &["--credentials", &credentials]].concat()).expect_code(0);
        let report: Value = serde_json::from_str(&report.stdout).expect("JSON");
        let findings: Vec<_> = report["reports"][0]["findings"].as_array().into_iter().flatten().collect();
        let file = findings.iter().find(|finding| finding["id"] == "TOK-FILE");
        let seen = file.map(|finding| finding["seen"].as_str().expect("text"));
        assert_eq!(told.is_some(), seen.is_some(), "{way}: {report}");
        assert!(seen.is_none_or(|seen| seen.contains(told.unwrap_or_default())), "{way}: {seen:?}");
        // A pipe is not a file that a client would send.
        let piped = ["verify", "--token", "-", "--jwks", &jwks];
        let piped = Signpost::new(piped).stdin(save(&minted.stdout)).finish(WITHIN).expect_code(0);
        assert!(!piped.stdout.contains("TOK-FILE"), "{way}: {}", piped.stdout);

        let config = files.save("config.yaml", save(&config));
        assert!(
            said(&["config", "check", "--config", &config]).expect_code(0).stdout.contains("good"),
            "{way}"
        );
        let key = files.save("sa.pub", save(&key));
        said(&["jwks", "--source", &key]).expect_code(0);
        let socket = ["--socket", "/run/signpost/signer.sock", "--issuer", ISSUER];
        let manifest = files.save("kube-apiserver.yaml", save(manifest));
        let check = [&["signer", "check", "--apiserver-manifest", &manifest][..], &socket].concat();
        let checked = said(&check);
        assert!(
            checked.code.is_some_and(|code| code < 2) && checked.stdout.contains("ok"),
            "{way}: {checked:?}"
        );
    }
}
