//! The publisher of the model and its targets: what `reconcile` does around the core.

use super::*;
use crate::core::signer::announcement::SignedAnnouncement;

/// The publisher's memory.
#[derive(Clone)]
pub(super) struct Publisher {
    pub(super) known: Arc<Ledger>,
    /// The targets that it has not read since its start.
    pub(super) unseen: Kids,
    /// Whether some target held anything when it was first read.
    pub(super) was_published: bool,
    pub(super) opened: i64,
    /// The last statements of the nodes, and the last list of the API server.
    pub(super) nodes: Arc<SourceAnswer>,
    /// Whether all those statements were accepted.
    pub(super) believes: bool,
    pub(super) api_server: Option<Kids>,
    /// By target, an observation that is not stored yet.
    pub(super) looks: Vec<Option<Arc<Seen>>>,
    pub(super) skew: i64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) look: TargetObservation,
    pub(super) unmanaged_keys: Vec<Jwk>,
}

/// A target, with the copies that relying parties may have.
#[derive(Clone, Debug, Default)]
pub(super) struct Place {
    pub(super) view: Option<Kids>,
    /// Changes with every write.
    pub(super) version: u64,
    pub(super) written_from: u64,
    /// Whether it shows what the publisher wrote.
    pub(super) is_ours: bool,
    /// Whether the ledger has recorded it once: before that, keys that are `present_from_start` rely on no
    /// other writer.
    pub(super) is_recorded: bool,
    pub(super) copies: Vec<PastView>,
}

#[derive(Clone, Debug)]
pub(super) struct PastView {
    pub(super) view: Kids,
    pub(super) replaced: i64,
    pub(super) is_ours: bool,
    /// Whether the ledger has recorded a later observation.
    pub(super) is_noticed: bool,
}

/// How the announcements are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mood {
    Truthful,
    Unreadable,
    Stale(usize),
    Missing(usize),
}

impl Place {
    fn replace(&mut self, view: Kids, is_ours: bool, now: i64) {
        if let Some(view) = self.view {
            let (is_ours, is_noticed) = (self.is_ours, false);
            self.copies.push(PastView { view, replaced: now, is_ours, is_noticed });
        }
        (self.view, self.is_ours) = (Some(view), is_ours);
        self.version += 1;
    }

    /// Drops the copies that have expired.
    pub(super) fn forget(&mut self, now: i64) {
        self.copies.retain(|copy| now < copy.replaced + PROPAGATION);
    }

    pub(super) fn tamper(&mut self, edit: Edit, now: i64) -> bool {
        let Some(view) = self.view.filter(|_| self.is_recorded) else { return false };
        let edited = match edit {
            Edit::Empty => 0,
            Edit::Without(key) => view & !(1 << key),
            Edit::Foreign => view | 1 << FOREIGN,
        };
        if edited != view {
            self.replace(edited, false, now);
        }
        edited != view
    }
}

fn named(place: usize) -> String {
    ["eu", "us"][place].to_owned()
}

fn marked(version: u64) -> String {
    version.to_string()
}

impl World {
    pub(super) fn publisher_time(&self) -> Timestamp {
        at(self.now + self.wrong + self.publisher.as_ref().map_or(0, |publisher| publisher.skew))
    }

    /// The publisher's time, unless it is detectably wrong.
    fn trusted_time(&self) -> Option<Timestamp> {
        let is_trusted = self.wrong == 0 || self.rules.fault == Some(Fault::WrongClockTrusted);
        is_trusted.then(|| self.publisher_time())
    }

    pub(super) fn required_targets(&self) -> BTreeSet<String> {
        (0..self.rules.places).map(named).collect()
    }

    fn timing(&self) -> Timing {
        let timing = Timing {
            rotate_after: self.rules.by_age.then(|| lasting(ROTATE_AFTER)),
            window: None,
            // The margin and the second for rounding are added.
            propagation: lasting(PROPAGATION - MARGIN - 1),
            jwks_max_age: lasting(PROPAGATION / 2),
            max_token_lifetime: lasting(LIFETIME),
            margin: lasting(MARGIN),
        };
        self.rules.fault.map_or(timing.clone(), |fault| fault.timing(timing))
    }

    pub(super) fn retention(&self) -> Retention {
        let Timing { max_token_lifetime, margin, .. } = self.timing();
        Retention { max_token_lifetime, margin, ..retention() }
    }

    fn wait() -> Duration {
        lasting(LIFETIME + MARGIN)
    }

    fn start(&mut self) -> Result<(), Broken> {
        let known = Ledger::new(terms().issuer, Lineage::from_random([1; 8]));
        self.publisher = Some(Publisher {
            known: Arc::new(known),
            unseen: (1 << self.rules.places) - 1,
            was_published: false,
            opened: self.now,
            nodes: Arc::new(SourceAnswer::NotYetAsked),
            believes: false,
            api_server: None,
            looks: vec![None; self.rules.places],
            skew: 0,
        });
        self.change(Ledger::clone)
    }

