//! The ledger: what is known of every key that was ever seen, and what is still owed to it.
//!
//! It remembers changes, never that nothing happened: a quiet pass writes nothing. It holds public
//! keys only. A publication follows from it, so it is stored before anything is published
//! (`docs/decisions/0005`).

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

mod authorization;
mod change;
mod future_times;
mod lineage;
pub mod merge;
mod orders;
mod recovery;
mod unmanaged_keys;

pub use self::{
    authorization::AnnouncementRejection,
    change::{Change, ChangeKind},
    lineage::{InvalidLineage, Lineage},
    orders::{KeyOwner, Order, OrderReason, RotationCommand, RotationCommandError, RotationRequest},
    recovery::{Incident, IncidentKind, Irreconcilable, RetentionHold, StoredLedger, signed},
    unmanaged_keys::{AdoptionError, UnmanagedKey},
};

use super::{
    jose::{
        issuer::Issuer,
        json,
        jwk::Jwk,
        jwk_set::{MAX_KEYS, Profile},
        kid::Kid,
    },
    ledger::merge::Merged,
    signer::announcement::{NodeName, StatementVersion},
    text::redaction::brief,
    time::later,
};

/// The format that this program writes, and the newest that it reads. Version 1 had other names for some members.
const VERSION: u32 = 2;
/// How many of the last changes are kept: enough to see a year of quarterly rotations.
const CHANGES_KEPT: usize = 50;
/// Largest sequence: the largest whole number that every JSON reader keeps exactly. A change every second
/// needs 285 million years for it.
const MAX_SEQUENCE: u64 = 1 << 53;

/// Every key that was ever seen of one issuer.
///
/// Invariant: an entry stands under the kid of its key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ledger {
    version: u32,
    lineage: Lineage,
    sequence: u64,
    issuer: Issuer,
    keys: BTreeMap<Kid, Entry>,
    /// Keys that only a place knows; see [`Ledger::adopt`].
    #[serde(alias = "strangers", default, skip_serializing_if = "BTreeMap::is_empty")]
    unmanaged_keys: BTreeMap<Kid, UnmanagedKey>,
    #[serde(default)]
    changes: Vec<Change>,
    /// What the nodes shall sign with; see [`super::rotation`].
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    orders: BTreeMap<NodeName, Order>,
    /// A rotation that the operator asked for and that is not over.
    #[serde(alias = "wish", default, skip_serializing_if = "Option::is_none")]
    rotation_request: Option<RotationRequest>,
    /// The latest word of each node: an older one does not count.
    #[serde(alias = "words", default, skip_serializing_if = "BTreeMap::is_empty")]
    last_statements: BTreeMap<NodeName, StatementVersion>,
    /// Nodes that are gone, and since when: what they said before does not count.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    forgotten: BTreeMap<NodeName, Timestamp>,
    /// The mark under which each place was last seen or left; see [`Look`].
    #[serde(alias = "marks", default, skip_serializing_if = "BTreeMap::is_empty")]
    target_revisions: BTreeMap<String, String>,
    /// Nodes whose next key signs without the propagation wait, by the operator's word, and the keys that were known
    /// of them then: none of these; see [`Ledger::revoke_for_a_new_key`].
    #[serde(alias = "waived", default, skip_serializing_if = "BTreeMap::is_empty")]
    propagation_waived: BTreeMap<NodeName, BTreeSet<Kid>>,
    /// After a repair: how long nothing is removed.
    #[serde(alias = "hold", default, skip_serializing_if = "Option::is_none")]
    retention_hold: Option<RetentionHold>,
    /// Since when it is known that times of this ledger are still to come: a clock was ahead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ahead_since: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    incidents: Vec<Incident>,
}

/// What is known of one key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    pub jwk: Jwk,
    pub first_seen: Timestamp,
    pub state: EntryState,
    /// For every place that shows the key now: since when, without a gap; see [`Look`].
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub shown: BTreeMap<String, Timestamp>,
    /// The node that has the private key, and what it says that it does with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signer: Option<KeyOwner>,
    /// Nobody can have read a JWKS of this issuer without the key: it is there from the beginning.
    #[serde(alias = "original", default, skip_serializing_if = "std::ops::Not::not")]
    pub present_from_start: bool,
    /// When its node was last ordered to sign with it. Until the node has dealt with that, it may begin.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ordered: Option<Timestamp>,
}

