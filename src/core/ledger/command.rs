//! The operator's commands: start, abort, revoke, forget.

use std::{collections::BTreeSet, time::Duration};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{
    ChangeKind, Entry, EntryState, KeyOwner, Ledger, Order, OrderReason, Retention, orders::BETWEEN_ORDERS,
};
use crate::core::{
    jose::kid::Kid,
    signer::{
        announcement::{NodeName, Stage},
        latest_possible_exp,
    },
    text::Hint,
    time::later,
};

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

impl Hint for RotationCommandError {
    fn hint(&self) -> Option<String> {
        let hint = match self {
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
        };
        hint.map(str::to_owned)
    }
}

impl Ledger {
    /// The rotation that the operator requested and that is not complete.
    #[must_use]
    pub fn rotation_request(&self) -> Option<&RotationRequest> {
        self.rotation_request.as_ref()
    }

    /// Executes an operator's command. `gates` are the targets that must show a key before it signs.
    ///
    /// # Errors
    ///
    /// Returns the reason why nothing is changed.
    pub fn execute(
        &self,
        ask: &RotationCommand,
        required_targets: &BTreeSet<String>,
        retention: &Retention,
        propagation: Duration,
        now: Timestamp,
    ) -> Result<Self, RotationCommandError> {
        match ask {
            RotationCommand::Start { without } => self.start(without.clone(), required_targets, now),
            RotationCommand::Abort {} => self.abort(required_targets, propagation, retention.margin, now),
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
            Some(request) if request.without == without => {
                Err(RotationCommandError::AlreadyRequested { at: request.at })
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
        required_targets: &BTreeSet<String>,
        propagation: Duration,
        margin: Duration,
        now: Timestamp,
    ) -> Result<Self, RotationCommandError> {
        let begun =
            |order: &Order| self.rotation_request.as_ref().is_some_and(|request| order.at >= request.at);
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
            if let Some(place) = required_targets.iter().find(has_gap) {
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
        let unmanaged_key = ledger.unmanaged_keys.remove(kid);
        match (ledger.keys.get_mut(kid), unmanaged_key) {
            (Some(Entry { state: EntryState::Revoked { .. }, .. }), _) => {
                return Err(RotationCommandError::RevokedAlready { kid: kid.clone() });
            }
            (Some(entry), _) => {
                entry.state = EntryState::Revoked { at: now };
                entry.shown.clear();
            }
            (None, Some(unmanaged_key)) => {
                ledger
                    .keys
                    .insert(kid.clone(), Entry::new(unmanaged_key.jwk, now, EntryState::Revoked { at: now }));
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
