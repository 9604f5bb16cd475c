//! Wiring: the only place that constructs edges and joins tasks.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use futures_util::FutureExt as _;
use tokio::{
    select,
    signal::unix::{SignalKind, signal},
    sync::watch,
    task::JoinSet,
};
use tokio_cron_scheduler::{Job, JobScheduler, JobSchedulerError};
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

use crate::{
    clock,
    config::{self, Config, EventsConfig, IssuerConfig, KeysConfig, SourceConfig, TargetConfig},
    core::{
        issuer::Issuer,
        jwk::Jwk,
        ledger::Retention,
        publication::{NothingToPublish, Publication, Terms, sha256_hex},
    },
    events::{Events, Pod},
    http::{
        ListenError, Listener,
        admin::{self, Status, Views},
        documents::{self, Counters, Slot},
    },
    kubernetes::Access,
    signer::{Keyring, KeyringError},
    source::{Source, api_server::ApiServer, key_file::KeyFiles},
    store::{DirectoryInUse, FileStore, LedgerStore, StoreError, hold_directory, was_held},
    target::{CannotConnect, Connections, Location, Target, TargetError},
    telemetry::{board::Board, notices::Notices},
    workflow::{
        asking::{AskError, Asked, Checks},
        keeper::{Charter, Keeper},
        placing::Placer,
        sync::{self, Pass, Plan},
        telling::tell,
        watching::{watch_source, watch_target},
    },
};

pub mod evidence;
pub mod ledgers;
pub mod tokens;

/// Time that all tasks together get to end in, once the process is told to.
const SHUTDOWN: Duration = Duration::from_secs(15);

/// The addresses of a service that has started.
#[derive(Clone, Debug)]
pub struct Started {
    pub public: std::net::SocketAddr,
    pub admin: std::net::SocketAddr,
}

/// One issuer with all its edges.
struct Wired {
    keeper: Arc<Keeper>,
    asked: Vec<Asked>,
    placers: Vec<Placer>,
}

/// How a set of edges will be used.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Use {
    Serve,
    Sync { adopt: bool },
    DryRun,
}

/// Runs until the process is told to end, or until a part of it breaks.
///
/// `started` is called once both listeners are bound and every ledger is read.
///
/// # Errors
///
/// Fails when the service cannot start: another one runs on the data directory, an address is in use,
/// a ledger or the keyring cannot be used.
pub async fn run(config: Config, started: impl FnOnce(&Started)) -> Result<(), AppError> {
    // Another service on the directory says more than its listening on the port; but a directory is not
    // made for a service that cannot start.
    let listeners = bind(&config);
    let _held = match &listeners {
        Err(_) if !was_held(&config.data_dir) => None,
        _ => Some(hold_directory(&config.data_dir)?),
    };
    let (public, operator) = listeners?;
    let stop = CancellationToken::new();
    let mut tasks: JoinSet<Result<(), AppError>> = JoinSet::new();
    let board = match config.events {
        Some(events) => {
            let notices = Notices::default();
            tasks.spawn(tell(notices.clone(), self::events(events), stop.clone()).map(Ok));
            Board::telling(notices)
        }
        None => Board::default(),
    };
    let mut slots = Vec::new();
    let mut scheduler = JobScheduler::new().await?;
    for issuer in config.issuers {
        let (name, schedule) = (issuer.issuer.clone(), issuer.schedule.as_six_fields());
        let wired = wire(issuer, &config.data_dir, &board, Use::Serve).await?;
        let slot = Slot::default();
        tasks.spawn(serve_publication(wired.keeper.publication(), slot.clone(), stop.clone()));
        slots.push((name, slot));
        let tick = schedule_ticks(&scheduler, &schedule).await?;
        for (source, asked) in wired.asked.into_iter().enumerate() {
            let watched = watch_source(asked, source, Arc::clone(&wired.keeper), stop.clone());
            tasks.spawn(watched.map(Ok));
        }
        for placer in wired.placers {
            let watched = watch_target(placer, Arc::clone(&wired.keeper), tick.clone(), stop.clone());
            tasks.spawn(watched.map(Ok));
        }
    }
    let counters = Arc::new(Counters::default());
    let addresses = Started { public: public.address(), admin: operator.address() };
    let (documents, views) = (documents::router(slots, Arc::clone(&counters)), views(&board, counters));
    let (stopped, stopping) = (stop.clone(), stop.clone());
    tasks.spawn(async move { Ok(public.serve(documents, stopped.cancelled_owned()).await?) });
    tasks.spawn(async move { Ok(operator.serve(admin::router(views), stopping.cancelled_owned()).await?) });
    scheduler.start().await?;
    info!(public = %addresses.public, admin = %addresses.admin, "started");
    started(&addresses);
    let ended = select! {
        () = told_to_end() => Ok(()),
        ended = tasks.join_next() => ended.expect("there are tasks").expect("no task panics"),
    };
    info!("stopping");
    stop.cancel();
    let drained = tokio::time::timeout(SHUTDOWN, async { while tasks.join_next().await.is_some() {} }).await;
    if drained.is_err() {
        error!("some tasks did not end in time");
    }
    scheduler.shutdown().await?;
    info!("stopped");
    ended
}

