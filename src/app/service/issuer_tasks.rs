//! The tasks of one issuer: its loops, and what is served under its names.

use std::{sync::Arc, time::Duration};

use futures_util::future::{BoxFuture, join_all};
use tokio::{
    select,
    sync::{mpsc, watch},
    time::sleep,
};
use tokio_util::sync::CancellationToken;
use tracing::error;

use super::Context;
use crate::{
    app::{AppError, IssuerComponents, Use, control_registry::Registration, probe::Probing, signer, wire},
    config::IssuerConfig,
    core::{
        jose::publication::{Publication, Terms},
        text::{Hint, redaction::error_line},
    },
    http::documents::Slot,
    reconcile::{
        ConfiguredSource, announcement_sync::run_announcement_sync, control_plane::watch_control_plane,
        exchange_probe::run_exchange_probe, issuer::IssuerReconciler, probe::run_probe,
        source_loop::run_source, target_loop::run_target,
    },
    telemetry::FailureLog,
};

/// Interval between two attempts to start an issuer of a reloaded configuration.
const RETRY_START: Duration = Duration::from_secs(15);

/// A name under which the documents of an issuer are served: its own, or that of a previous issuer.
#[derive(Clone)]
pub(super) struct ServedIssuer {
    pub(super) terms: Terms,
    pub(super) slot: Slot,
}

impl ServedIssuer {
    fn show(&self, publication: &Publication) {
        self.slot.publish(&publication.under(&self.terms));
    }
}

