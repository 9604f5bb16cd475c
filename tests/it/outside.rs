//! Targets as relying parties read them: directly from the store, or through a public URL.

use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::azurite::{self, Azurite};
use crate::support::fault_proxy::{FaultProxy, Seen};
use crate::support::gcs::{Gcs, Role, ServiceAccount};
use crate::support::http_client::Request;
use crate::support::installation::{
    DISCOVERY, DOCUMENTS, Installation, JWKS, Service, azure_target, directory_target, files, gcs_target,
    s3_target,
};
use crate::support::nginx::{Location, Nginx};
use crate::support::pki::KeyFiles;
use crate::support::s3::S3;
use crate::support::signpost::{Finished, Signpost};

const ISSUER: &str = "https://oidc.example/outside";

fn installation(folder: &TempDir, target: Value, options: &Value) -> Installation {
    let key = KeyFiles::rsa(folder.path(), "key");
    let mut target = target;
    for (name, value) in options.as_object().expect("options are a mapping") {
        target[name] = value.clone();
    }
    Installation::new(ISSUER, &json!({"sources": [files(&[&key.public])], "targets": [target]}))
}

fn anonymously(target: Value) -> (TempDir, Installation) {
    let folder = TempDir::new().expect("a temporary folder");
    let installation = installation(&folder, target, &json!({"anonymous": true}));
    (folder, installation)
}

/// All documents are written, and none is readable anonymously.
#[track_caller]
fn is_told_to_be_private(told: &Finished, answer: &str, hint: &str) {
    let first = told.stderr.lines().next().unwrap_or_default();
    assert!(first.starts_with("error: cannot read `http://127.0.0.1:"), "{}", told.stderr);
    assert!(first.contains("/openid/v1/jwks` of target"), "{}", told.stderr);
    let cause = format!("cause: without credentials the answer was {answer}, expected `200 OK`");
    assert!(told.stderr.contains(&cause), "{}", told.stderr);
    assert!(told.stderr.contains(hint), "{}", told.stderr);
}

#[test]
fn a_private_container_is_noticed_and_a_public_one_is_true() {
    let azurite = Azurite::start();
    azurite.create_private_container("private");
    azurite.create_public_container("public");
    let url = azurite.url();
    let target = |container| azure_target(url.trim_end_matches("/devstoreaccount1"), container);
    let (_folder, private) = anonymously(target("private/c1"));
    let told = private.sync().expect_code(2);
    let hint = "hint: allow public reads: `az storage container set-permission --account-name \
                devstoreaccount1 --name 'private' --public-access blob`";
    // Azure itself answers 404 `ResourceNotFound`.
    is_told_to_be_private(&told, "`403 Forbidden` (`AuthorizationFailure`)", hint);
    azurite.get(&format!("private/c1/{}", DOCUMENTS[0])).expect_status(200);
    let (_folder, public) = anonymously(target("public/c1"));
    public.sync().expect_code(0);
}

#[test]
fn a_private_bucket_is_noticed_until_everybody_may_read_it() {
    let s3 = S3::start();
    s3.create_bucket("oidc");
    let (_folder, installation) = anonymously(s3_target(&s3.url(), "oidc/c1"));
    let told = installation.sync().expect_code(2);
    let hint = "hint: allow public reads: allow `s3:GetObject` on `arn:aws:s3:::oidc/c1/*` to `*`";
    is_told_to_be_private(&told, "`403 Forbidden` (`AccessDenied`)", hint);
    s3.allow_anonymous_read("oidc");
    installation.sync().expect_code(0);
}

#[test]
fn a_private_bucket_of_google_is_noticed_and_a_public_one_is_true() {
    let gcs = Gcs::start();
    let account = ServiceAccount::generate("writer");
    gcs.allow(&account, Role::User);
    gcs.create_bucket("private", false);
    gcs.create_bucket("public", true);
    let sync = |bucket: &str| {
        let (_folder, installation) = anonymously(gcs_target(&gcs.url(), bucket));
        let sync = installation.verb_without_credentials(["sync"]);
        sync.env("GOOGLE_SERVICE_ACCOUNT_KEY", account.json()).finish(Duration::from_secs(90))
    };
    let told = sync("private").expect_code(2);
    let hint = "hint: allow public reads: `gcloud storage buckets add-iam-policy-binding gs://private";
    is_told_to_be_private(&told, "`403 Forbidden` (`AccessDenied`)", hint);
    sync("public").expect_code(0);
}

fn status(service: &crate::support::installation::Service) -> Value {
    service.target("azure")
}

