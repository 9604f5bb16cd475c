//! What the operator wants: flags > environment > file > default, checked once, into one [`Config`].
//!
//! The file and the flags become one tree whose nodes know where they were written; the reader goes
//! through it with the table of `keys` in hand, and goes on after a fault, so that all of them are
//! reported at once. Reads no file, no environment (clap does that for [`Flags`]) and no clock.

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
    location::Location,
    problem::{IN_FLAGS, InvalidConfig, Problem},
    schedule::Schedule,
};
use self::{document::Node, problem::Problems};

/// Everything that `run` and `sync` need to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Address that serves the documents to relying parties.
    pub listen: SocketAddr,
    /// Address that serves health, metrics and status to operators.
    pub admin_listen: SocketAddr,
    /// How relying parties are spoken to over TLS; without it, in plain text.
    pub tls: Option<TlsConfig>,
    /// Most connections of relying parties at once; at least 1.
    pub max_connections: usize,
    /// Directory of the ledger and the embedded keyring. Absolute.
    pub data_dir: PathBuf,
    /// Whom to tell of changes, failures and recoveries; `None`: nobody.
    pub events: Option<EventsConfig>,
    /// At least one; no two with the same issuer.
    pub issuers: Vec<IssuerConfig>,
}

/// Where a certificate and its private key lie, as PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsConfig {
    /// Absolute; the server's certificate first, then those that lead to a CA.
    pub certificate: PathBuf,
    /// Absolute.
    pub private_key: PathBuf,
}

/// The pod that Kubernetes Events are about, and the way to its cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventsConfig {
    pub namespace: String,
    pub pod: String,
    pub pod_uid: Option<String>,
    /// With neither this nor a context: the cluster this process runs in.
    pub kubeconfig: Option<PathBuf>,
    /// Of the kubeconfig, or else of `KUBECONFIG`. Without one: the current context.
    pub context: Option<String>,
}

/// One issuer: where its keys come from and where they go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IssuerConfig {
    pub issuer: Issuer,
    /// Where relying parties read the JWKS; an `https` URL, or `http` on loopback.
    pub jwks_uri: String,
    /// Which keys are served, and published where a target does not say otherwise.
    pub profile: Profile,
    /// Longest that a relying party may keep a JWKS: the `max-age` that is served with it. At most 1 h.
    pub jwks_max_age: Duration,
    /// Longest `exp - iat` of a token of this issuer.
    pub max_token_lifetime: Duration,
    /// Added to every wait, to allow for clock skew.
    pub margin: Duration,
    /// How long every place shows a key before it signs. At least twice `jwks_max_age`.
    pub propagation: Duration,
    /// The age at which a signing key is replaced. Longer than `propagation` and `margin` together.
    pub rotate_after: Duration,
    /// When it may be replaced because of its age; `None`: at any time.
    pub rotate_within: Option<Window>,
    /// Publish even if an API server reports another issuer.
    pub allow_issuer_mismatch: bool,
    /// At least one; names are unique.
    pub sources: Vec<SourceConfig>,
    /// May be empty: then the documents are served over HTTP alone. Names and locations are unique.
    pub targets: Vec<TargetConfig>,
    /// When all targets are read in full and repaired.
    pub schedule: Schedule,
    /// Where the ledger lives; `None`: in a file in the data directory.
    pub ledger: Option<LedgerConfig>,
    /// What a node that signs for it needs to know.
    pub signer: Option<SignerConfig>,
    /// Issuers that were moved to this one. The names of their targets are unique among those of the issuer.
    pub previous_issuers: Vec<PreviousIssuerConfig>,
    /// What is found out about its tokens; `None`: nothing.
    pub verify: Option<VerifyConfig>,
}

impl IssuerConfig {
    /// Whether keys of this issuer are made and sign in this very process.
    #[must_use]
    pub fn signs(&self) -> bool {
        self.sources.contains(&SourceConfig::Embedded)
    }

    /// Whether its documents are served over HTTP alone.
    #[must_use]
    pub fn has_no_target(&self) -> bool {
        self.targets.is_empty() && self.previous_issuers.iter().all(|former| former.targets.is_empty())
    }

    /// Whether keys come from nodes that say what they sign with.
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
    /// Of the kubeconfig, or else of `KUBECONFIG`. Without one: the current context.
    pub context: Option<String>,
}

/// A node that signs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignerConfig {
    pub socket: Option<SocketName>,
    /// Permissions of the socket.
    pub mode: u32,
    /// Group of the socket.
    pub gid: Option<u32>,
    /// Who may connect, besides root and ourselves.
    pub uids: BTreeSet<u32>,
    /// `None`: the host name.
    pub node: Option<NodeName>,
    /// Empty: the issuer alone.
    pub api_audiences: BTreeSet<String>,
    /// How often the API server asks for the keys; at least 1 s.
    pub refresh_hint: Duration,
    pub key_type: KeyType,
    /// Where private keys are made and kept, unless that is in the data directory.
    pub pkcs11: Option<Pkcs11Config>,
    /// Where operators read health and metrics of a node by itself.
    pub admin_listen: Option<SocketAddr>,
    pub additional_verification_keys: Vec<VerificationKeyConfig>,
}

