//! Tokens and documents: Entra's answer, for real tokens and real servers.

use std::fs;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use jiff::SignedDuration;
use openssl::hash::MessageDigest;
use openssl::x509::X509;
use serde_json::{Value, json};
use signpost::clock;
use tempfile::TempDir;

use super::{AUDIENCE, DISCOVERY, JWKS, Page, SUBJECT, Stage, WITHIN, claims, parts, publish, signed};
use crate::support::api_server::{ApiServer, Options};
use crate::support::azurite::{ACCOUNT, Azurite};
use crate::support::cluster::ISSUER;
use crate::support::etcd::Etcd;
use crate::support::fault_proxy::{Action, FaultProxy, Rule};
use crate::support::in_process::InProcess;
use crate::support::installation::{Installation, directory_target, files};
use crate::support::nginx::{Location, Nginx};
use crate::support::pki::KeyFiles;
use crate::support::signpost::Signpost;

const REFUSED: i32 = 1;
const ACCEPTED: i32 = 0;
const UNKNOWN: i32 = 2;

fn page(stage: &Stage) -> Page {
    let mut page = Page::default();
    let jwks: Value = serde_json::from_slice(&fs::read(stage.folder.path().join(JWKS)).expect("it is ours"))
        .expect("it is JSON");
    let [header, _] = parts(&stage.token());
    for key in jwks["keys"].as_array().expect("keys") {
        let kid = key["kid"].as_str().expect("a kid");
        page.replace(kid, if header["kid"] == kid { "KID" } else { "OTHER-KID" });
    }
    // Keys are in the order of their random kids.
    page.replace("`OTHER-KID`, `KID`", "`KID`, `OTHER-KID`");
    page
}

#[test]
fn a_token_that_differs_from_its_credential_is_told_in_what() {
    let stage = Stage::set();
    let mut page = page(&stage);
    let token = stage.token();
    let said = |arguments: &[&str], token: &str| {
        let fixed = ["--token", "-"].iter().copied().chain(arguments.iter().copied());
        stage.verify(fixed).stdin(token).finish(WITHIN)
    };
    let whole = ["--issuer", ISSUER, "--subject", SUBJECT, "--audience", AUDIENCE];
    page.note("as it should be", &said(&whole, &token), "PUB-PRIVATE", None, ACCEPTED);

    let slash = format!("{ISSUER}/");
    page.note("E2.1 a slash", &said(&["--issuer", &slash], &token), "FIC-SLASH", Some(700_211), REFUSED);
    let [header, mut inside] = parts(&token);
    inside["iss"] = json!("https://kubernetes.default.svc.cluster.local");
    let inside = signed(&stage.cluster.keys[0], &header, &inside);
    let told = said(&["--issuer", ISSUER], &inside);
    page.note("E2.2 the default issuer", &said(&[], &inside), "TOK-ISS-DEFAULT", Some(700_211), REFUSED);
    assert!(told.stdout.contains("FIC-ISS"), "{}", told.stdout);
    let case = "system:serviceaccount:Default:signpost";
    page.note("E2.3 case", &said(&["--subject", case], &token), "FIC-CASE", Some(7_002_138), REFUSED);
    let other = "system:serviceaccount:default:app";
    page.note(
        "E2.4 another account",
        &said(&["--subject", other], &token),
        "FIC-SUB",
        Some(700_213),
        REFUSED,
    );
    let own = stage.cluster.server.token("default", "signpost", &[], 600);
    page.note("E2.5 for the API server", &said(&[], &own), "TOK-AUD", Some(700_212), REFUSED);
    let binding = stage.cluster.server.token("default", "signpost", &["api://AKSIdentityBinding"], 600);
    page.note("E2.6 for a binding", &said(&[], &binding), "TOK-AUD-IB", Some(700_212), REFUSED);
    let credentials = stage.folder.path().join("credentials.json");
    fs::write(&credentials, "[]").expect("it is ours");
    let file = ["--credentials", credentials.to_str().expect("a name of ours")];
    page.note("E2.7 on another object", &said(&file, &token), "FIC-NONE", Some(70_025), REFUSED);
    let listed = json!({"value": [
        {"name": "far", "issuer": "https://x.example", "subject": "a", "audiences": ["b"]},
        {"name": "near", "issuer": ISSUER, "subject": SUBJECT, "audiences": [format!("{AUDIENCE} ")]},
    ]});
    fs::write(&credentials, listed.to_string()).expect("it is ours");
    page.note("the nearest of two", &said(&file, &token), "FIC-AUD", Some(700_212), REFUSED);
    let others = (1..20).map(|number| {
        let subject = format!("system:serviceaccount:team:app-{number}");
        json!({"name": format!("app-{number}"), "issuer": ISSUER, "subject": subject, "audiences": [AUDIENCE]})
    });
    let own = json!({"name": "own", "issuer": ISSUER, "subject": SUBJECT, "audiences": [AUDIENCE]});
    let listed: Vec<_> = others.chain([own]).collect();
    fs::write(&credentials, json!(listed).to_string()).expect("it is ours");
    page.note("E2.11 no room for another", &said(&file, &token), "FIC-COUNT", None, ACCEPTED);
    page.compare("credentials");
}

