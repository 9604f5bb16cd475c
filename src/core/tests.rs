//! The promises of `docs/architecture.md`, as properties over random histories.
//!
//! Sources fail, lag, restart, disagree and talk nonsense; targets are away, are edited and emptied by
//! strangers; two processes share the ledger, and each dies between any two steps; the ledger is lost, cut
//! off, edited by hand, and restored from a backup.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, LazyLock},
    time::Duration,
};

use base64ct::{Base64, Encoding as _};
use jiff::Timestamp;
use proptest::prelude::*;

use super::{
    issuer::Issuer,
    jwk::Jwk,
    jwk_set::{Profile, ReceivedJwks},
    kid::Kid,
    ledger::{Entry, Found as FoundLedger, InvalidLedger, Ledger, Lineage, Look, Retention, State, signed},
    merge::{Answer, Report, merge},
    placement::{Found, Headers, Refused, Stored, decide},
    public_key::PublicKey,
    publication::{Document, MEDIA_TYPE, Publication, Terms},
};

const MINUTE: Duration = Duration::from_mins(1);
const SOURCES: usize = 2;
const TARGETS: usize = 2;
const PROCESSES: usize = 2;
const KEYS: usize = 6;

/// A public key that nobody has the private half of, told apart by `index`, which is less than 128.
pub(crate) fn rsa_key(index: usize) -> Jwk {
    static KEYS: LazyLock<Vec<Jwk>> = LazyLock::new(|| (0..128).map(make).collect());
    fn make(index: u8) -> Jwk {
        let mut n = vec![0xa5; 256];
        n[1] = index;
        Jwk::of_public_key(PublicKey::rsa(&n, &[1, 0, 1]).expect("odd and long enough"))
    }
    KEYS[index].clone()
}

/// A public key on P-256, from Kubernetes' own tests (`openidmetadata_test.go`).
pub(crate) fn ec_key() -> PublicKey {
    let spki = "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEH6cuzP8XuD5wal6wf9M6xDljTOPL\
                X2i8uIp/C/ASqiIGUeeKQtX0/IR3qCXyThP/dbCiHrF3v1cuhBOHY8CLVg==";
    PublicKey::from_spki(&Base64::decode_vec(spki).expect("base64")).expect("on the curve")
}

