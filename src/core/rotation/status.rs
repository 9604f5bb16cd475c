//! The status of a rotation, for people and programs to read.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{BlockedReason, KeyState, NodePlan, RotationInputs, Timing, key_state, plan_node};
use crate::core::{
    jose::kid::Kid,
    ledger::{ChangeKind, Entry, EntryState, Ledger, Order, RotationRequest, UnmanagedKey},
    signer::announcement::NodeName,
    time::later,
};

/// The status of a rotation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RotationStatus {
    pub issuer: String,
    /// Time of this status.
    pub at: Timestamp,
    pub nodes: BTreeMap<String, NodeStatus>,
    /// All keys ever observed, in order of appearance.
    pub keys: Vec<KeyStatus>,
    /// Unmanaged kids, with the targets that show each.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub unmanaged_keys: BTreeMap<String, Vec<String>>,
    /// The rotation that the operator requested and that is not complete.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rotation_request: Option<RotationRequest>,
}

/// The status of a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeStatus {
    /// The order of the node; without one it signs for the API server only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub order: Option<Order>,
    /// The keys that it announces as active: one, or two for a moment during a switch.
    #[serde(default)]
    pub active_keys: Vec<String>,
    /// The key that it signs with next.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
    /// When the next key is due; it may be blocked beyond that.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub due: Option<Timestamp>,
    /// What blocks the next key now, in words.
    pub blocked_by: Vec<String>,
    /// When the blocking reasons that end by themselves have ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_before: Option<Timestamp>,
}

/// The status of a key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyStatus {
    pub kid: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// `published`, `standby`, `ready`, `active`, `retired`, `removed` or `revoked`.
    pub state: String,
    pub first_seen: Timestamp,
    /// Since when it is in this state.
    pub since: Timestamp,
    /// Its past states, as far as the ledger remembers.
    pub timeline: Vec<Phase>,
    /// When it leaves the publication, if known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
    /// Since when each target shows it.
    pub shown: BTreeMap<String, Timestamp>,
}

/// A state of a key, and when it began.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Phase {
    pub state: String,
    pub since: Timestamp,
}

/// The state of every key and the plan of each node.
#[must_use]
pub fn rotation_status(
    ledger: &Ledger,
    seen: &RotationInputs,
    now: Timestamp,
    timing: &Timing,
) -> RotationStatus {
    let nodes = ledger.nodes().into_iter().map(|node| {
        let NodePlan { next, due, blocked: reasons, .. } = plan_node(ledger, node, seen, now, timing);
        let report = NodeStatus {
            order: ledger.orders().get(node).cloned(),
            active_keys: active(ledger, node),
            next: next.map(|kid| kid.as_str().to_owned()),
            due,
            blocked_by: reasons.iter().map(ToString::to_string).collect(),
            not_before: reasons.iter().filter_map(BlockedReason::until).chain(due).max(),
        };
        (node.to_string(), report)
    });
    let mut keys: Vec<KeyStatus> = ledger
        .entries()
        .iter()
        .filter_map(|(kid, entry)| {
            let state = key_state(ledger, kid, seen, now, timing)?;
            let since = since(ledger, kid, state, timing);
            Some(KeyStatus {
                kid: kid.as_str().to_owned(),
                node: entry.signer.as_ref().map(|signer| signer.node.to_string()),
                state: state.name().to_owned(),
                first_seen: entry.first_seen,
                since: since.unwrap_or(entry.first_seen),
                timeline: timeline(ledger, kid, entry, timing),
                until: if let KeyState::Retired { until } = state { until } else { None },
                shown: entry.shown.clone(),
            })
        })
        .collect();
    keys.sort_by(|a, b| (a.first_seen, &a.kid).cmp(&(b.first_seen, &b.kid)));
    RotationStatus {
        issuer: ledger.issuer().to_string(),
        at: now,
        nodes: nodes.collect(),
        keys,
        unmanaged_keys: ledger.unmanaged_keys().iter().map(unmanaged).collect(),
        rotation_request: ledger.rotation_request().cloned(),
    }
}

fn active(ledger: &Ledger, node: &NodeName) -> Vec<String> {
    let mut active: Vec<_> = ledger.active_keys_of(node).collect();
    active.sort_by_key(|(_, entry)| {
        (entry.first_seen, entry.signer.as_ref().map(|signer| signer.stage.since()))
    });
    active.into_iter().map(|(kid, _)| kid.as_str().to_owned()).collect()
}

fn unmanaged((kid, unmanaged_key): (&Kid, &UnmanagedKey)) -> (String, Vec<String>) {
    (kid.as_str().to_owned(), unmanaged_key.shown.keys().cloned().collect())
}

/// The states of a key, in order.
fn timeline(ledger: &Ledger, kid: &Kid, entry: &Entry, timing: &Timing) -> Vec<Phase> {
    let born = if entry.signer.is_some() { "standby" } else { "published" };
    let mut life = vec![Phase { state: born.to_owned(), since: entry.first_seen }];
    for change in ledger.changes().iter().filter(|change| change.kid == *kid) {
        let standing = match change.kind {
            ChangeKind::Activated | ChangeKind::Returned if entry.signer.is_some() => "active",
            ChangeKind::Returned => "published",
            ChangeKind::Retired | ChangeKind::Forgotten | ChangeKind::WentMissing | ChangeKind::Adopted => {
                "retired"
            }
            ChangeKind::Removed => "removed",
            ChangeKind::Revoked => "revoked",
            ChangeKind::Appeared
            | ChangeKind::UnmanagedKeyFound
            | ChangeKind::Replaced
            | ChangeKind::Ordered
            | ChangeKind::Activated
            | ChangeKind::Redated => continue,
        };
        if life.last().is_none_or(|phase| phase.state != standing) {
            life.push(Phase { state: standing.to_owned(), since: change.at });
        }
    }
    if born == "standby"
        && let Some(shown) = entry.shown.values().max()
    {
        let since = if entry.present_from_start { *shown } else { later(*shown, timing.until_ready()) };
        // Once the key has moved on, the time at which it was ready is irrelevant.
        if life.get(1).is_none_or(|next| since < next.since) {
            life.insert(1, Phase { state: "ready".to_owned(), since });
        }
    }
    life
}

/// Since when a key is in its state.
fn since(ledger: &Ledger, kid: &Kid, standing: KeyState, timing: &Timing) -> Option<Timestamp> {
    let entry = ledger.entries().get(kid)?;
    match (standing, entry.state, entry.signer.as_ref()) {
        (_, EntryState::Removed { at } | EntryState::Revoked { at }, _) => Some(at),
        (KeyState::Ready, ..) if !entry.present_from_start => {
            entry.shown.values().max().map(|shown| later(*shown, timing.until_ready()))
        }
        (KeyState::Ready, ..) => entry.shown.values().max().copied(),
        (_, _, Some(signer)) => Some(signer.stage.since()),
        (_, EntryState::Missing { since }, _) => Some(since),
        (_, EntryState::Listed, None) => Some(entry.first_seen),
    }
}
