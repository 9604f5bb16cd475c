//! The loops of a running service: one per source, one per target, none of which waits for another.

use std::{
    hash::{BuildHasher as _, RandomState},
    sync::Arc,
    time::Duration,
};

use tokio::{
    select,
    sync::watch,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{
    asking::{Asked, in_one_line},
    keeper::{Hearing, Keeper},
    placing::{Placed, Placer, PublicView, place_current},
};
use crate::{
    clock,
    core::{ledger::Ledger, merge::Answer},
    telemetry::board::TargetStatus,
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
const FIRST_LOOK: Duration = Duration::from_secs(3);
/// Time until another look at a public URL that shows an older publication.
const RECHECK_PUBLIC: Duration = Duration::from_secs(15);

/// Asks a source for ever and tells the keeper.
pub async fn watch_source(mut asked: Asked, source: usize, keeper: Arc<Keeper>, stop: CancellationToken) {
    let turn = async {
        let _ = timeout(FIRST_LOOK, keeper.all_looked_at()).await;
        // Something on the way may close connections after every answer: once between two polls is enough.
        let mut may_stir = true;
        loop {
            if let Ok(hearing) = asked.ask(&keeper).await {
                tell(&keeper, source, hearing).await;
                asked.probe(&keeper).await;
                may_stir = select! {
                    () = sleep(jittered(asked.every())) => true,
                    () = asked.stirred(), if may_stir => false,
                };
            } else {
                tell(&keeper, source, Hearing { answer: Answer::Failed, server_time: None }).await;
                may_stir = true;
                sleep(RETRY_SOURCE.min(asked.every())).await;
            }
        }
    };
    select! {
        () = stop.cancelled() => {}
        () = turn => {}
    }
}

async fn tell(keeper: &Keeper, source: usize, hearing: Hearing) {
    if let Err(error) = keeper.hear(source, hearing).await {
        keeper.tell_unstored(&error);
    }
}

/// Up to a tenth more or less, so that many sources are not all asked at once.
fn jittered(every: Duration) -> Duration {
    let random = u32::try_from(RandomState::new().hash_one(()) % 201).expect("less than 201");
    every * (900 + random) / 1000
}

/// Makes a target show the publication for ever: when it changes, when `tick` says so, and again after a
/// while when it failed.
pub async fn watch_target(
    mut placer: Placer,
    keeper: Arc<Keeper>,
    mut tick: watch::Receiver<u64>,
    stop: CancellationToken,
) {
    let turn = async {
        let _ = timeout(FIRST_LOOK, first_look(&mut placer, &keeper)).await;
        let mut ledgers = keeper.ledger();
        let mut attempt = 0;
        let mut trouble = None;
        loop {
            ledgers.mark_unchanged();
            let ledger = match keeper.refresh().await {
                Ok(ledger) => ledger,
                Err(error) => {
                    keeper.tell_unstored(&error);
                    // What is known goes on.
                    Arc::clone(&ledgers.borrow())
                }
            };
            let wait = if ledger.public_keys().next().is_some() {
                place(&mut placer, &keeper, &ledger, &mut trouble, &mut attempt).await
            } else {
                None
            };
            let again = async {
                match wait {
                    Some(wait) => sleep(wait).await,
                    None => std::future::pending().await,
                }
            };
            select! {
                changed = ledgers.changed() => changed.expect("the keeper outlives its loops"),
                ticked = tick.changed() => ticked.expect("the clock outlives the loops"),
                () = again => {}
            }
        }
    };
    select! {
        () = stop.cancelled() => {}
        () = turn => {}
    }
}

/// Looks at the target, and waits for the other ones, before anything is decided. A target that cannot be
/// read is left to what follows.
async fn first_look(placer: &mut Placer, keeper: &Keeper) {
    if let Ok(reading) = placer.look().await {
        let look = (placer.name().to_owned(), reading);
        if let Err(error) = keeper.witness(&[look]).await {
            keeper.tell_unstored(&error);
        }
    }
    keeper.all_looked_at().await;
}

/// One look at a target; returns after which time it needs another one, if it does.
async fn place(
    placer: &mut Placer,
    keeper: &Keeper,
    ledger: &Arc<Ledger>,
    trouble: &mut Option<String>,
    attempt: &mut usize,
) -> Option<Duration> {
    let issuer = &keeper.charter().terms.issuer;
    let target = placer.name().to_owned();
    match place_current(placer, keeper, ledger).await {
        Ok(placed) => {
            *attempt = 0;
            keeper.board().target(issuer, &target, |status| succeeded(status, &placed));
            if trouble.take().is_some() {
                info!(%issuer, target, "target is true again");
            }
            if !placed.wrote.is_empty() {
                let documents: Vec<_> = placed.wrote.iter().map(|document| document.name()).collect();
                info!(%issuer, target, documents = documents.join(" "), keys = placed.view.len(), "published");
            }
            if let Err(error) = keeper.saw(&target, &placed.view, &placed.strangers).await {
                keeper.tell_unstored(&error);
            }
            (placed.public == PublicView::Behind).then_some(RECHECK_PUBLIC)
        }
        Err(error) => {
            let (hint, text) = (error.hint(), in_one_line(&error));
            keeper.board().target(issuer, &target, |status| {
                status.up = false;
                status.checks += 1;
                status.failures += 1;
                status.error = Some(text.clone());
            });
            if trouble.as_ref() != Some(&text) {
                warn!(%issuer, target, error = text, hint, "target failed, it is tried again");
                *trouble = Some(text);
            }
            let wait = RETRY_TARGET[(*attempt).min(RETRY_TARGET.len() - 1)];
            *attempt += 1;
            Some(jittered(wait))
        }
    }
}

fn succeeded(status: &mut TargetStatus, placed: &Placed) {
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
