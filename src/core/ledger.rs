//! The ledger: every key ever observed of an issuer, and how long each has to stay published.
//!
//! It records changes only: a reconciliation without changes writes nothing. It holds public keys only. The
//! publication is derived from it, so it is stored before anything is published (`docs/decisions/0005`).

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

mod authorization;
mod change;
mod command;
mod future_times;
mod lineage;
pub mod merge;
mod orders;
mod recovery;
mod source_answer;
mod unmanaged_keys;

pub use self::{
    authorization::AnnouncementRejection,
    change::{Change, ChangeKind},
    command::{RotationCommand, RotationCommandError, RotationRequest},
    lineage::{InvalidLineage, Lineage},
    orders::{KeyOwner, Order, OrderReason},
    recovery::{Incident, IncidentKind, Irreconcilable, RetentionHold, StoredLedger, signed},
    unmanaged_keys::{AdoptionError, UnmanagedKey},
};

use super::{
    jose::{
        issuer::Issuer,
        jwk::Jwk,
        jwk_set::{MAX_KEYS, Profile},
        kid::Kid,
        stored::{self, InvalidDocument},
    },
    ledger::source_answer::Merged,
    signer::announcement::{NodeName, StatementVersion},
    time::later,
};

const LEDGER: &str = "ledger";
/// See [`stored::read`].
const NAMES_OF_VERSION_1: &[(&str, &str)] = &[
    ("strangers", "unmanaged_keys"),
    ("wish", "rotation_request"),
    ("words", "last_statements"),
    ("marks", "target_revisions"),
    ("waived", "propagation_waived"),
    ("hold", "retention_hold"),
    ("keys.*.original", "present_from_start"),
    ("last_statements.*.heard", "observed_order"),
    ("orders.*.why", "reason"),
    ("changes.*.event", "kind"),
    ("changes.*.kind.stranger_found", "unmanaged_key_found"),
    ("incidents.*.what", "kind"),
    ("incidents.*.kind.restored.witness", "seen_by"),
];
/// Number of changes kept: a year of quarterly rotations and more.
const CHANGES_KEPT: usize = 50;
/// Largest sequence: the largest integer that every JSON reader keeps exactly. One change per second takes
/// 285 million years to reach it.
const MAX_SEQUENCE: u64 = 1 << 53;

/// Every key ever observed of one issuer.
///
/// Invariant: each entry is stored under the kid of its key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ledger {
    version: u32,
    lineage: Lineage,
    sequence: u64,
    issuer: Issuer,
    keys: BTreeMap<Kid, Entry>,
    /// Keys found in targets only; see [`Ledger::adopt`].
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    unmanaged_keys: BTreeMap<Kid, UnmanagedKey>,
    #[serde(default)]
    changes: Vec<Change>,
    /// The desired signing key of each node; see [`super::rotation`].
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    orders: BTreeMap<NodeName, Order>,
    /// A rotation that the operator requested and that is not complete.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    rotation_request: Option<RotationRequest>,
    /// Version of the latest statement of each node: older ones are rejected.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    last_statements: BTreeMap<NodeName, StatementVersion>,
    /// Forgotten nodes, and since when: their earlier statements are rejected.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    forgotten: BTreeMap<NodeName, Timestamp>,
    /// Revision of each target when it was last observed or written; see [`TargetObservation`].
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    target_revisions: BTreeMap<String, String>,
    /// Nodes whose next key may sign without the propagation wait, with the keys known of each at that time:
    /// the next key is none of these. See [`Ledger::revoke_for_a_new_key`].
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    propagation_waived: BTreeMap<NodeName, BTreeSet<Kid>>,
    /// Set by a repair: no key is removed until it expires.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    retention_hold: Option<RetentionHold>,
    /// Since when this ledger is known to contain future timestamps: a clock was ahead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ahead_since: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    incidents: Vec<Incident>,
}

/// What the ledger records of one key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    pub jwk: Jwk,
    pub first_seen: Timestamp,
    pub state: EntryState,
    /// The targets that show the key, each with the time since which it does so without a gap; see
    /// [`TargetObservation`].
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub shown: BTreeMap<String, Timestamp>,
    /// The node that holds the private key, and the stage that it announces.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signer: Option<KeyOwner>,
    /// The key was in the first publication: no relying party can have cached a JWKS of this issuer without
    /// it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub present_from_start: bool,
    /// When its node was last ordered to sign with it. The node may start to sign with it until it has
    /// processed that order.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ordered: Option<Timestamp>,
}