#[test]
fn a_token_that_cannot_be_right_is_told_why() {
    let stage = Stage::set();
    let mut page = page(&stage);
    let said = |token: &str| stage.verify(["--token", "-"]).stdin(token).finish(WITHIN);
    let key = &stage.cluster.keys[0];
    let [header, _] = parts(&stage.token());

    page.note("cut off", &said(&stage.token()[..200]), "TOK-JWS", Some(50_027), REFUSED);
    let mut old = claims();
    (old["iat"], old["nbf"], old["exp"]) = (json!(1_700_000_000), json!(1_700_000_000), json!(1_700_003_600));
    page.note("E2.22 expired", &said(&signed(key, &header, &old)), "TOK-TIME", Some(700_024), REFUSED);
    let mut copy = claims();
    let start = copy["iat"].as_i64().expect("a number") - 2940;
    (copy["iat"], copy["nbf"], copy["exp"]) = (json!(start), json!(start), json!(start + 3600));
    page.note("E2.22 a copy", &said(&signed(key, &header, &copy)), "TOK-FRESH", Some(700_024), ACCEPTED);
    let mut legacy = json!({"iss": "kubernetes/serviceaccount", "sub": SUBJECT});
    legacy["kubernetes.io/serviceaccount/secret.name"] = json!("signpost-token");
    page.note("a legacy token", &said(&signed(key, &header, &legacy)), "TOK-LEGACY", Some(90_014), REFUSED);
    let mut typed = header.clone();
    typed["typ"] = json!("at+jwt");
    page.note("another type", &said(&signed(key, &typed, &claims())), "TOK-TYP", Some(5_002_727), REFUSED);
    let forged = signed(&stage.cluster.keys[1], &header, &claims());
    page.note("signed with another key", &said(&forged), "SIG", Some(7_000_274), REFUSED);
    let folder = TempDir::new().expect("a temporary folder");
    let stranger = KeyFiles::rsa(folder.path(), "stranger");
    let mut other = header.clone();
    other["kid"] = json!("another-cluster");
    page.note(
        "of another cluster",
        &said(&signed(&stranger, &other, &claims())),
        "JWKS-KID",
        Some(7_000_272),
        REFUSED,
    );
    page.compare("tokens");
}

/// Tokens with an EC key are accepted by AWS and Google, not by Entra.
#[test]
fn a_cluster_with_an_ec_key_is_for_aws_and_google() {
    let stage = Stage::set();
    let folder = TempDir::new().expect("a temporary folder");
    let key = KeyFiles::ec(folder.path(), "ec");
    let etcd = Etcd::start();
    let server = ApiServer::start(&etcd, Options::new(ISSUER, &key));
    server.create_service_account("default", "signpost");
    publish(ISSUER, &[&key], stage.folder.path());
    let said = |party: &str, audience: &str| {
        let token = server.token("default", "signpost", &[audience], 600);
        stage.verify(["--token", "-", "--for", party]).stdin(token).finish(WITHIN)
    };
    let mut page = page(&stage);
    page.note("E2.21 ES256", &said("entra", AUDIENCE), "TOK-ALG", Some(5_002_738), REFUSED);
    page.note("AWS takes it", &said("aws", "sts.amazonaws.com"), "PUB-PRIVATE", None, ACCEPTED);
    page.note("and Google too", &said("gcp", AUDIENCE), "PUB-PRIVATE", None, ACCEPTED);
    page.compare("ec");
}

