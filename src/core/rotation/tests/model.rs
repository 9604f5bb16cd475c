//! A model in which the real functions of publisher and signer run, and everything goes wrong that can.
//!
//! The decisions are the real ones; the model replaces what `reconcile` and `signer` do with them, one atomic
//! step at a time, so that a process may die between any two. `docs/rotation.md` tells what it covers and
//! what it does not.
//!
//! Time advances in ticks, each much longer than what a node adds to an `exp` (seconds and a minute). Relying
//! parties cache a JWKS for the whole propagation time. Nodes sign tokens with the longest allowed lifetime,
//! at every moment at which they would.
//!
//! Whoever can write the ledger can order a key too early and remove a public key. While there is such a
//! writer, only what must stay out of its reach is asserted: what a node signs with, announces and verifies
//! with.
//!
//! Announcements are signed by every key that their node ever had, and admit every other node: which
//! statements count is tested by properties of `core::ledger` and `core::signer::trust`. Fifteen planted
//! faults (`faults.rs`) must be found.

use std::{
    collections::HashMap,
    sync::{Arc, LazyLock},
};

use super::*;
use crate::core::{jose::jwk::Jwk, ledger::StoredLedger};

mod faults;
mod fingerprint;
mod history;
mod node;
mod promises;
mod publisher;
mod search;
mod searches;

use self::{
    faults::Fault,
    node::SigningNode,
    promises::Broken,
    publisher::{Place, Publisher},
};

/// In seconds, as all times of the model.
const TICK: i64 = 3600;
const MARGIN: i64 = 300;
const PROPAGATION: i64 = 2 * TICK;
const LIFETIME: i64 = 2 * TICK;
const ROTATE_AFTER: i64 = 3 * TICK;
/// A foreign key: a writer to a target or to the ledger adds it.
const FOREIGN: usize = 127;

/// A set of keys, by number.
type Kids = u128;

fn has(kids: Kids, key: usize) -> bool {
    kids & (1 << key) != 0
}

fn each(kids: Kids) -> impl Iterator<Item = usize> {
    (0..128).filter(move |key| has(kids, *key))
}

fn number(kid: &Kid) -> usize {
    static NUMBERS: LazyLock<HashMap<Kid, usize>> =
        LazyLock::new(|| (0..128).map(|key| (kid_of(key), key)).collect());
    NUMBERS[kid]
}

fn kid_of(key: usize) -> Kid {
    static KIDS: LazyLock<Vec<Kid>> = LazyLock::new(|| (0..128).map(kid).collect());
    KIDS[key].clone()
}

fn kids<'a>(kids: impl IntoIterator<Item = &'a Kid>) -> Kids {
    kids.into_iter().fold(0, |all, kid| all | (1 << number(kid)))
}

fn lasting(seconds: i64) -> Duration {
    Duration::from_secs(seconds.unsigned_abs())
}

/// The parameters shared by all states.
#[derive(Clone, Copy, Debug)]
struct Rules {
    nodes: usize,
    places: usize,
    /// Number of keys that are ever created.
    keys: usize,
    /// Whether API servers are polled for the keys that they verify with: only with one node, because the
    /// model does not cover keys taken from another node's announcement.
    api_servers: bool,
    /// Whether a key is replaced by age, or on the operator's request.
    by_age: bool,
    fault: Option<Fault>,
}

/// An action. One that is impossible changes nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    Tick,
    /// The publisher starts, or reads every announcement and the lists of the API servers.
    Hear,
    /// It reads a target that it has not read since its start.
    Look(usize),
    /// It syncs a target with the ledger that it knows.
    Place(usize),
    /// It stores its observation of that target.
    Saw(usize),
    /// A node learns its desired state.
    Listen(usize),
    /// A node does one atomic step, or starts.
    Stroke(usize),
    /// A node signs a token, if it would.
    Sign {
        node: usize,
        external: bool,
    },
    /// An API server fetches keys from its signer, and lists them.
    Refresh,
    Operator(Word),
    Misfortune(Misfortune),
}

