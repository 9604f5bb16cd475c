//! Future timestamps that a clock which was ahead has left in the ledger.
//!
//! Such a time would block whatever waits for it, for years if the clock was years ahead. So it counts from
//! when it was noticed. It is rewritten only after one retention, during which nothing is removed or
//! switched: a local clock that is behind looks the same, and once that is corrected, no time is in the
//! future and none was lost.

use jiff::Timestamp;

use super::{ChangeKind, EntryState, IncidentKind, Ledger, Retention, signed};
use crate::core::{jose::kid::Kid, time::later};

impl Ledger {
    /// This ledger, with times that are further ahead of `now` than the tolerated clock skew counted from
    /// when that was noticed. `now` must be a time that every clock agrees on.
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
                ledger.with_retention_hold(IncidentKind::Ahead { latest }, now, retention.wait())
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
        // An order counts from `since`, and the request has not been fulfilled since then.
        if let Some(request) = self.rotation_request.as_mut().filter(|request| request.at > latest_good) {
            request.at = now;
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
        // Every change of state is recorded.
        for kid in missing {
            self.record(now, &kid, ChangeKind::Redated);
        }
    }

    /// Visits every timestamp that a publisher's clock has set.
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
            .flat_map(|unmanaged_key| unmanaged_key.shown.values_mut())
            .for_each(&mut visit);
        self.orders.values_mut().for_each(|order| visit(&mut order.at));
        self.forgotten.values_mut().for_each(&mut visit);
        self.rotation_request.iter_mut().for_each(|request| visit(&mut request.at));
        self.retention_hold.iter_mut().for_each(|hold| visit(&mut hold.since));
    }
}

#[cfg(test)]
mod tests;
