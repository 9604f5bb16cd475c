//! Which node holds which key, which key each node is ordered to sign with, and what the operator requested.
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
    ledger::merge::Merged,
    signer::{
        DesiredState,
        announcement::{NodeName, Stage},
        latest_possible_exp,
    },
    time::later,
};

/// Timestamps are whole seconds.
const BETWEEN_ORDERS: Duration = Duration::from_secs(1);

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

/// A rotation that the operator requested.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RotationRequest {
    pub at: Timestamp,
    /// Targets that need not show the next key first.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub without: BTreeSet<String>,
}

/// An operator's command.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum RotationCommand {
    /// Rotate as soon as the next keys are ready, without waiting for these targets.
    Start { without: BTreeSet<String> },
    /// Abort the last rotation.
    Abort {},
    /// The private key may be compromised.
    Revoke {
        kid: Kid,
        /// Its node switches to a key that was never published.
        #[serde(default)]
        with_new_key: bool,
    },
    /// The node is gone.
    Forget { node: NodeName },
}

/// Why a command cannot be executed.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum RotationCommandError {
    #[error("no node signs: there is nothing to rotate")]
    NoSigner,
    #[error("target `{name}` is unknown, expected one of {known}")]
    UnknownTarget { name: String, known: String },
    #[error("a rotation was already requested at {at}")]
    AlreadyRequested { at: Timestamp },
    #[error("there is no rotation to undo")]
    NothingToAbort,
    #[error(
        "node `{node}` cannot go back to key `{kid}`: {target} has not shown it without interruption since"
    )]
    NoWayBack { node: NodeName, kid: Kid, target: String },
    #[error(
        "node `{node}` cannot go back to key `{kid}`: its last token has expired, and the node destroys it"
    )]
    KeyDestroyed { node: NodeName, kid: Kid },
    #[error("key `{kid}` is unknown")]
    UnknownKey { kid: Kid },
    #[error("key `{kid}` is already revoked")]
    RevokedAlready { kid: Kid },
    #[error("node `{node}` is unknown")]
    UnknownNode { node: NodeName },
    #[error("no node signs with key `{kid}`")]
    NotSigning { kid: Kid },
}

impl RotationCommandError {
    /// What the operator can do about it.
    #[must_use]
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::NoSigner => Some("rotate the keys at their signer; Signpost publishes the new key"),
            Self::AlreadyRequested { .. } => Some("`signpost rotate status` shows what it is waiting for"),
            Self::UnknownKey { .. } | Self::UnknownNode { .. } => {
                Some("`signpost rotate status` lists every key and node")
            }
            Self::NoWayBack { .. } | Self::KeyDestroyed { .. } => {
                Some("start a new rotation: `signpost rotate start`")
            }
            Self::NotSigning { .. } => Some(
                "revoke it without `--sign-with-new-key`; to make readers fetch the JWKS again, revoke the active key \
                 with it",
            ),
            Self::UnknownTarget { .. } | Self::NothingToAbort | Self::RevokedAlready { .. } => None,
        }
    }
}

impl Ledger {
    /// The last order of each node.
    #[must_use]
    pub fn orders(&self) -> &BTreeMap<NodeName, Order> {
        &self.orders
    }

