//! Detects a ledger that was lost, damaged, restored from a backup or edited by hand.
//!
//! The evidence comes from a process that knows what it last read or stored, and from the targets, each of
//! which carries the sequence of the ledger that it was written from. A ledger never loses an entry, never
//! goes back, and changes no state without a record. A violation is repaired from what is known, by union,
//! and then a retention hold stops all removals for one retention (`docs/decisions/0019`).

use std::{collections::BTreeSet, fmt, sync::Arc, time::Duration};

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::{CHANGES_KEPT, Change, ChangeKind, Entry, Ledger, Lineage, MAX_SEQUENCE};
use crate::core::{
    jose::{issuer::Issuer, kid::Kid, stored::InvalidDocument},
    time::later,
};

/// Number of incidents kept: each is rare and worth a look.
const INCIDENTS_KEPT: usize = 20;
/// Largest sequence that is accepted from a target: half of the range, so that a forged one leaves more
/// changes than a ledger can ever need.
const MAX_WITNESSED: u64 = MAX_SEQUENCE / 2;

/// What was found where the ledger is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoredLedger {
    Nothing,
    /// Something that is not a ledger.
    Damaged(InvalidDocument),
    /// The version before a damaged or missing one.
    Previous(Arc<Ledger>),
    Ledger(Arc<Ledger>),
}

/// No key is removed during this time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RetentionHold {
    pub since: Timestamp,
    pub until: Timestamp,
}

/// An incident that affected the ledger as a whole.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Incident {
    pub at: Timestamp,
    pub kind: IncidentKind,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum IncidentKind {
    /// The ledger was gone; it was stored again from memory.
    Lost,
    /// It could not be read; it was stored again from what is known.
    Damaged,
    /// It is older than `seen_by` knows, or has a different history.
    Restored { found: u64, seen_by: String, known: u64 },
    /// These keys differ without a record of it.
    Edited { kids: BTreeSet<Kid> },
    /// It continues for another issuer: the configuration names the old one under `previous_issuers`.
    Moved { from: Issuer },
    /// It contains future timestamps, up to this one; see [`Ledger::without_times_ahead`].
    Ahead { latest: Timestamp },
}

impl fmt::Display for IncidentKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lost => f.write_str("the ledger was missing and was rewritten from memory"),
            Self::Damaged => f.write_str("the ledger was damaged and was rewritten"),
            Self::Restored { found, seen_by: witness, known } => write!(
                f,
                "the ledger is at revision {found}, but {witness} is at revision {known}: was it restored \
                 from a backup?"
            ),
            Self::Edited { kids } => {
                let kids: Vec<_> = kids.iter().map(Kid::as_str).collect();
                write!(f, "the ledger was edited by hand, these keys were repaired: `{}`", kids.join("`, `"))
            }
            Self::Moved { from } => write!(f, "the ledger of issuer `{from}` was taken over for this issuer"),
            Self::Ahead { latest } => write!(
                f,
                "the ledger has times in the future, up to {latest}, which now count as the present: a clock \
                 was ahead when it was written, or this clock is behind"
            ),
        }
    }
}

/// The stored ledger cannot be reconciled with the known one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Irreconcilable {
    #[error(transparent)]
    Damaged(InvalidDocument),
    #[error("it has lineage `{found}`, expected lineage `{known}`")]
    OtherLineage { known: Lineage, found: Lineage },
    #[error("it is damaged or missing")]
    NotWhole,
}

