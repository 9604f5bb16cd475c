//! Builds the typed configuration from the tree, and checks values against each other.

use std::{
    collections::{HashMap, hash_map::Entry},
    net::SocketAddr,
    path::PathBuf,
    time::Duration,
};

use jiff::Timestamp;

use super::{
    Config, EventsConfig, IssuerConfig, KeysConfig, LedgerConfig, NodeConfig, PreviousIssuerConfig, Schedule,
    SignerConfig, SourceConfig, TargetConfig, TlsConfig, VerifyConfig,
    document::Node,
    keys::ROOT,
    problem::{Fault, Problems},
    reader::{At, Mapping},
    value,
};
use crate::core::{
    jose::{issuer::Issuer, jwk_set::Profile},
    location::Location,
    rotation::{Timing, Window},
};

mod events;
mod jwks_uri;
mod previous_issuers;
mod signer;
mod source;
mod target;
mod timing;
mod verify;
mod window;

/// Shortest token lifetime of Kubernetes: `expirationSeconds` of a token request is at least 600.
const SHORTEST_KUBERNETES_TOKEN: Duration = Duration::from_mins(10);

/// Reads and checks everything.
pub(super) fn config(tree: &Node, now: Timestamp, problems: &mut Problems) -> Option<Config> {
    let root = read(tree, now, true, problems)?;
    let issuers = root.issuers.into_iter().map(IssuerDraft::complete).collect::<Option<_>>()?;
    Some(Config {
        listen: root.listen?,
        admin_listen: root.admin_listen?,
        tls: root.tls,
        max_connections: root.max_connections?,
        data_dir: root.data_dir?,
        events: root.events,
        issuers,
    })
}

/// Reads and checks everything, without requiring an issuer; `profile` takes precedence over the file.
pub(super) fn keys_config(
    tree: &Node,
    profile: Option<Profile>,
    now: Timestamp,
    problems: &mut Problems,
) -> Option<KeysConfig> {
    let mut root = read(tree, now, false, problems)?;
    if root.issuers.len() > 1 {
        let issuers = At { node: tree.get("issuers")?, path: "issuers".to_owned() };
        let fault =
            Fault::new(format!("has {} issuers, expected one to print the keys of", root.issuers.len()));
        issuers.refuse(fault.hint("pass the sources with `--source`, without the file"), problems);
    }
    let issuer = root.issuers.pop()?;
    Some(KeysConfig {
        issuer: issuer.issuer,
        jwks_uri: issuer.jwks_uri,
        profile: profile.or(issuer.profile)?,
        sources: issuer.sources?,
        data_dir: root.data_dir?,
    })
}

/// Reads and checks everything, and requires the one issuer that a node signs for.
pub(super) fn node_config(tree: &Node, now: Timestamp, problems: &mut Problems) -> Option<NodeConfig> {
    let config = config(tree, now, problems)?;
    let count = config.issuers.len();
    let mut signed = config.issuers.into_iter().filter(|issuer| issuer.signer.is_some());
    let issuers = At { node: tree.get("issuers")?, path: "issuers".to_owned() };
    let (Some(mut issuer), None) = (signed.next(), signed.next()) else {
        let fault = Fault::new(format!("has {count} issuers, expected one of them with `signer`"));
        issuers.refuse(fault.hint("a node signs for one issuer: give each signer its own file"), problems);
        return None;
    };
    let signer = issuer.signer.take()?;
    Some(NodeConfig { data_dir: config.data_dir, issuer, signer })
}

/// The values that could be read; `None` where a problem is already reported.
struct Draft {
    listen: Option<SocketAddr>,
    admin_listen: Option<SocketAddr>,
    tls: Option<TlsConfig>,
    max_connections: Option<usize>,
    data_dir: Option<PathBuf>,
    events: Option<EventsConfig>,
    issuers: Vec<IssuerDraft>,
}

/// The value is unusable; a problem is already reported.
struct Reported;

struct IssuerDraft {
    issuer: Option<Issuer>,
    jwks_uri: Option<String>,
    profile: Option<Profile>,
    jwks_max_age: Option<Duration>,
    max_token_lifetime: Option<Duration>,
    margin: Option<Duration>,
    propagation: Option<Duration>,
    rotate_after: Option<Duration>,
    rotate_within: Result<Option<Window>, Reported>,
    allow_issuer_mismatch: Option<bool>,
    sources: Option<Vec<SourceConfig>>,
    targets: Option<Vec<TargetConfig>>,
    schedule: Option<Schedule>,
    ledger: Result<Option<LedgerConfig>, Reported>,
    former: Option<Vec<PreviousIssuerConfig>>,
    signer: Result<Option<SignerConfig>, Reported>,
    verify: Result<Option<VerifyConfig>, Reported>,
}

