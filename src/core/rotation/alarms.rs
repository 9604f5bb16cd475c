//! Alarms of a rotation, for the operator.

use jiff::Timestamp;

use super::{BlockedReason, RotationInputs, Timing, plan_node};
use crate::core::{
    ledger::{EntryState, Ledger, OrderReason, signed},
    signer::announcement::Stage,
    time::later,
};

/// What is wrong with a rotation and does not end by itself, in words.
///
/// A due key may wait as long as `margin` before an alarm: nodes switch one after the other.
#[must_use]
pub fn alarms(ledger: &Ledger, seen: &RotationInputs, now: Timestamp, timing: &Timing) -> Vec<String> {
    let mut alarms = Vec::new();
    for node in ledger.nodes() {
        let plan = plan_node(ledger, node, seen, now, timing);
        let since = ledger.orders().get(node).map_or(plan.due, |order| plan.due.max(Some(order.at)));
        let is_late = since.is_some_and(|since| now.duration_since(since) > signed(timing.margin));
        // The node that the others wait for has an alarm of its own.
        let is_lasting = |reason: &&BlockedReason| {
            reason.until().is_none() && !matches!(reason, BlockedReason::RolloutInProgress { .. })
        };
        let lasting = plan.blocked.iter().filter(is_lasting);
        let lasting: Vec<_> = lasting.filter(|_| is_late).map(BlockedReason::to_string).collect();
        if !lasting.is_empty() {
            alarms.push(format!("node `{node}` cannot switch to its next key: {}", lasting.join("; ")));
        }
    }
    let is_silent =
        |state, stage| matches!(state, EntryState::Missing { .. }) && !matches!(stage, Stage::Retired { .. });
    for (kid, entry) in ledger.entries() {
        if let Some(signer) = entry.signer.as_ref().filter(|signer| is_silent(entry.state, signer.stage)) {
            let node = &signer.node;
            alarms.push(format!(
                "node `{node}` no longer announces its key `{kid}`, which stays published; if the node is \
                 gone, run `signpost rotate forget {node}`"
            ));
        }
    }
    for node in ledger.known_signers() {
        let revoked = ledger.active_keys_of(node).filter(|(_, entry)| !entry.is_public());
        alarms.extend(revoked.map(|(kid, _)| {
            format!(
                "node `{node}` still signs with revoked key `{kid}`: it has not observed the order; let its \
                 signer read this ledger, or stop it"
            )
        }));
    }
    // Without a node that follows orders, the waits of a rotation are not controlled here.
    let kept = seen.cache_lifetimes.iter().filter(|_| !ledger.nodes().is_empty());
    alarms.extend(kept.filter(|(_, freshness)| timing.is_shorter_than_twice(freshness.lifetime)).map(
        |(place, freshness)| {
            format!(
                "relying parties may cache the JWKS of target `{place}` for {freshness}, but `propagation` is {} s, \
                 expected at least twice as long; serve it with `Cache-Control: public, max-age={}`, or raise \
                 `propagation`",
                timing.propagation.as_secs(),
                timing.jwks_max_age.as_secs()
            )
        },
    ));
    for (node, order) in ledger.orders() {
        let entry = ledger.entries().get(&order.sign);
        let stage = entry.and_then(|entry| entry.signer.as_ref()).map(|signer| signer.stage);
        if let Some(Stage::Active { since }) = stage
            && since > later(now, timing.margin)
        {
            let kid = &order.sign;
            alarms.push(format!(
                "node `{node}` dates key `{kid}` {since}, in the future: its clock is or was ahead; correct \
                 it, then run `signpost rotate start`"
            ));
        }
        let copies = entry.filter(|_| order.reason == OrderReason::Unseen).into_iter();
        let copies =
            copies.flat_map(|entry| entry.shown.values()).map(|since| later(*since, timing.until_ready()));
        if let Some(until) = copies.max().filter(|until| now < *until) {
            alarms.push(format!(
                "node `{node}` signs with the new key `{}` on the operator's request; relying parties with a \
                 cached JWKS without it refuse its tokens, until {until} at most",
                order.sign
            ));
        }
    }
    let without = ledger.rotation_request().into_iter().flat_map(|request| &request.without);
    alarms.extend(without.map(|target| format!("the rotation does not wait for target `{target}`")));
    alarms
}
