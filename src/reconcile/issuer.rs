//! Keeps what is known of one issuer: hears its sources, stores the ledger, then shows the publication.
//!
//! The ledger is stored before anything that follows from it can be seen, so a process that dies in
//! between has promised nothing.

use std::{
    collections::BTreeSet,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
};

use jiff::Timestamp;
use tokio::sync::{Mutex, watch};
use tracing::{info, warn};

use crate::{
    clock,
    core::{
        freshness::Freshness,
        jose::{
            issuer::Issuer,
            jwk::Jwk,
            jwk_set::{JwkSet, Profile, change_breaks},
            kid::Kid,
            publication::{NothingToPublish, Publication, Terms},
        },
        ledger::{
            Change, ChangeKind, Irreconcilable, Ledger, Retention, StoredLedger, TargetObservation,
            merge::{SourceAnswer, merge},
            signed,
        },
        rotation::Timing,
    },
    store::{LedgerStore, StoreError},
    target::Reading,
    telemetry::{Trouble, status::StatusStore},
};

mod conditions;
mod observations;
mod rotation;
mod start_report;

pub use self::{conditions::Conditions, observations::Endpoints, rotation::RotationRequestError};
use self::{observations::SourceObservations, start_report::StartReport};

/// The name under which the HTTP listener stands in the ledger.
const LISTENER_TARGET: &str = "http";

/// What is the same for an issuer while the process runs.
#[derive(Clone, Debug)]
pub struct IssuerSpec {
    pub terms: Terms,
    /// The issuers that were moved to this one.
    pub former: Vec<Issuer>,
    /// The profile of the documents that are served.
    pub profile: Profile,
    pub retention: Retention,
    /// The names of all targets. Before a key is removed, each is looked at once: it may know a later ledger.
    pub places: BTreeSet<String>,
    /// The targets that must show a key before it signs.
    pub gates: BTreeSet<String>,
    /// The waits of a rotation.
    pub timing: Timing,
    /// Whether this process serves the documents: then it is one of the places that show them.
    pub serves: bool,
    /// Whether keys come from nodes that sign: those of a new issuer need not wait where nothing was published.
    pub signs: bool,
    /// Whether it stores what it learns: not in a dry run.
    pub stores: bool,
}

/// The reconciler of one issuer.
pub struct IssuerReconciler {
    spec: IssuerSpec,
    store: LedgerStore,
    board: StatusStore,
    observations: Mutex<SourceObservations>,
    /// As it was last read or stored: what is found next is compared with it.
    ledger: watch::Sender<Arc<Ledger>>,
    /// The places that were not looked at since the start.
    unread_targets: watch::Sender<BTreeSet<String>>,
    /// What happened before is history, and not logged again.
    started_at: Timestamp,
    /// The change that the ledger was at when it was first read: times are whole seconds, and what it tells
    /// of the second in which this process began is history too.
    initial_sequence: OnceLock<u64>,
    publication: watch::Sender<Option<Arc<Publication>>>,
    /// Whether some place was found to hold a document.
    was_published: AtomicBool,
    /// What was told of a ledger that cannot be stored.
    store_trouble: std::sync::Mutex<Trouble>,
    start_report: std::sync::Mutex<StartReport>,
    /// Wakes whoever looks at the targets.
    recheck: watch::Sender<()>,
}

/// What one source said.
pub struct SourceObservation {
    pub answer: SourceAnswer,
    /// What the source takes for the present.
    pub server_time: Option<Timestamp>,
    /// What to warn about, in words.
    pub notes: Vec<String>,
}

impl SourceObservation {
    /// There was no usable answer.
    #[must_use]
    pub fn failed() -> Self {
        Self { answer: SourceAnswer::Failed, server_time: None, notes: Vec::new() }
    }
}

