//! Rules of AWS and Google Cloud, on the same evidence.

use url::Url;

use super::{BEFORE_THE_OTHER, BESIDE_THE_OTHER, holds, quoted, violated};
use super::{Basis, Check, CheckResult, CheckStage, Context, Error, Party, Violation, Warning};
use crate::core::verification::DocumentEvidence;

/// The usual audience of `AssumeRoleWithWebIdentity`.
const AWS_AUDIENCE: &str = "sts.amazonaws.com";
/// Longest audience that IAM accepts, in characters.
const AWS_MAX_AUDIENCE: usize = 255;
/// The members of a JWK that Google accepts in an uploaded JWKS.
const GCP_MEMBERS: [&str; 9] = ["kty", "alg", "use", "kid", "n", "e", "x", "y", "crv"];

pub(super) const CHECKS: &[Check] = &[
    Check {
        id: "AWS-ISS",
        rule: "the issuer has no port: IAM accepts none",
        level: Error,
        parties: &[Party::Aws],
        codes: &[],
        basis: Basis::documented("IAM, CreateOpenIDConnectProvider"),
        step: CheckStage::Issuer,
        judge: aws_takes_the_issuer,
    },
    Check {
        id: "AWS-ALG",
        rule: "the token is signed with RS256, RS384, RS512, ES256, ES384 or ES512",
        level: Error,
        parties: &[Party::Aws],
        codes: &[],
        basis: Basis::documented("IAM, OIDC providers"),
        step: CheckStage::Algorithm,
        judge: aws_takes_the_algorithm,
    },
    Check {
        id: "AWS-AUD",
        rule: "unless `--audience` says otherwise, the token is for `sts.amazonaws.com`",
        level: Warning,
        parties: &[Party::Aws],
        codes: &[],
        basis: Basis::documented("IAM, CreateOpenIDConnectProvider"),
        step: CheckStage::Audience,
        judge: aws_takes_the_audience,
    },
    Check {
        id: "GCP-ALG",
        rule: "the token is signed with RS256 or ES256",
        level: Error,
        parties: &[Party::Gcp],
        codes: &[],
        basis: Basis::inferred("examples of Google"),
        step: CheckStage::Algorithm,
        judge: gcp_takes_the_algorithm,
    },
    Check {
        id: "GCP-JWKS",
        rule: "keys have no members that Google refuses in an uploaded JWKS, such as `x5c`",
        level: Warning,
        parties: &[Party::Gcp],
        codes: &[],
        basis: Basis::documented("IAM, WorkloadIdentityPoolProvider"),
        step: CheckStage::Key,
        judge: gcp_takes_the_keys,
    },
    Check {
        id: "LOCAL-ALG",
        rule: "the token is signed with an algorithm of Kubernetes",
        level: Error,
        parties: &[Party::Local],
        codes: &[],
        basis: Basis::documented("Kubernetes, jwt.go"),
        step: CheckStage::Algorithm,
        judge: kubernetes_signs_so,
    },
];

/// Adapts a result to Google: a provider with an uploaded JWKS reads nothing from the issuer. A JWKS from a
/// file counts as the uploaded one.
pub(in super::super) fn for_google(check: &Check, case: &Context, verdict: CheckResult) -> CheckResult {
    let is_of_documents =
        check.id == "TOK-ISS-DEFAULT" || (check.step == CheckStage::Metadata && check.id != "ISS-SYNTAX");
    match verdict {
        CheckResult::Violated(it)
            if case.question.party == Party::Gcp && check.level == Error && is_of_documents =>
        {
            if matches!(case.evidence.jwks, DocumentEvidence::File { .. }) {
                return CheckResult::NotApplicable;
            }
            let fix = "upload the JWKS to the provider, and again whenever a key comes or goes: `gcloud iam workload-identity-pools providers update-oidc` with `--jwk-json-path`; `--jwks` judges with the uploaded one".to_owned();
            CheckResult::Violated(Violation { fix, ..it }).unless("the provider has an uploaded JWKS")
        }
        other => other,
    }
}

fn aws_takes_the_issuer(case: &Context) -> CheckResult {
    match case.issuer().and_then(|issuer| Url::parse(issuer).ok()).and_then(|url| url.port()) {
        Some(port) => violated(
            format!("the issuer names port {port}"),
            "no port: IAM accepts none",
            format!(
                "serve it at port 443, and give kube-apiserver the URL without a port {BEFORE_THE_OTHER}"
            ),
        ),
        None => CheckResult::NotApplicable,
    }
}

pub(super) fn algorithm(case: &Context, taken: &[&str]) -> CheckResult {
    let Some(token) = case.token() else { return CheckResult::NotApplicable };
    let named = token.header().alg.as_str();
    if taken.contains(&named) {
        return holds(format!("signed with {named}"));
    }
    violated(
        format!("signed with `{named}`"),
        format!("one of {}", quoted(taken)),
        format!("give kube-apiserver an RSA or P-256 key to sign with, {BESIDE_THE_OTHER}"),
    )
}

fn aws_takes_the_algorithm(case: &Context) -> CheckResult {
    algorithm(case, &["RS256", "RS384", "RS512", "ES256", "ES384", "ES512"])
}

fn gcp_takes_the_algorithm(case: &Context) -> CheckResult {
    algorithm(case, &["RS256", "ES256"])
}

fn kubernetes_signs_so(case: &Context) -> CheckResult {
    algorithm(case, &["RS256", "ES256", "ES384", "ES512"])
}

fn aws_takes_the_audience(case: &Context) -> CheckResult {
    let Some(token) = case.token() else { return CheckResult::NotApplicable };
    let found = token.audiences();
    let fix = format!(
        "project the token with `audience: {AWS_AUDIENCE}`, or pass the configured audience with `--audience`"
    );
    if let Some(long) = found.iter().find(|audience| audience.chars().count() > AWS_MAX_AUDIENCE) {
        let length = long.chars().count();
        return violated(
            format!("`aud` has {length} characters"),
            format!("at most {AWS_MAX_AUDIENCE}"),
            fix,
        );
    }
    if case.question.expected.audience.is_some() || found.is_empty() || found.contains(&AWS_AUDIENCE) {
        return CheckResult::NotApplicable;
    }
    violated(format!("`aud` is {}", quoted(found)), format!("`{AWS_AUDIENCE}`, recommended"), fix)
}

fn gcp_takes_the_keys(case: &Context) -> CheckResult {
    let keys = case.keys().unwrap_or_default();
    let extra =
        keys.iter().flat_map(|key| key.members.keys()).find(|name| !GCP_MEMBERS.contains(&name.as_str()));
    match extra {
        Some(name) => violated(
            format!("a key has the member `{name}`"),
            format!("only {}", quoted(GCP_MEMBERS)),
            "publish it again with `signpost sync`, which leaves it out",
        ),
        None => CheckResult::NotApplicable,
    }
}
