//! Tells operators what changed, in the words and the number that core decides.

use std::time::Duration;

use tokio::{select, time::sleep};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::source_poll::in_one_line;
use crate::{
    clock,
    core::events::aggregator::{Next, SendOutcome},
    kubernetes::events::Events,
    telemetry::event_source::EventQueue,
};

/// Tells what the board hears, for ever. Nobody waits for it, and what it meets is on no board: it would
/// tell of itself.
pub async fn run_events(notices: EventQueue, events: Events, stop: CancellationToken) {
    let turn = async {
        let mut failing = false;
        loop {
            match notices.next() {
                Next::Tell(bulletin) => {
                    let told = events.tell(&bulletin).await;
                    let outcome = match &told {
                        Ok(outcome) => *outcome,
                        Err(error) => error.outcome(),
                    };
                    notices.after(&bulletin, outcome);
                    match told {
                        Err(error) if !failing => {
                            let (hint, error) = (error.hint(), in_one_line(&error));
                            warn!(error, hint, "cannot send Kubernetes Events, they will be dropped");
                            failing = true;
                        }
                        Ok(SendOutcome::Told) if failing => {
                            info!("Kubernetes Events are sent again");
                            failing = false;
                        }
                        _ => {}
                    }
                }
                Next::Wait(until) => {
                    let wait = until.duration_since(clock::now());
                    select! {
                        () = sleep(Duration::try_from(wait).unwrap_or_default()) => {}
                        () = notices.changed() => {}
                    }
                }
                Next::Rest => notices.changed().await,
            }
        }
    };
    select! {
        () = stop.cancelled() => {}
        () = turn => {}
    }
}