/// A ledger in which a source lists these keys, of which those under `removed` are tombstones.
pub(crate) fn known(removed: &[Kid], keys: &[Jwk]) -> Ledger {
    let entry = |key: &Jwk| {
        let state = if removed.contains(key.kid()) {
            r#"{"removed":{"at":"1970-01-01T00:00:00Z"}}"#
        } else {
            r#""listed""#
        };
        let jwk = serde_json::to_string(key).expect("serialises");
        format!(r#""{}":{{"jwk":{jwk},"first_seen":"1970-01-01T00:00:00Z","state":{state}}}"#, key.kid())
    };
    let keys: Vec<String> = keys.iter().map(entry).collect();
    let json = format!(
        r#"{{"version":1,"lineage":"0101010101010101","sequence":1,"issuer":"{}","keys":{{{}}}}}"#,
        terms().issuer,
        keys.join(",")
    );
    Ledger::parse(json.as_bytes()).expect("well-formed")
}

/// Another key under the kid of `rsa_key(index)`.
pub(crate) fn impostor(index: usize) -> Jwk {
    let mut json = serde_json::to_value(rsa_key(index + KEYS)).expect("serialises");
    json["kid"] = rsa_key(index).kid().as_str().into();
    Jwk::from_json(&json).expect("well-formed")
}

pub(crate) fn terms() -> Terms {
    let issuer = Issuer::parse("https://issuer.example/c1").expect("valid");
    Terms { jwks_uri: issuer.jwks_uri(), issuer, max_age: 5 * MINUTE }
}

pub(crate) fn retention() -> Retention {
    Retention {
        max_token_lifetime: 60 * MINUTE,
        margin: 5 * MINUTE,
        profiles: BTreeSet::from([Profile::Entra]),
    }
}

/// How a source answers in one pass.
#[derive(Clone, Copy, Debug)]
enum Mood {
    Truthful,
    Failing,
    /// Answers as it would have before its last change: a lagging replica.
    Lagging,
    /// Gives a known kid to another key.
    Contradicting,
    /// The process has just started.
    NotYetAsked,
}

#[derive(Clone, Debug)]
enum Turn {
    Wait(u8),
    /// A source starts to list a key, or stops.
    Toggle {
        source: usize,
        key: usize,
    },
    Pass {
        moods: [Mood; SOURCES],
        up: [bool; TARGETS],
        /// After how many writes the process dies.
        dies_after: Option<u8>,
        who: usize,
    },
    /// A human deletes a document.
    Delete {
        target: usize,
        discovery: bool,
    },
    /// A human uploads a JWKS by hand: nonsense, or a key that nobody knows.
    Upload {
        target: usize,
        nonsense: bool,
    },
    LoseLedger,
    /// What stands in the ledger's place is damaged, while every process knows it.
    Damage(Damage),
    /// The ledger of so many changes ago is put back: under running processes, or while none runs.
    Restore {
        back: usize,
        running: bool,
    },
    Restart {
        who: usize,
    },
    /// A process decides on the ledger that it knows, while the other one may have stored a later one.
    PlaceFromMemory {
        who: usize,
        target: usize,
    },
}

#[derive(Clone, Copy, Debug)]
enum Damage {
    Deleted,
    CutOff,
    /// A human takes an entry out.
    Shortened {
        key: usize,
    },
    /// A human makes a tombstone of an entry.
    Buried {
        key: usize,
    },
}

fn damages() -> impl Strategy<Value = Damage> {
    prop_oneof![
        Just(Damage::Deleted),
        Just(Damage::CutOff),
        (0..KEYS).prop_map(|key| Damage::Shortened { key }),
        (0..KEYS).prop_map(|key| Damage::Buried { key }),
    ]
}

fn turns() -> impl Strategy<Value = Vec<Turn>> {
    let mood = prop_oneof![
        6 => Just(Mood::Truthful),
        2 => Just(Mood::Failing),
        1 => Just(Mood::Lagging),
        1 => Just(Mood::Contradicting),
        1 => Just(Mood::NotYetAsked),
    ];
    let dies_after = prop::option::weighted(0.3, 0..8_u8);
    let turn = prop_oneof![
        4 => (1..50_u8).prop_map(Turn::Wait),
        4 => (0..SOURCES, 0..KEYS).prop_map(|(source, key)| Turn::Toggle { source, key }),
        12 => ([mood.clone(), mood], any::<[bool; TARGETS]>(), dies_after, 0..PROCESSES)
            .prop_map(|(moods, up, dies_after, who)| Turn::Pass { moods, up, dies_after, who }),
        1 => (0..TARGETS, any::<bool>()).prop_map(|(target, discovery)| Turn::Delete { target, discovery }),
        1 => (0..TARGETS, any::<bool>()).prop_map(|(target, nonsense)| Turn::Upload { target, nonsense }),
        1 => prop::bool::weighted(0.2).prop_map(|lose| if lose { Turn::LoseLedger } else { Turn::Wait(1) }),
        1 => damages().prop_map(Turn::Damage),
        1 => (0..12_usize, any::<bool>()).prop_map(|(back, running)| Turn::Restore { back, running }),
        1 => (0..PROCESSES).prop_map(|who| Turn::Restart { who }),
        2 => (0..PROCESSES, 0..TARGETS).prop_map(|(who, target)| Turn::PlaceFromMemory { who, target }),
    ];
    prop::collection::vec(turn, 1..80)
}

/// Everything outside the process, and nothing that dies with it.
struct World {
    now: Timestamp,
    truth: [BTreeSet<usize>; SOURCES],
    before: [BTreeSet<usize>; SOURCES],
    ledger: Ledger,
    /// What is found in place of it, if somebody damaged it.
    damaged: Option<FoundLedger>,
    /// All that was ever stored of this lineage.
    backups: Vec<Ledger>,
    /// Whether anybody but the processes ever changed what is stored.
    tampered: bool,
    processes: [Process; PROCESSES],
    lineages: u8,
    targets: [Found; TARGETS],
    /// The largest sequence from which each target was written.
    written_from: [u64; TARGETS],
    /// Until when tokens may live that a listed key has signed.
    owed_until: BTreeMap<Kid, Timestamp>,
    /// The keys that no source listed when all of them were last heard.
    missing: BTreeSet<Kid>,
    /// Every kid that a stored ledger has ever removed.
    removed: BTreeSet<Kid>,
    adopting: bool,
}

/// What dies with a process.
#[derive(Clone)]
struct Process {
    known: Ledger,
    started: Timestamp,
    /// The targets that it has not looked at since.
    unseen: BTreeSet<usize>,
}

impl Process {
    fn start(lineage: &Lineage, started: Timestamp) -> Self {
        let known = Ledger::new(terms().issuer, lineage.clone());
        Self { known, started, unseen: (0..TARGETS).collect() }
    }
}

/// The process died here; the next turn starts with what was stored.
struct Died;

impl World {
    fn new() -> Self {
        let truth = [BTreeSet::from([0]), BTreeSet::from([0])];
        let (now, lineage) = (Timestamp::UNIX_EPOCH + 1000 * MINUTE, Lineage::from_random([0; 8]));
        Self {
            now,
            before: truth.clone(),
            truth,
            ledger: Ledger::new(terms().issuer, lineage.clone()),
            damaged: None,
            backups: Vec::new(),
            tampered: false,
            processes: [(); PROCESSES].map(|()| Process::start(&lineage, now)),
            lineages: 0,
            targets: [Found::default(), Found::default()],
            written_from: [0; TARGETS],
            owed_until: BTreeMap::new(),
            missing: BTreeSet::new(),
            removed: BTreeSet::new(),
            adopting: false,
        }
    }

    fn take(&mut self, turn: &Turn) -> Result<(), TestCaseError> {
        match turn {
            Turn::Wait(minutes) => self.now += u32::from(*minutes) * MINUTE,
            Turn::Toggle { source, key } => {
                self.before[*source] = self.truth[*source].clone();
                let keys = &mut self.truth[*source];
                if !keys.remove(key) {
                    keys.insert(*key);
                }
                if keys.is_empty() {
                    keys.insert((key + 1) % KEYS);
                }
            }
            Turn::Pass { moods, up, dies_after, who } => {
                let mut life = *dies_after;
                match self.pass(*who, *moods, *up, &mut life) {
                    Ok(()) => {}
                    Err(Failed::Died) => self.restart(*who),
                    Err(Failed::Test(error)) => return Err(error),
                }
            }
            Turn::Damage(damage) => self.damage(*damage),
            Turn::Restore { back, running } => self.restore(*back, *running),
            Turn::Restart { who } => self.restart(*who),
            Turn::PlaceFromMemory { who, target } => self.place_from_memory(*who, *target)?,
            Turn::Delete { target, discovery: true } => self.targets[*target].discovery = None,
            Turn::Delete { target, .. } => self.targets[*target].jwks = None,
            Turn::Upload { target, nonsense } => {
                let stranger =
                    format!(r#"{{"keys":[{}]}}"#, serde_json::to_string(&rsa_key(99)).expect("json"));
                let bytes = if *nonsense { b"<html>".to_vec() } else { stranger.into_bytes() };
                self.targets[*target].jwks =
                    Some(Stored { bytes, lineage: None, headers: Some(Headers::default()) });
            }
            Turn::LoseLedger => {
                self.lineages += 1;
                self.ledger = Ledger::new(terms().issuer, Lineage::from_random([self.lineages; 8]));
                self.damaged = None;
                self.backups.clear();
                (0..PROCESSES).for_each(|who| self.restart(who));
                self.removed.clear();
                self.missing.clear();
                self.adopting = true;
            }
        }
        Ok(())
    }

    /// A process looks at the ledger every few seconds: it has seen the damage before it ends.
    fn restart(&mut self, who: usize) {
        if self.damaged.is_some() {
            self.read(who);
        }
        self.processes[who] = Process::start(self.ledger.lineage(), self.now);
    }

    /// Reads what is stored and brings it together with what the process knows.
    fn read(&mut self, who: usize) {
        let found = self.damaged.clone().unwrap_or_else(|| match self.ledger.sequence() {
            0 => FoundLedger::Nothing,
            _ => FoundLedger::Ledger(Arc::new(self.ledger.clone())),
        });
        let known = &self.processes[who].known;
        let ledger = known.reconcile(&found, self.now, retention().wait()).expect("one lineage");
        self.store(who, ledger);
    }

    fn store(&mut self, who: usize, ledger: Ledger) {
        if ledger != self.ledger {
            self.backups.push(ledger.clone());
        }
        self.damaged = None;
        self.ledger = ledger.clone();
        self.processes[who].known = ledger;
    }

    /// Every process looks at the ledger every few seconds, so all of them know it when it happens.
    fn damage(&mut self, damage: Damage) {
        if self.ledger.sequence() == 0 {
            return;
        }
        (0..PROCESSES).for_each(|who| self.read(who));
        let mut json: serde_json::Value = serde_json::from_slice(&self.ledger.to_json()).expect("JSON");
        let found = match damage {
            Damage::Deleted => FoundLedger::Nothing,
            Damage::CutOff => FoundLedger::Damaged(InvalidLedger::Damaged("cut off".to_owned())),
            Damage::Shortened { key } => {
                json["keys"].as_object_mut().expect("keys").remove(rsa_key(key).kid().as_str());
                FoundLedger::Ledger(Arc::new(Ledger::parse(json.to_string().as_bytes()).expect("a ledger")))
            }
            Damage::Buried { key } => {
                if let Some(entry) = json["keys"].get_mut(rsa_key(key).kid().as_str()) {
                    entry["state"] = serde_json::json!({ "removed": { "at": self.now } });
                }
                FoundLedger::Ledger(Arc::new(Ledger::parse(json.to_string().as_bytes()).expect("a ledger")))
            }
        };
        self.tampered = true;
        self.damaged = Some(found);
    }

    fn restore(&mut self, back: usize, running: bool) {
        let Some(backup) = self.backups.iter().rev().nth(back).cloned() else { return };
        self.tampered = true;
        if running {
            (0..PROCESSES).for_each(|who| self.read(who));
            self.damaged = Some(FoundLedger::Ledger(Arc::new(backup)));
            return;
        }
        self.damaged = None;
        self.ledger = backup;
        (0..PROCESSES).for_each(|who| self.restart(who));
        // What happened since then without a write to a target is forgotten: tombstones, and that a missing
        // key was listed in between.
        let state = |kid: &Kid| self.ledger.entries().get(kid).map(|entry| entry.state);
        self.removed.retain(|kid| matches!(state(kid), Some(State::Removed { .. })));
        self.owed_until.retain(|kid, _| matches!(state(kid), Some(State::Listed)));
        self.missing = self.ledger.entries().keys().cloned().collect();
        self.missing.retain(|kid| matches!(state(kid), Some(State::Missing { .. })));
    }

    /// Takes in from which change a target was written; returns whether that was a later one than is known.
    fn witness(&mut self, who: usize, index: usize) -> bool {
        self.processes[who].unseen.remove(&index);
        let theirs = |stored: &Stored| stored.lineage.as_ref() == Some(self.ledger.lineage());
        let target = &self.targets[index];
        let is_ours = target.jwks.iter().chain(&target.discovery).any(theirs);
        let sequence = self.written_from[index];
        if !is_ours || !self.processes[who].known.is_behind(sequence) {
            return false;
        }
        self.read(who);
        let ledger = self.ledger.witnessed(&place(index), sequence, self.now, retention().wait());
        self.store(who, ledger);
        true
    }

    fn place_from_memory(&mut self, who: usize, index: usize) -> Result<(), TestCaseError> {
        let known = self.processes[who].known.clone();
        if self.adopting || known.sequence() == 0 || self.witness(who, index) {
            return Ok(());
        }
        let Ok(placement) = decide(&self.targets[index], &known, &terms(), Profile::Entra, false) else {
            return Ok(());
        };
        for document in &placement.writes {
            // What the other one has removed in this very moment is written once more, and then no more.
            let removed = std::mem::take(&mut self.removed);
            let written = self.write(index, *document, &placement.publication, &known);
            self.removed = removed;
            written?;
        }
        Ok(())
    }

    /// One pass as `workflow` makes it: look, observe, store the ledger, place, read back, store again.
    fn pass(
        &mut self,
        who: usize,
        moods: [Mood; SOURCES],
        up: [bool; TARGETS],
        life: &mut Option<u8>,
    ) -> Result<(), Failed> {
        let reports: Vec<Report> = moods
            .iter()
            .enumerate()
            .map(|(index, mood)| Report {
                source: format!("source-{index}"),
                answer: self.answer(index, *mood),
            })
            .collect();
        for index in (0..TARGETS).filter(|index| up[*index]) {
            self.witness(who, index);
        }
        self.read(who);
        let mut merged = merge(&self.ledger, &reports);
        let process = &self.processes[who];
        merged.may_remove = process.unseen.is_empty()
            || self.now.duration_since(process.started) >= signed(retention().wait());
        let observed = self.ledger.observe(&merged, self.now, &retention()).ledger;
        spend(life)?;
        let over = self.now + retention().wait();
        self.owed_until.extend(self.unheard(moods).into_iter().map(|kid| (kid, over)));
        self.note_removals(&observed)?;
        let listed = merged.listed.keys().filter(|kid| observed.entries()[*kid].is_public());
        self.owed_until.extend(listed.map(|kid| (kid.clone(), over)));
        if moods.into_iter().all(is_heard) {
            self.missing = observed.public_keys().map(|key| key.kid().clone()).collect();
        }
        self.missing.retain(|kid| !merged.listed.contains_key(kid));
        self.store(who, observed);
        if self.adopting {
            self.adopt(who, up, life)?;
        }
        for (index, up) in up.into_iter().enumerate() {
            if up {
                self.place(who, index, life)?;
            }
        }
        Ok(())
    }

    /// What `--adopt` does before it writes: every key that a place shows becomes the ledger's.
    fn adopt(&mut self, who: usize, up: [bool; TARGETS], life: &mut Option<u8>) -> Result<(), Died> {
        for (index, _) in up.into_iter().enumerate().filter(|(_, up)| *up) {
            let placement = decide(&self.targets[index], &self.ledger, &terms(), Profile::Entra, true);
            for stranger in placement.map_or_else(|_| Vec::new(), |placement| placement.strangers) {
                let met = self.ledger.met_strangers(&place(index), std::slice::from_ref(&stranger), self.now);
                self.store(who, met.adopt(stranger.kid(), self.now).expect("met just now"));
                self.missing.insert(stranger.kid().clone());
            }
            spend(life)?;
        }
        Ok(())
    }

    /// The keys that a source goes on to have while it cannot be heard: they may sign.
    ///
    /// Left out is a key that was missing before: that it came back unheard and left again unheard cannot
    /// be known.
    fn unheard(&self, moods: [Mood; SOURCES]) -> BTreeSet<Kid> {
        let silent = moods.into_iter().zip(&self.truth).filter(|(mood, _)| !is_heard(*mood));
        let kids = silent.flat_map(|(_, keys)| keys).map(|index| rsa_key(*index).kid().clone());
        let public = |kid: &Kid| self.ledger.entries().get(kid).is_some_and(Entry::is_public);
        kids.filter(|kid| public(kid) && !self.missing.contains(kid)).collect()
    }

    fn note_removals(&mut self, ledger: &Ledger) -> Result<(), TestCaseError> {
        for (kid, _) in ledger.entries().iter().filter(|(_, entry)| !entry.is_public()) {
            let over = self.owed_until.get(kid).is_none_or(|until| *until <= self.now);
            prop_assert!(over || self.removed.contains(kid), "{kid} removed before its last token is dead");
            self.removed.insert(kid.clone());
        }
        Ok(())
    }

    fn answer(&self, source: usize, mood: Mood) -> Answer {
        let keys = |set: &BTreeSet<usize>| Answer::Keys(set.iter().map(|index| rsa_key(*index)).collect());
        match mood {
            Mood::Truthful => keys(&self.truth[source]),
            Mood::Lagging => keys(&self.before[source]),
            Mood::Contradicting => Answer::Keys(vec![impostor(0), rsa_key(1)]),
            Mood::Failing => Answer::Failed,
            Mood::NotYetAsked => Answer::NotYetAsked,
        }
    }

    fn place(&mut self, who: usize, index: usize, life: &mut Option<u8>) -> Result<(), Failed> {
        self.witness(who, index);
        let placement =
            match decide(&self.targets[index], &self.ledger, &terms(), Profile::Entra, self.adopting) {
                Ok(placement) => placement,
                Err(Refused::Nothing(_)) => return Ok(()),
                Err(refused) => return Err(TestCaseError::fail(refused.to_string()).into()),
            };
        for document in &placement.writes {
            spend(life)?;
            let ledger = self.ledger.clone();
            self.write(index, *document, &placement.publication, &ledger)?;
        }
        let met = self.ledger.met_strangers(&place(index), &placement.strangers, self.now);
        let look = Look::at_our_own(placement.publication.keys().kids().cloned().collect());
        self.store(who, met.shown(&place(index), &look, self.now));
        Ok(())
    }

    fn write(
        &mut self,
        index: usize,
        document: Document,
        publication: &Publication,
        ledger: &Ledger,
    ) -> Result<(), TestCaseError> {
        let target = &mut self.targets[index];
        if document == Document::Jwks {
            let now: BTreeSet<Kid> = publication.keys().kids().cloned().collect();
            let before = target.jwks.as_ref().and_then(|stored| ReceivedJwks::parse(&stored.bytes).ok());
            for lost in
                before.iter().flat_map(|jwks| &jwks.keys).map(Jwk::kid).filter(|kid| !now.contains(kid))
            {
                let removed =
                    matches!(self.ledger.entries().get(lost).map(|e| e.state), Some(State::Removed { .. }));
                prop_assert!(removed, "{lost} lost from target {index} without a recorded removal");
            }
            for kid in &now {
                prop_assert!(!self.removed.contains(kid), "{kid} came back from its tombstone");
            }
        }
        if document == Document::Discovery {
            prop_assert!(target.jwks.is_some(), "a discovery document that points at nothing");
        }
        let stored = Stored {
            bytes: publication.bytes(document).to_vec(),
            lineage: Some(ledger.lineage().clone()),
            headers: Some(Headers {
                content_type: Some(MEDIA_TYPE.to_owned()),
                cache_control: Some(publication.cache_control()),
            }),
        };
        match document {
            Document::Jwks => target.jwks = Some(stored),
            Document::Discovery => target.discovery = Some(stored),
        }
        self.written_from[index] = ledger.sequence();
        Ok(())
    }

    /// A pass in which everything works.
    fn good_pass(&mut self) -> Result<(), TestCaseError> {
        let (moods, up) = ([Mood::Truthful; SOURCES], [true; TARGETS]);
        self.take(&Turn::Pass { moods, up, dies_after: None, who: 0 })
    }
}

/// Whether what a source says in this mood is what it has.
fn is_heard(mood: Mood) -> bool {
    matches!(mood, Mood::Truthful | Mood::Lagging)
}

fn place(index: usize) -> String {
    format!("target-{index}")
}

enum Failed {
    Test(TestCaseError),
    Died,
}

impl From<TestCaseError> for Failed {
    fn from(error: TestCaseError) -> Self {
        Self::Test(error)
    }
}

impl From<Died> for Failed {
    fn from(_: Died) -> Self {
        Self::Died
    }
}

/// Every step between two of which the process may die.
fn spend(life: &mut Option<u8>) -> Result<(), Died> {
    match life {
        None => Ok(()),
        Some(0) => Err(Died),
        Some(left) => {
            *left -= 1;
            Ok(())
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    /// Promises 2, 3 and 6: what is written never loses a key that is owed, never brings a removed one
    /// back, never points at nothing.
    #[test]
    fn no_history_takes_away_a_key_that_is_still_owed(turns in turns()) {
        let mut world = World::new();
        for turn in &turns {
            world.take(turn)?;
        }
    }

    /// Promises 3 and 7: once everything works again, every place shows every key that is listed or owed,
    /// whatever happened before.
    #[test]
    fn a_good_pass_makes_every_place_true_again(turns in turns()) {
        let mut world = World::new();
        for turn in &turns {
            world.take(turn)?;
        }
        world.good_pass()?;
        for target in &world.targets {
            let stored = target.jwks.as_ref().expect("written");
            let shown: BTreeSet<Kid> = ReceivedJwks::parse(&stored.bytes).expect("ours").keys.iter().map(|k| k.kid().clone()).collect();
            for index in world.truth.iter().flatten() {
                let kid = rsa_key(*index).kid().clone();
                prop_assert!(shown.contains(&kid) || world.removed.contains(&kid), "{kid} is listed and not shown");
            }
            for entry in world.ledger.entries().values().filter(|entry| entry.is_public()) {
                prop_assert!(shown.contains(entry.jwk.kid()));
            }
        }
    }

    /// Promises 4 and 6: a second look at the same world changes nothing.
    #[test]
    fn a_quiet_pass_writes_nothing(turns in turns()) {
        let mut world = World::new();
        for turn in &turns {
            world.take(turn)?;
        }
        world.good_pass()?;
        world.adopting = false;
        let (ledger, targets) = (world.ledger.clone(), world.targets.clone());
        world.good_pass()?;
        prop_assert_eq!(&ledger, &world.ledger);
        prop_assert!(world.tampered || ledger.incidents().is_empty(), "the other process was taken for damage");
        prop_assert_eq!(targets, world.targets);
    }

    /// Promise 2, the other half: a key does not stay for ever either.
    #[test]
    fn a_key_that_nobody_lists_is_removed_when_its_retention_is_over(turns in turns()) {
        let mut world = World::new();
        for turn in &turns {
            world.take(turn)?;
        }
        world.good_pass()?;
        world.now += retention().wait();
        world.good_pass()?;
        let listed: BTreeSet<Kid> = world.truth.iter().flatten().map(|index| rsa_key(*index).kid().clone()).collect();
        let all_tombstones = listed.iter().all(|kid| world.removed.contains(kid));
        for kid in world.ledger.public_keys().map(Jwk::kid) {
            prop_assert!(listed.contains(kid) || all_tombstones, "{kid} is listed nowhere and still published");
        }
    }

    /// Promise 4: a stored ledger gives the same publication as the one it was stored from.
    #[test]
    fn a_ledger_survives_being_stored(turns in turns()) {
        let mut world = World::new();
        for turn in &turns {
            world.take(turn)?;
            let read = Ledger::parse(&world.ledger.to_json()).expect("own format");
            prop_assert_eq!(&read, &world.ledger);
        }
    }

    /// Promise 3: what a human or a disk does to the ledger under running processes takes no key from it.
    #[test]
    fn no_damage_under_running_processes_takes_a_key_away(turns in turns(), damage in damages(), back in 0..12_usize) {
        let mut world = World::new();
        for turn in &turns {
            world.take(turn)?;
        }
        world.good_pass()?;
        let public: BTreeSet<Kid> = world.ledger.public_keys().map(|key| key.kid().clone()).collect();
        for turn in [Turn::Damage(damage), Turn::Restore { back, running: true }] {
            world.take(&turn)?;
            world.now += retention().wait() / 2;
            world.good_pass()?;
            for target in &world.targets {
                let stored = target.jwks.as_ref().expect("written");
                let shown = ReceivedJwks::parse(&stored.bytes).expect("ours").keys;
                for kid in public.iter().filter(|kid| !world.removed.contains(*kid)) {
                    prop_assert!(shown.iter().any(|key| key.kid() == kid), "{kid} was lost");
                }
            }
        }
    }
}
