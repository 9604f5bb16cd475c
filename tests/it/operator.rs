//! Messages to the operator of a signing issuer, and the effect of the operator's commands: clocks,
//! revocations, unmanaged keys.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::Duration;

use base64ct::{Base64UrlUnpadded, Encoding as _};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{
    clock::Clock,
    installation::{Installation, JWKS, Service, directory_target, files},
    pki::KeyFiles,
    signpost::Signpost,
};

const ISSUER: &str = "http://127.0.0.1:8080/operator";
const NODE: &str = "embedded";
const WITHIN: Duration = Duration::from_mins(1);
/// A little more than a year, in seconds.
const FAR: i64 = 400 * 24 * 3600;

fn kids(jwks: &str) -> BTreeSet<String> {
    let jwks: Value = serde_json::from_str(jwks).expect("JSON");
    let keys = jwks["keys"].as_array().expect("keys").iter();
    keys.map(|key| key["kid"].as_str().expect("a kid").to_owned()).collect()
}

fn token(installation: &Installation) -> Option<String> {
    let data_dir = installation.data_dir().display().to_string();
    let made = installation.finish(["token", "--audience", "api://x", "--data-dir", data_dir.as_str()]);
    let header = made.stdout.split('.').next().filter(|_| made.code == Some(0))?.to_owned();
    let header: Value =
        serde_json::from_slice(&Base64UrlUnpadded::decode_vec(&header).expect("base64url")).expect("JSON");
    Some(header["kid"].as_str().expect("a kid").to_owned())
}

fn alarms(service: &Service) -> String {
    service.status()["alarms"].to_string()
}

fn order(service: &Service) -> Value {
    service.status()["nodes"][NODE]["order"].take()
}

#[test]
fn a_clock_that_was_ahead_once_holds_nothing_for_longer_than_a_retention() {
    let settings = json!({
        "jwks_max_age": "1s", "propagation": "2s", "rotate_after": "5s", "margin": "1s", "max_token_lifetime": "10s",
        "sources": [{"kind": "embedded"}],
    });
    let (installation, clock) = (Installation::new(ISSUER, &settings), Clock::right());
    clock.set(FAR);
    let environment = clock.environment().into_iter();
    let command =
        environment.fold(installation.verb(["run"]), |command, (name, value)| command.env(name, value));
    let mut service = installation.run_as(command);
    service.until("a key is of age", |service| order(service)["reason"] == "age");
    assert!(!alarms(&service).contains("ahead"), "nobody can know");

    clock.set(0);
    service.until("it rings", |service| alarms(service).contains("a clock was ahead"));
    let told = installation.finish(["rotate", "status"]).expect_code(0).stdout;
    assert!(told.contains("(in the future)") && !told.contains("ago ago"), "{told}");
    let (signs, before) = (token(&installation), order(&service));
    assert!(signs.is_some(), "it goes on");
    service.until("the next key signs", |service| {
        let now = order(service);
        now["sign"] != before["sign"] && token(&installation).is_some_and(|kid| now["sign"] == kid.as_str())
    });
    service.until("it is over", |service| alarms(service) == "[]");
    let ordered: jiff::Timestamp = order(&service)["at"].as_str().expect("text").parse().expect("a time");
    assert!(ordered < signpost::clock::now() + Duration::from_mins(1), "{ordered}");
    assert_eq!(service.status()["ledger"]["incidents"].as_array().map(Vec::len), Some(1), "it is told once");
    service.stop().expect_code(0);
}

/// An issuer whose next key takes an hour until it is ready, with a directory as target.
fn slow(folder: &Path) -> Installation {
    let settings = json!({
        "jwks_max_age": "1s", "propagation": "1h", "rotate_after": "720h", "margin": "1s",
        "max_token_lifetime": "10m", "sources": [{"kind": "embedded"}],
        "targets": [directory_target(&folder.join("public"))],
    });
    Installation::new(ISSUER, &settings)
}

fn ready(installation: &Installation) -> (Service, String) {
    let mut service = installation.run_until_ready();
    let mut first = None;
    service.until("it signs for everybody", |_| {
        first = token(installation);
        first.is_some()
    });
    (service, first.expect("a token"))
}