/// The result of observing a target.
///
/// A revision changes with every write to the target. So the target has shown its keys without a gap if the
/// revision found is the recorded one, or the one that a concurrent reconciliation has left.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TargetObservation {
    /// The kids that relying parties find there.
    pub view: BTreeSet<Kid>,
    /// The revision found; `None` for a target that only this process writes.
    pub revision_found: Option<String>,
    /// The revision after this reconciliation's own write.
    pub revision_after: Option<String>,
}

impl TargetObservation {
    /// An observation of a target that only this process writes.
    #[must_use]
    pub fn of_own_listener(view: BTreeSet<Kid>) -> Self {
        Self { view, revision_found: None, revision_after: None }
    }
}

/// The state of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EntryState {
    /// A source lists it. Published.
    Listed,
    /// No source lists it any more. Published until the last token that it signed has expired.
    Missing { since: Timestamp },
    /// A tombstone: not published, and only the operator can bring it back.
    Removed { at: Timestamp },
    /// A permanent tombstone: the private key may be compromised.
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

/// How long keys are kept, and which profiles need one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retention {
    /// Largest `exp - iat` of a token of this issuer.
    pub max_token_lifetime: Duration,
    /// Largest tolerated clock skew; added to every wait.
    pub margin: Duration,
    /// The profiles in use: each keeps at least one key.
    pub profiles: BTreeSet<Profile>,
}

impl Retention {
    /// How long a missing key stays published.
    #[must_use]
    pub fn wait(&self) -> Duration {
        self.max_token_lifetime + self.margin
    }
}

/// The ledger after the sources were observed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LedgerUpdate {
    pub ledger: Ledger,
    /// Listed keys that are not published: tombstones, and keys beyond [`MAX_KEYS`].
    pub refused: BTreeMap<Kid, KeyRefusal>,
}

/// Why a listed key is not published.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyRefusal {
    /// It was removed; only the operator can bring it back.
    Tombstone,
    /// The publication already has [`MAX_KEYS`] keys.
    TooMany,
}