impl Ledger {
    /// Reconciles the stored ledger with this one, which was read or stored before.
    ///
    /// A ledger that has only moved on is taken as it is. A ledger at change 0 knows nothing, and takes
    /// whatever is stored.
    ///
    /// # Errors
    ///
    /// Fails if the stored ledger is of another lineage, or is damaged while nothing is known.
    pub fn reconcile(
        &self,
        found: &StoredLedger,
        now: Timestamp,
        wait: Duration,
    ) -> Result<Self, Irreconcilable> {
        let nothing_known = self.sequence == 0;
        match found {
            StoredLedger::Nothing if nothing_known => Ok(self.clone()),
            StoredLedger::Nothing => Ok(self.with_retention_hold(IncidentKind::Lost, now, wait)),
            StoredLedger::Damaged(invalid) if nothing_known => Err(Irreconcilable::Damaged(invalid.clone())),
            StoredLedger::Damaged(_) => Ok(self.with_retention_hold(IncidentKind::Damaged, now, wait)),
            StoredLedger::Previous(previous) if nothing_known => {
                Ok(previous.with_retention_hold(IncidentKind::Damaged, now, wait).moved_to(&self.issuer, now))
            }
            StoredLedger::Previous(previous) => {
                self.check_lineage(previous)?;
                Ok(self.united_with(previous).with_retention_hold(IncidentKind::Damaged, now, wait))
            }
            StoredLedger::Ledger(found) if nothing_known => {
                Ok(Self::clone(found).moved_to(&self.issuer, now))
            }
            StoredLedger::Ledger(found) => {
                self.check_lineage(found)?;
                Ok(self.compare(found, now, wait).moved_to(&self.issuer, now))
            }
        }
    }

    /// Records that a target was written from a later change than this one. Read the stored ledger first:
    /// usually another writer was only faster.
    ///
    /// Whoever can write to the target can forge its revision. So only the sequence is taken from it, no key;
    /// and during a hold, and for one retention after it, no target can start another: in that time keys that
    /// are due are removed. The times of that target count from its next observation: those of a backup are
    /// too early if the target has stopped showing a key since.
    #[must_use]
    pub fn observe_revision(&self, place: &str, sequence: u64, now: Timestamp, wait: Duration) -> Self {
        if !self.is_behind_target(sequence) {
            return self.clone();
        }
        let witness = format!("target `{place}`");
        let what = IncidentKind::Restored { found: self.sequence, seen_by: witness, known: sequence };
        let mut ledger = Self { sequence, ..self.clone() };
        let may_hold = self.retention_hold.is_none_or(|hold| now.duration_since(hold.until) >= signed(wait));
        if may_hold {
            ledger = ledger.with_retention_hold(what, now, wait);
        } else {
            ledger.note(what, now);
            for entry in ledger.keys.values_mut() {
                entry.present_from_start &= entry.shown.remove(place).is_none();
            }
        }
        ledger
    }

    /// Whether a target that was written from change `sequence` is ahead of this ledger.
    #[must_use]
    pub fn is_behind_target(&self, sequence: u64) -> bool {
        (self.sequence + 1..=MAX_WITNESSED).contains(&sequence)
    }

    /// Whether a retention hold is active.
    #[must_use]
    pub fn is_held(&self, now: Timestamp) -> bool {
        self.retention_hold.is_some_and(|hold| now < hold.until)
    }

    /// Why no key is removed now, for the operator.
    #[must_use]
    pub fn alarm(&self, now: Timestamp) -> Option<String> {
        let hold = self.retention_hold.filter(|_| self.is_held(now))?;
        let incident = self.incidents.iter().rev().find(|incident| incident.at == hold.since)?;
        let unmanaged_keys = match self.unmanaged_keys.len() {
            0 => String::new(),
            1 => "; 1 unmanaged key at a target, see `signpost ledger show`".to_owned(),
            count => format!("; {count} unmanaged keys at targets, see `signpost ledger show`"),
        };
        Some(format!("{}; no key is removed before {}{unmanaged_keys}", incident.kind, hold.until))
    }

    /// The changes that `before`, an earlier state of this ledger, does not have.
    #[must_use]
    pub fn changes_since(&self, before: &Self) -> Vec<Change> {
        without(&self.changes, &before.changes)
    }

