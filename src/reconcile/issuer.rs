//! The reconciler of one issuer: applies source observations, stores the ledger, then publishes.
//!
//! The ledger is stored before anything derived from it becomes visible, so a process that dies in between
//! has published nothing that it would forget.

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
    telemetry::{FailureLog, status::StatusStore},
};

mod conditions;
mod observations;
mod rotation;
mod start_report;

pub use self::{conditions::Conditions, observations::Endpoints, rotation::RotationRequestError};
use self::{observations::SourceObservations, start_report::StartReport};

/// The name of the HTTP listener as a target in the ledger.
const LISTENER_TARGET: &str = "http";

/// The specification of an issuer; constant while the process runs.
#[derive(Clone, Debug)]
pub struct IssuerSpec {
    pub terms: Terms,
    /// The previous issuers that were moved to this one.
    pub previous_issuers: Vec<Issuer>,
    /// The profile of the served documents.
    pub profile: Profile,
    pub retention: Retention,
    /// The names of all targets. Each is read once before a key is removed: it may carry a later ledger
    /// revision.
    pub targets: BTreeSet<String>,
    /// The targets that must show a key before it signs.
    pub required_targets: BTreeSet<String>,
    /// The waits of a rotation.
    pub timing: Timing,
    /// Whether this process serves the documents: then its listener is a target too.
    pub serves_documents: bool,
    /// Whether keys come from signing nodes: those of a new issuer need no propagation wait if nothing was
    /// published.
    pub has_signers: bool,
    /// Whether the ledger is stored: not in a dry run.
    pub persists_ledger: bool,
}

/// Reconciles one issuer.
pub struct IssuerReconciler {
    spec: IssuerSpec,
    store: LedgerStore,
    status: StatusStore,
    observations: Mutex<SourceObservations>,
    /// The ledger as last read or stored; the next one that is found is compared with it.
    ledger: watch::Sender<Arc<Ledger>>,
    /// The targets that were not read since the start.
    unread_targets: watch::Sender<BTreeSet<String>>,
    /// Changes from before are history, and not logged again.
    started_at: Timestamp,
    /// The sequence of the ledger when it was first read: timestamps are whole seconds, so a change in the
    /// second of the start may be history too.
    initial_sequence: OnceLock<u64>,
    publication: watch::Sender<Option<Arc<Publication>>>,
    /// Whether some target was found to hold a document.
    was_published: AtomicBool,
    /// The last logged reason why the ledger cannot be stored.
    store_trouble: std::sync::Mutex<FailureLog>,
    start_report: std::sync::Mutex<StartReport>,
    /// Wakes the target loops.
    recheck: watch::Sender<()>,
}

/// The observation of one source.
pub struct SourceObservation {
    pub answer: SourceAnswer,
    /// The current time by the source's clock.
    pub server_time: Option<Timestamp>,
    /// Warnings, in words.
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
    /// Opens the reconciler with the state of the last run. Call [`IssuerReconciler::begin`] next.
    ///
    /// # Errors
    ///
    /// Fails if that state cannot be read, or if it belongs to another issuer.
    pub async fn open(
        charter: IssuerSpec,
        sources: impl IntoIterator<Item = Endpoints>,
        store: LedgerStore,
        board: StatusStore,
    ) -> Result<Self, StoreError> {
        let known = store.read_last_known().await?;
        let heard = SourceObservations::new(sources);
        let opening = std::sync::Mutex::new(StartReport::new(heard.len(), charter.targets.clone()));
        let reconciler = Self {
            ledger: watch::Sender::new(Arc::clone(&known)),
            unread_targets: watch::Sender::new(charter.targets.clone()),
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
            status: board,
        };
        // An empty ledger is no problem yet: no source was polled.
        let _ = reconciler.publish(known);
        Ok(reconciler)
    }