#[test]
fn documents_that_entra_cannot_use_are_told_why() {
    let stage = Stage::set();
    let mut page = page(&stage);
    let token = stage.token();
    let said = || stage.verify(["--token", "-"]).stdin(&token).finish(WITHIN);

    stage.edit(DISCOVERY, |it| it["authorization_endpoint"] = json!(""));
    page.note("E2.16 an empty endpoint", &said(), "DISC-FIELDS", Some(501_661), UNKNOWN);
    stage.restore();
    stage.edit(DISCOVERY, |it| it["issuer"] = json!(format!("{ISSUER}/")));
    page.note("another issuer", &said(), "DISC-ISS", Some(501_661), REFUSED);
    stage.restore();
    let inside = format!("{}/cluster/{JWKS}", stage.nginx.url());
    page.replace(stage.nginx.address(), "127.0.0.1:6443");
    stage.edit(DISCOVERY, |it| it["jwks_uri"] = json!(inside));
    page.note("inside the cluster", &said(), "DISC-INSIDE", Some(501_661), REFUSED);
    stage.restore();
    let [header, _] = parts(&token);
    stage.edit(JWKS, |it| {
        let mut keys = it["keys"].as_array_mut().expect("keys").iter_mut();
        keys.find(|key| key["kid"] == header["kid"]).expect("it is published")["n"] = json!("not a number");
    });
    page.note("E2.17 a malformed key", &said(), "JWKS-PARSE", Some(900_612), REFUSED);
    stage.restore();
    let uses = |it: &mut Value| {
        for key in it["keys"].as_array_mut().expect("keys") {
            key.as_object_mut().expect("a key").remove("use");
        }
    };
    stage.edit(JWKS, uses);
    page.note("E2.20 without `use`", &said(), "JWKS-USE", Some(700_027), REFUSED);
    publish(ISSUER, &[&stage.cluster.keys[1]], stage.folder.path());
    page.note("E2.18 the key of before", &said(), "JWKS-KID", Some(7_000_272), REFUSED);
    stage.restore();
    fs::rename(stage.folder.path().join(".well-known"), stage.folder.path().join("well-known"))
        .expect("ours");
    page.note("E2.15 another path", &said(), "PUB-PATH", Some(90_061), REFUSED);
    page.compare("documents");
}

#[test]
fn servers_that_entra_cannot_read_are_told_why() {
    let mut stage = Stage::set();
    let token = stage.token();
    let mut page = page(&stage);
    let azurite = Azurite::start();
    azurite.create_private_container("private");
    let store = azurite.url().trim_end_matches(ACCOUNT).to_owned();
    let proxy = FaultProxy::start(&store);
    for document in [DISCOVERY, JWKS] {
        let body = fs::read(stage.folder.path().join(document)).expect("it is ours");
        azurite.put(&format!("private/{document}"), "application/json", body);
    }
    azurite.create_public_container("public");
    for document in [DISCOVERY, JWKS] {
        let body = fs::read(stage.folder.path().join(document)).expect("it is ours");
        azurite.put(&format!("public/{document}"), "application/octet-stream", body);
    }
    let at = |container: &str| Location::Proxy(format!("{}/{ACCOUNT}/{container}/", proxy.url()));
    let said = |stage: &Stage| stage.verify(["--token", "-"]).stdin(&token).finish(WITHIN);

    stage.nginx.point(&[("/cluster/", at("private"))]);
    page.note("E2.12 a private container", &said(&stage), "PUB-FIREWALL", Some(50_166), REFUSED);
    let refusal = "<Error><Code>PublicAccessNotPermitted</Code></Error>";
    proxy.script([Rule::new(Action::Answer { status: 409, headers: vec![], body: refusal })]);
    page.note("E2.14 no anonymous access", &said(&stage), "PUB-ANON", Some(50_166), REFUSED);
    proxy.script([Rule::new(Action::Answer { status: 503, headers: vec![], body: "" })]);
    page.note("a server that fails", &said(&stage), "PUB-STATUS", Some(90_061), REFUSED);
    let elsewhere = vec![("location", "https://oidc.example/elsewhere")];
    proxy.script([Rule::new(Action::Answer { status: 302, headers: elsewhere, body: "" }).once()]);
    page.note("a redirect to nothing", &said(&stage), "PUB-PATH", Some(90_061), REFUSED);
    stage.nginx.point(&[("/cluster/", at("public"))]);
    proxy.script([]);
    // The headers of a store after an upload that sets neither.
    page.note("neither a type nor an age", &said(&stage), "PUB-CACHE", Some(7_000_272), ACCEPTED);
    azurite.set_cache_control(&format!("public/{DISCOVERY}"), "public, max-age=300");
    let body: &'static str = fs::read_to_string(stage.folder.path().join(JWKS)).expect("it is ours").leak();
    let kept =
        vec![("cache-control", "max-age=86400"), ("age", "7200"), ("content-type", "application/json")];
    proxy.script([Rule::new(Action::Answer { status: 200, headers: kept, body }).path_contains("jwks")]);
    page.note("E2.29 a cache that keeps it long", &said(&stage), "PUB-CACHE", Some(7_000_272), ACCEPTED);
    page.compare("servers");
}

