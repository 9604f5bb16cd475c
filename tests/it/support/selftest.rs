//! Checks the behaviour of the components that other tests rely on.

use std::fs;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::api_server::{ApiServer, Bearer, Options};
use super::azurite::{self, Azurite};
use super::etcd::Etcd;
use super::fault_proxy::{Action, FaultProxy, Rule};
use super::http_client::Request;
use super::nginx::{Location, Nginx};
use super::pki::KeyFiles;
use super::port::Port;
use super::relying_party::RelyingParty;
use super::s3::S3;
use super::signpost::Signpost;

const AUDIENCE: &str = "api://AzureADTokenExchange";
const DISCOVERY: &str = ".well-known/openid-configuration";
const JWKS: &str = "openid/v1/jwks";

#[test]
fn two_api_servers_on_one_etcd_accept_each_others_tokens() {
    let folder = TempDir::new().expect("a temporary folder");
    let (first_key, second_key) = (KeyFiles::rsa(folder.path(), "a"), KeyFiles::ec(folder.path(), "b"));
    let mut options = Options::new("https://issuer.example", &first_key);
    options.verification_keys.push(second_key.public.clone());

    let etcd = Etcd::start();
    let first = ApiServer::start(&etcd, options.clone());
    options.signing_key = Some(second_key.private.clone());
    let second = ApiServer::start(&etcd, options);

    first.create_namespace("shop");
    first.create_service_account("shop", "till");
    for (signer, other) in [(&first, &second), (&second, &first)] {
        let token = signer.token("shop", "till", &[AUDIENCE], 600);
        let review = other.review(&token, &[AUDIENCE]);
        assert_eq!(review["user"]["username"], "system:serviceaccount:shop:till", "{review}");
    }
}

#[test]
fn a_service_account_may_read_discovery_and_nobody_in_particular_may_not() {
    let folder = TempDir::new().expect("a temporary folder");
    let key = KeyFiles::ec(folder.path(), "a");
    let port = Port::free();
    let issuer = format!("https://{}", port.address());
    let etcd = Etcd::start();
    let server = ApiServer::start(&etcd, Options { port: Some(port), ..Options::new(&issuer, &key) });

    let discovery = server.discovery().expect_status(200).json();
    assert_eq!(discovery["issuer"], issuer);
    assert_eq!(discovery["jwks_uri"], format!("{issuer}/{JWKS}"));
    let path = format!("/{DISCOVERY}");
    server.request("GET", &path).answer().expect_status(403);
    server.create_service_account("default", "reader");
    let token = server.token("default", "reader", &[], 600);
    server.request_as(&token, "GET", &path).answer().expect_status(200);

    let (admin, reader) = (folder.path().join("admin"), folder.path().join("reader"));
    server.admin_kubeconfig(&admin);
    server.kubeconfig(&reader, &Bearer::TokenFile(&key.public));
    for file in [admin, reader] {
        let text = fs::read_to_string(file).expect("it was written");
        assert!(text.contains(&server.url()), "{text}");
    }
}

#[test]
fn a_restart_keeps_the_data_and_takes_the_new_key() {
    let folder = TempDir::new().expect("a temporary folder");
    let (old, new) = (KeyFiles::ec(folder.path(), "old"), KeyFiles::ec(folder.path(), "new"));
    let issuer = "https://issuer.example";
    let mut etcd = Etcd::start();
    let mut server = ApiServer::start(&etcd, Options::new(issuer, &old));
    server.create_namespace("shop");
    server.create_service_account("shop", "till");
    let token = server.token("shop", "till", &[AUDIENCE], 600);
    let url = server.url();

    server.stop();
    assert!(Request::get(&url).send().is_err(), "a stopped API server answers");
    etcd.stop();
    etcd.restart();
    server.restart_with(Options::new(issuer, &new));

    assert_eq!(server.url(), url);
    assert_eq!(server.review(&token, &[AUDIENCE])["authenticated"], serde_json::Value::Null);
    server.token("shop", "till", &[AUDIENCE], 600);
}