/// What happens when an issuer cannot start.
pub(super) enum OnFailure {
    /// Ends the process, which has no other issuer. The sender is dropped when the issuer has started.
    End(#[expect(dead_code, reason = "it is dropped")] mpsc::Sender<()>),
    /// The others keep running, and the start is retried. The sender, of an issuer that the process starts
    /// with, is dropped after the first attempt.
    Retry(Option<mpsc::Sender<()>>),
}

/// Runs one issuer: reads its ledger, then runs its loops until it is stopped.
pub(super) async fn run_issuer(
    context: Arc<Context>,
    config: IssuerConfig,
    served_issuers: Vec<ServedIssuer>,
    stop: CancellationToken,
    mut on_failure: OnFailure,
) -> Result<(), AppError> {
    let issuer = config.issuer.clone();
    let mut pass = context.gate.permit();
    let mut trouble = FailureLog::default();
    let (loops, _registration) = loop {
        let opened = pass.run(Box::pin(open(&context, config.clone(), &served_issuers, &stop)));
        let opened = select! {
            () = stop.cancelled() => return Ok(()),
            opened = opened => opened,
        };
        match (opened, &mut on_failure) {
            (Ok(opened), _) => break opened,
            (Err(error), OnFailure::End(_)) => return Err(error),
            (Err(error), OnFailure::Retry(starting)) => {
                context.registry.failed(&issuer);
                if starting.take().is_some() {
                    context.shared.status.expect_late(&issuer);
                }
                let text = error_line(&error);
                if trouble.record_failure(&text) {
                    error!(%issuer, error = text, hint = error.hint(), "issuer cannot start, retrying");
                }
                let alarm = format!("cannot start: {text}");
                context.shared.status.issuer(&issuer, |status| status.alarms = vec![alarm]);
            }
        }
        select! {
            () = stop.cancelled() => return Ok(()),
            () = sleep(RETRY_START) => {}
        }
    };
    drop((on_failure, config, pass));
    join_all(loops).await;
    Ok(())
}

/// Wires an issuer, publishes what its ledger holds, and returns its loops, which end on `stop`.
async fn open(
    context: &Context,
    config: IssuerConfig,
    served_issuers: &[ServedIssuer],
    stop: &CancellationToken,
) -> Result<(Vec<BoxFuture<'static, ()>>, Registration), AppError> {
    let (schedule, signs) = (config.schedule.clone(), config.signs().then(|| config.clone()));
    let own = signs.as_ref().filter(|config| config.signer.is_some()).and_then(signer::own_name);
    let announcement_sync = signer::announcement_sync(&context.shared.data_dir, &config, own);
    let probing = Probing::of(&config);
    let IssuerComponents { reconciler, sources, target_reconcilers } =
        wire(config, &context.shared, Use::Serve).await?;
    let mut publication = reconciler.publication();
    show(&reconciler, &mut publication, served_issuers);
    reconciler.begin().await?;
    show(&reconciler, &mut publication, served_issuers);
    // The slowest step: what the ledger holds is published before.
    let own = match &signs {
        Some(config) => Some(signer::LocalSigner::open(&context.shared.data_dir, config).await?),
        None => None,
    };
    if let (Some(own), Some(config)) = (&own, &signs) {
        context.shared.status.signer(&config.issuer, Arc::clone(own.node().metrics()));
    }
    let registration = context.registry.open(&reconciler, own.as_ref().map(signer::LocalSigner::node));
    let mut loops: Vec<BoxFuture<'static, ()>> = vec![Box::pin(serve_publication(
        Arc::clone(&reconciler),
        publication,
        served_issuers.to_vec(),
        stop.clone(),
    ))];
    let node = own.as_ref().map(signer::LocalSigner::node);
    if let Some(prober) = probing.as_ref().and_then(|probing| probing.exchange_prober(node.as_ref())) {
        let (reconciler, pass) = (Arc::clone(&reconciler), context.gate.permit());
        loops.push(Box::pin(run_exchange_probe(prober, reconciler, pass, stop.clone())));
    }
    if let Some(prober) = probing.and_then(|probing| probing.prober(node.as_ref())) {
        loops.push(Box::pin(run_probe(prober, Arc::clone(&reconciler), context.gate.permit(), stop.clone())));
    }
    loops.extend(
        own.map(|own| -> BoxFuture<'static, ()> { Box::pin(own.sign(reconciler.ledger(), stop.clone())) }),
    );
    loops.extend(announcement_sync.map(|announcement_sync| -> BoxFuture<'static, ()> {
        Box::pin(run_announcement_sync(announcement_sync, stop.clone()))
    }));
    for (place, source) in sources.into_iter().enumerate() {
        let (reconciler, gate, stop) = (Arc::clone(&reconciler), &context.gate, stop.clone());
        loops.push(match source {
            ConfiguredSource::One(asked) => {
                Box::pin(run_source(asked, place, reconciler, gate.permit(), stop))
            }
            ConfiguredSource::Found(plane) => {
                Box::pin(watch_control_plane(plane, place, reconciler, gate.clone(), stop))
            }
        });
    }
    for target_reconciler in target_reconcilers {
        let (tick, pass) = (context.ticks.follow(&schedule).await?, context.gate.permit());
        loops.push(Box::pin(run_target(
            target_reconciler,
            Arc::clone(&reconciler),
            tick,
            pass,
            stop.clone(),
        )));
    }
    Ok((loops, registration))
}

async fn serve_publication(
    reconciler: Arc<IssuerReconciler>,
    mut publication: watch::Receiver<Option<Arc<Publication>>>,
    served_issuers: Vec<ServedIssuer>,
    stop: CancellationToken,
) {
    loop {
        select! {
            () = stop.cancelled() => return,
            changed = publication.changed() => if changed.is_err() { return },
        }
        show(&reconciler, &mut publication, &served_issuers);
    }
}

/// Serves what is published; only then is the issuer ready.
fn show(
    reconciler: &IssuerReconciler,
    publication: &mut watch::Receiver<Option<Arc<Publication>>>,
    served_issuers: &[ServedIssuer],
) {
    if let Some(publication) = publication.borrow_and_update().as_deref() {
        for served in served_issuers {
            served.show(publication);
        }
        reconciler.status().issuer(&reconciler.spec().terms.issuer, |status| status.ready = true);
    }
}
