//! Rules of time: of the token, and of the clocks involved.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::{
    Basis, Check, CheckResult, CheckStage, Context, ENTRA, EVERYBODY, Error, OUTSIDE, Warning, holds,
    violated,
};
use crate::core::{
    jose::token::UnverifiedToken,
    verification::{ENTRA_LIFE, Party},
};

/// Longest token lifetime without a finding: the maximum of Azure Kubernetes Service.
const LONG_LIFE: Duration = Duration::from_hours(24);
/// Shortest token lifetime in Kubernetes.
/// Source: `minExpirationSeconds` in `kubernetes/pkg/apis/authentication/validation/validation.go`.
const SHORT_LIFE: Duration = Duration::from_mins(10);
/// Clock skew that is tolerated for a token that is not valid yet: common among relying parties, and
/// undocumented for Entra.
const TOLERANCE: SignedDuration = SignedDuration::from_mins(5);
/// Smallest clock skew that causes a finding.
const NOTABLE: SignedDuration = SignedDuration::from_mins(1);

pub(super) const CHECKS: &[Check] = &[
    Check {
        id: "TOK-LONG",
        rule: "its lifetime is at most 25 hours, from `iat` to `exp`; Entra treats a missing `iat` as 1970",
        level: Error,
        parties: ENTRA,
        codes: &[70_023],
        basis: Basis::observed("answers of the token endpoint"),
        step: CheckStage::Lifetime,
        judge: lives_no_longer_than_entra_takes,
    },
    Check {
        id: "TOK-TIME",
        rule: "now is between `nbf` (or `iat`), less five minutes, and `exp`; for kube-apiserver between `nbf`, less a minute, and `exp`",
        level: Error,
        parties: EVERYBODY,
        codes: &[700_024],
        basis: Basis::documented("Azure DevOps, AADSTS errors of workload identity"),
        step: CheckStage::Time,
        judge: is_alive,
    },
    Check {
        id: "TOK-EARLY",
        rule: "`nbf` (or `iat`) is not in the future; what Entra tolerates is not documented",
        level: Warning,
        parties: EVERYBODY,
        codes: &[700_024],
        basis: Basis::inferred("not documented"),
        step: CheckStage::Time,
        judge: has_begun,
    },
    Check {
        id: "TOK-LIFE",
        rule: "its lifetime is at least ten minutes and at most a day: its key must stay published until it expires",
        level: Warning,
        parties: OUTSIDE,
        codes: &[],
        basis: Basis::documented("AKS, OIDC issuer"),
        step: CheckStage::Time,
        judge: lives_neither_long_nor_briefly,
    },
    Check {
        id: "TOK-MAX",
        rule: "no token of this issuer may have a lifetime of more than 25 hours (`max_token_lifetime`)",
        level: Warning,
        parties: ENTRA,
        codes: &[70_023],
        basis: Basis::observed("answers of the token endpoint"),
        step: CheckStage::Lifetime,
        judge: others_live_no_longer,
    },
    Check {
        id: "TOK-FRESH",
        rule: "it is younger than four fifths of its lifetime, when the kubelet replaces it",
        level: Warning,
        parties: EVERYBODY,
        codes: &[700_024],
        basis: Basis::documented("azure-workload-identity, key rotation"),
        step: CheckStage::Time,
        judge: is_fresh,
    },
    Check {
        id: "CLOCK",
        rule: "this clock and the server's agree within a minute",
        level: Warning,
        parties: EVERYBODY,
        codes: &[700_024],
        basis: Basis::inferred("not documented"),
        step: CheckStage::Time,
        judge: clocks_agree,
    },
];

fn between(from: Timestamp, to: Timestamp) -> String {
    format!("{:#}", to.duration_since(from))
}

/// When the token becomes valid, and when it expires.
fn life(token: &UnverifiedToken) -> (Option<Timestamp>, Option<Timestamp>) {
    (token.not_before().or(token.issued_at()), token.expires_at())
}

fn is_alive(case: &Context) -> CheckResult {
    let Some(token) = case.token() else { return CheckResult::NotApplicable };
    let (start, tolerance) = match case.question.party {
        Party::Kubernetes => (token.not_before(), NOTABLE),
        _ => (life(token).0, TOLERANCE),
    };
    let Some(expiry) = token.expires_at() else { return CheckResult::NotApplicable };
    let now = case.evidence.now;
    if expiry <= now {
        return violated(
            format!("expired {} ago, at {expiry}", between(expiry, now)),
            "a token that has not expired",
            "read the token file again for every request; the kubelet replaces it in time",
        );
    }
    match start.filter(|start| start.duration_since(now) > tolerance) {
        Some(start) => violated(
            format!("not valid for another {}", between(now, start)),
            "a token that is valid now",
            "correct the clocks, here and on the node that signed",
        ),
        None => holds(format!("valid for another {}", between(now, expiry))),
    }
}

