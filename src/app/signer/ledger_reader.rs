//! Reads the desired state of a node from the ledger.

use std::time::Duration;

use tokio::{
    select,
    sync::watch,
    time::{MissedTickBehavior, interval},
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::{
    core::{
        ledger::StoredLedger,
        signer::{DesiredState, announcement::NodeName},
        text::{Hint, redaction::error_line},
    },
    store::LedgerStore,
    telemetry::FailureLog,
};

/// Interval at which a node reads its desired state.
const PACE: Duration = Duration::from_secs(1);

/// Reads the ledger on behalf of a node.
pub(super) struct LedgerReader {
    store: LedgerStore,
    node: NodeName,
    trouble: FailureLog,
}

impl LedgerReader {
    pub(super) fn new(store: LedgerStore, node: NodeName) -> Self {
        Self { store, node, trouble: FailureLog::default() }
    }

    pub(super) async fn go_on(mut self, sender: watch::Sender<DesiredState>, stop: CancellationToken) {
        let mut pace = interval(PACE);
        pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            select! {
                () = stop.cancelled() => return,
                _ = pace.tick() => self.ask(&sender).await,
            }
        }
    }

    /// Reads the ledger once. When it cannot be read, the previous desired state stays.
    pub(super) async fn ask(&mut self, sender: &watch::Sender<DesiredState>) {
        let failed = match self.store.read().await {
            Ok(StoredLedger::Ledger(ledger) | StoredLedger::Previous(ledger)) => {
                sender.send_if_modified(|orders| {
                    let next = ledger.orders_for(&self.node);
                    let changed = *orders != next;
                    *orders = next;
                    changed
                });
                None
            }
            Ok(StoredLedger::Nothing) => {
                let hint = "start the publisher with this data directory, or set the same \
                    `ledger.config_map` for both: until then, orders and revocations do not reach this node";
                Some(("there is no ledger yet".to_owned(), Some(hint.to_owned()), true))
            }
            Ok(StoredLedger::Damaged(error)) => Some((error_line(&error), None, false)),
            Err(error) => Some((error_line(&error), error.hint(), error.is_refusal())),
        };
        match failed {
            Some((error, hint, is_refusal)) if self.trouble.record_refusal(&error, is_refusal) => {
                warn!(error, hint, "cannot read the ledger, keeping the previous orders");
            }
            Some(_) => {}
            None => {
                if let Some(failures) = self.trouble.record_success() {
                    info!(failures, "the ledger can be read again");
                }
            }
        }
    }
}
