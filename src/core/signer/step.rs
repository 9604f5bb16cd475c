//! Decides the next step of a node, and records it in the journal.

use std::time::Duration;

use jiff::Timestamp;

use super::{DesiredState, Journal, JournalKey, MAX_KEYS_PER_NODE};
use crate::core::{
    jose::{jwk::Jwk, kid::Kid},
    signer::announcement::Stage,
    time::later,
};

/// Smallest time between two statements of a node.
pub(super) const MIN_STATEMENT_INTERVAL: Duration = Duration::from_millis(1);

/// The next step of a node. Each is done on disk, then recorded, then announced, then takes effect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SignerStep {
    /// Create a key.
    Generate,
    /// Start to sign with this key: for external audiences if that was `ordered`, else for the API server
    /// only.
    Begin { kid: Kid, ordered: Option<Timestamp> },
    /// Record that this key signs no more.
    Stop { kid: Kid },
    /// Accept the order for the key that already signs: it may sign for external audiences.
    Allow { kid: Kid, ordered: Timestamp },
    /// Record that an order will not be followed.
    Refuse { ordered: Timestamp },
    /// Announce the same keys again, later than `after`: the node was forgotten but is running, or it lost
    /// its last announcement (its journal, its disk, or the time while its clock was ahead).
    Reassert { after: Timestamp },
    /// Exclude this key from the JWKS of the API server: no live token for external audiences needs it.
    Exclude { kid: Kid },
    /// Destroy the private key: no live token needs even the public key, or it was revoked.
    Destroy { kid: Kid },
}

/// What was done, to be recorded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Done {
    /// This step, which is not [`SignerStep::Generate`].
    Step(SignerStep),
    /// A key was created.
    Generated(Jwk),
    /// An existing key that may have signed until now: no token of it has a later `exp` than these.
    Imported { jwk: Jwk, horizon: Timestamp, internal_horizon: Timestamp },
    /// Tokens up to this `exp` may now be signed.
    ExpiryReserved { kid: Kid, external: bool, until: Timestamp },
}

/// Why an order is not followed.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum RefusedOrder {
    #[error("key `{kid}` does not belong to this node")]
    Unknown { kid: Kid },
    #[error("key `{kid}` is revoked")]
    Revoked { kid: Kid },
    #[error("key `{kid}` is excluded from discovery")]
    Excluded { kid: Kid },
    #[error("the private key of `{kid}` is missing")]
    Lost { kid: Kid },
    /// The ledger was restored from a backup.
    #[error("the order of {at} for key `{kid}` is older than the last observed order, of {heard}")]
    Older { kid: Kid, at: Timestamp, heard: Timestamp },
    /// The refusal was announced, so the publisher may have removed the key.
    #[error("the order of {at} for key `{kid}` was already refused")]
    Settled { kid: Kid, at: Timestamp },
    /// Once a future order is followed, no present order would be.
    #[error(
        "the order of {at} for key `{kid}` is in the future: the clocks of this node and the publisher disagree"
    )]
    Early { kid: Kid, at: Timestamp },
}

impl RefusedOrder {
    /// Whether the order will never be followed.
    fn is_for_good(&self) -> bool {
        !matches!(self, Self::Early { .. })
    }
}

impl DesiredState {
    /// The key to sign with, if the order can be followed.
    ///
    /// `margin` is the largest tolerated clock skew.
    ///
    /// # Errors
    ///
    /// Returns why it cannot, for the log: the node continues as if there were no order.
    pub fn key(
        &self,
        journal: &Journal,
        now: Timestamp,
        margin: Duration,
    ) -> Result<Option<&Kid>, RefusedOrder> {
        let Some(kid) = &self.sign else { return Ok(None) };
        let (named, at) = (|| kid.clone(), self.at);
        if at > later(now, margin) {
            return Err(RefusedOrder::Early { kid: named(), at });
        }
        match journal.observed_by(later(now, margin)) {
            Some(heard) if at < heard => return Err(RefusedOrder::Older { kid: named(), at, heard }),
            Some(heard) if at == heard && journal.signing.as_ref() != Some(kid) => {
                return Err(RefusedOrder::Settled { kid: named(), at });
            }
            _ => {}
        }
        if self.revoked.contains(kid) {
            return Err(RefusedOrder::Revoked { kid: named() });
        }
        match journal.keys.get(kid) {
            None => Err(RefusedOrder::Unknown { kid: named() }),
            Some(held) if held.lost => Err(RefusedOrder::Lost { kid: named() }),
            Some(held) if held.excluded_from_discovery || held.is_unneeded_externally(now, margin) => {
                Err(RefusedOrder::Excluded { kid: named() })
            }
            Some(_) => Ok(Some(kid)),
        }
    }
}

