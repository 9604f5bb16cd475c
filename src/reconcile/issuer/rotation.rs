//! Rotations of one issuer: their inputs, the orders that are due, and the operator's commands.

use std::collections::BTreeSet;

use jiff::Timestamp;

use super::{IssuerReconciler, LISTENER_TARGET, SourceObservations};
use crate::{
    clock,
    core::{
        jose::kid::Kid,
        ledger::{Ledger, RotationCommand, RotationCommandError, merge},
        rotation::{
            RotationInputs, RotationStatus, RotationStep, SigningKey, after, next_step, rotation_status,
            signing_key,
        },
    },
    store::StoreError,
};

/// Why an operator's command was not executed.
#[derive(Debug, thiserror::Error)]
pub enum RotationRequestError {
    #[error(transparent)]
    Refused(#[from] RotationCommandError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl RotationRequestError {
    /// What the operator can do about it.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Refused(reason) => reason.hint().map(ToOwned::to_owned),
            Self::Store(error) => error.hint(),
        }
    }
}

impl IssuerReconciler {
    /// Executes an operator's command.
    ///
    /// # Errors
    ///
    /// Fails if the command cannot be executed, or if the ledger cannot be stored.
    pub async fn request_rotation(&self, ask: &RotationCommand) -> Result<(), RotationRequestError> {
        let now = clock::now();
        let gates = self.required_targets();
        let mut refused = None;
        self.change(|ledger| {
            refused = None;
            let asked =
                ledger.execute(ask, &gates, &self.spec.retention, self.spec.timing.until_ready(), now);
            asked.unwrap_or_else(|reason| {
                refused = Some(reason);
                ledger.clone()
            })
        })
        .await?;
        refused.map_or(Ok(()), |reason| Err(reason.into()))
    }

    /// The state of every key and the plan of each node.
    pub async fn rotation_status(&self) -> RotationStatus {
        let (heard, now) = (self.observations.lock().await, clock::now());
        let ledger = self.ledger.borrow();
        rotation_status(&ledger, &self.rotation_inputs(&ledger, &heard, now), now, &self.spec.timing)
    }

    /// How far a key is known that an API server was observed to sign with.
    #[must_use]
    pub fn signing_key(&self, kid: &Kid) -> SigningKey {
        let shown = self.publication.borrow().clone();
        let is_public = shown.is_some_and(|shown| shown.keys().contains(kid));
        let ledger = self.ledger.borrow();
        signing_key(&ledger, kid, is_public, &self.required_targets(), clock::now(), &self.spec.timing)
    }

    /// Gives the orders that are due.
    pub(super) fn rotate(&self, ledger: Ledger, heard: &SourceObservations, now: Timestamp) -> Ledger {
        // Most issuers have no signing node.
        if ledger.nodes().is_empty() {
            return ledger;
        }
        let (seen, timing) = (self.rotation_inputs(&ledger, heard, now), &self.spec.timing);
        let mut ledger = ledger;
        loop {
            match next_step(&ledger, &seen, now, timing) {
                RotationStep::Wait { .. } => return ledger,
                step => ledger = after(&ledger, &step, now),
            }
        }
    }

    /// The targets that must show a key before it signs.
    fn required_targets(&self) -> BTreeSet<String> {
        let own = self.spec.serves_documents.then(|| LISTENER_TARGET.to_owned());
        self.spec.required_targets.iter().cloned().chain(own).collect()
    }

    pub(super) fn rotation_inputs(
        &self,
        ledger: &Ledger,
        heard: &SourceObservations,
        now: Timestamp,
    ) -> RotationInputs {
        RotationInputs {
            required_targets: self.required_targets(),
            api_servers: heard.api_servers(),
            nodes: merge::statements(ledger, heard.reports()),
            cache_lifetimes: heard.cache_lifetimes().clone(),
            is_complete: self.unread_targets.borrow().is_empty()
                && heard.knows_all()
                && heard.trusted(now, self.spec.retention.margin).is_some(),
        }
    }
}
