//! Rotations of one issuer: what is seen of them, the orders that are due, and the operator's word.

use std::collections::BTreeSet;

use jiff::Timestamp;

use super::{Heard, Keeper, SERVED};
use crate::{
    clock,
    core::{
        kid::Kid,
        ledger::{Ask, Ledger, NotAsked},
        merge,
        rotation::{Observation, Report, SigningKey, Step, after, next_step, report, signing_key},
    },
    store::StoreError,
};

/// What the operator asked for was not done.
#[derive(Debug, thiserror::Error)]
pub enum Unasked {
    #[error(transparent)]
    Refused(#[from] NotAsked),
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Unasked {
    /// What the operator can do.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Refused(reason) => reason.hint().map(ToOwned::to_owned),
            Self::Store(error) => error.hint(),
        }
    }
}

impl Keeper {
    /// Takes the operator's word on a rotation.
    ///
    /// # Errors
    ///
    /// Fails when it cannot be done, and when the ledger cannot be stored.
    pub async fn ask(&self, ask: &Ask) -> Result<(), Unasked> {
        let now = clock::now();
        let gates = self.gates();
        let mut refused = None;
        self.change(|ledger| {
            refused = None;
            let asked =
                ledger.asked(ask, &gates, &self.charter.retention, self.charter.timing.until_ready(), now);
            asked.unwrap_or_else(|reason| {
                refused = Some(reason);
                ledger.clone()
            })
        })
        .await?;
        refused.map_or(Ok(()), |reason| Err(reason.into()))
    }

    /// Where every key stands and what is next.
    pub async fn rotation(&self) -> Report {
        let (heard, now) = (self.heard.lock().await, clock::now());
        let ledger = self.ledger.borrow();
        report(&ledger, &self.observation(&ledger, &heard, now), now, &self.charter.timing)
    }

    /// How far the key is known that an API server was just seen to sign with.
    #[must_use]
    pub fn signing_key(&self, kid: &Kid) -> SigningKey {
        let shown = self.publication.borrow().clone();
        let is_public = shown.is_some_and(|shown| shown.keys().contains(kid));
        let ledger = self.ledger.borrow();
        signing_key(&ledger, kid, is_public, &self.gates(), clock::now(), &self.charter.timing)
    }

    /// Gives the orders that are due.
    pub(super) fn rotate(&self, ledger: Ledger, heard: &Heard, now: Timestamp) -> Ledger {
        // Most issuers have no node that obeys.
        if ledger.nodes().is_empty() {
            return ledger;
        }
        let (seen, timing) = (self.observation(&ledger, heard, now), &self.charter.timing);
        let mut ledger = ledger;
        loop {
            match next_step(&ledger, &seen, now, timing) {
                Step::Wait { .. } => return ledger,
                step => ledger = after(&ledger, &step, now),
            }
        }
    }

    /// The places that must show a key before it signs.
    fn gates(&self) -> BTreeSet<String> {
        let own = self.charter.serves.then(|| SERVED.to_owned());
        self.charter.gates.iter().cloned().chain(own).collect()
    }

    pub(super) fn observation(&self, ledger: &Ledger, heard: &Heard, now: Timestamp) -> Observation {
        Observation {
            gates: self.gates(),
            api_servers: heard.api_servers(),
            nodes: merge::heard(ledger, heard.reports()),
            kept: heard.kept().clone(),
            is_sound: self.unseen.borrow().is_empty()
                && heard.knows_all()
                && heard.trusted(now, self.charter.retention.margin).is_some(),
        }
    }
}
