//! Rotates signing keys such that no relying party receives a token that it cannot verify.
//!
//! A key may sign once every target has shown it for the propagation time, so that no cached JWKS lacks it. A
//! key that stops signing stays published until its last token has expired. RFC 7583 gives the same two waits
//! for DNSSEC keys (sections 3.2.1 and 3.3). The one exception is made by the operator
//! ([`Ledger::revoke_for_a_new_key`]); it is recorded in the order and raises an alarm.
//!
//! [`next_step`] decides from the ledger and the latest observations; the caller records the step with
//! [`after`] and calls again. The node follows the order, or refuses it (`docs/decisions/0027`).

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use jiff::Timestamp;

mod alarms;
mod key_state;
mod status;
mod timing;
mod tripwire;
mod window;

pub use self::{
    alarms::alarms,
    key_state::{KeyState, key_state},
    status::{KeyStatus, NodeStatus, Phase, RotationStatus, rotation_status},
    timing::{Contradiction, Timing},
    tripwire::{SigningKey, SigningKeyChange, signing_key, signing_key_changes},
    window::Window,
};
use super::{
    freshness::Freshness,
    jose::{jwk_set::MAX_KEYS, kid::Kid},
    ledger::{AnnouncementRejection, Entry, Ledger, OrderReason},
    signer::announcement::{NodeName, Stage},
    time::later,
};

/// The latest observations, besides the ledger.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RotationInputs {
    /// The targets that must show a key before it signs.
    pub required_targets: BTreeSet<String>,
    /// The kids that each API server verifies now; `None` for one that did not answer.
    pub api_servers: BTreeMap<String, Option<BTreeSet<Kid>>>,
    /// The nodes whose announcements were read, each with its acceptance or rejection.
    pub nodes: BTreeMap<NodeName, Result<(), AnnouncementRejection>>,
    /// How long relying parties may cache the JWKS of each target with a public address.
    pub cache_lifetimes: BTreeMap<String, Freshness>,
    /// Whether every target was observed, and the local clock agrees with the others.
    pub is_complete: bool,
}

/// The next step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RotationStep {
    /// Order the node to sign with this key, for external audiences too.
    Order { node: NodeName, sign: Kid, why: OrderReason },
    /// The requested rotation is complete.
    Complete,
    /// Nothing to do before `until`, or before the next observation.
    Wait { until: Option<Timestamp> },
}

/// Why a key may not sign yet, or why a node cannot be given another one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum BlockedReason {
    /// The target does not show the key.
    NotShown {
        target: String,
    },
    /// A relying party may still cache an earlier JWKS.
    Propagating {
        target: String,
        until: Timestamp,
    },
    /// The API server does not verify tokens of the key yet.
    NotVerified {
        api_server: String,
    },
    /// The API server does not answer.
    ApiServerUnavailable {
        api_server: String,
    },
    /// The ledger was restored from a backup or repaired.
    Repaired {
        until: Timestamp,
    },
    /// A target was not observed since the start, or clocks disagree.
    IncompleteObservation,
    /// The maintenance window is closed.
    Window {
        until: Timestamp,
    },
    /// The node announces nothing: it may have lost the key.
    NoStatement,
    StatementRejected {
        why: AnnouncementRejection,
    },
    /// The node has no unused key.
    NoStandby,
    /// Another node has not switched yet: nodes switch one after the other.
    RolloutInProgress {
        node: NodeName,
    },
    /// The node itself has not switched yet.
    AwaitingSigner {
        since: Timestamp,
    },
    /// The publication has [`MAX_KEYS`] keys.
    TooManyKeys,
}

impl BlockedReason {
    /// When the reason ends by itself.
    #[must_use]
    pub fn until(&self) -> Option<Timestamp> {
        match self {
            Self::Propagating { until, .. } | Self::Repaired { until } | Self::Window { until } => {
                Some(*until)
            }
            _ => None,
        }
    }
}

impl fmt::Display for BlockedReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotShown { target: place } => write!(f, "{place} does not show it"),
            Self::Propagating { target: place, until } => {
                write!(f, "a JWKS without it may be cached until {until} ({place})")
            }
            Self::NotVerified { api_server } => write!(f, "API server {api_server} does not verify it yet"),
            Self::ApiServerUnavailable { api_server } => write!(f, "API server {api_server} does not answer"),
            Self::Repaired { until } => {
                write!(f, "the ledger was repaired, no key is switched before {until}")
            }
            Self::IncompleteObservation => {
                f.write_str("not every target and API server was observed yet, or clocks disagree")
            }
            Self::Window { until } => write!(f, "the window opens at {until}"),
            Self::NoStatement => f.write_str("the node has no announcement"),
            Self::StatementRejected { why } => write!(f, "{why}"),
            Self::NoStandby => f.write_str("the node has no standby key"),
            Self::RolloutInProgress { node } => write!(f, "node {node} has not switched yet"),
            Self::AwaitingSigner { since } => {
                write!(f, "the node was ordered at {since} and has not switched yet")
            }
            Self::TooManyKeys => {
                write!(f, "{MAX_KEYS} keys are published, the maximum that relying parties read")
            }
        }
    }
}

