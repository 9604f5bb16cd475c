//! The loop of a target in a running service.

use std::{sync::Arc, time::Duration};

use tokio::{
    select,
    sync::Notify,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{
    concurrency::Permit,
    issuer::{IssuerReconciler, Observation},
    source_loop::{FIRST_READ, first_reads, jittered},
    target_sync::{PublicView, SyncResult, TargetReconciler, sync_current},
};
use crate::{
    clock,
    core::{
        jose::{
            issuer::Issuer,
            publication::{Document, MEDIA_TYPE},
        },
        ledger::Ledger,
        text::{Hint, redaction::error_line},
    },
    telemetry::{FailureLog, as_typed, issuer_status::TargetStatus},
};

/// Waits between two attempts at a failing target.
const RETRY_TARGET: [Duration; 5] = [
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(5),
    Duration::from_secs(15),
    Duration::from_mins(1),
];
/// Time until the next read of a public URL that shows an older publication.
const RECHECK_PUBLIC: Duration = Duration::from_secs(15);

/// Syncs a target until `stop`: when the ledger changes, when `tick` wakes it, when a recheck is requested
/// because relying parties get something else, and after a wait when it failed.
pub async fn run_target(
    mut target_reconciler: TargetReconciler,
    reconciler: Arc<IssuerReconciler>,
    tick: Arc<Notify>,
    mut pass: Permit,
    stop: CancellationToken,
) {
    let turn = async {
        let _ =
            timeout(FIRST_READ, pass.run(Box::pin(first_read(&mut target_reconciler, &reconciler)))).await;
        first_reads(&reconciler).await;
        let mut ledgers = reconciler.ledger();
        let mut suspicions = reconciler.recheck_requests();
        let mut attempt = 0;
        let mut troubles = Troubles::default();
        let mut has_changed = false;
        loop {
            suspicions.mark_unchanged();
            let last_reading = pass.run(Box::pin(async {
                // A ledger that has just changed was just read or stored.
                if !has_changed {
                    reconciler.observe_or_log(Observation::Ledger).await;
                }
                let ledger = Arc::clone(&ledgers.borrow_and_update());
                if ledger.public_keys().next().is_some() {
                    sync(&mut target_reconciler, &reconciler, &ledger, &mut troubles, &mut attempt).await
                } else {
                    None
                }
            }));
            let wait = last_reading.await;
            let again = async {
                match wait {
                    Some(wait) => sleep(wait).await,
                    None => std::future::pending().await,
                }
            };
            has_changed = select! {
                changed = ledgers.changed() => changed.is_ok(),
                _ = suspicions.changed() => false,
                () = tick.notified() => false,
                () = again => false,
            };
        }
    };
    select! {
        () = stop.cancelled() => {}
        () = turn => {}
    }
}

/// Reads the target before anything is decided; the sync that follows reports an error.
async fn first_read(target_reconciler: &mut TargetReconciler, reconciler: &IssuerReconciler) {
    if let Ok(reading) = target_reconciler.read().await {
        let reading = (target_reconciler.name().to_owned(), reading);
        reconciler.observe_or_log(Observation::Readings(&[reading])).await;
    }
}

/// Syncs a target once; returns the time until the next attempt, if one is needed.
async fn sync(
    target_reconciler: &mut TargetReconciler,
    reconciler: &IssuerReconciler,
    ledger: &Arc<Ledger>,
    Troubles { failing: trouble, mistyped }: &mut Troubles,
    attempt: &mut usize,
) -> Option<Duration> {
    let issuer = &reconciler.spec().terms.issuer;
    let (target, required_targets) =
        (target_reconciler.name().to_owned(), target_reconciler.required_for_rotation());
    let wait = match sync_current(target_reconciler, reconciler, ledger).await {
        Ok(synced) => {
            *attempt = 0;
            reconciler.status().target(issuer, &target, |status| {
                status.required_for_rotation = required_targets;
                succeeded(status, &synced);
            });
            if let Some(failures) = trouble.record_success() {
                info!(%issuer, target, failures, "target is in sync again");
            }
            if !synced.repaired.is_empty() {
                let found = synced.repaired.iter();
                let found: Vec<_> = found.map(|(it, how)| format!("{} {}", it.name(), how.name())).collect();
                warn!(%issuer, target, found = found.join(", "), "target was changed by another writer, \
                    repairing it");
            }
            warn_of_types(mistyped, issuer, &target, &synced.mistyped);
            if !synced.wrote.is_empty() {
                let documents: Vec<_> = synced.wrote.iter().map(|document| document.name()).collect();
                info!(%issuer, target, documents = documents.join(" "), keys = synced.observation.view.len(), "published");
                if let Some(before) = &synced.moved_from {
                    info!(%issuer, target, before, "target taken over, its JWKS was at another URL");
                }
            }
            reconciler.observe_or_log(synced.observed(&target)).await;
            (synced.public == PublicView::Stale).then_some(RECHECK_PUBLIC)
        }
        Err(error) => {
            let (hint, text) = (error.hint().map(|hint| as_typed(&hint)), error_line(&error));
            reconciler.status().target(issuer, &target, |status| {
                status.required_for_rotation = required_targets;
                status.up = false;
                status.checks += 1;
                status.failures += 1;
                status.error = Some(text.clone());
                status.public_url = None;
            });
            if trouble.record_failure(&text) {
                warn!(%issuer, target, error = text, hint, "target failed, retrying");
            }
            let wait = RETRY_TARGET[(*attempt).min(RETRY_TARGET.len() - 1)];
            *attempt += 1;
            Some(jittered(wait))
        }
    };
    reconciler.target_synced(&target);
    wait
}

/// The problems of a target, each logged once.
#[derive(Default)]
struct Troubles {
    failing: FailureLog,
    mistyped: FailureLog,
}

fn warn_of_types(trouble: &mut FailureLog, issuer: &Issuer, target: &str, found: &[(Document, String)]) {
    if found.is_empty() {
        trouble.record_success();
        return;
    }
    let found: Vec<_> = found.iter().map(|(it, found)| format!("{} as `{found}`", it.name())).collect();
    let found = found.join(", ");
    if trouble.record_failure(&found) {
        warn!(
            %issuer, target, found, expected = MEDIA_TYPE,
            hint = "serve them as JSON: some relying parties refuse anything else (docs/relying-parties.md)",
            "documents are served with another content type"
        );
    }
}

fn succeeded(status: &mut TargetStatus, synced: &SyncResult) {
    status.up = true;
    status.last_in_sync = Some(clock::now());
    status.error = None;
    status.checks += 1;
    status.writes += synced.wrote.len() as u64;
    status.public_url = match synced.public {
        PublicView::NotConfigured => None,
        PublicView::InSync => Some("in_sync".to_owned()),
        PublicView::Stale => Some("stale".to_owned()),
    };
}
