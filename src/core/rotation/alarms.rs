//! What an operator has to look at.

use jiff::Timestamp;

use super::{Observation, Obstacle, Timing, outlook};
use crate::core::{
    announcement::Stage,
    ledger::{Ledger, State, signed},
};

/// What is wrong with a rotation and does not end by itself, in words.
///
/// A key that is due may wait as long as `margin` before anybody is told: nodes switch one after the other.
#[must_use]
pub fn alarms(ledger: &Ledger, seen: &Observation, now: Timestamp, timing: &Timing) -> Vec<String> {
    let mut alarms = Vec::new();
    for node in ledger.nodes() {
        let outlook = outlook(ledger, node, seen, now, timing);
        let since = ledger.orders().get(node).map_or(outlook.due, |order| outlook.due.max(Some(order.at)));
        let is_late = since.is_some_and(|since| now.duration_since(since) > signed(timing.margin));
        let lasting = outlook.obstacles.iter().filter(|obstacle| obstacle.until().is_none());
        let lasting: Vec<_> = lasting.filter(|_| is_late).map(Obstacle::to_string).collect();
        if !lasting.is_empty() {
            alarms.push(format!("node `{node}` cannot be given its next key: {}", lasting.join("; ")));
        }
    }
    let is_silent =
        |state, stage| matches!(state, State::Missing { .. }) && !matches!(stage, Stage::Retired { .. });
    for (kid, entry) in ledger.entries() {
        if let Some(signer) = entry.signer.as_ref().filter(|signer| is_silent(entry.state, signer.stage)) {
            let node = &signer.node;
            alarms.push(format!(
                "node `{node}` says nothing any more, and its key `{kid}` stays; `signpost rotate forget {node}` if it is gone"
            ));
        }
    }
    // Where nobody obeys, the waits of a rotation are not ours.
    let kept = seen.kept.iter().filter(|_| !ledger.nodes().is_empty());
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
    let without = ledger.wish().into_iter().flat_map(|wish| &wish.without);
    alarms.extend(without.map(|target| format!("the rotation does not wait for target `{target}`")));
    alarms
}