/// The Events of the pod that this process runs in.
fn events(config: EventsConfig) -> Events {
    let access = Access { kubeconfig: config.kubeconfig, context: config.context, ..Access::default() };
    let pod = Pod { namespace: config.namespace, name: config.pod, uid: config.pod_uid };
    Events::new(access, pod, clock::now())
}

fn bind(config: &Config) -> Result<(Listener, Listener), ListenError> {
    Ok((Listener::bind(config.listen)?, Listener::bind(config.admin_listen)?))
}

/// Does everything once, issuer after issuer; beside a running service too (`docs/decisions/0010`).
///
/// # Errors
///
/// Fails when a ledger, the keyring or an address cannot be used; sources and targets that fail are
/// part of the result.
pub async fn sync(config: Config, adopt: bool) -> Result<Vec<(Issuer, Pass)>, AppError> {
    let mut passes = Vec::new();
    for issuer in config.issuers {
        let name = issuer.issuer.clone();
        let mut wired = wire(issuer, &config.data_dir, &Board::default(), Use::Sync { adopt }).await?;
        let pass = sync::sync(&wired.keeper, &mut wired.asked, &mut wired.placers, adopt).await?;
        passes.push((name, pass));
    }
    Ok(passes)
}

/// Finds out what [`sync()`] would do.
///
/// # Errors
///
/// As [`sync()`].
pub async fn plan(config: Config) -> Result<Vec<(Issuer, Plan)>, AppError> {
    let mut plans = Vec::new();
    for issuer in config.issuers {
        let name = issuer.issuer.clone();
        let mut wired = wire(issuer, &config.data_dir, &Board::default(), Use::DryRun).await?;
        plans.push((name, sync::plan(&wired.keeper, &mut wired.asked, &wired.placers).await?));
    }
    Ok(plans)
}

/// What `jwks` prints: a publication, or keys alone where no issuer is known.
pub struct Keys {
    pub keys: Vec<Jwk>,
    pub publication: Option<Publication>,
    pub notes: Vec<String>,
}

/// Reads the sources once and renders what they list; nothing is stored.
///
/// # Errors
///
/// Fails when a source does, and when there is nothing to print.
pub async fn keys(config: KeysConfig) -> Result<Keys, AppError> {
    let mut keys = Vec::new();
    let mut notes = Vec::new();
    for mut source in sources(&config.sources, &config.data_dir, config.issuer.as_ref(), Use::DryRun).await? {
        let fetched = source.fetch().await?;
        notes.extend(fetched.notes.iter().map(|note| format!("{}: {note}", source.name())));
        keys.extend(fetched.keys);
    }
    // Without an issuer the keys are rendered alike; its name stands in the discovery document alone.
    let placeholder = || Issuer::parse("https://issuer.invalid").expect("valid");
    let issuer = config.issuer.clone().unwrap_or_else(placeholder);
    let jwks_uri = config.jwks_uri.unwrap_or_else(|| issuer.jwks_uri());
    let terms = Terms { jwks_uri, issuer, max_age: Duration::ZERO };
    let publication = Publication::render(&terms, config.profile, keys)?;
    let keys = publication.keys().iter().cloned().collect();
    Ok(Keys { keys, publication: config.issuer.map(|_| publication), notes })
}