    /// The rotation that the operator requested and that is not complete.
    #[must_use]
    pub fn rotation_request(&self) -> Option<&RotationRequest> {
        self.rotation_request.as_ref()
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

    /// Executes an operator's command. `gates` are the targets that must show a key before it signs.
    ///
    /// # Errors
    ///
    /// Returns the reason why nothing is changed.
    pub fn execute(
        &self,
        ask: &RotationCommand,
        gates: &BTreeSet<String>,
        retention: &Retention,
        propagation: Duration,
        now: Timestamp,
    ) -> Result<Self, RotationCommandError> {
        match ask {
            RotationCommand::Start { without } => self.start(without.clone(), gates, now),
            RotationCommand::Abort {} => self.abort(gates, propagation, retention.margin, now),
            RotationCommand::Revoke { kid, with_new_key: false } => self.revoke(kid, now),
            RotationCommand::Revoke { kid, with_new_key: true } => self.revoke_for_a_new_key(kid, now),
            RotationCommand::Forget { node } => self.forget(node, retention, now),
        }
    }

    /// Requests a rotation of every node, as soon as its standby key is ready.
    ///
    /// `without` names targets that need not show the key first.
    ///
    /// # Errors
    ///
    /// Fails if no node signs, if a rotation was requested already, and if a target is unknown.
    pub fn start(
        &self,
        without: BTreeSet<String>,
        places: &BTreeSet<String>,
        now: Timestamp,
    ) -> Result<Self, RotationCommandError> {
        if let Some(name) = without.iter().find(|name| !places.contains(*name)) {
            let known = places.iter().map(|place| format!("`{place}`")).collect::<Vec<_>>().join(", ");
            return Err(RotationCommandError::UnknownTarget { name: name.clone(), known });
        }
        if self.nodes().is_empty() {
            return Err(RotationCommandError::NoSigner);
        }
        match &self.rotation_request {
            // A different list of targets is a different request.
            Some(wish) if wish.without == without => {
                Err(RotationCommandError::AlreadyRequested { at: wish.at })
            }
            _ => {
                let mut ledger = self.clone();
                // Later than every order, whichever clock gave those.
                let last = self.orders.values().map(|order| later(order.at, BETWEEN_ORDERS)).max();
                ledger.rotation_request =
                    Some(RotationRequest { at: last.map_or(now, |last| now.max(last)), without });
                ledger.advance();
                Ok(ledger)
            }
        }
    }

    /// Clears the rotation request: it is fulfilled, or no node is left to fulfil it.
    #[must_use]
    pub fn complete_rotation(&self) -> Self {
        let mut ledger = self.clone();
        if ledger.rotation_request.take().is_some() {
            ledger.advance();
        }
        ledger
    }

    /// Aborts the first of these that applies: a requested rotation that has not begun; the wait for a new
    /// key after a revocation (the ready key signs instead); else the last order of every node that can go
    /// back.
    ///
    /// A node goes back to the key that it retired last, if that was ready when the order was given and every
    /// required target has shown it without a gap since: otherwise a relying party may have a copy without
    /// it.
    ///
    /// # Errors
    ///
    /// Fails if there is nothing to abort, and if a target has not shown the previous key without a gap: then
    /// nothing is changed.
    pub fn abort(
        &self,
        gates: &BTreeSet<String>,
        propagation: Duration,
        margin: Duration,
        now: Timestamp,
    ) -> Result<Self, RotationCommandError> {
        let begun = |order: &Order| self.rotation_request.as_ref().is_some_and(|wish| order.at >= wish.at);
        if self.rotation_request.is_some() && !self.orders.values().any(begun) {
            return Ok(self.complete_rotation());
        }
        let mut ledger = self.complete_rotation();
        if !std::mem::take(&mut ledger.propagation_waived).is_empty() {
            ledger.advance();
            return Ok(ledger);
        }
        let mut is_done = false;
        for (node, order) in &self.orders {
            if matches!(order.reason, OrderReason::First | OrderReason::Aborted | OrderReason::Unseen) {
                continue;
            }
            let Some((kid, entry)) = self.retired_last(node, &order.sign) else { continue };
            let was_ready = |since: Timestamp| {
                since <= order.at && (entry.present_from_start || later(since, propagation) <= order.at)
            };
            let has_gap = |place: &&String| !entry.shown.get(*place).is_some_and(|since| was_ready(*since));
            if let Some(place) = gates.iter().find(has_gap) {
                let (node, kid, place) = (node.clone(), kid.clone(), format!("`{place}`"));
                return Err(RotationCommandError::NoWayBack { node, kid, target: place });
            }
            let stage = entry.signer.as_ref().map(|signer| signer.stage);
            if stage.and_then(|stage| stage.unneeded_after(margin)).is_some_and(|dead| dead <= now) {
                return Err(RotationCommandError::KeyDestroyed { node: node.clone(), kid: kid.clone() });
            }
            ledger = ledger.order(node, kid, OrderReason::Aborted, now);
            is_done = true;
        }
        if is_done { Ok(ledger) } else { Err(RotationCommandError::NothingToAbort) }
    }

    /// The key that a node signed with before the ordered one.
    fn retired_last(&self, node: &NodeName, ordered: &Kid) -> Option<(&Kid, &Entry)> {
        let before = self.keys_of(node).into_iter().filter(|(kid, ..)| *kid != ordered);
        let signed = before.filter(|(_, _, stage)| !matches!(stage, Stage::Standby { .. }));
        signed.max_by_key(|(_, _, stage)| stage.since()).map(|(kid, entry, _)| (kid, entry))
    }

    /// Revokes a key that may be compromised: it leaves the publication at once and permanently, and its node
    /// stops signing with it. Live tokens that it signed become invalid.
    ///
    /// # Errors
    ///
    /// Fails if the kid is unknown or was revoked already.
    pub fn revoke(&self, kid: &Kid, now: Timestamp) -> Result<Self, RotationCommandError> {
        let mut ledger = self.clone();
        let stranger = ledger.unmanaged_keys.remove(kid);
        match (ledger.keys.get_mut(kid), stranger) {
            (Some(Entry { state: EntryState::Revoked { .. }, .. }), _) => {
                return Err(RotationCommandError::RevokedAlready { kid: kid.clone() });
            }
            (Some(entry), _) => {
                entry.state = EntryState::Revoked { at: now };
                entry.shown.clear();
            }
            (None, Some(stranger)) => {
                ledger
                    .keys
                    .insert(kid.clone(), Entry::new(stranger.jwk, now, EntryState::Revoked { at: now }));
            }
            (None, None) => return Err(RotationCommandError::UnknownKey { kid: kid.clone() }),
        }
        ledger.orders.retain(|_, order| order.sign != *kid);
        ledger.record(now, kid, ChangeKind::Revoked);
        Ok(ledger)
    }

    /// Revokes a key, and lets its node continue with one that was never published, as soon as every target
    /// shows it.
    ///
    /// Some relying parties fetch a JWKS again only for a kid that they have never seen, and accept the
    /// revoked key until then. A relying party with a cached copy rejects tokens of the new key.
    ///
    /// Meanwhile the standby key signs for the API server only: so the node creates another key, and can
    /// prove that it owns it.
    ///
    /// # Errors
    ///
    /// As [`Self::revoke`], and if no node signs with the key.
    pub fn revoke_for_a_new_key(&self, kid: &Kid, now: Timestamp) -> Result<Self, RotationCommandError> {
        let mut ledger = self.revoke(kid, now)?;
        // A node that was ordered to use another key keeps that one and its standby key, and creates none.
        let signs = |signer: &&KeyOwner| match self.orders.get(&signer.node) {
            Some(order) => order.sign == *kid,
            None => matches!(signer.stage, Stage::Active { .. }),
        };
        let signer = self.keys.get(kid).and_then(|entry| entry.signer.as_ref()).filter(signs);
        let Some(KeyOwner { node, .. }) = signer else {
            return Err(RotationCommandError::NotSigning { kid: kid.clone() });
        };
        ledger.orders.remove(node);
        let known = self.keys_of(node).into_iter().map(|(kid, ..)| kid.clone()).collect();
        ledger.propagation_waived.insert(node.clone(), known);
        Ok(ledger)
    }

    /// Forgets a node that is gone and signs no more: its keys are kept until a token that it may have signed
    /// just now has expired.
    ///
    /// # Errors
    ///
    /// Fails if no key of the node is known.
    pub fn forget(
        &self,
        node: &NodeName,
        retention: &Retention,
        now: Timestamp,
    ) -> Result<Self, RotationCommandError> {
        let mut ledger = self.clone();
        let latest_exp = Some(latest_possible_exp(now, retention.max_token_lifetime));
        let kids: Vec<Kid> = self.keys_of(node).into_iter().map(|(kid, ..)| kid.clone()).collect();
        if kids.is_empty() {
            return Err(RotationCommandError::UnknownNode { node: node.clone() });
        }
        ledger.orders.remove(node);
        ledger.propagation_waived.remove(node);
        ledger.last_statements.remove(node);
        ledger.forgotten.insert(node.clone(), now);
        for kid in kids {
            let entry = ledger.keys.get_mut(&kid).expect("it is of this ledger");
            entry.ordered = None;
            if let Some(KeyOwner { stage, .. }) = &mut entry.signer
                && !matches!(stage, Stage::Retired { .. })
            {
                *stage = Stage::Retired { since: now, latest_exp };
                ledger.record(now, &kid, ChangeKind::Forgotten);
            }
        }
        Ok(ledger)
    }
}

#[cfg(test)]
mod tests;