    /// The incidents that `before`, an earlier state of this ledger, does not have.
    #[must_use]
    pub fn incidents_since(&self, before: &Self) -> Vec<Incident> {
        without(&self.incidents, &before.incidents)
    }

    /// This ledger for another issuer, without a record: for a copy in memory only.
    #[must_use]
    pub fn of_issuer(self, issuer: Issuer) -> Self {
        Self { issuer, ..self }
    }

    fn check_lineage(&self, found: &Self) -> Result<(), Irreconcilable> {
        if found.lineage == self.lineage {
            return Ok(());
        }
        Err(Irreconcilable::OtherLineage { known: self.lineage.clone(), found: found.lineage.clone() })
    }

    fn compare(&self, found: &Self, now: Timestamp, wait: Duration) -> Self {
        if found.sequence < self.sequence || (found.sequence > self.sequence && !found.follows(self)) {
            let witness = "memory".to_owned();
            let what =
                IncidentKind::Restored { found: found.sequence, seen_by: witness, known: self.sequence };
            return self.united_with(found).with_retention_hold(what, now, wait);
        }
        let kids = self.unrecorded(found);
        let found = &found.seen_no_earlier_than(self, now);
        if found.sequence > self.sequence && kids.is_empty() {
            return found.clone();
        }
        if found.sequence > self.sequence {
            let mut united = found.clone();
            united.keys.extend(kids.iter().map(|kid| (kid.clone(), self.keys[kid].clone())));
            united.remember(self);
            return united.with_retention_hold(IncidentKind::Edited { kids }, now, wait);
        }
        if (Self { issuer: self.issuer.clone(), ..found.clone() }) == *self {
            return found.clone();
        }
        let added = found.keys.keys().filter(|kid| !self.keys.contains_key(kid)).cloned();
        let kids = kids.into_iter().chain(added).collect();
        self.united_with(found).with_retention_hold(IncidentKind::Edited { kids }, now, wait)
    }

    /// This ledger, with the later of the two times since which each target shows a key: such a time only
    /// ever starts anew. A known time in the future does not count: whoever stored this ledger may have
    /// redated it.
    fn seen_no_earlier_than(&self, before: &Self, now: Timestamp) -> Self {
        let mut ledger = self.clone();
        // Likewise, a clock is not recorded as ahead for longer than is known.
        ledger.ahead_since = self.ahead_since.map(|since| since.max(before.ahead_since.unwrap_or(now)));
        for (kid, entry) in &mut ledger.keys {
            let Some(known) = before.keys.get(kid) else { continue };
            entry.present_from_start &= known.present_from_start;
            for (place, since) in &mut entry.shown {
                *since = known.shown.get(place).map_or(*since, |known| (*since).max(now.min(*known)));
            }
        }
        ledger
    }

    /// Whether this is a later state of the same ledger, changed only by Signpost in between.
    #[must_use]
    pub fn is_continuation_of(&self, earlier: &Self) -> bool {
        self.lineage == earlier.lineage
            && self.sequence > earlier.sequence
            && self.follows(earlier)
            && earlier.unrecorded(self).is_empty()
    }

    /// Whether the history of this ledger continues that of an earlier one. If not, a backup was restored,
    /// this process has seen what was stored after that, and then a backup from before was restored.
    fn follows(&self, earlier: &Self) -> bool {
        continues(&self.changes, &earlier.changes, CHANGES_KEPT)
            && continues(&self.incidents, &earlier.incidents, INCIDENTS_KEPT)
    }

