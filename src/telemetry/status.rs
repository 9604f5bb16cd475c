//! The last observed state of the process: the single input of metrics and status.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, RwLock},
};

use jiff::Timestamp;
use serde::{Serialize, Serializer};

use self::view::View;
use super::{
    event_source::{self, EventQueue},
    log, metrics,
    signer_metrics::SignerMetrics,
};
use crate::core::{
    events::event::Event,
    jose::{issuer::Issuer, jwk_set::Profile},
    ledger::{EntryState, Ledger},
    rotation::NodeStatus,
    text::redaction::{printable, redact_json},
    verification::Verdict,
};

mod view;

/// Shared by all tasks. Every issuer has its own lock, so that rendering thousands of them blocks no task.
#[derive(Clone, Debug, Default)]
pub struct StatusStore(Arc<State>);

#[derive(Debug, Default)]
struct State {
    issuers: RwLock<BTreeMap<String, Shared>>,
    /// The node that signs in this process, by issuer.
    signers: Mutex<BTreeMap<String, Arc<SignerMetrics>>>,
    configuration: Mutex<ConfigurationStatus>,
    /// Certificate of the public listener; `None` where it serves plain text.
    tls: Mutex<Option<TlsStatus>>,
    /// The queue for Kubernetes Events, if they are enabled.
    events: Option<EventQueue>,
}

type Shared = Arc<Mutex<IssuerStatus>>;

/// The result of the last configuration read.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct ConfigurationStatus {
    /// Number of reads: one at the start, and one for every reload.
    pub reads: u64,
    /// When the configuration in use was read.
    pub read: Option<Timestamp>,
    /// When a later configuration was rejected, and why; the one in use stays.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refused: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub alarm: Option<String>,
}

/// The status of the public listener's certificate.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct TlsStatus {
    /// Expiry of the served certificate.
    pub not_after: Option<Timestamp>,
    /// Checks of the files that found no usable pair.
    pub failures: u64,
    /// Why the files cannot be used now; the previous pair is served.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// Statistics of the public listener.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Document, status and count, since the start.
    pub requests: Vec<(&'static str, u16, u64)>,
    /// Currently open connections.
    pub connections: usize,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct IssuerStatus {
    /// Whether there are valid documents to serve.
    pub ready: bool,
    /// Whether the readiness of the process ignores it: it was added by a reload and has not been ready yet.
    late: bool,
    /// The stored ledger, and the served profile.
    stored: Option<(Arc<Ledger>, Profile)>,
    pub ledger: LedgerStatus,
    /// The previous issuers whose documents are also published.
    pub previous_issuers: Vec<String>,
    /// Alarms about the ledger, or about the combined sources, as text.
    pub alarms: Vec<String>,
    /// The plan of each signing node.
    pub nodes: BTreeMap<String, NodeStatus>,
    pub sources: BTreeMap<String, SourceStatus>,
    pub targets: BTreeMap<String, TargetStatus>,
    /// The verdict of a relying party on its tokens; `None` where probing is disabled, or not done yet.
    pub(super) verification: Option<VerificationStatus>,
}

/// The result of probing an issuer's tokens.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct VerificationStatus {
    /// Probes that yielded no verdict.
    pub failures: u64,
    /// Why the last probe yielded none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Time of the last verdict.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub at: Option<Timestamp>,
    #[serde(flatten)]
    pub judgement: Option<Verdict>,
}

