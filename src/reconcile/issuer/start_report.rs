//! The start report: how many keys an issuer has, and whether every source and target is healthy.

use std::{collections::BTreeSet, time::Duration};

use tokio::time::Instant;
use tracing::info;

use super::IssuerReconciler;

/// How long the report waits for what fails at first: a store that rejects a request, an API server that
/// restarts.
const TIMEOUT: Duration = Duration::from_secs(10);

/// The sources and targets that were not tried since the start.
pub(super) struct StartReport {
    sources: BTreeSet<usize>,
    places: BTreeSet<String>,
    since: Instant,
    is_told: bool,
}

impl StartReport {
    pub(super) fn new(sources: usize, places: BTreeSet<String>) -> Self {
        Self { sources: (0..sources).collect(), places, since: Instant::now(), is_told: false }
    }
}

impl IssuerReconciler {
    /// Records that an endpoint of a source was polled, with any result.
    pub(in crate::reconcile) fn source_polled(&self, source: usize) {
        self.log_start_once(|opening| {
            opening.sources.remove(&source);
        });
    }

    /// Records an attempt to sync a target, with any result.
    pub(in crate::reconcile) fn target_synced(&self, target: &str) {
        self.log_start_once(|opening| {
            opening.places.remove(target);
        });
    }

    fn log_start_once(&self, note: impl FnOnce(&mut StartReport)) {
        let mut opening = self.start_report.lock().expect("nobody panics while holding it");
        if opening.is_told {
            return;
        }
        note(&mut opening);
        if !(opening.sources.is_empty() && opening.places.is_empty()) {
            return;
        }
        let issuer = &self.spec.terms.issuer;
        let summary = self.status.summary(issuer);
        if summary.is_healthy() || opening.since.elapsed() >= TIMEOUT {
            opening.is_told = true;
            let (keys, sources, targets) =
                (summary.keys, summary.sources.to_string(), summary.targets.to_string());
            info!(%issuer, keys, sources, targets, "issuer is published");
        }
    }
}
