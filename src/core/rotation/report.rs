//! Where every key stands and what is next, for people and programs to read.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Observation, Obstacle, Outlook, Standing, Timing, outlook, standing};
use crate::core::{
    kid::Kid,
    ledger::{Ledger, Order, State, Wish},
};

/// A rotation as it stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    pub issuer: String,
    /// When it was so.
    pub at: Timestamp,
    pub nodes: BTreeMap<String, NodeReport>,
    /// All keys that were ever seen, in order of appearance.
    pub keys: Vec<KeyReport>,
    /// The rotation that the operator asked for and that is not over.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wish: Option<Wish>,
}

/// What is next for a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeReport {
    /// The key that it was ordered to sign with; without one it signs for the API server alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub order: Option<Order>,
    /// The key that it signs with next.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
    /// When it is time for it; more may be in the way.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub due: Option<Timestamp>,
    /// What is in the way now, in words.
    pub waits_for: Vec<String>,
    /// When what is in the way is over, as far as it ends by itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_before: Option<Timestamp>,
}

/// One key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyReport {
    pub kid: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// `published`, `standby`, `ready`, `active`, `retired`, `removed` or `revoked`.
    pub standing: String,
    pub first_seen: Timestamp,
    /// Since when it stands there.
    pub since: Timestamp,
    /// When it leaves, if that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
    /// Since when each place shows it.
    pub shown: BTreeMap<String, Timestamp>,
}

/// Where every key stands and what is next for each node.
#[must_use]
pub fn report(ledger: &Ledger, seen: &Observation, now: Timestamp, timing: &Timing) -> Report {
    let nodes = ledger.nodes().into_iter().map(|node| {
        let Outlook { next, due, obstacles, .. } = outlook(ledger, node, seen, now, timing);
        let report = NodeReport {
            order: ledger.orders().get(node).cloned(),
            next: next.map(|kid| kid.to_string()),
            due,
            waits_for: obstacles.iter().map(ToString::to_string).collect(),
            not_before: obstacles.iter().filter_map(Obstacle::until).chain(due).max(),
        };
        (node.to_string(), report)
    });
    let mut keys: Vec<KeyReport> = ledger
        .entries()
        .iter()
        .filter_map(|(kid, entry)| {
            let standing = standing(ledger, kid, seen, now, timing)?;
            let since = since(ledger, kid, standing, timing);
            Some(KeyReport {
                kid: kid.to_string(),
                node: entry.signer.as_ref().map(|signer| signer.node.to_string()),
                standing: standing.name().to_owned(),
                first_seen: entry.first_seen,
                since: since.unwrap_or(entry.first_seen),
                until: if let Standing::Retired { until } = standing { until } else { None },
                shown: entry.shown.clone(),
            })
        })
        .collect();
    keys.sort_by(|a, b| (a.first_seen, &a.kid).cmp(&(b.first_seen, &b.kid)));
    Report {
        issuer: ledger.issuer().to_string(),
        at: now,
        nodes: nodes.collect(),
        keys,
        wish: ledger.wish().cloned(),
    }
}

/// Since when a key stands where it does.
fn since(ledger: &Ledger, kid: &Kid, standing: Standing, timing: &Timing) -> Option<Timestamp> {
    let entry = ledger.entries().get(kid)?;
    match (standing, entry.state, entry.signer.as_ref()) {
        (_, State::Removed { at } | State::Revoked { at }, _) => Some(at),
        (Standing::Ready, ..) if !entry.original => {
            entry.shown.values().max().map(|shown| *shown + timing.propagation)
        }
        (Standing::Ready, ..) => entry.shown.values().max().copied(),
        (_, _, Some(signer)) => Some(signer.stage.since()),
        (_, State::Missing { since }, _) => Some(since),
        (_, State::Listed, None) => Some(entry.first_seen),
    }
}
