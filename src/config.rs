//! The configuration: flags > environment > file > default, checked once, into one [`Config`].
//!
//! The file and the flags become one tree whose nodes record their origin; the reader checks it against the
//! table in `keys`, and continues after a fault, so that all faults are reported at once. Reads no file, no
//! environment (clap does that for [`Flags`]) and no clock.

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use jiff::Timestamp;

use crate::core::{
    jose::{issuer::Issuer, jwk_set::Profile},
    rotation::Window,
    service_account::ServiceAccount,
    signer::{KeyType, SocketName, announcement::NodeName},
    verification::{Cloud, Party},
};

mod changes;
mod check;
mod document;
mod flags;
mod keys;
mod location;
mod overlay;
mod problem;
mod reader;
mod schedule;
pub mod schema;
mod show;
mod suggest;
mod value;

pub use self::{
    changes::Changes,
    flags::{Flags, KeyFlags, SignerFlags},
    problem::{IN_FLAGS, InvalidConfig, Problem},
    schedule::Schedule,
};
use self::{document::Node, problem::Problems};
pub use crate::core::location::Location;

/// The configuration of `run` and `sync`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The address that serves the documents to relying parties.
    pub listen: SocketAddr,
    /// The address that serves health, metrics and status to operators.
    pub admin_listen: SocketAddr,
    /// TLS for relying parties; without it, plain text.
    pub tls: Option<TlsConfig>,
    /// Most concurrent connections of relying parties; at least 1.
    pub max_connections: usize,
    /// The directory of the ledger and the embedded keyring. Absolute.
    pub data_dir: PathBuf,
    /// Kubernetes Events for changes, failures and recoveries; `None`: none are sent.
    pub events: Option<EventsConfig>,
    /// At least one; no two with the same issuer.
    pub issuers: Vec<IssuerConfig>,
}

/// Paths of a certificate and its private key, as PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsConfig {
    /// Absolute; the server's certificate first, followed by its chain to a CA.
    pub certificate: PathBuf,
    /// Absolute.
    pub private_key: PathBuf,
}

/// The pod that Kubernetes Events refer to, and the access to its cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventsConfig {
    pub namespace: String,
    pub pod: String,
    pub pod_uid: Option<String>,
    /// With neither this nor a context: the cluster this process runs in.
    pub kubeconfig: Option<PathBuf>,
    /// Context of the kubeconfig, or else of `KUBECONFIG`. Without one: the current context.
    pub context: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IssuerConfig {
    pub issuer: Issuer,
    /// The URL of the JWKS for relying parties; `https`, or `http` on loopback.
    pub jwks_uri: String,
    /// Which keys are served, and published to targets without a profile of their own.
    pub profile: Profile,
    /// The `max-age` of the served JWKS: the longest that a relying party may cache it. At most 1 h.
    pub jwks_max_age: Duration,
    /// Longest `exp - iat` of a token of this issuer.
    pub max_token_lifetime: Duration,
    /// Added to every wait, because clocks differ.
    pub margin: Duration,
    /// How long every target serves a key before it signs. At least twice `jwks_max_age`.
    pub propagation: Duration,
    /// The age at which a signing key is replaced. Longer than `propagation` and `margin` together.
    pub rotate_after: Duration,
    /// When it may be replaced because of its age; `None`: at any time.
    pub rotate_within: Option<Window>,
    /// Publish although an API server reports another issuer.
    pub allow_issuer_mismatch: bool,
    /// At least one; names are unique.
    pub sources: Vec<SourceConfig>,
    /// May be empty: then the documents are only served over HTTP. Names and locations are unique.
    pub targets: Vec<TargetConfig>,
    /// When all targets are read in full and repaired.
    pub schedule: Schedule,
    /// The `ConfigMap` of the ledger; `None`: a file in the data directory.
    pub ledger: Option<LedgerConfig>,
    /// The settings of a signing node.
    pub signer: Option<SignerConfig>,
    /// Issuers that were moved to this one. The names of their targets are unique among those of the issuer.
    pub previous_issuers: Vec<PreviousIssuerConfig>,
    /// The periodic check of its tokens; `None`: no check.
    pub verify: Option<VerifyConfig>,
}

impl IssuerConfig {
    /// Whether keys of this issuer are generated and sign in this process.
    #[must_use]
    pub fn signs(&self) -> bool {
        self.sources.contains(&SourceConfig::Embedded)
    }

    /// Whether its documents are only served over HTTP.
    #[must_use]
    pub fn has_no_target(&self) -> bool {
        self.targets.is_empty() && self.previous_issuers.iter().all(|former| former.targets.is_empty())
    }

