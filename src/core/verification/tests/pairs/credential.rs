use serde_json::json;

use super::{Pair, pair};
use crate::core::verification::{
    Credential,
    tests::scene::{AUDIENCE, ISSUER, SUBJECT, credential},
};

pub(super) const PAIRS: &[Pair] = &[
    pair(
        "FIC-NONE",
        |it| it.credentials = Some(Vec::new()),
        "has no federated credential",
        |it| {
            it.credentials = Some(vec![credential(ISSUER, SUBJECT, AUDIENCE)]);
        },
    ),
    pair(
        "FIC-SLASH",
        |it| it.expected.issuer = Some(format!("{ISSUER}/")),
        "`iss` is `https",
        |it| {
            it.expected.issuer = Some(format!("{ISSUER}//"));
        },
    ),
    pair(
        "FIC-ISS",
        |it| it.expected.issuer = Some("https://k8s.example/Cluster-a".to_owned()),
        "`iss` is `https://k8s.example/cluster-a`",
        |it| it.expected.issuer = Some(format!("{ISSUER}/")),
    ),
    pair(
        "FIC-AUD",
        |it| it.claims["aud"] = json!("api://azureadtokenexchange"),
        "`aud` is",
        |it| {
            it.claims["aud"] = json!([AUDIENCE]);
        },
    ),
    pair(
        "FIC-CASE",
        |it| it.claims["sub"] = json!("system:serviceaccount:Team:app"),
        "`sub` is",
        |it| {
            it.claims["sub"] = json!("system:serviceaccount:tean:app");
        },
    ),
    pair(
        "FIC-SUB",
        |it| it.claims["sub"] = json!("system:serviceaccount:team:default"),
        "`sub` is",
        |it| {
            it.claims["sub"] = json!("system:serviceaccount:Team:app");
        },
    ),
    pair(
        "FIC-FLEX",
        |it| {
            let mut flexible = credential(ISSUER, SUBJECT, AUDIENCE);
            flexible.subject = None;
            flexible.expression = Some(json!({"value": "claims['sub'] matches 'a*'", "languageVersion": 1}));
            it.credentials = Some(vec![flexible]);
        },
        "has a `claimsMatchingExpression`",
        |it| {
            let mut flexible = credential("https://gitlab.example.com", SUBJECT, AUDIENCE);
            flexible.expression = Some(json!({}));
            it.credentials = Some(vec![flexible]);
        },
    ),
    pair(
        "FIC-LIMITS",
        |it| {
            let named = |name: &str| {
                let mut credential = credential(ISSUER, SUBJECT, AUDIENCE);
                name.clone_into(&mut credential.name);
                credential
            };
            it.credentials = Some(vec![named("kind"), named("kind2")]);
        },
        "the credential `kind2` has issuer and subject of another",
        |it| {
            it.credentials = Some(vec![
                credential(ISSUER, SUBJECT, AUDIENCE),
                credential(ISSUER, "system:serviceaccount:team:b", AUDIENCE),
            ]);
        },
    ),
    pair(
        "FIC-LIMITS",
        |it| {
            let mut short = credential(ISSUER, SUBJECT, AUDIENCE);
            "ab".clone_into(&mut short.name);
            it.credentials = Some(vec![short]);
        },
        "the name `ab`",
        |it| {
            let mut short = credential(ISSUER, SUBJECT, AUDIENCE);
            "abc".clone_into(&mut short.name);
            it.credentials = Some(vec![short]);
        },
    ),
    pair(
        "FIC-COUNT",
        |it| it.credentials = Some(several(18)),
        "has 18 federated credentials",
        |it| {
            it.credentials = Some(several(17));
        },
    ),
];

fn several(count: usize) -> Vec<Credential> {
    let subject = |number| format!("system:serviceaccount:team:app-{number}");
    let others = (1..count).map(|number| credential(ISSUER, &subject(number), AUDIENCE));
    std::iter::once(credential(ISSUER, SUBJECT, AUDIENCE)).chain(others).collect()
}