async fn wire(issuer: IssuerConfig, data_dir: &Path, board: &Board, usage: Use) -> Result<Wired, AppError> {
    let profiles = issuer.targets.iter().map(|target| target.profile).chain([issuer.profile]).collect();
    let expected = (!issuer.allow_issuer_mismatch).then_some(&issuer.issuer);
    let asked = sources(&issuer.sources, data_dir, expected, usage).await?;
    let terms =
        Terms { issuer: issuer.issuer.clone(), jwks_uri: issuer.jwks_uri, max_age: issuer.jwks_max_age };
    let charter = Charter {
        terms: terms.clone(),
        profile: issuer.profile,
        retention: Retention {
            max_token_lifetime: issuer.max_token_lifetime,
            margin: issuer.margin,
            profiles,
        },
        serves: usage == Use::Serve,
    };
    let connections = Connections::new()?;
    let adopt = usage == Use::Sync { adopt: true };
    let placers: Result<Vec<_>, TargetError> = issuer
        .targets
        .into_iter()
        .map(|target| {
            let profile = target.profile;
            Ok(Placer::new(self::target(target, &connections)?, profile, terms.clone(), adopt))
        })
        .collect();
    let placers = placers?;
    let store = LedgerStore::new(FileStore::new(ledger_directory(data_dir, &issuer.issuer)), issuer.issuer);
    let names = asked.iter().map(|asked| asked.name().to_owned());
    let keeper = Keeper::open(charter, names, store, board.clone()).await?;
    Ok(Wired { keeper: Arc::new(keeper), asked, placers })
}

fn target(config: TargetConfig, connections: &Connections) -> Result<Target, TargetError> {
    let location = match config.location {
        config::Location::Azure { account, container, prefix, endpoint } => {
            Location::Azure { account, container, prefix, endpoint }
        }
        config::Location::S3 { bucket, prefix, endpoint } => Location::S3 { bucket, prefix, endpoint },
        config::Location::Directory(path) => Location::Directory(path),
    };
    Target::new(config.name, location, config.public_url.as_deref(), connections)
}

async fn sources(
    configs: &[SourceConfig],
    data_dir: &Path,
    issuer: Option<&Issuer>,
    usage: Use,
) -> Result<Vec<Asked>, AppError> {
    let unchecked = Checks { issuer: None, probe: None };
    let mut asked = Vec::new();
    for config in configs {
        match config {
            SourceConfig::ApiServer { name, kubeconfig, context, instances, probe, every } => {
                let access =
                    Access { kubeconfig: kubeconfig.clone(), context: context.clone(), ..Access::default() };
                let checks = Checks { issuer: issuer.cloned(), probe: probe.clone() };
                let mut connect = |name, access| {
                    let server = Source::ApiServer(Box::new(ApiServer::new(name, access)));
                    asked.push(Asked::new(server, *every, checks.clone()));
                };
                if instances.is_empty() {
                    connect(name.clone(), access.clone());
                }
                for instance in instances {
                    let access = Access {
                        instance: Some(instance.url.clone()),
                        tls_server_name: instance.tls_server_name.clone(),
                        ..access.clone()
                    };
                    connect(format!("{name} {}", instance.url), access);
                }
            }
            SourceConfig::Files { name, paths, every } => {
                let files = Source::KeyFiles(KeyFiles::new(name.clone(), paths.clone()));
                asked.push(Asked::new(files, *every, unchecked.clone()));
            }
            SourceConfig::Embedded => {
                let keyring = keyring_directory(data_dir);
                open_keyring(keyring.clone(), usage != Use::DryRun).await?;
                let public_halves = keyring.join("*.pub").display().to_string();
                let files = KeyFiles::new(config.name().to_owned(), vec![public_halves]);
                let every = Duration::from_secs(1);
                asked.push(Asked::new(Source::KeyFiles(files), every, unchecked.clone()));
            }
        }
    }
    Ok(asked)
}