impl IssuerReconciler {
    /// Shows what was known when it last ran here. [`Keeper::begin`] comes next.
    ///
    /// # Errors
    ///
    /// Fails when that cannot be read, and when it is about another issuer.
    pub async fn open(
        charter: IssuerSpec,
        sources: impl IntoIterator<Item = Endpoints>,
        store: LedgerStore,
        board: StatusStore,
    ) -> Result<Self, StoreError> {
        let known = store.recall().await?;
        let heard = SourceObservations::new(sources);
        let opening = std::sync::Mutex::new(StartReport::new(heard.len(), charter.places.clone()));
        let reconciler = Self {
            ledger: watch::Sender::new(Arc::clone(&known)),
            unread_targets: watch::Sender::new(charter.places.clone()),
            started_at: clock::now(),
            initial_sequence: OnceLock::new(),
            publication: watch::Sender::new(None),
            observations: Mutex::new(heard),
            was_published: AtomicBool::new(false),
            store_trouble: std::sync::Mutex::default(),
            start_report: opening,
            recheck: watch::Sender::new(()),
            spec: charter,
            store,
            board,
        };
        // An empty ledger is no concern yet: nobody has been asked.
        let _ = reconciler.publish(known);
        Ok(reconciler)
    }

    /// Reads the ledger and shows what it says, before any source is asked; not in a dry run. A service starts
    /// without it as long as the way to it is blocked.
    ///
    /// # Errors
    ///
    /// Fails when there is a ledger and it cannot be used.
    pub async fn begin(&self) -> Result<(), StoreError> {
        if self.spec.stores {
            match self.refresh().await {
                Err(error) if self.spec.serves && error.is_passing() => self.log_store_error(&error),
                other => drop(other?),
            }
        }
        Ok(())
    }

    #[must_use]
    pub fn spec(&self) -> &IssuerSpec {
        &self.spec
    }

    #[must_use]
    pub fn board(&self) -> &StatusStore {
        &self.board
    }

    /// The ledger as it is stored; changes of what is public wake the receiver.
    #[must_use]
    pub fn ledger(&self) -> watch::Receiver<Arc<Ledger>> {
        self.ledger.subscribe()
    }

    /// Has every target looked at now: relying parties seem to read something else.
    pub fn request_recheck(&self) {
        self.recheck.send_replace(());
    }

    /// Wakes for each [`Keeper::suspect`].
    #[must_use]
    pub fn recheck_requests(&self) -> watch::Receiver<()> {
        self.recheck.subscribe()
    }

    /// What is to be served; `None` until something is known.
    #[must_use]
    pub fn publication(&self) -> watch::Receiver<Option<Arc<Publication>>> {
        self.publication.subscribe()
    }

    /// Learns who speaks for a source, by its place in the configuration. What others said for it counts no
    /// more; what follows is stored when somebody is heard the next time.
    pub async fn expect(&self, source: usize, endpoints: &Endpoints) {
        let mut heard = self.observations.lock().await;
        for gone in heard.expect(source, endpoints) {
            self.board.forget_source(&self.spec.terms.issuer, &gone);
        }
    }

    /// Takes in what somebody said for a source, stores what follows, and shows it. Whoever does not speak
    /// for it any more is not heard.
    ///
    /// # Errors
    ///
    /// Fails when the ledger cannot be stored; what is shown stays.
    pub async fn observe_source(
        &self,
        source: usize,
        name: &str,
        observation: SourceObservation,
    ) -> Result<Conditions, StoreError> {
        let now = clock::now();
        let mut heard = self.observations.lock().await;
        heard.record(source, name, observation);
        let mut concerns = Conditions::default();
        let stored = self
            .update(now, |ledger| {
                let (observed, noted) = self.decide(ledger, &heard, now);
                concerns = noted;
                observed
            })
            .await?;
        if heard.trusted(now, self.spec.retention.margin).is_some() {
            heard.dated();
        }
        let nothing = self.publish(stored);
        concerns.nothing_to_publish = concerns.nothing_to_publish.or(nothing);
        self.update_conditions(&mut heard, &concerns);
        Ok(concerns)
    }

    /// What the ledger would be, without storing it: for a dry run.
    ///
    /// # Errors
    ///
    /// Fails when the ledger cannot be read.
    pub async fn preview(
        &self,
        looks: &[(String, Reading)],
        hearings: Vec<(usize, String, SourceObservation)>,
    ) -> Result<(Ledger, Conditions), StoreError> {
        let now = clock::now();
        let mut heard = self.observations.lock().await;
        for (source, name, observation) in hearings {
            heard.record(source, &name, observation);
        }
        let found = self.store.read().await?;
        let ledger = self.reconcile(&found, now).map_err(|error| self.store.irreconcilable(error))?;
        let ledger = self.judge(&ledger, looks, now);
        for (place, _) in looks {
            self.target_read(place);
        }
        Ok(self.decide(&ledger, &heard, now))
    }