#[test]
fn certificates_that_nobody_trusts_are_told_so() {
    let stage = Stage::set();
    let token = stage.token();
    let mut page = page(&stage);
    let untrusted =
        stage.verify(["--token", "-"]).env("SSL_CERT_FILE", "/dev/null").stdin(&token).finish(WITHIN);
    page.note("of an unknown authority", &untrusted, "PUB-TLS", Some(501_661), REFUSED);
    let elsewhere = Nginx::start_as("other.example", &[]);
    let address = elsewhere.address();
    let arguments = ["verify", "--token", "-", "--allow-private", "--connect-to", &address];
    let named =
        Signpost::new(arguments).env("SSL_CERT_FILE", elsewhere.ca_file()).stdin(&token).finish(WITHIN);
    page.note("for another host", &named, "PUB-TLS", Some(501_661), REFUSED);
    let past = Nginx::start_expired(&[]);
    let address = past.address();
    let arguments = ["verify", "--issuer", "https://localhost", "--allow-private", "--connect-to", &address];
    let told = Signpost::new(arguments).env("SSL_CERT_FILE", past.ca_file()).finish(WITHIN);
    page.note("that has expired", &told, "PUB-TLS", None, REFUSED);
    page.compare("certificates");
}

/// AWS IAM accepts a private authority by the thumbprint of the last certificate that is presented.
#[test]
fn aws_is_told_the_thumbprint_of_an_authority_that_nobody_knows() {
    let mut stage = Stage::set();
    let authority = fs::read(stage.nginx.ca_file()).expect("it is ours");
    let presented = stage.nginx.ca_file().with_file_name("server.crt");
    let leaf = fs::read(&presented).expect("it is ours");
    let token = stage.cluster.server.token("default", "signpost", &["sts.amazonaws.com"], 600);
    let thumbprint = |pem: &[u8]| {
        let digest =
            X509::from_pem(pem).and_then(|it| it.digest(MessageDigest::sha1())).expect("a certificate");
        signpost::core::jose::publication::hex(&digest)
    };
    let verify = |stage: &Stage, party: &str, name: &str, value: &str| {
        stage.verify(["--token", "-", "--for", party]).env(name, value).stdin(&token).finish(WITHIN)
    };
    for (chain, last) in [(leaf.clone(), &leaf), ([leaf.clone(), authority.clone()].concat(), &authority)] {
        fs::write(&presented, chain).expect("it is ours");
        stage.nginx.restart();
        let told = verify(&stage, "aws", "SSL_CERT_FILE", "/dev/null").expect_code(2);
        let unless =
            format!("AWS would refuse the token, unless IAM has thumbprint `{}`\n", thumbprint(last));
        assert!(told.stdout.starts_with(&format!("unknown: {unless}")), "{}", told.stdout);
        verify(&stage, "entra", "SSL_CERT_FILE", "/dev/null").expect_code(REFUSED);
    }
    verify(&stage, "aws", "LANG", "C").expect_code(ACCEPTED);
    // Expired is expired, whatever its signer.
    let past = Nginx::start_expired(&[]);
    let address = past.address();
    let arguments = ["verify", "--issuer", "https://localhost", "--allow-private", "--for", "aws"];
    let arguments = arguments.into_iter().chain(["--connect-to", &address]);
    let told = Signpost::new(arguments).env("SSL_CERT_FILE", past.ca_file()).finish(WITHIN);
    assert!(!told.expect_code(REFUSED).stdout.contains("thumbprint"));
}