impl Journal {
    /// The next step; `None` if the node is in its desired state.
    ///
    /// `margin` is added to every wait, for clock skew.
    #[must_use]
    pub fn next_step(&self, orders: &DesiredState, now: Timestamp, margin: Duration) -> Option<SignerStep> {
        let observed_order = orders.key(self, now, margin);
        let will_never_be = observed_order.as_ref().is_err_and(RefusedOrder::is_for_good);
        let ordered = observed_order.unwrap_or_default();
        match (self.signer(ordered, orders), &self.signing) {
            (Some(kid), signing) if signing.as_ref() != Some(kid) => {
                let ordered = ordered.map(|_| orders.at);
                return Some(SignerStep::Begin { kid: kid.clone(), ordered });
            }
            (None, Some(revoked)) => return Some(SignerStep::Stop { kid: revoked.clone() }),
            _ => {}
        }
        let find = |wanted: &dyn Fn(&Kid, &JournalKey) -> bool| {
            self.keys.iter().find(|(kid, held)| wanted(kid, held)).map(|(kid, _)| kid.clone())
        };
        let signs = |kid: &Kid| self.signing.as_ref() == Some(kid);
        let is_active = |held: &JournalKey| matches!(held.stage, Stage::Active { .. });
        if let Some(kid) = find(&|kid, held| is_active(held) && !signs(kid)) {
            return Some(SignerStep::Stop { kid });
        }
        let is_news = self.observed_by(later(now, margin)) < Some(orders.at);
        if let Some(kid) =
            find(&|kid, held| signs(kid) && ordered == Some(kid) && (!held.external_audiences || is_news))
        {
            return Some(SignerStep::Allow { kid, ordered: orders.at });
        }
        if will_never_be && is_news {
            return Some(SignerStep::Refuse { ordered: orders.at });
        }
        let unheard = orders.forgotten.filter(|gone| self.announced_at <= *gone);
        let lost = orders.announced.filter(|announced| self.announced_at < *announced);
        // A future time would silence the node.
        let is_early = |time: &Timestamp| *time > later(now, margin);
        if let Some(after) = unheard.max(lost).filter(|after| !is_early(after)) {
            return Some(SignerStep::Reassert { after });
        }
        if let Some(kid) = find(&|kid, _| orders.revoked.contains(kid)) {
            return Some(SignerStep::Destroy { kid });
        }
        if let Some(kid) = find(&|_, held| held.is_unneeded(now, margin)) {
            return Some(SignerStep::Destroy { kid });
        }
        if let Some(kid) =
            find(&|_, held| !held.excluded_from_discovery && held.is_unneeded_externally(now, margin))
        {
            return Some(SignerStep::Exclude { kid });
        }
        let has_room = self.keys.len() < MAX_KEYS_PER_NODE || self.signing.is_none();
        (has_room && self.standby(orders).is_none()).then_some(SignerStep::Generate)
    }

    /// The time of the latest order that was processed. A time after `latest_good` is ignored: a clock was
    /// ahead, and no present order would be followed.
    fn observed_by(&self, latest_good: Timestamp) -> Option<Timestamp> {
        self.observed_order.filter(|heard| *heard <= latest_good)
    }

    /// The key that should sign. `None`: no key may.
    fn signer<'a>(&'a self, ordered: Option<&'a Kid>, orders: &DesiredState) -> Option<&'a Kid> {
        let goes_on = || self.signing.as_ref().filter(|kid| !orders.revoked.contains(kid));
        ordered.or_else(goes_on).or_else(|| self.standby(orders))
    }

    /// The oldest key that has not signed yet.
    fn standby(&self, orders: &DesiredState) -> Option<&Kid> {
        let mine = self.keys.iter().filter(|(kid, _)| !orders.revoked.contains(kid));
        let standby = mine.filter(|(_, held)| matches!(held.stage, Stage::Standby { .. }));
        standby.min_by_key(|(kid, held)| (held.stage.since(), *kid)).map(|(kid, _)| kid)
    }

    /// This journal after a step was done.
    ///
    /// # Errors
    ///
    /// Fails if the step cannot have been done: nothing must be recorded then.
    pub fn after(&self, done: &Done, now: Timestamp) -> Result<Self, OutOfOrder> {
        let mut next = self.clone();
        next.record(done, now).ok_or_else(|| OutOfOrder { done: Box::new(done.clone()) })?;
        Ok(next.dated(self, now))
    }