    /// Reads the ledger and publishes it before any source is polled; not in a dry run. A service starts
    /// without it while the store is unreachable.
    ///
    /// # Errors
    ///
    /// Fails if there is a ledger and it cannot be used.
    pub async fn begin(&self) -> Result<(), StoreError> {
        if self.spec.persists_ledger {
            match self.refresh().await {
                Err(error) if self.spec.serves_documents && error.is_transient() => {
                    self.log_store_error(&error);
                }
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
    pub fn status(&self) -> &StatusStore {
        &self.status
    }

    /// The stored ledger; a change of public keys, revocations or orders wakes the receiver.
    #[must_use]
    pub fn ledger(&self) -> watch::Receiver<Arc<Ledger>> {
        self.ledger.subscribe()
    }

    /// Requests a read of every target now: relying parties seem to get something else.
    pub fn request_recheck(&self) {
        self.recheck.send_replace(());
    }

    /// Wakes for each [`IssuerReconciler::request_recheck`].
    #[must_use]
    pub fn recheck_requests(&self) -> watch::Receiver<()> {
        self.recheck.subscribe()
    }

    /// The publication to serve; `None` until a key is known.
    #[must_use]
    pub fn publication(&self) -> watch::Receiver<Option<Arc<Publication>>> {
        self.publication.subscribe()
    }

    /// Sets the endpoints of a source, which is named by its index in the configuration. Observations of
    /// other endpoints no longer count; the result is stored with the next observation.
    pub async fn set_endpoints(&self, source: usize, endpoints: &Endpoints) {
        let mut heard = self.observations.lock().await;
        for gone in heard.expect(source, endpoints) {
            self.status.forget_source(&self.spec.terms.issuer, &gone);
        }
    }

    /// Applies the observation of one endpoint of a source, stores the result and publishes it. Observations
    /// of unknown endpoints are ignored.
    ///
    /// # Errors
    ///
    /// Fails if the ledger cannot be stored; the publication stays.
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
    /// Fails if the ledger cannot be read.
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
        let ledger = self.apply_revisions(&ledger, looks, now);
        for (place, _) in looks {
            self.target_read(place);
        }
        Ok(self.decide(&ledger, &heard, now))
    }

    /// Reads the ledger again and publishes it: another process may have written it, and what that has
    /// removed must not return from memory.
    ///
    /// # Errors
    ///
    /// Fails if the ledger cannot be read; the publication stays.
    pub async fn refresh(&self) -> Result<Arc<Ledger>, StoreError> {
        self.change(Ledger::clone).await
    }

    /// Records that a target was written from change `sequence` of the ledger, after reading the stored
    /// ledger again.
    ///
    /// # Errors
    ///
    /// Fails if the ledger cannot be read or stored: then the target must not be changed.
    pub async fn observe_ledger_revision(
        &self,
        place: &str,
        sequence: u64,
    ) -> Result<Arc<Ledger>, StoreError> {
        let (now, wait) = (clock::now(), self.spec.retention.wait());
        self.target_read(place);
        self.change(|ledger| ledger.observe_revision(place, sequence, now, wait)).await
    }

    /// Records the ledger revisions of targets, before anything is decided.
    ///
    /// # Errors
    ///
    /// Fails if the ledger cannot be read or stored.
    pub async fn observe_ledger_revisions(&self, looks: &[(String, Reading)]) -> Result<(), StoreError> {
        let now = clock::now();
        for (place, reading) in looks {
            if reading.found.has_documents() {
                self.was_published.store(true, Ordering::Relaxed);
            }
            self.target_read(place);
        }
        self.change(|ledger| self.apply_revisions(ledger, looks, now)).await?;
        Ok(())
    }

    fn apply_revisions(&self, ledger: &Ledger, looks: &[(String, Reading)], now: Timestamp) -> Ledger {
        let wait = self.spec.retention.wait();
        looks.iter().fold(ledger.clone(), |ledger, (place, reading)| match reading.newer_sequence(&ledger) {
            Some(sequence) => ledger.observe_revision(place, sequence, now, wait),
            None => ledger,
        })
    }

    /// Records that a target was read, whatever it holds.
    pub fn target_read(&self, place: &str) {
        self.unread_targets.send_if_modified(|unseen| unseen.remove(place));
    }

    /// Resolves once every target was read. A ledger restored from a backup continues from there: once it has
    /// reached the sequence that the targets were written from, they no longer reveal it.
    pub async fn all_targets_read(&self) {
        if self.spec.has_signers || self.ledger.borrow().sequence() > 0 {
            let all = self.unread_targets.subscribe().wait_for(BTreeSet::is_empty).await.is_ok();
            debug_assert!(all, "the sender is this keeper's own");
        }
    }

    /// Records the keys that a target shows, its unmanaged keys, and how long relying parties may cache its
    /// JWKS.
    ///
    /// # Errors
    ///
    /// Fails if the ledger cannot be stored.
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

    /// Adopts these unmanaged keys by the operator's command.
    ///
    /// # Errors
    ///
    /// Fails if the ledger cannot be stored.
    pub async fn adopt(&self, place: &str, strangers: &[Jwk]) -> Result<(), StoreError> {
        let now = clock::now();
        self.change(|ledger| {
            let met = ledger.observe_unmanaged(place, strangers, now);
            strangers.iter().fold(met, |ledger, stranger| {
                // A key that is public by now needs no adoption.
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

    /// Stores the ledger that `decide` returns, after reconciling the stored ledger with the known one.
    /// Callers hold the lock: otherwise what one of them has just stored looks older to the other.
    async fn update(
        &self,
        now: Timestamp,
        mut decide: impl FnMut(&Ledger) -> Ledger,
    ) -> Result<Arc<Ledger>, StoreError> {
        let stored = self.store.update(|found| Ok(decide(&self.reconcile(found, now)?))).await;
        let issuer = &self.spec.terms.issuer;
        self.status.issuer(issuer, |status| {
            status.ledger.up = stored.is_ok();
            if stored.is_ok() {
                status.ledger.error = None;
            } else {
                status.ledger.failures += 1;
            }
        });
        let mut unstored = self.store_trouble.lock().expect("nobody panics while holding it");
        if let Some(failures) = stored.as_ref().ok().and_then(|_| unstored.record_success()) {
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
        // A clock that disagrees with the others must not end a retention.
        let retention = &self.spec.retention;
        let trusted = heard.trusted(now, retention.margin);
        let before =
            &trusted.map_or_else(|| before.clone(), |now| before.without_times_ahead(now, retention));
        let mut merged = merge(before, heard.reports());
        // If not every target can be read, removals wait for one retention.
        let wait = signed(retention.wait());
        merged.may_remove =
            self.unread_targets.borrow().is_empty() || now.duration_since(self.started_at) >= wait;
        merged.complete &= trusted.is_some();
        merged.is_beginning =
            self.unread_targets.borrow().is_empty() && !self.was_published.load(Ordering::Relaxed);
        let observed = before.observe(&merged, now, &self.spec.retention);
        let ledger = if self.spec.serves_documents {
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
        // A ledger begins with the first key that can be published to a target.
        if before.sequence() == 0 && !self.has_publishable_keys(&ledger) {
            let known = !ledger.entries().is_empty();
            concerns.nothing_to_publish = self.render(&ledger).err().filter(|_| known);
            return (before.clone(), concerns);
        }
        (ledger, concerns)
    }

    /// Which relying parties the keys break in a target that gets all of them.
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

    /// Warns which relying parties the algorithms of a publication break, before it is published: tokens of a
    /// new algorithm follow at least one propagation time later.
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

    /// Publishes a stored ledger; returns why nothing can be published, if so.
    fn publish(&self, ledger: Arc<Ledger>) -> Option<NothingToPublish> {
        self.status.ledger(Arc::clone(&ledger), self.spec.profile);
        // Before the first key is known, the failures of the sources give the reason.
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
        self.status.issuer(&self.spec.terms.issuer, |status| {
            status.ready = ready;
            status.previous_issuers = self.spec.previous_issuers.iter().map(ToString::to_string).collect();
        });
        self.ledger.send_if_modified(|shown| {
            let before = std::mem::replace(shown, ledger);
            let is_history = self.initial_sequence.get().is_none_or(|history| shown.sequence() <= *history);
            let is_new = |at: Timestamp| !is_history && at >= self.started_at;
            for change in shown.changes_since(&before).iter().filter(|change| is_new(change.at)) {
                log_change(shown, change);
            }
            for incident in shown.incidents_since(&before).iter().filter(|incident| is_new(incident.at)) {
                warn!(issuer = %shown.issuer(), what = %incident.kind, "ledger incident");
            }
            // A revoked key may be one that only a target shows.
            !before.public_keys().eq(shown.public_keys())
                || !before.revoked().eq(shown.revoked())
                || before.orders() != shown.orders()
        });
        nothing.filter(|_| known && !ready)
    }
}

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
        info!(%issuer, %kid, event = event_name, "key changed");
    }
}