    /// The keys that differ in a later ledger without a record of why.
    fn unrecorded(&self, later: &Self) -> BTreeSet<Kid> {
        // Old records are dropped; the changes that they explained have to be accepted.
        let complete = later.changes.len() < CHANGES_KEPT
            || later.changes.iter().any(|change| self.changes.contains(change));
        let new = without(&later.changes, &self.changes);
        let is_explained = |kid: &Kid, before: &Entry, after: &Entry| {
            let mut new = new.iter().filter(|change| change.kid == *kid);
            match (before.is_public(), after.is_public()) {
                (true, false) => {
                    new.any(|change| matches!(change.kind, ChangeKind::Removed | ChangeKind::Revoked))
                }
                (false, true) => new.any(|change| change.kind == ChangeKind::Adopted),
                _ => new.next().is_some(),
            }
        };
        let differs = |kid: &Kid, before: &Entry| {
            later.keys.get(kid).is_none_or(|after| {
                let same = after.state == before.state && after.jwk == before.jwk;
                !same && complete && !is_explained(kid, before, after)
            })
        };
        self.keys.iter().filter(|(kid, entry)| differs(kid, entry)).map(|(kid, _)| kid.clone()).collect()
    }

    /// This ledger, with the keys that only the other one has.
    fn united_with(&self, other: &Self) -> Self {
        let mut united = self.clone();
        for (kid, entry) in &other.keys {
            if !united.keys.contains_key(kid) {
                united.unmanaged_keys.remove(kid);
                united.keys.insert(kid.clone(), entry.clone());
            }
        }
        united.remember(other);
        united
    }

    /// Merges sequence and history.
    fn remember(&mut self, other: &Self) {
        self.sequence = self.sequence.max(other.sequence);
        unite(&mut self.changes, &other.changes, |change| change.at, CHANGES_KEPT);
        unite(&mut self.incidents, &other.incidents, |incident| incident.at, INCIDENTS_KEPT);
    }

    pub(super) fn with_retention_hold(&self, what: IncidentKind, now: Timestamp, wait: Duration) -> Self {
        let mut ledger = self.clone();
        ledger.retention_hold = Some(RetentionHold { since: now, until: later(now, wait) });
        ledger.note(what, now);
        ledger
    }

    fn moved_to(mut self, issuer: &Issuer, now: Timestamp) -> Self {
        if self.issuer != *issuer {
            let from = std::mem::replace(&mut self.issuer, issuer.clone());
            self.note(IncidentKind::Moved { from }, now);
        }
        self
    }

    fn note(&mut self, what: IncidentKind, at: Timestamp) {
        self.advance();
        self.incidents.push(Incident { at, kind: what });
        let surplus = self.incidents.len().saturating_sub(INCIDENTS_KEPT);
        self.incidents.drain(..surplus);
    }
}

/// Merges both histories in order of time, and keeps the last `kept`.
fn unite<T: Clone + PartialEq>(ours: &mut Vec<T>, theirs: &[T], at: fn(&T) -> Timestamp, kept: usize) {
    let new = without(theirs, ours);
    ours.extend(new);
    ours.sort_by_key(at);
    ours.drain(..ours.len().saturating_sub(kept));
}

/// Whether `later` contains the end of `earlier`, or has dropped all of it: it keeps `kept` records.
fn continues<T: PartialEq>(later: &[T], earlier: &[T], kept: usize) -> bool {
    let dropped = || later.len() >= kept && !later.iter().any(|one| earlier.contains(one));
    earlier.last().is_none_or(|last| later.contains(last)) || dropped()
}

/// The multiset difference of `all` and `known`: the same event may happen twice in one moment.
fn without<T: Clone + PartialEq>(all: &[T], known: &[T]) -> Vec<T> {
    let mut known: Vec<&T> = known.iter().collect();
    let is_new = |one: &&T| match known.iter().position(|other| other == one) {
        Some(index) => {
            known.swap_remove(index);
            false
        }
        None => true,
    };
    all.iter().filter(is_new).cloned().collect()
}

/// Converts a wait to the type of timestamp differences.
#[must_use]
pub fn signed(wait: Duration) -> SignedDuration {
    SignedDuration::try_from(wait).unwrap_or(SignedDuration::MAX)
}

#[cfg(test)]
mod tests;