#[test]
fn a_revocation_with_a_new_key_is_signed_for_by_one_that_was_never_public() {
    let folder = TempDir::new().expect("a folder");
    let installation = slow(folder.path());
    let (mut service, first) = ready(&installation);
    service.until("there is a standby", |service| kids(&service.get(JWKS).text()).len() == 2);
    let before = kids(&service.get(JWKS).text());
    let standby = before.iter().find(|kid| **kid != first).expect("a standby").clone();
    let verb = |words: &[&str]| installation.finish(["rotate", "revoke", "--yes"].iter().chain(words));

    let refused = verb(&["--sign-with-new-key", "--", &standby]).expect_code(2).stderr;
    assert!(refused.contains(&format!("no node signs with key `{standby}`")), "{refused}");
    assert_eq!(kids(&service.get(JWKS).text()), before, "nothing has changed");

    let beginning = &first[..12];
    let told = verb(&["--sign-with-new-key", "--", beginning]).expect_code(0).stderr;
    assert!(told.contains(&format!("revoked {first} of {ISSUER}")), "{told}");
    assert!(told.contains("Microsoft Entra"), "what it costs: {told}");
    service.until("a new key signs", |_| token(&installation).is_some_and(|kid| !before.contains(&kid)));
    let new = token(&installation).expect("it signs");
    let public = fs::read_to_string(folder.path().join("public").join(JWKS)).expect("it is there");
    for public in [kids(&public), kids(&service.get(JWKS).text())] {
        assert!(public.contains(&new) && !public.contains(&first), "{public:?}");
    }
    service.until("its order says why", |service| order(service)["reason"] == "unseen");
    service.until("it rings", |service| alarms(service).contains("on the operator's request"));
    service.stop().expect_code(0);
}

#[test]
fn a_key_that_nobody_knows_is_told_of_with_what_it_means_and_goes_by_the_operators_word() {
    let folder = TempDir::new().expect("a folder");
    let (installation, stranger) = (slow(folder.path()), KeyFiles::rsa(folder.path(), "stranger"));
    let (mut service, _) = ready(&installation);
    let file = folder.path().join("public").join(JWKS);
    let listed = |text: &str| kids(text);
    service
        .until("it is published", |_| fs::read_to_string(&file).is_ok_and(|jwks| !listed(&jwks).is_empty()));
    let source = stranger.public.display().to_string();
    let jwks = installation.verb(["jwks", "--source", &source, "--issuer", ISSUER]).finish(WITHIN);
    let jwks = jwks.expect_code(0).stdout;
    let kid = kids(&jwks).pop_first().expect("a key");
    fs::write(&file, &jwks).expect("the folder is ours");
    installation.sync();
    service.until("it is in the log", |service| {
        let log = service.running.stderr();
        log.contains("anyone with its private key can impersonate your workloads") && log.contains(&kid)
    });
    let line = format!("target `directory` has unmanaged key `{kid}`");
    service.until("it is in the way of nothing, and there", |service| {
        let page = service.admin("/readyz").expect_status(200).text();
        page.lines().any(|found| found.starts_with("[-]") && found.contains(&line))
    });
    let status = installation.finish(["rotate", "status"]).expect_code(0).stdout;
    assert!(status.contains(&format!("warning: target directory has unmanaged key {kid}")), "{status}");

    let told = installation.finish(["rotate", "revoke", "--yes", "--", &kid]).expect_code(0).stderr;
    assert!(told.contains("unmanaged, at target directory"), "{told}");
    service.until("it is gone", |_| fs::read_to_string(&file).is_ok_and(|jwks| !jwks.contains(&kid)));
    service.until("it is over", |service| !service.admin("/readyz").text().contains(&kid));
    service.stop().expect_code(0);
}

