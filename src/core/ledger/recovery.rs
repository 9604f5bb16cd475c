//! Recognises a ledger that was lost, damaged, restored from a backup or edited by hand.
//!
//! The witnesses are a process that knows what it last read or stored, and the places, each of which says
//! from which change of the ledger it was written. Ledgers never lose an entry and never go back, and no
//! state changes without a record: whatever breaks that is repaired from what is known, by union, and then
//! holds all removals for one retention (`docs/decisions/0019`).

use std::{collections::BTreeSet, fmt, sync::Arc, time::Duration};

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::{CHANGES_KEPT, Change, ChangeKind, Entry, InvalidLedger, Ledger, Lineage, MAX_SEQUENCE};
use crate::core::{
    jose::{issuer::Issuer, kid::Kid},
    time::later,
};

/// How many of the last incidents are kept: each is rare and worth a look.
const INCIDENTS_KEPT: usize = 20;
/// Largest sequence that a place is believed: half of what there is, so that one which somebody forged
/// leaves as many changes as a ledger can ever need.
const MAX_WITNESSED: u64 = MAX_SEQUENCE / 2;

/// What stands where a ledger was stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoredLedger {
    Nothing,
    /// Something that is no ledger.
    Damaged(InvalidLedger),
    /// The version before a damaged or missing one.
    Previous(Arc<Ledger>),
    Ledger(Arc<Ledger>),
}

/// No key is removed in this time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RetentionHold {
    pub since: Timestamp,
    pub until: Timestamp,
}

/// Something that happened to the ledger as a whole.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Incident {
    pub at: Timestamp,
    #[serde(alias = "what")]
    pub kind: IncidentKind,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum IncidentKind {
    /// Nothing was left of it; it was stored again from memory.
    Lost,
    /// It could not be read; what was known is stored instead.
    Damaged,
    /// It is older than what a witness knows, or its history is another one.
    Restored {
        found: u64,
        #[serde(alias = "witness")]
        seen_by: String,
        known: u64,
    },
    /// These keys differ without a record of it.
    Edited { kids: BTreeSet<Kid> },
    /// It goes on for another issuer: the configuration names the old one under `previous_issuers`.
    Moved { from: Issuer },
    /// It has times that are still to come, the last of them this one; see [`Ledger::without_times_ahead`].
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

/// What was found cannot be brought together with what is known.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Irreconcilable {
    #[error(transparent)]
    Damaged(InvalidLedger),
    #[error("it has lineage `{found}`, expected lineage `{known}`")]
    OtherLineage { known: Lineage, found: Lineage },
    #[error("it is damaged or missing")]
    NotWhole,
}