/// What a look at a place came to.
///
/// A mark stands for the writes to the place: whoever writes changes it. So a place has shown its keys without
/// a gap as long as the mark that is found is the one that is recorded, or the one that somebody who looked at
/// the same time has left.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TargetObservation {
    /// The kids that relying parties find there.
    pub view: BTreeSet<Kid>,
    /// The mark that was found; `None` for a place that only we write.
    pub found: Option<String>,
    /// The mark that was left, after what was written.
    pub left: Option<String>,
}

impl TargetObservation {
    /// A look at a place that only we write.
    #[must_use]
    pub fn of_own_listener(view: BTreeSet<Kid>) -> Self {
        Self { view, found: None, left: None }
    }
}

/// Where a key stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EntryState {
    /// A source lists it. Published.
    Listed,
    /// No source lists it any more. Published until its last token is dead.
    Missing { since: Timestamp },
    /// A tombstone: not published, and nothing but the operator's word brings it back.
    Removed { at: Timestamp },
    /// A tombstone for ever: somebody else may have the private key.
    Revoked { at: Timestamp },
}

impl EntryState {
    pub const NAMES: [&str; 4] = ["listed", "missing", "removed", "revoked"];

    #[must_use]
    pub fn name(self) -> &'static str {
        let [listed, missing, removed, revoked] = Self::NAMES;
        match self {
            Self::Listed => listed,
            Self::Missing { .. } => missing,
            Self::Removed { .. } => removed,
            Self::Revoked { .. } => revoked,
        }
    }
}

/// How long keys are kept, and for whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retention {
    /// Longest `exp - iat` of a token of this issuer.
    pub max_token_lifetime: Duration,
    /// Largest difference between two clocks that is tolerated; added to every wait.
    pub margin: Duration,
    /// The profiles in use: none of them may be left without a key.
    pub profiles: BTreeSet<Profile>,
}

impl Retention {
    /// How long a missing key stays published.
    #[must_use]
    pub fn wait(&self) -> Duration {
        self.max_token_lifetime + self.margin
    }
}

/// What a pass over the sources made of the ledger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LedgerUpdate {
    pub ledger: Ledger,
    /// Keys that sources list and that are not published: tombstones, and what exceeds [`MAX_KEYS`].
    pub refused: BTreeMap<Kid, KeyRefusal>,
}

/// Why a listed key is not published.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyRefusal {
    /// It was removed; only the operator can bring it back.
    Tombstone,
    /// There are as many keys as relying parties read.
    TooMany,
}

impl Ledger {
    /// An empty ledger: nothing was ever published.
    #[must_use]
    pub fn new(issuer: Issuer, lineage: Lineage) -> Self {
        Self {
            version: VERSION,
            lineage,
            sequence: 0,
            issuer,
            keys: BTreeMap::new(),
            unmanaged_keys: BTreeMap::new(),
            changes: Vec::new(),
            orders: BTreeMap::new(),
            rotation_request: None,
            last_statements: BTreeMap::new(),
            forgotten: BTreeMap::new(),
            target_revisions: BTreeMap::new(),
            propagation_waived: BTreeMap::new(),
            retention_hold: None,
            ahead_since: None,
            incidents: Vec::new(),
        }
    }

    /// Reads a stored ledger.
    ///
    /// # Errors
    ///
    /// Fails when a newer program wrote it, and when it is damaged.
    pub fn parse(bytes: &[u8]) -> Result<Self, InvalidLedger> {
        let damaged =
            |error: serde_json::Error| InvalidLedger::Damaged(brief(&error.to_string()).into_owned());
        let version = json::version(bytes).map_err(damaged)?;
        if version > VERSION {
            return Err(InvalidLedger::Newer { version });
        }
        let ledger: Self = serde_json::from_slice(bytes).map_err(damaged)?;
        let ledger = Self { version: VERSION, ..ledger };
        if ledger.sequence > MAX_SEQUENCE {
            let sequence = ledger.sequence;
            return Err(InvalidLedger::Damaged(format!("sequence {sequence} is larger than {MAX_SEQUENCE}")));
        }
        match ledger.keys.iter().find(|(kid, entry)| *kid != entry.jwk.kid()) {
            None => Ok(ledger),
            Some((kid, entry)) => {
                Err(InvalidLedger::Damaged(format!("entry `{kid}` holds key `{}`", entry.jwk.kid())))
            }
        }
    }

