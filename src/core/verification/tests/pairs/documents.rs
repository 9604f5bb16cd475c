use std::time::Duration;

use openssl::rsa::Rsa;
use serde_json::{Value, json};

use super::{Pair, pair};
use crate::core::{
    jose::jwk::tests::{KUBERNETES_EC, KUBERNETES_RSA},
    verification::{
        Again, Party, Unanswered,
        tests::scene::{ISSUER, Scene, published_key},
    },
};

fn with_key(scene: &mut Scene, key: Value) {
    scene.jwks["keys"].as_array_mut().expect("an array").push(key);
}

/// Adds so many keys besides the signing key; their contents do not matter.
fn with_others(scene: &mut Scene, count: usize) {
    let other: Value = serde_json::from_str(KUBERNETES_RSA).expect("a key");
    let keys = scene.jwks["keys"].as_array_mut().expect("an array");
    for number in 0..count {
        let mut key = other.clone();
        key["kid"] = json!(format!("other-{number}"));
        keys.push(key);
    }
}

fn encoded(number: &openssl::bn::BigNumRef) -> String {
    use base64ct::{Base64UrlUnpadded, Encoding as _};
    Base64UrlUnpadded::encode_string(&number.to_vec())
}

fn with_rsa(scene: &mut Scene, bits: u32) {
    let key = Rsa::generate(bits).expect("OpenSSL makes RSA keys");
    let key = json!({"use": "sig", "kty": "RSA", "kid": "small", "alg": "RS256", "n": encoded(key.n()), "e": encoded(key.e())});
    scene.jwks["keys"].as_array_mut().expect("an array").push(key);
}