fn has_begun(case: &Context) -> CheckResult {
    let start = case.token().and_then(|token| life(token).0);
    let Some(ahead) = start.map(|start| start.duration_since(case.evidence.now)) else {
        return CheckResult::NotApplicable;
    };
    if !ahead.is_positive() || ahead > TOLERANCE {
        return CheckResult::NotApplicable;
    }
    violated(
        format!("not valid for another {ahead:#}"),
        "a token that is valid now",
        "correct the clocks, here and on the node that signed",
    )
}

fn lives_no_longer_than_entra_takes(case: &Context) -> CheckResult {
    let expiry = case.token().and_then(|token| Some((token.issued_at(), token.expires_at()?)));
    let Some((issued, expiry)) = expiry.filter(|_| !case.has_own_assertion()) else {
        return CheckResult::NotApplicable;
    };
    let life = expiry.duration_since(issued.unwrap_or(Timestamp::UNIX_EPOCH));
    if Duration::try_from(life).is_ok_and(|life| life > ENTRA_LIFE) {
        let (seen, fix) = match issued {
            Some(issued) => (
                format!("has a lifetime of {}", between(issued, expiry)),
                "request a day at most: `expirationSeconds` of the projected volume, `--duration` of `kubectl create token`",
            ),
            None => ("has no usable `iat`".to_owned(), "use a projected token or `kubectl create token`"),
        };
        return violated(seen, "25 hours from `iat` to `exp` at most", fix);
    }
    holds("has a lifetime that Entra accepts")
}

fn others_live_no_longer(case: &Context) -> CheckResult {
    match case.evidence.max_token_lifetime {
        Some(life) if life > ENTRA_LIFE => violated(
            format!("tokens of this issuer may have a lifetime of {} h", life.as_secs().div_ceil(3600)),
            "25 h at most",
            "make sure that no pod sends Entra a token with a longer lifetime; then `max_token_lifetime` can be 24h",
        ),
        _ => CheckResult::NotApplicable,
    }
}

fn lives_neither_long_nor_briefly(case: &Context) -> CheckResult {
    let times = case.token().and_then(|token| Some((token.issued_at()?, token.expires_at()?)));
    let Some((issued, expiry)) = times else { return CheckResult::NotApplicable };
    match Duration::try_from(expiry.duration_since(issued)) {
        // Entra's limit has its own rule.
        Ok(life) if life > ENTRA_LIFE && case.question.party == Party::Entra => CheckResult::NotApplicable,
        Ok(life) if life > LONG_LIFE => violated(
            format!("has a lifetime of {}", between(issued, expiry)),
            "a day at most",
            "lower `expirationSeconds`: its key must stay published until it expires",
        ),
        Ok(life) if life < SHORT_LIFE => violated(
            format!("has a lifetime of {}", between(issued, expiry)),
            "at least ten minutes, the minimum of Kubernetes",
            "request a longer lifetime where the token is kept for a second request",
        ),
        _ => CheckResult::NotApplicable,
    }
}

fn is_fresh(case: &Context) -> CheckResult {
    let times = case.token().and_then(|token| Some((token.issued_at()?, token.expires_at()?)));
    let Some((issued, expiry)) = times else { return CheckResult::NotApplicable };
    let now = case.evidence.now;
    let (age, life) = (now.duration_since(issued), expiry.duration_since(issued));
    if expiry <= now || age.as_secs().saturating_mul(5) < life.as_secs().saturating_mul(4) {
        return CheckResult::NotApplicable;
    }
    violated(
        format!("{age:#} old, of a lifetime of {life:#}"),
        "a token that the kubelet has replaced by now",
        "read the token file again for every request; a copy expires",
    )
}

fn clocks_agree(case: &Context) -> CheckResult {
    let answers = case.documents().filter_map(|(_, document)| document.answer());
    // A cached response has an old `Date`.
    let mut fresh = answers.filter(|answer| answer.age.is_none_or(|age| age.is_zero()));
    match fresh.find_map(|answer| answer.clock_difference) {
        Some(difference) if difference.abs() > NOTABLE => violated(
            format!(
                "this clock is {:#} {} the server's",
                difference.abs(),
                if difference.is_positive() { "behind" } else { "ahead of" }
            ),
            "less than a minute between them",
            "set this clock, and those of the nodes, by NTP",
        ),
        Some(_) => holds("this clock and the server's agree"),
        None => CheckResult::NotApplicable,
    }
}
