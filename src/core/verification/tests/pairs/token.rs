use std::time::Duration;

use serde_json::{Value, json};

use super::{Pair, pair};
use crate::core::verification::{
    Cloud, Party,
    tests::scene::{AUDIENCE, ISSUER, NOW, Scene},
};

/// A day, an hour and a minute, in seconds.
const DAY: i64 = 86_400;
const HOUR: i64 = 3600;
const MINUTE: i64 = 60;

fn nothing_expected(it: &mut Scene) {
    it.expected.audience = None;
    it.expected.subject = None;
}

pub(super) const PAIRS: &[Pair] = &[
    pair("TOK-JWS", |it| it.token = Some(String::new()), "the token is empty", |_| {}),
    pair("TOK-JWS", |it| it.token = Some("a".to_owned()), "has 1 part, expected 3", |_| {}),
    pair(
        "TOK-JWS",
        |it| it.token = Some(format!("\"{}\"", it.token())),
        "has quotation marks around it",
        |it| it.token = Some(it.token()),
    ),
    pair("TOK-JWS", |it| it.token = Some(format!("Bearer {}", it.token())), "the word `Bearer`", |_| {}),
    pair("TOK-JWS", |it| it.token = Some(format!("{}\n", it.token())), "has white space around it", |_| {}),
    pair("TOK-JWS", |it| it.token = Some("a+b.c.d".to_owned()), "is not base64url without padding", |_| {}),
    pair(
        "TOK-JWS",
        |it| it.token = Some("eyJhIjoxLCJhIjoxfQ.e30.".to_owned()),
        "has a duplicate member",
        |it| {
            it.header["a"] = json!(1);
        },
    ),
    pair(
        "TOK-JWS",
        |it| it.token = Some("eyJhbGciOiJSUzI1NiJ9.eyJhIjoxLCJhIjoxfQ.".to_owned()),
        "the claims of the token has a duplicate member",
        |it| {
            it.claims["a"] = json!(1);
        },
    ),
    pair(
        "TOK-FILE",
        |it| it.token_file = Some("it ends with a line break"),
        "the file contains more than the token: it ends with a line break",
        |it| (it.party, it.token_file) = (Party::Local, Some("it ends with a line break")),
    ),
    pair(
        "TOK-FILE",
        |it| it.token_file = Some("it is in UTF-16"),
        "it is in UTF-16",
        |it| it.token_file = None,
    ),
    pair(
        "TOK-ALG",
        |it| it.header["alg"] = json!("ES256"),
        "signed with `ES256`",
        |it| {
            it.header["alg"] = json!("RS256");
        },
    ),
    pair(
        "TOK-ALG",
        |it| it.header["alg"] = json!("none"),
        "signed with `none`",
        |it| {
            (it.party, it.header["alg"]) = (Party::Aws, json!("RS512"));
        },
    ),
    pair(
        "TOK-TYP",
        |it| it.header["typ"] = json!("at+jwt"),
        "`at+jwt`",
        |it| it.header["typ"] = json!("JWT"),
    ),
    pair(
        "TOK-KID",
        |it| it.header["kid"] = Value::Null,
        "the header has no `kid`",
        |it| {
            it.header["kid"] = json!("x");
        },
    ),
    pair(
        "TOK-LEGACY",
        |it| it.claims["iss"] = json!("kubernetes/serviceaccount"),
        "a legacy token",
        |it| {
            it.claims["iss"] = json!("https://kubernetes/serviceaccount");
        },
    ),
    pair(
        "TOK-CLAIMS",
        |it| it.claims["exp"] = Value::Null,
        "has no usable `exp`",
        |it| {
            it.claims["nbf"] = Value::Null;
        },
    ),
    pair(
        "TOK-CLAIMS",
        |it| {
            it.party = Party::Aws;
            it.claims["iat"] = Value::Null;
        },
        "has no usable `iat`",
        |it| it.claims["iat"] = Value::Null,
    ),
    pair(
        "TOK-CLAIMS",
        |it| it.claims["aud"] = json!([]),
        "has no usable `aud`",
        |it| {
            it.claims["aud"] = json!(AUDIENCE);
        },
    ),
    pair(
        "TOK-CLAIMS",
        |it| it.claims["exp"] = json!(1e300),
        "has no usable `exp`",
        |it| {
            it.claims["exp"] = json!(1_800_000_600.75);
        },
    ),
    pair(
        "TOK-ISS-WS",
        |it| it.claims["iss"] = json!(format!("{ISSUER} ")),
        "is `https://k8s.example/cluster-a `",
        |it| {
            it.claims["iss"] = json!(ISSUER);
        },
    ),
    pair(
        "TOK-ISS-WS",
        |it| it.claims["iss"] = json!("a".repeat(601)),
        "has 601 characters",
        |it| {
            it.claims["iss"] = json!("a".repeat(600));
        },
    ),
    pair(
        "TOK-ISS-DEFAULT",
        |it| it.move_to("https://kubernetes.default.svc.cluster.local"),
        "the default of kube-apiserver",
        |it| it.move_to("https://kubernetes.default.example"),
    ),
    pair(
        "TOK-AUD-IB",
        |it| it.claims["aud"] = json!("api://AKSIdentityBinding"),
        "an identity binding",
        |it| it.claims["aud"] = json!("api://AKSIdentityBinding2"),
    ),
    pair(
        "TOK-AUD",
        |it| {
            nothing_expected(it);
            it.claims["aud"] = json!("https://kubernetes.default.svc");
        },
        "`aud` is `https://kubernetes.default.svc`",
        nothing_expected,
    ),
    pair(
        "TOK-AUD",
        |it| {
            nothing_expected(it);
            it.cloud = Cloud::China;
        },
        "`aud` is `api://AzureADTokenExchange`",
        |it| {
            nothing_expected(it);
            it.cloud = Cloud::UsGov;
            it.claims["aud"] = json!("api://AzureADTokenExchangeUSGov");
        },
    ),
    pair(
        "TOK-AUD-MANY",
        |it| it.claims["aud"] = json!([AUDIENCE, "x"]),
        "`x`",
        |it| {
            it.claims["aud"] = json!([AUDIENCE]);
        },
    ),
    pair(
        "TOK-SUB",
        |it| {
            nothing_expected(it);
            it.claims["sub"] = json!("system:serviceaccount:Team:app");
        },
        "`sub` is `system:serviceaccount:Team:app`",
        |it| it.claims["sub"] = json!("system:serviceaccount:Team:app"),
    ),
    pair(
        "TOK-TIME",
        |it| it.claims["exp"] = json!(NOW),
        "expired 0s ago",
        |it| it.claims["exp"] = json!(NOW + 1),
    ),
    pair(
        "TOK-TIME",
        |it| it.claims["nbf"] = json!(NOW + 5 * MINUTE + 1),
        "not valid for another 5m 1s",
        |it| {
            it.claims["nbf"] = json!(NOW + 5 * MINUTE);
        },
    ),
    pair(
        "TOK-EARLY",
        |it| it.claims["nbf"] = json!(NOW + 1),
        "not valid for another 1s",
        |it| {
            it.claims["nbf"] = json!(NOW);
        },
    ),
    pair(
        "TOK-LONG",
        |it| it.claims["exp"] = json!(NOW - 60 + 25 * HOUR + 1),
        "has a lifetime of 25h 1s",
        |it| it.claims["exp"] = json!(NOW - 60 + 25 * HOUR),
    ),
    pair(
        "TOK-LONG",
        |it| it.claims["iat"] = Value::Null,
        "has no usable `iat`",
        |it| it.claims["iat"] = json!(1_799_999_998.5),
    ),
    pair(
        "TOK-MAX",
        |it| it.max_token_lifetime = Some(Duration::from_secs(25 * 3600 + 1)),
        "may have a lifetime of 26 h",
        |it| it.max_token_lifetime = Some(Duration::from_hours(25)),
    ),
    pair(
        "TOK-LIFE",
        |it| it.claims["exp"] = json!(NOW - 60 + DAY + 1),
        "has a lifetime of 24h 1s",
        |it| {
            it.claims["exp"] = json!(NOW - 60 + DAY);
        },
    ),
    pair(
        "TOK-LIFE",
        |it| it.claims["exp"] = json!(NOW - 60 + 10 * MINUTE - 1),
        "has a lifetime of 9m 59s",
        |it| {
            it.claims["exp"] = json!(NOW - 60 + 10 * MINUTE);
        },
    ),
    pair(
        "TOK-FRESH",
        |it| it.claims["iat"] = json!(NOW + 3540 - 5 * 3540),
        "old, of a lifetime of",
        |it| {
            it.claims["iat"] = json!(NOW + 3540 - 5 * 3540 + 5);
        },
    ),
    pair(
        "CLOCK",
        |it| it.answers[0].clock_difference = Some(jiff::SignedDuration::from_secs(61)),
        "this clock is 1m 1s behind the server's",
        |it| it.answers[0].clock_difference = Some(jiff::SignedDuration::from_secs(-60)),
    ),
    pair(
        "ISS-ENTRA",
        |it| it.move_to("https://sts.windows.net/tenant"),
        "a token of Entra of version 1",
        |it| {
            it.move_to("https://sts.windows.net.example/tenant");
        },
    ),
    pair(
        "ISS-URL",
        |it| it.claims["iss"] = json!("cluster.local"),
        "`iss` is `cluster.local`",
        |it| it.claims["iss"] = json!("https://cluster.local"),
    ),
    pair(
        "ISS-SYNTAX",
        |it| it.move_to("http://k8s.example"),
        "has scheme `http`",
        |it| {
            it.move_to("https://k8s.example");
        },
    ),
    pair(
        "ISS-SYNTAX",
        |it| it.move_to("https://k8s.example?a"),
        "has a query",
        |it| {
            it.move_to("https://k8s.example/a");
        },
    ),
    pair(
        "ISS-PUBLIC",
        |it| it.move_to("https://10.0.0.1"),
        "is not reachable from the internet",
        |it| it.move_to("https://11.0.0.1"),
    ),
    pair(
        "ISS-PUBLIC",
        |it| it.move_to("https://oidc.corp"),
        "is not reachable from the internet",
        |it| {
            it.move_to("https://oidc.corp.example");
        },
    ),
    pair(
        "ISS-LOCAL",
        |it| {
            it.party = Party::Local;
            it.move_to("http://127.0.0.1:8080");
        },
        "is not reachable from the internet",
        |it| it.party = Party::Local,
    ),
    pair(
        "ISS-PORT",
        |it| it.move_to("https://k8s.example:8443"),
        "names port 8443",
        |it| {
            it.move_to("https://k8s.example/8443");
        },
    ),
    pair(
        "AWS-ISS",
        |it| {
            it.party = Party::Aws;
            it.move_to("https://k8s.example:8443");
        },
        "names port 8443",
        |it| it.party = Party::Aws,
    ),
    pair(
        "AWS-ALG",
        |it| (it.party, it.header["alg"]) = (Party::Aws, json!("EdDSA")),
        "`EdDSA`",
        |it| {
            (it.party, it.header["alg"]) = (Party::Aws, json!("ES512"));
        },
    ),
    pair(
        "AWS-AUD",
        |it| {
            nothing_expected(it);
            it.party = Party::Aws;
        },
        "`aud` is `api://AzureADTokenExchange`",
        |it| {
            nothing_expected(it);
            (it.party, it.claims["aud"]) = (Party::Aws, json!("sts.amazonaws.com"));
        },
    ),
    pair(
        "GCP-ALG",
        |it| (it.party, it.header["alg"]) = (Party::Gcp, json!("ES384")),
        "`ES384`",
        |it| {
            (it.party, it.header["alg"]) = (Party::Gcp, json!("ES256"));
        },
    ),
    pair(
        "LOCAL-ALG",
        |it| (it.party, it.header["alg"]) = (Party::Local, json!("PS256")),
        "`PS256`",
        |it| {
            (it.party, it.header["alg"]) = (Party::Local, json!("ES384"));
        },
    ),
    pair(
        "KUBE-ALG",
        |it| (it.party, it.header["alg"]) = (Party::Kubernetes, json!("EdDSA")),
        "`EdDSA`",
        |it| {
            (it.party, it.header["alg"]) = (Party::Kubernetes, json!("PS256"));
        },
    ),
    pair(
        "KUBE-ISS",
        |it| {
            it.party = Party::Kubernetes;
            it.move_to("http://127.0.0.1:8080");
        },
        "the issuer is `http://127.0.0.1:8080`",
        |it| {
            it.party = Party::Kubernetes;
            it.move_to("https://127.0.0.1:8443");
        },
    ),
    pair(
        "TOK-TIME",
        |it| (it.party, it.claims["nbf"]) = (Party::Kubernetes, json!(NOW + 61)),
        "not valid for another",
        |it| (it.party, it.claims["nbf"]) = (Party::Kubernetes, json!(NOW + 60)),
    ),
];