impl Ledger {
    /// Brings what was found together with this ledger, which was read or stored before.
    ///
    /// A ledger that has only moved on is taken as it is. A ledger at change 0 knows nothing, and takes what
    /// it finds.
    ///
    /// # Errors
    ///
    /// Fails when another lineage was found, and when something damaged was and nothing is known.
    pub fn reconcile(
        &self,
        found: &StoredLedger,
        now: Timestamp,
        wait: Duration,
    ) -> Result<Self, Irreconcilable> {
        let nothing_known = self.sequence == 0;
        match found {
            StoredLedger::Nothing if nothing_known => Ok(self.clone()),
            StoredLedger::Nothing => Ok(self.repaired(IncidentKind::Lost, now, wait)),
            StoredLedger::Damaged(invalid) if nothing_known => Err(Irreconcilable::Damaged(invalid.clone())),
            StoredLedger::Damaged(_) => Ok(self.repaired(IncidentKind::Damaged, now, wait)),
            StoredLedger::Previous(previous) if nothing_known => {
                Ok(previous.repaired(IncidentKind::Damaged, now, wait).moved_to(&self.issuer, now))
            }
            StoredLedger::Previous(previous) => {
                self.check_lineage(previous)?;
                Ok(self.united_with(previous).repaired(IncidentKind::Damaged, now, wait))
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

    /// Takes in that a place was written from a later change than this one. Read the stored ledger first:
    /// most often another writer was only faster.
    ///
    /// Somebody who may write to the place can forge what it says. So nothing but the sequence is taken from
    /// it, no key; and while a hold lasts, and for as long after it as a retention, no place can begin
    /// another: in that time keys that are due are removed. What the place shows then counts from the next look:
    /// the times of a backup are too early if it has stopped showing a key since.
    #[must_use]
    pub fn observe_revision(&self, place: &str, sequence: u64, now: Timestamp, wait: Duration) -> Self {
        if !self.is_behind(sequence) {
            return self.clone();
        }
        let witness = format!("target `{place}`");
        let what = IncidentKind::Restored { found: self.sequence, seen_by: witness, known: sequence };
        let mut ledger = Self { sequence, ..self.clone() };
        let may_hold = self.retention_hold.is_none_or(|hold| now.duration_since(hold.until) >= signed(wait));
        if may_hold {
            ledger = ledger.repaired(what, now, wait);
        } else {
            ledger.note(what, now);
            for entry in ledger.keys.values_mut() {
                entry.present_from_start &= entry.shown.remove(place).is_none();
            }
        }
        ledger
    }

    /// Whether a place that was written from change `sequence` knows more than this ledger.
    #[must_use]
    pub fn is_behind(&self, sequence: u64) -> bool {
        (self.sequence + 1..=MAX_WITNESSED).contains(&sequence)
    }

    /// Whether no key is removed now.
    #[must_use]
    pub fn is_held(&self, now: Timestamp) -> bool {
        self.retention_hold.is_some_and(|hold| now < hold.until)
    }

    /// Why no key is removed now, for the operator.
    #[must_use]
    pub fn alarm(&self, now: Timestamp) -> Option<String> {
        let hold = self.retention_hold.filter(|_| self.is_held(now))?;
        let incident = self.incidents.iter().rev().find(|incident| incident.at == hold.since)?;
        let strangers = match self.unmanaged_keys.len() {
            0 => String::new(),
            1 => "; 1 unmanaged key at a target, see `signpost ledger show`".to_owned(),
            count => format!("; {count} unmanaged keys at targets, see `signpost ledger show`"),
        };
        Some(format!("{}; no key is removed before {}{strangers}", incident.kind, hold.until))
    }

    /// The changes that an earlier state of this ledger does not have.
    #[must_use]
    pub fn changes_since(&self, before: &Self) -> Vec<Change> {
        without(&self.changes, &before.changes)
    }

    /// The incidents that an earlier state of this ledger does not have.
    #[must_use]
    pub fn incidents_since(&self, before: &Self) -> Vec<Incident> {
        without(&self.incidents, &before.incidents)
    }

    /// The same for another issuer, without a record: for a copy in memory alone.
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
            return self.united_with(found).repaired(what, now, wait);
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
            return united.repaired(IncidentKind::Edited { kids }, now, wait);
        }
        if (Self { issuer: self.issuer.clone(), ..found.clone() }) == *self {
            return found.clone();
        }
        let added = found.keys.keys().filter(|kid| !self.keys.contains_key(kid)).cloned();
        let kids = kids.into_iter().chain(added).collect();
        self.united_with(found).repaired(IncidentKind::Edited { kids }, now, wait)
    }

    /// The same, with the later of the times since which a place shows a key: time only ever starts anew. One that
    /// is still to come holds nothing: whoever stored this ledger may have dated it anew.
    fn seen_no_earlier_than(&self, before: &Self, now: Timestamp) -> Self {
        let mut ledger = self.clone();
        // Nor is a clock said to have been ahead for longer than is known.
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

    /// Whether this is a later state of the same ledger, and nobody but its keepers changed it in between.
    #[must_use]
    pub fn goes_on_from(&self, earlier: &Self) -> bool {
        self.lineage == earlier.lineage
            && self.sequence > earlier.sequence
            && self.follows(earlier)
            && earlier.unrecorded(self).is_empty()
    }

    /// Whether the history of this ledger goes on from that of an earlier one. If it does not, a backup was put
    /// back, what was stored from there on is known here, and then a later backup of before was put back.
    fn follows(&self, earlier: &Self) -> bool {
        goes_on(&self.changes, &earlier.changes, CHANGES_KEPT)
            && goes_on(&self.incidents, &earlier.incidents, INCIDENTS_KEPT)
    }

    /// The keys of which a later ledger says something else without a record of why.
    fn unrecorded(&self, later: &Self) -> BTreeSet<Kid> {
        // Old records are dropped; what they told has to be believed.
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

    /// Takes over sequence and history.
    fn remember(&mut self, other: &Self) {
        self.sequence = self.sequence.max(other.sequence);
        unite(&mut self.changes, &other.changes, |change| change.at, CHANGES_KEPT);
        unite(&mut self.incidents, &other.incidents, |incident| incident.at, INCIDENTS_KEPT);
    }

    pub(super) fn repaired(&self, what: IncidentKind, now: Timestamp, wait: Duration) -> Self {
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

/// Both histories in order of time, without what is older than the last `kept`.
fn unite<T: Clone + PartialEq>(ours: &mut Vec<T>, theirs: &[T], at: fn(&T) -> Timestamp, kept: usize) {
    let new = without(theirs, ours);
    ours.extend(new);
    ours.sort_by_key(at);
    ours.drain(..ours.len().saturating_sub(kept));
}

/// Whether `later` has the end of `earlier`, or has dropped all of it: `kept` is how much is kept.
fn goes_on<T: PartialEq>(later: &[T], earlier: &[T], kept: usize) -> bool {
    let dropped = || later.len() >= kept && !later.iter().any(|one| earlier.contains(one));
    earlier.last().is_none_or(|last| later.contains(last)) || dropped()
}

/// What `all` has more of than `known`: the same may happen twice in one moment.
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

/// The wait in the type of differences between times.
#[must_use]
pub fn signed(wait: Duration) -> SignedDuration {
    SignedDuration::try_from(wait).unwrap_or(SignedDuration::MAX)
}

#[cfg(test)]
mod tests;
