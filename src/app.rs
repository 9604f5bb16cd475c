//! Wiring: the only module that constructs components and joins tasks.

use std::{
    collections::BTreeSet,
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use tokio_cron_scheduler::JobSchedulerError;

use crate::{
    config::{Config, IssuerConfig, KeysConfig, SourceConfig, TargetConfig},
    control::ControlError,
    core::{
        jose::{
            issuer::Issuer,
            jwk::Jwk,
            publication::{NothingToPublish, Paths, Publication, Terms},
        },
        ledger::Retention,
        signer::announcement::NodeName,
        text::Hint,
    },
    http::{ListenError, tls::TlsError},
    http_client::HttpClients,
    kubernetes::Access,
    reconcile::{
        ConfiguredSource,
        control_plane::ControlPlane,
        issuer::{IssuerReconciler, IssuerSpec},
        source_poll::{Checks, PollError, SourcePoller},
        sync::{self, Plan, SyncReport},
        target_sync::{Role, TargetReconciler},
    },
    source::{
        Source,
        announcements::Announcements,
        api_server::ApiServer,
        cluster::Cluster,
        key_file::KeyFiles,
        remote_jwks::{self, RemoteJwks},
    },
    store::{StoreError, announcement_sync::AnnouncementSyncError},
    target::{Connections, PublicAddress, Target, TargetError},
    telemetry::status::StatusStore,
};

mod control_registry;
pub mod evidence;
pub mod exchange;
pub mod federate;
pub mod ledgers;
mod probe;
mod scheduler;
mod service;
pub mod signer;
pub mod sts;
pub mod tokens;

pub use crate::store::DirectoryInUse;
pub use service::{ConfigReader, Started, run};

/// Interval between two reads of the embedded node's announcement.
const EMBEDDED_EVERY: Duration = Duration::from_secs(1);

struct IssuerComponents {
    reconciler: Arc<IssuerReconciler>,
    sources: Vec<ConfiguredSource>,
    target_reconcilers: Vec<TargetReconciler>,
}

/// What an issuer's components are constructed for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Use {
    Serve,
    Sync { adopt: bool },
}

struct Shared {
    data_dir: PathBuf,
    status: StatusStore,
    connections: Connections,
    clients: HttpClients,
}

impl Shared {
    fn new(data_dir: &Path, status_store: StatusStore) -> Self {
        let clients = HttpClients::default();
        let connections = Connections::new(clients.clone());
        Self { data_dir: data_dir.to_owned(), status: status_store, connections, clients }
    }
}

/// Runs one pass for each issuer in turn; safe beside a running service (`docs/decisions/0010`). An issuer
/// fails when its ledger, its keyring or an address cannot be used, and does not stop the others; failing
/// sources and targets are reported in its [`SyncReport`].
pub async fn sync(config: Config, adopt: bool) -> Vec<(Issuer, Result<SyncReport, AppError>)> {
    let mut passes = Vec::new();
    let shared = Shared::new(&config.data_dir, StatusStore::default());
    for issuer in config.issuers {
        passes.push((issuer.issuer.clone(), sync_one(issuer, &shared, adopt).await));
    }
    passes
}

async fn sync_one(issuer: IssuerConfig, shared: &Shared, adopt: bool) -> Result<SyncReport, AppError> {
    if issuer.signs() {
        signer::make_keys(&shared.data_dir, &issuer).await?;
    }
    let mut wired = wire(issuer, shared, Use::Sync { adopt }).await?;
    wired.reconciler.begin().await?;
    Ok(sync::sync(&wired.reconciler, wired.sources, &mut wired.target_reconcilers, adopt).await?)
}

/// Computes what [`sync()`] would do.
pub async fn plan(config: Config) -> Vec<(Issuer, Result<Plan, AppError>)> {
    let mut plans = Vec::new();
    let shared = Shared::new(&config.data_dir, StatusStore::default());
    for issuer in config.issuers {
        plans.push((issuer.issuer.clone(), plan_one(issuer, &shared).await));
    }
    plans
}