async fn open_keyring(path: PathBuf, generate: bool) -> Result<Keyring, KeyringError> {
    let open = move || if generate { Keyring::open_or_generate(&path) } else { Keyring::open(&path) };
    tokio::task::spawn_blocking(open).await.expect("opening a keyring does not panic")
}

fn keyring_directory(data_dir: &Path) -> PathBuf {
    data_dir.join("keys")
}

/// Where the ledgers of all issuers live.
#[must_use]
pub fn ledgers_directory(data_dir: &Path) -> PathBuf {
    data_dir.join("issuers")
}

/// A directory of its own for every issuer, which can be told by its name.
fn ledger_directory(data_dir: &Path, issuer: &Issuer) -> PathBuf {
    let readable: String = format!("{}{}", issuer.authority(), issuer.path())
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() || c == '.' { c } else { '-' })
        .take(64)
        .collect();
    let unique = &sha256_hex(issuer.as_str().as_bytes())[..8];
    ledgers_directory(data_dir).join(format!("{readable}-{unique}"))
}

async fn serve_publication(
    mut publication: watch::Receiver<Option<Arc<Publication>>>,
    slot: Slot,
    stop: CancellationToken,
) -> Result<(), AppError> {
    loop {
        if let Some(publication) = publication.borrow_and_update().as_deref() {
            slot.publish(publication);
        }
        select! {
            () = stop.cancelled() => return Ok(()),
            changed = publication.changed() => if changed.is_err() { return Ok(()) },
        }
    }
}

/// A counter that a cron schedule raises: it only wakes loops, so a missed or doubled tick is harmless.
async fn schedule_ticks(
    scheduler: &JobScheduler,
    schedule: &str,
) -> Result<watch::Receiver<u64>, JobSchedulerError> {
    let (sender, receiver) = watch::channel(0);
    let job = Job::new(schedule, move |_, _| sender.send_modify(|tick| *tick += 1))?;
    scheduler.add(job).await?;
    Ok(receiver)
}

fn views(board: &Board, counters: Arc<Counters>) -> Views {
    let (metrics, status) = (board.clone(), board.clone());
    Views {
        metrics: Arc::new(move || metrics.metrics(&counters.totals())),
        status: Arc::new(move || Status { ready: status.ready(), document: status.status() }),
    }
}

async fn told_to_end() {
    let mut terminate = signal(SignalKind::terminate()).expect("signals can be listened to");
    let mut interrupt = signal(SignalKind::interrupt()).expect("signals can be listened to");
    select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}

/// The work could not be done, or not even begun.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    #[error(transparent)]
    DirectoryInUse(#[from] DirectoryInUse),
    #[error(transparent)]
    Listen(#[from] ListenError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Keyring(#[from] KeyringError),
    #[error(transparent)]
    Target(#[from] TargetError),
    #[error(transparent)]
    Connections(#[from] CannotConnect),
    #[error(transparent)]
    Ask(#[from] AskError),
    #[error(transparent)]
    Nothing(#[from] NothingToPublish),
    #[error("cannot keep the schedule")]
    Schedule(#[from] JobSchedulerError),
    #[error(transparent)]
    Token(#[from] tokens::TokenError),
}

impl AppError {
    /// What the operator can do.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::DirectoryInUse(error) => Some(error.hint()),
            Self::Listen(error) => error.hint(),
            Self::Store(error) => error.hint(),
            Self::Keyring(error) => error.hint(),
            Self::Target(error) => error.hint(),
            Self::Connections(_) => {
                Some("install the system's CA certificates, or name a bundle in `SSL_CERT_FILE`".to_owned())
            }
            Self::Ask(error) => error.hint(),
            Self::Nothing(nothing) => Some(nothing.hint().to_owned()),
            Self::Schedule(_) => None,
            Self::Token(error) => error.hint(),
        }
    }
}
