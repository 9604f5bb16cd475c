//! A signing node, as a process of its own (`signpost signer`) or as part of the service.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use tokio::{select, sync::watch};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

mod admission;
mod ledger_reader;

pub use self::admission::{admit, expel, may_admit};
use self::ledger_reader::LedgerReader;
use super::{keyring_directory, ledgers};
use crate::{
    blocking::{self, TimedOut},
    clock,
    config::{
        IssuerConfig, LedgerConfig, NamespacedName, NodeConfig, Pkcs11Config, SignerConfig, SourceConfig,
        VerificationKeyConfig,
    },
    core::{
        api_server_flags,
        jose::{issuer::Issuer, kid::Kid},
        ledger::Ledger,
        signer::{DesiredState, RecoveryFinding, SocketName, VerificationOnlyKey, announcement::NodeName},
        text::{Hint, redaction::error_line},
        verification::ENTRA_LIFE,
    },
    http::{
        ListenError, Listener, Server,
        admin::{self, Views},
    },
    kubernetes,
    reconcile::{announcement_sync::run_announcement_sync, signer_loop::run_signer},
    signer::{
        KeyringError, Node, NodeError,
        keyring::HsmSettings,
        node::{Imported, Settings},
        service,
        socket::{self, Access, Socket, SocketError},
        trust::TrustError,
    },
    source::key_file::{self, KeyFileError},
    store::announcement_sync::AnnouncementSync,
    telemetry::status::StatusStore,
};

/// Most connections to the admin listener of a standalone node.
const CONNECTIONS: usize = 64;
/// Longest wait for a keyring: generating a key takes seconds on a busy machine.
const KEYRING_PATIENCE: Duration = Duration::from_secs(30);
/// Default name of the embedded node when it is the only node.
const EMBEDDED_NODE: &str = "embedded";
/// The default token lifetime. A shorter one cuts the tokens that Kubernetes gives pods by default (3607 s).
/// Source: `WarnOnlyBoundTokenExpirationSeconds` in `kubernetes/pkg/serviceaccount/claims.go`.
const DEFAULT_TOKEN: Duration = Duration::from_secs(3607);

/// Signs for kube-apiserver until the process receives a signal to end. `started` is called once it serves.
///
/// # Errors
///
/// Fails when the keyring or the socket cannot be used.
pub async fn run(
    config: NodeConfig,
    started: impl FnOnce(&SocketName, &NodeName),
) -> Result<(), SignerError> {
    let mut end = super::service::ShutdownSignal::listen();
    let stop = CancellationToken::new();
    let NodeConfig { data_dir, issuer, signer } = config;
    let operator = signer.admin_listen.map(|address| Listener::bind(address.0)).transpose()?;
    let (sender, orders) = watch::channel(DesiredState::default());
    let opening = async {
        let node = open(&data_dir, &issuer, &signer).await?;
        let name = node.settings().node.clone();
        let store = ledgers::read_by(name.clone(), &data_dir, &issuer);
        let mut asked = LedgerReader::new(store, name);
        asked.ask(&sender).await;
        // kube-apiserver exits when it asks and there is no key.
        let wanted = orders.borrow().clone();
        let reconciled = run_blocking(&node, move |node| node.reconcile(&wanted, clock::now())).await?;
        // The loop that retries reports any other fault.
        if node.verification_set().is_none() {
            reconciled?;
        }
        Ok::<_, SignerError>((node, asked))
    };
    let (node, asked) = select! {
        () = end.received() => return Ok(()),
        opened = opening => opened?,
    };
    let name = node.settings().node.clone();
    let announcement_sync = announcement_sync(&data_dir, &issuer, Some(name.clone()));
    let socket_name = signer.socket.clone().expect("a node by itself has a socket");
    let socket = Socket::bind(&socket_name, access(&signer))?;
    started(&socket_name, &name);
    info!(socket = %socket_name, node = %name, "signer started");
    let work = async {
        let asking = asked.go_on(sender, stop.clone());
        let syncing = async {
            if let Some(announcement_sync) = announcement_sync {
                run_announcement_sync(announcement_sync, stop.clone()).await;
            }
        };
        let showing = show(operator, Arc::clone(&node), stop.clone());
        let signing = sign(node, (socket, signer.refresh_hint.get()), orders, stop.clone());
        let (signed, (), (), ()) = tokio::join!(signing, asking, showing, syncing);
        signed
    };
    tokio::pin!(work);
    let ended = select! {
        () = end.received() => {
            info!("stopping");
            stop.cancel();
            tokio::time::timeout(super::service::SHUTDOWN, work).await.unwrap_or(Ok(()))
        }
        ended = &mut work => ended,
    };
    info!("stopped");
    ended
}

