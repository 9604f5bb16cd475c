//! Rules of rotation: the ledger's record of the signing key.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::{
    Basis, Check, CheckResult, CheckStage, Context, EVERYBODY, Error, Warning, differs, holds, violated,
};
use crate::core::{
    jose::{kid::Kid, token::UnverifiedToken},
    ledger::{Entry, EntryState, signed},
    time::later,
    verification::{PROPAGATION, Party},
};

/// How long Entra was seen to answer from an older JWKS, and not to know a new issuer.
const SEEN_WITHIN: SignedDuration = SignedDuration::from_hours(1);
const KNOWN_WITHIN: SignedDuration = SignedDuration::from_mins(30);

pub(super) const CHECKS: &[Check] = &[
    Check {
        id: "ROT-OVERLAP",
        rule: "the key stays published until its last token has expired",
        level: Error,
        parties: EVERYBODY,
        codes: &[7_000_272],
        basis: Basis::documented("azure-workload-identity, key rotation"),
        step: CheckStage::Key,
        judge: key_is_kept,
    },
    Check {
        id: "CACHE-WAIT",
        rule: "every target has shown the key for a day, or for kube-apiserver as long as the JWKS may be kept: a relying party may still have an older JWKS",
        level: Warning,
        parties: EVERYBODY,
        codes: &[7_000_272],
        basis: Basis::observed("blob-csi-driver e2e, 20 to 30 min; others, an hour"),
        step: CheckStage::Key,
        judge: key_is_known_by_now,
    },
    Check {
        id: "CACHE-NEW",
        rule: "a key that was added later is older than an hour: Entra may have read the JWKS before",
        level: Error,
        parties: &[Party::Entra],
        codes: &[7_000_272],
        basis: Basis::observed("blob-csi-driver e2e, 20 to 30 min; others, an hour"),
        step: CheckStage::Key,
        judge: key_is_older_than_an_hour,
    },
    Check {
        id: "CACHE-FIRST",
        rule: "the first publication is older than half an hour: Entra may not know a new issuer at once",
        level: Warning,
        parties: &[Party::Entra],
        codes: &[7_000_272],
        basis: Basis::observed("blob-csi-driver e2e, 20 to 30 min"),
        step: CheckStage::Key,
        judge: issuer_is_older_than_half_an_hour,
    },
    Check {
        id: "ROT-EARLY",
        rule: "the key had been shown for a day before it signed",
        level: Warning,
        parties: EVERYBODY,
        codes: &[7_000_272],
        basis: Basis::inferred("blob-csi-driver e2e"),
        step: CheckStage::Key,
        judge: key_was_ready,
    },
    Check {
        id: "ISS-CHANGE",
        rule: "the issuer is the one that Signpost publishes: another leaves running tokens and credentials behind",
        level: Warning,
        parties: EVERYBODY,
        codes: &[700_211],
        basis: Basis::documented("AKS, OIDC issuer"),
        step: CheckStage::Issuer,
        judge: issuer_is_the_same,
    },
];

/// The ledger's entry of the signing key.
fn entry<'a>(case: &Context<'a>) -> Option<(&'a Kid, &'a Entry)> {
    let kid = case.token()?.header().kid.as_ref()?;
    Some((kid, case.evidence.ledger.as_ref()?.entries().get(kid)?))
}

fn key_is_kept(case: &Context) -> CheckResult {
    let Some((kid, entry)) = entry(case) else { return CheckResult::NotApplicable };
    match entry.state {
        EntryState::Listed | EntryState::Missing { .. } => holds("the ledger keeps the key published"),
        EntryState::Removed { at } => violated(
            format!("kid `{kid}` was taken out of the publication at {at}"),
            "the key published until its last token has expired",
            format!(
                "get a new token; if this key still signs, `signpost ledger adopt {}`",
                kid.as_argument()
            ),
        ),
        EntryState::Revoked { at } => violated(
            format!("kid `{kid}` was revoked at {at}"),
            "a key that was not revoked",
            "get a new token; the old one is to be refused",
        ),
    }
}

/// Since when every target that shows the key does so; `None` if no relying party can have a JWKS without it.
fn shown_since(entry: &Entry) -> Option<Timestamp> {
    if entry.present_from_start { None } else { entry.shown.values().max().copied() }
}

