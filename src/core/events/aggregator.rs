//! Counts equal Events, and limits the requests that they cause: etcd keeps each Event for an hour.
//!
//! Events with the same reason, issuer and subject form a series. Its first occurrence is sent at once, its
//! count once a minute, and six minutes of silence end it, as in client-go. All requests come out of one
//! token bucket; when it is empty, the first series of a reason goes before the second one of another, so a
//! thousand failing targets do not crowd out the Event about a key. A failed request is retried every 30 s,
//! and dropped and counted after six minutes.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::event::Event;

/// Silence that ends a series: a later occurrence starts a new one, as in client-go.
/// Source: `finishTime` in `k8s.io/client-go/tools/events/event_broadcaster.go`.
const SERIES_ENDS: SignedDuration = SignedDuration::from_mins(6);
/// Time between two count updates of one series.
const COUNT_EVERY: Duration = Duration::from_mins(1);
/// Most requests at once, as in client-go.
/// Source: `defaultSpamBurst` in `k8s.io/client-go/tools/record/events_cache.go`.
const BURST: u32 = 25;
/// Time in which the bucket regains one request.
const REGAIN: Duration = Duration::from_secs(10);
/// Wait after a failed request.
const RETRY: Duration = Duration::from_secs(30);
/// Most series of one reason at once.
const MAX_SERIES: usize = 32;

/// All series that have not ended.
#[derive(Clone, Debug, Default)]
pub struct EventAggregator {
    series: Vec<Series>,
    created: u64,
    /// When the bucket is, or was, full. One request moves it by [`REGAIN`].
    full_at: Timestamp,
    retry_at: Timestamp,
    totals: Totals,
}

/// Equal Events: one for Kubernetes, with a count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Series {
    /// Unique among the Events of a process.
    pub number: u64,
    /// The first occurrence: the note of an Event cannot be changed later.
    pub event: Event,
    pub first: Timestamp,
    pub last: Timestamp,
    pub count: u32,
    /// The count that was sent last, and when.
    sent: Option<(u32, Timestamp)>,
    /// Number of series of the same reason when it began.
    rank: usize,
}

impl Series {
    /// Whether the Event must be created; otherwise its count has grown.
    #[must_use]
    pub fn is_new(&self) -> bool {
        self.sent.is_none()
    }

    /// Number of occurrences that were not sent.
    fn unsent(&self) -> u32 {
        self.count - self.sent.map_or(0, |(count, _)| count)
    }

    /// When it may be sent next, as far as this series is concerned.
    fn due(&self) -> Timestamp {
        self.sent.map_or(self.first, |(_, at)| at + COUNT_EVERY)
    }
}

/// The outcome of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SendOutcome {
    Sent,
    /// It is rejected permanently.
    Refused,
    /// It may succeed later.
    Failed,
}

/// What became of the Events so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Events that were created or whose count was updated.
    pub sent: u64,
    /// Requests that failed.
    pub failed: u64,
    /// Occurrences that will never be sent.
    pub dropped: u64,
}

impl EventAggregator {
    pub fn record(&mut self, event: Event, now: Timestamp) {
        self.end_series(now);
        let rank = self.series.iter().filter(|series| series.event.reason == event.reason).count();
        if let Some(series) = self.series.iter_mut().find(|series| series.event.is_repeated_by(&event)) {
            series.count = series.count.saturating_add(1);
            series.last = now;
        } else if rank < MAX_SERIES {
            self.created += 1;
            let number = self.created;
            self.series.push(Series { number, event, first: now, last: now, count: 1, sent: None, rank });
        } else {
            self.totals.dropped += 1;
        }
    }

    /// The series to send next, and when; `None`: nothing until an Event is recorded. Idempotent.
    pub fn next(&mut self, now: Timestamp) -> Option<(Timestamp, &Series)> {
        self.end_series(now);
        let allowed = (self.full_at - REGAIN * (BURST - 1)).max(self.retry_at).max(now);
        let unsent = self.series.iter().filter(|series| series.unsent() > 0);
        unsent
            .map(|series| (series.due().max(allowed), series))
            .min_by_key(|(at, series)| (*at, !series.is_new(), series.rank, series.number))
    }

    /// Records the outcome of sending a series.
    pub fn after(&mut self, request: &Series, outcome: SendOutcome, now: Timestamp) {
        self.full_at = self.full_at.max(now) + REGAIN;
        self.retry_at = now;
        // The series may have ended during the request.
        let index = self.series.iter().position(|series| series.number == request.number);
        match outcome {
            SendOutcome::Sent => {
                self.totals.sent += 1;
                if let Some(index) = index {
                    self.series[index].sent = Some((request.count, now));
                }
            }
            SendOutcome::Refused => {
                self.totals.failed += 1;
                if let Some(index) = index {
                    self.totals.dropped += u64::from(self.series.swap_remove(index).unsent());
                }
            }
            SendOutcome::Failed => {
                self.totals.failed += 1;
                self.retry_at = now + RETRY;
            }
        }
    }

    #[must_use]
    pub fn totals(&self) -> Totals {
        self.totals
    }

    fn end_series(&mut self, now: Timestamp) {
        for series in self.series.extract_if(.., |series| now.duration_since(series.last) >= SERIES_ENDS) {
            self.totals.dropped += u64::from(series.unsent());
        }
    }
}

#[cfg(test)]
mod tests;
