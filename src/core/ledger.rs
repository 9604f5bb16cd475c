//! The ledger: what is known of every key that was ever seen, and what is still owed to it.
//!
//! It remembers changes, never that nothing happened: a quiet pass writes nothing. It holds public
//! keys only. A publication follows from it, so it is stored before anything is published
//! (`docs/decisions/0005`).

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    time::Duration,
};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

mod reconcile;

pub use self::reconcile::{Found, Hold, Incident, Irreconcilable, What, signed};

use super::{
    issuer::Issuer,
    jwk::Jwk,
    jwk_set::{MAX_KEYS, Profile},
    kid::Kid,
    merge::Merged,
};

/// The format that this program writes, and the newest that it reads.
const VERSION: u32 = 1;
/// How many of the last changes are kept: enough to see a year of quarterly rotations.
const CHANGES_KEPT: usize = 50;
/// Largest sequence: the largest whole number that every JSON reader keeps exactly. A change every second
/// needs 285 million years for it.
const MAX_SEQUENCE: u64 = 1 << 53;

/// Who owns a publication: born with a ledger and written on everything that follows from it.
///
/// Invariant: printable ASCII without white space, so that it can stand in a header.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String")]
pub struct Lineage(String);

impl Lineage {
    /// Makes a lineage of random bytes that the caller drew.
    #[must_use]
    pub fn from_random(bytes: [u8; 8]) -> Self {
        Self(format!("{:016x}", u64::from_be_bytes(bytes)))
    }

    /// A lineage as it was read from a place; whatever else stands there is as good as somebody's name.
    #[must_use]
    pub fn read(text: &str) -> Self {
        let printable: String = text.chars().filter(char::is_ascii_graphic).collect();
        Self(if printable.is_empty() { "unreadable".to_owned() } else { printable })
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Lineage {
    type Error = InvalidLineage;

    fn try_from(text: String) -> Result<Self, InvalidLineage> {
        if !text.is_empty() && text.chars().all(|c| c.is_ascii_graphic()) {
            Ok(Self(text))
        } else {
            Err(InvalidLineage)
        }
    }
}

/// The text cannot be a lineage.
#[derive(Clone, Copy, Debug, thiserror::Error, PartialEq, Eq)]
#[error("lineage is not printable ASCII without white space")]
pub struct InvalidLineage;

impl fmt::Display for Lineage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

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
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    strangers: BTreeMap<Kid, Stranger>,
    #[serde(default)]
    changes: Vec<Change>,
    /// After a repair: how long nothing is removed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    hold: Option<Hold>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    incidents: Vec<Incident>,
}

/// What is known of one key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    pub jwk: Jwk,
    pub first_seen: Timestamp,
    pub state: State,
    /// For every place that shows the key now: since when, without a gap that was noticed.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub shown: BTreeMap<String, Timestamp>,
}

/// Where a key stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// A source lists it. Published.
    Listed,
    /// No source lists it any more. Published until its last token is dead.
    Missing { since: Timestamp },
    /// A tombstone: not published, and nothing but the operator's word brings it back.
    Removed { at: Timestamp },
}

/// A key that was found in places and in no source.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stranger {
    pub jwk: Jwk,
    /// The places that show it, and since when.
    pub shown: BTreeMap<String, Timestamp>,
}

/// One thing that happened to a key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Change {
    pub at: Timestamp,
    pub kid: Kid,
    pub event: Event,
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// A source lists the key for the first time.
    Appeared,
    /// No source lists it any more; its retention begins.
    WentMissing,
    /// A source lists it again.
    Returned,
    /// Its retention is over.
    Removed,
    /// A place shows it and no source knows it.
    StrangerFound,
    /// The operator said that it belongs to this issuer.
    Adopted,
    /// Its kid had been claimed by another key before.
    Replaced,
}