/// A tick transfers no document that the last one has seen already, neither from the store nor from a CDN in
/// front of it.
#[test]
fn a_quiet_tick_transfers_no_document() {
    let azurite = Azurite::start();
    azurite.create_public_container("oidc");
    let store = FaultProxy::start(azurite.url().trim_end_matches(azurite::ACCOUNT));
    let cdn = FaultProxy::start(azurite.url().trim_end_matches(azurite::ACCOUNT));
    let folder = TempDir::new().expect("a temporary folder");
    let key = KeyFiles::rsa(folder.path(), "key");
    let mut target = azure_target(&store.url(), "oidc");
    target["anonymous"] = json!(true);
    target["required_for_rotation"] = json!(false);
    target["public_url"] = json!(format!("{}/{}/oidc", cdn.url(), azurite::ACCOUNT));
    let settings = json!({"sources": [files(&[&key.public])], "targets": [target], "schedule": "* * * * *"});
    let mut service = Installation::new(ISSUER, &settings).run_until_ready();
    service.until("it is published", |service| status(service)["up"] == true);
    assert_eq!(status(&service)["public_url"], "in_sync");
    assert_eq!(status(&service)["required_for_rotation"], false);
    let checks = status(&service)["checks"].as_u64().expect("a number");
    store.forget();
    cdn.forget();
    service.until("a tick", |service| status(service)["checks"].as_u64() > Some(checks));

    let anonymous = |seen: &Seen| !seen.headers.contains_key("authorization");
    for (name, proxy) in [("store", &store), ("cdn", &cdn)] {
        let asked: Vec<_> = proxy.seen().into_iter().filter(anonymous).collect();
        assert_eq!(asked.len(), 2, "{name}: {asked:?}");
        assert!(asked.iter().all(|seen| seen.headers.contains_key("if-none-match")), "{name}: {asked:?}");
    }
    assert_eq!(store.count("HEAD", "oidc"), 2);
    assert_eq!(status(&service)["public_url"], "in_sync");
}

#[test]
fn a_target_that_gates_nothing_is_told_so_and_fails_all_the_same() {
    let s3 = S3::start();
    let folder = TempDir::new().expect("a temporary folder");
    let installation =
        installation(&folder, s3_target(&s3.url(), "oidc"), &json!({"required_for_rotation": false}));
    let told = installation.sync().expect_code(2);
    assert!(told.stdout.contains("failed (rotation does not wait for it)"), "{}", told.stdout);
    assert!(told.stderr.contains("there is no bucket `oidc`"), "{}", told.stderr);
    s3.create_bucket("oidc");
    let told = installation.finish(["sync", "--output", "json"]).expect_code(0);
    let told: Value = serde_json::from_str(&told.stdout).expect("it is JSON");
    assert_eq!(told["issuers"][0]["targets"][0]["required_for_rotation"], false);
    assert_eq!(told["issuers"][0]["targets"][0]["result"], "written");
    let shown = installation.finish(["config", "show"]).expect_code(0).stdout;
    assert!(shown.contains("    anonymous: false\n    required_for_rotation: false\n"), "{shown}");
}

/// nginx sends only `Last-Modified` with a file: kube-apiserver then caches it for a tenth of its age.
#[test]
fn a_place_that_lets_the_jwks_be_kept_for_longer_than_a_rotation_waits_raises_an_alarm() {
    let folder = TempDir::new().expect("a temporary folder");
    let public = folder.path().join("public");
    let mut nginx = Nginx::start(&[("/c1/", Location::PlainFolder(public.clone()))]);
    let issuer = format!("{}/c1", nginx.url());
    let mut target = directory_target(&public);
    target["public_url"] = json!(issuer);
    let settings = json!({"sources": [{"kind": "embedded"}], "targets": [target], "schedule": "* * * * *"});
    let installation = Installation::new(&issuer, &settings);
    let run = installation.verb(["run"]).env("SSL_CERT_FILE", nginx.ca_file());
    let mut service = installation.run_as(run);
    let alarms = |service: &Service| service.status()["alarms"].to_string();
    let told = "relying parties may cache the JWKS of target `directory` for up to 86400 s";
    service.until("there is an alarm", |service| alarms(service).contains(told));

    let served = format!("http://{}/c1/", service.address());
    nginx.point(&[("/c1/", Location::Proxy(served))]);
    service.until("it is over", |service| alarms(service) == "[]");
}

