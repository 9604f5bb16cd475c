//! An issuer, its processes, and the account of what they still need to publish.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use jiff::Timestamp;
use proptest::prelude::*;

use super::{
    KEYS, MINUTE,
    history::{Damage, Mood, PROCESSES, SOURCES, TARGETS, Turn},
    impostor, retention, rsa_key, terms,
};
use crate::core::{
    jose::{
        jwk::Jwk,
        jwk_set::{Profile, ReceivedJwks},
        kid::Kid,
        publication::{Document, MEDIA_TYPE, Publication},
        stored::InvalidDocument,
    },
    ledger::{
        Entry, EntryState, Ledger, Lineage, StoredLedger as FoundLedger, TargetObservation,
        merge::{SourceAnswer, SourceReport, merge},
        signed,
    },
    target_plan::{Headers, Stored, TargetContents, WriteRefused, decide},
};

/// Everything outside the processes; nothing that dies with them.
pub(super) struct World {
    pub(super) now: Timestamp,
    pub(super) truth: [BTreeSet<usize>; SOURCES],
    before: [BTreeSet<usize>; SOURCES],
    pub(super) ledger: Ledger,
    /// The damaged ledger that is found instead, if any.
    damaged: Option<FoundLedger>,
    /// Every stored ledger of this lineage.
    backups: Vec<Ledger>,
    /// Whether anyone but the processes ever changed the stored ledger.
    pub(super) tampered: bool,
    processes: [Process; PROCESSES],
    lineages: u8,
    pub(super) targets: [TargetContents; TARGETS],
    /// The largest sequence from which each target was written.
    written_from: [u64; TARGETS],
    /// Until when tokens may live that a listed key has signed.
    owed_until: BTreeMap<Kid, Timestamp>,
    /// The keys that no source listed at the last complete observation.
    missing: BTreeSet<Kid>,
    /// Every kid that a stored ledger has ever removed.
    pub(super) removed: BTreeSet<Kid>,
    pub(super) adopting: bool,
}

/// The state that dies with a process.
#[derive(Clone)]
struct Process {
    known: Ledger,
    started: Timestamp,
    /// The targets that it has not read since.
    unseen: BTreeSet<usize>,
}

impl Process {
    fn start(lineage: &Lineage, started: Timestamp) -> Self {
        let known = Ledger::new(terms().issuer, lineage.clone());
        Self { known, started, unseen: (0..TARGETS).collect() }
    }
}

/// The process died here; the next turn starts from the stored state.
struct Died;

