//! Unusual keys: those of certificates, invalid ones beside valid ones, kids with terminal control
//! characters. None is published by accident, and none affects another key or another issuer.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::installation::{Installation, JWKS, Service, directory_target, files};
use crate::support::pki::{Authority, KeyFiles, ServerTls};
use crate::support::signpost::Signpost;

const ISSUER: &str = "https://oidc.example/odd";
const WITHIN: std::time::Duration = std::time::Duration::from_mins(1);

fn kids(jwks: &str) -> Vec<String> {
    let jwks: Value = serde_json::from_str(jwks).expect("a JWKS");
    let keys = jwks["keys"].as_array().expect("keys");
    keys.iter().map(|key| key["kid"].as_str().expect("a kid").to_owned()).collect()
}

fn jwk(file: &Path) -> Value {
    let said =
        Signpost::new(["jwks", "--source", file.to_str().expect("text")]).finish(WITHIN).expect_code(0);
    serde_json::from_str::<Value>(&said.stdout).expect("a JWKS")["keys"][0].take()
}

fn with(mut key: Value, member: &str, value: Value) -> Value {
    key[member] = value;
    key
}

/// Waits for two polls of the only source: at least one has started since the call.
fn asked_again(service: &mut Service) {
    let answers = |service: &Service| service.source()["answers"].as_u64();
    let before = answers(service);
    service.until("it was asked twice", |service| answers(service) > before.map(|count| count + 1));
}

/// The files that kubeadm writes to `/etc/kubernetes/pki`, under their names; returns the service account
/// key.
fn pki(folder: &Path) -> KeyFiles {
    let authority = Authority::create();
    authority.file(folder);
    fs::rename(folder.join("client-ca.crt"), folder.join("front-proxy-ca.crt")).expect("it is ours");
    authority.client(folder, "apiserver-kubelet-client");
    authority.client(folder, "front-proxy-client");
    fs::create_dir(folder.join("etcd")).expect("the folder is ours");
    ServerTls::create(&folder.join("etcd"));
    let tls = ServerTls::create(folder);
    fs::rename(tls.certificate, folder.join("apiserver.crt")).expect("it is ours");
    fs::rename(tls.key, folder.join("apiserver.key")).expect("it is ours");
    KeyFiles::rsa(folder, "sa")
}

#[test]
fn of_the_keys_of_a_control_plane_only_those_of_service_accounts_are_published() {
    let folder = TempDir::new().expect("a temporary folder");
    let pki_folder = folder.path().join("pki");
    fs::create_dir(&pki_folder).expect("the folder is ours");
    let sa = jwk(&pki(&pki_folder).public);
    let own = [sa["kid"].as_str().expect("a kid").to_owned()];
    let everything = pki_folder.join("**/*");
    for source in [&pki_folder, &everything] {
        let source = source.to_str().expect("text");
        let said = Signpost::new(["jwks", "--source", source]).finish(WITHIN).expect_code(0);
        assert_eq!(own[..], kids(&said.stdout), "{}", said.stderr);
        for name in ["apiserver.crt", "apiserver.key", "front-proxy-client.key", "ca.crt"] {
            assert!(said.stderr.contains(&format!("`{name}`")), "the warning names {name}: {}", said.stderr);
        }
        let public = folder.path().join("public");
        let arguments = ["sync", "--issuer", ISSUER, "--profile", "all", "--source", source, "--target"];
        let said = Signpost::new(arguments.into_iter().chain([public.to_str().expect("text")]));
        let said = said.finish(WITHIN).expect_code(0);
        assert!(said.stderr.contains("certificates and keys of certificates are skipped"), "{}", said.stderr);
        assert_eq!(own[..], kids(&fs::read_to_string(public.join(JWKS)).expect("published")));
        fs::remove_dir_all(public).expect("it is ours");
    }

    // Under a running service a pair is renewed, key first; neither the old nor the new key is ever public.
    let public = folder.path().join("served");
    let settings =
        json!({"profile": "all", "sources": [files(&[&pki_folder])], "targets": [directory_target(&public)]});
    let installation = Installation::new(ISSUER, &settings);
    let mut service = installation.run_until_ready();
    let elsewhere = folder.path().join("renewed");
    fs::create_dir(&elsewhere).expect("the folder is ours");
    let renewed = ServerTls::create(&elsewhere);
    for (from, to) in [(&renewed.key, "apiserver.key"), (&renewed.certificate, "apiserver.crt")] {
        fs::rename(from, pki_folder.join(to)).expect("both are ours");
        asked_again(&mut service);
        assert_eq!(own[..], kids(service.served().jwks()));
    }
    symlink(pki_folder.join("apiserver.key"), pki_folder.join("another-name")).expect("the folder is ours");
    asked_again(&mut service);
    assert_eq!(own[..], kids(service.served().jwks()));
    assert_eq!(1, installation.ledger()["keys"].as_object().expect("keys").len());
    service.stop().expect_code(0);

    // An explicitly named certificate is used.
    let named = pki_folder.join("apiserver.crt");
    let said =
        Signpost::new(["jwks", "--source", named.to_str().expect("text")]).finish(WITHIN).expect_code(0);
    assert_eq!(1, kids(&said.stdout).len());
}