    /// Whether keys come from nodes that announce them.
    #[must_use]
    pub fn has_nodes(&self) -> bool {
        self.signs() || self.sources.iter().any(|source| matches!(source, SourceConfig::Announcements { .. }))
    }
}

/// The `ConfigMap` that holds a ledger; no two issuers have the same.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct LedgerConfig {
    pub namespace: String,
    pub name: String,
    /// With neither this nor a context: the cluster this process runs in.
    pub kubeconfig: Option<PathBuf>,
    /// Context of the kubeconfig, or else of `KUBECONFIG`. Without one: the current context.
    pub context: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignerConfig {
    pub socket: Option<SocketName>,
    /// Mode of the socket.
    pub mode: u32,
    /// Group of the socket.
    pub gid: Option<u32>,
    /// The UIDs that may connect, in addition to root and our own.
    pub uids: BTreeSet<u32>,
    /// `None`: the host name.
    pub node: Option<NodeName>,
    /// Empty: only the issuer.
    pub api_audiences: BTreeSet<String>,
    /// Interval at which the API server fetches the keys; at least 1 s.
    pub refresh_hint: Duration,
    pub key_type: KeyType,
    /// The PKCS#11 token for private keys; `None`: the data directory.
    pub pkcs11: Option<Pkcs11Config>,
    /// The address that serves health and metrics of a standalone node.
    pub admin_listen: Option<SocketAddr>,
    pub additional_verification_keys: Vec<VerificationKeyConfig>,
}

/// The defaults of a node that is used only within its own process.
impl Default for SignerConfig {
    fn default() -> Self {
        Self {
            socket: None,
            mode: 0o600,
            gid: None,
            uids: BTreeSet::new(),
            node: None,
            api_audiences: BTreeSet::new(),
            refresh_hint: Duration::from_mins(1),
            key_type: KeyType::default(),
            pkcs11: None,
            admin_listen: None,
            additional_verification_keys: Vec::new(),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pkcs11Config {
    /// The library of the token's vendor. Absolute.
    pub module: PathBuf,
    pub token_label: String,
    /// A file with the PIN of the token's user. Absolute.
    pub pin_file: PathBuf,
}

/// Previous public keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerificationKeyConfig {
    /// Absolute.
    pub file: PathBuf,
    /// Whether the API server leaves them out of its JWKS.
    pub exclude: bool,
}

/// A token that is periodically verified against the public documents.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifyConfig {
    /// Interval between two checks; at least 1 s.
    pub every: Duration,
    pub party: Party,
    pub cloud: Cloud,
    pub audience: String,
    /// The subject of the token. Without one: that of the source, or this process's own.
    pub service_account: Option<ServiceAccount>,
    /// Whether addresses outside the internet may be contacted.
    pub allow_private: bool,
    /// Certificate authorities trusted in addition to those of the system. Absolute.
    pub ca_file: Option<PathBuf>,
}

/// The configuration of `signer`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeConfig {
    /// The directory of keyring, announcement and ledger. Absolute.
    pub data_dir: PathBuf,
    pub issuer: IssuerConfig,
    pub signer: SignerConfig,
}

/// A previous issuer, which tokens and relying parties still name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PreviousIssuerConfig {
    pub issuer: Issuer,
    pub jwks_uri: String,
    pub targets: Vec<TargetConfig>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SourceConfig {
    ApiServer {
        name: String,
        /// With neither this nor a context: the cluster this process runs in.
        kubeconfig: Option<PathBuf>,
        /// Context of the kubeconfig, or else of `KUBECONFIG`. Without one: the current context.
        context: Option<String>,
        /// Whether its API servers are discovered through the cluster.
        discover: bool,
        /// API servers listed by hand; with neither these nor `discover`: the one that answers at the
        /// cluster's URL.
        instances: Vec<Instance>,
        /// The subject of the probe token, which shows the current signing key. Without one: this process's
        /// own service account.
        probe: Option<ServiceAccount>,
        /// Interval between two polls; at least 1 s.
        every: Duration,
    },
    Files {
        name: String,
        /// Absolute paths of files or directories, or globs; at least one.
        paths: Vec<String>,
        /// Whether they may hold no file.
        optional: bool,
        /// Interval between two polls; at least 1 s.
        every: Duration,
    },
    Url {
        name: String,
        /// `https`, or `http` on loopback; without user, query and fragment.
        url: String,
        bearer_token_file: Option<PathBuf>,
        /// Replaces the certificate authorities of the system.
        ca_file: Option<PathBuf>,
        /// Interval between two polls; at least 1 s.
        every: Duration,
    },
    /// The announcements of signing nodes.
    Announcements {
        name: String,
        /// Absolute; one file per node. `None`: in the data directory, synced from the `ConfigMaps` beside
        /// the ledger.
        directory: Option<PathBuf>,
        /// Interval between two polls; at least 1 s.
        every: Duration,
    },
    /// The keyring in the data directory. Without a signer, the only source of its issuer.
    Embedded,
}