/// The main promise of the product, with the product's part done by hand.
#[test]
fn a_kubernetes_token_is_accepted_by_strangers_who_read_azurite_through_nginx() {
    let (azurite, container) = (Azurite::start(), "oidc");
    azurite.create_public_container(container);
    let store = format!("{}/{container}/some/prefix/", azurite.url());
    let nginx = Nginx::start(&[("/some/prefix/", Location::Proxy(store))]);
    let issuer = format!("{}/some/prefix", nginx.url());
    let jwks_flag = format!("--service-account-jwks-uri={issuer}/{JWKS}");

    let folder = TempDir::new().expect("a temporary folder");
    let etcd = Etcd::start();
    for (account, key) in
        [("rsa", KeyFiles::rsa(folder.path(), "rsa")), ("ec", KeyFiles::ec(folder.path(), "ec"))]
    {
        let mut options = Options::new(&issuer, &key);
        options.extra_flags.push(jwks_flag.clone());
        let server = ApiServer::start(&etcd, options);
        let put =
            |name, body| azurite.put(&format!("{container}/some/prefix/{name}"), "application/json", body);
        put(DISCOVERY, server.discovery().expect_status(200).body);
        put(JWKS, server.jwks().expect_status(200).body);
        server.create_service_account("default", account);
        let token = server.token("default", account, &[AUDIENCE], 600);

        for party in RelyingParty::ALL {
            let verify = |issuer: &str, audience, token: &str| {
                party.verify(issuer, audience, Some(nginx.ca_file()), token)
            };
            let claims = verify(&issuer, AUDIENCE, &token).expect("a valid token");
            assert_eq!(claims["sub"], format!("system:serviceaccount:default:{account}"));
            for (why, refused) in [
                ("another audience", verify(&issuer, "somebody else", &token)),
                ("a slash too many", verify(&format!("{issuer}/"), AUDIENCE, &token)),
                ("a forged signature", verify(&issuer, AUDIENCE, &forged(&token))),
                ("an unknown CA", party.verify(&issuer, AUDIENCE, Some(server.ca_file()), &token)),
            ] {
                assert!(refused.is_err(), "{party:?} accepts {why}: {refused:?}");
            }
        }
    }
}

#[test]
fn an_issuer_on_plain_http_is_read_by_the_relying_parties() {
    let folder = TempDir::new().expect("a temporary folder");
    let key = KeyFiles::ec(folder.path(), "a");
    let azurite = Azurite::start();
    azurite.create_public_container("$web");
    let issuer = format!("{}/$web", azurite.url());
    let etcd = Etcd::start();
    // kube-apiserver publishes no keys for an http issuer, but still signs for it.
    let mut server = ApiServer::start(&etcd, Options::new("https://issuer.example", &key));
    let keys = server.jwks().expect_status(200).body;
    azurite.put(&format!("$web/{JWKS}"), "application/json", keys);
    let document = serde_json::json!({
        "issuer": issuer,
        "jwks_uri": format!("{issuer}/{JWKS}"),
        "id_token_signing_alg_values_supported": ["ES256"],
    });
    azurite.put(&format!("$web/{DISCOVERY}"), "application/json", document.to_string());

    server.restart_with(Options::new(&issuer, &key));
    server.create_service_account("default", "reader");
    let token = server.token("default", "reader", &[AUDIENCE], 600);
    for party in RelyingParty::ALL {
        party.verify(&issuer, AUDIENCE, None, &token).expect("a valid token");
    }
}

#[test]
fn azurite_keeps_headers_and_enforces_conditions_across_a_restart() {
    let mut azurite = Azurite::start();
    azurite.create_public_container("open");
    azurite.create_private_container("closed");
    let put = |azurite: &Azurite, path: &str, condition: (&str, &str)| {
        azurite
            .owner_request("PUT", path)
            .header("x-ms-blob-type", "BlockBlob")
            .header("x-ms-blob-content-type", "application/json")
            .header("x-ms-blob-cache-control", "public, max-age=60")
            .header("x-ms-meta-sequence", "7")
            .header(condition.0, condition.1)
            .body("{}")
            .answer()
    };
    let created = put(&azurite, "open/a", ("if-none-match", "*")).expect_status(201);
    let etag = created.header("etag").expect("an ETag").to_owned();
    put(&azurite, "open/a", ("if-none-match", "*")).expect_status(409);
    put(&azurite, "closed/a", ("if-none-match", "*")).expect_status(201);

    azurite.stop();
    azurite.restart();

    put(&azurite, "open/a", ("if-match", "\"0x1\"")).expect_status(412);
    put(&azurite, "open/a", ("if-match", &etag)).expect_status(201);
    let url = azurite.url();
    let public = Request::get(&format!("{url}/open/a")).answer().expect_status(200);
    assert_eq!(public.header("content-type"), Some("application/json"));
    assert_eq!(public.header("cache-control"), Some("public, max-age=60"));
    assert_eq!(public.header("x-ms-meta-sequence"), Some("7"));
    let private = Request::get(&format!("{url}/closed/a")).answer();
    assert_ne!(private.status, 200);
    assert_eq!(azurite.get("closed/a").expect_status(200).text(), "{}");
    let read_only = format!("{url}/open/a?{}", azurite::sas("r"));
    let refused = Request::new("PUT", &read_only).header("x-ms-blob-type", "BlockBlob").body("x").answer();
    assert_eq!(refused.status, 403, "{}", refused.text());
    azurite.delete("open/a");
    assert_eq!(azurite.get("open/a").status, 404);
    assert!(url.ends_with(azurite::ACCOUNT));
}