/// Google reads no URL when a JWKS was uploaded.
#[test]
fn google_takes_an_issuer_that_nobody_can_reach_with_an_uploaded_jwks() {
    let stage = Stage::set();
    let [header, mut inside] = parts(&stage.token());
    inside["iss"] = json!("https://kubernetes.default.svc.cluster.local");
    let token = signed(&stage.cluster.keys[0], &header, &inside);
    let said = |arguments: &[&str]| {
        let fixed = ["verify", "--token", "-", "--for"];
        Signpost::new(fixed.iter().chain(arguments).copied()).stdin(&token).finish(WITHIN)
    };
    let told = stage.verify(["--token", "-", "--for", "gcp"]).stdin(&token).finish(WITHIN).expect_code(2);
    let unless = "Google Cloud would refuse the token, unless the provider has an uploaded JWKS";
    assert!(told.stdout.contains(unless) && told.stdout.contains("--jwk-json-path"), "{}", told.stdout);
    assert!(!told.stdout.contains("--service-account-issuer"), "{}", told.stdout);
    let jwks = stage.folder.path().join(JWKS);
    let jwks = jwks.to_str().expect("a name of ours");
    said(&["gcp", "--jwks", jwks]).expect_code(ACCEPTED);
    said(&["entra", "--jwks", jwks]).expect_code(REFUSED);
}

#[test]
fn issuers_that_nobody_outside_can_reach_are_not_asked() {
    let stage = Stage::set();
    let [header, mut private] = parts(&stage.token());
    private["iss"] = json!("https://10.96.0.1");
    let token = signed(&stage.cluster.keys[0], &header, &private);
    let mut page = page(&stage);
    let alone = |arguments: &[&str]| {
        let fixed = ["verify", "--token", "-"].iter().chain(arguments);
        Signpost::new(fixed).stdin(&token).finish(WITHIN)
    };
    page.note("E2.13 a private address", &alone(&[]), "ISS-PUBLIC", Some(501_661), REFUSED);
    let address = stage.nginx.address();
    let connected = ["verify", "--token", "-", "--connect-to", &address];
    let told = Signpost::new(connected).stdin(stage.token()).finish(WITHIN);
    page.note("a name with a private address", &told, "PUB-REACH", Some(501_661), REFUSED);
    page.compare("private");
}

/// The clock of the server is an hour ahead, or that of the reader behind: one of them treats tokens as
/// expired.
#[test]
fn clocks_that_disagree_are_told_by_how_much() {
    let folder = TempDir::new().expect("a temporary folder");
    let documents = folder.path().to_owned();
    let server = InProcess::serve(Router::new().fallback(async move |request: Request| {
        let document = fs::read(documents.join(request.uri().path().trim_start_matches('/')));
        let ahead = clock::now() + SignedDuration::from_hours(1);
        let date = ahead.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string();
        let response = Response::builder().header("date", date).header("content-type", "application/json");
        response.body(Body::from(document.expect("it is published"))).expect("a response")
    }));
    publish(&server.url(), &[&KeyFiles::rsa(folder.path(), "key")], folder.path());
    let told = Signpost::new(["verify", "--issuer", &server.url()]).finish(WITHIN);
    let mut page = Page::default();
    page.replace(server.url(), "http://127.0.0.1:8080");
    page.note("E2.22 a clock", &told, "CLOCK", None, ACCEPTED);
    page.compare("clock");
}