    /// Reads the stored ledger, reconciles it with the known one, decides and stores.
    pub(super) fn change(&mut self, decide: impl FnOnce(&Ledger) -> Ledger) -> Result<(), Broken> {
        let now = self.publisher_time();
        let found = self.stored.clone().map_or(StoredLedger::Nothing, StoredLedger::Ledger);
        let publisher = self.publisher.as_ref().expect("it runs");
        let reconciled = match self.rules.fault {
            Some(Fault::OlderLedgerWins) if self.stored.is_some() => {
                self.stored.as_deref().cloned().expect("there is one")
            }
            _ => publisher.known.reconcile(&found, now, Self::wait()).expect("one lineage, undamaged"),
        };
        let ledger = self.rotate(decide(&reconciled))?;
        let ledger = Arc::new(ledger);
        // A ledger at change 0 is never stored.
        if ledger.sequence() > 0 && self.stored.as_ref() != Some(&ledger) {
            self.check_stored(&reconciled, &ledger)?;
            self.stored = Some(Arc::clone(&ledger));
        }
        self.publisher.as_mut().expect("it runs").known = ledger;
        Ok(())
    }

    fn rotate(&self, mut ledger: Ledger) -> Result<Ledger, Broken> {
        let (now, timing, mut seen) = (self.publisher_time(), self.timing(), self.observation(&ledger));
        if let Some(fault) = self.rules.fault {
            fault.blind(&mut seen);
        }
        for _ in 0..8 {
            let timing = match self.rules.fault {
                Some(fault) => fault.timing_of(&ledger, timing.clone()),
                None => timing.clone(),
            };
            let step = next_step(&ledger, &seen, now, &timing);
            match step {
                RotationStep::Wait { .. } => return Ok(ledger),
                step => ledger = after(&ledger, &step, now),
            }
        }
        Err(Broken::NeverEnds)
    }

    fn observation(&self, ledger: &Ledger) -> RotationInputs {
        let publisher = self.publisher.as_ref().expect("it runs");
        let listed = publisher.api_server.map(|listed| each(listed).map(kid_of).collect());
        let api_servers = self.rules.api_servers.then(|| ("one".to_owned(), listed));
        let nodes =
            SourceReport { source: "nodes".to_owned(), answer: SourceAnswer::clone(&publisher.nodes) };
        RotationInputs {
            required_targets: self.required_targets(),
            api_servers: api_servers.into_iter().collect(),
            nodes: statements(ledger, [&nodes]),
            cache_lifetimes: BTreeMap::new(),
            is_complete: publisher.unseen == 0
                && *publisher.nodes != SourceAnswer::NotYetAsked
                && self.trusted_time().is_some(),
        }
    }

    /// Starts the publisher, or lets it observe every source.
    pub(super) fn hear(&mut self, mood: Mood) -> Result<bool, Broken> {
        if self.publisher.is_none() {
            self.start()?;
            return Ok(true);
        }
        let answer = self.answer(mood);
        let before = (self.stored.clone(), self.publisher.as_ref().map(|publisher| publisher.nodes.clone()));
        let (listed, now) = (self.listed, self.publisher_time());
        let publisher = self.publisher.as_mut().expect("it runs");
        let was_listed = publisher.api_server.replace(listed);
        publisher.nodes = Arc::new(answer);
        let mut reports =
            vec![SourceReport { source: "nodes".to_owned(), answer: SourceAnswer::clone(&publisher.nodes) }];
        if self.rules.api_servers {
            let answer = SourceAnswer::Keys(each(listed).map(rsa_key).collect());
            reports.push(SourceReport { source: "one".to_owned(), answer });
        }
        let (unseen, was_published) = (publisher.unseen, publisher.was_published);
        let has_waited = self.now - publisher.opened >= LIFETIME + MARGIN;
        let (retention, fault) = (self.retention(), self.rules.fault);
        let is_trusted = self.trusted_time().is_some();
        let mut believes = false;
        self.change(|ledger| {
            let ledger =
                &if is_trusted { ledger.without_times_ahead(now, &retention) } else { ledger.clone() };
            let mut merged = merge(ledger, &reports);
            believes = merged.rejected.is_empty();
            merged.complete &= is_trusted;
            merged.may_remove = unseen == 0 || has_waited;
            merged.is_beginning = unseen == 0 && !was_published;
            let observed = ledger.observe(&merged, now, &retention);
            match fault {
                Some(fault) => fault.believe(&observed, now),
                None => observed.ledger,
            }
        })?;
        let publisher = self.publisher.as_mut().expect("it runs");
        publisher.believes = believes;
        Ok(before != (self.stored.clone(), Some(publisher.nodes.clone())) || was_listed != Some(listed))
    }

