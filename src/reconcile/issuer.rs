//! The reconciler of one issuer: applies source observations, stores the ledger, then publishes.
//!
//! The ledger is stored before anything derived from it becomes visible, so a process that dies in between
//! has published nothing that it would forget.

use std::{
    collections::BTreeSet,
    sync::{Arc, OnceLock},
};

use jiff::Timestamp;
use tokio::sync::{Mutex, watch};
use tracing::{error, info, warn};

use crate::{
    clock,
    core::{
        jose::{
            jwk_set::{JwkSet, change_breaks},
            kid::Kid,
            publication::{NothingToPublish, Publication},
        },
        ledger::{Change, ChangeKind, Irreconcilable, Ledger, StoredLedger, signed},
        rotation::{RotationStatus, SigningKey, alarms, rotation_status, signing_key},
        text::{Hint, redaction::error_line},
    },
    store::{LedgerStore, StoreError},
    target::Reading,
    telemetry::{FailureLog, as_typed, status::StatusStore},
};

mod conditions;
mod decision;
mod observations;
mod spec;
mod start_report;

use self::{
    conditions::AlarmLog, decision::Situation, observations::Observations, start_report::StartReport,
};
pub use self::{
    conditions::Conditions,
    decision::Outcome,
    observations::{Endpoints, Observation, SourceObservation},
    spec::IssuerSpec,
};

/// Reconciles one issuer.
pub struct IssuerReconciler {
    spec: IssuerSpec,
    store: LedgerStore,
    status: StatusStore,
    /// Held while an observation is decided and stored: otherwise what one has just stored looks older to
    /// another.
    observations: Mutex<Observations>,
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
    /// The last logged reason why the ledger cannot be stored.
    store_trouble: std::sync::Mutex<FailureLog>,
    alarms: std::sync::Mutex<AlarmLog>,
    start_report: std::sync::Mutex<StartReport>,
    /// Wakes the target loops.
    recheck: watch::Sender<()>,
}

impl IssuerReconciler {
    /// Opens the reconciler with the state of the last run. Call [`IssuerReconciler::begin`] next.
    ///
    /// # Errors
    ///
    /// Fails if that state cannot be read, or if it belongs to another issuer.
    pub async fn open(
        spec: IssuerSpec,
        sources: impl IntoIterator<Item = Endpoints>,
        store: LedgerStore,
        status: StatusStore,
    ) -> Result<Self, StoreError> {
        let known = store.read_last_known().await?;
        let observations = Observations::new(sources);
        let start_report = StartReport::new(observations.len(), spec.targets.clone());
        let reconciler = Self {
            ledger: watch::Sender::new(Arc::clone(&known)),
            unread_targets: watch::Sender::new(spec.targets.clone()),
            started_at: clock::now(),
            initial_sequence: OnceLock::new(),
            publication: watch::Sender::new(None),
            observations: Mutex::new(observations),
            store_trouble: std::sync::Mutex::default(),
            alarms: std::sync::Mutex::default(),
            start_report: std::sync::Mutex::new(start_report),
            recheck: watch::Sender::new(()),
            spec,
            store,
            status,
        };
        // An empty ledger is no problem yet: no source was polled.
        let _ = reconciler.publish(known);
        Ok(reconciler)
    }

    /// Reads the ledger and publishes it before any source is polled. A service starts without it while the
    /// store is unreachable.
    ///
    /// # Errors
    ///
    /// Fails if there is a ledger and it cannot be used.
    pub async fn begin(&self) -> Result<(), StoreError> {
        match self.observe(Observation::Ledger).await {
            Err(error) if self.spec.serves_documents && error.is_transient() => {
                self.log_store_error(&error);
                Ok(())
            }
            other => other.map(drop),
        }
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
        let mut observations = self.observations.lock().await;
        for gone in observations.set_endpoints(source, endpoints) {
            self.status.forget_source(&self.spec.terms.issuer, &gone);
        }
    }