/// An operator's command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Word {
    Start,
    Abort,
    Revoke(usize),
    /// For a new key that was never published.
    RevokeAnew(usize),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Misfortune {
    KillPublisher,
    KillNode(usize),
    /// The announcements are unreadable.
    Unreadable,
    /// One announcement is read as before its last change, or is missing.
    Stale(usize),
    Missing(usize),
    /// Another writer changes a target.
    Tamper(usize, Edit),
    /// The ledger is backed up; the backup is restored under a running publisher, or while none runs.
    Backup,
    Restore {
        running: bool,
    },
    /// An attacker writes to the ledger.
    Forge(Forgery),
    /// A private key is lost from a node's disk.
    LoseKey(usize),
    LoseJournal(usize),
    /// The API server lists every key that it ever listed.
    Lag,
    /// A clock is off by at most half of the margin.
    SkewPublisher(i64),
    SkewNode(usize, i64),
    /// The publisher's clock is off by so many ticks.
    WrongClock(i64),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Edit {
    Empty,
    Without(usize),
    Foreign,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Forgery {
    Order {
        node: usize,
        key: usize,
    },
    Bury(usize),
    /// Removes an entry, and with it a tombstone.
    Erase(usize),
    /// Lists a key of the attacker.
    List,
}

#[derive(Clone)]
struct World {
    rules: Rules,
    now: i64,
    /// The stored ledger.
    stored: Option<Arc<Ledger>>,
    backup: Option<Arc<Ledger>>,
    publisher: Option<Publisher>,
    places: Vec<Place>,
    nodes: Vec<SigningNode>,
    /// What the API server lists, and ever listed.
    listed: Kids,
    ever_listed: Kids,
    made: usize,
    /// By key: until when a token for external audiences lives, or one for the API server only.
    external: Vec<i64>,
    inside: Vec<i64>,
    /// The keys that were ever ordered, and those that ever were tombstones.
    ordered: Kids,
    buried: Kids,
    revoked: Kids,
    /// The keys that the operator had ordered before every relying party can know them, and when.
    unseen: BTreeMap<usize, i64>,
    /// Whether a backup was ever restored.
    restored: bool,
    /// Whether an attacker wrote to the ledger.
    forged: bool,
    /// How far the publisher's clock is off, in seconds, if that is detectable.
    wrong: i64,
    /// Whether every node signs for external audiences whenever it would, without a `Sign` action.
    eager: bool,
}

impl World {
    fn new(rules: Rules) -> Self {
        Self {
            rules,
            now: 1000 * TICK,
            stored: None,
            backup: None,
            publisher: None,
            places: vec![Place::default(); rules.places],
            nodes: (0..rules.nodes).map(SigningNode::new).collect(),
            listed: 0,
            ever_listed: 0,
            made: 0,
            external: vec![0; 128],
            inside: vec![0; 128],
            ordered: 0,
            buried: 0,
            revoked: 0,
            unseen: BTreeMap::new(),
            restored: false,
            forged: false,
            wrong: 0,
            eager: true,
        }
    }

    /// Returns whether the action changed anything.
    fn take(&mut self, action: Action) -> Result<bool, Broken> {
        let happened = match action {
            Action::Tick => {
                self.now += TICK;
                self.places.iter_mut().for_each(|place| place.forget(self.now));
                true
            }
            Action::Hear => self.hear(publisher::Mood::Truthful)?,
            Action::Look(place) => self.look(place)?,
            Action::Place(place) => self.place(place)?,
            Action::Saw(place) => self.saw(place)?,
            Action::Listen(node) => self.listen(node),
            Action::Stroke(node) => self.stroke(node),
            Action::Sign { node, external } => self.sign(node, external)?,
            Action::Refresh => self.refresh(),
            Action::Operator(word) => self.ask(word)?,
            Action::Misfortune(misfortune) => self.suffer(misfortune)?,
        };
        if self.eager && happened {
            for node in 0..self.nodes.len() {
                self.sign(node, true)?;
            }
        }
        if happened {
            self.check()?;
        }
        Ok(happened)
    }

    fn ask(&mut self, word: Word) -> Result<bool, Broken> {
        let (now, required_targets) = (self.publisher_time(), self.required_targets());
        // A backup's record of the way back is not verified first.
        if self.publisher.is_none() || (word == Word::Abort && self.restored) {
            return Ok(false);
        }
        let Some(stored) = self.stored.clone() else { return Ok(false) };
        if let Word::Revoke(key) | Word::RevokeAnew(key) = word {
            let kid = kid_of(key);
            let known: Vec<_> =
                self.publisher.iter().map(|publisher| &publisher.known).chain([&stored]).cloned().collect();
            for ledger in known {
                let revoked = match word {
                    Word::RevokeAnew(_) => ledger.revoke_for_a_new_key(&kid, now),
                    _ => ledger.revoke(&kid, now),
                };
                self.revoked |= revoked.map_or(0, |ledger| kids(ledger.revoked()));
            }
        }
        self.change(|ledger| {
            let asked = match word {
                Word::Start => ledger.start(BTreeSet::new(), &required_targets, now),
                Word::Abort => ledger.abort(&required_targets, lasting(PROPAGATION), lasting(MARGIN), now),
                Word::Revoke(key) => ledger.revoke(&kid_of(key), now),
                Word::RevokeAnew(key) => ledger.revoke_for_a_new_key(&kid_of(key), now),
            };
            asked.unwrap_or_else(|_| ledger.clone())
        })?;
        Ok(self.stored.as_ref() != Some(&stored))
    }

    fn suffer(&mut self, misfortune: Misfortune) -> Result<bool, Broken> {
        match misfortune {
            Misfortune::KillPublisher => {
                let ran = self.publisher.take().is_some();
                self.forget_tombstones();
                return Ok(ran);
            }
            Misfortune::KillNode(node) => return Ok(self.nodes[node].die()),
            Misfortune::Unreadable => return self.hear(publisher::Mood::Unreadable),
            Misfortune::Stale(node) => return self.hear(publisher::Mood::Stale(node)),
            Misfortune::Missing(node) => return self.hear(publisher::Mood::Missing(node)),
            Misfortune::Tamper(place, edit) => return Ok(self.places[place].tamper(edit, self.now)),
            Misfortune::Backup => {
                let is_new = self.backup != self.stored;
                self.backup.clone_from(&self.stored);
                return Ok(is_new);
            }
            Misfortune::Restore { running } => return Ok(self.restore(running)),
            Misfortune::Forge(forgery) => return Ok(self.forge(forgery)),
            Misfortune::LoseKey(key) => self.lose_key(key),
            Misfortune::LoseJournal(node) => {
                self.nodes[node].die();
                self.nodes[node].journal = None;
                self.forget_what_is_lost();
            }
            Misfortune::Lag => {
                let is_new = self.listed != self.ever_listed;
                self.listed = self.ever_listed;
                return Ok(is_new);
            }
            Misfortune::SkewPublisher(skew) => {
                let Some(publisher) = &mut self.publisher else { return Ok(false) };
                publisher.skew = skew;
            }
            Misfortune::SkewNode(node, skew) => self.nodes[node].skew = skew,
            Misfortune::WrongClock(ticks) => {
                let is_news = self.wrong != ticks * TICK;
                self.wrong = ticks * TICK;
                return Ok(is_news);
            }
        }
        Ok(true)
    }

    fn restore(&mut self, running: bool) -> bool {
        if self.backup.is_none() || self.backup == self.stored {
            return false;
        }
        self.stored.clone_from(&self.backup);
        self.restored = true;
        if !running {
            self.publisher = None;
        }
        if self.publisher.is_none() {
            self.forget_tombstones();
        }
        true
    }

    /// Forgets the tombstones that are younger than a restored backup.
    fn forget_tombstones(&mut self) {
        self.buried = self.tombstones();
    }

    fn tombstones(&self) -> Kids {
        let entries = self.stored.iter().flat_map(|ledger| ledger.entries());
        kids(entries.filter(|(_, entry)| !entry.is_public()).map(|(kid, _)| kid))
    }

    /// Writes as an attacker would: with a later sequence and a record that explains the change.
    fn forge(&mut self, forgery: Forgery) -> bool {
        let Some(stored) = &self.stored else { return false };
        let now = at(self.now);
        let mut json: serde_json::Value = serde_json::from_slice(&stored.to_json()).expect("JSON");
        let sequence = json["sequence"].as_u64().expect("a number") + 1;
        json["sequence"] = sequence.into();
        let keys = json["keys"].as_object_mut().expect("an object");
        let changed = match forgery {
            Forgery::Order { node, key } => {
                let order = serde_json::json!({ "sign": kid_of(key).as_str(), "at": now, "reason": "age" });
                json["orders"][self.nodes[node].name.as_str()] = order;
                self.ordered |= 1 << key;
                true
            }
            Forgery::Bury(key) => keys.get_mut(kid_of(key).as_str()).is_some_and(|entry| {
                entry["state"] = serde_json::json!({ "revoked": { "at": now } });
                true
            }),
            Forgery::Erase(key) => keys.remove(kid_of(key).as_str()).is_some(),
            Forgery::List => {
                let entry =
                    serde_json::json!({ "jwk": rsa_key(FOREIGN), "first_seen": now, "state": "listed" });
                keys.insert(kid_of(FOREIGN).as_str().to_owned(), entry);
                true
            }
        };
        if let (true, Forgery::Bury(key)) = (changed, forgery) {
            let change = serde_json::json!({ "at": now, "kid": kid_of(key).as_str(), "kind": "revoked" });
            json["changes"].as_array_mut().expect("an array").push(change);
            self.revoked |= 1 << key;
        }
        if changed {
            self.stored = Some(Arc::new(Ledger::parse(json.to_string().as_bytes()).expect("well-formed")));
            self.forged = true;
        }
        changed
    }
}