async fn plan_one(issuer: IssuerConfig, shared: &Shared) -> Result<Plan, AppError> {
    let mut wired = wire(issuer, shared, Use::Sync { adopt: false }).await?;
    Ok(sync::plan(&wired.reconciler, wired.sources, &mut wired.target_reconcilers).await?)
}

/// What `jwks` prints: a publication, or only the keys when no issuer is known.
pub struct Keys {
    pub keys: Vec<Jwk>,
    pub publication: Option<Publication>,
    pub paths: Paths,
    pub notes: Vec<String>,
}

/// Reads the sources once and renders their keys; stores nothing.
///
/// # Errors
///
/// Fails when a source cannot be read, and when there are no keys to print.
pub async fn keys(config: KeysConfig) -> Result<Keys, AppError> {
    let mut keys = Vec::new();
    let mut notes = Vec::new();
    // The keys render the same without an issuer: its name appears only in the discovery document.
    let placeholder = || Issuer::parse("https://issuer.invalid").expect("valid");
    let issuer = config.issuer.clone().unwrap_or_else(placeholder);
    let shared = Shared::new(&config.data_dir, StatusStore::default());
    let expected = Expected { issuer: config.issuer.clone(), ..Expected::default() };
    for source in sources(&config.sources, &shared, &expected) {
        let (_, asked) = source.found(&issuer).await;
        for mut source in asked {
            let fetched = source.fetch().await?;
            notes.extend(fetched.warnings().map(|note| format!("{}: {note}", source.name())));
            keys.extend(fetched.keys);
        }
    }
    let jwks_uri = config.jwks_uri.unwrap_or_else(|| issuer.jwks_uri());
    let terms = Terms { jwks_uri, issuer, max_age: Duration::ZERO };
    let publication = Publication::render(&terms, config.profile, keys)?;
    let keys = publication.keys().iter().cloned().collect();
    Ok(Keys { keys, publication: config.issuer.map(|_| publication), paths: terms.paths(), notes })
}

/// Constructs the components of one issuer and publishes its stored state.
async fn wire(issuer: IssuerConfig, shared: &Shared, usage: Use) -> Result<IssuerComponents, AppError> {
    let Shared { data_dir, status: status_store, connections, .. } = shared;
    let all_terms = ledgers::all_terms(&issuer);
    let terms = all_terms[0].clone();
    let (retention, required_targets, timing, signs) =
        (retention(&issuer), required_targets(&issuer), issuer.timing(), issuer.has_nodes());
    let store = ledgers::store(data_dir, &issuer);
    let reach = probe::reach(&issuer);
    let previous: Vec<Issuer> =
        issuer.previous_issuers.iter().map(|previous| previous.issuer.clone()).collect();
    let expected = Expected {
        issuer: (!issuer.allow_issuer_mismatch).then(|| issuer.issuer.clone()),
        previous: previous.clone(),
        announced: Some(issuer.issuer.clone()),
        own: signer::own_name(&issuer),
        config_map: issuer.ledger.as_ref().map(|ledger| ledger.config_map.to_string()),
        margin: issuer.margin.get(),
    };
    // A service keeps syncing in the background; a single pass needs the announcements now.
    if let Some(announcement_sync) =
        signer::announcement_sync(data_dir, &issuer, None).filter(|_| usage != Use::Serve)
    {
        announcement_sync.sync().await?;
    }
    let sources = sources(&issuer.sources, shared, &expected);
    let targets = [issuer.targets]
        .into_iter()
        .chain(issuer.previous_issuers.into_iter().map(|previous| previous.targets));
    let targets: Vec<_> = targets.zip(all_terms).collect();
    let places = targets.iter().flat_map(|(targets, _)| targets).map(|target| target.name.clone()).collect();
    let spec = IssuerSpec {
        terms,
        previous_issuers: previous,
        profile: issuer.profile,
        retention,
        serves_documents: usage == Use::Serve,
        has_signers: signs,
        targets: places,
        required_targets,
        timing,
    };
    let adopt = usage == Use::Sync { adopt: true };
    let mut target_reconcilers = Vec::new();
    for (targets, terms) in targets {
        for target in targets {
            let (reach, ca_file) = (reach.clone(), target.ca_file.clone().map(Into::into));
            let role = Role {
                profile: target.profile(),
                required_for_rotation: target.required_for_rotation,
                adopt,
                reach,
                ca_file,
            };
            target_reconcilers.push(TargetReconciler::new(
                self::target(target, &terms, connections)?,
                role,
                terms.clone(),
            ));
        }
    }
    let reconciler = IssuerReconciler::open(
        spec,
        sources.iter().map(ConfiguredSource::endpoints),
        store,
        status_store.clone(),
    )
    .await?;
    Ok(IssuerComponents { reconciler: Arc::new(reconciler), sources, target_reconcilers })
}

