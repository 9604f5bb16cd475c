//! Times that a clock which was ahead has left in the ledger.
//!
//! A time that is still to come would hold whatever waits for it until then, for years if a clock was years ahead.
//! So it counts from when it was noticed. It is not rewritten before a retention has passed, in which nothing is
//! removed or switched: a clock that is behind looks alike, and once that is right, no time is ahead and none was lost.

use jiff::Timestamp;

use super::{ChangeKind, EntryState, IncidentKind, Ledger, Retention, signed};
use crate::core::{jose::kid::Kid, time::later};

impl Ledger {
    /// The same, with times that are further ahead of `now` than clocks may be apart counting from when that was
    /// noticed. `now` has to be a time that nobody disagrees with.
    #[must_use]
    pub fn without_times_ahead(&self, now: Timestamp, retention: &Retention) -> Self {
        let latest_good = later(now, retention.margin);
        let mut ledger = self.clone();
        let mut latest = None;
        ledger.each_time(|time| latest = latest.max(Some(*time)));
        let Some(latest) = latest.filter(|latest| *latest > latest_good) else {
            if ledger.ahead_since.take().is_some() {
                ledger.advance();
            }
            return ledger;
        };
        match self.ahead_since.filter(|since| *since <= latest_good) {
            None => {
                ledger.ahead_since = Some(now);
                ledger.repaired(IncidentKind::Ahead { latest }, now, retention.wait())
            }
            Some(since) if now.duration_since(since) >= signed(retention.wait()) => {
                ledger.date(latest_good, since, now);
                ledger
            }
            Some(_) => ledger,
        }
    }

    /// Replaces every time after `latest_good`.
    fn date(&mut self, latest_good: Timestamp, since: Timestamp, now: Timestamp) {
        self.ahead_since = None;
        // An order counts from then, and what was asked for has not been done since.
        if let Some(wish) = self.rotation_request.as_mut().filter(|wish| wish.at > latest_good) {
            wish.at = now;
        }
        let is_ahead = |state| matches!(state, EntryState::Missing { since } if since > latest_good);
        let missing: Vec<Kid> =
            self.keys.iter().filter(|(_, entry)| is_ahead(entry.state)).map(|(kid, _)| kid.clone()).collect();
        self.each_time(|time| {
            if *time > latest_good {
                *time = since;
            }
        });
        self.advance();
        // No state changes without a record.
        for kid in missing {
            self.record(now, &kid, ChangeKind::Redated);
        }
    }

    /// Every time at which something has happened, by some clock of the publisher.
    fn each_time(&mut self, mut visit: impl FnMut(&mut Timestamp)) {
        for entry in self.keys.values_mut() {
            visit(&mut entry.first_seen);
            match &mut entry.state {
                EntryState::Listed => {}
                EntryState::Missing { since: at }
                | EntryState::Removed { at }
                | EntryState::Revoked { at } => visit(at),
            }
            entry.shown.values_mut().chain(&mut entry.ordered).for_each(&mut visit);
        }
        self.unmanaged_keys
            .values_mut()
            .flat_map(|stranger| stranger.shown.values_mut())
            .for_each(&mut visit);
        self.orders.values_mut().for_each(|order| visit(&mut order.at));
        self.forgotten.values_mut().for_each(&mut visit);
        self.rotation_request.iter_mut().for_each(|wish| visit(&mut wish.at));
        self.retention_hold.iter_mut().for_each(|hold| visit(&mut hold.since));
    }
}

#[cfg(test)]
mod tests;
