//! The running service: a set of loops per issuer, which start and stop while the listeners stay open.
//!
//! A reload reads the configuration again and applies only the differences. A changed issuer keeps its
//! [`Slot`], so its last publication is served until the new loops have another one (`docs/decisions/0017`).

use std::{
    collections::BTreeMap,
    error::Error,
    fs::File,
    net::SocketAddr,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use futures_util::{
    FutureExt as _,
    future::{BoxFuture, join_all},
};
use rustix::process::{Resource, Rlimit, getpid, getrlimit, kill_process, setrlimit};
use tokio::{
    select,
    signal::unix::{Signal, SignalKind, signal},
    sync::mpsc,
    task::JoinSet,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{error, info, warn};

use super::{
    AppError, Shared, all_targets, control_registry::ControlRegistry, ledgers::all_terms,
    scheduler::Scheduler,
};
use crate::{
    blocking, clock,
    config::{Changes, Config, EventsConfig, IssuerConfig, TlsConfig},
    control::Control,
    core::{
        jose::{issuer::Issuer, publication::Terms},
        open_files::OpenFiles,
        text::redaction::error_line,
    },
    http::{
        ListenError, Listener, Server, WhenFull,
        admin::{self, Views},
        documents::{Counters, Routes, Slot},
        tls::{TlsError, TlsFiles, TlsPaths},
    },
    kubernetes::{
        Access,
        events::{Events, Pod},
    },
    reconcile::{concurrency::Concurrency, event_loop::run_events},
    store::{DirectoryInUse, lock_directory, was_locked},
    telemetry::{event_source::EventQueue, issuer_status::Traffic, log, status::StatusStore},
};

mod issuer_tasks;

use self::issuer_tasks::{OnFailure, ServedIssuer, run_issuer};

/// Time limit for all tasks to end after a shutdown signal.
pub(super) const SHUTDOWN: Duration = Duration::from_secs(15);
/// Time after a shutdown signal at which the process exits by force, because something unforeseen blocks it.
const LAST: Duration = Duration::from_secs(19);
/// How long no connection is accepted while ledgers are read: they take milliseconds, unless a store hangs.
const START_PATIENCE: Duration = Duration::from_secs(1);

/// The addresses of a started service.
#[derive(Clone, Debug)]
pub struct Started {
    pub public: SocketAddr,
    pub admin: SocketAddr,
}

/// Reads the configuration again, exactly as at start-up.
#[derive(Clone)]
pub struct ConfigReader(Arc<dyn Fn() -> Result<Config, Refused> + Send + Sync>);

/// Why a configuration is rejected: it cannot be read, or has faults, all named in the error.
type Refused = Box<dyn Error + Send + Sync>;

impl ConfigReader {
    #[must_use]
    pub fn new(read: impl Fn() -> Result<Config, Refused> + Send + Sync + 'static) -> Self {
        Self(Arc::new(read))
    }

    /// Runs off the async threads: it may take long.
    fn begin(&self) -> Reading {
        let read = Arc::clone(&self.0);
        Box::pin(async move {
            let read = blocking::at(Path::new("the configuration"), move || read()).await;
            read.unwrap_or_else(|hangs| Err(hangs.into()))
        })
    }
}

type Reading = BoxFuture<'static, Result<Config, Refused>>;

async fn finished(reading: &mut Option<Reading>) -> Result<Config, Refused> {
    let Some(pending) = reading else { return std::future::pending().await };
    let read = pending.await;
    *reading = None;
    read
}

/// Runs until the process receives a signal to end, or until a component fails.
///
/// `reread` is called for every SIGHUP; without it, SIGHUP ends the process by default. `started` is called
/// once every ledger is read.
///
/// # Errors
///
/// Fails when the service cannot start: another one uses the data directory, an address is in use, the ledger
/// or the keyring of its only issuer cannot be used. With several issuers, the others keep running.
pub async fn run(
    config: Config,
    reread: Option<ConfigReader>,
    started: impl FnOnce(&Started),
) -> Result<(), AppError> {
    let (mut end, mut hangup) = (ShutdownSignal::listen(), listen(SignalKind::hangup()));
    let room = share_open_files(&config);
    let opened = select! {
        () = end.received() => return Ok(()),
        opened = open(&config) => opened?,
    };
    let AcquiredResources { tls, public, admin, control, _held } = opened;
    let addresses = Started { public: public.address(), admin: admin.address() };
    let (starting, mut all_started) = mpsc::channel(1);
    let mut service = Service::new(config, tls).await?;
    // First: whoever connects finds every issuer, and readiness knows of each.
    service.start_all(starting);
    // The first answer is that of the last run. Whoever connects earlier waits.
    let _ = tokio::time::timeout(START_PATIENCE, all_started.recv()).await;
    service.listen(public, admin, control, room);
    let mut started = Some(started);
    let mut reading = None;
    let ended = loop {
        select! {
            () = end.received() => break Ok(()),
            // A SIGHUP during a read waits until the read ends.
            _ = hangup.recv(), if reading.is_none() => match &reread {
                None => break Ok(()),
                Some(reread) => reading = Some(reread.begin()),
            },
            read = finished(&mut reading), if reading.is_some() => service.reload(read).await,
            Some(ended) = service.tasks.join_next() => {
                // Loops end only on request.
                if let Err(error) = ended.expect("no task panics") {
                    break Err(error);
                }
            }
            // All senders are dropped: the last issuer has its ledger.
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

/// Raises the limit of open files to the hard limit, because the usual soft limit is meant for programs that
/// use `select`, and allocates them: every connection is one file.
fn share_open_files(config: &Config) -> OpenFiles {
    let limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
    }
    let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let places = config.issuers.iter().map(|issuer| issuer.sources.len() + all_targets(issuer).count());
    let wanted = config.max_connections.get();
    let room = OpenFiles::share(limit, places.sum(), wanted);
    if room.public < wanted {
        let connections = room.public;
        let hint = format!("raise the limit of open files: `ulimit -n {}`", OpenFiles::needed(&room, wanted));
        warn!(
            open_files = limit,
            max_connections = wanted,
            connections,
            hint,
            "limit of open files is too low"
        );
    }
    room
}

/// What a service acquires before it does anything.
struct AcquiredResources {
    tls: Option<Arc<TlsFiles>>,
    public: Listener,
    admin: Listener,
    control: Control,
    _held: File,
}

async fn open(config: &Config) -> Result<AcquiredResources, AppError> {
    let tls = match &config.tls {
        Some(paths) => Some(tls_files(paths.clone()).await?),
        None => None,
    };
    // A second service on the directory is a better message than a port in use; but no directory is created
    // for a service that cannot start.
    let listeners = bind(config);
    let may_be_made = listeners.is_ok();
    let hold = move |data_dir: &Path| {
        (may_be_made || was_locked(data_dir)).then(|| lock_directory(data_dir)).transpose()
    };
    let held = in_data_dir(config, hold).await??;
    let (public, admin) = listeners?;
    let control = in_data_dir(config, Control::listen).await??;
    Ok(AcquiredResources { tls, public, admin, control, _held: held.expect("there are listeners") })
}

async fn in_data_dir<T: Send + 'static>(
    config: &Config,
    work: impl FnOnce(&Path) -> T + Send + 'static,
) -> Result<T, DirectoryInUse> {
    let data_dir = config.data_dir.clone();
    let done = blocking::at(&config.data_dir, move || work(&data_dir)).await;
    let path = || config.data_dir.display().to_string();
    done.map_err(|hangs| DirectoryInUse::Io { path: path(), source: hangs.into() })
}

fn bind(config: &Config) -> Result<(Listener, Listener), ListenError> {
    Listener::bind_both(config.listen.0, config.admin_listen.0)
}

async fn tls_files(TlsConfig { certificate, private_key }: TlsConfig) -> Result<Arc<TlsFiles>, TlsError> {
    TlsFiles::open(TlsPaths { certificate: certificate.into(), private_key: private_key.into() })
        .await
        .map(Arc::new)
}

/// The Events of the pod that this process runs in.
fn events(config: EventsConfig) -> Events {
    let access = Access::new(config.kubeconfig, config.context);
    let pod = Pod { namespace: config.pod.namespace, name: config.pod.name, uid: config.pod_uid };
    Events::new(access, pod, clock::now())
}

struct Service {
    /// The configuration in use.
    config: Config,
    context: Arc<Context>,
    /// The certificate of the public listener, if configured.
    tls: Option<Arc<TlsFiles>>,
    routes: Routes,
    counters: Arc<Counters>,
    running: BTreeMap<Issuer, Running>,
    tasks: JoinSet<Result<(), AppError>>,
    stop: CancellationToken,
}

/// What the loops of all issuers share.
struct Context {
    shared: Shared,
    ticks: Scheduler,
    gate: Concurrency,
    registry: ControlRegistry,
}

/// An issuer that runs with an unchanged configuration.
struct Running {
    served_issuers: Vec<ServedIssuer>,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Service {
    async fn new(config: Config, tls: Option<Arc<TlsFiles>>) -> Result<Self, AppError> {
        let (mut tasks, stop) = (JoinSet::new(), CancellationToken::new());
        let status_store = match config.events.clone() {
            Some(events) => {
                let queue = EventQueue::default();
                tasks.spawn(run_events(queue.clone(), self::events(events), stop.clone()).map(Ok));
                StatusStore::with_events(queue)
            }
            None => StatusStore::default(),
        };
        let shared = Shared::new(&config.data_dir, status_store);
        shared.status.configuration_read(clock::now());
        let counters = Arc::new(Counters::default());
        let context = Context {
            shared,
            ticks: Scheduler::start().await?,
            gate: Concurrency::default(),
            registry: ControlRegistry::default(),
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

    fn listen(&mut self, public: Listener, operator: Listener, control: Control, room: OpenFiles) {
        let status_store = &self.context.shared.status;
        let stopped = || self.stop.clone().cancelled_owned();
        if let Some(files) = &self.tls {
            self.tasks.spawn(Arc::clone(files).watch(status_store.clone(), stopped()).map(Ok));
        }
        let open = Arc::new(AtomicUsize::new(0));
        let views = views(status_store, &self.counters, &open);
        let (max_connections, tls) = (room.public, self.tls.clone());
        let public = Server { listener: public, max_connections, when_full: WhenFull::Wait, tls, open };
        self.tasks.spawn(public.serve(self.routes.clone(), stopped()).map(Ok));
        let registry = self.context.registry.clone();
        self.tasks.spawn(control.serve(move |request| registry.clone().answer(request), stopped()).map(Ok));
        let operator = Server::of_the_operator(operator, room.operator);
        self.tasks.spawn(operator.serve(admin::service(views), stopped()).map(Ok));
    }

    /// Starts all issuers at once; each serves as soon as its own ledger is read.
    fn start_all(&mut self, starting: mpsc::Sender<()>) {
        let issuers = self.config.issuers.clone();
        let is_only_one = issuers.len() == 1;
        for config in issuers {
            self.context.shared.status.expect(&config.issuer);
            let starting = starting.clone();
            let on_failure =
                if is_only_one { OnFailure::End(starting) } else { OnFailure::Retry(Some(starting)) };
            self.start(config, &mut BTreeMap::new(), on_failure);
        }
        drop(starting);
        self.route();
    }

    /// Starts an issuer; names that were served before keep serving what is in their slot.
    fn start(&mut self, config: IssuerConfig, slots: &mut BTreeMap<Issuer, Slot>, on_failure: OnFailure) {
        let face =
            |terms: Terms| ServedIssuer { slot: slots.remove(&terms.issuer).unwrap_or_default(), terms };
        let served_issuers = all_terms(&config).into_iter().map(face).collect();
        let running = Running { served_issuers, stop: self.stop.child_token(), tasks: TaskTracker::new() };
        let (context, issuer) = (Arc::clone(&self.context), config.issuer.clone());
        context.registry.expect(&issuer);
        let life =
            run_issuer(context, config, running.served_issuers.clone(), running.stop.clone(), on_failure);
        self.tasks.spawn(running.tasks.track_future(life));
        running.tasks.close();
        self.running.insert(issuer, running);
    }

    fn route(&self) {
        let served_issuers = self.running.values().flat_map(|running| &running.served_issuers);
        self.routes.set(served_issuers.map(|served| (served.terms.clone(), served.slot.clone())));
    }

    async fn reload(&mut self, read: Result<Config, Refused>) {
        if let Some(files) = &self.tls {
            files.look();
        }
        let compared = read.and_then(|next| Ok((self.config.changes_to(&next)?, next)));
        let status_store = &self.context.shared.status;
        match compared {
            Ok((changes, next)) => {
                status_store.configuration_read(clock::now());
                self.apply_changes(changes).await;
                self.config = next;
            }
            Err(refused) => {
                let refused = error_line(&*refused);
                // Faults of a file are separated by line breaks.
                let refused = refused.lines().map(str::trim).collect::<Vec<_>>().join("; ");
                status_store.configuration_refused(clock::now(), &refused);
                error!(error = refused, "configuration rejected, keeping the previous one");
            }
        }
    }

    /// Applies the differences to the new configuration.
    async fn apply_changes(&mut self, changes: Changes) {
        let Changes { changed, added, removed } = changes;
        info!(changed = changed.len(), added = added.len(), removed = removed.len(), "configuration read");
        let status_store = self.context.shared.status.clone();
        let mut stopped = Vec::new();
        for issuer in changed.iter().map(|config| &config.issuer).chain(&removed) {
            let running = self.running.remove(issuer).expect("what is configured runs");
            running.stop.cancel();
            stopped.push(running);
        }
        join_all(stopped.iter().map(|running| running.tasks.wait())).await;
        // A moved issuer keeps serving the existing documents of its previous name.
        let served_issuers = stopped.into_iter().flat_map(|running| running.served_issuers);
        let mut slots = served_issuers.map(|served| (served.terms.issuer, served.slot)).collect();
        for issuer in &removed {
            status_store.forget(issuer);
            info!(%issuer, "issuer removed");
        }
        for config in changed {
            info!(issuer = %config.issuer, "issuer changed");
            status_store.reset(&config.issuer);
            self.start(config, &mut slots, OnFailure::Retry(None));
        }
        for config in added {
            info!(issuer = %config.issuer, "issuer added");
            status_store.expect_late(&config.issuer);
            self.start(config, &mut slots, OnFailure::Retry(None));
        }
        self.route();
        if let Err(error) = self.context.ticks.remove_unused().await {
            error!(error = error_line(&error), "cannot remove old schedules");
        }
    }

    async fn stop(mut self) -> Result<(), AppError> {
        self.stop.cancel();
        let drained = async { while self.tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(SHUTDOWN, drained).await.is_err() {
            error!("some tasks did not stop in time");
        }
        Ok(self.context.ticks.clone().stop().await?)
    }
}

fn views(status_store: &StatusStore, counters: &Arc<Counters>, open: &Arc<AtomicUsize>) -> Views {
    let (metrics, counters, open) = (status_store.clone(), Arc::clone(counters), Arc::clone(open));
    let traffic = move || Traffic { requests: counters.totals(), connections: open.load(Ordering::Relaxed) };
    let (status, ready, checks) = (status_store.clone(), status_store.clone(), status_store.clone());
    Views {
        metrics: Arc::new(move || metrics.metrics(Some(traffic()))),
        status: Arc::new(move || status.status()),
        ready: Arc::new(move || ready.ready()),
        checks: Arc::new(move |all| checks.checks(all)),
    }
}

/// The signals that end the process.
pub(super) struct ShutdownSignal {
    terminate: Signal,
    interrupt: Signal,
}

impl ShutdownSignal {
    /// Listens from now on, and guarantees that the process ends whatever blocks.
    pub(super) fn listen() -> Self {
        thread::Builder::new()
            .name("end".to_owned())
            .spawn(exit_after_deadline)
            .expect("threads are to be had");
        Self::signals()
    }

    fn signals() -> Self {
        Self { terminate: listen(SignalKind::terminate()), interrupt: listen(SignalKind::interrupt()) }
    }

    pub(super) async fn received(&mut self) {
        select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// Exits the process some time after the signal, on a separate thread and runtime that the service cannot
/// block.
fn exit_after_deadline() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a thread and a pipe are to be had").block_on(async {
        ShutdownSignal::signals().received().await;
        tokio::time::sleep(LAST).await;
    });
    error!(waiting_in = blocked_paths(), "forced exit");
    log::flush();
    let _ = kill_process(getpid(), rustix::process::Signal::KILL);
}

/// Describes where threads currently wait for files.
fn blocked_paths() -> String {
    let places: Vec<_> = blocking::places().iter().map(|place| format!("`{}`", place.display())).collect();
    places.join(", ")
}

/// Listens from now on: signals before the first poll are not lost.
fn listen(kind: SignalKind) -> Signal {
    signal(kind).expect("signals can be listened to")
}