    fn record(&mut self, done: &Done, now: Timestamp) -> Option<()> {
        match done {
            Done::Step(step) => self.record_step(step, now),
            Done::Generated(jwk) => {
                let fresh = JournalKey::new(jwk.clone(), Stage::Standby { since: now });
                self.keys.insert(jwk.kid().clone(), fresh).is_none().then_some(())
            }
            Done::Imported { jwk, horizon, internal_horizon } => {
                let mut held = JournalKey::new(jwk.clone(), Stage::Active { since: now });
                held.external_audiences = true;
                (held.latest_exp_bound, held.latest_internal_exp_bound) =
                    (Some(*horizon), Some(*internal_horizon));
                self.signing = Some(jwk.kid().clone());
                self.keys.insert(jwk.kid().clone(), held).is_none().then_some(())
            }
            Done::ExpiryReserved { kid, external, until } => {
                let is_active = |held: &&mut JournalKey| matches!(held.stage, Stage::Active { .. });
                let held = self.keys.get_mut(kid).filter(is_active)?;
                let horizon =
                    if *external { &mut held.latest_exp_bound } else { &mut held.latest_internal_exp_bound };
                *horizon = (*horizon).max(Some(*until));
                Some(())
            }
        }
    }

    fn record_step(&mut self, step: &SignerStep, now: Timestamp) -> Option<()> {
        match step {
            // Recorded with the key, as [`Done::Generated`].
            SignerStep::Generate => None,
            SignerStep::Begin { kid, ordered } => {
                let held =
                    self.keys.get_mut(kid).filter(|held| !held.lost && !held.excluded_from_discovery)?;
                if !matches!(held.stage, Stage::Active { .. }) {
                    held.stage = Stage::Active { since: now };
                }
                held.external_audiences = ordered.is_some();
                self.signing = Some(kid.clone());
                self.observed_order = ordered.or(self.observed_order);
                Some(())
            }
            SignerStep::Stop { kid } => {
                self.signing.take_if(|signing| signing == kid);
                self.keys.get_mut(kid)?.retire(now)
            }
            SignerStep::Allow { kid, ordered } => {
                let held = self.keys.get_mut(kid).filter(|_| self.signing.as_ref() == Some(kid))?;
                held.external_audiences = true;
                self.observed_order = Some(*ordered);
                Some(())
            }
            SignerStep::Refuse { ordered } => {
                self.observed_order = Some(*ordered);
                Some(())
            }
            SignerStep::Reassert { after } => {
                self.announced_at = self.announced_at.max(*after) + MIN_STATEMENT_INTERVAL;
                Some(())
            }
            SignerStep::Exclude { kid } => {
                let held = self.keys.get_mut(kid)?;
                held.excluded_from_discovery = matches!(held.stage, Stage::Retired { .. });
                held.excluded_from_discovery.then_some(())
            }
            SignerStep::Destroy { kid } => {
                let may_go = self.signing.as_ref() != Some(kid);
                may_go.then(|| self.keys.remove(kid))?.map(|_| ())
            }
        }
    }
}

impl JournalKey {
    pub(super) fn new(jwk: Jwk, stage: Stage) -> Self {
        let (horizon, internal_horizon) = (None, None);
        Self {
            jwk,
            stage,
            external_audiences: false,
            latest_exp_bound: horizon,
            latest_internal_exp_bound: internal_horizon,
            excluded_from_discovery: false,
            lost: false,
        }
    }

    /// Retires an active key; `None` if it is not active.
    pub(super) fn retire(&mut self, now: Timestamp) -> Option<()> {
        if matches!(self.stage, Stage::Active { .. }) {
            self.stage = Stage::Retired { since: now, latest_exp: self.latest_exp_bound };
            return Some(());
        }
        None
    }

    /// Whether no live token for external audiences needs it.
    fn is_unneeded_externally(&self, now: Timestamp, margin: Duration) -> bool {
        self.stage.unneeded_after(margin).is_some_and(|dead| dead <= now)
    }

    /// Whether no live token needs it.
    fn is_unneeded(&self, now: Timestamp, margin: Duration) -> bool {
        let inside = self.latest_internal_exp_bound.is_none_or(|horizon| later(horizon, margin) <= now);
        self.is_unneeded_externally(now, margin) && inside
    }
}

/// The completed step does not follow from the journal.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
#[error("{done:?} does not follow from what is recorded")]
pub struct OutOfOrder {
    done: Box<Done>,
}
