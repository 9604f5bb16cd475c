//! The configuration: flags > environment > file > default, checked once, into one [`Config`].
//!
//! The structs are the format: each field with its documentation, its default and an example. `read` fills
//! them from a tree, made of the file and the flags, whose nodes record their origin, and continues after a
//! fault, so that all faults are reported at once. The JSON Schema, `docs/configuration.md` and what messages
//! say was expected are derived from the same structs. Reads no file, no environment (clap does that for
//! [`Flags`]) and no clock.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::Path,
};

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, de::Error as _};
use serde_json::json;

use crate::core::jose::{issuer::Issuer, jwk_set::Profile};

mod changes;
mod document;
mod duration;
mod flags;
mod issuer;
mod jwks_uri;
mod location;
mod overlay;
mod problem;
mod read;
mod schedule;
pub mod schema;
mod section;
mod signer;
mod source;
mod suggest;
mod target;
mod timing;
mod value;
mod verify;
mod window;

pub use self::{
    changes::Changes,
    duration::Seconds,
    flags::{Flags, KeyFlags, SignerFlags},
    issuer::{IssuerConfig, LedgerConfig, PreviousIssuerConfig},
    problem::{IN_FLAGS, InvalidConfig, Problem},
    schedule::Schedule,
    signer::{Pkcs11Config, SignerConfig, VerificationKeyConfig},
    source::{
        AnnouncementsConfig, ApiServerConfig, FilesConfig, Instance, PollInterval, SourceConfig, UrlConfig,
    },
    target::TargetConfig,
    value::{AbsolutePath, Count, ListenAddress, NamespacedName, WebUrl},
    verify::{ExchangeConfig, VerifyConfig},
};
use self::{
    document::{Node, Value},
    issuer::Known,
    problem::{Fault, Problems},
    read::Step,
    section::Section,
};
pub use crate::core::location::Location;

/// The configuration of `run` and `sync`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Address that serves the documents to relying parties. The embedded default listens on `127.0.0.1:8080`.
    #[serde(default = "default_listen")]
    #[schemars(example = "0.0.0.0:8080")]
    pub listen: ListenAddress,
    /// Address that serves health, metrics and status to operators.
    #[serde(default = "default_admin_listen")]
    #[schemars(example = "127.0.0.1:9090")]
    pub admin_listen: ListenAddress,
    /// Serve the documents over TLS (1.2 and 1.3), with a certificate from files. Without it, plain HTTP, behind
    /// an ingress that terminates TLS.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(example = json!({
        "certificate": "/etc/signpost/tls/tls.crt", "private_key": "/etc/signpost/tls/tls.key",
    }))]
    pub tls: Option<TlsConfig>,
    /// Maximum number of concurrent connections of relying parties; more wait until one closes.
    #[serde(default = "a_thousand")]
    #[schemars(example = 1000)]
    pub max_connections: Count<1, 1_000_000>,
    /// Directory of the ledger and the embedded keyring. Without a file it is `./signpost-data`.
    #[serde(default = "default_data_dir")]
    #[schemars(example = "/var/lib/signpost")]
    pub data_dir: AbsolutePath,
    /// Report changes, failures and recoveries as Kubernetes Events. Off by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(example = json!({ "pod": "signpost/signpost-0" }))]
    pub events: Option<EventsConfig>,
    /// The issuers, each independent of the others.
    #[serde(deserialize_with = "at_least_one")]
    #[schemars(
        length(min = 1),
        example = [json!({ "issuer": "https://oidc.example.com/kind", "sources": [{ "kind": "api-server" }] })],
    )]
    pub issuers: Vec<IssuerConfig>,
}

const fn default_listen() -> ListenAddress {
    ListenAddress(SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 8080))
}

const fn default_admin_listen() -> ListenAddress {
    ListenAddress(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9090))
}

const fn a_thousand() -> Count<1, 1_000_000> {
    Count::new(1000)
}

fn default_data_dir() -> AbsolutePath {
    AbsolutePath::new("/var/lib/signpost")
}

const fn yes() -> bool {
    true
}

fn at_least_one<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Vec<T>, D::Error> {
    match Vec::deserialize(deserializer)? {
        none if none.is_empty() => Err(D::Error::custom("is an empty list, expected at least one item")),
        items => Ok(items),
    }
}

impl Config {
    /// Every key with its value, including defaults, as YAML. It contains no secret: none can be configured.
    #[must_use]
    pub fn show(&self) -> String {
        serde_saphyr::to_string(self).expect("a configuration is always YAML")
    }
}

/// Paths of a certificate and its private key, as PEM.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TlsConfig {
    /// The server's certificate and its chain, PEM. Reloaded when it changes.
    #[schemars(example = "/etc/signpost/tls/tls.crt")]
    pub certificate: AbsolutePath,
    /// The private key of the certificate, PEM without a passphrase. Reloaded when it changes.
    #[schemars(example = "/etc/signpost/tls/tls.key")]
    pub private_key: AbsolutePath,
}

/// The pod that Kubernetes Events refer to, and the access to its cluster.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EventsConfig {
    /// The pod that the Events are about, `NAMESPACE/NAME`: in a cluster Signpost's own.
    #[schemars(example = "signpost/signpost-0")]
    pub pod: NamespacedName,
    /// The UID of the pod: `kubectl describe pod` shows no Events without it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(example = "6f1c6f0c-6f6c-4b4e-8d43-0c3f3c9f5a4e")]
    pub pod_uid: Option<String>,
    /// The kubeconfig. With neither this nor a context: the cluster that Signpost runs in.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(example = "/etc/signpost/kubeconfig")]
    pub kubeconfig: Option<AbsolutePath>,
    /// The context of `kubeconfig`, or of the user's own kubeconfig, the current one by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(example = "kind-kind")]
    pub context: Option<String>,
}