/// Whether the ledger could be stored.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct LedgerStatus {
    /// Whether the last attempt to read and store it succeeded.
    pub up: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    pub failures: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct SourceStatus {
    /// Whether the last answer was used.
    pub up: bool,
    pub last_success: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    pub answers: u64,
    pub failures: u64,
    /// Number of keys in the last answer.
    pub keys: usize,
    /// Number of keys, or whole files, left out because they cannot be used.
    pub left_out: usize,
    /// Whether its discovery document names the configured issuer; absent where it has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub issuer_matches: Option<bool>,
    /// The kid of a token that was just minted; absent without the permission to mint one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signs_with: Option<String>,
    /// Whether that kid is public: `false` is the tripwire.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signing_key_public: Option<bool>,
    /// Whether no relying party can have a cached JWKS without it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signing_key_ready: Option<bool>,
    /// When that will be so, if only time is missing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signing_key_ready_at: Option<Timestamp>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct TargetStatus {
    /// Whether it held the publication at the last observation.
    pub up: bool,
    /// Whether a key must be served there before it may sign.
    pub required_for_rotation: bool,
    /// When it was last observed to be in sync.
    pub last_in_sync: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    pub checks: u64,
    pub failures: u64,
    pub writes: u64,
    /// What the public URL served at the last read: `true`, `behind` or an error text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub public_url: Option<String>,
}

/// A short status of an issuer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    /// Number of served keys.
    pub keys: usize,
    pub sources: Share,
    pub targets: Share,
}

impl Summary {
    /// Whether everything is healthy.
    #[must_use]
    pub fn is_healthy(&self) -> bool {
        self.keys > 0 && self.sources.others.is_empty() && self.targets.others.is_empty()
    }
}

/// How many of a kind are healthy, and the names of the others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Share {
    well: usize,
    others: Vec<String>,
    what: &'static str,
}

impl Share {
    fn of<'a>(what: &'static str, all: impl Iterator<Item = (&'a String, bool)>) -> Self {
        let (well, others): (Vec<_>, Vec<_>) = all.partition(|(_, is_well)| *is_well);
        let others = others.into_iter().map(|(name, _)| name.clone()).collect();
        Self { well: well.len(), others, what }
    }
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { well, others, what } = self;
        write!(f, "{well} of {} {what}", well + others.len())?;
        if others.is_empty() { Ok(()) } else { write!(f, ", not {}", others.join(" ")) }
    }
}

impl StatusStore {
    /// A status whose changes are sent as Events.
    #[must_use]
    pub fn with_events(events: EventQueue) -> Self {
        Self(Arc::new(State { events: Some(events), ..State::default() }))
    }

    pub fn issuer(&self, issuer: &Issuer, change: impl FnOnce(&mut IssuerStatus)) {
        let events = self.change(issuer, |status| {
            let (alarms, failed) = (status.alarms.clone(), status.ledger.error.is_some());
            change(status);
            let issuer = issuer.as_str();
            let mut events = event_source::of_alarms(&alarms, &status.alarms, issuer);
            events.extend(event_source::of_storage(failed, status.ledger.error.as_deref(), issuer));
            events
        });
        self.record(events);
    }

    fn change<T>(&self, issuer: &Issuer, change: impl FnOnce(&mut IssuerStatus) -> T) -> T {
        let known = self.0.issuers.read().expect(UNPOISONED).get(issuer.as_str()).cloned();
        let status = known.unwrap_or_else(|| {
            let mut issuers = self.0.issuers.write().expect(UNPOISONED);
            Arc::clone(issuers.entry(issuer.to_string()).or_default())
        });
        change(&mut lock(&status))
    }

    fn record(&self, events: impl IntoIterator<Item = Event>) {
        if let Some(queue) = &self.0.events {
            queue.record(events);
        }
    }

    pub fn source(&self, issuer: &Issuer, name: &str, change: impl FnOnce(&mut SourceStatus)) {
        let events = self.change(issuer, |status| {
            let source = named(&mut status.sources, name);
            let before = source.clone();
            change(source);
            event_source::of_source(&before, source, issuer.as_str(), name)
        });
        self.record(events);
    }

    /// Removes a source that is no longer configured.
    pub fn forget_source(&self, issuer: &Issuer, name: &str) {
        self.issuer(issuer, |status| drop(status.sources.remove(name)));
    }

    pub fn target(&self, issuer: &Issuer, name: &str, change: impl FnOnce(&mut TargetStatus)) {
        let event = self.change(issuer, |status| {
            let target = named(&mut status.targets, name);
            let before = target.clone();
            change(target);
            event_source::of_target(&before, target, issuer.as_str(), name)
        });
        self.record(event);
    }

