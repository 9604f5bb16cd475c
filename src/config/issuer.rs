//! An issuer: its documents, its times, its sources and its targets.

use std::{
    collections::{HashMap, HashSet, hash_map::Entry},
    path::PathBuf,
    time::Duration,
};

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{
    duration::{DAY, HOUR, MINUTE, Seconds},
    jwks_uri,
    problem::{Fault, Problems},
    schedule::{Schedule, WindowOpening},
    section::{Section, UniqueNames},
    signer::{self, SignerConfig},
    source::{self, SourceConfig},
    target::{self, TargetConfig},
    timing,
    value::{AbsolutePath, NamespacedName, WebUrl, Zone},
    verify::{self, VerifyConfig},
    window,
};
use crate::core::{
    jose::{issuer::Issuer, jwk_set::Profile},
    location::Location,
    rotation::Window,
};

/// Shortest token lifetime of Kubernetes: `expirationSeconds` of a token request is at least 600.
pub(super) const SHORTEST_KUBERNETES_TOKEN: Duration = Duration::from_mins(10);

#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct IssuerConfig {
    /// The issuer, exactly as in the `iss` claim of tokens: an https URL (http only on loopback).
    #[schemars(example = "https://oidc.example.com/kind")]
    pub issuer: Issuer,
    /// URL of the JWKS; derived from the issuer by default. Below the issuer, Signpost writes and serves it;
    /// any other URL needs `jwks_served_elsewhere`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(example = "https://oidc.example.com/kind/keys.json")]
    pub(super) jwks_uri: Option<WebUrl>,
    /// Whether another server serves `jwks_uri`, with what Signpost publishes as `openid/v1/jwks`. If a target
    /// has a public address, the JWKS is read back from `jwks_uri`.
    #[serde(default)]
    #[schemars(example = false)]
    pub(super) jwks_served_elsewhere: bool,
    /// Keys to publish: `entra` for RS256 keys only, in the form that Microsoft Entra reads, or `all`.
    #[serde(default)]
    #[schemars(example = &"entra")]
    pub profile: Profile,
    /// Longest time that a relying party may cache either document: the `max-age` of its `Cache-Control`.
    #[serde(default = "default_jwks_max_age")]
    #[schemars(example = "5m")]
    pub jwks_max_age: Seconds<1, HOUR>,
    /// Longest lifetime of a token of this issuer. A key that no source lists any more stays published for this
    /// long plus `margin`. At least 10m, the minimum of Kubernetes, unless the source is `embedded`. Microsoft
    /// Entra refuses tokens with a lifetime of more than 25h.
    #[serde(default = "a_day")]
    #[schemars(example = "24h")]
    pub max_token_lifetime: Seconds<1, LONGEST>,
    /// Added to every wait, to allow for clock skew.
    #[serde(default = "an_hour")]
    #[schemars(example = "1h")]
    pub margin: Seconds<1, LONGEST>,
    /// How long every target shows a new key before it signs: longer than any relying party caches a JWKS, and
    /// at least twice `jwks_max_age`. Microsoft does not document how long Entra caches one.
    #[serde(default = "default_propagation")]
    #[schemars(example = "24h")]
    pub propagation: Seconds<2, LONGEST>,
    /// Age at which a signing key is replaced, if Signpost signs. Longer than `propagation` plus `margin`: the
    /// next key is generated when this one starts to sign.
    #[serde(default = "a_month")]
    #[schemars(example = "720h")]
    pub rotate_after: Seconds<1, { 10 * LONGEST }>,
    /// Window for scheduled rotations; any time by default. Rotations that an operator requests do not wait for
    /// it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(example = json!({ "opens": "0 2 * * SUN", "for": "4h", "time_zone": "Europe/Amsterdam" }))]
    pub(super) rotate_within: Option<WindowConfig>,
    /// Publish even if an API server reports another issuer.
    #[serde(default)]
    #[schemars(example = false)]
    pub allow_issuer_mismatch: bool,
    /// Sources of keys; the union of all is published.
    #[serde(deserialize_with = "super::at_least_one")]
    #[schemars(length(min = 1), example = [json!({ "kind": "api-server" })])]
    pub sources: Vec<SourceConfig>,
    /// Where to publish the documents, in addition to HTTP.
    #[serde(default)]
    #[schemars(example = [json!({ "url": "az://account/$web" })])]
    pub targets: Vec<TargetConfig>,
    /// Schedule to check all targets in full and repair them: cron, five fields, UTC. If both day and weekday
    /// are given, both must match. A change of keys is published at once.
    #[serde(default)]
    #[schemars(example = "*/5 * * * *")]
    pub schedule: Schedule,
    /// Where to store the ledger, instead of a file in the data directory.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(example = json!({ "config_map": "signpost/signpost-ledger" }))]
    pub ledger: Option<LedgerConfig>,
    /// Previous issuers: their documents stay published, with the same keys, until they are removed here.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(example = [json!({ "issuer": "https://old.example.com/kind" })])]
    pub previous_issuers: Vec<PreviousIssuerConfig>,
    /// The node that signs for this issuer: for `signpost signer`, and for the source `embedded`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(example = json!({ "socket": "/run/signpost/signer.sock" }))]
    pub signer: Option<SignerConfig>,
    /// Verify a fresh token against the public documents, periodically: needs a source that issues tokens,
    /// `api-server` or `embedded`. Off by default, except with the embedded default issuer.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(example = json!({ "every": "10m" }))]
    pub verify: Option<VerifyConfig>,
}

