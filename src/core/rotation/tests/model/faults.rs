//! Faults that are planted into what the real functions are given or say, to see that the model notices.

use super::*;
use crate::core::{
    ledger::{KeyRefusal, LedgerUpdate},
    signer::{
        Journal, SignerStep as Stroke, VerificationOnlyKey,
        announcement::{AnnouncedKey, Announcement},
    },
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    NoPropagationWait,
    WaitFromGeneration,
    GapIgnored,
    NoLifetimeWait,
    OneTargetCountsAsAll,
    EarliestVisibility,
    NeverRetire,
    RetireBeforeSwitch,
    TombstoneIgnored,
    LedgerKeysFedToFetchKeys,
    OlderLedgerWins,
    /// A node makes no key before it needs one.
    NoStandby,
    /// A revocation orders any key, ready or not.
    RevokeWithoutStandby,
    /// Everybody can see that the publisher's clock is wrong, and it goes on by it.
    WrongClockTrusted,
    /// Once the operator has waived the propagation wait for one key, nobody waits for it any more.
    WaitOfNobody,
}

impl Fault {
    /// The waits as the publisher takes them.
    pub(super) fn timing(self, timing: Timing) -> Timing {
        match self {
            Self::NoPropagationWait => Timing { propagation: Duration::ZERO, ..timing },
            Self::NoLifetimeWait => Timing { max_token_lifetime: Duration::ZERO, ..timing },
            _ => timing,
        }
    }

    /// The waits as they are taken with this ledger.
    pub(super) fn timing_of(self, ledger: &Ledger, timing: Timing) -> Timing {
        if self == Self::RevokeWithoutStandby && ledger.revoked().next().is_some() {
            return Timing { propagation: Duration::ZERO, ..timing };
        }
        let was_waived = || ledger.orders().values().any(|order| order.reason == OrderReason::Unseen);
        if self == Self::WaitOfNobody && was_waived() {
            return Timing { propagation: Duration::ZERO, rotate_after: Some(Duration::ZERO), ..timing };
        }
        timing
    }

    /// What the publisher sees.
    pub(super) fn blind(self, seen: &mut RotationInputs) {
        if self == Self::OneTargetCountsAsAll {
            seen.required_targets = seen.required_targets.iter().take(1).cloned().collect();
        }
    }

    /// What the publisher makes of what it observed.
    pub(super) fn believe(self, observed: &LedgerUpdate, now: Timestamp) -> Ledger {
        let refused = observed.refused.iter().filter(|(_, refusal)| **refusal == KeyRefusal::Tombstone);
        let ignored = refused.filter(|_| self == Self::TombstoneIgnored).map(|(kid, _)| kid);
        ignored.fold(observed.ledger.clone(), |ledger, kid| ledger.adopt(kid, now).unwrap_or(ledger))
    }

    /// What the publisher reads of an announcement.
    pub(super) fn misread(self, read: &Announcement, ledger: Option<&Ledger>) -> Announcement {
        let order = ledger.and_then(|ledger| ledger.orders().get(read.node()));
        let stage = |key: &AnnouncedKey| match (self, key.stage, order) {
            (Self::NoLifetimeWait, Stage::Retired { since, .. }, _) => {
                Stage::Retired { since, latest_exp: None }
            }
            (Self::RetireBeforeSwitch, Stage::Active { .. }, Some(order)) if order.sign != *key.jwk.kid() => {
                Stage::Retired { since: order.at, latest_exp: Some(order.at + lasting(LIFETIME)) }
            }
            (_, stage, _) => stage,
        };
        let keys = read.keys().values().map(|key| AnnouncedKey { stage: stage(key), ..key.clone() });
        Announcement::new(read.node().clone(), read.issuer().clone(), read.version(), keys)
    }

    /// What the ledger records of a look.
    pub(super) fn shown(
        self,
        ledger: &Ledger,
        place: &str,
        look: &TargetObservation,
        now: Option<Timestamp>,
    ) -> Ledger {
        let since = |ledger: &Ledger, kid: &Kid| {
            let entry = ledger.entries().get(kid)?;
            match self {
                Self::WaitFromGeneration => entry.signer.as_ref().map(|signer| signer.stage.since()),
                Self::EarliestVisibility => entry.shown.values().min().copied(),
                _ => None,
            }
        };
        if self == Self::GapIgnored {
            return ledger.observe_target(place, &TargetObservation::of_own_listener(look.view.clone()), now);
        }
        let is_shown =
            |kid: &&Kid| ledger.entries().get(*kid).is_some_and(|entry| entry.shown.contains_key(place));
        let mut look_until =
            TargetObservation { view: look.view.iter().filter(is_shown).cloned().collect(), ..look.clone() };
        let mut shown = ledger.observe_target(place, &look_until, now);
        for kid in &look.view {
            look_until.view.insert(kid.clone());
            shown = shown.observe_target(place, &look_until, since(&shown, kid).or(now));
        }
        shown
    }

    /// What a node does not do.
    pub(super) fn forbids(self, step: &Stroke, journal: &Journal) -> bool {
        match step {
            Stroke::Generate => self == Self::NoStandby && journal.signing().is_some(),
            Stroke::Stop { .. } => self == Self::NeverRetire,
            _ => false,
        }
    }

    /// What an API server is fed.
    pub(super) fn feed(self, memory: &Journal, ledger: Option<&Ledger>) -> Option<Journal> {
        let ledger = ledger.filter(|_| self == Self::LedgerKeysFedToFetchKeys)?;
        let legacy = ledger.public_keys().map(|jwk| VerificationOnlyKey { jwk: jwk.clone(), exclude: false });
        Some(memory.with_additional_keys(legacy.collect(), Timestamp::UNIX_EPOCH))
    }
}