    /// Records the current verdict of a relying party on a token.
    pub fn verified(&self, issuer: &Issuer, now: Timestamp, judgement: Verdict) {
        let event = self.change(issuer, |status| {
            let known = status.verification.get_or_insert_default();
            let event = event_source::of_judgement(known.judgement.as_ref(), &judgement, issuer.as_str());
            (known.error, known.at, known.judgement) = (None, Some(now), Some(judgement));
            event
        });
        self.record(event);
    }

    /// Records why there was no verdict; the last verdict stays.
    pub fn unverified(&self, issuer: &Issuer, error: &str) {
        self.change(issuer, |status| {
            let known = status.verification.get_or_insert_default();
            known.failures += 1;
            known.error = Some(error.to_owned());
        });
    }

    /// Sets the ledger; `profile` is the served one. The first ledger causes no Events.
    pub fn ledger(&self, ledger: Arc<Ledger>, profile: Profile) {
        let issuer = ledger.issuer().clone();
        let events = self.change(&issuer, |status| {
            let events = status.stored.as_ref().map(|(before, _)| event_source::of_keys(before, &ledger));
            status.stored = Some((ledger, profile));
            events
        });
        self.record(events.into_iter().flatten());
    }

    /// Registers an issuer that the process starts with: readiness waits for it.
    pub fn expect(&self, issuer: &Issuer) {
        self.issuer(issuer, |_| {});
    }

    /// Registers an issuer that a reload added: readiness does not wait for it.
    pub fn expect_late(&self, issuer: &Issuer) {
        self.issuer(issuer, |status| status.late = true);
    }

    /// Removes the sources and targets of an issuer whose configuration changed; its served documents stay.
    pub fn reset(&self, issuer: &Issuer) {
        self.issuer(issuer, |status| {
            status.alarms.clear();
            status.sources.clear();
            status.targets.clear();
            status.verification = None;
        });
    }

    /// Sets the metrics of a node that signs in this process.
    pub fn signer(&self, issuer: &Issuer, meter: Arc<SignerMetrics>) {
        lock(&self.0.signers).insert(issuer.to_string(), meter);
    }

    /// Removes an issuer that is no longer configured.
    pub fn forget(&self, issuer: &Issuer) {
        lock(&self.0.signers).remove(issuer.as_str());
        self.0.issuers.write().expect(UNPOISONED).remove(issuer.as_str());
    }

    /// Records that a configuration was read and accepted.
    pub fn configuration_read(&self, now: Timestamp) {
        self.configure(|configuration| {
            let reads = configuration.reads + 1;
            *configuration = ConfigurationStatus { reads, read: Some(now), refused: None, alarm: None };
        });
    }

    /// Records that a configuration was rejected; the previous one stays.
    pub fn configuration_refused(&self, now: Timestamp, error: &str) {
        self.configure(|configuration| {
            configuration.reads += 1;
            configuration.refused = Some(now);
            configuration.alarm = Some(format!("the configuration was rejected: {error}"));
        });
    }

    fn configure(&self, change: impl FnOnce(&mut ConfigurationStatus)) {
        let mut configuration = lock(&self.0.configuration);
        let failed = configuration.alarm.is_some();
        change(&mut configuration);
        self.record(event_source::of_configuration(failed, configuration.alarm.as_deref()));
    }

    /// Changes the status of the certificate.
    pub fn tls(&self, change: impl FnOnce(&mut TlsStatus)) {
        let mut tls = lock(&self.0.tls);
        let tls = tls.get_or_insert_default();
        let failed = tls.error.is_some();
        change(tls);
        self.record(event_source::of_certificate(failed, tls.error.as_deref()));
    }

    /// Whether every issuer has valid documents to serve; those added by a reload do not count, because a
    /// process that serves thousands must not become unready for a new one.
    #[must_use]
    pub fn ready(&self) -> bool {
        let mut any = false;
        let waited_for = self.0.issuers.read().expect(UNPOISONED).values().all(|status| {
            let status = lock(status);
            any |= status.ready;
            status.ready || status.late
        });
        any && waited_for
    }