    /// As `source::Announcements` reads them.
    pub(super) fn answer(&self, mood: Mood) -> SourceAnswer {
        if mood == Mood::Unreadable {
            return SourceAnswer::Failed;
        }
        let kids_of = |node: &SigningNode| {
            let announced = node.announced.iter().flat_map(|announced| announced.keys().keys());
            (node.name.clone(), announced.cloned().collect())
        };
        let admits: BTreeMap<NodeName, BTreeSet<Kid>> = self.nodes.iter().map(kids_of).collect();
        let mut said = Vec::new();
        for (index, node) in self.nodes.iter().enumerate() {
            let read = match mood {
                Mood::Stale(stale) if stale == index => &node.before,
                Mood::Missing(missing) if missing == index => &None,
                _ => &node.announced,
            };
            let Some(read) = read else { continue };
            let misread = self.rules.fault.map(|fault| fault.misread(read, self.stored.as_deref()));
            let read = misread.as_ref().unwrap_or(read);
            let signed_by = read.keys().keys().filter(|kid| has(node.own, number(kid))).cloned().collect();
            let signed = SignedAnnouncement::by(read.clone().admitting(admits.clone()), signed_by);
            said.push(NodeStatement::new(signed, self.publisher_time(), self.retention().margin));
        }
        if said.is_empty() { SourceAnswer::Failed } else { SourceAnswer::Announced(said) }
    }

    /// Reads a target for the first time since the start.
    pub(super) fn look(&mut self, index: usize) -> Result<bool, Broken> {
        let place = &self.places[index];
        let (is_something, written_from) = (place.view.is_some(), place.written_from);
        let Some(publisher) = self.publisher.as_mut().filter(|publisher| has(publisher.unseen, index)) else {
            return Ok(false);
        };
        publisher.was_published |= is_something;
        publisher.unseen &= !(1 << index);
        self.witness(index, written_from)?;
        Ok(true)
    }

    fn witness(&mut self, index: usize, written_from: u64) -> Result<(), Broken> {
        let (now, blind) = (self.publisher_time(), self.rules.fault == Some(Fault::OlderLedgerWins));
        self.change(|ledger| {
            if blind {
                ledger.clone()
            } else {
                ledger.observe_revision(&named(index), written_from, now, Self::wait())
            }
        })
    }

    /// Syncs a target with the ledger in memory.
    pub(super) fn place(&mut self, index: usize) -> Result<bool, Broken> {
        let Some(publisher) = &self.publisher else { return Ok(false) };
        let written_from = self.places[index].written_from;
        if publisher.known.public_keys().next().is_none() {
            return Ok(false);
        }
        if publisher.known.is_behind_target(written_from) {
            self.witness(index, written_from)?;
        }
        let ledger = Arc::clone(&self.publisher.as_ref().expect("it runs").known);
        let found = self.places[index].view.unwrap_or_default();
        let unmanaged_keys = each(found).filter(|key| ledger.key(&kid_of(*key)).is_none());
        let unmanaged_keys: Vec<Jwk> = unmanaged_keys.map(rsa_key).collect();
        let wanted = kids(ledger.public_keys().chain(&unmanaged_keys).map(Jwk::kid));
        let version = self.places[index].version;
        if self.places[index].view != Some(wanted) {
            self.check_placed(found & !wanted)?;
            // After a restored backup, what an attacker removed from a target is unknown before the nodes are
            // accepted.
            let publisher = self.publisher.as_ref().expect("it runs");
            let is_heard = publisher.believes && matches!(*publisher.nodes, SourceAnswer::Announced(_));
            let is_ours = !self.restored || is_heard;
            self.places[index].replace(wanted, is_ours, self.now);
            self.places[index].written_from = ledger.sequence();
        }
        let view = each(wanted).map(kid_of).collect();
        let look = TargetObservation {
            view,
            revision_found: Some(marked(version)),
            revision_after: Some(marked(self.places[index].version)),
        };
        let known = ledger.observe_unmanaged(&named(index), &unmanaged_keys, self.publisher_time());
        let is_known = self.shown(&known, index, &look).sequence() == ledger.sequence();
        let place = &mut self.places[index];
        place.copies.iter_mut().for_each(|copy| copy.is_noticed |= is_known);
        let seen = (!is_known).then(|| Arc::new(Seen { look, unmanaged_keys }));
        let publisher = self.publisher.as_mut().expect("it runs");
        let was_unseen = has(publisher.unseen, index);
        publisher.unseen &= !(1 << index);
        let is_news = publisher.looks[index] != seen;
        publisher.looks[index] = seen;
        Ok(was_unseen || is_news || self.places[index].version != version)
    }

    fn shown(&self, ledger: &Ledger, index: usize, look: &TargetObservation) -> Ledger {
        let (place, now) = (named(index), self.trusted_time());
        match self.rules.fault {
            Some(fault) => fault.shown(ledger, &place, look, now),
            None => ledger.observe_target(&place, look, now),
        }
    }

    /// Stores the observation of a target.
    pub(super) fn saw(&mut self, index: usize) -> Result<bool, Broken> {
        let Some(publisher) = &mut self.publisher else { return Ok(false) };
        let Some(seen) = publisher.looks[index].take() else { return Ok(false) };
        let world = self.clone();
        self.change(|ledger| {
            let met = ledger.observe_unmanaged(&named(index), &seen.unmanaged_keys, world.publisher_time());
            world.shown(&met, index, &seen.look)
        })?;
        self.places[index].is_recorded = true;
        self.places[index].copies.iter_mut().for_each(|copy| copy.is_noticed = true);
        Ok(true)
    }
}
