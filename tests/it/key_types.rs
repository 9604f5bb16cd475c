//! Key types other than the default: kube-apiserver, relying parties and a rotation accept them.

use std::collections::BTreeSet;

use base64ct::{Base64UrlUnpadded, Encoding as _};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{
    api_server::{ADMIN_TOKEN, ApiServer, Bearer, Options, write_kubeconfig},
    etcd::Etcd,
    eventually::eventually,
    external_signer::ExternalSigner,
    installation::Installation,
    nginx::{Location, Nginx},
    relying_party::RelyingParty,
};

const AUDIENCE: &str = "api://AzureADTokenExchange";

fn decode(segment: &str) -> Vec<u8> {
    Base64UrlUnpadded::decode_vec(segment).expect("base64url without padding")
}

fn segments(token: &str) -> [&str; 3] {
    let segments: Vec<_> = token.split('.').collect();
    segments.try_into().expect("three segments")
}

fn algorithm(token: &str) -> String {
    let header: Value = serde_json::from_slice(&decode(segments(token)[0])).expect("JSON");
    header["alg"].as_str().expect("an algorithm").to_owned()
}

/// `None`: the signer is not ready for external audiences yet.
fn try_token(server: &ApiServer) -> Option<String> {
    let body = json!({
        "apiVersion": "authentication.k8s.io/v1",
        "kind": "TokenRequest",
        "spec": {"audiences": [AUDIENCE], "expirationSeconds": 600},
    });
    let path = "/api/v1/namespaces/shop/serviceaccounts/till/token";
    let answer = server.admin_request("POST", path).json(&body).answer();
    let token = (answer.status == 201).then(|| answer.json()["status"]["token"].take())?;
    Some(token.as_str().expect("a token").to_owned())
}

fn create_account(server: &ApiServer) {
    server.create_namespace("shop");
    server.create_service_account("shop", "till");
}

#[test]
fn kube_apiserver_mints_and_accepts_tokens_that_are_signed_with_es256() {
    let etcd = Etcd::start();
    let mut signer = ExternalSigner::start("https://issuer.example", "key_type: es256");
    let server = ApiServer::start(&etcd, signer.options());
    create_account(&server);
    let kid = signer.signing();
    signer.order(&kid);
    // Every signature has this length, also with a leading zero byte: one in 128 has one.
    for _ in 0..20 {
        let token = try_token(&server).expect("the key is ready");
        let [header, _, signature] = segments(&token);
        assert_eq!(
            decode(header),
            format!(r#"{{"alg":"ES256","kid":"{kid}","typ":"JWT"}}"#).into_bytes(),
            "and nothing else, which kube-apiserver would refuse"
        );
        assert_eq!(decode(signature).len(), 64, "r and s (RFC 7518 section 3.4)");
        assert_eq!(server.review(&token, &[AUDIENCE])["authenticated"], true);
    }
    let discovery = server.discovery().expect_status(200).json();
    assert_eq!(discovery["id_token_signing_alg_values_supported"], json!(["ES256"]));
    let told = "Microsoft Entra refuses tokens that are signed with this key type";
    assert_eq!(signer.running().stderr().matches(told).count(), 1, "{}", signer.running().stderr());
}

#[test]
fn a_running_issuer_changes_to_es256_and_every_live_token_is_accepted_everywhere() {
    let folder = TempDir::new().expect("a temporary folder");
    let public = folder.path().join("public");
    let nginx = Nginx::start(&[("/c1/", Location::Folder(public.clone()))]);
    let issuer = format!("{}/c1", nginx.url());
    let socket = folder.path().join("signer.sock");
    let options = Options {
        issuers: vec![issuer.clone()],
        signing_key: None,
        verification_keys: Vec::new(),
        port: None,
        extra_flags: vec![format!("--service-account-signing-endpoint={}", socket.display())],
        host: None,
    };
    let etcd = Etcd::start();
    let mut server = ApiServer::stopped(&etcd, options.clone());
    server.begin(options);
    let kubeconfig = folder.path().join("kubeconfig");
    write_kubeconfig(&kubeconfig, &server.url(), server.ca_file(), &Bearer::Token(ADMIN_TOKEN));
    let settings = |key_type: &str| {
        json!({
            "profile": "all", "jwks_max_age": "1s", "propagation": "2s", "rotate_after": "21s", "margin": "1s",
            "max_token_lifetime": "10m",
            "sources": [
                {"kind": "embedded"},
                {"kind": "api-server", "name": "one", "kubeconfig": kubeconfig, "discover": false, "every": "1s"},
            ],
            "signer": {"socket": socket, "refresh_hint": "1s", "node": "node-1", "key_type": key_type},
            "targets": [{"name": "directory", "url": format!("file://{}", public.display())}],
        })
    };
    let installation = Installation::new(&issuer, &settings("rs256-2048"));
    let service = installation.run();
    server.wait_until_ready();
    create_account(&server);
    let (old, _) = eventually("a token for others", || try_token(&server));
    assert_eq!(algorithm(&old), "RS256");
    let process = server.id();

    service.stop();
    installation.configure(&settings("es256"));
    let _service = installation.run();
    let (new, _) = eventually("a key of the new type signs, after those that were made already", || {
        try_token(&server).filter(|token| algorithm(token) == "ES256")
    });
    for token in [&old, &new] {
        assert_eq!(server.review(token, &[AUDIENCE])["authenticated"], true);
        for party in RelyingParty::ALL {
            let claims = party.verify(&issuer, AUDIENCE, Some(nginx.ca_file()), token);
            let claims = claims.unwrap_or_else(|reason| panic!("{party:?} refuses {token}: {reason}"));
            assert_eq!(claims["iss"], issuer);
        }
    }
    let jwks = server.jwks().expect_status(200).json();
    let keys = jwks["keys"].as_array().expect("keys").iter();
    let algorithms: BTreeSet<_> = keys.map(|key| key["alg"].as_str().expect("an algorithm")).collect();
    assert_eq!(
        algorithms,
        BTreeSet::from(["ES256", "RS256"]),
        "an old key stays until its last token is dead"
    );
    assert_eq!(server.id(), process, "it was not restarted");
}