/// A year and a day: the longest of most times.
const LONGEST: u64 = 366 * DAY;

const fn default_jwks_max_age() -> Seconds<1, HOUR> {
    Seconds::new(5 * MINUTE)
}

const fn an_hour() -> Seconds<1, LONGEST> {
    Seconds::new(HOUR)
}

const fn a_day() -> Seconds<1, LONGEST> {
    Seconds::new(DAY)
}

const fn default_propagation() -> Seconds<2, LONGEST> {
    Seconds::new(DAY)
}

const fn a_month() -> Seconds<1, { 10 * LONGEST }> {
    Seconds::new(30 * DAY)
}

impl IssuerConfig {
    /// The URL of the JWKS for relying parties.
    #[must_use]
    pub fn jwks_uri(&self) -> String {
        jwks_uri::effective(self.jwks_uri.as_ref(), &self.issuer)
    }

    /// When a key may be replaced because of its age; `None`: at any time.
    #[must_use]
    pub fn rotate_within(&self) -> Option<Window> {
        self.rotate_within.as_ref().map(WindowConfig::window)
    }

    /// Whether keys of this issuer are generated and sign in this process.
    #[must_use]
    pub fn signs(&self) -> bool {
        self.sources.contains(&SourceConfig::Embedded)
    }

    /// Whether its documents are only served over HTTP.
    #[must_use]
    pub fn has_no_target(&self) -> bool {
        self.targets.is_empty() && self.previous_issuers.iter().all(|previous| previous.targets.is_empty())
    }

    /// Whether keys come from nodes that announce them.
    #[must_use]
    pub fn has_nodes(&self) -> bool {
        self.signs() || self.sources.iter().any(|source| matches!(source, SourceConfig::Announcements(_)))
    }
}

/// When keys are replaced because of their age.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct WindowConfig {
    /// When the window opens: cron, five fields, in `time_zone`. If both day and weekday are given, both must
    /// match. A time that is skipped when clocks change is the moment of the change; of a time that occurs
    /// twice, the first counts.
    #[schemars(example = "0 2 * * SUN")]
    pub(super) opens: WindowOpening,
    /// How long it stays open. Longer than the poll interval of the source that observes the nodes.
    #[serde(rename = "for")]
    #[schemars(example = "4h")]
    pub(super) open_for: Seconds<MINUTE, { 7 * DAY }>,
    /// Time zone of `opens`: a name of the IANA time zone database.
    #[serde(default)]
    #[schemars(example = "Europe/Amsterdam")]
    time_zone: Zone,
}