/// All targets of an issuer, including those of its previous names.
fn all_targets(issuer: &IssuerConfig) -> impl Iterator<Item = &TargetConfig> {
    issuer.targets.iter().chain(issuer.previous_issuers.iter().flat_map(|previous| &previous.targets))
}

fn retention(issuer: &IssuerConfig) -> Retention {
    Retention {
        max_token_lifetime: issuer.max_token_lifetime.get(),
        margin: issuer.margin.get(),
        profiles: all_targets(issuer).map(TargetConfig::profile).chain([issuer.profile]).collect(),
    }
}

/// The targets that must serve a key before it signs.
fn required_targets(issuer: &IssuerConfig) -> BTreeSet<String> {
    all_targets(issuer)
        .filter(|target| target.required_for_rotation)
        .map(|target| target.name.clone())
        .collect()
}

fn target(config: TargetConfig, terms: &Terms, connections: &Connections) -> Result<Target, TargetError> {
    let public_url = config.public_url().map(str::to_owned);
    let TargetConfig { name, location, anonymous, ca_file, .. } = config;
    let ca_file = ca_file.map(Into::into);
    let (paths, jwks_elsewhere) = (terms.paths(), terms.jwks_elsewhere().map(str::to_owned));
    let public_address = PublicAddress { public_url, anonymous, ca_file, paths, jwks_elsewhere };
    Target::new(name, location, &public_address, connections)
}

/// What the sources are expected to report.
#[derive(Default)]
struct Expected {
    /// The issuer that API servers must report; `None`: any.
    issuer: Option<Issuer>,
    previous: Vec<Issuer>,
    /// The issuer that announcements must name; `None`: any.
    announced: Option<Issuer>,
    /// The node that signs in this process.
    own: Option<NodeName>,
    /// The `ConfigMap` of the ledger; announcements are stored beside it.
    config_map: Option<String>,
    margin: Duration,
}