impl IssuerDraft {
    fn complete(self) -> Option<IssuerConfig> {
        let issuer = self.issuer?;
        Some(IssuerConfig {
            jwks_uri: self.jwks_uri.unwrap_or_else(|| issuer.jwks_uri()),
            issuer,
            profile: self.profile?,
            jwks_max_age: self.jwks_max_age?,
            max_token_lifetime: self.max_token_lifetime?,
            margin: self.margin?,
            propagation: self.propagation?,
            rotate_after: self.rotate_after?,
            rotate_within: self.rotate_within.ok()?,
            allow_issuer_mismatch: self.allow_issuer_mismatch?,
            sources: self.sources?,
            targets: self.targets?,
            schedule: self.schedule?,
            ledger: self.ledger.ok()?,
            previous_issuers: self.former?,
            signer: self.signer.ok()?,
            verify: self.verify.ok()?,
        })
    }
}

/// The values of earlier issuers and targets, which must be unique.
struct UsedNames {
    now: Timestamp,
    data_dir: Option<PathBuf>,
    /// Whether relying parties connect over TLS.
    tls: bool,
    /// Every location so far, and the target that uses it.
    locations: HashMap<Location, String>,
    /// The issuer that uses the embedded keyring.
    embedded: Option<String>,
    /// Every issuer so far, including previous ones, and its path in the file.
    issuers: HashMap<String, String>,
    /// Every `ConfigMap` of a ledger so far, and its path in the file.
    ledgers: HashMap<LedgerConfig, String>,
    /// Every schedule so far, by its text: thousands of issuers share a few.
    schedules: HashMap<String, Schedule>,
}

impl UsedNames {
    fn schedule(&mut self, text: &str) -> Result<Schedule, Fault> {
        if let Some(schedule) = self.schedules.get(text) {
            return Ok(schedule.clone());
        }
        let schedule = Schedule::parse(text, self.now)?;
        self.schedules.insert(text.to_owned(), schedule.clone());
        Ok(schedule)
    }
}

fn read(tree: &Node, now: Timestamp, issuer_required: bool, problems: &mut Problems) -> Option<Draft> {
    let root = Mapping::open(At::root(tree), &ROOT, problems)?;
    let listen = root.address("listen", problems);
    let admin_listen = root.address("admin_listen", problems);
    if let (Some(listen), Some(admin)) = (listen, admin_listen)
        && overlap(listen, admin)
    {
        let fault = Fault::new(format!("`{admin}` is taken by listen (`{listen}`), expected another port"));
        root.refuse("admin_listen", fault, problems);
    }
    let tls = root.mapping("tls", problems);
    let max_connections = root.count("max_connections", problems);
    let data_dir = root.path("data_dir", problems);
    let events = root.mapping("events", problems).and_then(|events| events::read(&events, problems));
    let mut known = UsedNames {
        now,
        data_dir: data_dir.clone(),
        tls: tls.is_some(),
        locations: HashMap::new(),
        embedded: None,
        issuers: HashMap::new(),
        ledgers: HashMap::new(),
        schedules: HashMap::new(),
    };
    let mut issuers = Vec::new();
    for mapping in root.mappings("issuers", problems).unwrap_or_default() {
        issuers.push(read_issuer(&mapping, issuer_required, &mut known, problems));
    }
    let tls = tls.and_then(|tls| read_tls(&tls, problems));
    Some(Draft { listen, admin_listen, tls, max_connections, data_dir, events, issuers })
}

fn read_tls(mapping: &Mapping<'_>, problems: &mut Problems) -> Option<TlsConfig> {
    let certificate = mapping.path("certificate", problems);
    let private_key = mapping.path("private_key", problems);
    Some(TlsConfig { certificate: certificate?, private_key: private_key? })
}

/// Rejects an issuer that is already used by another one, also as a previous issuer.
fn unique_issuer(issuer: &Issuer, mapping: &Mapping<'_>, known: &mut UsedNames, problems: &mut Problems) {
    // Two issuers that differ only by a trailing slash would share their documents.
    match known.issuers.entry(issuer.discovery_url()) {
        Entry::Occupied(first) => {
            let fault = mapping.at.taken("issuer", issuer.as_str(), first.get());
            mapping.refuse("issuer", fault, problems);
        }
        Entry::Vacant(free) => {
            free.insert(mapping.at.name());
        }
    }
}

/// Whether the second listener would find the port in use. Port 0 is a free one each time.
fn overlap(one: SocketAddr, other: SocketAddr) -> bool {
    let same_ip = one.ip() == other.ip() || one.ip().is_unspecified() || other.ip().is_unspecified();
    one.port() == other.port() && one.port() != 0 && same_ip
}