impl WindowConfig {
    fn window(&self) -> Window {
        Window::new(self.opens.calendar(), self.time_zone.0.clone(), self.open_for.get())
    }
}

/// The `ConfigMap` that holds a ledger; no two issuers have the same.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LedgerConfig {
    /// The `ConfigMap`, `NAMESPACE/NAME`; each issuer has its own. Created if it does not exist. The data
    /// directory keeps a copy.
    #[schemars(example = "signpost/signpost-ledger")]
    pub config_map: NamespacedName,
    /// The kubeconfig. With neither this nor a context: the cluster that Signpost runs in.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(example = "/etc/signpost/kubeconfig")]
    pub kubeconfig: Option<AbsolutePath>,
    /// The context of `kubeconfig`, or of the user's own kubeconfig, the current one by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(example = "kind-kind")]
    pub context: Option<String>,
}

/// A previous issuer, which tokens and relying parties still name.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PreviousIssuerConfig {
    /// The previous issuer, as in tokens that have not expired.
    #[schemars(example = "https://old.example.com/kind")]
    pub issuer: Issuer,
    /// URL of the JWKS of the previous issuer; derived from it by default. Below it, or anywhere else with
    /// `jwks_served_elsewhere`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(example = "https://old.example.com/kind/keys.json")]
    jwks_uri: Option<WebUrl>,
    /// Whether another server serves `jwks_uri`, with what Signpost publishes as `openid/v1/jwks`. If a target
    /// has a public address, the JWKS is read back from `jwks_uri`.
    #[serde(default)]
    #[schemars(example = false)]
    jwks_served_elsewhere: bool,
    /// Where to publish its documents, in addition to HTTP: usually the targets that it had.
    #[serde(default)]
    #[schemars(example = [json!({ "url": "az://account/$web" })])]
    pub targets: Vec<TargetConfig>,
}

impl PreviousIssuerConfig {
    /// The URL of the JWKS for relying parties.
    #[must_use]
    pub fn jwks_uri(&self) -> String {
        jwks_uri::effective(self.jwks_uri.as_ref(), &self.issuer)
    }
}

/// The values of earlier issuers and targets, which must be unique.
pub(super) struct Known {
    pub(super) now: Timestamp,
    pub(super) data_dir: Option<PathBuf>,
    /// Whether relying parties connect over TLS.
    pub(super) tls: bool,
    /// Every location so far, and the target that uses it.
    pub(super) locations: HashMap<Location, String>,
    /// The issuer that uses the embedded keyring.
    embedded: Option<String>,
    /// Every issuer so far, including previous ones, and its path in the file.
    pub(super) issuers: HashMap<String, String>,
    /// Every `ConfigMap` of a ledger so far, and its path in the file.
    ledgers: HashMap<LedgerConfig, String>,
    /// Every schedule so far that has a next time: thousands of issuers share a few.
    schedules: HashSet<Schedule>,
}

impl Known {
    pub(super) fn new(now: Timestamp, data_dir: Option<PathBuf>, tls: bool) -> Self {
        Self {
            now,
            data_dir,
            tls,
            locations: HashMap::new(),
            embedded: None,
            issuers: HashMap::new(),
            ledgers: HashMap::new(),
            schedules: HashSet::new(),
        }
    }

    /// Rejects an issuer that is already used by another one, also as a previous issuer.
    fn check_issuer(&mut self, issuer: &Issuer, at: &Section<'_>, problems: &mut Problems) {
        // Two issuers that differ only by a trailing slash would share their documents.
        match self.issuers.entry(issuer.discovery_url()) {
            Entry::Occupied(first) => {
                at.refuse_key("issuer", at.taken("issuer", issuer.as_str(), first.get()), problems);
            }
            Entry::Vacant(free) => {
                free.insert(at.name());
            }
        }
    }

    fn check_schedule(&mut self, schedule: &Schedule) -> Result<(), Fault> {
        if !self.schedules.contains(schedule) {
            schedule.check(self.now)?;
            self.schedules.insert(schedule.clone());
        }
        Ok(())
    }