    /// Reads the ledger anew and shows it: another process may have written it, and what that removed must
    /// not come back from our memory.
    ///
    /// # Errors
    ///
    /// Fails when the ledger cannot be read; what is shown stays.
    pub async fn refresh(&self) -> Result<Arc<Ledger>, StoreError> {
        self.change(Ledger::clone).await
    }

    /// Takes in that a place was written from change `sequence` of the ledger, which is read anew first.
    ///
    /// # Errors
    ///
    /// Fails when the ledger cannot be read or stored: then the place must be left as it is.
    pub async fn observe_ledger_revision(
        &self,
        place: &str,
        sequence: u64,
    ) -> Result<Arc<Ledger>, StoreError> {
        let (now, wait) = (clock::now(), self.spec.retention.wait());
        self.target_read(place);
        self.change(|ledger| ledger.observe_revision(place, sequence, now, wait)).await
    }

    /// Takes in what places say of the ledger, before anything is decided.
    ///
    /// # Errors
    ///
    /// Fails when the ledger cannot be read or stored.
    pub async fn observe_ledger_revisions(&self, looks: &[(String, Reading)]) -> Result<(), StoreError> {
        let now = clock::now();
        for (place, reading) in looks {
            if reading.found.is_something() {
                self.was_published.store(true, Ordering::Relaxed);
            }
            self.target_read(place);
        }
        self.change(|ledger| self.judge(ledger, looks, now)).await?;
        Ok(())
    }

    fn judge(&self, ledger: &Ledger, looks: &[(String, Reading)], now: Timestamp) -> Ledger {
        let wait = self.spec.retention.wait();
        looks.iter().fold(ledger.clone(), |ledger, (place, reading)| match reading.later_than(&ledger) {
            Some(sequence) => ledger.observe_revision(place, sequence, now, wait),
            None => ledger,
        })
    }

    /// Notes that a place was looked at, whatever it holds.
    pub fn target_read(&self, place: &str) {
        self.unread_targets.send_if_modified(|unseen| unseen.remove(place));
    }

    /// Resolves once every place was looked at. A ledger that came from a backup goes on from there: once it
    /// has caught up with what the places were written from, they tell no more.
    pub async fn all_targets_read(&self) {
        if self.spec.signs || self.ledger.borrow().sequence() > 0 {
            let all = self.unread_targets.subscribe().wait_for(BTreeSet::is_empty).await.is_ok();
            debug_assert!(all, "the sender is this keeper's own");
        }
    }

    /// Records what a place was seen to show, the keys that only it knows, and how long relying parties may keep
    /// what it gives them.
    ///
    /// # Errors
    ///
    /// Fails when the ledger cannot be stored.
    pub async fn observe_target(
        &self,
        place: &str,
        look: &TargetObservation,
        strangers: &[Jwk],
        kept: Option<Freshness>,
    ) -> Result<(), StoreError> {
        let now = clock::now();
        let mut heard = self.observations.lock().await;
        heard.set_cache_lifetime(place, kept);
        let trusted = heard.trusted(now, self.spec.retention.margin);
        let decide = |ledger: &Ledger| {
            let met = ledger.observe_unmanaged(place, strangers, now);
            self.rotate(met.observe_target(place, look, trusted), &heard, now)
        };
        let _ = self.publish(self.update(now, decide).await?);
        heard.observe_target(place, look, trusted.is_some());
        Ok(())
    }

    /// Takes the operator's word that these strangers belong to this issuer.
    ///
    /// # Errors
    ///
    /// Fails when the ledger cannot be stored.
    pub async fn adopt(&self, place: &str, strangers: &[Jwk]) -> Result<(), StoreError> {
        let now = clock::now();
        self.change(|ledger| {
            let met = ledger.observe_unmanaged(place, strangers, now);
            strangers.iter().fold(met, |ledger, stranger| {
                // One that is public by now needs no adoption.
                ledger.adopt(stranger.kid(), now).unwrap_or(ledger)
            })
        })
        .await?;
        Ok(())
    }