/// How long a relying party may cache an earlier JWKS.
fn kept(case: &Context) -> Duration {
    match case.evidence.jwks.answer() {
        Some(answer) if case.question.party == Party::Kubernetes => {
            answer.cache.longest(case.evidence.now).lifetime
        }
        _ => PROPAGATION,
    }
}

fn in_words(time: Duration) -> String {
    if time == PROPAGATION { "a day".to_owned() } else { format!("{} s", time.as_secs()) }
}

/// The time from `since` to `at`, if it was too short.
fn too_early(case: &Context, since: Timestamp, at: Timestamp) -> Option<SignedDuration> {
    Some(at.duration_since(since)).filter(|after| *after < signed(kept(case)))
}

fn key_is_known_by_now(case: &Context) -> CheckResult {
    let Some((kid, entry)) = entry(case) else { return CheckResult::NotApplicable };
    match shown_since(entry).and_then(|since| Some((since, too_early(case, since, case.evidence.now)?))) {
        Some((since, after)) => violated(
            format!(
                "kid `{kid}` has been shown by every target for only {:#}",
                after.max(SignedDuration::ZERO)
            ),
            format!("{}, that is until {}", in_words(kept(case)), later(since, kept(case))),
            "wait and retry: caches are still outdated",
        ),
        None => holds("every cached JWKS should have the key by now"),
    }
}

/// When the issuer was first published, as far as its ledger still knows.
fn first_published(case: &Context) -> Option<Timestamp> {
    case.evidence.ledger.as_ref()?.entries().values().map(|entry| entry.first_seen).min()
}

fn key_is_older_than_an_hour(case: &Context) -> CheckResult {
    // A key that was added soon after the first publication counts as one of it.
    let is_first = |since: &Timestamp| {
        first_published(case).is_some_and(|first| since.duration_since(first) < KNOWN_WITHIN)
    };
    let since =
        entry(case).and_then(|(kid, entry)| Some((kid, shown_since(entry).filter(|it| !is_first(it))?)));
    let age = since.map(|(kid, since)| (kid, case.evidence.now.duration_since(since)));
    age.filter(|(_, age)| *age < SEEN_WITHIN).map_or(CheckResult::NotApplicable, |(kid, age)| {
        violated(
            format!(
                "kid `{kid}` has been shown by every target for only {:#}",
                age.max(SignedDuration::ZERO)
            ),
            "an hour at least",
            "wait and retry: Entra still answers from an older JWKS",
        )
        .unless("Entra has read the JWKS since then")
    })
}

fn issuer_is_older_than_half_an_hour(case: &Context) -> CheckResult {
    let first = entry(case).and_then(|_| first_published(case));
    let age = first.map(|first| case.evidence.now.duration_since(first));
    age.filter(|age| *age < KNOWN_WITHIN).map_or(CheckResult::NotApplicable, |age| {
        violated(
            format!("the issuer was first published {:#} ago", age.max(SignedDuration::ZERO)),
            "half an hour at least",
            "if Entra refuses, wait and retry",
        )
    })
}

fn key_was_ready(case: &Context) -> CheckResult {
    let signed_at = case.token().and_then(UnverifiedToken::issued_at);
    let (Some((kid, entry)), Some(signed_at)) = (entry(case), signed_at) else {
        return CheckResult::NotApplicable;
    };
    match shown_since(entry).and_then(|since| too_early(case, since, signed_at)) {
        Some(after) => violated(
            if after.is_negative() {
                format!("kid `{kid}` has signed {:#} before every target showed it", after.abs())
            } else {
                format!("kid `{kid}` has signed {after:#} after every target showed it")
            },
            format!("{} between them", in_words(kept(case))),
            "publish keys ahead of time: have Signpost sign, or give it the next key as a source of kind `files`",
        ),
        None => CheckResult::NotApplicable,
    }
}

fn issuer_is_the_same(case: &Context) -> CheckResult {
    let published = case.evidence.ledger.as_ref().map(|ledger| ledger.issuer().as_str());
    match (case.issuer(), published) {
        (Some(issuer), Some(published)) if issuer != published => differs(
            "the issuer",
            issuer,
            published,
            "publish both for as long as tokens and federated credentials name the other: `previous_issuers` in the configuration",
        ),
        _ => CheckResult::NotApplicable,
    }
}