/// The configuration of `signer`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeConfig {
    /// The directory of keyring, announcement and ledger.
    pub data_dir: AbsolutePath,
    pub issuer: IssuerConfig,
    pub signer: SignerConfig,
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
    /// The directory of the embedded keyring.
    pub data_dir: AbsolutePath,
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
    checked(flags, file, cwd, |tree, problems| read_all(tree, now, problems))
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
    checked(&all, file, cwd, |tree, problems| {
        let named = tree.get("issuers").and_then(|issuers| issuers.item(0)?.get("issuer")).is_some();
        overlay::set_placeholder_issuers(tree, problems);
        let mut config = read_all(tree, now, problems)?;
        if config.issuers.len() > 1 {
            let fault = Fault::new(format!(
                "has {} issuers, expected one to print the keys of",
                config.issuers.len()
            ));
            let hint = "pass the sources with `--source`, without the file";
            Section::root(tree).refuse_key("issuers", fault.hint(hint), problems);
        }
        let issuer = config.issuers.pop()?;
        Some(KeysConfig {
            jwks_uri: issuer.jwks_uri.as_ref().map(ToString::to_string),
            issuer: named.then_some(issuer.issuer),
            profile: if flags.profile.is_none() { Profile::All } else { issuer.profile },
            sources: issuer.sources,
            data_dir: config.data_dir,
        })
    })
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
        overlay::apply_signer(flags, tree);
        let config = read_all(tree, now, problems).filter(|_| problems.is_empty())?;
        let count = config.issuers.len();
        let mut signed = config.issuers.into_iter().filter(|issuer| issuer.signer.is_some());
        let (Some(mut issuer), None) = (signed.next(), signed.next()) else {
            let fault = Fault::new(format!("has {count} issuers, expected one of them with `signer`"));
            let hint = "a node signs for one issuer: give each signer its own file";
            Section::root(tree).refuse_key("issuers", fault.hint(hint), problems);
            return None;
        };
        let signer = issuer.signer.take()?;
        Some(NodeConfig { data_dir: config.data_dir, issuer, signer })
    })
}

fn checked<T>(
    flags: &Flags,
    file: Option<(&Path, &str)>,
    cwd: &Path,
    read: impl FnOnce(&mut Node, &mut Problems) -> Option<T>,
) -> Result<T, InvalidConfig> {
    let mut problems = Problems::default();
    let config = match file.map(|(_, text)| document::parse(text)).transpose() {
        Ok(document) => {
            let mut tree = overlay::apply(flags, document, cwd, &mut problems);
            read(&mut tree, &mut problems)
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

/// Reads and checks everything.
fn read_all(tree: &mut Node, now: Timestamp, problems: &mut Problems) -> Option<Config> {
    let mut config = if let Some(config) = read::valid::<Config>(tree, &[]) {
        config
    } else {
        read_issuers(tree, problems);
        read::read(tree, &[], problems)?
    };
    check(&mut config, tree, now, problems);
    Some(config)
}

/// Reads what may be long in parts, so that a fault does not read everything again.
fn read_issuers(tree: &mut Node, problems: &mut Problems) {
    let issuers = Step::Key("issuers".to_owned());
    let Some(Value::List(items)) = tree.get("issuers").map(|node| &node.value) else { return };
    for index in 0..items.len() {
        let issuer = [issuers.clone(), Step::Item(index)];
        if read::valid::<IssuerConfig>(tree, &issuer).is_some() {
            continue;
        }
        let list = |key: &str| [&issuer[..], &[Step::Key(key.to_owned())]].concat();
        read::read_items::<SourceConfig>(tree, &list("sources"), problems);
        read::read_items::<TargetConfig>(tree, &list("targets"), problems);
        read::read_items::<PreviousIssuerConfig>(tree, &list("previous_issuers"), problems);
        read::read::<IssuerConfig>(tree, &issuer, problems);
    }
}

/// Derives what the file leaves out, and checks values against each other.
fn check(config: &mut Config, tree: &Node, now: Timestamp, problems: &mut Problems) {
    let root = Section::root(tree);
    let (listen, admin) = (config.listen, config.admin_listen);
    if overlap(listen.0, admin.0) && problems.none_at(&root, &["listen", "admin_listen"]) {
        let fault = Fault::new(format!("`{admin}` is taken by listen (`{listen}`), expected another port"));
        root.refuse_key("admin_listen", fault, problems);
    }
    let data_dir = problems.none_at(&root, &["data_dir"]).then(|| config.data_dir.clone().into());
    let mut known = Known::new(now, data_dir, config.tls.is_some());
    for (issuer, at) in config.issuers.iter_mut().zip(root.items("issuers")) {
        issuer::check(issuer, &at, &mut known, problems);
    }
}

/// Whether the second listener would find the port in use. Port 0 is a free one each time.
fn overlap(one: SocketAddr, other: SocketAddr) -> bool {
    let same_ip = one.ip() == other.ip() || one.ip().is_unspecified() || other.ip().is_unspecified();
    one.port() == other.port() && one.port() != 0 && same_ip
}

#[cfg(test)]
mod tests;