    /// Applies an observation: reads the ledger, decides, stores the ledger if it has changed, and publishes
    /// it.
    ///
    /// # Errors
    ///
    /// Fails if the ledger cannot be read or stored; the publication stays.
    pub async fn observe(&self, observation: Observation<'_>) -> Result<Outcome, StoreError> {
        let mut observations = self.observations.lock().await;
        observations.record(observation);
        match observation {
            Observation::Readings(readings) => {
                for (target, _) in readings {
                    self.target_read(target);
                }
            }
            Observation::LaterRevision { target, .. } => self.target_read(target),
            _ => {}
        }
        let situation = self.situation(&observations);
        let decide =
            |found: &StoredLedger| Ok(situation.decide(&self.reconcile(found, situation.now)?, observation));
        let stored = self.store.update(decide).await;
        self.record_stored(stored.as_ref().err());
        let (ledger, mut outcome) = stored?;
        let nothing = self.publish(ledger);
        if let Observation::Source { .. } = observation {
            let conditions = &mut outcome.conditions;
            conditions.nothing_to_publish = conditions.nothing_to_publish.take().or(nothing);
            self.update_alarms(&situation, conditions);
        }
        let is_dated = situation.trusted.is_some();
        observations.stored(observation, is_dated);
        Ok(outcome)
    }

    /// Applies an observation; logs that the ledger could not be stored, once for each reason.
    pub async fn observe_or_log(&self, observation: Observation<'_>) {
        if let Err(error) = self.observe(observation).await {
            self.log_store_error(&error);
        }
    }

    /// What the ledger would be, without storing it: for a dry run.
    ///
    /// # Errors
    ///
    /// Fails if the ledger cannot be read.
    pub async fn preview(
        &self,
        readings: &[(String, Reading)],
        sources: impl Iterator<Item = Observation<'_>>,
    ) -> Result<(Ledger, Conditions), StoreError> {
        let mut observations = self.observations.lock().await;
        sources.for_each(|observation| observations.record(observation));
        for (target, _) in readings {
            self.target_read(target);
        }
        let (situation, found) = (self.situation(&observations), self.store.read().await?);
        let ledger =
            self.reconcile(&found, situation.now).map_err(|error| self.store.irreconcilable(error))?;
        Ok(situation.observe_sources(&situation.observe_revisions(&ledger, readings)))
    }

    /// Records that a target was read, whatever it holds.
    pub fn target_read(&self, target: &str) {
        self.unread_targets.send_if_modified(|unread| unread.remove(target));
    }

    /// Resolves once every target was read. A ledger restored from a backup continues from there: once it has
    /// reached the sequence that the targets were written from, they no longer reveal it.
    pub async fn all_targets_read(&self) {
        if self.spec.has_signers || self.ledger.borrow().sequence() > 0 {
            let all = self.unread_targets.subscribe().wait_for(BTreeSet::is_empty).await.is_ok();
            debug_assert!(all, "the sender is this reconciler's own");
        }
    }

    /// Records that an endpoint of a source was polled, with any result.
    pub(super) fn source_polled(&self, source: usize) {
        let mut report = lock(&self.start_report);
        report.sources.remove(&source);
        report.log_once(&self.spec.terms.issuer, &self.status);
    }

    /// Records an attempt to sync a target, with any result.
    pub(super) fn target_synced(&self, target: &str) {
        let mut report = lock(&self.start_report);
        report.targets.remove(target);
        report.log_once(&self.spec.terms.issuer, &self.status);
    }

    /// The state of every key and the plan of each node.
    pub async fn rotation_status(&self) -> RotationStatus {
        let observations = self.observations.lock().await;
        let (situation, ledger) = (self.situation(&observations), Arc::clone(&self.ledger.borrow()));
        rotation_status(&ledger, &situation.rotation_inputs(&ledger), situation.now, &self.spec.timing)
    }

