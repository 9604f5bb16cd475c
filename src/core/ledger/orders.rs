//! Which node holds which key, and which key each node is ordered to sign with.
//!
//! [`crate::core::rotation`] decides; this module records.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{ChangeKind, Entry, EntryState, Ledger, Retention};
use crate::core::{
    jose::kid::Kid,
    ledger::source_answer::Merged,
    signer::{
        DesiredState,
        announcement::{NodeName, Stage},
        latest_possible_exp,
    },
    time::later,
};

/// Timestamps are whole seconds.
pub(super) const BETWEEN_ORDERS: Duration = Duration::from_secs(1);

/// The node that holds a private key, and the stage that it announces.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyOwner {
    pub node: NodeName,
    pub stage: Stage,
}

/// The key that a node is ordered to sign with, for external audiences too: the key is ready.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Order {
    pub sign: Kid,
    pub at: Timestamp,
    pub reason: OrderReason,
}

/// Why a node was ordered to sign with a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OrderReason {
    /// It had no valid order.
    First,
    /// The previous key reached its maximum age.
    Age,
    /// The operator requested it.
    Asked,
    /// The operator aborted the last order.
    Aborted,
    /// The previous key was revoked, and the operator requested one that was never published: it signs as
    /// soon as every target shows it.
    Unseen,
}

impl Ledger {
    /// The last order of each node.
    #[must_use]
    pub fn orders(&self) -> &BTreeMap<NodeName, Order> {
        &self.orders
    }

    /// The nodes whose private keys may still sign.
    #[must_use]
    pub fn nodes(&self) -> BTreeSet<&NodeName> {
        let signers = self.keys.values().filter(|entry| entry.is_public()).filter_map(|entry| {
            let signer = entry.signer.as_ref()?;
            (!matches!(signer.stage, Stage::Retired { .. })).then_some(&signer.node)
        });
        signers.collect()
    }

    /// The public keys of a node, oldest first.
    #[must_use]
    pub fn keys_of(&self, node: &NodeName) -> Vec<(&Kid, &Entry, Stage)> {
        let of_node = |(kid, entry)| {
            let entry: &Entry = entry;
            let signer = entry.signer.as_ref().filter(|signer| signer.node == *node && entry.is_public())?;
            Some((kid, entry, signer.stage))
        };
        let mut keys: Vec<_> = self.keys.iter().filter_map(of_node).collect();
        keys.sort_by_key(|(_, entry, stage)| (entry.first_seen, stage.since()));
        keys
    }

    /// Every node that is known to hold a key, or to have held one.
    #[must_use]
    pub fn known_signers(&self) -> BTreeSet<&NodeName> {
        self.keys.values().filter_map(|entry| Some(&entry.signer.as_ref()?.node)).collect()
    }