impl SourceConfig {
    /// The name in logs, metrics and the ledger; unique in its issuer.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::ApiServer { name, .. }
            | Self::Files { name, .. }
            | Self::Url { name, .. }
            | Self::Announcements { name, .. } => name,
            Self::Embedded => keys::EMBEDDED,
        }
    }
}

/// One API server of a control plane.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instance {
    pub url: String,
    /// The name that its certificate must have, where it is dialled by address.
    pub tls_server_name: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TargetConfig {
    /// The name in logs, metrics and the ledger; unique in its issuer.
    pub name: String,
    pub location: Location,
    /// The public URL of the stored documents; no trailing `/`.
    pub public_url: Option<String>,
    /// Whether relying parties read from the store itself.
    pub anonymous: bool,
    /// Certificate authorities trusted in addition to those of the system. Absolute.
    pub ca_file: Option<PathBuf>,
    /// Whether a key must be served here before it may sign.
    pub required_for_rotation: bool,
    pub profile: Profile,
}

/// The configuration of `jwks`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeysConfig {
    /// Optional; if known, API servers must report it.
    pub issuer: Option<Issuer>,
    /// The URL of the JWKS for relying parties, if it does not follow from the issuer.
    pub jwks_uri: Option<String>,
    /// All keys by default: another service publishes the output.
    pub profile: Profile,
    /// At least one.
    pub sources: Vec<SourceConfig>,
    /// The directory of the embedded keyring. Absolute.
    pub data_dir: PathBuf,
}

/// Checks flags and the file into one configuration.
///
/// `file` is the configuration file's path, for messages, and its text; relative paths in flags start at
/// `cwd`. With neither a file nor an issuer or a source the result is the embedded default: one issuer
/// `http://LISTEN` with its own keyring.
///
/// # Errors
///
/// Names every fault, those of the flags first, then those of the file in its order.
pub fn load(
    flags: &Flags,
    file: Option<(&Path, &str)>,
    cwd: &Path,
    now: Timestamp,
) -> Result<Config, InvalidConfig> {
    checked(flags, file, cwd, |tree, problems| check::config(tree, now, problems))
}

/// Checks only the settings for printing keys: the issuer is optional.
///
/// # Errors
///
/// As [`load`].
pub fn load_for_keys(
    flags: &KeyFlags,
    file: Option<(&Path, &str)>,
    cwd: &Path,
    now: Timestamp,
) -> Result<KeysConfig, InvalidConfig> {
    let all = Flags { keys: flags.clone(), ..Flags::default() };
    let profile = flags.profile.is_none().then_some(Profile::All);
    checked(&all, file, cwd, |tree, problems| check::keys_config(tree, profile, now, problems))
}

/// Checks the whole configuration of a signing node: one issuer must have a `signer`.
///
/// # Errors
///
/// As [`load`].
pub fn load_for_signer(
    flags: &SignerFlags,
    file: Option<(&Path, &str)>,
    cwd: &Path,
    now: Timestamp,
) -> Result<NodeConfig, InvalidConfig> {
    let all = Flags { keys: flags.as_keys(), ..Flags::default() };
    checked(&all, file, cwd, |tree, problems| {
        let mut tree = tree.clone();
        overlay::apply_signer(flags, &mut tree);
        check::node_config(&tree, now, problems)
    })
}

fn checked<T>(
    flags: &Flags,
    file: Option<(&Path, &str)>,
    cwd: &Path,
    read: impl FnOnce(&Node, &mut Problems) -> Option<T>,
) -> Result<T, InvalidConfig> {
    let mut problems = Problems::default();
    let config = match file.map(|(_, text)| document::parse(text)).transpose() {
        Ok(document) => {
            let tree = overlay::apply(flags, document, cwd, &mut problems);
            read(&tree, &mut problems)
        }
        Err(problem) => {
            problems.add_unreadable(problem);
            None
        }
    };
    match config {
        Some(config) if problems.is_empty() => Ok(config),
        _ => Err(problems.into_error(file.map(|(path, _)| path))),
    }
}

#[cfg(test)]
mod tests;
