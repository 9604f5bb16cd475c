//! Faults planted into inputs and outputs of the real functions, to prove that the model detects them.

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
    /// A node creates no key before it needs one.
    NoStandby,
    /// A revocation orders any key, ready or not.
    RevokeWithoutStandby,
    /// The publisher trusts its clock although it is detectably wrong.
    WrongClockTrusted,
    /// Once the operator has waived the propagation wait for one key, it is waived for all.
    WaitOfNobody,
}

impl Fault {
    /// The waits of the faulty publisher.
    pub(super) fn timing(self, timing: Timing) -> Timing {
        match self {
            Self::NoPropagationWait => Timing { propagation: Duration::ZERO, ..timing },
            Self::NoLifetimeWait => Timing { max_token_lifetime: Duration::ZERO, ..timing },
            _ => timing,
        }
    }

    /// The waits of the faulty publisher with this ledger.
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

    /// What the faulty publisher observes.
    pub(super) fn blind(self, seen: &mut RotationInputs) {
        if self == Self::OneTargetCountsAsAll {
            seen.required_targets = seen.required_targets.iter().take(1).cloned().collect();
        }
    }

    /// How the faulty publisher applies its observations.
    pub(super) fn believe(self, observed: &LedgerUpdate, now: Timestamp) -> Ledger {
        let refused = observed.refused.iter().filter(|(_, refusal)| **refusal == KeyRefusal::Tombstone);
        let ignored = refused.filter(|_| self == Self::TombstoneIgnored).map(|(kid, _)| kid);
        ignored.fold(observed.ledger.clone(), |ledger, kid| ledger.adopt(kid, now).unwrap_or(ledger))
    }

    /// How the faulty publisher reads an announcement.
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

    /// How the faulty ledger records a target observation.
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

    /// The steps that a faulty node skips.
    pub(super) fn forbids(self, step: &Stroke, journal: &Journal) -> bool {
        match step {
            Stroke::Generate => self == Self::NoStandby && journal.signing().is_some(),
            Stroke::Stop { .. } => self == Self::NeverRetire,
            _ => false,
        }
    }

    /// The keys that a faulty node serves to its API server.
    pub(super) fn feed(self, memory: &Journal, ledger: Option<&Ledger>) -> Option<Journal> {
        let ledger = ledger.filter(|_| self == Self::LedgerKeysFedToFetchKeys)?;
        let legacy = ledger.public_keys().map(|jwk| VerificationOnlyKey { jwk: jwk.clone(), exclude: false });
        Some(memory.with_additional_keys(legacy.collect(), Timestamp::UNIX_EPOCH))
    }
}