fn read_issuer(
    mapping: &Mapping<'_>,
    issuer_required: bool,
    known: &mut UsedNames,
    problems: &mut Problems,
) -> IssuerDraft {
    let issuer = if issuer_required || mapping.get("issuer").is_some() {
        mapping.parsed("issuer", problems, |text| {
            Issuer::parse(text).map_err(|error| Fault::new(error.to_string()))
        })
    } else {
        None
    };
    if let Some(issuer) = &issuer {
        unique_issuer(issuer, mapping, known, problems);
    }
    if let Some(issuer) = issuer.as_ref().filter(|issuer| known.tls && issuer.as_str().starts_with("http://"))
    {
        let fault =
            Fault::new(format!("`{issuer}` has scheme `http`, expected `https`: the listener speaks TLS"));
        mapping.refuse("issuer", fault.hint("correct it, or remove `tls`"), problems);
    }
    let jwks_uri = jwks_uri::read(mapping, issuer.as_ref(), known, problems);
    let profile = mapping.choice("profile", problems, &Profile::ALL, Profile::name);
    let jwks_max_age = mapping.duration("jwks_max_age", problems);
    let max_token_lifetime = mapping.duration("max_token_lifetime", problems);
    let margin = mapping.duration("margin", problems);
    let propagation = mapping.duration("propagation", problems);
    let rotate_after = mapping.duration("rotate_after", problems);
    if let (
        Some(jwks_max_age),
        Some(max_token_lifetime),
        Some(margin),
        Some(propagation),
        Some(rotate_after),
    ) = (jwks_max_age, max_token_lifetime, margin, propagation, rotate_after)
    {
        let timing = Timing {
            rotate_after: Some(rotate_after),
            window: None,
            propagation,
            jwks_max_age,
            max_token_lifetime,
            margin,
        };
        timing::check(&timing, mapping, problems);
    }
    let allow_issuer_mismatch = mapping.bool("allow_issuer_mismatch", problems);
    let sources = source::read(mapping, problems);
    if sources.as_ref().is_some_and(|sources| sources.contains(&SourceConfig::Embedded)) {
        if let Some(first) = &known.embedded {
            let fault = Fault::new(format!("has the embedded keyring, which {first} has already"));
            mapping.refuse(
                "sources",
                fault.hint("a key signs for one issuer: run the second with its own `data_dir`"),
                problems,
            );
        }
        known.embedded.get_or_insert(mapping.at.name());
    }
    let rotate_within = window::read(mapping, sources.as_deref().unwrap_or_default(), known.now, problems);
    if let (Some(lifetime), Some(sources)) = (max_token_lifetime, &sources)
        && lifetime < SHORTEST_KUBERNETES_TOKEN
        && !sources.contains(&SourceConfig::Embedded)
        // The `signer` section has a more precise check.
        && mapping.get("signer").is_none()
    {
        let lifetime = value::duration_text(lifetime);
        let fault = Fault::new(format!(
            "`{lifetime}` is too short, expected at least `10m`, the shortest that Kubernetes gives a token"
        ));
        mapping.refuse("max_token_lifetime", fault, problems);
    }
    let mut names = Vec::new();
    let targets = target::read(mapping, issuer.as_ref(), profile, known, &mut names, problems);
    let schedule = mapping.parsed("schedule", problems, |text| known.schedule(text));
    let ledger = ledger(mapping, known, problems);
    let former = previous_issuers::read(mapping, profile, known, &mut names, problems);
    let signer = signer::read(mapping, max_token_lifetime, problems);
    if let (Ok(Some(signer)), Some(profile), Some(targets)) = (&signer, profile, &targets) {
        signer::check_profiles(mapping, signer.key_type, profile, targets, problems);
    }
    if let (Ok(Some(signer)), Some(sources)) = (&signer, &sources) {
        signer::check_listener(mapping, signer, sources, problems);
    }
    let verify = verify::read(mapping, issuer.as_ref(), sources.as_deref(), problems);
    IssuerDraft {
        issuer,
        jwks_uri,
        profile,
        jwks_max_age,
        max_token_lifetime,
        margin,
        propagation,
        rotate_after,
        rotate_within,
        allow_issuer_mismatch,
        sources,
        targets,
        schedule,
        ledger,
        former,
        signer,
        verify,
    }
}

fn ledger(
    issuer: &Mapping<'_>,
    known: &mut UsedNames,
    problems: &mut Problems,
) -> Result<Option<LedgerConfig>, Reported> {
    if issuer.get("ledger").is_none() {
        return Ok(None);
    }
    let mapping = issuer.mapping("ledger", problems).ok_or(Reported)?;
    let config_map = mapping.parsed("config_map", problems, value::config_map);
    let kubeconfig = mapping.path("kubeconfig", problems);
    let context = mapping.text("context", problems);
    let (namespace, name) = config_map.ok_or(Reported)?;
    let ledger = LedgerConfig { namespace, name, kubeconfig, context };
    match known.ledgers.entry(ledger.clone()) {
        Entry::Occupied(first) => {
            let text = format!("{}/{}", ledger.namespace, ledger.name);
            mapping.refuse("config_map", mapping.at.taken("ConfigMap", &text, first.get()), problems);
        }
        Entry::Vacant(free) => {
            free.insert(mapping.at.name());
        }
    }
    Ok(Some(ledger))
}

/// Rejects a name that is already used in the list.
fn unique_name(name: &str, mapping: &Mapping<'_>, seen: &mut Vec<(String, String)>, problems: &mut Problems) {
    match seen.iter().find(|(other, _)| other == name) {
        Some((_, first)) => mapping.at.refuse(mapping.at.taken("name", name, first), problems),
        None => seen.push((name.to_owned(), mapping.at.name())),
    }
}
