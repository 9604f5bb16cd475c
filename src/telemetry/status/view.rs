//! The view of an issuer in `/status.json`.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Serialize, Serializer};

use super::super::issuer_status::{
    ExchangeStatus, IssuerStatus, Issuers, LedgerStatus, SourceStatus, TargetStatus, VerificationStatus,
};
use crate::core::{
    jose::jwk_set::Profile,
    ledger::{Change, Entry, EntryState, Incident, Ledger},
    rotation::NodeStatus,
};

impl Serialize for Issuers {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.each().map(|(issuer, status)| (issuer, View::of(&status))))
    }
}

#[derive(Serialize)]
struct View {
    ready: bool,
    lineage: String,
    sequence: u64,
    ledger: LedgerView,
    /// The previous issuers whose documents are also published.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    previous_issuers: Vec<String>,
    keys: Vec<KeyView>,
    /// Kids that only a target has: `signpost ledger adopt` adopts them.
    unmanaged_keys: Vec<String>,
    alarms: Vec<String>,
    /// The warnings of the readiness check.
    warnings: Vec<String>,
    /// The plan of each signing node.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    nodes: BTreeMap<String, NodeStatus>,
    sources: BTreeMap<String, SourceStatus>,
    targets: BTreeMap<String, TargetStatus>,
    /// The verdict of a relying party on a token.
    #[serde(skip_serializing_if = "Option::is_none")]
    verification: Option<VerificationStatus>,
    /// What Entra answers to a token.
    #[serde(skip_serializing_if = "Option::is_none")]
    exchange: Option<ExchangeStatus>,
    changes: Vec<ChangeView>,
}

/// Whether the ledger could be stored, and its incidents.
#[derive(Serialize)]
struct LedgerView {
    #[serde(flatten)]
    status: LedgerStatus,
    /// After a repair: no key is removed before this time.
    #[serde(skip_serializing_if = "Option::is_none")]
    hold_until: Option<Timestamp>,
    incidents: Vec<IncidentView>,
}

/// An incident of the ledger as a whole.
#[derive(Serialize)]
struct IncidentView {
    at: Timestamp,
    what: String,
}

#[derive(Serialize)]
struct KeyView {
    kid: String,
    algorithm: &'static str,
    state: &'static str,
    first_seen: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    missing_since: Option<Timestamp>,
    public: bool,
    /// Since when each target serves it.
    shown: BTreeMap<String, Timestamp>,
}

#[derive(Serialize)]
struct ChangeView {
    at: Timestamp,
    kid: String,
    event: &'static str,
}

impl View {
    /// A copy, so that no lock is held while it is written.
    fn of(status: &IssuerStatus) -> Self {
        let ledger = status.stored.as_ref();
        let of_ledger = |read: fn(&Ledger) -> Vec<String>| ledger.map(|(ledger, _)| read(ledger));
        Self {
            ready: status.ready,
            lineage: ledger.map(|(ledger, _)| ledger.lineage().to_string()).unwrap_or_default(),
            sequence: ledger.map(|(ledger, _)| ledger.sequence()).unwrap_or_default(),
            ledger: LedgerView {
                status: status.ledger.clone(),
                hold_until: status.hold_until(),
                incidents: ledger
                    .map(|(ledger, _)| ledger.incidents().iter().map(IncidentView::of).collect())
                    .unwrap_or_default(),
            },
            previous_issuers: status.previous_issuers.clone(),
            keys: ledger.map(|(ledger, profile)| keys(ledger, *profile)).unwrap_or_default(),
            unmanaged_keys: of_ledger(|ledger| {
                ledger.unmanaged_keys().keys().map(|kid| kid.as_str().to_owned()).collect()
            })
            .unwrap_or_default(),
            alarms: status.alarms.clone(),
            warnings: status.warnings().collect(),
            nodes: status.nodes.clone(),
            sources: status.sources.clone(),
            targets: status.targets.clone(),
            verification: status.verification.clone(),
            exchange: status.exchange.clone(),
            changes: ledger
                .map(|(ledger, _)| ledger.changes().iter().map(ChangeView::of).collect())
                .unwrap_or_default(),
        }
    }
}

fn keys(ledger: &Ledger, profile: Profile) -> Vec<KeyView> {
    ledger.entries().values().map(|entry| KeyView::of(entry, profile)).collect()
}

impl KeyView {
    fn of(entry: &Entry, profile: Profile) -> Self {
        let missing_since = match entry.state {
            EntryState::Missing { since } => Some(since),
            EntryState::Listed | EntryState::Removed { .. } | EntryState::Revoked { .. } => None,
        };
        Self {
            kid: entry.jwk.kid().as_str().to_owned(),
            algorithm: entry.jwk.algorithm().name(),
            state: entry.state.name(),
            first_seen: entry.first_seen,
            missing_since,
            public: entry.is_public() && profile.includes(&entry.jwk),
            shown: entry.shown.clone(),
        }
    }
}

impl IncidentView {
    fn of(incident: &Incident) -> Self {
        Self { at: incident.at, what: incident.kind.to_string() }
    }
}

impl ChangeView {
    fn of(change: &Change) -> Self {
        Self { at: change.at, kid: change.kid.as_str().to_owned(), event: change.kind.name() }
    }
}