/// The next key of a node, and what blocks it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodePlan {
    /// The key that it is ordered to sign with.
    pub ordered: Option<Kid>,
    /// The key that it signs with next.
    pub next: Option<Kid>,
    /// When the next key is due, if known.
    pub due: Option<Timestamp>,
    /// Why it gets the next key.
    pub reason: OrderReason,
    /// What blocks the next key, other than its due time.
    pub blocked: BTreeSet<BlockedReason>,
}

/// Decides the next step of a rotation.
///
/// Deterministic: as long as nothing changes, it returns the same step, so a crash between decision and
/// action is harmless.
#[must_use]
pub fn next_step(ledger: &Ledger, seen: &RotationInputs, now: Timestamp, timing: &Timing) -> RotationStep {
    let nodes = ledger.nodes();
    let plans: Vec<_> =
        nodes.iter().map(|node| (*node, plan_node(ledger, node, seen, now, timing))).collect();
    for (node, plan) in &plans {
        let is_due = plan.due.is_some_and(|due| due <= now);
        if let Some(sign) = plan.next.as_ref().filter(|_| is_due && plan.blocked.is_empty()) {
            return RotationStep::Order { node: (*node).clone(), sign: sign.clone(), why: plan.reason };
        }
    }
    let is_fulfilled = |node: &NodeName, request: Timestamp| {
        ledger.orders().get(node).is_some_and(|order| order.at >= request && has_observed_order(ledger, node))
    };
    if ledger
        .rotation_request()
        .is_some_and(|request| nodes.iter().all(|node| is_fulfilled(node, request.at)))
    {
        return RotationStep::Complete;
    }
    let waits = plans.iter().flat_map(|(_, plan)| {
        let ends = plan.blocked.iter().filter_map(BlockedReason::until);
        plan.due.into_iter().chain(ends)
    });
    RotationStep::Wait { until: waits.filter(|until| *until > now).min() }
}

/// The ledger after a step.
#[must_use]
pub fn after(ledger: &Ledger, step: &RotationStep, now: Timestamp) -> Ledger {
    match step {
        RotationStep::Order { node, sign, why } => ledger.order(node, sign, *why, now),
        RotationStep::Complete => ledger.complete_rotation(),
        RotationStep::Wait { .. } => ledger.clone(),
    }
}

/// Whether a node has a key that is none of the known ones, or is about to create one: it does while it lacks
/// a standby key beside the key that it signs with.
fn has_another_to_come(keys: &[(&Kid, &Entry, Stage)], known: &BTreeSet<Kid>) -> bool {
    let is_at = |active: bool| {
        move |(_, _, stage): &(&Kid, &Entry, Stage)| match stage {
            Stage::Active { .. } => active,
            Stage::Standby { .. } => !active,
            Stage::Retired { .. } => false,
        }
    };
    let is_new = |(kid, _, stage): &(&Kid, &Entry, Stage)| {
        !matches!(stage, Stage::Retired { .. }) && !known.contains(*kid)
    };
    keys.iter().any(is_new) || !(keys.iter().any(is_at(true)) && keys.iter().any(is_at(false)))
}

