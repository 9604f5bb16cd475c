//! What a node does next, and what is true afterwards.

use std::time::Duration;

use jiff::Timestamp;

use super::{DesiredState, Journal, JournalKey};
use crate::core::{
    jose::{jwk::Jwk, kid::Kid},
    signer::announcement::Stage,
    time::later,
};

/// Most keys that are held at once. Whoever can write orders can make a node retire key after key; a JWKS
/// for Microsoft Entra has room for 100 keys of all nodes.
pub const MAX_KEYS_PER_NODE: usize = 32;

/// Least time between two words of a node.
pub(super) const SOONEST: Duration = Duration::from_millis(1);

/// What a node does next. Each is done on disk, then recorded, then announced, then takes effect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SignerStep {
    /// Make a key.
    Generate,
    /// Sign with this key from now on: for everybody if that was `ordered`, else for the API server alone.
    Begin { kid: Kid, ordered: Option<Timestamp> },
    /// Say that this key does not sign any more.
    Stop { kid: Kid },
    /// Take the order for the key that signs: it may sign for everybody.
    Allow { kid: Kid, ordered: Timestamp },
    /// Say that an order will not be obeyed.
    Refuse { ordered: Timestamp },
    /// Announce the same again, later than `after`: the operator took the node for gone, or it has lost what it
    /// announced last (its journal, its disk, or the time that its clock was ahead).
    Reassert { after: Timestamp },
    /// Show this key to nobody but the API server: no live token for others needs it.
    Exclude { kid: Kid },
    /// Destroy the private key: no live token needs even the public one, or it was revoked.
    Destroy { kid: Kid },
}

/// What was done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Done {
    Generated(Jwk),
    /// A key that others may have signed with until now: no token of it is said to have a later `exp`.
    Imported {
        jwk: Jwk,
        horizon: Timestamp,
        internal_horizon: Timestamp,
    },
    Began {
        kid: Kid,
        ordered: Option<Timestamp>,
    },
    Stopped {
        kid: Kid,
    },
    Allowed {
        kid: Kid,
        ordered: Timestamp,
    },
    Refused {
        ordered: Timestamp,
    },
    Reasserted {
        after: Timestamp,
    },
    Excluded {
        kid: Kid,
    },
    Destroyed {
        kid: Kid,
    },
    /// A token up to this `exp` may now be signed.
    ExpiryReserved {
        kid: Kid,
        outside: bool,
        until: Timestamp,
    },
}

/// An order that is not obeyed.
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
    /// The publisher was told so, and may have taken the key away.
    #[error("the order of {at} for key `{kid}` was already refused")]
    Settled { kid: Kid, at: Timestamp },
    /// Once it was obeyed, no order of the present would be.
    #[error(
        "the order of {at} for key `{kid}` is in the future: the clocks of this node and the publisher disagree"
    )]
    Early { kid: Kid, at: Timestamp },
}

impl RefusedOrder {
    /// Whether it will not be obeyed later either.
    fn is_for_good(&self) -> bool {
        !matches!(self, Self::Early { .. })
    }
}

impl DesiredState {
    /// The key that shall sign, if the order can be obeyed.
    ///
    /// `margin` is how far two clocks may be apart.
    ///
    /// # Errors
    ///
    /// Says why it is not, for the log: the node goes on as if there were no order.
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
            Some(held) if held.excluded_from_discovery || held.is_dead_outside(now, margin) => {
                Err(RefusedOrder::Excluded { kid: named() })
            }
            Some(_) => Ok(Some(kid)),
        }
    }
}

