//! kube-apiserver signs through `signpost signer`: upstream's own tests of an external signer, and the effect
//! on tokens while keys change, signers die and disks are full.

use std::collections::BTreeSet;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::time::{Duration, Instant};

use base64ct::{Base64UrlUnpadded, Encoding as _};
use rustix::process::{Resource, Rlimit, prlimit};
use serde_json::{Value, json};

use crate::support::api_server::{ApiServer, Options};
use crate::support::etcd::Etcd;
use crate::support::eventually::eventually;
use crate::support::external_signer::{ExternalSigner, request, started};
use crate::support::pki::KeyFiles;
use crate::support::signpost::Signpost;
use tempfile::TempDir;

const ISSUER: &str = "https://issuer.example";
const OTHERS: &str = "api://AzureADTokenExchange";
const AT_MOST: Duration = Duration::from_mins(1);

fn token(server: &ApiServer, audience: &str) -> String {
    server.token("shop", "till", &[audience], 600)
}

fn header(token: &str) -> Value {
    let header = token.split('.').next().expect("a header");
    serde_json::from_slice(&Base64UrlUnpadded::decode_vec(header).expect("base64url")).expect("JSON")
}

fn is_accepted(server: &ApiServer, token: &str, audience: &str) -> bool {
    server.review(token, &[audience])["authenticated"] == true
}

fn kids(server: &ApiServer) -> BTreeSet<String> {
    let jwks = server.jwks().expect_status(200).json();
    let keys = jwks["keys"].as_array().expect("keys").clone();
    keys.iter().map(|key| key["kid"].as_str().expect("a kid").to_owned()).collect()
}

#[test]
fn kube_apiserver_waits_for_its_signer_and_then_has_tokens_for_itself_and_when_it_is_ready_for_others() {
    let etcd = Etcd::start();
    let mut signer = ExternalSigner::stopped(ISSUER, "");
    let mut server = ApiServer::stopped(&etcd, signer.options());
    let begun = Instant::now();
    server.begin(signer.options());
    // The signer starts three seconds late.
    eventually("it is late", || (begun.elapsed() > Duration::from_secs(3)).then_some(()));
    assert!(server.admin_request("GET", "/readyz").send().is_err(), "nobody can have told it a key");
    signer.restart();
    server.wait_until_ready();
    server.create_namespace("shop");
    server.create_service_account("shop", "till");

    let discovery = server.discovery().expect_status(200).json();
    assert_eq!(discovery["issuer"], ISSUER);
    assert_eq!(discovery["id_token_signing_alg_values_supported"], json!(["RS256"]));
    let (active, standby) = (signer.signing(), signer.standby());
    assert_eq!(kids(&server), BTreeSet::from([active.clone(), standby]));

    let own = token(&server, ISSUER);
    assert_eq!(header(&own), json!({"alg": "RS256", "kid": active, "typ": "JWT"}));
    assert!(is_accepted(&server, &own, ISSUER));
    let refused = request(&server, OTHERS).expect_status(500).text();
    assert!(refused.contains("not ready"), "{refused}");
    for secret in [active.as_str(), "keys", "signpost", "order"] {
        assert!(!refused.contains(secret), "{refused} says `{secret}`");
    }
    signer.order(&active);
    let others = token(&server, OTHERS);
    assert!(is_accepted(&server, &others, OTHERS));
    let told = signer.running().stderr().matches("token not signed").count();
    assert_eq!(told, 1, "{}", signer.running().stderr());
}

#[test]
fn a_rotation_and_a_revocation_need_no_restart_and_cost_no_live_token() {
    let etcd = Etcd::start();
    let signer = ExternalSigner::start(ISSUER, "");
    let mut server = started(&signer, &etcd);
    let process = server.id();
    let (first, second) = (signer.signing(), signer.standby());
    signer.order(&first);
    let old = token(&server, OTHERS);
    signer.order(&second);
    let new = token(&server, OTHERS);
    assert_eq!(header(&new)["kid"], second.as_str());
    assert!(is_accepted(&server, &old, OTHERS) && is_accepted(&server, &new, OTHERS));
    let third = signer.standby();
    eventually("the next key is public before it signs", || kids(&server).contains(&third).then_some(()));
    assert_eq!(kids(&server), BTreeSet::from([first.clone(), second.clone(), third]));
    let announced = signer.announcement()["keys"][&first]["stage"]["retired"]["latest_exp"].clone();
    assert!(announced.is_string(), "{announced}");

    signer.revoke(&second);
    eventually("nobody lists it any more", || (!kids(&server).contains(&second)).then_some(()));
    // The API server caches accepted tokens for ten seconds.
    eventually("its tokens are refused", || (!is_accepted(&server, &new, OTHERS)).then_some(()));
    assert!(is_accepted(&server, &old, OTHERS), "another key signed it");
    assert!(is_accepted(&server, &token(&server, ISSUER), ISSUER));
    request(&server, OTHERS).expect_status(500);
    assert_eq!(server.id(), process, "it was not restarted");
}

