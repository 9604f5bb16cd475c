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
        let is_lasting = |obstacle: &&BlockedReason| {
            obstacle.until().is_none() && !matches!(obstacle, BlockedReason::RolloutInProgress { .. })
        };
        let lasting = plan.blocked.iter().filter(is_lasting);
        let lasting: Vec<_> = lasting.filter(|_| is_late).map(BlockedReason::to_string).collect();
        if !lasting.is_empty() {
            alarms.push(format!("node `{node}` cannot be given its next key: {}", lasting.join("; ")));
        }
    }
    let is_silent =
        |state, stage| matches!(state, EntryState::Missing { .. }) && !matches!(stage, Stage::Retired { .. });
    for (kid, entry) in ledger.entries() {
        if let Some(signer) = entry.signer.as_ref().filter(|signer| is_silent(entry.state, signer.stage)) {
            let node = &signer.node;
            alarms.push(format!(
                "node `{node}` says nothing any more, and its key `{kid}` stays; `signpost rotate forget {node}` if it is gone"
            ));
        }
    }
    for node in ledger.known_signers() {
        let revoked = ledger.active_keys_of(node).filter(|(_, entry)| !entry.is_public());
        alarms.extend(revoked.map(|(kid, _)| {
            format!(
                "node `{node}` still signs with revoked key `{kid}`: it has not obeyed; let its signer read this ledger, or \
                 stop it"
            )
        }));
    }
    // Without a node that follows orders, the waits of a rotation are not controlled here.
    let kept = seen.cache_lifetimes.iter().filter(|_| !ledger.nodes().is_empty());
    alarms.extend(kept.filter(|(_, freshness)| timing.is_shorter_than_twice(freshness.lifetime)).map(
        |(place, freshness)| {
            format!(
                "relying parties may keep the JWKS of target `{place}` for {freshness}, and `propagation` is {} s, \
                 expected at least twice as long; have it sent with `Cache-Control: public, max-age={}`, or raise \
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
                "node `{node}` dates key `{kid}` {since}, which is still to come: its clock is or was ahead; set it, \
                 then `signpost rotate start` ends this"
            ));
        }
        let copies = entry.filter(|_| order.reason == OrderReason::Unseen).into_iter();
        let copies =
            copies.flat_map(|entry| entry.shown.values()).map(|since| later(*since, timing.until_ready()));
        if let Some(until) = copies.max().filter(|until| now < *until) {
            alarms.push(format!(
                "node `{node}` signs with key `{}` by the operator's word, and whoever has a copy of the JWKS without it \
                 refuses its tokens, until {until} at most",
                order.sign
            ));
        }
    }
    let without = ledger.rotation_request().into_iter().flat_map(|wish| &wish.without);
    alarms.extend(without.map(|target| format!("the rotation does not wait for target `{target}`")));
    alarms
}