/// Plans the next key of a node, and lists what blocks it.
#[must_use]
pub fn plan_node(
    ledger: &Ledger,
    node: &NodeName,
    seen: &RotationInputs,
    now: Timestamp,
    timing: &Timing,
) -> NodePlan {
    let keys = ledger.keys_of(node);
    let order = ledger.orders().get(node);
    let ordered = order.and_then(|order| keys.iter().find(|(kid, ..)| **kid == order.sign));
    let nothing = BTreeSet::new();
    let without = ledger.rotation_request().map_or(&nothing, |request| &request.without);
    let waived = ledger.propagation_waived(node).filter(|known| has_another_to_come(&keys, known));
    let obstacles_of = |kid: &Kid, entry: &Entry| {
        let mut reasons = blocked_reasons(ledger, (kid, entry), seen, without, now, timing);
        // The operator has accepted the risk.
        reasons.retain(|reason| waived.is_none() || !matches!(reason, BlockedReason::Propagating { .. }));
        reasons
    };
    let unheard = match seen.nodes.get(node) {
        Some(Ok(())) => None,
        Some(Err(why)) => Some(BlockedReason::StatementRejected { why: why.clone() }),
        None => Some(BlockedReason::NoStatement),
    };

    // An order that was not followed before the last token of the key expired never will be; nor will one
    // that the node has processed without following it, because it had a later order of a ledger that is
    // lost.
    let has_refused = |stage: &Stage| {
        let heard = ledger.observed_order(node).filter(|heard| *heard < now);
        matches!(stage, Stage::Standby { .. }) && heard >= order.map(|order| order.at)
    };
    let is_in_force = |stage: &Stage| {
        stage.unneeded_after(timing.margin).is_none_or(|dead| now < dead) && !has_refused(stage)
    };
    let in_force = ordered.filter(|(_, _, stage)| is_in_force(stage));
    let (Some(order), Some((_, _, stage))) = (order, in_force) else {
        // Prefer the key that already signs; after a revocation any key that is ready.
        let mut candidates: Vec<_> =
            keys.iter().filter(|(_, _, stage)| !matches!(stage, Stage::Retired { .. })).collect();
        // A key that was public before the operator's command would gain nothing.
        candidates.retain(|(kid, ..)| waived.is_none_or(|known| !known.contains(*kid)));
        candidates.sort_by_key(|(_, _, stage)| matches!(stage, Stage::Standby { .. }));
        let judged = candidates.into_iter().map(|(kid, entry, _)| (*kid, obstacles_of(kid, entry)));
        let best = judged.min_by_key(|(_, reasons)| !reasons.is_empty());
        let (next, mut reasons) = best
            .map_or((None, BTreeSet::from([BlockedReason::NoStandby])), |(kid, reasons)| {
                (Some(kid.clone()), reasons)
            });
        reasons.extend(unheard);
        let why = if waived.is_some() { OrderReason::Unseen } else { OrderReason::First };
        return NodePlan { ordered: None, next, due: Some(now), reason: why, blocked: reasons };
    };

    let asked = ledger.rotation_request().filter(|request| order.at < request.at);
    let (due, why) = match (asked, stage) {
        (Some(request), _) => (Some(request.at), OrderReason::Asked),
        (None, Stage::Active { since }) => {
            // A node whose clock was ahead dates its keys too late.
            let since = if *since > later(now, timing.margin) { order.at } else { *since };
            // Going back to a key makes it young again: its node may not have reported that yet.
            let since = if order.reason == OrderReason::Aborted { since.max(order.at) } else { since };
            (timing.rotate_after.map(|age| later(since, age)), OrderReason::Age)
        }
        (None, _) => (None, OrderReason::Age),
    };
    let next =
        keys.iter().find(|(kid, _, stage)| **kid != order.sign && matches!(stage, Stage::Standby { .. }));
    let mut reasons =
        next.map_or(BTreeSet::from([BlockedReason::NoStandby]), |(kid, entry, _)| obstacles_of(kid, entry));
    reasons.extend(unheard);
    if !matches!(stage, Stage::Active { .. }) {
        reasons.insert(BlockedReason::AwaitingSigner { since: order.at });
    }
    let busy =
        ledger.nodes().into_iter().filter(|other| *other != node && !has_observed_order(ledger, other));
    reasons.extend(busy.map(|other| BlockedReason::RolloutInProgress { node: other.clone() }));
    if let (OrderReason::Age, Some(due), Some(window)) = (why, due, &timing.window) {
        let (ripe, never) = (due.max(now), Timestamp::MAX);
        let opens = window.open_from(ripe).unwrap_or(never);
        if opens > ripe {
            reasons.insert(BlockedReason::Window { until: opens });
        }
    }
    // The standby key of its successor needs room too.
    if ledger.public_keys().count() >= MAX_KEYS {
        reasons.insert(BlockedReason::TooManyKeys);
    }
    let next = next.map(|(kid, ..)| (*kid).clone());
    NodePlan { ordered: Some(order.sign.clone()), next, due, reason: why, blocked: reasons }
}

/// What blocks a key from signing for external audiences.
fn blocked_reasons(
    ledger: &Ledger,
    (kid, entry): (&Kid, &Entry),
    seen: &RotationInputs,
    without: &BTreeSet<String>,
    now: Timestamp,
    timing: &Timing,
) -> BTreeSet<BlockedReason> {
    let mut reasons = BTreeSet::new();
    for place in seen.required_targets.difference(without) {
        match entry.shown.get(place) {
            None => drop(reasons.insert(BlockedReason::NotShown { target: place.clone() })),
            Some(_) if entry.present_from_start => {}
            Some(since) => {
                let until = later(*since, timing.until_ready());
                if now < until {
                    reasons.insert(BlockedReason::Propagating { target: place.clone(), until });
                }
            }
        }
    }
    for (api_server, verifies) in &seen.api_servers {
        let api_server = api_server.clone();
        match verifies {
            None => drop(reasons.insert(BlockedReason::ApiServerUnavailable { api_server })),
            Some(kids) if !kids.contains(kid) => {
                reasons.insert(BlockedReason::NotVerified { api_server });
            }
            Some(_) => {}
        }
    }
    if let Some(hold) = ledger.retention_hold().filter(|_| ledger.is_held(now)) {
        reasons.insert(BlockedReason::Repaired { until: hold.until });
    }
    if !seen.is_complete {
        reasons.insert(BlockedReason::IncompleteObservation);
    }
    reasons
}

/// Whether a node signs with the ordered key and with no other. A node without an order signs for no external
/// audience.
fn has_observed_order(ledger: &Ledger, node: &NodeName) -> bool {
    let Some(order) = ledger.orders().get(node) else { return true };
    ledger
        .keys_of(node)
        .into_iter()
        .all(|(kid, _, stage)| matches!(stage, Stage::Active { .. }) == (*kid == order.sign))
}

#[cfg(test)]
mod tests;
