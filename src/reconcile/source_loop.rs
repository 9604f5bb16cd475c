//! The loops of a running service: one per source, one per target, none of which waits for another.
//!
//! Thousands of them wait at any time. Their working state is on the heap, so that a waiting loop takes some
//! hundred bytes instead of ten thousand.

use std::{
    convert::Infallible,
    hash::{BuildHasher as _, RandomState},
    sync::Arc,
    time::Duration,
};

use tokio::{
    select,
    sync::{Notify, watch},
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{
    concurrency::Permit,
    issuer::{IssuerReconciler, SourceObservation},
    source_poll::SourcePoller,
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
        text::redaction::error_line,
    },
    telemetry::{Trouble, as_typed, status::TargetStatus},
};

/// Time between two polls of a failing source: when it comes back it may have a new key, which must be public
/// within two seconds.
const RETRY_SOURCE: Duration = Duration::from_secs(1);
/// Waits between two attempts at a failing target.
const RETRY_TARGET: [Duration; 5] = [
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(5),
    Duration::from_secs(15),
    Duration::from_mins(1),
];
/// How long the first change of the ledger waits for a read of every target, which may carry a later
/// revision.
const FIRST_READ: Duration = Duration::from_secs(3);
/// Time until the next read of a public URL that shows an older publication.
const RECHECK_PUBLIC: Duration = Duration::from_secs(15);

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
            report(reconciler, source, asked.name(), answer.unwrap_or_else(|_| SourceObservation::failed()))
                .await;
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

async fn report(reconciler: &IssuerReconciler, source: usize, name: &str, observation: SourceObservation) {
    if let Err(error) = reconciler.observe_source(source, name, observation).await {
        reconciler.log_store_error(&error);
    }
}

/// Adds up to a tenth more or less, so that not all sources are polled at once.
pub(super) fn jittered(every: Duration) -> Duration {
    let random = u32::try_from(RandomState::new().hash_one(()) % 201).expect("less than 201");
    every * (900 + random) / 1000
}

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
        loop {
            ledgers.mark_unchanged();
            suspicions.mark_unchanged();
            let looked = pass.run(Box::pin(async {
                let ledger = match reconciler.refresh().await {
                    Ok(ledger) => ledger,
                    Err(error) => {
                        reconciler.log_store_error(&error);
                        // Continue with the known ledger.
                        Arc::clone(&ledgers.borrow())
                    }
                };
                if ledger.public_keys().next().is_some() {
                    sync(&mut target_reconciler, &reconciler, &ledger, &mut troubles, &mut attempt).await
                } else {
                    None
                }
            }));
            let wait = looked.await;
            let again = async {
                match wait {
                    Some(wait) => sleep(wait).await,
                    None => std::future::pending().await,
                }
            };
            select! {
                changed = ledgers.changed() => changed.expect("the keeper outlives its loops"),
                suspected = suspicions.changed() => suspected.expect("the keeper outlives its loops"),
                () = tick.notified() => {}
                () = again => {}
            }
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
        let look = (target_reconciler.name().to_owned(), reading);
        if let Err(error) = reconciler.observe_ledger_revisions(&[look]).await {
            reconciler.log_store_error(&error);
        }
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
    let (target, gates) = (target_reconciler.name().to_owned(), target_reconciler.required_for_rotation());
    match sync_current(target_reconciler, reconciler, ledger).await {
        Ok(placed) => {
            *attempt = 0;
            reconciler.status().target(issuer, &target, |status| {
                status.required_for_rotation = gates;
                succeeded(status, &placed);
            });
            if let Some(failures) = trouble.over() {
                info!(%issuer, target, failures, "target is in sync again");
            }
            if !placed.repaired.is_empty() {
                let found = placed.repaired.iter();
                let found: Vec<_> = found.map(|(it, how)| format!("{} {}", it.name(), how.name())).collect();
                warn!(%issuer, target, found = found.join(", "), "target was changed by another writer, \
                    repairing it");
            }
            warn_of_types(mistyped, issuer, &target, &placed.mistyped);
            if !placed.wrote.is_empty() {
                let documents: Vec<_> = placed.wrote.iter().map(|document| document.name()).collect();
                info!(%issuer, target, documents = documents.join(" "), keys = placed.observation.view.len(), "published");
                if let Some(before) = &placed.moved_from {
                    info!(%issuer, target, before, "target taken over, its JWKS was at another URL");
                }
            }
            if let Err(error) = reconciler
                .observe_target(&target, &placed.observation, &placed.unmanaged_keys, placed.cache_lifetime)
                .await
            {
                reconciler.log_store_error(&error);
            }
            reconciler.target_synced(&target);
            (placed.public == PublicView::Stale).then_some(RECHECK_PUBLIC)
        }
        Err(error) => {
            let (hint, text) = (error.hint().map(|hint| as_typed(&hint)), error_line(&error));
            reconciler.status().target(issuer, &target, |status| {
                status.required_for_rotation = gates;
                status.up = false;
                status.checks += 1;
                status.failures += 1;
                status.error = Some(text.clone());
            });
            if trouble.is_news(&text) {
                warn!(%issuer, target, error = text, hint, "target failed, retrying");
            }
            reconciler.target_synced(&target);
            let wait = RETRY_TARGET[(*attempt).min(RETRY_TARGET.len() - 1)];
            *attempt += 1;
            Some(jittered(wait))
        }
    }
}

/// The problems of a target, each logged once.
#[derive(Default)]
struct Troubles {
    failing: Trouble,
    mistyped: Trouble,
}

fn warn_of_types(trouble: &mut Trouble, issuer: &Issuer, target: &str, found: &[(Document, String)]) {
    if found.is_empty() {
        trouble.over();
        return;
    }
    let found: Vec<_> = found.iter().map(|(it, found)| format!("{} as `{found}`", it.name())).collect();
    let found = found.join(", ");
    if trouble.is_news(&found) {
        warn!(
            %issuer, target, found, expected = MEDIA_TYPE,
            hint = "serve them as JSON: some relying parties refuse anything else (docs/relying-parties.md)",
            "documents are served with another content type"
        );
    }
}

fn succeeded(status: &mut TargetStatus, placed: &SyncResult) {
    status.up = true;
    status.last_in_sync = Some(clock::now());
    status.error = None;
    status.checks += 1;
    status.writes += placed.wrote.len() as u64;
    status.public_url = match placed.public {
        PublicView::NotConfigured => None,
        PublicView::InSync => Some("true".to_owned()),
        PublicView::Stale => Some("behind".to_owned()),
    };
}