    /// The keys that a node announces as active, revoked ones included.
    pub fn active_keys_of<'a>(&'a self, node: &'a NodeName) -> impl Iterator<Item = (&'a Kid, &'a Entry)> {
        self.keys.iter().filter(move |(_, entry)| {
            let signer = entry.signer.as_ref().filter(|signer| signer.node == *node);
            let is_alive = entry.is_public() || matches!(entry.state, EntryState::Revoked { .. });
            is_alive && signer.is_some_and(|signer| matches!(signer.stage, Stage::Active { .. }))
        })
    }

    /// The tombstones of keys whose private key may be compromised.
    pub fn revoked(&self) -> impl Iterator<Item = &Kid> {
        let is_revoked = |entry: &Entry| matches!(entry.state, EntryState::Revoked { .. });
        self.keys.iter().filter(move |(_, entry)| is_revoked(entry)).map(|(kid, _)| kid)
    }

    /// The desired state for a node.
    #[must_use]
    pub fn orders_for(&self, node: &NodeName) -> DesiredState {
        let order = self.orders.get(node);
        DesiredState {
            sign: order.map(|order| order.sign.clone()),
            at: order.map_or(DesiredState::default().at, |order| order.at),
            revoked: self.revoked().cloned().collect(),
            forgotten: self.forgotten.get(node).copied(),
            announced: self.last_statements.get(node).map(|word| word.at),
        }
    }

    /// Applies the statements of nodes about their keys. The owner of a key never changes.
    ///
    /// A key that its node does not name is lost: it signed its last token just now at the latest.
    pub(super) fn apply(&mut self, merged: &Merged, retention: &Retention, now: Timestamp) {
        let lost = Stage::Retired {
            since: now,
            latest_exp: Some(latest_possible_exp(now, retention.max_token_lifetime)),
        };
        let is_lost = |kid: &Kid, signer: &KeyOwner| {
            !matches!(signer.stage, Stage::Retired { .. })
                && merged.nodes.contains_key(&signer.node)
                && !merged.signers.contains_key(kid)
        };
        let mut said = merged.signers.clone();
        said.extend(self.keys.iter().filter_map(|(kid, entry)| {
            let signer = entry.signer.as_ref().filter(|signer| is_lost(kid, signer))?;
            Some((kid.clone(), KeyOwner { stage: lost, ..signer.clone() }))
        }));
        for (node, word) in &merged.nodes {
            // A forgotten node whose statement is accepted is running.
            let was_forgotten = self.forgotten.remove(node).is_some();
            if self.last_statements.insert(node.clone(), *word) != Some(*word) || was_forgotten {
                self.advance();
            }
        }
        for (kid, said) in &said {
            let is_told =
                |entry: &&mut Entry| entry.is_public() || matches!(entry.state, EntryState::Revoked { .. });
            let Some(entry) = self.keys.get_mut(kid).filter(is_told) else { continue };
            let before = match &entry.signer {
                Some(known) if known.node != said.node || known.stage == said.stage => continue,
                known => known.as_ref().map(|known| known.stage),
            };
            entry.signer = Some(said.clone());
            // Whether a revoked key still signs is recorded, but is not a change of the key.
            if !entry.is_public() {
                self.advance();
                continue;
            }
            match (before, said.stage) {
                (Some(Stage::Active { .. }), Stage::Active { .. })
                | (Some(Stage::Retired { .. }), Stage::Retired { .. })
                | (_, Stage::Standby { .. }) => self.advance(),
                (_, Stage::Active { .. }) => self.record(now, kid, ChangeKind::Activated),
                (_, Stage::Retired { .. }) => self.record(now, kid, ChangeKind::Retired),
            }
        }
    }

    /// The time of the latest order that a node has processed by its own statement.
    #[must_use]
    pub fn observed_order(&self, node: &NodeName) -> Option<Timestamp> {
        self.last_statements.get(node).and_then(|word| word.observed_order)
    }

    /// Whether a node has processed an order given at `ordered`. If its statement names an order later than
    /// `latest_good`, a clock was ahead and the statement does not count.
    pub(super) fn has_processed_order(
        &self,
        node: &NodeName,
        ordered: Option<Timestamp>,
        latest_good: Timestamp,
    ) -> bool {
        let heard = self.observed_order(node).filter(|heard| *heard <= latest_good);
        ordered.is_none_or(|at| heard >= Some(at))
    }

    /// The keys known of a node when the operator allowed its next key to sign without the propagation wait,
    /// if so: the next key is none of these.
    #[must_use]
    pub fn propagation_waived(&self, node: &NodeName) -> Option<&BTreeSet<Kid>> {
        self.propagation_waived.get(node)
    }

    /// Records an order; see [`crate::core::rotation::next_step`]. Its time is later than that of the
    /// previous order, whichever publisher and clock gave that.
    #[must_use]
    pub fn order(&self, node: &NodeName, sign: &Kid, why: OrderReason, now: Timestamp) -> Self {
        let mut ledger = self.clone();
        let of_node = |entry: &&Entry| entry.signer.as_ref().is_some_and(|signer| signer.node == *node);
        // The key of the last order may be revoked, and that order gone.
        let before = ledger.keys.values().filter(of_node).filter_map(|entry| entry.ordered);
        let last = before.chain(ledger.orders.get(node).map(|last| last.at)).max();
        let at = last.map_or(now, |last| now.max(later(last, BETWEEN_ORDERS)));
        ledger.orders.insert(node.clone(), Order { sign: sign.clone(), at, reason: why });
        ledger.propagation_waived.remove(node);
        if let Some(entry) = ledger.keys.get_mut(sign) {
            entry.ordered = Some(at);
        }
        ledger.record(now, sign, ChangeKind::Ordered);
        ledger
    }
}

#[cfg(test)]
mod tests;