impl Journal {
    /// What to do now; `None` when everything is as it should be.
    ///
    /// `margin` is what is added to every wait, for clocks that disagree.
    #[must_use]
    pub fn next_step(&self, orders: &DesiredState, now: Timestamp, margin: Duration) -> Option<SignerStep> {
        let obeyed = orders.key(self, now, margin);
        let will_never_be = obeyed.as_ref().is_err_and(RefusedOrder::is_for_good);
        let ordered = obeyed.unwrap_or_default();
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
        // One of the future would silence the node.
        let is_early = |time: &Timestamp| *time > later(now, margin);
        if let Some(after) = unheard.max(lost).filter(|after| !is_early(after)) {
            return Some(SignerStep::Reassert { after });
        }
        if let Some(kid) = find(&|kid, _| orders.revoked.contains(kid)) {
            return Some(SignerStep::Destroy { kid });
        }
        if let Some(kid) = find(&|_, held| held.is_over(now, margin)) {
            return Some(SignerStep::Destroy { kid });
        }
        if let Some(kid) = find(&|_, held| !held.excluded_from_discovery && held.is_dead_outside(now, margin))
        {
            return Some(SignerStep::Exclude { kid });
        }
        let has_room = self.keys.len() < MAX_KEYS_PER_NODE || self.signing.is_none();
        (has_room && self.standby(orders).is_none()).then_some(SignerStep::Generate)
    }

    /// The time of the latest order that was dealt with. One after `latest_good` counts for nothing: a clock was ahead
    /// then, and no order of the present would be obeyed.
    fn observed_by(&self, latest_good: Timestamp) -> Option<Timestamp> {
        self.observed_order.filter(|heard| *heard <= latest_good)
    }

    /// The key that should sign. `None`: there is none that may.
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

    /// The same once something was done.
    ///
    /// # Errors
    ///
    /// Fails when it cannot have been done: nothing is to be recorded then.
    pub fn after(&self, done: &Done, now: Timestamp) -> Result<Self, OutOfOrder> {
        let mut next = self.clone();
        next.record(done, now).ok_or_else(|| OutOfOrder { done: Box::new(done.clone()) })?;
        Ok(next.dated(self, now))
    }

    fn record(&mut self, done: &Done, now: Timestamp) -> Option<()> {
        match done {
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
            Done::Began { kid, ordered } => {
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
            Done::Stopped { kid } => {
                self.signing.take_if(|signing| signing == kid);
                self.keys.get_mut(kid)?.retire(now)
            }
            Done::Allowed { kid, ordered } => {
                let held = self.keys.get_mut(kid).filter(|_| self.signing.as_ref() == Some(kid))?;
                held.external_audiences = true;
                self.observed_order = Some(*ordered);
                Some(())
            }
            Done::Refused { ordered } => {
                self.observed_order = Some(*ordered);
                Some(())
            }
            Done::Reasserted { after } => {
                self.announced_at = self.announced_at.max(*after) + SOONEST;
                Some(())
            }
            Done::Excluded { kid } => {
                let held = self.keys.get_mut(kid)?;
                held.excluded_from_discovery = matches!(held.stage, Stage::Retired { .. });
                held.excluded_from_discovery.then_some(())
            }
            Done::Destroyed { kid } => {
                let may_go = self.signing.as_ref() != Some(kid);
                may_go.then(|| self.keys.remove(kid))?.map(|_| ())
            }
            Done::ExpiryReserved { kid, outside, until } => {
                let is_active = |held: &&mut JournalKey| matches!(held.stage, Stage::Active { .. });
                let held = self.keys.get_mut(kid).filter(is_active)?;
                let horizon =
                    if *outside { &mut held.latest_exp_bound } else { &mut held.latest_internal_exp_bound };
                *horizon = (*horizon).max(Some(*until));
                Some(())
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

    /// It does not sign any more. Nothing to do where it is so already.
    pub(super) fn retire(&mut self, now: Timestamp) -> Option<()> {
        if matches!(self.stage, Stage::Active { .. }) {
            self.stage = Stage::Retired { since: now, latest_exp: self.latest_exp_bound };
            return Some(());
        }
        None
    }

    /// Whether no live token for others than the API server needs it.
    fn is_dead_outside(&self, now: Timestamp, margin: Duration) -> bool {
        self.stage.dead_after(margin).is_some_and(|dead| dead <= now)
    }

    /// Whether no live token at all needs it.
    fn is_over(&self, now: Timestamp, margin: Duration) -> bool {
        let inside = self.latest_internal_exp_bound.is_none_or(|horizon| later(horizon, margin) <= now);
        self.is_dead_outside(now, margin) && inside
    }
}

/// What is said to have been done cannot have been.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
#[error("{done:?} does not follow from what is recorded")]
pub struct OutOfOrder {
    done: Box<Done>,
}
