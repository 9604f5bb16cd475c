//! One pass: hear every source, store the ledger, make every target true.

use std::collections::BTreeSet;

use futures_util::future::join_all;

use super::{
    ConfiguredSource,
    issuer::{Conditions, IssuerReconciler, SourceObservation},
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

/// What a pass came to, for one issuer.
pub struct SyncReport {
    /// By source and API server, in configured order.
    pub sources: Vec<(String, Result<Listed, PollError>)>,
    pub concerns: Conditions,
    /// In configured order.
    pub targets: Vec<TargetOutcome<SyncResult>>,
    /// The kids of the publication that is served or would be.
    pub kids: Vec<Kid>,
}

/// What a source lists.
pub struct Listed {
    /// How many keys.
    pub keys: usize,
    /// What to warn about, in words.
    pub notes: Vec<String>,
}

/// What a pass came or would come to at one target.
pub struct TargetOutcome<T> {
    pub name: String,
    /// Whether a key must be shown there before it may sign.
    pub gates: bool,
    pub outcome: Result<T, SyncError>,
}

impl<T> TargetOutcome<T> {
    fn new(target_reconciler: &TargetReconciler, outcome: Result<T, SyncError>) -> Self {
        Self {
            name: target_reconciler.name().to_owned(),
            gates: target_reconciler.required_for_rotation(),
            outcome,
        }
    }
}

/// What a pass would do, for one issuer.
pub struct Plan {
    pub sources: Vec<(String, Result<Listed, PollError>)>,
    pub concerns: Conditions,
    pub targets: Vec<TargetOutcome<Difference>>,
}

/// What would be written to one target.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Difference {
    pub documents: Vec<Document>,
    pub added: Vec<Kid>,
    pub removed: Vec<Kid>,
    /// The keys that only this target knows, and which stay there.
    pub strangers: Vec<Kid>,
    /// Where readers find the JWKS today, if it is to be somewhere else.
    pub moved_from: Option<String>,
}

impl Difference {
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.documents.is_empty()
    }
}

/// Does everything once. A source or target that fails does not stop the others.
///
/// # Errors
///
/// Fails when the ledger cannot be stored: then nothing may be published.
pub async fn sync(
    reconciler: &IssuerReconciler,
    sources: Vec<ConfiguredSource>,
    target_reconcilers: &mut [TargetReconciler],
    adopt: bool,
) -> Result<SyncReport, StoreError> {
    reconciler.observe_ledger_revisions(&read_all(target_reconcilers).await).await?;
    let mut outcomes = Vec::new();
    let mut concerns = Conditions::default();
    for (source, name, answer) in poll_all(reconciler, sources).await {
        let (observation, outcome) = split(answer);
        concerns = reconciler.observe_source(source, &name, observation).await?;
        outcomes.push((name, outcome));
    }
    if adopt {
        adopt_unmanaged(reconciler, target_reconcilers).await?;
    }
    let ledger = reconciler.ledger().borrow().clone();
    let mut targets = Vec::new();
    let ledger = &ledger;
    if ledger.public_keys().next().is_some() {
        let placed = join_all(target_reconcilers.iter_mut().map(async |target_reconciler| {
            let placed = sync_current(target_reconciler, reconciler, ledger).await;
            TargetOutcome::new(target_reconciler, placed)
        }));
        targets = placed.await;
        for target in &targets {
            if let Ok(placed) = &target.outcome {
                reconciler.observe_target(&target.name, &placed.look, &placed.strangers, placed.kept).await?;
            }
        }
    }
    concerns.ledger = reconciler.ledger().borrow().alarm(clock::now());
    let shown = reconciler.publication().borrow().clone();
    let kids = shown.iter().flat_map(|shown| shown.keys().kids().cloned()).collect();
    Ok(SyncReport { sources: outcomes, concerns, targets, kids })
}

/// Finds out what [`sync`] would do, and does none of it.
///
/// # Errors
///
/// Fails when the ledger cannot be read.
pub async fn plan(
    reconciler: &IssuerReconciler,
    sources: Vec<ConfiguredSource>,
    target_reconcilers: &mut [TargetReconciler],
) -> Result<Plan, StoreError> {
    let mut outcomes = Vec::new();
    let mut hearings = Vec::new();
    for (source, name, answer) in poll_all(reconciler, sources).await {
        let (observation, outcome) = split(answer);
        hearings.push((source, name.clone(), observation));
        outcomes.push((name, outcome));
    }
    let (ledger, concerns) = reconciler.preview(&read_all(target_reconcilers).await, hearings).await?;
    let mut targets = Vec::new();
    if ledger.public_keys().next().is_some() {
        let planned = join_all(target_reconcilers.iter().map(async |target_reconciler| {
            let difference = target_reconciler.plan(&ledger).await.map(|(reading, placement)| {
                let before = shown_kids(&reading.found);
                let after: BTreeSet<Kid> = placement.publication.keys().kids().cloned().collect();
                Difference {
                    documents: placement.writes,
                    added: after.difference(&before).cloned().collect(),
                    removed: before.difference(&after).cloned().collect(),
                    strangers: placement.strangers.iter().map(|key| key.kid().clone()).collect(),
                    moved_from: placement.moved_from,
                }
            });
            TargetOutcome::new(target_reconciler, difference)
        }));
        targets = planned.await;
    }
    Ok(Plan { sources: outcomes, concerns, targets })
}

/// What each target says of the ledger that it was written from; one that cannot be read is left to the pass
/// that follows, which reports it.
async fn read_all(target_reconcilers: &mut [TargetReconciler]) -> Vec<(String, Reading)> {
    let looks = target_reconcilers.iter_mut().map(async |target_reconciler| {
        let reading = target_reconciler.read().await.ok()?;
        Some((target_reconciler.name().to_owned(), reading))
    });
    join_all(looks).await.into_iter().flatten().collect()
}

/// Asks whoever speaks for the sources, all at once.
async fn poll_all(
    reconciler: &IssuerReconciler,
    sources: Vec<ConfiguredSource>,
) -> Vec<(usize, String, Result<SourceObservation, PollError>)> {
    let asked = join_all(sources.into_iter().enumerate().map(async |(source, watched)| {
        let (endpoints, asked) = watched.found(&reconciler.spec().terms.issuer).await;
        reconciler.expect(source, &endpoints).await;
        join_all(asked.into_iter().map(async |mut asked: SourcePoller| {
            let answer = asked.poll(reconciler).await;
            (source, asked.name().to_owned(), answer)
        }))
        .await
    }));
    asked.await.into_iter().flatten().collect()
}

fn split(asked: Result<SourceObservation, PollError>) -> (SourceObservation, Result<Listed, PollError>) {
    match asked {
        Ok(mut observation) => {
            let listed =
                Listed { keys: observation.answer.len(), notes: std::mem::take(&mut observation.notes) };
            (observation, Ok(listed))
        }
        Err(error) => (SourceObservation::failed(), Err(error)),
    }
}

/// A target that cannot be read is left to the pass that follows, which reports it.
async fn adopt_unmanaged(
    reconciler: &IssuerReconciler,
    target_reconcilers: &[TargetReconciler],
) -> Result<(), StoreError> {
    for target_reconciler in target_reconcilers {
        let ledger = reconciler.ledger().borrow().clone();
        if let Ok((_, placement)) = target_reconciler.plan(&ledger).await {
            reconciler.adopt(target_reconciler.name(), &placement.strangers).await?;
        }
    }
    Ok(())
}