/// Opens the node of an issuer in a data directory.
///
/// # Errors
///
/// Fails when the keyring or a file with previous keys cannot be used.
pub(super) async fn open(
    data_dir: &Path,
    issuer: &IssuerConfig,
    signer: &SignerConfig,
) -> Result<Arc<Node>, SignerError> {
    if signer.socket.is_some() && issuer.max_token_lifetime.get() < DEFAULT_TOKEN {
        warn!(
            max_token_lifetime = ?issuer.max_token_lifetime,
            "default pod tokens have a lifetime of 3607 s, which is shortened to `max_token_lifetime`"
        );
    }
    if issuer.max_token_lifetime.get() > ENTRA_LIFE {
        warn!(
            max_token_lifetime = ?issuer.max_token_lifetime,
            "Microsoft Entra refuses tokens with a lifetime of more than 25 hours"
        );
    }
    if !signer.key_type.suits_entra() {
        let key_type = signer.key_type.name();
        warn!(key_type, "Microsoft Entra refuses tokens that are signed with this key type");
    }
    let settings = Settings {
        node: signer.node.clone().map_or_else(host_name, Ok)?,
        issuer: issuer.issuer.clone(),
        keyring: keyring_directory(data_dir),
        announcements: announcements_directory(data_dir),
        trust: trust_directory(data_dir),
        api_audiences: api_audiences(issuer, signer),
        max_token_lifetime: issuer.max_token_lifetime.get(),
        margin: issuer.margin.get(),
        key_type: signer.key_type,
        hsm: signer.pkcs11.clone().map(|Pkcs11Config { module, token_label, pin_file }| HsmSettings {
            module: module.into(),
            token_label,
            pin_file: pin_file.into(),
        }),
        additional_keys: legacy(&signer.additional_verification_keys).await?,
    };
    let keyring = settings.keyring.clone();
    let opened = blocking::within(KEYRING_PATIENCE, &keyring, || Node::open(settings, clock::now())).await;
    let (node, findings) = opened.map_err(|source| SignerError::Hangs { keyring, source })??;
    let Settings { node: name, issuer, .. } = node.settings();
    for finding in findings {
        match finding {
            RecoveryFinding::Unrecorded { kid } => {
                warn!(%issuer, node = %name, %kid, "private key is not in the journal and is not used for signing");
            }
            RecoveryFinding::Lost { kid } => warn!(%issuer, node = %name, %kid, "private key is missing"),
        }
    }
    Ok(Arc::new(node))
}

/// Generates the keys of a node that has none, for a single pass; a running service does so itself.
pub(super) async fn make_keys(data_dir: &Path, issuer: &IssuerConfig) -> Result<(), SignerError> {
    match open(data_dir, issuer, &own_signer(issuer)).await {
        Err(SignerError::Node(NodeError::Keyring(KeyringError::Held { .. }))) => Ok(()),
        Err(error) => Err(error),
        Ok(node) => first_keys(&node).await,
    }
}

/// Generates the first keys of a node from the desired state on its disk; decides nothing.
async fn first_keys(node: &Arc<Node>) -> Result<(), SignerError> {
    let reconciled =
        run_blocking(node, |node| node.reconcile(&DesiredState::default(), clock::now())).await?;
    Ok(reconciled.map(drop)?)
}

/// Runs work of a node on a thread that may block.
async fn run_blocking<T: Send + 'static>(
    node: &Arc<Node>,
    work: impl FnOnce(&Node) -> T + Send + 'static,
) -> Result<T, SignerError> {
    let (this, keyring) = (Arc::clone(node), &node.settings().keyring);
    let done = blocking::within(KEYRING_PATIENCE, keyring, move || work(&this)).await;
    done.map_err(|source| SignerError::Hangs { keyring: keyring.clone(), source })
}

/// The signer configuration of the embedded node. By default it is the only node and has no socket.
fn own_signer(issuer: &IssuerConfig) -> SignerConfig {
    issuer.signer.clone().unwrap_or_else(|| SignerConfig {
        node: Some(NodeName::parse(EMBEDDED_NODE).expect("a valid name")),
        ..SignerConfig::default()
    })
}

/// The name of the embedded node; `None` where the host name is not a valid node name.
pub(super) fn own_name(issuer: &IssuerConfig) -> Option<NodeName> {
    own_signer(issuer).node.or_else(|| host_name().ok())
}

/// The embedded node of an issuer, which signs in the process that publishes.
pub(super) struct LocalSigner {
    node: Arc<Node>,
    /// The socket for kube-apiserver, and its refresh hint.
    socket: Option<(Socket, Duration)>,
}