/// An issuer set up by hand that relying parties read directly from the store: the documents, by name. It has
/// a key that no source lists.
fn made_by_hand<'a>(folder: &TempDir, jwks: &'a str) -> [(&'a str, String); 2] {
    let key = KeyFiles::rsa(folder.path(), "by-hand").public;
    let printed = Signpost::new(["jwks", "--source", key.to_str().expect("it is text")]);
    let printed = printed.finish(Duration::from_secs(20)).expect_code(0).stdout;
    let discovery = json!({"issuer": ISSUER, "jwks_uri": format!("{ISSUER}/{jwks}")}).to_string();
    [(jwks, printed), (DISCOVERY, discovery)]
}

#[track_caller]
fn is_kept_public(told: &Finished, document: &str, hint: &str) {
    let error = format!("and `{document}` would no longer be public once it is replaced");
    assert!(told.stderr.contains(&error), "{}", told.stderr);
    assert!(told.stderr.contains(hint), "{}", told.stderr);
}

/// Readable by its own list, or here by a policy that names only this object: a replacement would not be
/// readable.
#[test]
fn a_document_that_is_public_by_itself_is_not_replaced_until_what_is_written_is_public_too() {
    let s3 = S3::start();
    s3.create_bucket("oidc");
    let folder = TempDir::new().expect("a temporary folder");
    let documents = made_by_hand(&folder, JWKS);
    for (name, text) in &documents {
        s3.put(&format!("/oidc/c1/{name}"), "application/json", text.as_bytes());
    }
    s3.allow_anonymous_read_of("oidc", &["c1/openid/v1/jwks", "c1/.well-known/openid-configuration"]);
    let installation = installation(&folder, s3_target(&s3.url(), "oidc/c1"), &json!({}));
    let told = installation.sync().expect_code(2);
    is_kept_public(
        &told,
        JWKS,
        "hint: allow public reads: allow `s3:GetObject` on `arn:aws:s3:::oidc/c1/*` to `*`",
    );
    for (name, text) in &documents {
        assert_eq!(s3.get(&format!("/oidc/c1/{name}")).expect_status(200).text(), *text);
    }
    for directory in ["openid/v1", ".well-known"] {
        assert_eq!(s3.get(&format!("/oidc/c1/{directory}/signpost-probe")).status, 404);
    }

    s3.allow_anonymous_read("oidc");
    installation.sync().expect_code(0);
    let jwks = Request::get(&format!("{}/oidc/c1/{JWKS}", s3.url())).answer().expect_status(200).json();
    assert_eq!(jwks["keys"].as_array().map(Vec::len), Some(2), "{jwks}");
}

/// The JWKS moves to a path that the rules of the bucket do not cover.
#[test]
fn readers_are_sent_to_no_jwks_that_they_cannot_read() {
    let s3 = S3::start();
    s3.create_bucket("oidc");
    let folder = TempDir::new().expect("a temporary folder");
    let documents = made_by_hand(&folder, "keys.json");
    for (name, text) in &documents {
        s3.put(&format!("/oidc/c1/{name}"), "application/json", text.as_bytes());
    }
    s3.allow_anonymous_read_of("oidc", &["c1/keys.json", "c1/.well-known/*"]);
    let installation = installation(&folder, s3_target(&s3.url(), "oidc/c1"), &json!({}));
    // The result is the same the second time, with objects from the first.
    for _ in 0..2 {
        let told = installation.sync().expect_code(2);
        is_kept_public(&told, JWKS, "hint: allow public reads: allow `s3:GetObject`");
        let discovery = s3.get(&format!("/oidc/c1/{DISCOVERY}")).expect_status(200).text();
        assert_eq!(discovery, documents[1].1);
    }
    s3.allow_anonymous_read("oidc");
    installation.sync().expect_code(0);
}

#[test]
fn an_access_list_of_an_object_is_not_lost_without_a_word() {
    let gcs = Gcs::start();
    let account = ServiceAccount::generate("writer");
    gcs.allow(&account, Role::User);
    gcs.create_bucket("oidc", false);
    let folder = TempDir::new().expect("a temporary folder");
    let target = || gcs_target(&gcs.url(), "oidc/c1");
    let sync = |installation: &Installation| {
        let sync = installation.verb_without_credentials(["sync"]);
        sync.env("GOOGLE_SERVICE_ACCOUNT_KEY", account.json()).finish(Duration::from_secs(90))
    };
    for (name, text) in made_by_hand(&folder, JWKS) {
        gcs.put(&format!("oidc/c1/{name}"), "application/json", text.as_bytes());
        gcs.make_public(&format!("oidc/c1/{name}"));
    }
    let hint = "hint: allow public reads: `gcloud storage buckets add-iam-policy-binding gs://oidc";
    let first = installation(&folder, target(), &json!({}));
    is_kept_public(&sync(&first).expect_code(2), JWKS, hint);
    let read = |name: &str| Request::get(&format!("{}/oidc/c1/{name}", gcs.url())).answer().status;
    assert_eq!((read(JWKS), read(DISCOVERY)), (200, 200));
    assert_eq!(gcs.objects("oidc"), ["c1/.well-known/openid-configuration", "c1/openid/v1/jwks"]);

    // A document of Signpost gets its own list later: the next write removes it, and reports that.
    gcs.create_bucket("oidc", false);
    sync(&first).expect_code(0);
    for name in DOCUMENTS {
        gcs.make_public(&format!("oidc/c1/{name}"));
    }
    let next = KeyFiles::rsa(folder.path(), "next");
    first.configure(&json!({"sources": [files(&[&next.public])], "targets": [target()]}));
    let told = sync(&first).expect_code(2);
    is_told_to_be_private(&told, "`403 Forbidden` (`AccessDenied`)", hint);

    // With the rule of the bucket everything is readable, and the hand-made document is replaced.
    gcs.make_bucket_public("oidc");
    sync(&first).expect_code(0);
}
