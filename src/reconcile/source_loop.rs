//! The loop of a source in a running service. No loop waits for another.
//!
//! Thousands of loops wait at any time. Their working state is on the heap, so that a waiting loop takes some
//! hundred bytes instead of ten thousand.

use std::{
    convert::Infallible,
    hash::{BuildHasher as _, RandomState},
    sync::Arc,
    time::Duration,
};

use tokio::{
    select,
    sync::watch,
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{
    concurrency::Permit,
    issuer::{IssuerReconciler, Observation},
    source_poll::SourcePoller,
};
/// Time between two polls of a failing source: when it comes back it may have a new key, which must be public
/// within two seconds.
const RETRY_SOURCE: Duration = Duration::from_secs(1);
/// How long the first change of the ledger waits for a read of every target, which may carry a later
/// revision.
pub(super) const FIRST_READ: Duration = Duration::from_secs(3);

/// How long a source is polled every second after a sign that it may have changed. Observed with
/// kube-apiserver 1.37: one that starts is announced 0.3 s after its first answer, and listed a second later.
const FAST_POLL_LASTS: Duration = Duration::from_secs(10);

/// Makes source loops poll every second for a while, starting at once.
#[derive(Debug)]
pub(super) struct FastPoll(watch::Sender<PollRate>);

#[derive(Clone, Copy, Debug)]
pub(super) struct PollRate {
    /// Poll every second until then.
    until: Instant,
    /// Number of observed API server starts: an earlier connection may lead to one that is gone, and a proxy
    /// may keep it open.
    starts: u64,
}

impl FastPoll {
    pub(super) fn new() -> Self {
        Self(watch::Sender::new(PollRate { until: Instant::now(), starts: 0 }))
    }

    /// Requests fast polls, because something may have changed.
    pub(super) fn request(&self) {
        self.0.send_modify(|pace| pace.until = Instant::now() + FAST_POLL_LASTS);
    }

    /// Records that an API server has started.
    pub(super) fn started(&self) {
        self.0.send_modify(|pace| pace.starts += 1);
        self.request();
    }

    pub(super) fn rate(&self) -> watch::Receiver<PollRate> {
        self.0.subscribe()
    }
}

/// Polls a source until `stop`, and passes its observations to the reconciler.
pub async fn run_source(
    asked: SourcePoller,
    source: usize,
    reconciler: Arc<IssuerReconciler>,
    pass: Permit,
    stop: CancellationToken,
) {
    let turn = async {
        first_reads(&reconciler).await;
        poll(asked, source, &reconciler, pass, None, |_| {}).await
    };
    select! {
        () = stop.cancelled() => {}
        never = turn => match never {},
    }
}

/// Waits for the first read of every target, up to [`FIRST_READ`].
pub(super) async fn first_reads(reconciler: &IssuerReconciler) {
    let _ = timeout(FIRST_READ, reconciler.all_targets_read()).await;
}

/// Polls one endpoint of a source forever, at the rate that `pace` sets; passes observations to the
/// reconciler, and to `told` whether there was an answer.
pub(super) async fn poll(
    mut asked: SourcePoller,
    source: usize,
    reconciler: &IssuerReconciler,
    mut pass: Permit,
    mut pace: Option<watch::Receiver<PollRate>>,
    told: impl Fn(bool),
) -> Infallible {
    // A proxy may close connections after every answer: react to one lost connection between two polls.
    let mut may_stir = true;
    let mut starts = pace.as_ref().map_or(0, |pace| pace.borrow().starts);
    loop {
        if let Some(pace) = &mut pace {
            let now = *pace.borrow_and_update();
            if now.starts != std::mem::replace(&mut starts, now.starts) {
                asked.reconnect().await;
            }
        }
        let answered = pass.run(Box::pin(async {
            let answer = asked.poll(reconciler).await;
            let answered = answer.is_ok();
            let observation = answer.as_ref().ok();
            let observed = Observation::Source { source, endpoint: asked.name(), observation };
            reconciler.observe_or_log(observed).await;
            reconciler.source_polled(source);
            answered
        }));
        let answered = answered.await;
        told(answered);
        if answered {
            Box::pin(asked.probe(reconciler)).await;
            let hurried = pace.as_ref().is_some_and(|pace| Instant::now() < pace.borrow().until);
            let wait = if hurried { RETRY_SOURCE.min(asked.every()) } else { jittered(asked.every()) };
            may_stir = select! {
                () = sleep(wait) => true,
                () = asked.connection_lost(), if may_stir => false,
                () = fast_poll_requested(&mut pace) => may_stir,
            };
        } else {
            may_stir = true;
            sleep(RETRY_SOURCE.min(asked.every())).await;
        }
    }
}

/// Resolves once the poll rate changes. May never resolve.
async fn fast_poll_requested(pace: &mut Option<watch::Receiver<PollRate>>) {
    if let Some(pace) = pace
        && pace.changed().await.is_ok()
    {
        return;
    }
    std::future::pending::<()>().await;
}

/// Adds up to a tenth more or less, so that not all sources are polled at once.
pub(super) fn jittered(every: Duration) -> Duration {
    let random = u32::try_from(RandomState::new().hash_one(()) % 201).expect("less than 201");
    every * (900 + random) / 1000
}