    /// The failed checks of each issuer, with `all` also the passed ones: result and text of each.
    #[must_use]
    pub fn checks(&self, all: bool) -> Vec<(bool, String)> {
        let mut checks = Vec::new();
        for (issuer, status) in self.issuers().0 {
            let status = lock(&status);
            if !status.ready {
                checks.push((false, format!("{issuer}: has no keys to serve")));
            } else if all {
                checks.push((true, format!("{issuer}: has keys to serve")));
            }
            let judgement = status.judgement().filter(|judgement| all && judgement.is_accepted());
            checks.extend(judgement.map(|judgement| (true, format!("{issuer}: {}", judgement.in_words()))));
            let well = status.well().filter(|_| all);
            checks.extend(well.map(|well| (true, format!("{issuer}: {well}"))));
            let wrong = status.warnings().chain(status.faults());
            checks.extend(wrong.map(|wrong| (false, format!("{issuer}: {wrong}"))));
        }
        for (issuer, signer) in lock(&self.0.signers).iter() {
            let troubles = signer.troubles().into_iter();
            let node = signer.node();
            checks.extend(troubles.map(|trouble| (false, format!("{issuer}: node `{node}`: {trouble}"))));
        }
        checks
    }

    /// A short status of an issuer.
    #[must_use]
    pub fn summary(&self, issuer: &Issuer) -> Summary {
        self.change(issuer, |status| {
            let sources = status.sources.iter().map(|(name, source)| (name, source.up));
            let targets = status.targets.iter().map(|(name, target)| (name, target.up));
            Summary {
                keys: status.published_keys(),
                sources: Share::of("answer", sources),
                targets: Share::of("in sync", targets),
            }
        })
    }

    /// The body of `/status.json`.
    #[must_use]
    pub fn status(&self) -> String {
        #[derive(Serialize)]
        struct Page<'a> {
            version: &'static str,
            configuration: ConfigurationStatus,
            log_lines_dropped: u64,
            #[serde(skip_serializing_if = "Option::is_none")]
            tls: Option<TlsStatus>,
            issuers: &'a Issuers,
        }
        let page = Page {
            version: env!("CARGO_PKG_VERSION"),
            configuration: self.configuration(),
            log_lines_dropped: log::dropped(),
            tls: self.tls_status(),
            issuers: &self.issuers(),
        };
        redact_json(&serde_json::to_string(&page).expect("strings and times always serialise")).into_owned()
    }

    /// All metrics, in the text format of OpenMetrics. `traffic` is that of the public listener, if there is
    /// one.
    #[must_use]
    pub fn metrics(&self, traffic: Option<Traffic>) -> String {
        metrics::render(metrics::Page {
            configuration: self.configuration(),
            log_lines_dropped: log::dropped(),
            tls: self.tls_status(),
            issuers: self.issuers(),
            signers: lock(&self.0.signers).clone(),
            traffic,
            events: self.0.events.as_ref().map(EventQueue::totals),
        })
    }

    fn tls_status(&self) -> Option<TlsStatus> {
        lock(&self.0.tls).clone()
    }

    fn configuration(&self) -> ConfigurationStatus {
        lock(&self.0.configuration).clone()
    }

    fn issuers(&self) -> Issuers {
        let issuers = self.0.issuers.read().expect(UNPOISONED);
        Issuers(issuers.iter().map(|(issuer, status)| (issuer.clone(), Arc::clone(status))).collect())
    }
}

impl IssuerStatus {
    /// The verdict of a relying party on its tokens.
    pub(super) fn judgement(&self) -> Option<&Verdict> {
        self.verification.as_ref()?.judgement.as_ref()
    }