#[test]
fn an_odd_key_takes_no_other_one_along_and_one_that_turned_odd_stays_public() {
    let folder = TempDir::new().expect("a temporary folder");
    let (first, second) = (KeyFiles::rsa(folder.path(), "first"), KeyFiles::rsa(folder.path(), "second"));
    let (first, second) = (jwk(&first.public), jwk(&second.public));
    let source = folder.path().join("jwks.json");
    let write = |keys: &[Value]| {
        fs::write(folder.path().join("staged"), json!({"keys": keys}).to_string())
            .expect("the folder is ours");
        fs::rename(folder.path().join("staged"), &source).expect("both are ours");
    };
    let odd = [
        with(first.clone(), "kid", json!("")),
        with(first.clone(), "kid", json!(7)),
        with(first.clone(), "kid", json!("x".repeat(2000))),
        with(first.clone(), "n", json!(format!("{}==", first["n"].as_str().expect("text")))),
        with(first.clone(), "e", json!(null)),
        json!({"kty": "EC", "kid": "ec", "crv": "P-256", "x": "AAAA", "y": "AAAA"}),
        json!({"kty": "RSA", "kid": "weak", "e": "AQAB", "n": "rrrr".repeat(42)}),
        json!("no key at all"),
    ];
    let public = folder.path().join("public");
    let settings = json!({"sources": [files(&[&source])], "targets": [directory_target(&public)]});
    let installation = Installation::new(ISSUER, &settings);
    write(&[std::slice::from_ref(&second), &odd[..]].concat());
    let mut service = installation.run_until_ready();
    let both = || {
        let mut both = [&first, &second].map(|key| key["kid"].as_str().expect("a kid").to_owned());
        both.sort_unstable();
        both
    };
    assert_eq!([second["kid"].as_str().expect("a kid")][..], kids(service.served().jwks()));
    assert_eq!(Some(8.0), service.metric("signpost_source_left_out", "files"));
    assert!(service.running.stderr().contains("is left out"), "{}", service.running.stderr());

    write(&[first.clone(), second.clone()]);
    service.until("both are public", |service| kids(service.served().jwks()) == both());
    assert_eq!(Some(0.0), service.metric("signpost_source_left_out", "files"));
    let states = |service: &Service| {
        let status = service.status();
        let keys = status["keys"].as_array().expect("keys").iter();
        keys.map(|key| key["state"].as_str().expect("text").to_owned()).collect::<Vec<_>>()
    };
    for odd in &odd[..5] {
        write(&[odd.clone(), second.clone()]);
        service.until("it is seen", |service| service.source()["left_out"] == 1);
        asked_again(&mut service);
        assert_eq!(["listed", "listed"][..], states(&service), "{odd}");
        write(&[first.clone(), second.clone()]);
        service.until("it is good again", |service| service.source()["left_out"] == 0);
    }
    // Across a restart only the ledger has this information.
    write(&[odd[0].clone(), second.clone()]);
    service.stop().expect_code(0);
    let mut service = installation.run_until_ready();
    asked_again(&mut service);
    assert_eq!(["listed", "listed"][..], states(&service));
    assert_eq!(both()[..], kids(service.served().jwks()));
    // A removed key is removed, whatever else is unusable.
    write(&[std::slice::from_ref(&second), &odd[5..7]].concat());
    service.until("it counts as missing", |service| states(service).contains(&"missing".to_owned()));
    service.stop().expect_code(0);
}