    async fn change(&self, mut decide: impl FnMut(&Ledger) -> Ledger) -> Result<Arc<Ledger>, StoreError> {
        let heard = self.observations.lock().await;
        let now = clock::now();
        let _ = self.publish(self.update(now, |ledger| self.rotate(decide(ledger), &heard, now)).await?);
        Ok(Arc::clone(&self.ledger.borrow()))
    }

    /// Stores what `decide` makes of the ledger. What is found is brought together with what is known first:
    /// callers hold the lock, else what one of them has just stored looks older to the other.
    async fn update(
        &self,
        now: Timestamp,
        mut decide: impl FnMut(&Ledger) -> Ledger,
    ) -> Result<Arc<Ledger>, StoreError> {
        let stored = self.store.update(|found| Ok(decide(&self.reconcile(found, now)?))).await;
        let issuer = &self.spec.terms.issuer;
        self.board.issuer(issuer, |status| {
            status.ledger.up = stored.is_ok();
            if stored.is_ok() {
                status.ledger.error = None;
            } else {
                status.ledger.failures += 1;
            }
        });
        let mut unstored = self.store_trouble.lock().expect("nobody panics while holding it");
        if let Some(failures) = stored.as_ref().ok().and_then(|_| unstored.over()) {
            info!(%issuer, failures, "ledger is stored again");
        }
        stored
    }

    fn reconcile(&self, found: &StoredLedger, now: Timestamp) -> Result<Ledger, Irreconcilable> {
        self.initial_sequence.get_or_init(|| match found {
            StoredLedger::Ledger(ledger) | StoredLedger::Previous(ledger) => ledger.sequence(),
            StoredLedger::Nothing | StoredLedger::Damaged(_) => 0,
        });
        self.ledger.borrow().reconcile(found, now, self.spec.retention.wait())
    }

    fn decide(&self, before: &Ledger, heard: &SourceObservations, now: Timestamp) -> (Ledger, Conditions) {
        // A clock that disagrees with everybody else's must not end a retention.
        let retention = &self.spec.retention;
        let trusted = heard.trusted(now, retention.margin);
        let before =
            &trusted.map_or_else(|| before.clone(), |now| before.without_times_ahead(now, retention));
        let mut merged = merge(before, heard.reports());
        // Who cannot ask every witness holds for a retention by itself.
        let wait = signed(retention.wait());
        merged.may_remove =
            self.unread_targets.borrow().is_empty() || now.duration_since(self.started_at) >= wait;
        merged.complete &= trusted.is_some();
        merged.is_beginning =
            self.unread_targets.borrow().is_empty() && !self.was_published.load(Ordering::Relaxed);
        let observed = before.observe(&merged, now, &self.spec.retention);
        let ledger = if self.spec.serves {
            let look = TargetObservation::of_own_listener(self.kids_served(&observed.ledger));
            observed.ledger.observe_target(LISTENER_TARGET, &look, trusted)
        } else {
            observed.ledger
        };
        let ledger = self.rotate(heard.date(ledger, trusted), heard, now);
        let mut concerns = Conditions {
            ledger: ledger.alarm(now),
            conflicts: merged.conflicts,
            mistrusted: merged.rejected,
            refused: observed.refused,
            breaks: self.breaks(&ledger),
            nothing_to_publish: None,
        };
        // A ledger begins with the first key that some place may be given.
        if before.sequence() == 0 && !self.has_publishable_keys(&ledger) {
            let known = !ledger.entries().is_empty();
            concerns.nothing_to_publish = self.render(&ledger).err().filter(|_| known);
            return (before.clone(), concerns);
        }
        (ledger, concerns)
    }

