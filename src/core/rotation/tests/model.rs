//! A small world in which the real functions of both parties run, and everything goes wrong that can.
//!
//! The parties' decisions are the real ones; the world is what `workflow` and `signer` do with them, stroke by
//! stroke, so that somebody may die between any two. What it covers and what it does not is in `docs/rotation.md`.
//!
//! Time goes in ticks, each much longer than what a node adds to an `exp` (seconds and a minute). Relying
//! parties keep a JWKS for the whole propagation time. Nodes sign tokens that live as long as is allowed, at
//! every moment at which they would.
//!
//! Whoever can write the ledger can order a key too early and have a public key vanish. While such a writer is
//! about, only what he must not reach is asserted: what a node signs with, says and verifies with.
//!
//! Announcements are signed by every key that their node ever had, and admit every other node: whose statements count is
//! proved by properties of `core::ledger` and `core::trust`. Fifteen planted faults (`faults.rs`) must be found.

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
/// A key of nobody here: whoever writes to a place or to the ledger puts it there.
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

/// What is the same in all states of a world.
#[derive(Clone, Copy, Debug)]
struct Rules {
    nodes: usize,
    places: usize,
    /// How many keys are ever made.
    keys: usize,
    /// Whether API servers are asked what they verify. They are where there is one node: what a node takes over
    /// from another one's announcement is not written yet.
    api_servers: bool,
    /// Whether a key is replaced at an age, or when the operator asks for it.
    by_age: bool,
    fault: Option<Fault>,
}

/// Something that happens. What is not possible changes nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    Tick,
    /// The publisher starts, or reads every announcement and what the API servers list.
    Hear,
    /// It looks at a place that it has not looked at since its start.
    Look(usize),
    /// It makes a place show what follows from the ledger that it knows.
    Place(usize),
    /// It stores what it saw there.
    Saw(usize),
    /// A node learns its orders.
    Listen(usize),
    /// A node does one thing that cannot be divided, or starts.
    Stroke(usize),
    /// A node signs a token, if it would.
    Sign {
        node: usize,
        outside: bool,
    },
    /// An API server asks its signer for keys, and lists them.
    Refresh,
    Operator(Word),
    Misfortune(Misfortune),
}

/// What an operator says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Word {
    Start,
    Abort,
    Revoke(usize),
    /// With a new key that nobody has seen.
    RevokeAnew(usize),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Misfortune {
    KillPublisher,
    KillNode(usize),
    /// The announcements cannot be read.
    Unreadable,
    /// One is read as it was before its last change, or is not there.
    Stale(usize),
    Missing(usize),
    /// Somebody else writes to a place.
    Tamper(usize, Edit),
    /// The ledger is copied; the copy is put back under a running publisher, or while none runs.
    Backup,
    Restore {
        running: bool,
    },
    /// Somebody writes to the ledger who should not.
    Forge(Forgery),
    /// A private key is gone from a node's disk.
    LoseKey(usize),
    LoseJournal(usize),
    /// The API server lists what it ever listed.
    Lag,
    /// A clock is off, by at most half of the margin.
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
    /// Takes an entry out, and with it a tombstone.
    Erase(usize),
    /// Lists a key of the forger's own.
    List,
}

#[derive(Clone)]
struct World {
    rules: Rules,
    now: i64,
    /// The ledger as it is stored.
    stored: Option<Arc<Ledger>>,
    backup: Option<Arc<Ledger>>,
    publisher: Option<Publisher>,
    places: Vec<Place>,
    nodes: Vec<SigningNode>,
    /// What the API server lists, and ever listed.
    listed: Kids,
    ever_listed: Kids,
    made: usize,
    /// By key: until when a token lives that others have, or the API server alone.
    outside: Vec<i64>,
    inside: Vec<i64>,
    /// The keys that ever were ordered, and that ever were tombstones.
    ordered: Kids,
    buried: Kids,
    revoked: Kids,
    /// The keys that were ordered before every reader can know them, by the operator's word, and when.
    unseen: BTreeMap<usize, i64>,
    /// Whether a backup was ever put back.
    restored: bool,
    /// Whether somebody wrote to the ledger who should not have.
    forged: bool,
    /// How far the publisher's clock is off, in seconds, where everybody can see that it is.
    wrong: i64,
    /// Whether every node signs for others whenever it would, without being told.
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
            outside: vec![0; 128],
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

    /// Whether anything came of it.
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
            Action::Sign { node, outside } => self.sign(node, outside)?,
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
        let (now, gates) = (self.publisher_time(), self.gates());
        // What a backup says of the way back is not looked at first.
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
                Word::Start => ledger.start(BTreeSet::new(), &gates, now),
                Word::Abort => ledger.abort(&gates, lasting(PROPAGATION), lasting(MARGIN), now),
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

    /// Nobody is left who knows of a tombstone that is younger than a backup which was put back.
    fn forget_tombstones(&mut self) {
        self.buried = self.tombstones();
    }

    fn tombstones(&self) -> Kids {
        let entries = self.stored.iter().flat_map(|ledger| ledger.entries());
        kids(entries.filter(|(_, entry)| !entry.is_public()).map(|(kid, _)| kid))
    }

    /// Writes what a forger would: with a later sequence and a record that explains it.
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
            let change = serde_json::json!({ "at": now, "kid": kid_of(key).as_str(), "event": "revoked" });
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