/// The sum of a metric of kube-apiserver, over its labels.
fn metric(server: &ApiServer, name: &str) -> f64 {
    let page = server.admin_request("GET", "/metrics").answer().expect_status(200).text();
    let values =
        page.lines().filter(|line| line.starts_with(name)).filter_map(|line| line.rsplit(' ').next());
    values.map(|value| value.parse::<f64>().expect("a number")).sum()
}

/// `test/integration/serviceaccount/external_jwt_signer_test.go` and `TestCompleteForServiceAccount`
/// upstream.
#[test]
fn kube_apiserver_takes_a_set_for_new_exactly_when_it_is_and_caps_tokens_as_the_signer_says() {
    let etcd = Etcd::start();
    let signer = ExternalSigner::start(ISSUER, "");
    let server = started(&signer, &etcd);
    signer.standby();
    let fetches = || metric(&server, "apiserver_externaljwt_fetch_keys_request_total");
    let changed = || metric(&server, "apiserver_externaljwt_fetch_keys_data_timestamp");
    let three_fetches = || {
        let before = fetches();
        eventually("it asks again and again", || (fetches() >= before + 3.0).then_some(()));
    };
    three_fetches();
    let quiet = changed();
    three_fetches();
    assert!((changed() - quiet).abs() < f64::EPSILON, "the same set, and another date");
    let max_age = server.jwks().header("cache-control").expect("a header").to_owned();
    assert!(["public, max-age=0", "public, max-age=1"].contains(&max_age.as_str()), "{max_age}");
    signer.order(&signer.standby());
    eventually("the next standby is a change", || (changed() > quiet).then_some(()));

    // Creating the account also issues a token, and a lifetime over the signer's limit is cut.
    let body = json!({
        "apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest",
        "spec": {"audiences": [ISSUER], "expirationSeconds": 7 * 24 * 3600},
    });
    let path = "/api/v1/namespaces/shop/serviceaccounts/till/token";
    let status =
        server.admin_request("POST", path).json(&body).answer().expect_status(201).json()["status"].take();
    let token = status["token"].as_str().expect("a token");
    let claims = Base64UrlUnpadded::decode_vec(token.split('.').nth(1).expect("claims")).expect("base64url");
    let claims: Value = serde_json::from_slice(&claims).expect("JSON");
    let second = |claim: &str| claims[claim].as_i64().expect("a number");
    assert_eq!(second("exp") - second("iat"), 24 * 3600, "`max_token_lifetime`, by the Metadata call");
    let review = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"});
    let myself = server.request_as(token, "POST", "/apis/authentication.k8s.io/v1/selfsubjectreviews");
    let myself = myself.json(&review).answer().expect_status(201).json();
    assert_eq!(myself["status"]["userInfo"]["username"], "system:serviceaccount:shop:till");
}

#[test]
fn tokens_go_on_through_a_signer_that_is_killed_again_and_again() {
    let etcd = Etcd::start();
    let mut signer = ExternalSigner::start(ISSUER, "");
    let server = started(&signer, &etcd);
    let (first, second) = (signer.signing(), signer.standby());
    signer.order(&first);
    let mut tokens = Vec::new();
    for round in 0..6_u64 {
        tokens.push(token(&server, OTHERS));
        if round == 3 {
            signer.order(&second);
        }
        // Killed at an arbitrary moment.
        let asked = Instant::now();
        while asked.elapsed() < Duration::from_millis(37 * round) {
            tokens.push(token(&server, OTHERS));
        }
        signer.kill();
        signer.restart();
    }
    tokens.push(token(&server, OTHERS));
    for token in &tokens {
        assert!(is_accepted(&server, token, OTHERS), "{:?}", header(token));
    }
    // A signer that died between generating a key and recording it has an additional key, which has signed
    // nothing.
    let needed = BTreeSet::from([first, second, signer.standby()]);
    eventually("all are known", || kids(&server).is_superset(&needed).then_some(()));
}