    fn check_ledger(&mut self, ledger: &LedgerConfig, at: &Section<'_>, problems: &mut Problems) {
        match self.ledgers.entry(ledger.clone()) {
            Entry::Occupied(first) => {
                let fault = at.taken("ConfigMap", &ledger.config_map.to_string(), first.get());
                at.refuse_key("config_map", fault, problems);
            }
            Entry::Vacant(free) => {
                free.insert(at.name());
            }
        }
    }
}

/// Derives what the file leaves out, and checks the values of an issuer against each other and against `known`.
pub(super) fn check(config: &mut IssuerConfig, at: &Section<'_>, known: &mut Known, problems: &mut Problems) {
    let named = problems.none_at(at, &["issuer"]).then(|| config.issuer.clone());
    let named = named.as_ref();
    if let Some(issuer) = named {
        known.check_issuer(issuer, at, problems);
        if known.tls && issuer.as_str().starts_with("http://") {
            let fault = Fault::new(format!(
                "`{issuer}` has scheme `http`, expected `https`: the listener speaks TLS"
            ));
            at.refuse_key("issuer", fault.hint("correct it, or remove `tls`"), problems);
        }
        let elsewhere = config.jwks_served_elsewhere;
        jwks_uri::check((issuer, config.jwks_uri.as_ref(), elsewhere), at, known, problems);
        config.jwks_uri.get_or_insert_with(|| WebUrl::derived(&issuer.jwks_uri()));
    }
    timing::check(config, at, problems);
    source::check(&mut config.sources, at, problems);
    check_embedded(config, at, known, problems);
    window::check(config, at, known.now, problems);
    let mut names = UniqueNames::default();
    target::check(&mut config.targets, (at, named), config.profile, &mut names, known, problems);
    if problems.none_at(at, &["schedule"])
        && let Err(fault) = known.check_schedule(&config.schedule)
    {
        at.refuse_key("schedule", fault, problems);
    }
    if let Some((ledger, at)) = config.ledger.as_ref().zip(at.section("ledger"))
        && problems.none_at(&at, &["config_map"])
    {
        known.check_ledger(ledger, &at, problems);
    }
    for (previous, at) in config.previous_issuers.iter_mut().zip(at.items("previous_issuers")) {
        let named = problems.none_at(&at, &["issuer"]).then_some(&previous.issuer);
        if let Some(issuer) = named {
            known.check_issuer(issuer, &at, problems);
            let elsewhere = previous.jwks_served_elsewhere;
            jwks_uri::check((issuer, previous.jwks_uri.as_ref(), elsewhere), &at, known, problems);
            previous.jwks_uri.get_or_insert_with(|| WebUrl::derived(&issuer.jwks_uri()));
        }
        target::check(&mut previous.targets, (&at, named), config.profile, &mut names, known, problems);
    }
    signer::check(config, at, problems);
    verify::check(config, named, at, problems);
}

/// One issuer at most has the embedded keyring; every other one has tokens of Kubernetes.
fn check_embedded(config: &IssuerConfig, at: &Section<'_>, known: &mut Known, problems: &mut Problems) {
    if config.signs() {
        if let Some(first) = &known.embedded {
            let fault = Fault::new(format!("has the embedded keyring, which {first} has already"));
            let hint = "a key signs for one issuer: run the second with its own `data_dir`";
            at.refuse_key("sources", fault.hint(hint), problems);
        }
        known.embedded.get_or_insert_with(|| at.name());
    } else if config.max_token_lifetime.get() < SHORTEST_KUBERNETES_TOKEN
        && problems.none_at(at, &["max_token_lifetime"])
        && at.is_read("sources")
        // The `signer` section has a more precise check.
        && !at.has("signer")
    {
        let fault = Fault::new(format!(
            "`{}` is too short, expected at least `10m`, the shortest that Kubernetes gives a token",
            config.max_token_lifetime
        ));
        at.refuse_key("max_token_lifetime", fault, problems);
    }
}