#[test]
fn who_asks_about_an_issuer_that_is_not_configured_is_answered_from_its_ledger() {
    let folder = TempDir::new().expect("a folder");
    let installation = slow(folder.path());
    let (service, first) = ready(&installation);
    service.stop().expect_code(0);
    let data_dir = installation.data_dir().display().to_string();
    let unconfigured = |words: &[&str]| {
        let (verb, rest) = words.split_at(2);
        Signpost::new([verb, &["--data-dir", data_dir.as_str()], rest].concat()).finish(WITHIN)
    };
    let status = unconfigured(&["rotate", "status"]).expect_code(0);
    assert!(status.stdout.contains(&format!("issuer {ISSUER} at ")), "{status:?}");
    let signs = format!("signs with {first} for external audiences");
    assert!(status.stdout.contains(&signs), "{status:?}");
    assert!(status.stdout.lines().any(|line| line.trim() == first), "whole, to be copied: {status:?}");
    assert!(status.stderr.contains("is not in the configuration: using default times"), "{status:?}");
    let reports = unconfigured(&["rotate", "status", "--output", "json"]).expect_code(0).stdout;
    let reports: Value = serde_json::from_str(&reports).expect("JSON");
    assert_eq!(reports[0]["nodes"][NODE]["active_keys"], json!([first]));

    // An unknown name fails before the confirmation, which would need a terminal.
    let unknown = unconfigured(&["rotate", "forget", "cp-9"]).expect_code(2).stderr;
    assert!(unknown.ends_with("error: node `cp-9` is unknown\n  hint: it has `embedded`\n"), "{unknown}");
    let asked = unconfigured(&["rotate", "forget", NODE]).expect_code(2).stderr;
    assert!(asked.contains("confirmation needs a terminal"), "{asked}");
    // A revocation needs no configuration.
    unconfigured(&["rotate", "revoke", "--yes", "--", &first[..8]]).expect_code(0);
    assert!(installation.ledger()["keys"][&first]["state"]["revoked"].is_object());
}

#[test]
fn a_start_says_whether_all_is_well_and_a_source_that_fails_is_told_of_once_for_each_reason() {
    let folder = TempDir::new().expect("a folder");
    let key = KeyFiles::rsa(folder.path(), "key");
    let file = folder.path().join("watched.pub");
    let good = fs::read(&key.public).expect("it was just made");
    fs::write(&file, &good).expect("the folder is ours");
    let settings =
        json!({"sources": [files(&[&file])], "targets": [directory_target(&folder.path().join("public"))]});
    let installation = Installation::new("https://issuer.example/told", &settings);
    let mut service = installation.run_until_ready();
    let lines = |service: &Service, text: &str| service.running.stderr().matches(text).count();
    service.until("all was tried", |service| lines(service, "issuer is published") == 1);
    let log = service.running.stderr();
    let line = log.lines().find(|line| line.contains("issuer is published")).expect("it was just there");
    for part in ["keys=1", "sources=\"1 of 1 answer\"", "targets=\"1 of 1 in sync\""] {
        assert!(line.contains(part), "{line}");
    }

    let failures = |service: &Service| service.source()["failures"].as_u64().expect("a number");
    for round in 0..10 {
        if round % 2 == 0 {
            fs::remove_file(&file).expect("it is there");
        } else {
            fs::write(&file, format!("no key {round}")).expect("the folder is ours");
        }
        let before = failures(&service);
        service.until("it is asked again", |service| failures(service) > before + 1);
    }
    fs::write(&file, &good).expect("the folder is ours");
    service.until("it is back", |service| lines(service, "source answers again") == 1);
    let told = lines(&service, "source failed, keeping its last good keys");
    assert!((2..=3).contains(&told), "{told} lines\n{}", service.running.stderr());
    service.stop().expect_code(0);
}

#[test]
fn an_error_that_ends_the_process_is_json_where_the_log_is() {
    for words in [
        &["run", "--log-format", "json", "--config", "/nowhere/signpost.yaml"][..],
        &["run", "--log-format=json", "--isuer", "https://k8s.example"],
        &["rotate", "status", "--log-format", "json", "--data-dir", "/nowhere"],
    ] {
        let ended = Signpost::new(words).finish(WITHIN).expect_code(2);
        let line: Value = serde_json::from_str(&ended.stderr).expect("one line of JSON");
        assert_eq!((&line["level"], &line["message"]), (&json!("ERROR"), &json!("fatal")), "{line}");
        assert!(line["error"].is_string() && line["hint"].is_string(), "{line}");
        assert!(line["timestamp"].as_str().is_some_and(|at| at.parse::<jiff::Timestamp>().is_ok()), "{line}");
    }
}