fn sources(
    configs: &[SourceConfig],
    Shared { data_dir, clients, .. }: &Shared,
    Expected { issuer, previous, announced, own, config_map, margin }: &Expected,
) -> Vec<ConfiguredSource> {
    let unchecked = Checks::default();
    let mut sources = Vec::new();
    for config in configs {
        match config {
            SourceConfig::ApiServer(config) => {
                let access = Access::new(config.kubeconfig.clone(), config.context.clone());
                let every = config.every.get();
                let checks = Checks {
                    issuer: issuer.clone(),
                    previous_issuers: previous.clone(),
                    probe: config.probe.clone(),
                    ..Checks::default()
                };
                if config.discover {
                    let cluster = Cluster::new(config.name.clone(), access);
                    sources.push(ConfiguredSource::Found(ControlPlane::new(cluster, every, checks)));
                    continue;
                }
                let mut connect = |name, access| {
                    let server = Source::ApiServer(Box::new(ApiServer::new(name, access)));
                    sources.push(ConfiguredSource::One(SourcePoller::new(server, every, checks.clone())));
                };
                if config.instances.is_empty() {
                    connect(config.name.clone(), access.clone());
                }
                for instance in &config.instances {
                    let access = Access {
                        instance: Some(instance.url.to_string()),
                        tls_server_name: instance.tls_server_name.as_ref().map(ToString::to_string),
                        ..access.clone()
                    };
                    connect(format!("{} {}", config.name, instance.url), access);
                }
            }
            SourceConfig::Files(config) => {
                let paths = config.paths.iter().map(ToString::to_string).collect();
                let files = KeyFiles::new(config.name.clone(), paths);
                let files = Source::KeyFiles(if config.optional { files.optional() } else { files });
                let every = config.every.get();
                sources.push(ConfiguredSource::One(SourcePoller::new(files, every, unchecked.clone())));
            }
            SourceConfig::Url(config) => {
                let place = remote_jwks::Place {
                    url: config.url.to_string(),
                    bearer_token_file: config.bearer_token_file.clone().map(Into::into),
                    ca_file: config.ca_file.clone().map(Into::into),
                };
                let jwks = RemoteJwks::new(config.name.clone(), place, clients);
                let checks = Checks {
                    issuer: issuer.clone(),
                    previous_issuers: previous.clone(),
                    ..Checks::default()
                };
                let jwks = Source::RemoteJwks(Box::new(jwks));
                sources.push(ConfiguredSource::One(SourcePoller::new(jwks, config.every.get(), checks)));
            }
            SourceConfig::Announcements(config) => {
                let directory = config.directory.clone().map(PathBuf::from);
                let synced = config_map.clone().filter(|_| directory.is_none());
                let directory = directory.unwrap_or_else(|| signer::announcements_directory(data_dir));
                let announcements =
                    Announcements::new(config.name.clone(), directory, announced.clone(), *margin);
                let announcements = announcements.synced_from(synced);
                let announcements = Source::Announcements(announcements);
                sources.push(ConfiguredSource::One(SourcePoller::new(
                    announcements,
                    config.every.get(),
                    unchecked.clone(),
                )));
            }
            SourceConfig::Embedded => {
                let (name, directory) = (config.name().to_owned(), signer::announcements_directory(data_dir));
                let announcements = Announcements::new(name, directory, announced.clone(), *margin);
                let announcements = own.iter().cloned().fold(announcements, Announcements::beside);
                let announcements = Source::Announcements(announcements);
                sources.push(ConfiguredSource::One(SourcePoller::new(
                    announcements,
                    EMBEDDED_EVERY,
                    unchecked.clone(),
                )));
            }
        }
    }
    sources
}

/// Unused addresses similar to `wanted`, for a hint.
#[must_use]
pub fn free_addresses(wanted: [SocketAddr; 2]) -> [SocketAddr; 2] {
    // Held until both are found.
    let mut held = Vec::new();
    wanted.map(|wanted| {
        let ports = wanted.port()..=u16::MAX;
        let found = ports
            .map(|port| SocketAddr::new(wanted.ip(), port))
            .find(|address| TcpListener::bind(address).map(|listener| held.push(listener)).is_ok());
        found.unwrap_or(wanted)
    })
}

fn keyring_directory(data_dir: &Path) -> PathBuf {
    data_dir.join("keys")
}

/// The operation failed, or could not start.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    #[error(transparent)]
    DirectoryInUse(#[from] DirectoryInUse),
    #[error(transparent)]
    Listen(#[from] ListenError),
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error(transparent)]
    Control(#[from] ControlError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Target(#[from] TargetError),
    #[error(transparent)]
    Ask(#[from] PollError),
    #[error(transparent)]
    Nothing(#[from] NothingToPublish),
    #[error("the scheduler failed")]
    Schedule(#[from] JobSchedulerError),
    #[error(transparent)]
    AnnouncementSync(#[from] AnnouncementSyncError),
    #[error(transparent)]
    Sign(#[from] signer::SignerError),
}

impl Hint for AppError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::DirectoryInUse(error) => error.hint(),
            Self::AnnouncementSync(error) => error.hint(),
            Self::Listen(error) => error.hint(),
            Self::Tls(error) => error.hint(),
            Self::Control(error) => error.hint(),
            Self::Store(error) => error.hint(),
            Self::Target(error) => error.hint(),
            Self::Ask(error) => error.hint(),
            Self::Nothing(nothing) => nothing.hint(),
            Self::Schedule(_) => None,
            Self::Sign(error) => error.hint(),
        }
    }
}