    /// Warnings although the publication is correct: an API server signs with a key that is not published or not
    /// distributed everywhere, or relying parties read something else.
    pub(super) fn warnings(&self) -> impl Iterator<Item = String> {
        let refused = self.judgement().filter(|judgement| !judgement.is_accepted()).map(Verdict::in_words);
        let tripped = self.sources.iter().filter_map(|(name, source)| {
            let kid = printable(source.signs_with.as_deref().unwrap_or_default());
            let known = match (source.signing_key_public?, source.signing_key_ready.unwrap_or(true)) {
                (false, _) => "is not published".to_owned(),
                (true, false) => match source.signing_key_ready_at {
                    Some(at) => format!("is not ready before {at}"),
                    None => "is not shown everywhere".to_owned(),
                },
                (true, true) => return None,
            };
            Some(format!("source `{name}` signs with key `{kid}`, which {known}"))
        });
        tripped.chain(refused)
    }

    /// The healthy sources and targets.
    fn well(&self) -> impl Iterator<Item = String> {
        let sources = self.sources.iter().filter(|(_, source)| source.up);
        let targets = self.targets.iter().filter(|(_, target)| target.up);
        let sources = sources.map(|(name, _)| format!("source `{name}` answers"));
        sources.chain(targets.map(|(name, _)| format!("target `{name}` is in sync")))
    }

    /// The unhealthy sources and targets, the unmanaged keys, and the alarms.
    fn faults(&self) -> impl Iterator<Item = String> {
        let because =
            |error: &Option<String>| error.as_ref().map(|error| format!(": {error}")).unwrap_or_default();
        let sources = self.sources.iter().filter(|(_, source)| source.failures > 0 && !source.up);
        let sources =
            sources.map(move |(name, source)| format!("source `{name}` fails{}", because(&source.error)));
        let targets = self.targets.iter().filter(|(_, target)| target.failures > 0 && !target.up);
        let targets =
            targets.map(move |(name, target)| format!("target `{name}` fails{}", because(&target.error)));
        let strangers = self.stored.iter().flat_map(|(ledger, _)| ledger.unmanaged_keys());
        let strangers = strangers.map(|(kid, stranger)| {
            let shown: Vec<_> = stranger.shown.keys().map(|name| format!("`{name}`")).collect();
            format!(
                "target {} has unmanaged key `{kid}`: anyone with its private key can impersonate your workloads",
                shown.join(", ")
            )
        });
        sources.chain(targets).chain(strangers).chain(self.alarms.iter().cloned())
    }

    /// Number of keys in the served publication.
    pub(super) fn published_keys(&self) -> usize {
        self.stored
            .as_ref()
            .map_or(0, |(ledger, profile)| ledger.public_keys().filter(|key| profile.includes(key)).count())
    }

    /// Number of published keys that no source lists.
    pub(super) fn unlisted_keys(&self) -> usize {
        self.stored.as_ref().map_or(0, |(ledger, _)| {
            let missing = |state| matches!(state, EntryState::Missing { .. });
            ledger.entries().values().filter(|entry| missing(entry.state)).count()
        })
    }

    /// Until when no key is removed, after a repair of the ledger.
    pub(super) fn hold_until(&self) -> Option<Timestamp> {
        Some(self.stored.as_ref()?.0.retention_hold()?.until)
    }

    /// Number of keys that only a target has.
    pub(super) fn unmanaged_keys(&self) -> usize {
        self.stored.as_ref().map_or(0, |(ledger, _)| ledger.unmanaged_keys().len())
    }
}

/// All issuers at one moment; each may change afterwards.
#[derive(Debug)]
pub(super) struct Issuers(Vec<(String, Shared)>);

impl Issuers {
    pub(super) fn each(&self) -> impl Iterator<Item = (&str, MutexGuard<'_, IssuerStatus>)> {
        self.0.iter().map(|(issuer, status)| (issuer.as_str(), lock(status)))
    }
}

impl Serialize for Issuers {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.each().map(|(issuer, status)| (issuer, View::of(&status))))
    }
}

const UNPOISONED: &str = "nobody panics while holding it";

fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().expect(UNPOISONED)
}

/// The entry for a name; the name is copied only when it is new.
fn named<'a, T: Default>(all: &'a mut BTreeMap<String, T>, name: &str) -> &'a mut T {
    if !all.contains_key(name) {
        all.insert(name.to_owned(), T::default());
    }
    all.get_mut(name).expect("it was just put there")
}