impl Event {
    /// The event in words, for tables and logs.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Appeared => "appeared",
            Self::WentMissing => "went missing",
            Self::Returned => "returned",
            Self::Removed => "removed",
            Self::StrangerFound => "stranger found",
            Self::Adopted => "adopted",
            Self::Replaced => "replaced",
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
pub struct Observed {
    pub ledger: Ledger,
    /// Keys that sources list and that are not published: tombstones, and what exceeds [`MAX_KEYS`].
    pub refused: BTreeMap<Kid, Refusal>,
}

/// Why a listed key is not published.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
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
            strangers: BTreeMap::new(),
            changes: Vec::new(),
            hold: None,
            incidents: Vec::new(),
        }
    }

    /// Reads a stored ledger.
    ///
    /// # Errors
    ///
    /// Fails when a newer program wrote it, and when it is damaged.
    pub fn parse(bytes: &[u8]) -> Result<Self, InvalidLedger> {
        #[derive(Deserialize)]
        struct Version {
            version: u32,
        }
        let damaged = |error: serde_json::Error| InvalidLedger::Damaged(error.to_string());
        let Version { version } = serde_json::from_slice(bytes).map_err(damaged)?;
        if version > VERSION {
            return Err(InvalidLedger::Newer { version });
        }
        let ledger: Self = serde_json::from_slice(bytes).map_err(damaged)?;
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
    pub fn strangers(&self) -> &BTreeMap<Kid, Stranger> {
        &self.strangers
    }

    #[must_use]
    pub fn changes(&self) -> &[Change] {
        &self.changes
    }

    /// How long nothing is removed, if anything was ever repaired; it may be over.
    #[must_use]
    pub fn hold(&self) -> Option<Hold> {
        self.hold
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
    /// A key appears as soon as one source lists it. It is missing only when every source answered and
    /// none lists it, and is removed only then, once [`Retention::wait`] has passed since, no [`Hold`] lasts
    /// and no profile would be left without keys.
    ///
    /// Without a change the ledger is the same, sequence included.
    #[must_use]
    pub fn observe(&self, merged: &Merged, now: Timestamp, retention: &Retention) -> Observed {
        let mut ledger = self.clone();
        let mut refused = BTreeMap::new();
        for (kid, jwk) in &merged.listed {
            match ledger.keys.get(kid).map(|entry| entry.state) {
                Some(State::Listed | State::Missing { .. }) if ledger.key(kid) != Some(jwk) => {
                    // `merge` lets only the rightful key of a kid get here.
                    ledger.keys.insert(kid.clone(), Entry::new(jwk.clone(), now, State::Listed));
                    ledger.record(now, kid, Event::Replaced);
                }
                Some(State::Listed) => {}
                Some(State::Missing { .. }) => ledger.turn(kid, State::Listed, now, Event::Returned),
                Some(State::Removed { .. }) => {
                    refused.insert(kid.clone(), Refusal::Tombstone);
                }
                None if ledger.public_keys().count() >= MAX_KEYS => {
                    refused.insert(kid.clone(), Refusal::TooMany);
                }
                None => {
                    ledger.strangers.remove(kid);
                    ledger.keys.insert(kid.clone(), Entry::new(jwk.clone(), now, State::Listed));
                    ledger.record(now, kid, Event::Appeared);
                }
            }
        }
        if merged.complete {
            ledger.age(merged, now, retention);
        }
        Observed { ledger, refused }
    }

    /// Moves keys that nobody lists towards their removal.
    fn age(&mut self, merged: &Merged, now: Timestamp, retention: &Retention) {
        let unlisted: Vec<Kid> =
            self.keys.keys().filter(|kid| !merged.listed.contains_key(kid)).cloned().collect();
        for kid in unlisted {
            match self.keys[&kid].state {
                State::Listed => self.turn(&kid, State::Missing { since: now }, now, Event::WentMissing),
                State::Missing { since }
                    if now.duration_since(since) >= signed(retention.wait())
                        && merged.may_remove
                        && !self.is_held(now)
                        && self.is_spare(&kid, retention) =>
                {
                    self.turn(&kid, State::Removed { at: now }, now, Event::Removed);
                }
                State::Missing { .. } | State::Removed { .. } => {}
            }
        }
    }

    /// Whether every profile in use has a key left without this one.
    fn is_spare(&self, kid: &Kid, retention: &Retention) -> bool {
        retention.profiles.iter().all(|profile| {
            !profile.includes(&self.keys[kid].jwk)
                || self.public_keys().any(|key| key.kid() != kid && profile.includes(key))
        })
    }

    fn turn(&mut self, kid: &Kid, state: State, now: Timestamp, event: Event) {
        if let Some(entry) = self.keys.get_mut(kid) {
            entry.state = state;
            self.record(now, kid, event);
        }
    }

    /// Takes in what a place shows, as it was read back.
    ///
    /// `view` is what the place shows now. A place that stops showing a key starts its time anew.
    #[must_use]
    pub fn shown(&self, place: &str, view: &BTreeSet<Kid>, now: Timestamp) -> Self {
        let mut ledger = self.clone();
        let mut changed = false;
        for (kid, entry) in &mut ledger.keys {
            if view.contains(kid) {
                changed |= !entry.shown.contains_key(place);
                entry.shown.entry(place.to_owned()).or_insert(now);
            } else {
                changed |= entry.shown.remove(place).is_some();
            }
        }
        if changed {
            ledger.advance();
        }
        ledger
    }

    /// Takes in the keys that only this place knows.
    ///
    /// They stay on that place, where somebody may rely on them, and spread nowhere until
    /// [`Ledger::adopt`].
    #[must_use]
    pub fn met_strangers(&self, place: &str, strangers: &[Jwk], now: Timestamp) -> Self {
        let mut ledger = self.clone();
        let mut changed = false;
        for (kid, stranger) in &mut ledger.strangers {
            if !strangers.iter().any(|jwk| jwk.kid() == kid) {
                changed |= stranger.shown.remove(place).is_some();
            }
        }
        ledger.strangers.retain(|_, stranger| !stranger.shown.is_empty());
        if changed {
            ledger.advance();
        }
        for jwk in strangers.iter().filter(|jwk| !self.keys.contains_key(jwk.kid())) {
            // Who fills a place with keys must not fill the ledger: more can never be published anyway.
            if ledger.strangers.len() >= MAX_KEYS && !ledger.strangers.contains_key(jwk.kid()) {
                continue;
            }
            let stranger = ledger
                .strangers
                .entry(jwk.kid().clone())
                .or_insert_with(|| Stranger { jwk: jwk.clone(), shown: BTreeMap::new() });
            if !stranger.shown.contains_key(place) {
                stranger.shown.insert(place.to_owned(), now);
                ledger.record(now, jwk.kid(), Event::StrangerFound);
            }
        }
        ledger
    }

    /// Takes the operator's word that a stranger or a removed key belongs to this issuer.
    ///
    /// It is published everywhere and starts a full retention: nobody knows what it has signed.
    ///
    /// # Errors
    ///
    /// Fails when the kid is unknown or its key is public already.
    pub fn adopt(&self, kid: &Kid, now: Timestamp) -> Result<Self, NotAdopted> {
        let mut ledger = self.clone();
        let missing = State::Missing { since: now };
        match (ledger.strangers.remove(kid), ledger.keys.get_mut(kid)) {
            (_, Some(entry)) if entry.is_public() => {
                return Err(NotAdopted::AlreadyPublic { kid: kid.clone() });
            }
            (_, Some(entry)) => entry.state = missing,
            (Some(stranger), None) => {
                ledger.keys.insert(kid.clone(), Entry::new(stranger.jwk, now, missing));
            }
            (None, None) => return Err(NotAdopted::Unknown { kid: kid.clone() }),
        }
        ledger.record(now, kid, Event::Adopted);
        Ok(ledger)
    }

    fn advance(&mut self) {
        self.sequence = (self.sequence + 1).min(MAX_SEQUENCE);
    }

    fn record(&mut self, at: Timestamp, kid: &Kid, event: Event) {
        self.advance();
        self.changes.push(Change { at, kid: kid.clone(), event });
        let surplus = self.changes.len().saturating_sub(CHANGES_KEPT);
        self.changes.drain(..surplus);
    }
}

impl Entry {
    fn new(jwk: Jwk, first_seen: Timestamp, state: State) -> Self {
        Self { jwk, first_seen, state, shown: BTreeMap::new() }
    }

    /// Whether the key belongs into the publication.
    #[must_use]
    pub fn is_public(&self) -> bool {
        !matches!(self.state, State::Removed { .. })
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

/// A key cannot be adopted.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum NotAdopted {
    #[error("kid `{kid}` is unknown: no place shows it and it was never removed")]
    Unknown { kid: Kid },
    #[error("kid `{kid}` is public already")]
    AlreadyPublic { kid: Kid },
}

#[cfg(test)]
mod tests;
