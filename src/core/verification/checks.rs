//! The table of checks, one module per subject. Within a module the rules are in the order in which a relying
//! party can check them.

mod agent;
mod aws_and_google;
mod cluster;
mod credential;
mod delivery;
mod discovery;
mod entra_token;
mod identity;
mod issuer;
mod keys;
mod kubernetes;
mod pod;
mod presenter;
mod publication;
mod request;
mod rotation;
mod settings;
mod sidecar;
mod time;
mod token;

pub(super) use self::{
    aws_and_google::for_google,
    credential::{fulfils, names_unusual_claim},
};
use super::{
    Basis, Check, CheckResult, CheckStage, Difference,
    Level::{Error, Note, Warning},
    Party, Violation,
    context::Context,
};

/// The check that a document is reachable.
pub(super) const REACH: &str = "PUB-REACH";
/// The check that there are keys: decisive for a publication without a token.
pub(super) const KEYS: &str = "JWKS-PARSE";
/// The check without which no token is accepted.
pub(super) const SIGNATURE: &str = "SIG";

/// The checks that may pass later without a change: a publication on its way, a busy server, a clock that is
/// slightly behind.
pub(super) const RETRYABLE: [&str; 6] = [REACH, "PUB-PATH", "PUB-STATUS", "JWKS-KID", "CACHE-NEW", "FIC-AGE"];

const PARTS: [&[Check]; 19] = [
    pod::CHECKS,
    settings::CHECKS,
    request::CHECKS,
    sidecar::CHECKS,
    token::CHECKS,
    issuer::CHECKS,
    entra_token::CHECKS,
    credential::CHECKS,
    agent::CHECKS,
    identity::CHECKS,
    discovery::CHECKS,
    publication::CHECKS,
    delivery::CHECKS,
    keys::CHECKS,
    cluster::CHECKS,
    rotation::CHECKS,
    time::CHECKS,
    aws_and_google::CHECKS,
    kubernetes::CHECKS,
];

/// How to change the issuer of kube-apiserver without locking clients out: it signs as the first issuer, and
/// accepts tokens of all.
const BEFORE_THE_OTHER: &str = "as the first `--service-account-issuer`, and keep the old one as the second. kube-apiserver then issues for the first and accepts both, so running pods keep access";
/// How to change the key of kube-apiserver without locking clients out.
const BESIDE_THE_OTHER: &str = "and keep the public half of the old one in `--service-account-key-file` until the last token it signed has expired";

/// What many checks rest on: `tests/ground_truth/`.
const REPORTS: &str = "reports of the token endpoint's answers";

const EVERYBODY: &[Party] = &Party::ALL;
/// kube-apiserver accepts what these rules forbid.
const NOT_KUBERNETES: &[Party] = &[Party::Entra, Party::Aws, Party::Gcp, Party::Local];
const OUTSIDE: &[Party] = &Party::OUTSIDE;
const ENTRA: &[Party] = &[Party::Entra];

/// All checks.
pub fn checks() -> impl Iterator<Item = &'static Check> {
    PARTS.into_iter().flatten()
}

fn holds(seen: impl Into<String>) -> CheckResult {
    CheckResult::Holds(seen.into())
}

fn violated(seen: impl Into<String>, expected: impl Into<String>, fix: impl Into<String>) -> CheckResult {
    CheckResult::Violated(Violation {
        seen: seen.into(),
        expected: expected.into(),
        fix: fix.into(),
        difference: None,
        unless: None,
        codes: None,
    })
}

/// As [`violated`], for two texts that should be equal.
fn differs(what: &str, seen: &str, expected: &str, fix: impl Into<String>) -> CheckResult {
    CheckResult::Violated(Violation {
        seen: format!("{what} is `{seen}`"),
        expected: format!("`{expected}`"),
        fix: fix.into(),
        difference: Difference::between(seen, expected),
        unless: None,
        codes: None,
    })
}

/// Names in backticks, with commas between.
fn quoted<S: AsRef<str>>(names: impl IntoIterator<Item = S>) -> String {
    names.into_iter().map(|name| format!("`{}`", name.as_ref())).collect::<Vec<_>>().join(", ")
}
