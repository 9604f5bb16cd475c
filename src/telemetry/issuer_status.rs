//! The last observed state of an issuer, its sources and targets, and of the process.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard},
};

use jiff::Timestamp;
use serde::Serialize;

use crate::core::{
    entra::ExchangeAnswer,
    jose::jwk_set::Profile,
    ledger::{EntryState, Ledger},
    rotation::NodeStatus,
    text::redaction::printable,
    verification::Verdict,
};

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
    pub(super) late: bool,
    /// The stored ledger, and the served profile.
    pub(super) stored: Option<(Arc<Ledger>, Profile)>,
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
    /// The answers of Entra to its tokens; `None` where none is asked, or was asked yet.
    pub(super) exchange: Option<ExchangeStatus>,
}

/// The result of exchanging an issuer's tokens at Microsoft Entra.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct ExchangeStatus {
    /// Exchanges without an answer: there was no token, nobody answered, or Entra was busy.
    pub failures: u64,
    /// Why the last exchange had none; the last answer stays.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Time of the last answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_accepted: Option<Timestamp>,
    #[serde(flatten)]
    pub answer: Option<ExchangeAnswer>,
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
    /// What the public URL served at the last read: `in_sync`, or `stale` while a cache shows an older publication.
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
impl IssuerStatus {
    /// The verdict of a relying party on its tokens.
    pub(super) fn judgement(&self) -> Option<&Verdict> {
        self.verification.as_ref()?.judgement.as_ref()
    }

    /// The last answer of Entra to its tokens.
    pub(super) fn exchanged(&self) -> Option<&ExchangeAnswer> {
        self.exchange.as_ref()?.answer.as_ref()
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
        let exchanged = self.exchanged().filter(|answer| !answer.is_accepted()).map(ExchangeAnswer::in_words);
        tripped.chain(refused).chain(exchanged)
    }

    /// The failed checks, with `all` also the passed ones: result and text of each.
    pub(super) fn checks(&self, all: bool) -> Vec<(bool, String)> {
        let mut checks = Vec::new();
        if !self.ready {
            checks.push((false, "has no keys to serve".to_owned()));
        } else if all {
            checks.push((true, "has keys to serve".to_owned()));
        }
        if all {
            let judgement = self.judgement().filter(|judgement| judgement.is_accepted());
            checks.extend(judgement.map(|judgement| (true, judgement.in_words())));
            let exchanged = self.exchanged().filter(|answer| answer.is_accepted());
            checks.extend(exchanged.map(|answer| (true, answer.in_words())));
            checks.extend(self.well().map(|well| (true, well)));
        }
        checks.extend(self.warnings().chain(self.faults()).map(|wrong| (false, wrong)));
        checks
    }

    pub(super) fn summary(&self) -> Summary {
        let sources = self.sources.iter().map(|(name, source)| (name, source.up));
        let targets = self.targets.iter().map(|(name, target)| (name, target.up));
        Summary {
            keys: self.published_keys(),
            sources: Share::of("answer", sources),
            targets: Share::of("in sync", targets),
        }
    }

    /// The healthy sources and targets.
    fn well(&self) -> impl Iterator<Item = String> {
        let sources = self.sources.iter().filter(|(_, source)| source.up);
        let targets = self.targets.iter().filter(|(_, target)| target.up);
        let sources = sources.map(|(name, _)| format!("source `{name}` answers"));
        sources.chain(targets.map(|(name, _)| format!("target `{name}` is in sync")))
    }

    /// A ledger that is not stored, unhealthy sources and targets, unmanaged keys, and alarms.
    fn faults(&self) -> impl Iterator<Item = String> {
        let because =
            |error: &Option<String>| error.as_ref().map(|error| format!(": {error}")).unwrap_or_default();
        let sources = self.sources.iter().filter(|(_, source)| source.failures > 0 && !source.up);
        let sources =
            sources.map(move |(name, source)| format!("source `{name}` fails{}", because(&source.error)));
        let targets = self.targets.iter().filter(|(_, target)| target.failures > 0 && !target.up);
        let targets =
            targets.map(move |(name, target)| format!("target `{name}` fails{}", because(&target.error)));
        let unmanaged_keys = self.stored.iter().flat_map(|(ledger, _)| ledger.unmanaged_keys());
        let unmanaged_keys = unmanaged_keys.map(|(kid, unmanaged_key)| {
            let shown: Vec<_> = unmanaged_key.shown.keys().map(|name| format!("`{name}`")).collect();
            format!(
                "target {} has unmanaged key `{kid}`: anyone with its private key can impersonate your workloads",
                shown.join(", ")
            )
        });
        let ledger = self.ledger.error.iter().map(|error| format!("ledger is not stored: {error}"));
        ledger.chain(sources).chain(targets).chain(unmanaged_keys).chain(self.alarms.iter().cloned())
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
pub(super) type Shared = Arc<Mutex<IssuerStatus>>;

/// All issuers at one moment; each may change afterwards.
#[derive(Debug)]
pub(super) struct Issuers(pub(super) Vec<(String, Shared)>);

impl Issuers {
    pub(super) fn each(&self) -> impl Iterator<Item = (&str, MutexGuard<'_, IssuerStatus>)> {
        self.0.iter().map(|(issuer, status)| (issuer.as_str(), lock(status)))
    }
}
pub(super) const UNPOISONED: &str = "nobody panics while holding it";

pub(super) fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().expect(UNPOISONED)
}