#[test]
fn s3_keeps_headers_and_enforces_conditions_across_a_restart() {
    let mut s3 = S3::start();
    s3.create_bucket("oidc");
    let put = |s3: &S3, condition: (&str, &str)| {
        let headers = [
            ("content-type", "application/json"),
            ("cache-control", "public, max-age=60"),
            ("x-amz-meta-sequence", "7"),
            condition,
        ];
        s3.owner_request("PUT", "/oidc/c1/a", "", &headers, b"{}").answer()
    };
    let created = put(&s3, ("if-none-match", "*")).expect_status(200);
    let etag = created.header("etag").expect("an ETag").to_owned();
    put(&s3, ("if-none-match", "*")).expect_status(412);
    let url = format!("{}/oidc/c1/a", s3.url());
    Request::get(&url).answer().expect_status(403);
    s3.allow_anonymous_read("oidc");

    s3.stop();
    s3.restart();

    put(&s3, ("if-match", "\"0123456789abcdef0123456789abcdef\"")).expect_status(412);
    put(&s3, ("if-match", &etag)).expect_status(200);
    let public = Request::get(&url).answer().expect_status(200);
    assert_eq!(public.header("content-type"), Some("application/json"));
    assert_eq!(public.header("cache-control"), Some("public, max-age=60"));
    assert_eq!(public.header("x-amz-meta-sequence"), Some("7"));
    Request::new("PUT", &url).body("evil").answer().expect_status(403);
    s3.create_user("reader", "reader-secret");
    let reader = s3.request_as(("reader", "reader-secret"), "PUT", "/oidc/c1/a", "", &[], b"evil");
    reader.answer().expect_status(403);
    let reader = s3.request_as(("reader", "reader-secret"), "GET", "/oidc/c1/a", "", &[], b"");
    reader.answer().expect_status(200);
    s3.put("/oidc/other", "text/plain", b"x");
    assert_eq!(s3.get("/oidc/other").expect_status(200).text(), "x");
    s3.delete("/oidc/other");
    assert_eq!(s3.get("/oidc/other").status, 404);
}

#[test]
fn nginx_serves_a_folder_and_comes_back_on_its_port() {
    let folder = TempDir::new().expect("a temporary folder");
    fs::create_dir(folder.path().join("keys")).expect("the folder can be written");
    fs::write(folder.path().join("keys/jwks"), "{}").expect("the folder can be written");
    let mut nginx = Nginx::start(&[("/issuer/", Location::Folder(folder.path().to_owned()))]);
    nginx.stop();
    assert!(nginx.get("/issuer/keys/jwks").send().is_err(), "a stopped nginx answers");
    nginx.restart();
    let answer = nginx.get("/issuer/keys/jwks").answer().expect_status(200);
    assert_eq!((answer.text().as_str(), answer.header("content-type")), ("{}", Some("application/json")));
    nginx.get("/keys/jwks").answer().expect_status(404);
}

