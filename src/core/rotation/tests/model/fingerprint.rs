//! The fingerprint of a state, for deduplication in the search.
//!
//! Times are relative to now, and those too old to matter are equal. History and sequence of the ledger are
//! left out, except for their order between publisher, store and targets.

use std::hash::{DefaultHasher, Hash, Hasher};

use super::*;
use crate::core::{
    ledger::EntryState,
    signer::{Journal, announcement::Announcement},
};

/// No wait is longer.
const LONGEST: i64 = 6 * TICK;

impl World {
    pub(super) fn fingerprint(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        let to = &mut hasher;
        for ledger in [
            self.stored.as_deref(),
            self.publisher.as_ref().map(|publisher| &*publisher.known),
            self.backup.as_deref(),
        ] {
            match ledger {
                Some(ledger) if ledger.sequence() > 0 => self.ledger(ledger, to),
                other => other.is_some().hash(to),
            }
        }
        let sequence = |ledger: &Option<Arc<Ledger>>| ledger.as_ref().map_or(0, |ledger| ledger.sequence());
        let stored = sequence(&self.stored);
        sequence(&self.backup).cmp(&stored).hash(to);
        if let Some(publisher) = &self.publisher {
            (publisher.unseen, publisher.was_published, publisher.api_server).hash(to);
            (self.age(publisher.opened), publisher.skew, publisher.known.sequence().cmp(&stored)).hash(to);
            self.answer_in(&publisher.nodes, to);
            for seen in &publisher.looks {
                seen.is_some().hash(to);
                if let Some(seen) = seen {
                    (kids(&seen.look.view), seen.look.revision_found == seen.look.revision_after).hash(to);
                }
            }
        }
        for place in &self.places {
            (place.view, place.is_ours, place.is_recorded, place.written_from.cmp(&stored)).hash(to);
            for copy in &place.copies {
                (copy.view, copy.is_ours, copy.is_noticed, self.age(copy.replaced)).hash(to);
            }
        }
        self.nodes.iter().for_each(|node| self.node(node, to));
        for (key, ordered) in &self.unseen {
            (key, self.age(*ordered)).hash(to);
        }
        for key in 0..self.made {
            (self.age(self.external[key]), self.age(self.inside[key])).hash(to);
        }
        (
            self.listed,
            self.ever_listed,
            self.made,
            self.ordered,
            self.buried,
            self.revoked,
            self.restored,
            self.forged,
            self.wrong,
        )
            .hash(to);
        hasher.finish()
    }

    /// Seconds from now, as far as they matter.
    fn age(&self, second: i64) -> i64 {
        (second - self.now).max(-LONGEST)
    }

    fn since(&self, time: Timestamp) -> i64 {
        self.age(time.as_second())
    }

    fn stage(&self, stage: Stage) -> (u8, i64, i64) {
        match stage {
            Stage::Standby { since } => (0, self.since(since), 0),
            Stage::Active { since } => (1, self.since(since), 0),
            Stage::Retired { since, latest_exp } => {
                (2, self.since(since), latest_exp.map_or(i64::MIN, |exp| self.since(exp)))
            }
        }
    }

    fn ledger(&self, ledger: &Ledger, to: &mut DefaultHasher) {
        for (kid, entry) in ledger.entries() {
            number(kid).hash(to);
            match entry.state {
                EntryState::Listed => 0.hash(to),
                EntryState::Missing { since } => (1, self.since(since)).hash(to),
                EntryState::Removed { .. } => 2.hash(to),
                EntryState::Revoked { .. } => 3.hash(to),
            }
            if entry.is_public() {
                entry.present_from_start.hash(to);
                entry.shown.values().for_each(|since| self.since(*since).hash(to));
                entry.shown.len().hash(to);
                entry.signer.as_ref().map(|signer| self.stage(signer.stage)).hash(to);
                entry.ordered.map(|at| self.since(at)).hash(to);
            }
        }
        for order in ledger.orders().values() {
            let is_asked = ledger.rotation_request().map(|request| request.at <= order.at);
            (
                number(&order.sign),
                self.since(order.at),
                is_asked,
                matches!(order.reason, OrderReason::First | OrderReason::Aborted | OrderReason::Unseen),
            )
                .hash(to);
        }
        (ledger.orders().len(), kids(ledger.unmanaged_keys().keys()), ledger.rotation_request().is_some())
            .hash(to);
        ledger.retention_hold().map(|hold| self.since(hold.until)).hash(to);
        for node in &self.nodes {
            ledger.propagation_waived(&node.name).map(kids).hash(to);
        }
    }

    fn answer_in(&self, answer: &SourceAnswer, to: &mut DefaultHasher) {
        match answer {
            SourceAnswer::Announced(said) => {
                for said in said {
                    self.announcement(said.signed.announcement(), to);
                }
            }
            other => (*other == SourceAnswer::Failed).hash(to),
        }
    }

    fn node(&self, node: &SigningNode, to: &mut DefaultHasher) {
        (node.files, node.runs, node.doing.is_some(), node.skew, node.journal == node.memory).hash(to);
        (node.orders.sign.as_ref().map(number), self.since(node.orders.at)).hash(to);
        node.orders.announced.map(|at| self.since(at)).hash(to);
        kids(&node.orders.revoked).hash(to);
        for journal in [&node.journal, &node.memory].into_iter().flatten() {
            self.journal(journal, to);
        }
        for announcement in [&node.announced, &node.before] {
            announcement.is_some().hash(to);
            if let Some(announcement) = announcement {
                self.announcement(announcement, to);
            }
        }
    }

    fn announcement(&self, announcement: &Announcement, to: &mut DefaultHasher) {
        announcement.version().observed_order.map(|heard| self.since(heard)).hash(to);
        for (kid, key) in announcement.keys() {
            (number(kid), self.stage(key.stage)).hash(to);
        }
    }

    fn journal(&self, journal: &Journal, to: &mut DefaultHasher) {
        (journal.signing().map(number), journal.observed_order().map(|heard| self.since(heard))).hash(to);
        for (kid, held) in journal.keys() {
            let horizon = |time: Option<Timestamp>| time.map(|time| self.since(time));
            (
                number(kid),
                self.stage(held.stage),
                held.external_audiences,
                held.excluded_from_discovery,
                held.lost,
            )
                .hash(to);
            (horizon(held.latest_exp_bound), horizon(held.latest_internal_exp_bound)).hash(to);
        }
    }
}