impl Ledger {
    /// An empty ledger: nothing was ever published.
    #[must_use]
    pub fn new(issuer: Issuer, lineage: Lineage) -> Self {
        Self {
            version: stored::VERSION,
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
    /// Fails if a newer version wrote it or if it is damaged.
    pub fn parse(bytes: &[u8]) -> Result<Self, InvalidDocument> {
        let ledger: Self = stored::read(LEDGER, bytes, NAMES_OF_VERSION_1)?;
        if ledger.sequence > MAX_SEQUENCE {
            let sequence = ledger.sequence;
            let reason = format!("sequence {sequence} is larger than {MAX_SEQUENCE}");
            return Err(InvalidDocument::damaged(LEDGER, &reason));
        }
        stored::check_kids(LEDGER, ledger.keys.iter().map(|(kid, entry)| (kid, &entry.jwk)))?;
        Ok(ledger)
    }

    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        stored::to_json(self)
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

    /// The retention hold of the last repair, which may have expired.
    #[must_use]
    pub fn retention_hold(&self) -> Option<RetentionHold> {
        self.retention_hold
    }

    /// Incidents that affected the ledger as a whole, the latest last.
    #[must_use]
    pub fn incidents(&self) -> &[Incident] {
        &self.incidents
    }

    /// The key with this kid, tombstones included.
    #[must_use]
    pub fn key(&self, kid: &Kid) -> Option<&Jwk> {
        self.keys.get(kid).map(|entry| &entry.jwk)
    }

    /// The keys to publish.
    pub fn public_keys(&self) -> impl Iterator<Item = &Jwk> {
        self.keys.values().filter(|entry| entry.is_public()).map(|entry| &entry.jwk)
    }

    /// Applies the answers of the sources.
    ///
    /// A key is listed as soon as one source lists it. It goes missing only if every source answered, none
    /// lists it, and it cannot be one of the keys that are unreadable. It is removed once it has been missing
    /// for [`Retention::wait`], no [`RetentionHold`] is active and every profile keeps a key.
    ///
    /// If nothing changes, the ledger stays the same, sequence included.
    #[must_use]
    pub fn observe(&self, merged: &Merged, now: Timestamp, retention: &Retention) -> LedgerUpdate {
        let mut ledger = self.clone();
        let mut refused = BTreeMap::new();
        for (kid, jwk) in &merged.listed {
            match ledger.keys.get(kid).map(|entry| entry.state) {
                Some(EntryState::Listed | EntryState::Missing { .. }) if ledger.key(kid) != Some(jwk) => {
                    // `merge` accepts only the canonical key of a kid.
                    ledger.keys.insert(kid.clone(), Entry::new(jwk.clone(), now, EntryState::Listed));
                    ledger.record(now, kid, ChangeKind::Replaced);
                }
                Some(EntryState::Listed) => {}
                Some(EntryState::Missing { .. }) => {
                    ledger.set_state(kid, EntryState::Listed, now, ChangeKind::Returned);
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

    /// Ages keys that no source lists: from listed to missing, from missing to removed.
    fn age(&mut self, merged: &Merged, now: Timestamp, retention: &Retention) {
        let is_unlisted = |(kid, entry): &(&Kid, &Entry)| {
            !merged.listed.contains_key(*kid) && !merged.unreadable.may_include(&entry.jwk)
        };
        let unlisted: Vec<Kid> = self.keys.iter().filter(is_unlisted).map(|(kid, _)| kid.clone()).collect();
        for kid in unlisted {
            match self.keys[&kid].state {
                EntryState::Listed => {
                    self.set_state(&kid, EntryState::Missing { since: now }, now, ChangeKind::WentMissing);
                }
                EntryState::Missing { since }
                    if self.retention_expired(&kid, since, now, retention)
                        && merged.may_remove
                        && !self.is_held(now)
                        && self.is_dispensable(&kid, retention) =>
                {
                    self.set_state(&kid, EntryState::Removed { at: now }, now, ChangeKind::Removed);
                }
                EntryState::Missing { .. } | EntryState::Removed { .. } | EntryState::Revoked { .. } => {}
            }
        }
    }

    /// Whether every token signed with a key that has been missing since `since` has expired. A node that
    /// makes no statement may still sign, and so may one that was ordered to use the key and has not
    /// processed that order.
    fn retention_expired(&self, kid: &Kid, since: Timestamp, now: Timestamp, retention: &Retention) -> bool {
        if self.orders.values().any(|order| order.sign == *kid) {
            return false;
        }
        let entry = &self.keys[kid];
        match &entry.signer {
            Some(signer) => {
                signer.stage.unneeded_after(retention.margin).is_some_and(|dead| now >= dead)
                    && self.has_processed_order(&signer.node, entry.ordered, later(now, retention.margin))
            }
            None => now.duration_since(since) >= signed(retention.wait()),
        }
    }

    /// Whether every profile in use keeps a key without this one.
    fn is_dispensable(&self, kid: &Kid, retention: &Retention) -> bool {
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

    /// Records what was read back from a target.
    ///
    /// If a target stops showing a key, the time of that key starts anew; if another writer has changed the
    /// target since the last observation, the times of all its keys do. `now` is `None` while the local clock
    /// is not trusted: with a clock that is behind, a wait would end too early, so none starts.
    #[must_use]
    pub fn observe_target(&self, place: &str, look: &TargetObservation, now: Option<Timestamp>) -> Self {
        let mut ledger = self.clone();
        let recorded = self.target_revisions.get(place);
        let without_gap =
            recorded == look.revision_found.as_ref() || recorded == look.revision_after.as_ref();
        let mut changed = recorded != look.revision_after.as_ref();
        match look.revision_after.clone() {
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
            // A relying party may have cached the JWKS without it.
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

    /// Whether the key belongs in the publication.
    #[must_use]
    pub fn is_public(&self) -> bool {
        !matches!(self.state, EntryState::Removed { .. } | EntryState::Revoked { .. })
    }
}

#[cfg(test)]
mod tests;