#[test]
fn the_fault_proxy_does_what_its_script_says_and_no_more() {
    let s3 = S3::start();
    s3.create_bucket("oidc");
    s3.allow_anonymous_read("oidc");
    s3.put("/oidc/a", "text/plain", b"0123456789");
    let proxy = FaultProxy::start(&s3.url());
    let get = |path: &str| Request::get(&format!("{}{path}", proxy.url())).header("x-client", "7").send();

    assert_eq!(get("/oidc/a").expect("it is forwarded").text(), "0123456789");
    let seen = proxy.seen();
    assert_eq!(seen[0].headers["x-client"], "7");
    assert_eq!((seen[0].path.as_str(), seen[0].query.as_deref()), ("/oidc/a", None));

    let busy = Action::Answer { status: 503, headers: vec![("retry-after", "1")], body: "busy" };
    proxy.script([Rule::new(busy).method("GET").path_contains("/a").times(2)]);
    assert_eq!(get("/oidc/b").expect("another path").status, 404);
    for _ in 0..2 {
        let answer = get("/oidc/a").expect("the script's answer");
        assert_eq!((answer.status, answer.header("retry-after")), (503, Some("1")));
    }
    assert_eq!(get("/oidc/a").expect("the rule has lapsed").status, 200);

    proxy.script([Rule::new(Action::Cut).once(), Rule::new(Action::CutAfter(4)).once()]);
    get("/oidc/a").map(|answer| answer.status).expect_err("it is cut");
    assert_eq!(first_bytes(&proxy, "/oidc/a"), "0123");
    assert_eq!(get("/oidc/a").expect("both have lapsed").text(), "0123456789");

    let delay = Duration::from_millis(300);
    proxy.script([Rule::new(Action::Pass).path_contains("/b"), Rule::new(Action::Delay(delay))]);
    let started = Instant::now();
    get("/oidc/a").expect("it is forwarded");
    assert!(started.elapsed() >= delay);

    proxy.forget();
    assert_eq!(proxy.count("GET", "/"), 0);
}

#[test]
fn a_write_whose_answer_is_lost_has_happened() {
    let azurite = Azurite::start();
    azurite.create_public_container("oidc");
    // The account is part of the path, so that the path stays as the client signs it.
    let proxy = FaultProxy::start(azurite.url().trim_end_matches(azurite::ACCOUNT));
    proxy.script([Rule::new(Action::LoseAnswer).when(|request| request.body == "new")]);
    let url = format!("{}/{}/oidc/a?{}", proxy.url(), azurite::ACCOUNT, azurite::sas("w"));
    let write = Request::new("PUT", &url).header("x-ms-blob-type", "BlockBlob").body("new");
    write.send().map(|answer| answer.status).expect_err("the answer is lost");
    assert_eq!(azurite.get("oidc/a").expect_status(200).text(), "new");
    assert_eq!(proxy.count("PUT", "/oidc/a"), 1);
}

#[test]
fn the_fault_proxy_stands_in_front_of_tls() {
    let folder = TempDir::new().expect("a temporary folder");
    fs::write(folder.path().join("a"), "tls").expect("the folder can be written");
    let nginx = Nginx::start(&[("/", Location::Folder(folder.path().to_owned()))]);
    let proxy = FaultProxy::start_trusting(&nginx.url(), Some(nginx.ca_file()));
    let answer = Request::get(&format!("{}/a", proxy.url())).answer().expect_status(200);
    assert_eq!(answer.text(), "tls");
}

#[test]
fn the_product_refuses_an_option_that_it_does_not_know() {
    let refused = Signpost::new(["--no-such-option"]).finish(Duration::from_secs(20));
    assert!(refused.code.is_some_and(|code| code != 0), "{refused:?}");
    assert!(refused.stderr.contains("no-such-option"), "{refused:?}");
}

fn forged(token: &str) -> String {
    let (rest, signature) = token.rsplit_once('.').expect("a JWT has three parts");
    let other = if signature.starts_with('A') { 'B' } else { 'A' };
    format!("{rest}.{other}{}", &signature[1..])
}

/// The bytes of a body that arrive before the connection is closed.
fn first_bytes(proxy: &FaultProxy, path: &str) -> String {
    use std::io::{Read as _, Write as _};
    let address = proxy.url().replace("http://", "");
    let mut stream = std::net::TcpStream::connect(&address).expect("the proxy listens");
    write!(stream, "GET {path} HTTP/1.1\r\nhost: {address}\r\n\r\n").expect("it reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("the connection is closed");
    assert!(answer.to_lowercase().contains("content-length: 10\r\n"), "{answer}");
    answer.split_once("\r\n\r\n").expect("a head").1.to_owned()
}
