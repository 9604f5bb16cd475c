//! One reconciliation: observe every source, store the ledger, sync every target.

use std::collections::BTreeSet;

use futures_util::future::join_all;

use super::{
    ConfiguredSource,
    issuer::{Conditions, IssuerReconciler, Observation, SourceObservation},
    source_poll::{PollError, SourcePoller},
    target_sync::{SyncError, SyncResult, TargetReconciler, sync_current},
};
use crate::{
    clock,
    core::{
        jose::{kid::Kid, publication::Document},
        target_plan::shown_kids,
    },
    store::StoreError,
    target::Reading,
};

/// The result of a reconciliation of one issuer.
pub struct SyncReport {
    /// By source and API server, in configured order.
    pub sources: Vec<Polled>,
    pub conditions: Conditions,
    /// In configured order.
    pub targets: Vec<TargetOutcome<SyncResult>>,
    /// The kids of the publication that is or would be served.
    pub kids: Vec<Kid>,
}

/// The answer of an endpoint of a source.
pub struct Polled {
    source: usize,
    pub name: String,
    pub answer: Result<SourceObservation, PollError>,
}

impl Polled {
    fn observed(&self) -> Observation<'_> {
        let Self { source, name, answer } = self;
        Observation::Source { source: *source, endpoint: name, observation: answer.as_ref().ok() }
    }
}

/// The actual or planned result for one target.
pub struct TargetOutcome<T> {
    pub name: String,
    /// Whether it must show a key before the key may sign.
    pub required_for_rotation: bool,
    pub outcome: Result<T, SyncError>,
}

impl<T> TargetOutcome<T> {
    fn new(target_reconciler: &TargetReconciler, outcome: Result<T, SyncError>) -> Self {
        Self {
            name: target_reconciler.name().to_owned(),
            required_for_rotation: target_reconciler.required_for_rotation(),
            outcome,
        }
    }
}

/// What a reconciliation of one issuer would do.
pub struct Plan {
    pub sources: Vec<Polled>,
    pub conditions: Conditions,
    pub targets: Vec<TargetOutcome<Difference>>,
}

/// What would be written to one target.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Difference {
    pub documents: Vec<Document>,
    pub added: Vec<Kid>,
    pub removed: Vec<Kid>,
    /// The unmanaged keys of this target, which stay there.
    pub unmanaged_keys: Vec<Kid>,
    /// The current address of the JWKS, if it will be moved.
    pub moved_from: Option<String>,
}

impl Difference {
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.documents.is_empty()
    }
}

/// Reconciles once. A failing source or target does not stop the others.
///
/// # Errors
///
/// Fails if the ledger cannot be stored: then nothing may be published.
pub async fn sync(
    reconciler: &IssuerReconciler,
    sources: Vec<ConfiguredSource>,
    target_reconcilers: &mut [TargetReconciler],
    adopt: bool,
) -> Result<SyncReport, StoreError> {
    reconciler.observe(Observation::Readings(&read_all(target_reconcilers).await)).await?;
    let sources = poll_all(reconciler, sources).await;
    let mut conditions = Conditions::default();
    for polled in &sources {
        conditions = reconciler.observe(polled.observed()).await?.conditions;
    }
    if adopt {
        adopt_unmanaged(reconciler, target_reconcilers).await?;
    }
    let ledger = reconciler.ledger().borrow().clone();
    let mut targets = Vec::new();
    let ledger = &ledger;
    if ledger.public_keys().next().is_some() {
        let synced = join_all(target_reconcilers.iter_mut().map(async |target_reconciler| {
            let synced = sync_current(target_reconciler, reconciler, ledger).await;
            TargetOutcome::new(target_reconciler, synced)
        }));
        targets = synced.await;
        for target in &targets {
            if let Ok(synced) = &target.outcome {
                reconciler.observe(synced.observed(&target.name)).await?;
            }
        }
    }
    conditions.ledger = reconciler.ledger().borrow().alarm(clock::now());
    let shown = reconciler.publication().borrow().clone();
    let kids = shown.iter().flat_map(|shown| shown.keys().kids().cloned()).collect();
    Ok(SyncReport { sources, conditions, targets, kids })
}

/// Plans what [`sync`] would do, without doing it.
///
/// # Errors
///
/// Fails if the ledger cannot be read.
pub async fn plan(
    reconciler: &IssuerReconciler,
    sources: Vec<ConfiguredSource>,
    target_reconcilers: &mut [TargetReconciler],
) -> Result<Plan, StoreError> {
    let sources = poll_all(reconciler, sources).await;
    let readings = read_all(target_reconcilers).await;
    let observed = sources.iter().map(Polled::observed);
    let (ledger, conditions) = reconciler.preview(&readings, observed).await?;
    let mut targets = Vec::new();
    if ledger.public_keys().next().is_some() {
        let planned = join_all(target_reconcilers.iter().map(async |target_reconciler| {
            let difference = target_reconciler.plan(&ledger).await.map(|(reading, plan)| {
                let before = shown_kids(&reading.found);
                let after: BTreeSet<Kid> = plan.publication.keys().kids().cloned().collect();
                Difference {
                    documents: plan.writes,
                    added: after.difference(&before).cloned().collect(),
                    removed: before.difference(&after).cloned().collect(),
                    unmanaged_keys: plan.unmanaged_keys.iter().map(|key| key.kid().clone()).collect(),
                    moved_from: plan.moved_from,
                }
            });
            TargetOutcome::new(target_reconciler, difference)
        }));
        targets = planned.await;
    }
    Ok(Plan { sources, conditions, targets })
}

/// Reads every target for its ledger revision; the sync that follows reports those that cannot be read.
async fn read_all(target_reconcilers: &mut [TargetReconciler]) -> Vec<(String, Reading)> {
    let looks = target_reconcilers.iter_mut().map(async |target_reconciler| {
        let reading = target_reconciler.read().await.ok()?;
        Some((target_reconciler.name().to_owned(), reading))
    });
    join_all(looks).await.into_iter().flatten().collect()
}

/// Polls the endpoints of all sources concurrently.
async fn poll_all(reconciler: &IssuerReconciler, sources: Vec<ConfiguredSource>) -> Vec<Polled> {
    let polled = join_all(sources.into_iter().enumerate().map(async |(source, configured)| {
        let (endpoints, pollers) = configured.found(&reconciler.spec().terms.issuer).await;
        reconciler.set_endpoints(source, &endpoints).await;
        join_all(pollers.into_iter().map(async |mut poller: SourcePoller| {
            let answer = poller.poll(reconciler).await;
            Polled { source, name: poller.name().to_owned(), answer }
        }))
        .await
    }));
    polled.await.into_iter().flatten().collect()
}

/// The sync that follows reports targets that cannot be read.
async fn adopt_unmanaged(
    reconciler: &IssuerReconciler,
    target_reconcilers: &[TargetReconciler],
) -> Result<(), StoreError> {
    for target_reconciler in target_reconcilers {
        let ledger = reconciler.ledger().borrow().clone();
        if let Ok((_, plan)) = target_reconciler.plan(&ledger).await {
            let (target, unmanaged_keys) = (target_reconciler.name(), plan.unmanaged_keys.as_slice());
            reconciler.observe(Observation::Adopt { target, unmanaged_keys }).await?;
        }
    }
    Ok(())
}
