//! Records Kubernetes Events, with the texts and counts that core decides.

use tokio::select;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::{
    core::{
        events::aggregator::SendOutcome,
        text::{Hint, redaction::error_line},
    },
    kubernetes::events::{EventError, Events},
    telemetry::event_source::EventQueue,
};

/// Records events until it is stopped. No other task waits for it, and its failures are logged only: as
/// status changes they would cause events themselves.
pub async fn run_events(queue: EventQueue, events: Events, stop: CancellationToken) {
    let send_all = async {
        let mut failing = false;
        loop {
            let series = queue.next().await;
            let sent = events.send(&series).await;
            queue.after(&series, sent.as_ref().map_or_else(EventError::outcome, |()| SendOutcome::Sent));
            match sent {
                Err(error) if !failing => {
                    let (hint, error) = (error.hint(), error_line(&error));
                    warn!(error, hint, "cannot send Kubernetes Events, they will be dropped");
                    failing = true;
                }
                Ok(()) if failing => {
                    info!("Kubernetes Events are sent again");
                    failing = false;
                }
                _ => {}
            }
        }
    };
    select! {
        () = stop.cancelled() => {}
        () = send_all => {}
    }
}