    /// Whom the keys break in a place that is given all of them.
    fn breaks(&self, ledger: &Ledger) -> Option<&'static str> {
        let mixes = self.spec.retention.profiles.contains(&Profile::All);
        JwkSet::new(ledger.public_keys().cloned()).ok().filter(|_| mixes)?.breaks()
    }

    fn kids_served(&self, ledger: &Ledger) -> BTreeSet<Kid> {
        let served = ledger.public_keys().filter(|key| self.spec.profile.includes(key));
        served.map(|key| key.kid().clone()).collect()
    }

    fn has_publishable_keys(&self, ledger: &Ledger) -> bool {
        let profiles = &self.spec.retention.profiles;
        ledger.public_keys().any(|key| profiles.iter().any(|profile| profile.includes(key)))
    }

    fn render(&self, ledger: &Ledger) -> Result<Publication, NothingToPublish> {
        Publication::render(&self.spec.terms, self.spec.profile, ledger.public_keys().cloned())
    }

    /// Says whom the algorithms of a publication break, before it is shown: a token of a new one comes at least a
    /// propagation later.
    fn warn_of_algorithms(&self, before: Option<&Publication>, publication: &Publication) {
        let issuer = &self.spec.terms.issuer;
        let before = before.map(Publication::keys);
        if let Some(breaks) =
            publication.keys().breaks().filter(|_| before.and_then(JwkSet::breaks).is_none())
        {
            warn!(%issuer, breaks, "keys of several types are published together");
        }
        let algorithms = before.map(JwkSet::algorithms).unwrap_or_default();
        if let Some(breaks) = change_breaks(&algorithms, &publication.keys().algorithms()) {
            warn!(%issuer, breaks, "keys of another algorithm are published");
        }
    }

    /// Shows a stored ledger; returns why nothing can be published, if that is so.
    fn publish(&self, ledger: Arc<Ledger>) -> Option<NothingToPublish> {
        self.board.ledger(Arc::clone(&ledger), self.spec.profile);
        // Before any key was heard of, the failures of the sources say why.
        let known = !ledger.entries().is_empty();
        let rendered = self.render(&ledger);
        let nothing = rendered.as_ref().err().cloned();
        if let Ok(publication) = rendered {
            self.publication.send_if_modified(|shown| {
                let changed = shown.as_deref() != Some(&publication);
                if changed {
                    self.warn_of_algorithms(shown.as_deref(), &publication);
                    *shown = Some(Arc::new(publication));
                }
                changed
            });
        }
        let ready = self.publication.borrow().is_some();
        self.board.issuer(&self.spec.terms.issuer, |status| {
            status.ready = ready;
            status.previous_issuers = self.spec.former.iter().map(ToString::to_string).collect();
        });
        self.ledger.send_if_modified(|shown| {
            let before = std::mem::replace(shown, ledger);
            let is_history = self.initial_sequence.get().is_none_or(|history| shown.sequence() <= *history);
            let is_new = |at: Timestamp| !is_history && at >= self.started_at;
            for change in shown.changes_since(&before).iter().filter(|change| is_new(change.at)) {
                log_change(shown, change);
            }
            for incident in shown.incidents_since(&before).iter().filter(|incident| is_new(incident.at)) {
                warn!(issuer = %shown.issuer(), what = %incident.kind, "ledger");
            }
            // A revoked key may be one that only a target shows.
            !before.public_keys().eq(shown.public_keys())
                || !before.revoked().eq(shown.revoked())
                || before.orders() != shown.orders()
        });
        nothing.filter(|_| known && !ready)
    }
}

/// Logs what happened to a key.
fn log_change(ledger: &Ledger, Change { kid, kind: event, .. }: &Change) {
    let (issuer, event_name) = (ledger.issuer(), event.name());
    if *event == ChangeKind::UnmanagedKeyFound {
        let shown = ledger.unmanaged_keys().get(kid).into_iter().flat_map(|stranger| stranger.shown.keys());
        let targets = shown.map(String::as_str).collect::<Vec<_>>().join(" ");
        let hint = format!(
            "if it is yours: `signpost ledger adopt -- {kid}`; otherwise remove the write permission there, \
             then `signpost rotate revoke -- {kid}`"
        );
        warn!(%issuer, %kid, targets, hint, "a target has an unmanaged key: anyone with its private key can \
            impersonate your workloads");
    } else {
        info!(%issuer, %kid, event = event_name, "key");
    }
}
