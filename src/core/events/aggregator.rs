//! Decides which Kubernetes Events are sent, and limits their rate: etcd keeps each for an hour.
//!
//! Reason, issuer and subject form a series. Its first occurrence is sent at once, its count once a minute,
//! and six minutes of silence end it, as in client-go. Each reason has an allowance of ten requests and
//! regains one in 30 s, so a thousand failing targets do not crowd out the Event about a key. A failed
//! request is retried every 30 s, and dropped and counted after six minutes.

use std::{collections::BTreeMap, time::Duration};

use jiff::{SignedDuration, Timestamp};

use super::event::{Event, Reason};

/// Silence that ends a series: a later occurrence starts a new one, as in client-go.
/// Source: `finishTime` in `k8s.io/client-go/tools/events/event_broadcaster.go`.
const SERIES_ENDS: Duration = Duration::from_mins(6);
/// Time between two count updates of one series.
const COUNT_EVERY: Duration = Duration::from_mins(1);
/// Most requests for a reason at once.
const BURST: u32 = 10;
/// Time in which an allowance regains one request: in the long run all reasons together cause less than one
/// request a second.
const REGAIN: Duration = Duration::from_secs(30);
/// Wait after a failed request.
const RETRY: Duration = Duration::from_secs(30);
/// Most series of one reason at once, sent or not: more than its allowance can send before they end.
const MAX_SERIES: usize = 32;

/// All series that have not ended.
#[derive(Clone, Debug, Default)]
pub struct EventAggregator {
    series: BTreeMap<Topic, Series>,
    allowances: BTreeMap<Reason, Allowance>,
    retry_at: Option<Timestamp>,
    born: u64,
    dropped: u64,
}

/// The identity of a series.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Topic {
    reason: Reason,
    issuer: String,
    subject: String,
}

impl Topic {
    fn of(notice: &Event) -> Self {
        Self { reason: notice.reason, issuer: notice.issuer.clone(), subject: notice.subject.clone() }
    }
}

#[derive(Clone, Debug)]
struct Series {
    number: u64,
    /// The first occurrence: the note of an Event cannot be changed later.
    notice: Event,
    first: Timestamp,
    last: Timestamp,
    count: u32,
    told: Option<Sent>,
}

#[derive(Clone, Copy, Debug)]
struct Sent {
    count: u32,
    at: Timestamp,
}

impl Series {
    /// Number of occurrences that were not sent.
    fn unsent(&self) -> u32 {
        self.count - self.told.map_or(0, |told| told.count)
    }

    /// When the series may be sent next, without regard to allowance and retries.
    fn due(&self) -> Timestamp {
        self.told.map_or(self.first, |told| told.at + COUNT_EVERY)
    }
}

/// A request to send now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventUpdate {
    /// Unique among the Events of a process.
    pub number: u64,
    pub notice: Event,
    pub first: Timestamp,
    pub last: Timestamp,
    /// Number of occurrences.
    pub count: u32,
    /// Whether the Event must be created; otherwise its count has grown.
    pub is_new: bool,
}

/// What to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    Send(EventUpdate),
    /// Nothing before that time, unless another event is recorded.
    Wait(Timestamp),
    /// Nothing until an event is recorded.
    Rest,
}

/// The outcome of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SendOutcome {
    Sent,
    /// The Event of the series has expired: Kubernetes keeps one for an hour.
    Gone,
    /// It is rejected permanently.
    Refused,
    /// It may succeed later.
    Failed,
}

impl EventAggregator {
    /// Records an event.
    pub fn record(&mut self, notice: Event, now: Timestamp) {
        self.end_series(now);
        let topic = Topic::of(&notice);
        if let Some(series) = self.series.get_mut(&topic) {
            series.count = series.count.saturating_add(1);
            series.last = now;
        } else if self.of(topic.reason).count() < MAX_SERIES || self.forget_one(topic.reason) {
            let number = self.next_number();
            self.series.insert(topic, Series { number, notice, first: now, last: now, count: 1, told: None });
        } else {
            self.dropped += 1;
        }
    }