impl World {
    pub(super) fn new() -> Self {
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
            targets: [TargetContents::default(), TargetContents::default()],
            written_from: [0; TARGETS],
            owed_until: BTreeMap::new(),
            missing: BTreeSet::new(),
            removed: BTreeSet::new(),
            adopting: false,
        }
    }

    pub(super) fn take(&mut self, turn: &Turn) -> Result<(), TestCaseError> {
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
                let unmanaged_key =
                    format!(r#"{{"keys":[{}]}}"#, serde_json::to_string(&rsa_key(99)).expect("json"));
                let bytes = if *nonsense { b"<html>".to_vec() } else { unmanaged_key.into_bytes() };
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

    /// A process reads the ledger every few seconds: it has seen the damage before it ends.
    fn restart(&mut self, who: usize) {
        if self.damaged.is_some() {
            self.read(who);
        }
        self.processes[who] = Process::start(self.ledger.lineage(), self.now);
    }

    /// Reads the stored ledger and reconciles it with the known one.
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

    /// Every process reads the ledger every few seconds, so all of them know it when it is damaged.
    fn damage(&mut self, damage: Damage) {
        if self.ledger.sequence() == 0 {
            return;
        }
        (0..PROCESSES).for_each(|who| self.read(who));
        let mut json: serde_json::Value = serde_json::from_slice(&self.ledger.to_json()).expect("JSON");
        let found = match damage {
            Damage::Deleted => FoundLedger::Nothing,
            Damage::CutOff => FoundLedger::Damaged(InvalidDocument::damaged("ledger", "cut off")),
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
            let goes_on = self.processes.iter().all(|process| backup.is_continuation_of(&process.known));
            self.damaged = Some(FoundLedger::Ledger(Arc::new(backup.clone())));
            // After an older backup was restored, a later one from before looks like a state stored by
            // another process.
            if goes_on {
                self.forget_what_came_after(&backup);
            }
            return;
        }
        self.damaged = None;
        self.forget_what_came_after(&backup);
        self.ledger = backup;
        (0..PROCESSES).for_each(|who| self.restart(who));
    }

    /// Keeps only what an unrecognisable backup still needs.
    fn forget_what_came_after(&mut self, backup: &Ledger) {
        // Changes since the backup that reached no target are forgotten: tombstones, and that a missing key
        // was listed in between.
        let state = |kid: &Kid| backup.entries().get(kid).map(|entry| entry.state);
        self.removed.retain(|kid| matches!(state(kid), Some(EntryState::Removed { .. })));
        self.owed_until.retain(|kid, _| matches!(state(kid), Some(EntryState::Listed)));
        self.missing = backup.entries().keys().cloned().collect();
        self.missing.retain(|kid| matches!(state(kid), Some(EntryState::Missing { .. })));
    }

    /// Records from which change a target was written; returns whether that is later than the known one.
    fn witness(&mut self, who: usize, index: usize) -> bool {
        self.processes[who].unseen.remove(&index);
        let theirs = |stored: &Stored| stored.lineage.as_ref() == Some(self.ledger.lineage());
        let target = &self.targets[index];
        let is_ours = target.jwks.iter().chain(&target.discovery).any(theirs);
        let sequence = self.written_from[index];
        if !is_ours || !self.processes[who].known.is_behind_target(sequence) {
            return false;
        }
        self.read(who);
        let ledger = self.ledger.observe_revision(&place(index), sequence, self.now, retention().wait());
        self.store(who, ledger);
        true
    }

    fn place_from_memory(&mut self, who: usize, index: usize) -> Result<(), TestCaseError> {
        let known = self.processes[who].known.clone();
        if self.adopting || known.sequence() == 0 || self.witness(who, index) {
            return Ok(());
        }
        let Ok(plan) = decide(&self.targets[index], &known, &terms(), Profile::Entra, false) else {
            return Ok(());
        };
        for document in &plan.writes {
            // What the other process has removed at this very moment is written once more, but not again.
            let removed = std::mem::take(&mut self.removed);
            let written = self.write(index, *document, &plan.publication, &known);
            self.removed = removed;
            written?;
        }
        Ok(())
    }

    /// One reconciliation, as in `reconcile`: read, observe, store the ledger, sync, read back, store again.
    fn pass(
        &mut self,
        who: usize,
        moods: [Mood; SOURCES],
        up: [bool; TARGETS],
        life: &mut Option<u8>,
    ) -> Result<(), Failed> {
        let reports: Vec<SourceReport> = moods
            .iter()
            .enumerate()
            .map(|(index, mood)| SourceReport {
                source: format!("source-{index}"),
                answer: self.answer(index, *mood),
            })
            .collect();
        for index in (0..TARGETS).filter(|index| up[*index]) {
            self.witness(who, index);
        }
        self.read(who);
        let mut merged = merge(&self.ledger, &reports);
        // A source that contradicts no known canonical key is accepted.
        let is_refused =
            |report: &SourceReport| merged.conflicts.iter().any(|it| it.newcomer == report.source);
        let heard: [bool; SOURCES] = std::array::from_fn(|index| {
            matches!(reports[index].answer, SourceAnswer::Keys(_)) && !is_refused(&reports[index])
        });
        let process = &self.processes[who];
        merged.may_remove = process.unseen.is_empty()
            || self.now.duration_since(process.started) >= signed(retention().wait());
        let observed = self.ledger.observe(&merged, self.now, &retention()).ledger;
        spend(life)?;
        let over = self.now + retention().wait();
        self.owed_until.extend(self.unheard(heard).into_iter().map(|kid| (kid, over)));
        self.note_removals(&observed)?;
        let listed = merged.listed.keys().filter(|kid| observed.entries()[*kid].is_public());
        self.owed_until.extend(listed.map(|kid| (kid.clone(), over)));
        if heard == [true; SOURCES] {
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

    /// The effect of `--adopt` before a write: every key that a target shows becomes a key of the ledger.
    fn adopt(&mut self, who: usize, up: [bool; TARGETS], life: &mut Option<u8>) -> Result<(), Died> {
        for (index, _) in up.into_iter().enumerate().filter(|(_, up)| *up) {
            let plan = decide(&self.targets[index], &self.ledger, &terms(), Profile::Entra, true);
            for unmanaged_key in plan.map_or_else(|_| Vec::new(), |plan| plan.unmanaged_keys) {
                let met = self.ledger.observe_unmanaged(
                    &place(index),
                    std::slice::from_ref(&unmanaged_key),
                    self.now,
                );
                self.store(who, met.adopt(unmanaged_key.kid(), self.now).expect("met just now"));
                self.missing.insert(unmanaged_key.kid().clone());
            }
            spend(life)?;
        }
        Ok(())
    }

    /// The keys that a source still has while it is unavailable: they may sign.
    ///
    /// Excludes a key that was missing before: that it returned and left again unobserved cannot be known.
    fn unheard(&self, heard: [bool; SOURCES]) -> BTreeSet<Kid> {
        let silent = heard.into_iter().zip(&self.truth).filter(|(heard, _)| !heard);
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

    fn answer(&self, source: usize, mood: Mood) -> SourceAnswer {
        let keys =
            |set: &BTreeSet<usize>| SourceAnswer::Keys(set.iter().map(|index| rsa_key(*index)).collect());
        match mood {
            Mood::Truthful => keys(&self.truth[source]),
            Mood::Lagging => keys(&self.before[source]),
            Mood::Contradicting => SourceAnswer::Keys(vec![impostor(0), rsa_key(1)]),
            Mood::Failing => SourceAnswer::Failed,
            Mood::NotYetAsked => SourceAnswer::NotYetAsked,
        }
    }

    fn place(&mut self, who: usize, index: usize, life: &mut Option<u8>) -> Result<(), Failed> {
        self.witness(who, index);
        let plan = match decide(&self.targets[index], &self.ledger, &terms(), Profile::Entra, self.adopting) {
            Ok(plan) => plan,
            Err(WriteRefused::Nothing(_)) => return Ok(()),
            Err(refused) => return Err(TestCaseError::fail(refused.to_string()).into()),
        };
        for document in &plan.writes {
            spend(life)?;
            let ledger = self.ledger.clone();
            self.write(index, *document, &plan.publication, &ledger)?;
        }
        let met = self.ledger.observe_unmanaged(&place(index), &plan.unmanaged_keys, self.now);
        let look = TargetObservation::of_own_listener(plan.publication.keys().kids().cloned().collect());
        self.store(who, met.observe_target(&place(index), &look, Some(self.now)));
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
                let removed = matches!(
                    self.ledger.entries().get(lost).map(|e| e.state),
                    Some(EntryState::Removed { .. })
                );
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

    /// A reconciliation in which everything works.
    pub(super) fn good_pass(&mut self) -> Result<(), TestCaseError> {
        let (moods, up) = ([Mood::Truthful; SOURCES], [true; TARGETS]);
        self.take(&Turn::Pass { moods, up, dies_after: None, who: 0 })
    }
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

/// Counts the steps between which the process may die.
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