/// That of a node that only its own process asks.
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

/// A PKCS#11 token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pkcs11Config {
    /// The library of the token's vendor. Absolute.
    pub module: PathBuf,
    pub token_label: String,
    /// A file with the PIN of the token's user. Absolute.
    pub pin_file: PathBuf,
}

/// Public keys of before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerificationKeyConfig {
    /// Absolute.
    pub file: PathBuf,
    /// Whether the API server leaves them out of its JWKS.
    pub exclude: bool,
}

/// A token that is judged again and again, against the public documents.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifyConfig {
    /// Time between two looks; at least 1 s.
    pub every: Duration,
    pub party: Party,
    pub cloud: Cloud,
    /// For whom the token is.
    pub audience: String,
    /// Whose token it is. Without one: that of the source, or this process's own.
    pub service_account: Option<ServiceAccount>,
    /// Whether addresses are asked that cannot be reached from the internet.
    pub allow_private: bool,
    /// Authorities that are trusted besides those of the system. Absolute.
    pub ca_file: Option<PathBuf>,
}

/// What `signer` needs to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeConfig {
    /// Where keyring, announcement and ledger live. Absolute.
    pub data_dir: PathBuf,
    pub issuer: IssuerConfig,
    pub signer: SignerConfig,
}

/// An issuer that tokens and relying parties still name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PreviousIssuerConfig {
    pub issuer: Issuer,
    pub jwks_uri: String,
    pub targets: Vec<TargetConfig>,
}

/// Where keys come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SourceConfig {
    ApiServer {
        name: String,
        /// With neither this nor a context: the cluster this process runs in.
        kubeconfig: Option<PathBuf>,
        /// Of the kubeconfig, or else of `KUBECONFIG`. Without one: the current context.
        context: Option<String>,
        /// Whether its API servers are found through the cluster.
        discover: bool,
        /// Listed by hand; with neither these nor `discover`: whoever answers at the one URL.
        instances: Vec<Instance>,
        /// Whose token shows which key signs now. Without one: this process's own service account.
        probe: Option<ServiceAccount>,
        /// Time between two polls; at least 1 s.
        every: Duration,
    },
    Files {
        name: String,
        /// Absolute paths of files or directories, or globs; at least one.
        paths: Vec<String>,
        /// Whether they may hold no file.
        optional: bool,
        /// Time between two polls; at least 1 s.
        every: Duration,
    },
    Url {
        name: String,
        /// `https`, or `http` on loopback; without user, query and fragment.
        url: String,
        bearer_token_file: Option<PathBuf>,
        /// In place of the certificate authorities of the system.
        ca_file: Option<PathBuf>,
        /// Time between two polls; at least 1 s.
        every: Duration,
    },
    /// What nodes that sign say of their keys.
    Announcements {
        name: String,
        /// Absolute; a file for each node. `None`: in the data directory, carried there from beside the ledger.
        directory: Option<PathBuf>,
        /// Time between two polls; at least 1 s.
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
    /// The name its certificate is checked for, where it is dialled by address.
    pub tls_server_name: Option<String>,
}

/// Where publications go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TargetConfig {
    /// The name in logs, metrics and the ledger; unique in its issuer.
    pub name: String,
    pub location: Location,
    /// Where the world reads what is stored there; no `/` at its end.
    pub public_url: Option<String>,
    /// Whether the world reads it from the store itself.
    pub anonymous: bool,
    /// Authorities that are trusted besides those of the system. Absolute.
    pub ca_file: Option<PathBuf>,
    /// Whether a key must be shown here before it may sign.
    pub gates: bool,
    pub profile: Profile,
}

/// What `jwks` needs to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeysConfig {
    /// Not needed to print keys; where it is known, API servers are checked against it.
    pub issuer: Option<Issuer>,
    /// Where relying parties read the JWKS, if that does not follow from the issuer.
    pub jwks_uri: Option<String>,
    /// Every key unless a flag says otherwise: what is printed is published by somebody else.
    pub profile: Profile,
    /// At least one.
    pub sources: Vec<SourceConfig>,
    /// Where the embedded keyring lives. Absolute.
    pub data_dir: PathBuf,
}

/// Checks flags and the file into one configuration.
///
/// `file` is the configuration file's path, for messages, and its text; `cwd` is where relative paths
/// in flags start. With neither a file nor an issuer or a source the result is the embedded default:
/// one issuer `http://LISTEN` with its own keyring.
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

/// Checks as much as is needed to print keys: an issuer may be missing.
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

/// Checks everything, for a node that signs: one issuer has a `signer`.
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
