//! Rules of the discovery document (OpenID Connect Discovery 1.0 section 3).

use serde_json::{Map, Value};
use url::Url;

use super::{
    Basis, Check, CheckResult, CheckStage, Context, ENTRA, EVERYBODY, Error, NOT_KUBERNETES, OUTSIDE,
    Warning, differs, holds, quoted, violated,
};

use crate::core::{
    jose::{issuer::is_readable_url, token::UnverifiedToken},
    verification::{Party, is_public_url},
};

const PUBLISH: &str = "publish it again with `signpost sync`";

pub(super) const CHECKS: &[Check] = &[
    Check {
        id: "DISC-PARSE",
        rule: "the discovery document is a JSON object in UTF-8, no member twice",
        level: Error,
        parties: EVERYBODY,
        codes: &[501_661],
        basis: Basis::observed("SPIRE's discovery provider with Entra"),
        step: CheckStage::Metadata,
        judge: can_be_read,
    },
    Check {
        id: "DISC-FIELDS",
        rule: "its five members are there and not empty, and every endpoint it names is a URL; kube-apiserver needs only `issuer` and `jwks_uri`",
        level: Error,
        parties: EVERYBODY,
        codes: &[501_661],
        basis: Basis::observed("SPIRE's discovery provider with Entra"),
        step: CheckStage::Metadata,
        judge: is_complete,
    },
    Check {
        id: "DISC-ISS",
        rule: "it names the same issuer, byte for byte",
        level: Error,
        parties: EVERYBODY,
        codes: &[501_661],
        basis: Basis::inferred("OpenID Connect Discovery 1.0 section 4.3"),
        step: CheckStage::Metadata,
        judge: names_the_issuer,
    },
    Check {
        id: "DISC-JWKSURI",
        rule: "`jwks_uri` is an https URL",
        level: Error,
        parties: NOT_KUBERNETES,
        codes: &[501_661],
        basis: Basis::inferred("Kubernetes, openidmetadata.go"),
        step: CheckStage::Metadata,
        judge: jwks_uri_is_usable,
    },
    Check {
        id: "DISC-INSIDE",
        rule: "`jwks_uri` does not point into the cluster like the API server's own discovery document",
        level: Error,
        parties: OUTSIDE,
        codes: &[501_661],
        basis: Basis::inferred("Kubernetes, openidmetadata.go"),
        step: CheckStage::Metadata,
        judge: jwks_uri_is_public,
    },
    Check {
        id: "DISC-ALG",
        rule: "it says that tokens are signed with RS256",
        level: Warning,
        parties: ENTRA,
        codes: &[501_661],
        basis: Basis::inferred("documents that are known to work"),
        step: CheckStage::Metadata,
        judge: names_rs256,
    },
];

fn document<'a>(case: &'a Context) -> Option<&'a Map<String, Value>> {
    case.discovery.as_ref()?.as_ref().ok()
}

fn can_be_read(case: &Context) -> CheckResult {
    match &case.discovery {
        Some(Err(error)) => violated(
            format!("the discovery document at {} is not valid: {error}", case.evidence.discovery.origin()),
            "a JSON object",
            PUBLISH,
        ),
        _ => CheckResult::NotApplicable,
    }
}

fn names_the_issuer(case: &Context) -> CheckResult {
    let (Some(found), Some(expected)) = (case.discovery_text("issuer"), case.issuer()) else {
        return CheckResult::NotApplicable;
    };
    // A difference between expectation and token has its own rule.
    if found == expected || case.token().and_then(UnverifiedToken::issuer) == Some(found) {
        return holds("discovery names the same issuer");
    }
    let fix = "publish the discovery document of this issuer with `signpost sync`";
    differs("`issuer` of the discovery document", found, expected, fix)
}

fn is_complete(case: &Context) -> CheckResult {
    let Some(document) = document(case) else { return CheckResult::NotApplicable };
    let is_text =
        |name: &&&str| document.get(**name).and_then(Value::as_str).is_some_and(|it| !it.is_empty());
    let is_list = |name: &&&str| {
        let items = document.get(**name).and_then(Value::as_array);
        items.is_some_and(|items| !items.is_empty() && items.iter().all(Value::is_string))
    };
    let is_kubernetes = case.question.party == Party::Kubernetes;
    let texts = ["issuer", "jwks_uri"];
    let lists =
        ["response_types_supported", "subject_types_supported", "id_token_signing_alg_values_supported"];
    let lists = lists.iter().filter(|_| !is_kubernetes);
    // An optional member must be valid if present: Entra rejects an empty `authorization_endpoint`.
    let broken = document.iter().filter(|(name, value)| {
        !is_kubernetes
            && name.ends_with("_endpoint")
            && value.as_str().is_none_or(|url| Url::parse(url).is_err())
    });
    let absent = texts.iter().filter(|name| !is_text(name)).chain(lists.filter(|name| !is_list(name)));
    let named: Vec<_> = absent.copied().chain(broken.map(|(name, _)| name.as_str())).collect();
    if named.is_empty() {
        return holds("discovery has all that is read");
    }
    let is_empty = |name: &&str| {
        let value = document.get(*name);
        value.is_some_and(|it| it.as_str() == Some("") || it.as_array().is_some_and(Vec::is_empty))
    };
    let is_disputed = case.question.party == Party::Entra
        && named.iter().all(|name| is_empty(name) && !texts.contains(name));
    let found = violated(
        format!("the discovery document has nothing usable in {}", quoted(named)),
        "the five members that Kubernetes has, and only endpoints that are URLs",
        PUBLISH,
    );
    if is_disputed { found.unless("Entra takes empty members: reports contradict each other") } else { found }
}

pub(super) fn jwks_uri_is_usable(case: &Context) -> CheckResult {
    match case.discovery_text("jwks_uri") {
        Some(uri) if !uri.is_empty() && !is_readable_url(uri) => violated(
            format!("`jwks_uri` is `{uri}`"),
            "an https URL",
            "set `jwks_uri` to where the JWKS is published",
        ),
        _ => CheckResult::NotApplicable,
    }
}

fn jwks_uri_is_public(case: &Context) -> CheckResult {
    let (Some(uri), Some(issuer)) = (case.discovery_text("jwks_uri"), case.issuer()) else {
        return CheckResult::NotApplicable;
    };
    // A private issuer has its own rule.
    if !is_readable_url(uri) || is_public_url(uri) || !is_public_url(issuer) {
        return CheckResult::NotApplicable;
    }
    violated(
        format!("`jwks_uri` is `{uri}`, which is not reachable from the internet"),
        "a public https URL",
        "set `jwks_uri` to where the JWKS is published; this one points into the cluster, like the API server's own discovery document",
    )
}

fn names_rs256(case: &Context) -> CheckResult {
    let algorithms =
        document(case).and_then(|it| it.get("id_token_signing_alg_values_supported")?.as_array());
    match algorithms {
        Some(named) if !named.is_empty() && !named.iter().any(|name| name == "RS256") => violated(
            format!("the discovery document says {}", quoted(named.iter().filter_map(Value::as_str))),
            "`RS256` among them",
            PUBLISH,
        ),
        _ => CheckResult::NotApplicable,
    }
}