    /// Indented JSON: operators read it, and compare two of them.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        let mut json = serde_json::to_vec_pretty(self).expect("strings and times always serialise");
        json.push(b'\n');
        json
    }

    #[must_use]
    pub fn issuer(&self) -> &Issuer {
        &self.issuer
    }

    #[must_use]
    pub fn lineage(&self) -> &Lineage {
        &self.lineage
    }

    /// How many times this ledger has changed.
    #[must_use]
    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    #[must_use]
    pub fn entries(&self) -> &BTreeMap<Kid, Entry> {
        &self.keys
    }

    #[must_use]
    pub fn unmanaged_keys(&self) -> &BTreeMap<Kid, UnmanagedKey> {
        &self.unmanaged_keys
    }

    #[must_use]
    pub fn changes(&self) -> &[Change] {
        &self.changes
    }

    /// How long nothing is removed, if anything was ever repaired; it may be over.
    #[must_use]
    pub fn retention_hold(&self) -> Option<RetentionHold> {
        self.retention_hold
    }

    /// What happened to the ledger as a whole, the last at the end.
    #[must_use]
    pub fn incidents(&self) -> &[Incident] {
        &self.incidents
    }

    /// The key that is known by this kid, tombstones included.
    #[must_use]
    pub fn key(&self, kid: &Kid) -> Option<&Jwk> {
        self.keys.get(kid).map(|entry| &entry.jwk)
    }

    /// The keys to publish.
    pub fn public_keys(&self) -> impl Iterator<Item = &Jwk> {
        self.keys.values().filter(|entry| entry.is_public()).map(|entry| &entry.jwk)
    }

    /// Takes in what the sources say.
    ///
    /// A key appears as soon as one source lists it. It is missing only when every source answered, none lists it,
    /// and it is none of those that cannot be read. It is removed only then, once [`Retention::wait`] has passed since, no [`Hold`] lasts
    /// and no profile would be left without keys.
    ///
    /// Without a change the ledger is the same, sequence included.
    #[must_use]
    pub fn observe(&self, merged: &Merged, now: Timestamp, retention: &Retention) -> LedgerUpdate {
        let mut ledger = self.clone();
        let mut refused = BTreeMap::new();
        for (kid, jwk) in &merged.listed {
            match ledger.keys.get(kid).map(|entry| entry.state) {
                Some(EntryState::Listed | EntryState::Missing { .. }) if ledger.key(kid) != Some(jwk) => {
                    // `merge` lets only the rightful key of a kid get here.
                    ledger.keys.insert(kid.clone(), Entry::new(jwk.clone(), now, EntryState::Listed));
                    ledger.record(now, kid, ChangeKind::Replaced);
                }
                Some(EntryState::Listed) => {}
                Some(EntryState::Missing { .. }) => {
                    ledger.set_state(kid, EntryState::Listed, now, ChangeKind::Returned)
                }
                Some(EntryState::Removed { .. } | EntryState::Revoked { .. }) => {
                    refused.insert(kid.clone(), KeyRefusal::Tombstone);
                }
                None if ledger.public_keys().count() >= MAX_KEYS => {
                    refused.insert(kid.clone(), KeyRefusal::TooMany);
                }
                None => {
                    let is_known_outside = ledger.unmanaged_keys.remove(kid).is_some();
                    let original = self.sequence == 0 && merged.is_beginning && !is_known_outside;
                    let entry = Entry {
                        present_from_start: original,
                        ..Entry::new(jwk.clone(), now, EntryState::Listed)
                    };
                    ledger.keys.insert(kid.clone(), entry);
                    ledger.record(now, kid, ChangeKind::Appeared);
                }
            }
        }
        ledger.apply(merged, retention, now);
        if merged.complete {
            ledger.age(merged, now, retention);
        }
        LedgerUpdate { ledger, refused }
    }

    /// Moves keys that nobody lists towards their removal.
    fn age(&mut self, merged: &Merged, now: Timestamp, retention: &Retention) {
        let is_unlisted = |(kid, entry): &(&Kid, &Entry)| {
            !merged.listed.contains_key(*kid) && !merged.unreadable.may_be(&entry.jwk)
        };
        let unlisted: Vec<Kid> = self.keys.iter().filter(is_unlisted).map(|(kid, _)| kid.clone()).collect();
        for kid in unlisted {
            match self.keys[&kid].state {
                EntryState::Listed => {
                    self.set_state(&kid, EntryState::Missing { since: now }, now, ChangeKind::WentMissing)
                }
                EntryState::Missing { since }
                    if self.is_dead(&kid, since, now, retention)
                        && merged.may_remove
                        && !self.is_held(now)
                        && self.is_spare(&kid, retention) =>
                {
                    self.set_state(&kid, EntryState::Removed { at: now }, now, ChangeKind::Removed);
                }
                EntryState::Missing { .. } | EntryState::Removed { .. } | EntryState::Revoked { .. } => {}
            }
        }
    }

    /// Whether the last token is dead that a key has signed which nobody lists since `since`. A node that is
    /// silent may still sign, and so may one with a key that it was ordered and has not dealt with.
    fn is_dead(&self, kid: &Kid, since: Timestamp, now: Timestamp, retention: &Retention) -> bool {
        if self.orders.values().any(|order| order.sign == *kid) {
            return false;
        }
        let entry = &self.keys[kid];
        match &entry.signer {
            Some(signer) => {
                signer.stage.dead_after(retention.margin).is_some_and(|dead| now >= dead)
                    && self.has_dealt_with(&signer.node, entry.ordered, later(now, retention.margin))
            }
            None => now.duration_since(since) >= signed(retention.wait()),
        }
    }

    /// Whether every profile in use has a key left without this one.
    fn is_spare(&self, kid: &Kid, retention: &Retention) -> bool {
        retention.profiles.iter().all(|profile| {
            !profile.includes(&self.keys[kid].jwk)
                || self.public_keys().any(|key| key.kid() != kid && profile.includes(key))
        })
    }

    fn set_state(&mut self, kid: &Kid, state: EntryState, now: Timestamp, event: ChangeKind) {
        if let Some(entry) = self.keys.get_mut(kid) {
            entry.state = state;
            self.record(now, kid, event);
        }
    }

    /// Takes in what a place shows, as it was read back.
    ///
    /// A place that stops showing a key starts its time anew, and one that somebody else has written since the
    /// last look starts the time of all its keys anew. `now` is `None` while our clock is not to be trusted: a
    /// time that began with a clock that is behind would be over too early. None begins then.
    #[must_use]
    pub fn observe_target(&self, place: &str, look: &TargetObservation, now: Option<Timestamp>) -> Self {
        let mut ledger = self.clone();
        let recorded = self.target_revisions.get(place);
        let without_gap = recorded == look.found.as_ref() || recorded == look.left.as_ref();
        let mut changed = recorded != look.left.as_ref();
        match look.left.clone() {
            Some(mark) => drop(ledger.target_revisions.insert(place.to_owned(), mark)),
            None => drop(ledger.target_revisions.remove(place)),
        }
        for (kid, entry) in &mut ledger.keys {
            let is_shown = look.view.contains(kid);
            if is_shown && without_gap && entry.shown.contains_key(place) {
                continue;
            }
            let was_shown = entry.shown.remove(place).is_some();
            let begins = now.filter(|_| is_shown);
            if let Some(now) = begins {
                entry.shown.insert(place.to_owned(), now);
            }
            // Somebody may have read the JWKS without it.
            entry.present_from_start &= !was_shown;
            changed |= begins.is_some() || was_shown;
        }
        if changed {
            ledger.advance();
        }
        ledger
    }

    fn advance(&mut self) {
        self.sequence = (self.sequence + 1).min(MAX_SEQUENCE);
    }

    fn record(&mut self, at: Timestamp, kid: &Kid, event: ChangeKind) {
        self.advance();
        self.changes.push(Change { at, kid: kid.clone(), kind: event });
        let surplus = self.changes.len().saturating_sub(CHANGES_KEPT);
        self.changes.drain(..surplus);
    }
}

impl Entry {
    fn new(jwk: Jwk, first_seen: Timestamp, state: EntryState) -> Self {
        let (shown, signer, original, ordered) = (BTreeMap::new(), None, false, None);
        Self { jwk, first_seen, state, shown, signer, present_from_start: original, ordered }
    }

    /// Whether the key belongs into the publication.
    #[must_use]
    pub fn is_public(&self) -> bool {
        !matches!(self.state, EntryState::Removed { .. } | EntryState::Revoked { .. })
    }
}

/// A stored ledger cannot be used.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum InvalidLedger {
    #[error("ledger has version {version}, this program knows versions up to {VERSION}")]
    Newer { version: u32 },
    #[error("damaged ledger: {0}")]
    Damaged(String),
}

#[cfg(test)]
mod tests;