pub(super) const PAIRS: &[Pair] = &[
    pair(
        "PUB-REACH",
        |it| it.unanswered = Some(Unanswered::NoAddress { host: "k8s.example".to_owned() }),
        "the name `k8s.example` has no address",
        |it| it.answers[0].status = 404,
    ),
    pair(
        "PUB-REACH",
        |it| it.unanswered = Some(Unanswered::Private { addresses: vec!["10.0.0.1".to_owned()] }),
        "its addresses are not public addresses: `10.0.0.1`",
        |it| it.answers[0].private = vec!["10.0.0.1".to_owned()],
    ),
    pair(
        "PUB-REACH",
        |it| it.unanswered = Some(Unanswered::NoConnection { reason: "Connection refused".to_owned() }),
        "no connection: Connection refused",
        |it| it.unanswered = Some(Unanswered::Tls { reason: "self-signed".to_owned(), thumbprint: None }),
    ),
    pair(
        "PUB-REACH",
        |it| it.unanswered = Some(Unanswered::TimedOut { after: Duration::from_secs(10) }),
        "no answer within 10 s",
        |_| {},
    ),
    pair(
        "PUB-REACH",
        |it| it.unanswered = Some(Unanswered::TooLarge { limit: 1024 }),
        "the response is larger than 1024 bytes",
        |_| {},
    ),
    pair(
        "PUB-REACH",
        |it| it.unanswered = Some(Unanswered::Redirected { to: "http://a".to_owned(), reason: "not https" }),
        "it redirects to `http://a`: not https",
        |it| it.answers[0].redirects = vec!["https://a".to_owned()],
    ),
    pair(
        "PUB-PRIVATE",
        |it| it.answers[0].private = vec!["10.0.0.1".to_owned()],
        "read at `10.0.0.1`",
        |_| {},
    ),
    pair(
        "PUB-REACH",
        |it| it.unanswered = Some(Unanswered::Encoded { coding: "br".to_owned() }),
        "the answer is encoded as `br`",
        |it| it.answers[0].content_coding = Some("gzip".to_owned()),
    ),
    pair("PUB-REACH", |it| it.unanswered = Some(Unanswered::Credentials), "a user name or password", |_| {}),
    pair(
        "PUB-CA",
        |it| it.answers[0].ca_file = Some("ca.crt".to_owned()),
        "trusting the CAs of `ca.crt`",
        |it| {
            it.answers[0].ca_file = Some("ca.crt".to_owned());
            it.answers[0].url = "http://localhost/discovery".to_owned();
        },
    ),
    pair(
        "PUB-CODING",
        |it| it.answers[1].content_coding = Some("gzip".to_owned()),
        "`Content-Encoding: gzip`",
        |_| {},
    ),
    pair(
        "PUB-TLS",
        |it| {
            it.unanswered = Some(Unanswered::Tls {
                reason: "certificate: certificate has expired".to_owned(),
                thumbprint: None,
            });
        },
        "certificate has expired",
        |it| it.unanswered = Some(Unanswered::NoConnection { reason: "reset".to_owned() }),
    ),
    pair(
        "PUB-FIREWALL",
        |it| it.answered(403, "<Code>AuthorizationFailure</Code>"),
        "`AuthorizationFailure`",
        |it| {
            it.answered(403, "<Code>AccessDenied</Code>");
        },
    ),
    pair(
        "PUB-ANON",
        |it| it.answered(409, "<Code>PublicAccessNotPermitted</Code>"),
        "the storage account forbids anonymous reads",
        |it| it.answered(409, "<Code>Conflict</Code>"),
    ),
    pair(
        "PUB-ANON",
        |it| it.answered(403, "<Code>AccessDenied</Code>"),
        "the bucket forbids",
        |it| {
            it.answered(404, "<Code>NoSuchKey</Code>");
        },
    ),
    pair(
        "PUB-ANON",
        |it| it.answered(404, "<Code>ResourceNotFound</Code>"),
        "a private container",
        |it| {
            it.answered(404, "<Code>BlobNotFound</Code>");
        },
    ),
    pair("PUB-ANON", |it| it.answered(401, ""), "status 401", |it| it.answered(400, "")),
    pair("PUB-PATH", |it| it.answers[0].status = 404, "status 404", |it| it.answers[0].status = 500),
    pair("PUB-STATUS", |it| it.answers[1].status = 503, "status 503", |it| it.answers[1].status = 404),
    pair("PUB-STATUS", |it| it.answers[1].status = 429, "status 429", |it| it.answers[1].status = 428),
    pair(
        "PUB-REDIR",
        |it| it.answers[0].redirects = vec!["https://b.example/x".to_owned()],
        "is redirected to https://b.example/x",
        |_| {},
    ),
    pair(
        "PUB-SLOW",
        |it| it.answers[1].took = Duration::from_millis(5001),
        "in 5.0 s",
        |it| {
            it.answers[1].took = Duration::from_secs(5);
        },
    ),
    pair(
        "PUB-CTYPE",
        |it| it.answers[1].content_type = Some("application/octet-stream".to_owned()),
        "has content type `application/octet-stream`",
        |it| it.answers[1].content_type = Some("application/jwk-set+json".to_owned()),
    ),
    pair(
        "PUB-CACHE",
        |it| it.answers[1].cache.cache_control = Some("public, max-age=3601".to_owned()),
        "may keep the JWKS for 3601 s",
        |it| it.answers[1].cache.cache_control = Some("public, max-age=3600".to_owned()),
    ),
    pair(
        "PUB-CACHE",
        |it| {
            it.answers[1].cache.cache_control = Some("public, s-maxage=86400, max-age=300".to_owned());
        },
        "may keep the JWKS for 86400 s, by `s-maxage`",
        |it| {
            it.answers[1].cache.cache_control = Some("public, s-maxage=60, max-age=300".to_owned());
        },
    ),
    pair(
        "PUB-CACHE",
        |it| {
            it.answers[1].cache.cache_control = None;
            it.answers[1].cache.last_modified = Some("Sun, 29 Nov 2026 02:00:00 GMT".to_owned());
        },
        "up to 86400 s, a tenth of its age by `Last-Modified`",
        |it| {
            it.answers[1].cache.cache_control = None;
        },
    ),
    pair(
        "PUB-CACHE",
        |it| {
            it.answers[0].cache.cache_control = Some("no-cache, no-store".to_owned());
            it.answers[0].cache.last_modified = Some("Sun, 29 Nov 2026 02:00:00 GMT".to_owned());
        },
        "may keep the discovery document for up to 86400 s",
        |it| {
            it.answers[0].cache.cache_control = Some("no-cache, no-store, max-age=300".to_owned());
            it.answers[0].cache.last_modified = Some("Sun, 29 Nov 2026 02:00:00 GMT".to_owned());
        },
    ),
    pair(
        "PUB-CACHE",
        |it| it.answers[1].age = Some(Duration::from_secs(301)),
        "has kept it for 301 s",
        |it| it.answers[1].age = Some(Duration::from_mins(5)),
    ),
    pair(
        "PUB-CACHE",
        |it| it.answers[1].again = Some(Again { same_bytes: false }),
        "show two documents",
        |it| it.answers[1].again = Some(Again { same_bytes: true }),
    ),
    pair(
        "DISC-PARSE",
        |it| it.text = Some(b"<html>"),
        "is not valid: expected value",
        |it| it.text = Some(b"{}"),
    ),
    pair("DISC-PARSE", |it| it.text = Some(b"\xef\xbb\xbf{}"), "is not valid", |_| {}),
    pair("DISC-PARSE", |it| it.text = Some(b"{\"issuer\":\"a\",\"issuer\":\"b\"}"), "is duplicated", |_| {}),
    pair(
        "DISC-FIELDS",
        |it| it.discovery["subject_types_supported"] = json!([]),
        "nothing usable in `subject_types_supported`",
        |it| it.discovery["subject_types_supported"] = json!(["pairwise"]),
    ),
    pair(
        "DISC-FIELDS",
        |it| it.discovery["authorization_endpoint"] = json!(""),
        "nothing usable in `authorization_endpoint`",
        |it| it.discovery["authorization_endpoint"] = json!("urn:none"),
    ),
    pair(
        "DISC-ISS",
        |it| it.discovery["issuer"] = json!(format!("{ISSUER}/")),
        "of the discovery document is",
        |it| {
            it.discovery["issuer"] = json!(ISSUER);
        },
    ),
    pair(
        "DISC-JWKSURI",
        |it| it.discovery["jwks_uri"] = json!("http://k8s.example/jwks"),
        "`jwks_uri` is",
        |it| {
            it.discovery["jwks_uri"] = json!("https://elsewhere.example/jwks");
        },
    ),
    pair(
        "KUBE-JWKSURI",
        |it| {
            it.party = Party::Kubernetes;
            it.discovery["jwks_uri"] = json!("http://k8s.example/jwks");
        },
        "`jwks_uri` is",
        |it| {
            it.party = Party::Kubernetes;
        },
    ),
    pair(
        "DISC-FIELDS",
        |it| {
            it.party = Party::Kubernetes;
            it.discovery["jwks_uri"] = json!("");
        },
        "nothing usable in `jwks_uri`",
        |it| {
            it.party = Party::Kubernetes;
            it.discovery["subject_types_supported"] = json!([]);
        },
    ),
    pair(
        "KUBE-SET",
        |it| {
            it.party = Party::Kubernetes;
            with_key(it, json!({"kty": "AKP", "kid": "pq", "alg": "ML-DSA-44", "pub": "AA"}));
        },
        "key `pq` is of type `AKP`",
        |it| {
            it.party = Party::Kubernetes;
            with_key(it, json!({"kty": "OKP", "kid": "ed", "crv": "Ed25519", "x": "AA"}));
        },
    ),
    pair(
        "DISC-INSIDE",
        |it| it.discovery["jwks_uri"] = json!("https://10.0.0.1:6443/openid/v1/jwks"),
        "which is not reachable from the internet",
        |it| {
            it.discovery["jwks_uri"] = json!("https://11.0.0.1:6443/openid/v1/jwks");
        },
    ),
    pair(
        "DISC-ALG",
        |it| it.discovery["id_token_signing_alg_values_supported"] = json!(["ES256"]),
        "says `ES256`",
        |it| it.discovery["id_token_signing_alg_values_supported"] = json!(["ES256", "RS256"]),
    ),
    pair(
        "JWKS-PARSE",
        |it| it.jwks = json!({"keys": [5]}),
        "key 1 is no object",
        |it| {
            it.jwks = json!({"keys": []});
        },
    ),
    pair(
        "JWKS-PARSE",
        |it| it.jwks["keys"][0]["n"] = json!("="),
        "`: member `n` is not base64url",
        |it| {
            it.jwks["keys"][0]["x5c"] = json!(["="]);
        },
    ),
    pair("JWKS-PARSE", |it| it.jwks = json!("[]"), "no object", |it| with_others(it, 1)),
    pair(
        "JWKS-ODD",
        |it| {
            with_others(it, 2);
            it.jwks["keys"][1]["kid"] = json!(5);
            it.jwks["keys"][2]["n"] = json!("=");
        },
        "key 2: invalid type: integer `5`, expected a string; key `other-1`: member `n` is not base64url",
        |it| {
            with_others(it, 1);
            it.jwks["keys"][1]["kty"] = json!("AKP");
        },
    ),
    pair(
        "JWKS-ODD",
        |it| {
            with_others(it, 1);
            it.jwks["keys"][1]["kid"] = json!("");
        },
        "key ID has 0 characters",
        |it| it.jwks["keys"][0]["n"] = json!("="),
    ),
    pair(
        "JWKS-PRIVATE",
        |it| it.jwks["keys"][0]["d"] = json!("AQ"),
        "it has the member `d`",
        |it| {
            it.jwks["keys"][0]["x5t"] = json!("AQ");
        },
    ),
    pair(
        "JWKS-COUNT",
        |it| {
            with_others(it, 100);
            it.jwks["keys"].as_array_mut().expect("an array").rotate_left(1);
        },
        "is key 101 of 101 in the JWKS",
        |it| with_others(it, 100),
    ),
    pair("JWKS-MANY", |it| with_others(it, 10), "has 11 keys", |it| with_others(it, 9)),
    pair(
        "JWKS-DUP",
        |it| {
            with_others(it, 1);
            it.jwks["keys"][1]["kid"] = json!(published_key().kid());
        },
        "names two different keys",
        |it| {
            let same = it.jwks["keys"][0].clone();
            it.jwks["keys"].as_array_mut().expect("an array").push(same);
        },
    ),
    pair(
        "JWKS-KID",
        |it| it.header["kid"] = json!("other"),
        "kid `other` is not published",
        |it| {
            with_others(it, 1);
            it.header["kid"] = json!("other-0");
        },
    ),
    pair(
        "JWKS-USE",
        |it| it.jwks["keys"][0]["use"] = Value::Null,
        "has no `use`",
        |it| {
            it.jwks["keys"][0]["alg"] = Value::Null;
        },
    ),
    pair("JWKS-USE", |it| it.jwks["keys"][0]["use"] = json!("enc"), "has `use` \"enc\"", |_| {}),
    pair(
        "JWKS-ALG",
        |it| {
            let other: Value = serde_json::from_str(KUBERNETES_EC).expect("a key");
            it.jwks["keys"].as_array_mut().expect("an array").push(other);
        },
        "keys of other kinds",
        |it| with_others(it, 1),
    ),
    pair(
        "JWKS-KIDHASH",
        |it| (it.header["kid"], it.jwks["keys"][0]["kid"]) = (json!("mine"), json!("mine")),
        "kid `mine` is not the one that Kubernetes derives",
        |_| {},
    ),
    pair(
        "KEY-SIZE",
        |it| {
            with_rsa(it, 1024);
            it.header["kid"] = json!("small");
        },
        "key `small` has 1024 bits",
        |it| with_rsa(it, 1024),
    ),
    pair("SIG", |it| it.tampered = true, "does not verify", |_| {}),
    pair(
        "SIG",
        |it| it.jwks["keys"][0]["alg"] = json!("RS512"),
        "the token says `RS256`, the published key is for `RS512`",
        |it| it.jwks["keys"][0]["alg"] = Value::Null,
    ),
    pair(
        "GCP-JWKS",
        |it| {
            it.party = Party::Gcp;
            it.jwks["keys"][0]["x5c"] = json!([]);
        },
        "a key has the member `x5c`",
        |it| it.party = Party::Gcp,
    ),
];
