//! Records Kubernetes Events, with the texts and counts that core decides.

use std::time::Duration;

use tokio::{select, time::sleep};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::{
    clock,
    core::{
        events::aggregator::{Next, SendOutcome},
        text::redaction::error_line,
    },
    kubernetes::events::Events,
    telemetry::event_source::EventQueue,
};

/// Records events until it is stopped. No other task waits for it, and its failures are logged only: as
/// status changes they would cause events themselves.
pub async fn run_events(notices: EventQueue, events: Events, stop: CancellationToken) {
    let turn = async {
        let mut failing = false;
        loop {
            match notices.next() {
                Next::Send(bulletin) => {
                    let told = events.send(&bulletin).await;
                    let outcome = match &told {
                        Ok(outcome) => *outcome,
                        Err(error) => error.outcome(),
                    };
                    notices.after(&bulletin, outcome);
                    match told {
                        Err(error) if !failing => {
                            let (hint, error) = (error.hint(), error_line(&error));
                            warn!(error, hint, "cannot send Kubernetes Events, they will be dropped");
                            failing = true;
                        }
                        Ok(SendOutcome::Sent) if failing => {
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