impl LocalSigner {
    /// Opens the keyring, and the socket if one is configured.
    pub(super) async fn open(data_dir: &Path, issuer: &IssuerConfig) -> Result<Self, SignerError> {
        let signer = own_signer(issuer);
        let node = open(data_dir, issuer, &signer).await?;
        if signer.socket.is_some() && node.verification_set().is_none() {
            // kube-apiserver exits when it asks and there is no key.
            first_keys(&node).await?;
        }
        let bind =
            |name| Socket::bind(name, access(&signer)).map(|socket| (socket, signer.refresh_hint.get()));
        let socket = signer.socket.as_ref().map(bind).transpose()?;
        Ok(Self { node, socket })
    }

    pub(super) fn node(&self) -> Arc<Node> {
        Arc::clone(&self.node)
    }

    /// Signs as the ledger orders, until it is stopped.
    pub(super) async fn sign(self, ledgers: watch::Receiver<Arc<Ledger>>, stop: CancellationToken) {
        let Self { node, socket } = self;
        let (name, issuer) = (node.settings().node.clone(), node.settings().issuer.clone());
        let orders = |ledger: &Arc<Ledger>| ledger.orders_for(&name);
        let reconciling = run_signer(Arc::clone(&node), ledgers, orders, stop.clone());
        let serving = async {
            if let Some((socket, refresh_hint)) = socket
                && let Err(error) = service::serve(node, refresh_hint, socket, stop).await
            {
                error!(%issuer, error = error_line(&error), "signer socket closed");
            }
        };
        tokio::join!(reconciling, serving);
    }
}

/// The audiences that the API server itself accepts: by default the issuer.
fn api_audiences(issuer: &IssuerConfig, signer: &SignerConfig) -> BTreeSet<String> {
    if signer.api_audiences.is_empty() {
        BTreeSet::from([issuer.issuer.to_string()])
    } else {
        signer.api_audiences.clone()
    }
}