    /// The next request. Idempotent.
    pub fn next(&mut self, now: Timestamp) -> Next {
        self.end_series(now);
        let ready = |series: &Series| {
            let allowance = self.allowances.get(&series.notice.reason);
            let allowed = allowance.map_or(now, |allowance| allowance.ready(now));
            series.due().max(allowed).max(self.retry_at.unwrap_or(now)).max(now)
        };
        let untold = self.series.values().filter(|series| series.unsent() > 0);
        // Series that were never sent go before counts.
        match untold
            .map(|series| (ready(series), series))
            .min_by_key(|(at, series)| (*at, series.told.is_some(), series.number))
        {
            None => Next::Rest,
            Some((at, _)) if at > now => Next::Wait(at),
            Some((_, series)) => Next::Send(EventUpdate {
                number: series.number,
                notice: series.notice.clone(),
                first: series.first,
                last: series.last,
                count: series.count,
                is_new: series.told.is_none(),
            }),
        }
    }

    /// Records the outcome of a request.
    pub fn after(&mut self, bulletin: &EventUpdate, outcome: SendOutcome, now: Timestamp) {
        let reason = bulletin.notice.reason;
        self.allowances.entry(reason).or_insert_with(|| Allowance::full(now)).spend(now);
        self.retry_at = (outcome == SendOutcome::Failed).then_some(now + RETRY);
        let number = self.next_number();
        let topic = Topic::of(&bulletin.notice);
        // The series may have ended during the request.
        let Some(series) = self.series.get_mut(&topic).filter(|series| series.number == bulletin.number)
        else {
            return;
        };
        match outcome {
            SendOutcome::Sent => series.told = Some(Sent { count: bulletin.count, at: now }),
            SendOutcome::Gone => {
                series.count = series.unsent();
                *series = Series { number, told: None, first: series.last, ..series.clone() };
            }
            SendOutcome::Refused => {
                self.dropped += u64::from(series.unsent());
                self.series.remove(&topic);
            }
            SendOutcome::Failed => {}
        }
    }

    /// Number of occurrences that will never be sent.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    fn end_series(&mut self, now: Timestamp) {
        let dropped = &mut self.dropped;
        self.series.retain(|_, series| {
            let lasts = now.duration_since(series.last) < signed(SERIES_ENDS);
            if !lasts {
                *dropped += u64::from(series.unsent());
            }
            lasts
        });
    }

    fn of(&self, reason: Reason) -> impl Iterator<Item = (&Topic, &Series)> {
        self.series.iter().filter(move |(topic, _)| topic.reason == reason)
    }

    /// Removes the series that was quiet for longest and has nothing left to send.
    fn forget_one(&mut self, reason: Reason) -> bool {
        let quiet = self.of(reason).filter(|(_, series)| series.unsent() == 0);
        let Some(topic) = quiet.min_by_key(|(_, series)| series.last).map(|(topic, _)| topic.clone()) else {
            return false;
        };
        self.series.remove(&topic).is_some()
    }

    fn next_number(&mut self) -> u64 {
        self.born += 1;
        self.born
    }
}

/// The allowance of a reason: a token bucket.
#[derive(Clone, Copy, Debug)]
struct Allowance {
    /// When the bucket is, or was, full. One request moves it by [`REGAIN`].
    full_at: Timestamp,
}

impl Allowance {
    fn full(now: Timestamp) -> Self {
        Self { full_at: now }
    }

    /// When one request may be made, if none is made before.
    fn ready(self, now: Timestamp) -> Timestamp {
        (self.full_at - REGAIN * (BURST - 1)).max(now)
    }

    fn spend(&mut self, now: Timestamp) {
        self.full_at = self.full_at.max(now) + REGAIN;
    }
}

fn signed(duration: Duration) -> SignedDuration {
    SignedDuration::try_from(duration).expect("some minutes")
}

#[cfg(test)]
mod tests;
