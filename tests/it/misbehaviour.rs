//! Whatever the API server answers, the publication stays correct and the process stays alive.
//!
//! The cases are known failures of other servers of these documents: an empty set, an error or a web page
//! passed on, keys lost with a restart, liveness that depends on another service.

use std::fs;
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::api_server::{Bearer, write_kubeconfig};
use crate::support::cluster::{Cluster, ISSUER};
use crate::support::eventually::eventually;
use crate::support::fault_proxy::{Action, FaultProxy, Rule};
use crate::support::http_client::Request;
use crate::support::installation::{
    DISCOVERY, DOCUMENTS, Installation, JWKS, Served, Service, api_server, directory_target, s3_target,
};
use crate::support::s3::S3;

/// Number of concurrent processes: each is idle nearly all the time.
const AT_ONCE: usize = 8;

/// An answer to a request for a document, and the expected status.
struct Case {
    name: &'static str,
    document: &'static str,
    action: fn() -> Action,
    says: &'static str,
}

#[test]
fn no_bad_jwks_is_ever_published_and_none_takes_the_last_good_one_down() {
    every_case_holds(&[
        jwks_case("unavailable", || status(503), "status 503"),
        jwks_case("unauthorized", || status(401), "status 401"),
        jwks_case("forbidden", || status(403), "status 403"),
        jwks_case("internal error", || status(500), "status 500"),
        jwks_case("not found", || status(404), "status 404"),
        jwks_case("redirected", redirected, "status 302"),
        jwks_case("no content", || status(204), "is not the expected JSON"),
        jwks_case("a web page", web_page, "its content type is `text/html`"),
        jwks_case("no keys", || json_body(r#"{"keys":[]}"#), "an empty JWKS, expected at least one key"),
        jwks_case("null keys", || json_body(r#"{"keys":null}"#), "no `keys` array, expected a JWKS"),
        jwks_case("null", || json_body("null"), "no `keys` array, expected a JWKS"),
        jwks_case("half a document", || json_body(r#"{"keys":[{"use":"sig","#), "is not the expected JSON"),
        jwks_case("cut off in the body", || Action::CutAfter(40), "broke off"),
        jwks_case("cut off before the answer", || Action::Cut, "no answer from `http://127.0.0.1:"),
        jwks_case("endless", || json_body(" ".repeat(1024 * 1024 + 1).leak()), "has more than 1048576 bytes"),
        jwks_case("a malformed key", || key(&json!({"n": "AQAB"})), "key 1 cannot be used"),
        jwks_case("a key without its numbers", || key(&json!({"n": null})), "member `n` is missing"),
        jwks_case("a private key", || key(&json!({"d": "AQAB"})), "it holds the private member `d`"),
        jwks_case("keys of unknown kinds alone", || key(&json!({"kty": "AKP"})), "of a known kind"),
        jwks_case("one kid for two keys", one_kid_for_two_keys, "names two different keys"),
    ]);
}

#[test]
fn no_bad_discovery_document_lets_unchecked_keys_in() {
    let case = |name, action, says| Case { name, document: DISCOVERY, action, says };
    every_case_holds(&[
        case("unavailable", || status(503), "cannot read the issuer of source `kubernetes`"),
        case("a web page", web_page, "its content type is `text/html`"),
        case("no issuer", || json_body("{}"), "cannot use its discovery document"),
        case("another issuer", other_issuer, "has issuer `https://oidc.example/other`, expected"),
        case("an issuer with a slash too many", || issuer(&format!("{ISSUER}/")), "expected"),
        case("cut off in the body", || Action::CutAfter(40), "broke off"),
    ]);
}

#[test]
fn a_request_that_hangs_is_given_up_and_harms_nobody() {
    every_case_holds(&[jwks_case(
        "hangs",
        || Action::Delay(Duration::from_mins(10)),
        "was not answered within 10 s",
    )]);
}

fn every_case_holds(cases: &[Case]) {
    let cluster = Cluster::shared();
    for cases in cases.chunks(AT_ONCE) {
        thread::scope(|scope| {
            for case in cases {
                let started = thread::Builder::new().name(case.name.to_owned());
                started.spawn_scoped(scope, || holds(&cluster, case)).expect("threads are to be had");
            }
        });
    }
}

/// Runs the case cold, then warm, with a recovery after each.
fn holds(cluster: &Cluster, case: &Case) {
    let rule = || [Rule::new((case.action)()).path_contains(case.document)];
    let folder = TempDir::new().expect("a temporary folder");
    let public = folder.path().join("public");
    let proxy = cluster.proxy();
    let source = api_server(&cluster.kubeconfig_through(&proxy, folder.path()));
    let settings = json!({"sources": [source], "targets": [directory_target(&public)]});
    let installation = Installation::new(ISSUER, &settings);

    proxy.script(rule());
    let mut service = installation.run();
    service.until("the source fails", |service| {
        nothing_is_served(service);
        service.status()["sources"]["kubernetes"]["failures"].as_u64() >= Some(1)
    });
    says(&service, case.says);
    assert!(!public.exists(), "something was published");

    proxy.script([]);
    service.until("it is published", |service| service.admin("/readyz").status == 200);
    let good = service.served();
    assert_eq!(kids(good.jwks()), kids(&cluster.server.jwks().text()));
    service.until("the target has it", |service| service.target("directory")["up"] == true);

    proxy.script(rule());
    if case.document == DISCOVERY {
        // A correct issuer is checked again only after a failure, or a minute.
        proxy.script([Rule::new(Action::Cut).path_contains(JWKS).once()].into_iter().chain(rule()));
    }
    let failures = |service: &Service| service.source()["failures"].as_u64().expect("a number");
    let before = failures(&service);
    service.until("the source fails", |service| failures(service) > before);
    let age = last_success(&service);
    service.until("the source fails again and again", |service| {
        still_holds(service, &good);
        failures(service) >= before + 2
    });
    says(&service, case.says);
    assert_eq!(service.source()["up"], false);
    assert_eq!(service.metric("signpost_source_up", "kubernetes"), Some(0.0));
    assert_eq!(last_success(&service), age, "a failure counts as a success");
    assert_eq!(fs::read_to_string(public.join(JWKS)).expect("it is there"), good.jwks());

    proxy.script([]);
    service.until("the source is back", |service| {
        still_holds(service, &good);
        service.source()["up"] == true
    });
    assert!(last_success(&service) > age);
    assert_eq!(service.metric("signpost_source_up", "kubernetes"), Some(1.0));
    assert_eq!(service.stop().code, Some(0));
}

/// Reports "not yet" and never "no keys", and is alive.
fn nothing_is_served(service: &Service) {
    for document in DOCUMENTS {
        let answer = service.get(document).expect_status(503);
        assert_eq!(answer.header("retry-after"), Some("5"));
        assert_eq!(answer.header("cache-control"), Some("no-store"));
        assert!(!answer.text().contains('{'), "{}", answer.text());
    }
    assert_eq!(service.admin("/readyz").status, 503);
    assert_eq!(service.admin("/healthz").status, 200);
}

fn still_holds(service: &Service, good: &Served) {
    assert_eq!(service.served(), *good);
    assert_eq!(service.admin("/readyz").status, 200);
    assert_eq!(service.admin("/healthz").status, 200);
}

#[track_caller]
fn says(service: &Service, expected: &str) {
    let source = service.source();
    let error = source["error"].as_str().expect("it failed");
    assert!(error.contains(expected), "{error}");
    let logged = || service.running.stderr().contains("source failed, keeping its last good keys");
    eventually("the failure is logged", || logged().then_some(()));
}

fn last_success(service: &Service) -> Option<f64> {
    let time = service.metric("signpost_source_last_success_timestamp_seconds", "kubernetes");
    assert!(time > Some(1.6e9), "{time:?}");
    time
}

#[test]
fn fewer_keys_than_before_are_a_retirement_that_has_to_wait() {
    let cluster = Cluster::shared();
    let (folder, proxy) = (TempDir::new().expect("a temporary folder"), cluster.proxy());
    let source = api_server(&cluster.kubeconfig_through(&proxy, folder.path()));
    let installation = Installation::new(ISSUER, &json!({"sources": [source]}));
    let mut service = installation.run_until_ready();
    let good = service.served();

    let mut shrunk: Value = serde_json::from_str(good.jwks()).expect("it is JSON");
    let gone = shrunk["keys"].as_array_mut().expect("keys").remove(0)["kid"].take();
    proxy.script([Rule::new(json_body(shrunk.to_string().leak())).path_contains(JWKS)]);
    service.until("the key is missing", |service| {
        still_holds(service, &good);
        service.metric("signpost_unlisted_keys", ISSUER) == Some(1.0)
    });
    let keys = service.status()["keys"].take();
    let keys = keys.as_array().expect("a list");
    let missing = keys.iter().find(|key| key["kid"] == gone).expect("it is known");
    assert_eq!((&missing["state"], &missing["public"]), (&json!("missing"), &json!(true)));
    assert!(missing["missing_since"].is_string(), "{missing}");

    // A process that starts while the key is missing keeps it too.
    service.running.kill();
    drop(service);
    let mut service = installation.run_until_ready();
    service
        .until("the source has answered", |service| service.status()["sources"]["kubernetes"]["up"] == true);
    still_holds(&service, &good);

    proxy.script([]);
    service.until("the key is listed again", |service| {
        still_holds(service, &good);
        service.metric("signpost_unlisted_keys", ISSUER) == Some(0.0)
    });
}

#[test]
fn a_known_kid_for_another_key_is_rejected_with_an_alarm_that_names_both() {
    let cluster = Cluster::shared();
    let (folder, proxy) = (TempDir::new().expect("a temporary folder"), cluster.proxy());
    let source = api_server(&cluster.kubeconfig_through(&proxy, folder.path()));
    let installation = Installation::new(ISSUER, &json!({"sources": [source]}));
    let mut service = installation.run_until_ready();
    let good = service.served();

    let mut forged: Value = serde_json::from_str(good.jwks()).expect("it is JSON");
    let keys = forged["keys"].as_array_mut().expect("keys");
    let mut evil = keys.remove(0);
    evil["kid"] = keys[0]["kid"].clone();
    forged["keys"] = json!([evil]);
    let kid = evil["kid"].as_str().expect("a text");
    proxy.script([Rule::new(json_body(forged.to_string().leak())).path_contains(JWKS)]);
    service.until("the alarm rings", |service| {
        still_holds(service, &good);
        service.metric("signpost_alarms", ISSUER) == Some(1.0)
    });
    let alarm =
        format!("kid `{kid}` names two different keys, one from source `kubernetes`, one from the ledger");
    assert_eq!(service.status()["alarms"], json!([alarm]));
    assert!(service.running.stderr().contains(&alarm), "{}", service.running.stderr());

    proxy.script([]);
    service.until("the alarm is over", |service| {
        still_holds(service, &good);
        service.metric("signpost_alarms", ISSUER) == Some(0.0)
    });
    assert_eq!(service.status()["alarms"], json!([]));
}

#[test]
fn a_cold_start_with_everything_down_waits_and_then_publishes_by_itself() {
    let (cluster, s3) = (Cluster::shared(), S3::start());
    s3.create_bucket("oidc");
    let folder = TempDir::new().expect("a temporary folder");
    let (mut upstream, mut store) = (cluster.proxy(), FaultProxy::start(&s3.url()));
    let source = api_server(&cluster.kubeconfig_through(&upstream, folder.path()));
    let settings = json!({"sources": [source], "targets": [s3_target(&store.url(), "oidc")]});
    let installation = Installation::new(ISSUER, &settings);

    upstream.stop();
    store.stop();
    let mut service = installation.run();
    service.until("the source fails", |service| {
        nothing_is_served(service);
        service.status()["sources"]["kubernetes"]["failures"].as_u64() >= Some(2)
    });
    let log = service.running.stderr();
    assert_eq!((log.matches("WARN").count(), log.matches("ERROR").count()), (1, 0), "{log}");

    upstream.restart();
    service.until("it is served", |service| service.admin("/readyz").status == 200);
    let good = service.served();
    service.until("the target fails", |service| {
        still_holds(service, &good);
        service.target("s3")["failures"].as_u64() >= Some(1)
    });
    assert_eq!(service.metric("signpost_target_up", "s3"), Some(0.0));

    store.restart();
    service.until("the target is true", |service| {
        still_holds(service, &good);
        service.metric("signpost_target_up", "s3") == Some(1.0)
    });
    assert_eq!(s3.get(&format!("/oidc/{JWKS}")).expect_status(200).text(), good.jwks());
}

#[test]
fn a_restart_with_everything_down_serves_the_last_good_bytes_at_once() {
    let cluster = Cluster::shared();
    let (folder, mut proxy) = (TempDir::new().expect("a temporary folder"), cluster.proxy());
    let source = api_server(&cluster.kubeconfig_through(&proxy, folder.path()));
    let installation = Installation::new(ISSUER, &json!({"sources": [source]}));
    let mut service = installation.run_until_ready();
    let good = service.served();
    let ledger = installation.ledger();
    proxy.stop();

    assert_eq!(service.stop().code, Some(0));
    for _ in 0..2 {
        // Its first answer.
        service = installation.run();
        still_holds(&service, &good);
        service.until("the source fails", |service| {
            still_holds(service, &good);
            service.status()["sources"]["kubernetes"]["failures"].as_u64() >= Some(1)
        });
        assert_eq!(service.source()["up"], false);
        assert_eq!(installation.ledger(), ledger, "a failure changes the ledger");
        service.running.kill();
        drop(service);
    }
    // A hung request gives no result for ten seconds: the ledger is served now.
    proxy.script([Rule::new(Action::Delay(Duration::from_mins(10)))]);
    proxy.restart();
    service = installation.run();
    still_holds(&service, &good);
    assert_eq!(service.status()["sources"], json!({}), "the source has failed already");
    service.running.kill();
    drop(service);

    proxy.script([]);
    service = installation.run_until_ready();
    service.until("the source is back", |service| {
        still_holds(service, &good);
        service.status()["sources"]["kubernetes"]["up"] == true
    });
}

#[test]
fn a_replaced_token_file_counts_at_once_with_or_without_a_line_break() {
    let cluster = Cluster::shared();
    let (folder, proxy) = (TempDir::new().expect("a temporary folder"), cluster.proxy());
    let (file, kubeconfig) = (folder.path().join("token"), folder.path().join("kubeconfig"));
    write_kubeconfig(&kubeconfig, &proxy.url(), cluster.server.ca_file(), &Bearer::TokenFile(&file));
    let token = || cluster.server.token("default", "signpost", &[], 600);
    let replace = |text: &str| {
        let staged = folder.path().join("staged");
        fs::write(&staged, text).expect("the folder can be written");
        fs::rename(&staged, &file).expect("it replaces the file");
    };
    let used = |token: &str| {
        let expected = format!("Bearer {token}");
        proxy.seen().iter().any(|seen| {
            seen.path.contains(JWKS) && seen.headers.get("authorization").is_some_and(|it| *it == *expected)
        })
    };

    let (first, second, third) = (token(), token(), token());
    replace(&format!("{first}\n"));
    let settings = json!({"sources": [api_server(&kubeconfig)]});
    let installation = Installation::new(ISSUER, &settings);
    let mut service = installation.run_until_ready();
    assert!(used(&first));
    let good = service.served();

    replace(&format!("{second}\n"));
    service.until("the second token is used", |service| {
        still_holds(service, &good);
        used(&second)
    });
    assert_eq!(service.source()["failures"], 0, "the exchange of tokens was no failure");

    replace("revoked\r\n");
    service.until("the API server refuses it", |service| {
        still_holds(service, &good);
        service.source()["up"] == false
    });
    let error = service.source()["error"].take();
    assert!(error.as_str().is_some_and(|error| error.contains("status 401")), "{error}");

    replace(&third);
    service.until("the third token is used", |service| {
        still_holds(service, &good);
        service.source()["up"] == true
    });
    assert!(used(&third));
}

#[test]
fn another_issuer_is_refused_before_anything_is_published() {
    let cluster = Cluster::shared();
    let folder = TempDir::new().expect("a temporary folder");
    let public = folder.path().join("public");
    let kubeconfig = folder.path().join("kubeconfig");
    cluster.server.admin_kubeconfig(&kubeconfig);
    let other = "https://oidc.example/other";
    let mut settings = json!({"sources": [api_server(&kubeconfig)], "targets": [directory_target(&public)]});
    let installation = Installation::new(other, &settings);

    let refused = installation.sync().expect_code(2);
    assert_eq!(refused.stdout.split_whitespace().collect::<Vec<_>>(), ["source", "kubernetes", "failed"]);
    assert_eq!(
        refused.stderr,
        format!(
            "error: source `kubernetes` has issuer `{ISSUER}`, expected `{other}`\n  \
             hint: correct `issuer`, or give kube-apiserver `--service-account-issuer={other}` as the first, and \
             keep the old one as the second: it issues for the first and accepts both. Relying parties \
             compare every byte, a final `/` too\n"
        )
    );
    assert!(!public.exists(), "something was published");

    let mut service = installation.run();
    service.until("the mismatch is seen", |service| {
        nothing_is_served(service);
        service.metric("signpost_source_issuer_matches", "kubernetes") == Some(0.0)
    });
    assert_eq!(service.source()["issuer_matches"], false);
    assert_eq!(service.stop().code, Some(0));
    assert!(!public.exists(), "something was published");

    settings["allow_issuer_mismatch"] = json!(true);
    installation.configure(&settings);
    installation.sync().expect_code(0);
    let discovery = fs::read_to_string(public.join(DISCOVERY)).expect("it was published");
    assert!(discovery.contains(&format!(r#""issuer":"{other}""#)), "{discovery}");
    let jwks = fs::read_to_string(public.join(JWKS)).expect("it was published");
    assert_eq!(kids(&jwks), kids(&cluster.server.jwks().text()));
}

#[test]
fn an_api_server_that_comes_back_as_another_issuer_rings_the_alarm_and_changes_nothing() {
    let cluster = Cluster::shared();
    let (folder, mut proxy) = (TempDir::new().expect("a temporary folder"), cluster.proxy());
    let source = api_server(&cluster.kubeconfig_through(&proxy, folder.path()));
    let installation = Installation::new(ISSUER, &json!({"sources": [source]}));
    let mut service = installation.run_until_ready();
    let good = service.served();
    assert_eq!(service.metric("signpost_source_issuer_matches", "kubernetes"), Some(1.0));

    proxy.stop();
    service.until("the source fails", |service| service.source()["up"] == false);
    // Its current keys are not those of this issuer.
    let strange = key(&json!({}));
    proxy
        .script([Rule::new(other_issuer()).path_contains(DISCOVERY), Rule::new(strange).path_contains(JWKS)]);
    proxy.restart();
    service.until("the mismatch is seen", |service| {
        still_holds(service, &good);
        service.metric("signpost_source_issuer_matches", "kubernetes") == Some(0.0)
    });
    says(&service, &format!("has issuer `https://oidc.example/other`, expected `{ISSUER}`"));

    // The same for a newly started process.
    service.running.kill();
    drop(service);
    let mut service = installation.run();
    service.until("the mismatch is seen", |service| {
        still_holds(service, &good);
        service.metric("signpost_source_issuer_matches", "kubernetes") == Some(0.0)
    });

    proxy.script([]);
    service.until("it is itself again", |service| {
        still_holds(service, &good);
        service.metric("signpost_source_issuer_matches", "kubernetes") == Some(1.0)
    });
}

#[test]
fn an_api_server_whose_tokens_name_another_issuer_than_its_document_rings_the_alarm() {
    let cluster = Cluster::shared();
    let (folder, proxy) = (TempDir::new().expect("a temporary folder"), cluster.proxy());
    let mut source = api_server(&cluster.kubeconfig_through(&proxy, folder.path()));
    source["probe"] = json!("default/signpost");
    // The document is that of `other_issuer`; the API server behind it signs as another.
    let installation = Installation::new("https://oidc.example/other", &json!({"sources": [source]}));
    proxy.script([Rule::new(other_issuer()).path_contains(DISCOVERY)]);

    let mut service = installation.run_until_ready();
    service.until("the mismatch is seen", |service| {
        service.metric("signpost_source_issuer_matches", "kubernetes") == Some(0.0)
    });
    service.running.wait_for_output("an API server issues tokens of another issuer");
}

#[test]
fn a_request_upstream_is_never_made_for_a_request_downstream() {
    let cluster = Cluster::shared();
    let (folder, proxy) = (TempDir::new().expect("a temporary folder"), cluster.proxy());
    let mut source = api_server(&cluster.kubeconfig_through(&proxy, folder.path()));
    // After the first poll there is no other one that could interfere.
    source["every"] = json!("24h");
    let installation = Installation::new(ISSUER, &json!({"sources": [source]}));
    let mut service = installation.run_until_ready();
    service.until("the first round is over", |_| proxy.count("POST", "/selfsubjectreviews") == 1);
    proxy.forget();
    for method in ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"] {
        for path in [JWKS, DISCOVERY, "openid/v1/jwks?x=1", "livez", "api/v1/secrets", ""] {
            Request::new(method, &service.url(path))
                .header("authorization", "Bearer of-the-client")
                .header("cookie", "session=of-the-client")
                .answer();
        }
    }
    assert_eq!(proxy.seen().len(), 0, "{:?}", proxy.seen());

    // Also with nothing to serve, when a proxy would forward the request.
    let source = api_server(&cluster.kubeconfig_through(&proxy, folder.path()));
    let cold = Installation::new(ISSUER, &json!({"sources": [source]}));
    proxy.script([Rule::new(status(503))]);
    let mut service = cold.run();
    service.until("it has polled", |service| {
        for document in DOCUMENTS {
            for method in ["GET", "HEAD", "POST"] {
                let answer = Request::new(method, &service.url(document))
                    .header("authorization", "Bearer of-the-client")
                    .header("cookie", "session=of-the-client")
                    .answer();
                assert_eq!(answer.status, if method == "POST" { 405 } else { 503 });
            }
        }
        service.status()["sources"]["kubernetes"]["failures"].as_u64() >= Some(2)
    });
    let seen = proxy.seen();
    assert!(!seen.is_empty());
    for seen in seen {
        assert_eq!(seen.headers.get("cookie"), None);
        assert_ne!(seen.headers["authorization"], "Bearer of-the-client");
        // The API servers are found by a label; nothing else has a query.
        let query = seen.query.filter(|query| !query.starts_with("labelSelector=kubernetes.io/service-name"));
        let query =
            query.filter(|query| !query.starts_with("labelSelector=apiserver.kubernetes.io/identity"));
        assert_eq!((seen.method.as_str(), query), ("GET", None));
    }
}

fn jwks_case(name: &'static str, action: fn() -> Action, says: &'static str) -> Case {
    Case { name, document: JWKS, action, says }
}

fn status(status: u16) -> Action {
    Action::Answer { status, headers: vec![], body: "" }
}

fn json_body(body: &'static str) -> Action {
    Action::Answer { status: 200, headers: vec![("content-type", "application/json")], body }
}

fn web_page() -> Action {
    let body = "<!doctype html><title>Sign in</title>";
    Action::Answer { status: 200, headers: vec![("content-type", "text/html")], body }
}

fn redirected() -> Action {
    // Followed, it would even be the right document.
    Action::Answer { status: 302, headers: vec![("location", "/openid/v1/jwks?again")], body: "" }
}

fn other_issuer() -> Action {
    issuer("https://oidc.example/other")
}

fn issuer(issuer: &str) -> Action {
    let document = json!({
        "issuer": issuer,
        "jwks_uri": format!("{issuer}/openid/v1/jwks"),
        "response_types_supported": ["id_token"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["RS256"],
    });
    json_body(document.to_string().leak())
}

/// A JWKS of one well-formed unknown RSA key, with these members instead of its own.
fn key(members: &Value) -> Action {
    let modulus = modulus('x');
    let mut key =
        json!({"use": "sig", "kty": "RSA", "kid": "strange", "alg": "RS256", "n": modulus, "e": "AQAB"});
    for (name, value) in members.as_object().expect("members") {
        key[name] = value.clone();
    }
    key.as_object_mut().expect("members").retain(|_, value| !value.is_null());
    json_body(json!({"keys": [key]}).to_string().leak())
}

/// 2048 bits, the last of which makes it odd.
fn modulus(first: char) -> String {
    format!("{first}{}AQ", "A".repeat(339))
}

fn one_kid_for_two_keys() -> Action {
    let key = |first| {
        let modulus = modulus(first);
        json!({"use": "sig", "kty": "RSA", "kid": "strange", "alg": "RS256", "n": modulus, "e": "AQAB"})
    };
    json_body(json!({"keys": [key('x'), key('y')]}).to_string().leak())
}

fn kids(jwks: &str) -> Vec<String> {
    let jwks: Value = serde_json::from_str(jwks).expect("it is JSON");
    let keys = jwks["keys"].as_array().expect("keys");
    let mut kids: Vec<String> =
        keys.iter().map(|key| key["kid"].as_str().expect("a kid").to_owned()).collect();
    kids.sort();
    kids
}
