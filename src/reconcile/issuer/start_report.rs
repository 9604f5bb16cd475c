//! The start report: how many keys an issuer has, and whether every source and target is healthy.

use std::{collections::BTreeSet, time::Duration};

use tokio::time::Instant;
use tracing::info;

use crate::{core::jose::issuer::Issuer, telemetry::status::StatusStore};

/// How long the report waits for what fails at first: a store that rejects a request, an API server that
/// restarts.
const TIMEOUT: Duration = Duration::from_secs(10);

/// The sources and targets that were not tried since the start.
pub(super) struct StartReport {
    pub(super) sources: BTreeSet<usize>,
    pub(super) targets: BTreeSet<String>,
    since: Instant,
    is_logged: bool,
}

impl StartReport {
    pub(super) fn new(sources: usize, targets: BTreeSet<String>) -> Self {
        Self { sources: (0..sources).collect(), targets, since: Instant::now(), is_logged: false }
    }

    /// Logs the report once: when everything is tried and healthy, or was given time for that.
    pub(super) fn log_once(&mut self, issuer: &Issuer, status: &StatusStore) {
        if self.is_logged || !(self.sources.is_empty() && self.targets.is_empty()) {
            return;
        }
        let summary = status.summary(issuer);
        if summary.is_healthy() || self.since.elapsed() >= TIMEOUT {
            self.is_logged = true;
            let (keys, sources, targets) =
                (summary.keys, summary.sources.to_string(), summary.targets.to_string());
            info!(%issuer, keys, sources, targets, "issuer is published");
        }
    }
}