    /// How far a key is known that an API server was observed to sign with.
    #[must_use]
    pub fn signing_key(&self, kid: &Kid) -> SigningKey {
        let shown = self.publication.borrow().clone();
        let is_public = shown.is_some_and(|shown| shown.keys().contains(kid));
        let (ledger, targets) = (self.ledger.borrow(), self.spec.all_required_targets());
        signing_key(&ledger, kid, is_public, &targets, clock::now(), &self.spec.timing)
    }

    fn situation<'a>(&'a self, observations: &'a Observations) -> Situation<'a> {
        let (now, retention) = (clock::now(), &self.spec.retention);
        Situation {
            spec: &self.spec,
            observations,
            now,
            trusted: observations.trusted(now, retention.margin),
            all_targets_read: self.unread_targets.borrow().is_empty(),
            has_waited: now.duration_since(self.started_at) >= signed(retention.wait()),
        }
    }

    fn reconcile(&self, found: &StoredLedger, now: Timestamp) -> Result<Ledger, Irreconcilable> {
        self.initial_sequence.get_or_init(|| match found {
            StoredLedger::Ledger(ledger) | StoredLedger::Previous(ledger) => ledger.sequence(),
            StoredLedger::Nothing | StoredLedger::Damaged(_) => 0,
        });
        self.ledger.borrow().reconcile(found, now, self.spec.retention.wait())
    }

    fn record_stored(&self, error: Option<&StoreError>) {
        let issuer = &self.spec.terms.issuer;
        self.status.issuer(issuer, |status| {
            status.ledger.up = error.is_none();
            status.ledger.error = error.map(|error| error_line(error));
            status.ledger.failures += u64::from(error.is_some());
        });
        if error.is_none()
            && let Some(failures) = lock(&self.store_trouble).record_success()
        {
            info!(%issuer, failures, "ledger is stored again");
        }
    }

    fn log_store_error(&self, error: &StoreError) {
        let issuer = &self.spec.terms.issuer;
        let (hint, error) = (error.hint().map(|hint| as_typed(&hint)), error_line(error));
        if lock(&self.store_trouble).record_failure(&error) {
            error!(%issuer, error, hint, "ledger not stored, the publication is unchanged");
        }
    }

    /// Updates the rotation and the alarms in the status, and logs alarms that begin and end.
    fn update_alarms(&self, situation: &Situation<'_>, conditions: &Conditions) {
        let (issuer, ledger) = (&self.spec.terms.issuer, Arc::clone(&self.ledger.borrow()));
        let mut wrong = conditions.alarms(&ledger);
        let disagreeing = situation.observations.disagreeing(situation.now, self.spec.retention.margin);
        wrong.extend(
            disagreeing.map(|name| format!("the clocks of this machine and of source `{name}` disagree")),
        );
        let mut rotation = Vec::new();
        // Most issuers have no signing node.
        if ledger.entries().values().any(|entry| entry.signer.is_some()) {
            let (now, inputs, timing) =
                (situation.now, situation.rotation_inputs(&ledger), &self.spec.timing);
            let nodes = rotation_status(&ledger, &inputs, now, timing).nodes;
            self.status.issuer(issuer, |status| status.nodes = nodes);
            rotation = alarms(&ledger, &inputs, now, timing);
        }
        let raised = lock(&self.alarms).update(issuer, wrong, rotation);
        self.status.issuer(issuer, |status| status.alarms = raised);
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
        let rendered = self.spec.render(&ledger);
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

fn lock<T>(mutex: &std::sync::Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().expect("nobody panics while holding it")
}

fn log_change(ledger: &Ledger, Change { kid, kind: event, .. }: &Change) {
    let (issuer, event_name) = (ledger.issuer(), event.name());
    if *event == ChangeKind::UnmanagedKeyFound {
        let shown =
            ledger.unmanaged_keys().get(kid).into_iter().flat_map(|unmanaged_key| unmanaged_key.shown.keys());
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