/// In a hub, the kids of one member do not affect the others.
#[test]
fn a_kid_that_draws_is_stored_and_published_as_it_is_and_stops_no_issuer() {
    let folder = TempDir::new().expect("a temporary folder");
    let evil = "evil\tkid\u{1b}[2J\u{202e}";
    let shown = "evil<U+0009>kid<U+001B>[2J<U+202E>";
    let (member, other) = (folder.path().join("member.json"), folder.path().join("other.json"));
    let key = jwk(&KeyFiles::rsa(folder.path(), "member").public);
    let good = jwk(&KeyFiles::rsa(folder.path(), "other").public);
    fs::write(&member, json!({"keys": [with(key, "kid", json!(evil))]}).to_string()).expect("it is ours");
    fs::write(&other, json!({"keys": [good]}).to_string()).expect("it is ours");
    let public = folder.path().join("public");
    let hostile = "https://oidc.example/member";
    let installation = Installation::new(ISSUER, &json!({}));
    let member_target = directory_target(&public.join("member"));
    let issuers = [
        json!({"issuer": ISSUER, "sources": [files(&[&other])], "targets": [directory_target(&public)]}),
        json!({"issuer": hostile, "sources": [files(&[&member])], "targets": [member_target]}),
    ];
    installation.configure_issuers(&issuers);
    let published = || kids(&fs::read_to_string(public.join("member").join(JWKS)).expect("published"));
    for _ in 0..2 {
        let mut service = installation.run_until_ready();
        service.until("the member is ready", |service| {
            service.admin("/status.json").json()["issuers"][hostile]["targets"]["directory"]["up"] == true
        });
        assert_eq!([evil][..], published());
        let status = service.admin("/status.json").json();
        assert_eq!(status["issuers"][hostile]["keys"][0]["kid"], json!(evil));
        assert!(!service.running.stderr().contains('\u{1b}'), "nothing draws: {}", service.running.stderr());
        service.stop().expect_code(0);
    }
    let listed = installation.finish(["ledger", "show", "--issuer", hostile]).expect_code(0);
    assert!(listed.stdout.contains(shown) && !listed.stdout.contains('\u{1b}'), "{}", listed.stdout);
    // Its printed form identifies it.
    fs::write(&member, json!({"keys": [good]}).to_string()).expect("it is ours");
    installation.finish(["sync"]).expect_code(0);
    let known = installation.finish(["ledger", "adopt", shown, "--issuer", hostile]);
    assert!(known.stderr.contains("is already published"), "it is known: {}", known.stderr);

    // An unusable ledger stops only its issuer, at the start too.
    for ledger in fs::read_dir(installation.data_dir().join("issuers")).expect("ledgers") {
        let ledger = ledger.expect("it can be read").path();
        if ledger.to_string_lossy().contains("member") {
            let _ = fs::remove_file(ledger.join("ledger.previous.json"));
            fs::write(ledger.join("ledger.json"), r#"{"version": 99}"#).expect("it is ours");
        }
    }
    let mut service = installation.run_until_ready();
    service.until("the others are served, and the one is told of", |service| {
        let alarms = service.admin("/status.json").json()["issuers"][hostile]["alarms"].take();
        alarms.to_string().contains("cannot start: ") && service.get(JWKS).status == 200
    });
    service.stop().expect_code(0);
    let said = installation.finish(["sync"]).expect_code(2);
    assert!(said.stdout.contains("unchanged"), "the other one was done: {}{}", said.stdout, said.stderr);
    let said = installation.finish(["ledger", "show"]).expect_code(2);
    assert!(
        said.stdout.contains(ISSUER) && said.stderr.contains("version 99"),
        "{}{}",
        said.stdout,
        said.stderr
    );
}
