//! Targets with existing hand-made documents, before Signpost publishes there.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::azurite::{self, Azurite};
use crate::support::installation::{
    DISCOVERY, Installation, JWKS, azure_target, directory_target, files, s3_target,
};
use crate::support::nginx::{Location, Nginx};
use crate::support::pki::KeyFiles;
use crate::support::s3::S3;
use crate::support::signpost::{Finished, Signpost};

const ISSUER: &str = "https://oidc.example/by-hand";

/// A cluster with its own key, and an issuer set up by hand that lists an additional one.
struct ByHand {
    folder: TempDir,
    issuer: String,
    key: PathBuf,
    /// The JWKS written by hand.
    jwks: String,
    /// The kid that no source lists.
    second: String,
}

impl ByHand {
    fn new(issuer: &str) -> Self {
        let folder = TempDir::new().expect("a temporary folder");
        let [key, second] = ["sa", "second"].map(|name| KeyFiles::rsa(folder.path(), name).public);
        let jwks = printed(&[&key, &second]);
        let second = kids(printed(&[&second])).remove(0);
        Self { folder, issuer: issuer.to_owned(), key, jwks, second }
    }

    fn discovery(&self, jwks_uri: &str) -> String {
        json!({
            "issuer": self.issuer,
            "jwks_uri": jwks_uri,
            "response_types_supported": ["id_token"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["RS256"],
        })
        .to_string()
    }

    /// Writes both documents by hand into a directory.
    fn fill(&self, directory: &Path, jwks_uri: &str, jwks: &str) {
        fs::create_dir_all(directory.join(".well-known")).expect("the folder is ours");
        fs::write(directory.join(DISCOVERY), self.discovery(jwks_uri)).expect("the folder is ours");
        let jwks = directory.join(jwks);
        fs::create_dir_all(jwks.parent().expect("a path")).expect("the folder is ours");
        fs::write(jwks, &self.jwks).expect("the folder is ours");
    }

    fn installation(&self, targets: &Value) -> Installation {
        Installation::new(&self.issuer, &json!({"sources": [files(&[&self.key])], "targets": targets}))
    }

    fn public(&self) -> PathBuf {
        self.folder.path().join("public")
    }
}

fn printed(keys: &[&Path]) -> String {
    let sources = keys.iter().flat_map(|key| ["--source".to_owned(), key.display().to_string()]);
    let verb = ["jwks".to_owned()].into_iter().chain(sources);
    Signpost::new(verb).finish(Duration::from_secs(20)).expect_code(0).stdout
}

fn kids(jwks: impl AsRef<[u8]>) -> Vec<String> {
    let jwks: Value = serde_json::from_slice(jwks.as_ref()).expect("it is JSON");
    let keys = jwks["keys"].as_array().expect("keys").iter();
    keys.map(|key| key["kid"].as_str().expect("a kid").to_owned()).collect()
}

/// Checks the published documents: Signpost's own path, with both keys.
#[track_caller]
fn is_complete(by_hand: &ByHand, discovery: impl AsRef<[u8]>, jwks: impl AsRef<[u8]>) {
    let discovery: Value = serde_json::from_slice(discovery.as_ref()).expect("it is JSON");
    assert_eq!(discovery["jwks_uri"], format!("{}/{JWKS}", by_hand.issuer));
    let shown = kids(jwks);
    assert!(shown.len() == 2 && shown.contains(&by_hand.second), "{shown:?}");
}

/// Both documents in the file system.
fn documents(directory: &Path) -> [Option<Vec<u8>>; 2] {
    [JWKS, DISCOVERY].map(|document| fs::read(directory.join(document)).ok())
}

#[test]
fn a_takeover_keeps_the_keys_of_the_jwks_that_the_old_documents_named() {
    let by_hand = ByHand::new(ISSUER);
    let (azurite, s3) = (Azurite::start(), S3::start());
    azurite.create_public_container("oidc");
    s3.create_bucket("oidc");
    let jwks_uri = format!("{ISSUER}/keys.json");
    let discovery = by_hand.discovery(&jwks_uri);
    by_hand.fill(&by_hand.public(), &jwks_uri, "keys.json");
    azurite.put(&format!("oidc/c1/{DISCOVERY}"), "application/json", discovery.clone());
    azurite.put("oidc/c1/keys.json", "application/json", by_hand.jwks.clone());
    s3.put(&format!("/oidc/c1/{DISCOVERY}"), "application/json", discovery.as_bytes());
    s3.put("/oidc/c1/keys.json", "application/json", by_hand.jwks.as_bytes());
    let endpoint = azurite.url();
    let installation = by_hand.installation(&json!([
        azure_target(endpoint.trim_end_matches(&format!("/{}", azurite::ACCOUNT)), "oidc/c1"),
        s3_target(&s3.url(), "oidc/c1"),
        directory_target(&by_hand.public()),
    ]));

    // Everything is reported before any write.
    let before = documents(&by_hand.public());
    let plan = installation.finish(["sync", "--dry-run"]).expect_code(1).stdout;
    assert_eq!(plan.matches(&format!("the JWKS moves here from `{jwks_uri}`")).count(), 3, "{plan}");
    assert_eq!(plan.matches(&format!("= {}", by_hand.second)).count(), 3, "{plan}");
    assert!(!plan.lines().any(|line| line.trim_start().starts_with("- ")), "{plan}");
    assert_eq!(documents(&by_hand.public()), before);

    let told = installation.sync().expect_code(0).stdout;
    assert_eq!(told.matches(&format!("the JWKS was at `{jwks_uri}`")).count(), 3, "{told}");
    let [jwks, discovery] = documents(&by_hand.public()).map(|document| document.expect("it was written"));
    is_complete(&by_hand, discovery, jwks);
    let read = |path: &str| azurite.get(&format!("oidc/c1/{path}")).expect_status(200).text();
    is_complete(&by_hand, read(DISCOVERY), read(JWKS));
    let read = |path: &str| s3.get(&format!("/oidc/c1/{path}")).expect_status(200).text();
    is_complete(&by_hand, read(DISCOVERY), read(JWKS));

    // The old files stay unchanged, and the next pass reports nothing.
    let ledger = installation.finish(["ledger", "show"]).expect_code(0).stdout;
    assert!(ledger.lines().any(|row| row.contains(&by_hand.second) && row.contains("unmanaged")), "{ledger}");
    let again = installation.sync().expect_code(0).stdout;
    assert_eq!(again.matches("unchanged").count(), 3, "{again}");
    assert!(!again.contains("the JWKS was at"), "{again}");
}

#[test]
fn a_jwks_on_another_host_is_read_as_a_relying_party_reads_it() {
    let elsewhere = TempDir::new().expect("a temporary folder");
    let nginx = Nginx::start(&[("/other/", Location::Folder(elsewhere.path().to_owned()))]);
    let by_hand = ByHand::new(&format!("{}/cluster", nginx.url()));
    let jwks_uri = format!("{}/other/keys.json", nginx.url());
    by_hand.fill(&by_hand.public(), &jwks_uri, "unused.json");
    let installation = by_hand.installation(&json!([directory_target(&by_hand.public())]));
    let sync = |arguments: &[&str]| {
        let verb = installation.verb(["sync"].iter().chain(arguments));
        verb.env("SSL_CERT_FILE", nginx.ca_file()).finish(Duration::from_mins(1))
    };

    // Nothing shows that the directory is read at this URL: it is not taken over.
    let before = documents(&by_hand.public());
    for refused in [sync(&["--dry-run"]), sync(&[])] {
        is_refused(&refused.expect_code(2), &format!("`{jwks_uri}` cannot be read: status 404"));
    }
    assert_eq!(documents(&by_hand.public()), before);

    fs::write(elsewhere.path().join("keys.json"), &by_hand.jwks).expect("the folder is ours");
    sync(&[]).expect_code(0);
    let [jwks, discovery] = documents(&by_hand.public()).map(|document| document.expect("it was written"));
    is_complete(&by_hand, discovery, jwks);
}

#[test]
fn a_takeover_that_cannot_keep_every_key_needs_the_operators_word() {
    let by_hand = ByHand::new(ISSUER);
    // Not an internet address: it is not contacted.
    by_hand.fill(&by_hand.public(), "https://10.0.0.1/keys.json", "keys.json");
    let installation = by_hand.installation(&json!([directory_target(&by_hand.public())]));
    let before = documents(&by_hand.public());
    let refused = installation.sync().expect_code(2);
    is_refused(
        &refused,
        "`https://10.0.0.1/keys.json` cannot be read: its addresses are not public addresses",
    );
    assert_eq!(documents(&by_hand.public()), before);

    let mut service = installation.run();
    service.until("the service refuses too", |service| {
        let error = service.target("directory")["error"].to_string();
        error.contains("cannot be read")
    });
    assert_eq!(documents(&by_hand.public()), before);
    service.stop();

    installation.finish(["sync", "--adopt"]).expect_code(0);
    let [jwks, _] = documents(&by_hand.public()).map(|document| document.expect("it was written"));
    assert_eq!(kids(jwks).len(), 1);
}

/// A reader configured with the URL of a JWKS needs no discovery document, such as an API server.
#[test]
fn a_jwks_alone_is_taken_over_with_all_its_keys_or_not_at_all() {
    let by_hand = ByHand::new(ISSUER);
    let jwks = by_hand.public().join(JWKS);
    let installation = by_hand.installation(&json!([directory_target(&by_hand.public())]));
    fs::create_dir_all(jwks.parent().expect("a path")).expect("the folder is ours");
    let mut unknown: Value = serde_json::from_str(&by_hand.jwks).expect("JSON");
    let key = json!({"kty": "OKP", "crv": "Ed25519", "kid": "ed", "x": "AA"});
    unknown["keys"].as_array_mut().expect("keys").push(key);
    fs::write(&jwks, unknown.to_string()).expect("the folder is ours");
    let refused = installation.sync().expect_code(2).stderr;
    assert!(refused.contains("would lose `ed` (Ed25519)"), "{refused}");
    assert_eq!(fs::read_to_string(&jwks).expect("it stays"), unknown.to_string());

    fs::write(&jwks, &by_hand.jwks).expect("the folder is ours");
    installation.sync().expect_code(0);
    let [jwks, _] = documents(&by_hand.public()).map(|document| document.expect("it was written"));
    assert!(kids(jwks).contains(&by_hand.second));
}

/// At the URL that readers of the old documents already use.
#[test]
fn the_jwks_is_written_served_and_read_back_where_jwks_uri_says() {
    let public = TempDir::new().expect("a temporary folder");
    let nginx = Nginx::start(&[("/cluster/", Location::Folder(public.path().to_owned()))]);
    let by_hand = ByHand::new(&format!("{}/cluster", nginx.url()));
    let jwks_uri = format!("{}/keys.json", by_hand.issuer);
    by_hand.fill(public.path(), &jwks_uri, "keys.json");
    let mut target = directory_target(public.path());
    target["public_url"] = json!(by_hand.issuer);
    let installation = Installation::new(
        &by_hand.issuer,
        &json!({"sources": [files(&[&by_hand.key])], "targets": [target], "jwks_uri": jwks_uri}),
    );
    let mut service = installation.run_as(installation.verb(["run"]).env("SSL_CERT_FILE", nginx.ca_file()));
    service.until("it is true", |service| service.target("directory")["public_url"] == "in_sync");
    let shown = nginx.get("/cluster/keys.json").answer().expect_status(200).text();
    assert!(kids(&shown).contains(&by_hand.second), "{shown}");
    assert_eq!(
        kids(service.get("keys.json").expect_status(200).text()).len(),
        1,
        "the listener has its own keys"
    );
    service.get(JWKS).expect_status(404);
    assert!(!public.path().join(JWKS).exists());
    let discovery = service.get(DISCOVERY).expect_status(200).json();
    assert_eq!(discovery["jwks_uri"], jwks_uri);
}

#[test]
fn a_jwks_that_somebody_else_serves_is_read_back_from_there() {
    let folder = TempDir::new().expect("a temporary folder");
    let [public, elsewhere] = ["public", "elsewhere"].map(|name| folder.path().join(name));
    fs::create_dir(&elsewhere).expect("the folder is ours");
    fs::create_dir(&public).expect("the folder is ours");
    let nginx = Nginx::start(&[
        ("/cluster/", Location::Folder(public.clone())),
        ("/elsewhere/", Location::Folder(elsewhere.clone())),
    ]);
    let issuer = format!("{}/cluster", nginx.url());
    let jwks_uri = format!("{}/elsewhere/keys", nginx.url());
    let key = KeyFiles::rsa(folder.path(), "sa").public;
    let mut target = directory_target(&public);
    target["public_url"] = json!(issuer);
    let mut settings = json!({"sources": [files(&[&key])], "targets": [target], "jwks_uri": jwks_uri});
    let installation = Installation::new(&issuer, &settings);
    let told = installation.finish(["config", "check"]).expect_code(2).stderr;
    assert!(told.contains("hint: remove `jwks_uri`; if another server serves the JWKS there, add"), "{told}");

    settings["jwks_served_elsewhere"] = json!(true);
    installation.configure(&settings);
    let sync = || {
        let verb = installation.verb(["sync"]).env("SSL_CERT_FILE", nginx.ca_file());
        verb.finish(Duration::from_mins(1))
    };
    let told = sync().expect_code(2).stderr;
    assert!(told.contains(&format!("cannot read `{jwks_uri}` of target `directory`")), "{told}");
    // In any format.
    let jwks: Value = serde_json::from_slice(&fs::read(public.join(JWKS)).expect("written")).expect("JSON");
    let pretty = serde_json::to_string_pretty(&jwks).expect("JSON");
    fs::write(elsewhere.join("keys"), pretty).expect("the folder is ours");
    let told = sync().expect_code(0).stdout;
    assert!(told.contains("unchanged") && !told.contains("older publication"), "{told}");
}

/// The command in a hint works as printed, and means the same issuer, keys and targets.
#[test]
fn a_hint_has_the_flags_in_use_and_nothing_is_taken_over_without_an_issuer() {
    let by_hand = ByHand::new(ISSUER);
    by_hand.fill(&by_hand.public(), "https://10.0.0.1/keys.json", "keys.json");
    let sync = |arguments: &[&str]| {
        Signpost::new(["sync"].iter().chain(arguments))
            .current_dir(by_hand.folder.path())
            .finish(Duration::from_mins(1))
    };
    let flags = ["--issuer", ISSUER, "--source", "sa.pub", "--target", "public", "--data-dir", "my data"];
    let told = sync(&flags).expect_code(2).stderr;
    let command = format!(
        "`signpost sync --issuer {ISSUER} --source sa.pub --target public --data-dir 'my data' --adopt`"
    );
    assert!(told.contains(&command), "{told}");

    let told = sync(&["--adopt"]).expect_code(2).stderr;
    assert_eq!(
        told,
        "error: `--adopt` needs an issuer to take targets over for\n  hint: pass the flags that Signpost \
         publishes with: `--config FILE`, or `--issuer URL` and the others\n"
    );
    assert!(!by_hand.folder.path().join("signpost-data").exists(), "an issuer of its own was made");

    let told = sync(&["--issuer", ISSUER, "--source", "sa.pub"]).expect_code(2).stderr;
    assert_eq!(
        told,
        "error: nothing is published: no issuer has a target\n  hint: pass `--target URL`, or let `signpost run \
         --issuer https://oidc.example/by-hand --source sa.pub` serve the documents\n"
    );
    sync(&[&flags[..], &["--adopt"]].concat()).expect_code(0);
}

#[track_caller]
fn is_refused(told: &Finished, reason: &str) {
    assert!(told.stderr.starts_with("error: cannot publish to target `directory`\n"), "{}", told.stderr);
    assert!(told.stderr.contains(reason), "{}", told.stderr);
    assert!(told.stderr.contains("hint: make `"), "{}", told.stderr);
}
