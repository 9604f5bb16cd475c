//! Tripwire: whether relying parties can know the key that an API server signs with when no order named it.

use std::collections::BTreeSet;

use jiff::Timestamp;

use super::{BlockedReason, Timing};
use crate::core::{
    jose::kid::Kid,
    ledger::{Entry, Ledger},
    time::later,
};

/// How far the signing key is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SigningKey {
    /// No relying party can verify its tokens.
    NotPublic,
    /// It is public, but a relying party with a cached JWKS may still reject its tokens.
    NotReady { waits_for: BTreeSet<BlockedReason> },
    /// No cached JWKS lacks it.
    Ready,
}

impl SigningKey {
    #[must_use]
    pub fn is_public(&self) -> bool {
        *self != Self::NotPublic
    }

    #[must_use]
    pub fn is_ready(&self) -> bool {
        *self == Self::Ready
    }

    /// When it is ready, if only time is missing.
    #[must_use]
    pub fn ready_at(&self) -> Option<Timestamp> {
        let Self::NotReady { waits_for } = self else { return None };
        waits_for.iter().map(BlockedReason::until).collect::<Option<Vec<_>>>()?.into_iter().max()
    }
}

/// What changed in how far the signing key of an API server is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SigningKeyChange {
    /// It is public, after one that was not.
    Published,
    /// It is ready, after one that was public and not ready.
    Ready,
    /// It is another one that is not public, or no longer public.
    NotPublic,
    /// It is another one that is not ready, or has just become public.
    NotReady { waits_for: BTreeSet<BlockedReason> },
}

/// What changed since a signing key was last observed, or never was.
#[must_use]
pub fn signing_key_changes(
    before: Option<&(Kid, SigningKey)>,
    (kid, found): &(Kid, SigningKey),
) -> Vec<SigningKeyChange> {
    let before = before.filter(|(_, before)| !before.is_ready());
    let mut changes = Vec::new();
    match before.map(|(_, before)| before.is_public()) {
        Some(false) if found.is_public() => changes.push(SigningKeyChange::Published),
        Some(true) if found.is_ready() => changes.push(SigningKeyChange::Ready),
        _ => {}
    }
    let is_known =
        before.is_some_and(|(known, before)| known == kid && before.is_public() == found.is_public());
    match found {
        SigningKey::NotPublic if !is_known => changes.push(SigningKeyChange::NotPublic),
        SigningKey::NotReady { waits_for } if !is_known => {
            changes.push(SigningKeyChange::NotReady { waits_for: waits_for.clone() });
        }
        _ => {}
    }
    changes
}

/// Decides how far the observed signing key is known; `is_public` tells whether it is in the publication.
#[must_use]
pub fn signing_key(
    ledger: &Ledger,
    kid: &Kid,
    is_public: bool,
    required_targets: &BTreeSet<String>,
    now: Timestamp,
    timing: &Timing,
) -> SigningKey {
    let Some(entry) = ledger.entries().get(kid).filter(|_| is_public) else { return SigningKey::NotPublic };
    let waits_for: BTreeSet<_> = required_targets
        .iter()
        .filter_map(|place| blocked_reasons(ledger, entry, place, now, timing))
        .collect();
    if waits_for.is_empty() || entry.present_from_start {
        return SigningKey::Ready;
    }
    SigningKey::NotReady { waits_for }
}

/// Why relying parties that read this target may not know the key.
fn blocked_reasons(
    ledger: &Ledger,
    entry: &Entry,
    place: &str,
    now: Timestamp,
    timing: &Timing,
) -> Option<BlockedReason> {
    // If the target shows no key, or showed none before this one, no relying party can have read a JWKS
    // without it.
    let oldest = ledger.entries().values().filter_map(|entry| entry.shown.get(place)).min()?;
    let place = place.to_owned();
    let Some(since) = entry.shown.get(&place) else { return Some(BlockedReason::NotShown { target: place }) };
    let until = later(*since, timing.until_ready());
    (since > oldest && now < until).then_some(BlockedReason::Propagating { target: place, until })
}
