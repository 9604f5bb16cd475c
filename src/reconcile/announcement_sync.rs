//! Copies announcements between nodes, repeatedly.

use std::time::Duration;

use tokio::{select, time::sleep};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::{
    core::text::{Hint, redaction::error_line},
    store::announcement_sync::AnnouncementSync,
    telemetry::FailureLog,
};

/// Time between two rounds, each of which lists a handful of objects.
const EVERY: Duration = Duration::from_secs(2);

/// Runs until `stop`. Nodes continue with what they have while the sync fails.
pub async fn run_announcement_sync(announcement_sync: AnnouncementSync, stop: CancellationToken) {
    let mut trouble = FailureLog::default();
    loop {
        let synced = select! {
            () = stop.cancelled() => return,
            synced = announcement_sync.sync() => synced,
        };
        match synced {
            Ok(()) => {
                if let Some(failures) = trouble.record_success() {
                    info!(failures, "announcement sync works again");
                }
            }
            Err(error) => {
                let text = error_line(&error);
                if trouble.record_refusal(&text, error.is_refusal()) {
                    warn!(error = text, hint = error.hint(), "announcement sync failed");
                }
            }
        }
        select! {
            () = stop.cancelled() => return,
            () = sleep(EVERY) => {}
        }
    }
}