/// Its API server answers everything except token requests, so the hint must not name the API server.
#[test]
fn where_the_signer_is_away_it_is_named_and_not_the_api_server() {
    let etcd = Etcd::start();
    let mut signer = ExternalSigner::start(ISSUER, "");
    let server = started(&signer, &etcd);
    let config = signer.folder().join("kubeconfig");
    server.admin_kubeconfig(&config);
    signer.kill();
    let account = ["--service-account", "shop/till", "--source", "kubernetes:test"];
    for verb in ["verify", "token"] {
        let told =
            Signpost::new([verb].into_iter().chain(account)).env("KUBECONFIG", &config).finish(AT_MOST);
        let told = told.expect_code(2);
        let hint =
            "hint: where kube-apiserver has `--service-account-signing-endpoint`, see whether the signer";
        assert!(told.stderr.contains(hint), "{verb}: {}", told.stderr);
    }
}

#[test]
fn keys_of_before_are_trusted_and_shown_as_the_operator_says() {
    let (etcd, folder) = (Etcd::start(), TempDir::new().expect("a temporary folder"));
    let key = KeyFiles::rsa(folder.path(), "sa");
    let mut server = ApiServer::start(&etcd, Options::new(ISSUER, &key));
    server.create_namespace("shop");
    server.create_service_account("shop", "till");
    let before = token(&server, ISSUER);
    let kid = header(&before)["kid"].as_str().expect("a kid").to_owned();

    let legacy = |exclude| {
        format!("additional_verification_keys: [{{file: {}, exclude: {exclude}}}]", key.public.display())
    };
    let mut signer = ExternalSigner::start(ISSUER, &legacy(true));
    server.restart_with(signer.options());
    assert!(is_accepted(&server, &before, ISSUER));
    assert!(!kids(&server).contains(&kid));
    assert!(is_accepted(&server, &token(&server, ISSUER), ISSUER));

    signer.kill();
    signer.set(&legacy(false));
    signer.restart();
    eventually("it is shown", || kids(&server).contains(&kid).then_some(()));
    signer.kill();
    signer.set("");
    signer.restart();
    eventually("it is gone", || (!kids(&server).contains(&kid)).then_some(()));
    eventually("its tokens are refused", || (!is_accepted(&server, &before, ISSUER)).then_some(()));
}

/// Both runbooks of `docs/rotation.md`.
#[test]
fn a_signer_takes_the_key_of_before_over_and_files_take_over_from_a_signer() {
    let (etcd, folder) = (Etcd::start(), TempDir::new().expect("a temporary folder"));
    let key = KeyFiles::rsa(folder.path(), "sa");
    let mut server = ApiServer::start(&etcd, Options::new(ISSUER, &key));
    server.create_namespace("shop");
    server.create_service_account("shop", "till");
    let mut tokens = vec![token(&server, OTHERS)];
    let mut signer = ExternalSigner::stopped(ISSUER, "");
    fs::set_permissions(&key.private, Permissions::from_mode(0o600)).expect("it is ours");
    signer.import(&key.private).finish(AT_MOST).expect_code(0);
    signer.restart();
    server.restart_with(signer.options());
    tokens.push(token(&server, OTHERS));
    assert_eq!(header(&tokens[0])["kid"], header(&tokens[1])["kid"], "the same key goes on, for everybody");
    signer.order(&signer.standby());
    tokens.push(token(&server, OTHERS));
    assert_ne!(header(&tokens[1])["kid"], header(&tokens[2])["kid"]);

    let next = KeyFiles::rsa(folder.path(), "next");
    let mut options = Options::new(ISSUER, &next);
    let files =
        fs::read_dir(signer.keys()).expect("it is there").map(|entry| entry.expect("readable").path());
    options
        .verification_keys
        .extend(files.filter(|file| file.extension().is_some_and(|found| found == "pub")));
    server.restart_with(options);
    signer.kill();
    tokens.push(token(&server, OTHERS));
    for token in &tokens {
        assert!(is_accepted(&server, token, OTHERS), "{:?}", header(token));
    }
}

