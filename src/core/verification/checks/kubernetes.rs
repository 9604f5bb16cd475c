//! Rules of the kube-apiserver of another cluster that trusts the issuer.
//!
//! Source: kube-apiserver 1.37.1 with `--authentication-config`, which uses go-oidc 2.5 and go-jose 2.6.

use url::Url;

use super::{
    Basis, Check, CheckResult, CheckStage, Context, Error, Party, Warning, aws_and_google, discovery,
    violated,
};
use crate::core::verification::context::PublishedKey;

const KUBERNETES: &[Party] = &[Party::Kubernetes];

pub(super) const CHECKS: &[Check] = &[
    Check {
        id: "KUBE-ISS",
        rule: "the issuer is an https URL, on loopback too, without user, query and fragment",
        level: Error,
        parties: KUBERNETES,
        codes: &[],
        basis: Basis::documented("Kubernetes, AuthenticationConfiguration"),
        step: CheckStage::Issuer,
        judge: issuer_can_be_configured,
    },
    Check {
        id: "KUBE-ALG",
        rule: "the token is signed with an algorithm that `--authentication-config` allows; `--oidc-issuer-url` accepts only RS256 by default",
        level: Error,
        parties: KUBERNETES,
        codes: &[],
        basis: Basis::documented("Kubernetes, oidc.go"),
        step: CheckStage::Algorithm,
        judge: takes_the_algorithm,
    },
    Check {
        id: "KUBE-JWKSURI",
        rule: "`jwks_uri` is an https URL: kube-apiserver follows any other, and a man in the middle can replace the keys",
        level: Warning,
        parties: KUBERNETES,
        codes: &[],
        basis: Basis::observed("kube-apiserver 1.37.1"),
        step: CheckStage::Metadata,
        judge: discovery::jwks_uri_is_usable,
    },
    Check {
        id: "KUBE-SET",
        rule: "every key in the JWKS is of a type that kube-apiserver knows: one unknown type makes it reject the whole set",
        level: Error,
        parties: KUBERNETES,
        codes: &[],
        basis: Basis::observed("kube-apiserver 1.37.1"),
        step: CheckStage::Key,
        judge: knows_every_key,
    },
];

fn issuer_can_be_configured(case: &Context) -> CheckResult {
    let Some(issuer) = case.issuer() else { return CheckResult::NotApplicable };
    let is_usable = |url: Url| {
        let is_bare = url.username().is_empty() && url.password().is_none();
        url.scheme() == "https" && is_bare && url.query().is_none() && url.fragment().is_none()
    };
    if Url::parse(issuer).is_ok_and(is_usable) {
        return CheckResult::NotApplicable;
    }
    violated(
        format!("the issuer is `{issuer}`"),
        "an https URL without user, query and fragment",
        "serve the issuer under such a URL, with `tls` or behind a proxy that has a certificate",
    )
}

fn takes_the_algorithm(case: &Context) -> CheckResult {
    aws_and_google::algorithm(
        case,
        &["RS256", "RS384", "RS512", "ES256", "ES384", "ES512", "PS256", "PS384", "PS512"],
    )
}

/// Whether go-jose 2.6 supports the kind of a key. Other problems have their own rules.
fn is_known(key: &PublishedKey) -> bool {
    matches!(
        (key.text("kty"), key.text("crv")),
        (Some("RSA" | "oct"), _)
            | (Some("EC"), Some("P-256" | "P-384" | "P-521"))
            | (Some("OKP"), Some("Ed25519"))
    )
}

fn knows_every_key(case: &Context) -> CheckResult {
    let Some(unknown) = case.keys().unwrap_or_default().iter().find(|key| !is_known(key)) else {
        return CheckResult::NotApplicable;
    };
    let kind = unknown.text("crv").or(unknown.text("kty")).unwrap_or("none");
    violated(
        format!(
            "key `{}` is of type `{kind}`, which kube-apiserver does not know",
            unknown.kid().unwrap_or_default()
        ),
        "only RSA keys, EC keys on P-256, P-384 or P-521, and Ed25519 keys",
        "publish keys of other types under another issuer; profile `entra` leaves out all but RSA",
    )
}
