//! The loops of a running service: one per source, one per target, none of which waits for another.
//!
//! Thousands of them wait at any time. What they do in between stands on the heap, so that a loop that
//! waits takes some hundred bytes and not ten thousand.

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
    source_poll::{SourcePoller, in_one_line},
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
    },
    telemetry::{Trouble, as_typed, status::TargetStatus},
};

/// Time between two polls of a source that fails: whoever comes back may have a new key, and it must be
/// public within two seconds.
const RETRY_SOURCE: Duration = Duration::from_secs(1);
/// Waits between two attempts at a target that fails.
const RETRY_TARGET: [Duration; 5] = [
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(5),
    Duration::from_secs(15),
    Duration::from_mins(1),
];
/// Longest that the first change of a ledger waits for a look at every target, which may know a later one.
const FIRST_READ: Duration = Duration::from_secs(3);
/// Time until another look at a public URL that shows an older publication.
const RECHECK_PUBLIC: Duration = Duration::from_secs(15);

/// How long a source is polled every second once something says that it may have changed. Seen on
/// kube-apiserver 1.37: whoever starts is announced 0.3 s after its first answer, and listed a second later.
const FAST_POLL_LASTS: Duration = Duration::from_secs(10);

/// Makes loops poll every second for a while, at once to begin with.
#[derive(Debug)]
pub(super) struct FastPoll(watch::Sender<PollRate>);

/// How fast to poll.
#[derive(Clone, Copy, Debug)]
pub(super) struct PollRate {
    /// Until then every second.
    until: Instant,
    /// How many API servers were seen to start: a connection of before may lead to one that is gone, and
    /// something on the way may keep it open.
    starts: u64,
}

impl FastPoll {
    pub(super) fn new() -> Self {
        Self(watch::Sender::new(PollRate { until: Instant::now(), starts: 0 }))
    }

    /// Something may have changed.
    pub(super) fn request(&self) {
        self.0.send_modify(|pace| pace.until = Instant::now() + FAST_POLL_LASTS);
    }

    /// An API server has started.
    pub(super) fn started(&self) {
        self.0.send_modify(|pace| pace.starts += 1);
        self.request();
    }

    pub(super) fn rate(&self) -> watch::Receiver<PollRate> {
        self.0.subscribe()
    }
}

/// Asks a source for ever and tells the reconciler.
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

/// Waits for the first look at every target, but not for long.
pub(super) async fn first_reads(reconciler: &IssuerReconciler) {
    let _ = timeout(FIRST_READ, reconciler.all_targets_read()).await;
}

/// Asks whoever speaks for a source for ever, as fast as `pace` says; tells the reconciler, and `told` whether
/// there was an answer.
pub(super) async fn poll(
    mut asked: SourcePoller,
    source: usize,
    reconciler: &IssuerReconciler,
    mut pass: Permit,
    mut pace: Option<watch::Receiver<PollRate>>,
    told: impl Fn(bool),
) -> Infallible {
    // Something on the way may close connections after every answer: once between two polls is enough.
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

/// Resolves once the pace changes. May never.
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

/// Up to a tenth more or less, so that many sources are not all asked at once.
pub(super) fn jittered(every: Duration) -> Duration {
    let random = u32::try_from(RandomState::new().hash_one(()) % 201).expect("less than 201");
    every * (900 + random) / 1000
}

/// Makes a target show the publication for ever: when it changes, when `tick` wakes it, when somebody finds that
/// relying parties are shown something else, and again after a
/// while when it failed.
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
                        // What is known goes on.
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

/// Looks at the target before anything is decided. One that cannot be read is left to what follows.
async fn first_read(target_reconciler: &mut TargetReconciler, reconciler: &IssuerReconciler) {
    if let Ok(reading) = target_reconciler.read().await {
        let look = (target_reconciler.name().to_owned(), reading);
        if let Err(error) = reconciler.observe_ledger_revisions(&[look]).await {
            reconciler.log_store_error(&error);
        }
    }
}

/// One look at a target; returns after which time it needs another one, if it does.
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
            reconciler.board().target(issuer, &target, |status| {
                status.gates = gates;
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
                info!(%issuer, target, documents = documents.join(" "), keys = placed.look.view.len(), "published");
                if let Some(before) = &placed.moved_from {
                    info!(%issuer, target, before, "target taken over, its JWKS was at another URL");
                }
            }
            if let Err(error) =
                reconciler.observe_target(&target, &placed.look, &placed.strangers, placed.kept).await
            {
                reconciler.log_store_error(&error);
            }
            reconciler.target_synced(&target);
            (placed.public == PublicView::Behind).then_some(RECHECK_PUBLIC)
        }
        Err(error) => {
            let (hint, text) = (error.hint().map(|hint| as_typed(&hint)), in_one_line(&error));
            reconciler.board().target(issuer, &target, |status| {
                status.gates = gates;
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

/// What goes wrong with a target, each told of once.
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
    status.last_true = Some(clock::now());
    status.error = None;
    status.checks += 1;
    status.writes += placed.wrote.len() as u64;
    status.public_url = match placed.public {
        PublicView::NotConfigured => None,
        PublicView::True => Some("true".to_owned()),
        PublicView::Behind => Some("behind".to_owned()),
    };
}
