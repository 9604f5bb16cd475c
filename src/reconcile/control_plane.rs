//! Polls the API servers of one cluster, whichever they are at the moment.
//!
//! The cluster lists them ([`Cluster`]), [`core`](crate::core::control_plane) decides which ones are polled,
//! and each of them has its own loop ([`source_loop`](super::source_loop)).

use std::{
    collections::{BTreeMap, BTreeSet},
    convert::Infallible,
    sync::Arc,
    time::Duration,
};

use futures_util::{StreamExt as _, stream::FuturesUnordered};
use tokio::{
    select,
    sync::mpsc,
    task::JoinSet,
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{
    concurrency::Concurrency,
    issuer::{Endpoints, IssuerReconciler},
    source_loop::{FastPoll, first_reads, poll},
    source_poll::{Checks, SourcePoller},
};
use crate::{
    clock,
    core::{
        control_plane::{self as core, MEMBERSHIP_GRACE, Member},
        jose::issuer::Issuer,
        text::{Hint, redaction::error_line},
    },
    source::{
        FetchError,
        cluster::{Cluster, Listing, Starts},
    },
    telemetry::FailureLog,
};

/// Time between two attempts at API servers that were never reached, while the URL does not answer either.
const TRY_AGAIN: Duration = Duration::from_secs(1);

/// A cluster that lists its own API servers.
pub struct ControlPlane {
    cluster: Cluster,
    every: Duration,
    checks: Checks,
}

impl ControlPlane {
    #[must_use]
    pub fn new(cluster: Cluster, every: Duration, checks: Checks) -> Self {
        Self { cluster, every, checks }
    }

    fn name_of(&self, member: &Member) -> String {
        match member {
            Member::Fallback => self.cluster.name().to_owned(),
            Member::Instance(url) => self.cluster.name_of(url),
        }
    }

    fn poller(&self, member: &Member) -> SourcePoller {
        let source = match member {
            Member::Fallback => self.cluster.at_its_url(),
            Member::Instance(url) => self.cluster.instance(url),
        };
        SourcePoller::new(source, self.every, self.checks.clone())
    }

    /// Finds the API servers for a single reconciliation, which cannot wait for a second list.
    pub(super) async fn find(&self, issuer: &Issuer) -> (Endpoints, Vec<SourcePoller>) {
        let now = clock::now();
        let mut known = core::ControlPlane::default();
        let mut said = Logged::default();
        let listing = self.cluster.list().await;
        let all = !matches!(listing, Listing::Failed(_));
        self.take(&mut known, &mut said, listing, issuer);
        self.try_all(&mut known).await.ok();
        let members = known.members(now);
        let names = members.iter().map(|member| self.name_of(member)).collect();
        (Endpoints { names, all, verify: true }, members.iter().map(|member| self.poller(member)).collect())
    }

    /// Tries API servers that were never reached; fails if none answers.
    async fn try_all(&self, known: &mut core::ControlPlane) -> Result<(), FetchError> {
        let urls = known.tries();
        let mut answers: FuturesUnordered<_> =
            urls.iter().map(async |url| (url, self.cluster.instance(url).fetch().await)).collect();
        let mut failure = None;
        while let Some((url, answer)) = answers.next().await {
            match answer {
                Ok(_) => {
                    known.record_poll(&Member::Instance(url.clone()), true, clock::now());
                    return Ok(());
                }
                Err(error) => failure = Some(error),
            }
        }
        known.record_unreachable(clock::now());
        failure.map_or(Ok(()), Err)
    }

    /// Applies a list of API servers, or the reason why there is none.
    fn take(&self, known: &mut core::ControlPlane, said: &mut Logged, listing: Listing, issuer: &Issuer) {
        let now = clock::now();
        let source = self.cluster.name();
        match listing {
            Listing::Listed(urls) => {
                known.listed(urls, now);
                said.over();
            }
            Listing::Unwatched(error) => said.once(&error.to_string(), |text| {
                warn!(%issuer, source, error = text, hint = error.hint(), "cannot watch API servers, new \
                    ones are detected late");
            }),
            Listing::Refused(error) => {
                known.listed(BTreeSet::new(), now);
                said.once(&error.to_string(), |text| {
                    warn!(%issuer, source, error = text, hint = error.hint(), "cannot list the API servers, \
                        polling only the configured URL");
                });
            }
            Listing::Failed(error) => {
                known.listing_lost();
                said.in_time(&error_line(&error), |text| {
                    warn!(%issuer, source, error = text, hint = error.hint(), "cannot watch the API servers");
                });
            }
        }
    }
}

/// Follows the API servers of a cluster until `stop`, polls each, and passes their observations to the
/// reconciler.
pub async fn watch_control_plane(
    plane: ControlPlane,
    source: usize,
    reconciler: Arc<IssuerReconciler>,
    gate: Concurrency,
    stop: CancellationToken,
) {
    let hurry = FastPoll::new();
    let (listings, listed) = mpsc::unbounded_channel();
    let issuer = &reconciler.spec().terms.issuer;
    let lists = plane.cluster.follow(|listing| {
        if matches!(listing, Listing::Failed(_)) {
            hurry.request();
        }
        // The receiver lives as long as this.
        let _ = listings.send(listing);
    });
    let asking = async {
        first_reads(&reconciler).await;
        poll_members(&plane, source, &reconciler, &gate, &hurry, listed).await
    };
    select! {
        () = stop.cancelled() => {}
        never = lists => match never {},
        never = watch_starts(&plane, issuer, &hurry) => match never {},
        never = asking => match never {},
    }
}

/// Requests fast polls whenever an API server has started, and while starts cannot be observed.
async fn watch_starts(plane: &ControlPlane, issuer: &Issuer, hurry: &FastPoll) -> Infallible {
    let source = plane.cluster.name();
    let mut known: Option<BTreeMap<String, String>> = None;
    let mut said = Logged::default();
    let notice = |starts| match starts {
        Starts::Known(identities) => {
            let is_new =
                |(name, identity)| known.as_ref().is_some_and(|known| known.get(name) != Some(identity));
            if identities.iter().any(is_new) {
                hurry.started();
            }
            known = Some(identities);
            said.over();
        }
        Starts::Refused(error) => said.once(&error.to_string(), |text| {
            warn!(%issuer, source, error = text, hint = error.hint(), "cannot watch starts of API servers, \
                relying on lost connections and polls");
        }),
        Starts::Failed(error) => {
            hurry.request();
            said.in_time(&error_line(&error), |text| {
                warn!(%issuer, source, error = text, hint = error.hint(), "cannot watch starts of API servers");
            });
        }
    };
    plane.cluster.follow_starts(notice).await
}

/// Runs one loop for each API server that is to be polled.
async fn poll_members(
    plane: &ControlPlane,
    source: usize,
    reconciler: &Arc<IssuerReconciler>,
    gate: &Concurrency,
    hurry: &FastPoll,
    mut listings: mpsc::UnboundedReceiver<Listing>,
) -> Infallible {
    let issuer = &reconciler.spec().terms.issuer;
    let (answers, mut answered) = mpsc::unbounded_channel();
    let mut known = core::ControlPlane::default();
    let mut loops: BTreeMap<Member, JoinSet<()>> = BTreeMap::new();
    let mut told = Endpoints::unknown();
    let (mut said, mut reach) = (Logged::default(), Logged::default());
    let mut next_try = Instant::now();
    let mut unreached: Option<String> = None;
    loop {
        if !known.tries().is_empty() && next_try <= Instant::now() {
            let tried = Box::pin(plane.try_all(&mut known)).await;
            unreached = tried.err().map(|error| error_line(&error));
            let wait = if known.is_out_of_reach(clock::now()) { MEMBERSHIP_GRACE } else { TRY_AGAIN };
            next_try = Instant::now() + wait;
        }
        let now = clock::now();
        let members = known.members(now);
        for (member, mut gone) in loops.extract_if(.., |member, _| !members.contains(member)) {
            gone.shutdown().await;
            info!(%issuer, source = plane.name_of(&member), "API server is no longer polled");
        }
        let names = members.iter().map(|member| plane.name_of(member)).collect();
        let endpoints = Endpoints { names, all: known.is_settled(now), verify: true };
        if endpoints != told {
            reconciler.set_endpoints(source, &endpoints).await;
            told = endpoints;
        }
        for member in members {
            loops.entry(member.clone()).or_insert_with(|| {
                let (asked, answers) = (plane.poller(&member), answers.clone());
                let (reconciler, pass, pace) = (Arc::clone(reconciler), gate.permit(), hurry.rate());
                let mut task = JoinSet::new();
                task.spawn(async move {
                    // The receiver lives as long as this.
                    let tell = |answered| drop(answers.send((member.clone(), answered)));
                    match poll(asked, source, &reconciler, pass, Some(pace), tell).await {}
                });
                task
            });
        }
        if known.is_out_of_reach(now) {
            let hint = "name API servers that can be reached in `instances`, or set `discover: false`";
            reach.once(unreached.as_deref().unwrap_or("no answer"), |error| {
                warn!(%issuer, source = plane.cluster.name(), error, hint, "the API servers that the cluster \
                    lists are not reachable from here, polling only the configured URL");
            });
        }
        let change = async {
            let tries = (!known.tries().is_empty()).then_some(next_try);
            let changes =
                known.next_change(now).map(|at| Instant::now() + at.duration_since(now).unsigned_abs());
            match tries.into_iter().chain(changes).min() {
                Some(at) => sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        select! {
            Some(listing) = listings.recv() => plane.take(&mut known, &mut said, listing, issuer),
            Some((member, answer)) = answered.recv() => known.record_poll(&member, answer, clock::now()),
            () = change => {}
        }
    }
}

/// What was logged, so that it is logged once.
#[derive(Default)]
struct Logged {
    note: FailureLog,
    trouble: Option<Instant>,
    told: bool,
}

impl Logged {
    /// Logs a lasting problem once.
    fn once(&mut self, text: &str, say: impl FnOnce(&str)) {
        if self.note.record_failure(text) {
            say(text);
        }
    }

    /// Logs a problem once it has lasted for [`MEMBERSHIP_GRACE`]: an API server that restarts is away for a moment.
    fn in_time(&mut self, text: &str, say: impl FnOnce(&str)) {
        let lasts = self.trouble.get_or_insert_with(Instant::now).elapsed() >= MEMBERSHIP_GRACE;
        if lasts && !self.told {
            say(text);
            self.told = true;
        }
    }

    /// The problem is over.
    fn over(&mut self) {
        self.trouble = None;
        self.told = false;
    }
}