#[test]
fn a_full_disk_stops_only_what_could_not_be_recorded() {
    let etcd = Etcd::start();
    let mut signer = ExternalSigner::start(ISSUER, "");
    let server = started(&signer, &etcd);
    let (first, second) = (signer.signing(), signer.standby());
    signer.order(&first);
    let covered = token(&server, OTHERS);
    let before = (signer.journal(), signer.announcement());
    let pid = signer.running().pid();
    let limit = |bytes| {
        let limit = Rlimit { current: bytes, maximum: None };
        prlimit(Some(pid), Resource::Fsize, limit).expect("the process is ours");
    };
    limit(Some(0));
    signer.order_without_waiting(&second);
    // A later `exp` than the journal allows: ten minutes from now are covered for a minute, an hour is not.
    let body = json!({
        "apiVersion": "authentication.k8s.io/v1",
        "kind": "TokenRequest",
        "spec": {"audiences": [OTHERS], "expirationSeconds": 3600},
    });
    let path = "/api/v1/namespaces/shop/serviceaccounts/till/token";
    let refused = server.admin_request("POST", path).json(&body).answer().expect_status(500).text();
    assert!(refused.contains("cannot sign") && !refused.contains("signer.json"), "{refused}");
    assert_eq!(header(&token(&server, OTHERS))["kid"], first.as_str(), "what is covered goes on");
    assert_eq!((signer.journal(), signer.announcement()), before);
    limit(None);
    eventually("the order is obeyed", || (signer.journal()["signing"] == second.as_str()).then_some(()));
    let after = server.admin_request("POST", path).json(&body).answer().expect_status(201);
    let after = after.json()["status"]["token"].as_str().expect("a token").to_owned();
    for token in [&covered, &after] {
        assert!(is_accepted(&server, token, OTHERS));
    }
}

#[test]
fn a_keyring_that_cannot_be_trusted_or_written_starts_no_signer() {
    let mut signer = ExternalSigner::start(ISSUER, "");
    let second = signer.command().finish(AT_MOST).expect_code(2);
    let holder = format!("is held by process {}", signer.running().id());
    assert!(second.stderr.contains(&holder), "{}", second.stderr);
    let kid = signer.signing();
    signer.kill();

    let (file, journal) = (signer.keys().join(format!("{kid}.pem")), signer.keys().join("signer.json"));
    let pem = fs::read(&file).expect("it is there");
    let refused = |signer: &ExternalSigner, what: &str| {
        let finished = signer.command().finish(AT_MOST).expect_code(2);
        assert!(finished.stderr.contains(what), "{}", finished.stderr);
        assert!(!signer.socket().exists() || fs::remove_file(signer.socket()).is_ok());
    };
    fs::set_permissions(&file, Permissions::from_mode(0o640)).expect("it is ours");
    refused(&signer, "has mode 0640, expected 0600");
    fs::set_permissions(&file, Permissions::from_mode(0o600)).expect("it is ours");
    fs::write(&file, &pem[..pem.len() / 2]).expect("it is ours");
    refused(&signer, "not an unencrypted RSA or P-256 key in PEM");
    fs::write(&file, &pem).expect("it is ours");
    let text = fs::read(&journal).expect("it is there");
    fs::write(&journal, &text[..text.len() / 2]).expect("it is ours");
    refused(&signer, "remove the file");
    fs::write(&journal, &text).expect("it is ours");
    signer.restart();
    assert_eq!(signer.signing(), kid, "nothing was changed meanwhile");
}

#[test]
fn what_is_lost_of_a_keyring_costs_no_live_token() {
    let etcd = Etcd::start();
    let mut signer = ExternalSigner::start(ISSUER, "");
    let server = started(&signer, &etcd);
    let first = signer.signing();
    signer.order(&first);
    let mut tokens = vec![token(&server, OTHERS)];

    // The journal: the key is kept, and the order that still stands is followed.
    signer.kill();
    fs::remove_file(signer.keys().join("signer.json")).expect("it is there");
    signer.restart();
    assert_eq!(signer.signing(), first);
    tokens.push(token(&server, OTHERS));

    // The private key: another one signs, only for the API server.
    signer.kill();
    fs::remove_file(signer.keys().join(format!("{first}.pem"))).expect("it is there");
    signer.restart();
    assert_ne!(signer.signing(), first);
    assert!(is_accepted(&server, &token(&server, ISSUER), ISSUER));
    request(&server, OTHERS).expect_status(500);
    for token in &tokens {
        assert!(is_accepted(&server, token, OTHERS), "its public key is kept");
    }
    assert!(signer.announcement()["keys"][&first]["stage"].get("retired").is_some());
    // A write that a crash has truncated.
    signer.kill();
    let half = signer.keys().join(".half.pem.tmp");
    fs::write(&half, "-----BEGIN PRIVATE KEY-----").expect("it is ours");
    signer.restart();
    assert!(!half.exists());
}