/// A key that was published a moment ago may be unknown to Entra for a while: no action is needed.
#[test]
fn a_key_that_is_public_for_minutes_is_to_be_waited_for() {
    let stage = Stage::set();
    let keys = &stage.cluster.keys;
    let target = directory_target(stage.folder.path());
    let with = |sources: &[&std::path::Path]| json!({"sources": [files(sources)], "targets": [target]});
    let installation = Installation::new(ISSUER, &with(&[&keys[1].public]));
    installation.sync().expect_code(0);
    installation.configure(&with(&[&keys[1].public, &keys[0].public]));
    installation.sync().expect_code(0);
    let mut page = page(&stage);
    let ledger = installation.ledger_file();
    let arguments = ["--token", "-", "--ledger", ledger.to_str().expect("a name of ours")];
    let told = stage.verify(arguments).stdin(stage.token()).finish(WITHIN);
    page.note("E2.19 a key that is new", &told, "CACHE-WAIT", Some(7_000_272), ACCEPTED);
    assert!(told.stdout.contains("CACHE-WAIT") && told.stdout.contains("ROT-EARLY"), "{}", told.stdout);

    let target = TempDir::new().expect("a temporary folder");
    let both = [keys[0].public.as_path(), keys[1].public.as_path()];
    let settings = json!({"sources": [files(&both)], "targets": [directory_target(target.path())]});
    let before = Installation::new("https://oidc.example/before", &settings);
    before.sync().expect_code(0);
    let ledger = before.ledger_file();
    let arguments = ["--token", "-", "--ledger", ledger.to_str().expect("a name of ours")];
    let told = stage.verify(arguments).stdin(stage.token()).finish(WITHIN);
    page.note("E2.30 an issuer that was changed", &told, "ISS-CHANGE", Some(700_211), ACCEPTED);
    page.compare("ledger");
}

#[test]
fn a_report_for_programs_has_the_documented_shape_and_no_token() {
    let stage = Stage::set();
    let token = stage.token();
    let arguments = ["--token", "-", "--for", "all", "--output", "json", "--issuer", &format!("{ISSUER}/")];
    let told = stage.verify(arguments).stdin(&token).finish(WITHIN).expect_code(REFUSED);
    let document: Value = serde_json::from_str(&told.stdout).expect("it is JSON");
    assert_eq!(document["outcome"], "refused");
    let reports = document["reports"].as_array().expect("reports");
    let parties: Vec<_> = reports.iter().map(|report| &report["for"]).collect();
    assert_eq!(parties, ["entra", "aws", "gcp"]);
    for report in reports {
        let first = &report["findings"][0];
        assert_eq!((&first["id"], &first["likely_first"]), (&json!("FIC-SLASH"), &json!(true)));
        let codes = if report["for"] == "entra" { json!([700_211]) } else { json!([]) };
        assert_eq!(first["predicted_codes"], codes);
        assert_eq!(first["difference"]["kind"], "final_slash");
        assert_eq!(report["outcome"], "refused");
    }
    for part in token.split('.') {
        assert!(!told.stdout.contains(part) && !told.stderr.contains(part), "a token is shown");
    }
}

/// It is published while the operator waits.
#[test]
fn a_publication_that_is_on_its_way_is_waited_for() {
    let stage = Stage::set();
    let hidden = stage.folder.path().join("later");
    let shown = stage.folder.path().join(".well-known");
    fs::rename(&shown, &hidden).expect("it is ours");
    let mut running = stage.verify(["--token", "-", "--wait", "10m"]).stdin(stage.token()).start();
    running.wait_for_output("waiting for at most 10 min: PUB-PATH discovery document at");
    fs::rename(&hidden, &shown).expect("it is ours");
    let told = running.finish(WITHIN).expect_code(ACCEPTED);
    assert!(told.stdout.starts_with("accepted: "), "{}", told.stdout);
    assert_eq!(told.stderr.lines().count(), 1, "{}", told.stderr);

    let expired = signed(
        &stage.cluster.keys[0],
        &parts(&stage.token())[0],
        &json!({
            "iss": ISSUER, "sub": SUBJECT, "aud": [AUDIENCE], "iat": 1_700_000_000, "exp": 1_700_003_600,
        }),
    );
    let told = stage.verify(["--token", "-", "--wait", "10m"]).stdin(expired).finish(WITHIN);
    assert_eq!((told.code, told.stderr.as_str()), (Some(REFUSED), ""), "time does not cure it");
}
