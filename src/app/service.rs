//! The running service: a set of loops per issuer, which come and go while the listeners stay.
//!
//! A reload reads the configuration anew and touches only what differs. An issuer that changes keeps its
//! [`Slot`], so its last publication is served until the new loops have another one
//! (`docs/decisions/0017`).

use std::{
    collections::BTreeMap,
    error::Error,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures_util::{FutureExt as _, future::join_all};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::{
    select,
    signal::unix::{Signal, SignalKind, signal},
    sync::mpsc,
    task::{JoinHandle, JoinSet},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{error, info};

use super::{AppError, Shared, control::Offices, ledgers::all_terms, ticks::Ticks};
use crate::{
    clock,
    config::{Changes, Config, EventsConfig, IssuerConfig, TlsConfig},
    control::Control,
    core::{issuer::Issuer, publication::Terms},
    events::{Events, Pod},
    http::{
        ListenError, Listener, Server,
        admin::{self, Views},
        documents::{Counters, Routes, Slot},
        tls::{TlsError, TlsFiles, TlsPaths},
    },
    kubernetes::Access,
    store::{hold_directory, was_held},
    telemetry::{
        board::{Board, Traffic},
        notices::Notices,
    },
    workflow::{asking::in_one_line, gate::Gate, telling::tell},
};

mod life;

use self::life::{Face, OnFailure, live};

/// Time that all tasks together get to end in, once the process is told to.
pub(super) const SHUTDOWN: Duration = Duration::from_secs(15);
/// The addresses of a service that has started.
#[derive(Clone, Debug)]
pub struct Started {
    pub public: SocketAddr,
    pub admin: SocketAddr,
}

/// Reads the configuration again, exactly as at the start.
#[derive(Clone)]
pub struct Reread(Arc<dyn Fn() -> Result<Config, Refused> + Send + Sync>);

/// Why a configuration is not taken: it cannot be read, or has faults, which the error all names.
type Refused = Box<dyn Error + Send + Sync>;

impl Reread {
    #[must_use]
    pub fn new(read: impl Fn() -> Result<Config, Refused> + Send + Sync + 'static) -> Self {
        Self(Arc::new(read))
    }

    /// Off the async threads: it may be long.
    fn begin(&self) -> JoinHandle<Result<Config, Refused>> {
        let read = Arc::clone(&self.0);
        tokio::task::spawn_blocking(move || read())
    }
}

async fn finished(reading: &mut Option<JoinHandle<Result<Config, Refused>>>) -> Result<Config, Refused> {
    let Some(handle) = reading else { return std::future::pending().await };
    let read = handle.await.expect("reading a configuration does not panic");
    *reading = None;
    read
}

/// Runs until the process is told to end, or until a part of it breaks.
///
/// `reread` is called for every SIGHUP; without it there is nothing to read again, and a SIGHUP ends the
/// process as it does any other. `started` is called once every ledger is read.
///
/// # Errors
///
/// Fails when the service cannot start: another one runs on the data directory, an address is in use, the ledger or
/// the keyring of its only issuer cannot be used. Of several issuers, the others go on.
pub async fn run(
    config: Config,
    reread: Option<Reread>,
    started: impl FnOnce(&Started),
) -> Result<(), AppError> {
    let (mut end, mut hangup) = (End::listen(), listen(SignalKind::hangup()));
    raise_open_files();
    let tls = config.tls.clone().map(tls_files).transpose()?;
    // Another service on the directory says more than its listening on the port; but a directory is not
    // made for a service that cannot start.
    let listeners = bind(&config);
    let _held = match &listeners {
        Err(_) if !was_held(&config.data_dir) => None,
        _ => Some(hold_directory(&config.data_dir)?),
    };
    let (public, admin) = listeners?;
    let addresses = Started { public: public.address(), admin: admin.address() };
    let control = Control::listen(&config.data_dir)?;
    let (starting, mut all_started) = mpsc::channel(1);
    let mut service = Service::new(config, tls).await?;
    service.listen(public, admin, control);
    service.start_all(starting);
    let mut started = Some(started);
    let mut reading = None;
    let ended = loop {
        select! {
            () = end.told() => break Ok(()),
            // One that comes while the file is read waits for its turn.
            _ = hangup.recv(), if reading.is_none() => match &reread {
                None => break Ok(()),
                Some(reread) => reading = Some(reread.begin()),
            },
            read = finished(&mut reading), if reading.is_some() => service.reload(read).await,
            Some(ended) = service.tasks.join_next() => {
                // Loops only end when they are told to; whoever told them knows.
                if let Err(error) = ended.expect("no task panics") {
                    break Err(error);
                }
            }
            // Nobody sends: it ends when the last issuer has its ledger.
            None = all_started.recv(), if started.is_some() => {
                info!(public = %addresses.public, admin = %addresses.admin, "started");
                if let Some(started) = started.take() {
                    started(&addresses);
                }
            }
        }
    };
    info!("stopping");
    service.stop().await?;
    info!("stopped");
    ended
}

/// Takes all the open files that the process may have: every connection is one, and the usual soft limit is
/// meant for programs that use `select`. Without it the service works too.
fn raise_open_files() {
    let limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
    }
}

fn bind(config: &Config) -> Result<(Listener, Listener), ListenError> {
    Ok((Listener::bind(config.listen)?, Listener::bind(config.admin_listen)?))
}

fn tls_files(paths: TlsConfig) -> Result<Arc<TlsFiles>, TlsError> {
    let TlsConfig { certificate, private_key } = paths;
    TlsFiles::open(TlsPaths { certificate, private_key }).map(Arc::new)
}

/// The Events of the pod that this process runs in.
fn events(config: EventsConfig) -> Events {
    let access = Access { kubeconfig: config.kubeconfig, context: config.context, ..Access::default() };
    let pod = Pod { namespace: config.namespace, name: config.pod, uid: config.pod_uid };
    Events::new(access, pod, clock::now())
}

struct Service {
    /// The configuration in use.
    config: Config,
    context: Arc<Context>,
    /// The certificate of the public listener, if it has one.
    tls: Option<Arc<TlsFiles>>,
    routes: Routes,
    counters: Arc<Counters>,
    running: BTreeMap<Issuer, Running>,
    tasks: JoinSet<Result<(), AppError>>,
    stop: CancellationToken,
}

/// What the loops of all issuers have in common.
struct Context {
    shared: Shared,
    ticks: Ticks,
    gate: Gate,
    offices: Offices,
}

/// An issuer as long as it is configured alike.
struct Running {
    faces: Vec<Face>,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Service {
    async fn new(config: Config, tls: Option<Arc<TlsFiles>>) -> Result<Self, AppError> {
        let (mut tasks, stop) = (JoinSet::new(), CancellationToken::new());
        let board = match config.events.clone() {
            Some(events) => {
                let notices = Notices::default();
                tasks.spawn(tell(notices.clone(), self::events(events), stop.clone()).map(Ok));
                Board::telling(notices)
            }
            None => Board::default(),
        };
        let shared = Shared::new(&config.data_dir, board);
        shared.board.configuration_read(clock::now());
        let counters = Arc::new(Counters::default());
        let context = Context {
            shared,
            ticks: Ticks::start().await?,
            gate: Gate::default(),
            offices: Offices::default(),
        };
        Ok(Self {
            config,
            context: Arc::new(context),
            tls,
            routes: Routes::new(Arc::clone(&counters)),
            counters,
            running: BTreeMap::new(),
            tasks,
            stop,
        })
    }

    fn listen(&mut self, public: Listener, operator: Listener, control: Control) {
        let board = &self.context.shared.board;
        let stopped = || self.stop.clone().cancelled_owned();
        if let Some(files) = &self.tls {
            self.tasks.spawn(Arc::clone(files).watch(board.clone(), stopped()).map(Ok));
        }
        let open = Arc::new(AtomicUsize::new(0));
        let views = views(board, &self.counters, &open);
        let (max_connections, tls) = (self.config.max_connections, self.tls.clone());
        let public = Server { listener: public, max_connections, tls, open };
        self.tasks.spawn(public.serve(self.routes.clone(), stopped()).map(Ok));
        let offices = self.context.offices.clone();
        self.tasks.spawn(control.serve(move |request| offices.clone().answer(request), stopped()).map(Ok));
        let operator = Server::of_the_operator(operator);
        self.tasks.spawn(operator.serve(admin::service(views), stopped()).map(Ok));
    }

    /// Starts every issuer at once; each serves as soon as its own ledger is read.
    fn start_all(&mut self, starting: mpsc::Sender<()>) {
        let issuers = self.config.issuers.clone();
        let is_only_one = issuers.len() == 1;
        for config in issuers {
            self.context.shared.board.expect(&config.issuer);
            let starting = starting.clone();
            let on_failure =
                if is_only_one { OnFailure::End(starting) } else { OnFailure::Retry(Some(starting)) };
            self.start(config, &mut BTreeMap::new(), on_failure);
        }
        drop(starting);
        self.route();
    }

    /// Starts an issuer; names that were served before go on to show what is in their slot.
    fn start(&mut self, config: IssuerConfig, slots: &mut BTreeMap<Issuer, Slot>, on_failure: OnFailure) {
        let face = |terms: Terms| Face { slot: slots.remove(&terms.issuer).unwrap_or_default(), terms };
        let faces = all_terms(&config).into_iter().map(face).collect();
        let running = Running { faces, stop: self.stop.child_token(), tasks: TaskTracker::new() };
        let (context, issuer) = (Arc::clone(&self.context), config.issuer.clone());
        context.offices.expect(&issuer);
        let life = live(context, config, running.faces.clone(), running.stop.clone(), on_failure);
        self.tasks.spawn(running.tasks.track_future(life));
        running.tasks.close();
        self.running.insert(issuer, running);
    }

    fn route(&self) {
        let faces = self.running.values().flat_map(|running| &running.faces);
        self.routes.set(faces.map(|face| (face.terms.issuer.clone(), face.slot.clone())));
    }

    async fn reload(&mut self, read: Result<Config, Refused>) {
        if let Some(files) = &self.tls {
            files.look();
        }
        let compared = read.and_then(|next| Ok((self.config.changes_to(&next)?, next)));
        let board = &self.context.shared.board;
        match compared {
            Ok((changes, next)) => {
                board.configuration_read(clock::now());
                self.take(changes).await;
                self.config = next;
            }
            Err(refused) => {
                let refused = in_one_line(&*refused);
                // Faults of a file are listed in lines.
                let refused = refused.lines().map(str::trim).collect::<Vec<_>>().join("; ");
                board.configuration_refused(clock::now(), &refused);
                error!(error = refused, "configuration refused, the old one goes on");
            }
        }
    }

    /// Carries out what sets the new configuration apart.
    async fn take(&mut self, changes: Changes) {
        let Changes { changed, added, removed } = changes;
        info!(changed = changed.len(), added = added.len(), removed = removed.len(), "configuration read");
        let board = self.context.shared.board.clone();
        let mut stopped = Vec::new();
        for issuer in changed.iter().map(|config| &config.issuer).chain(&removed) {
            let running = self.running.remove(issuer).expect("what is configured runs");
            running.stop.cancel();
            stopped.push(running);
        }
        join_all(stopped.iter().map(|running| running.tasks.wait())).await;
        // An issuer that is moved serves its former name from what was there.
        let faces = stopped.into_iter().flat_map(|running| running.faces);
        let mut slots = faces.map(|face| (face.terms.issuer, face.slot)).collect();
        for issuer in &removed {
            board.forget(issuer);
            info!(%issuer, "issuer removed");
        }
        for config in changed {
            info!(issuer = %config.issuer, "issuer changed");
            board.start_over(&config.issuer);
            self.start(config, &mut slots, OnFailure::Retry(None));
        }
        for config in added {
            info!(issuer = %config.issuer, "issuer added");
            board.expect_late(&config.issuer);
            self.start(config, &mut slots, OnFailure::Retry(None));
        }
        self.route();
        if let Err(error) = self.context.ticks.tidy().await {
            error!(error = in_one_line(&error), "schedules not tidied");
        }
    }

    async fn stop(mut self) -> Result<(), AppError> {
        self.stop.cancel();
        let drained = async { while self.tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(SHUTDOWN, drained).await.is_err() {
            error!("some tasks did not end in time");
        }
        Ok(self.context.ticks.clone().stop().await?)
    }
}

fn views(board: &Board, counters: &Arc<Counters>, open: &Arc<AtomicUsize>) -> Views {
    let (metrics, counters, open) = (board.clone(), Arc::clone(counters), Arc::clone(open));
    let traffic = move || Traffic { requests: counters.totals(), connections: open.load(Ordering::Relaxed) };
    let (status, ready, checks) = (board.clone(), board.clone(), board.clone());
    Views {
        metrics: Arc::new(move || metrics.metrics(Some(traffic()))),
        status: Arc::new(move || status.status()),
        ready: Arc::new(move || ready.ready()),
        checks: Arc::new(move |all| checks.checks(all)),
    }
}

/// The signals that end the process.
pub(super) struct End {
    terminate: Signal,
    interrupt: Signal,
}

impl End {
    pub(super) fn listen() -> Self {
        Self { terminate: listen(SignalKind::terminate()), interrupt: listen(SignalKind::interrupt()) }
    }

    pub(super) async fn told(&mut self) {
        select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// Listens from now on: what comes before it is looked at is not lost.
fn listen(kind: SignalKind) -> Signal {
    signal(kind).expect("signals can be listened to")
}