/// Checks the flags of an API server against the configured signer.
pub fn with_signer<T>(config: &NodeConfig, judge: impl FnOnce(&api_server_flags::Signer<'_>) -> T) -> T {
    let socket = config.signer.socket.as_ref().expect("a node by itself has a socket");
    judge(&api_server_flags::Signer {
        socket,
        listens: socket::listens(socket),
        issuer: &config.issuer.issuer,
        api_audiences: &api_audiences(&config.issuer, &config.signer),
        max_token_lifetime: config.issuer.max_token_lifetime.get(),
        has_additional_keys: !config.signer.additional_verification_keys.is_empty(),
    })
}

/// Imports the key that signed until now, while no other process uses the keyring.
///
/// # Errors
///
/// Fails when the keyring or the file cannot be used.
pub async fn import(config: NodeConfig, file: PathBuf) -> Result<Imported, SignerError> {
    let node = open(&config.data_dir, &config.issuer, &config.signer).await?;
    Ok(run_blocking(&node, move |node| node.import(&file, clock::now())).await??)
}

/// Reconciles a node and answers its API server, until it is stopped.
///
/// # Errors
///
/// Fails when the socket cannot be served.
async fn sign(
    node: Arc<Node>,
    (socket, refresh_hint): (Socket, Duration),
    orders: watch::Receiver<DesiredState>,
    stop: CancellationToken,
) -> Result<(), SignerError> {
    let reconciling = run_signer(Arc::clone(&node), orders, DesiredState::clone, stop.clone());
    let serving = async {
        let served = service::serve(node, refresh_hint, socket, stop.clone()).await;
        // A node that no longer serves has nothing else to do.
        stop.cancel();
        served
    };
    let (served, ()) = tokio::join!(serving, reconciling);
    served.map_err(SignerError::Serve)
}

/// Serves status and metrics of a standalone node, if an admin listener is configured.
async fn show(listener: Option<Listener>, node: Arc<Node>, stop: CancellationToken) {
    let Some(listener) = listener else { return };
    let status_store = StatusStore::default();
    status_store.configuration_read(clock::now());
    status_store.signer(&node.settings().issuer, Arc::clone(node.metrics()));
    let (said, asked, checked) = (Arc::clone(&node), Arc::clone(&node), node);
    let views = Views {
        metrics: Arc::new(move || status_store.metrics(None)),
        status: Arc::new(move || {
            String::from_utf8(said.journal().announcement().to_json()).expect("JSON is UTF-8")
        }),
        ready: Arc::new(move || asked.verification_set().is_some() && asked.metrics().troubles().is_empty()),
        checks: Arc::new(move |all| {
            let name = &checked.settings().node;
            let keys = if checked.verification_set().is_some() {
                (true, format!("{name}: has keys"))
            } else {
                (false, format!("{name}: has no keys"))
            };
            let troubles = checked.metrics().troubles().into_iter();
            let troubles = troubles.map(|trouble| (false, format!("{name}: {trouble}")));
            [keys].into_iter().filter(|(right, _)| all || !right).chain(troubles).collect()
        }),
    };
    Server::of_the_operator(listener, CONNECTIONS).serve(admin::service(views), stop.cancelled_owned()).await;
}

/// Syncs the announcements of an issuer between the data directory and the `ConfigMaps` beside its ledger;
/// `None` where there is no such ledger or no need. `own` is the node that signs here.
pub(super) fn announcement_sync(
    data_dir: &Path,
    issuer: &IssuerConfig,
    own: Option<NodeName>,
) -> Option<AnnouncementSync> {
    let LedgerConfig { config_map, kubeconfig, context } = issuer.ledger.clone()?;
    let reads = issuer
        .sources
        .iter()
        .any(|source| matches!(source, SourceConfig::Announcements(source) if source.directory.is_none()));
    let access = kubernetes::Access::new(kubeconfig, context);
    let NamespacedName { namespace, name } = config_map;
    let directory = announcements_directory(data_dir);
    (own.is_some() || reads).then(|| AnnouncementSync::new(namespace, name, access, directory, own))
}

/// The directory that records which nodes a node trusts.
fn trust_directory(data_dir: &Path) -> PathBuf {
    data_dir.join("trust")
}

pub(super) fn announcements_directory(data_dir: &Path) -> PathBuf {
    data_dir.join("announcements")
}

async fn legacy(files: &[VerificationKeyConfig]) -> Result<Vec<VerificationOnlyKey>, KeyFileError> {
    let mut legacy = Vec::new();
    for VerificationKeyConfig { file, exclude } in files {
        let keys = key_file::keys_of(file.to_path_buf()).await?;
        legacy.extend(keys.into_iter().map(|jwk| VerificationOnlyKey { jwk, exclude: *exclude }));
    }
    Ok(legacy)
}

fn access(config: &SignerConfig) -> Access {
    Access {
        mode: config.mode.0,
        gid: config.group.map(|group| group.0),
        uids: config.users.iter().map(|user| user.0).collect(),
    }
}

/// The host name, as Kubernetes names nodes.
fn host_name() -> Result<NodeName, NodeNameUnknown> {
    let uname = rustix::system::uname();
    let name = uname.nodename().to_string_lossy().to_lowercase();
    NodeName::parse(&name).map_err(|_| NodeNameUnknown { name })
}

/// The host name is not a valid node name.
#[derive(Debug, thiserror::Error)]
#[error("the host name `{name}` is not a valid node name")]
pub struct NodeNameUnknown {
    name: String,
}

/// The node cannot start.
#[derive(Debug, thiserror::Error)]
pub enum SignerError {
    #[error(transparent)]
    Node(#[from] NodeError),
    #[error(transparent)]
    Socket(#[from] SocketError),
    #[error(transparent)]
    Listen(#[from] ListenError),
    #[error(transparent)]
    Legacy(#[from] KeyFileError),
    #[error(transparent)]
    Name(#[from] NodeNameUnknown),
    #[error(transparent)]
    Trust(#[from] TrustError),
    #[error("`{node}` is this node")]
    OwnNode { node: NodeName },
    #[error("the announcement is of issuer `{found}`, expected `{expected}`")]
    OtherIssuer { found: Issuer, expected: Issuer },
    #[error("node `{node}` announces key `{kid}`, which did not sign the announcement")]
    Unsigned { node: NodeName, kid: Kid },
    #[error("node `{node}` announces no key")]
    NoKeys { node: NodeName },
    #[error("cannot reach keyring `{path}`", path = keyring.display())]
    Hangs { keyring: PathBuf, source: TimedOut },
    #[error("cannot serve the socket")]
    Serve(#[source] service::ServeError),
}

impl Hint for SignerError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Node(error) => error.hint(),
            Self::Socket(error) => error.hint(),
            Self::Listen(_) => Some("choose another address for `signer.admin_listen`".to_owned()),
            Self::Legacy(error) => error.hint(),
            Self::Name(_) => Some("pass `--node NAME`".to_owned()),
            Self::Trust(error) => error.hint(),
            Self::OwnNode { .. } => Some("give each signer its own name with `--node`".to_owned()),
            Self::OtherIssuer { .. } => Some("start both signers with the same issuer".to_owned()),
            Self::Unsigned { .. } => Some(
                "its private key is gone: copy the file again once its last token has expired".to_owned(),
            ),
            Self::NoKeys { .. } => Some("copy the file from the node again, once it signs".to_owned()),
            Self::Hangs { keyring, .. } => {
                Some(format!("check what `{}` is mounted from", keyring.display()))
            }
            Self::Serve(_) => None,
        }
    }
}
