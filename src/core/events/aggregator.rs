//! Decides which Kubernetes Events are sent, so that a flood becomes a trickle: etcd keeps each for an hour.
//!
//! Reason, issuer and subject make a series. Its first occurrence is sent at once, its count once a minute, and six minutes
//! of silence end it, as in client-go. Each reason has an allowance of ten requests and regains one in 30 s, so a thousand
//! failing targets do not crowd out the Event about a key. What cannot be sent is tried again every 30 s, and dropped and
//! counted after six minutes.

use std::{collections::BTreeMap, time::Duration};

use jiff::{SignedDuration, Timestamp};

use super::event::{Event, Reason};

/// Silence that ends a series: what happens later is told as something new. As client-go has it.
/// Source: `finishTime` in `k8s.io/client-go/tools/events/event_broadcaster.go`.
const SERIES_ENDS: Duration = Duration::from_mins(6);
/// Time between two words about the count of one series.
const COUNT_EVERY: Duration = Duration::from_mins(1);
/// How many requests a reason may cause at once.
const BURST: u32 = 10;
/// Time in which an allowance regains one request: all reasons together cause less than one request a
/// second for long.
const REGAIN: Duration = Duration::from_secs(30);
/// Time until another attempt after one that failed.
const RETRY: Duration = Duration::from_secs(30);
/// Most series of one reason at once, told or not: more than its allowance lets be told before they end.
const MAX_SERIES: usize = 32;

/// All that was heard of and is not over.
#[derive(Clone, Debug, Default)]
pub struct EventAggregator {
    series: BTreeMap<Topic, Series>,
    allowances: BTreeMap<Reason, Allowance>,
    retry_at: Option<Timestamp>,
    born: u64,
    dropped: u64,
}

/// What notices of one series have in common.
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
    /// The first of them: what an Event says cannot be changed later.
    notice: Event,
    first: Timestamp,
    last: Timestamp,
    count: u32,
    told: Option<Told>,
}

#[derive(Clone, Copy, Debug)]
struct Told {
    count: u32,
    at: Timestamp,
}

impl Series {
    /// How many of the notices nobody was told of.
    fn untold(&self) -> u32 {
        self.count - self.told.map_or(0, |told| told.count)
    }

    /// Since when it may be told, as far as the series itself goes.
    fn due(&self) -> Timestamp {
        self.told.map_or(self.first, |told| told.at + COUNT_EVERY)
    }
}

/// What is to be told now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventUpdate {
    /// Different for every Event of a process.
    pub number: u64,
    pub notice: Event,
    pub first: Timestamp,
    pub last: Timestamp,
    /// How many notices it stands for.
    pub count: u32,
    /// Whether the Event has yet to be made; otherwise its count has grown.
    pub is_new: bool,
}

/// What to do now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    Tell(EventUpdate),
    /// Nothing before that time, unless something else happens.
    Wait(Timestamp),
    /// Nothing until something happens.
    Rest,
}

/// What became of an attempt to tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SendOutcome {
    Told,
    /// The Event of the series is not there any more: Kubernetes keeps one for an hour.
    Gone,
    /// It will never be taken.
    Refused,
    /// It may be taken later.
    Failed,
}

impl EventAggregator {
    /// Takes in what happened.
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

    /// What to tell now. Asking twice gives the same.
    pub fn next(&mut self, now: Timestamp) -> Next {
        self.end_series(now);
        let ready = |series: &Series| {
            let allowance = self.allowances.get(&series.notice.reason);
            let allowed = allowance.map_or(now, |allowance| allowance.ready(now));
            series.due().max(allowed).max(self.retry_at.unwrap_or(now)).max(now)
        };
        let untold = self.series.values().filter(|series| series.untold() > 0);
        // What has not been told at all goes before counts.
        match untold
            .map(|series| (ready(series), series))
            .min_by_key(|(at, series)| (*at, series.told.is_some(), series.number))
        {
            None => Next::Rest,
            Some((at, _)) if at > now => Next::Wait(at),
            Some((_, series)) => Next::Tell(EventUpdate {
                number: series.number,
                notice: series.notice.clone(),
                first: series.first,
                last: series.last,
                count: series.count,
                is_new: series.told.is_none(),
            }),
        }
    }

    /// Takes in what became of a bulletin.
    pub fn after(&mut self, bulletin: &EventUpdate, outcome: SendOutcome, now: Timestamp) {
        let reason = bulletin.notice.reason;
        self.allowances.entry(reason).or_insert_with(|| Allowance::full(now)).spend(now);
        self.retry_at = (outcome == SendOutcome::Failed).then_some(now + RETRY);
        let number = self.next_number();
        let topic = Topic::of(&bulletin.notice);
        // It may have ended while it was told.
        let Some(series) = self.series.get_mut(&topic).filter(|series| series.number == bulletin.number)
        else {
            return;
        };
        match outcome {
            SendOutcome::Told => series.told = Some(Told { count: bulletin.count, at: now }),
            SendOutcome::Gone => {
                series.count = series.untold();
                *series = Series { number, told: None, first: series.last, ..series.clone() };
            }
            SendOutcome::Refused => {
                self.dropped += u64::from(series.untold());
                self.series.remove(&topic);
            }
            SendOutcome::Failed => {}
        }
    }

    /// How many notices nobody will ever be told of.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Forgets the series that are over.
    fn end_series(&mut self, now: Timestamp) {
        let dropped = &mut self.dropped;
        self.series.retain(|_, series| {
            let lasts = now.duration_since(series.last) < signed(SERIES_ENDS);
            if !lasts {
                *dropped += u64::from(series.untold());
            }
            lasts
        });
    }

    fn of(&self, reason: Reason) -> impl Iterator<Item = (&Topic, &Series)> {
        self.series.iter().filter(move |(topic, _)| topic.reason == reason)
    }

    /// Forgets the series that was quiet for longest and has nothing left to tell.
    fn forget_one(&mut self, reason: Reason) -> bool {
        let quiet = self.of(reason).filter(|(_, series)| series.untold() == 0);
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

/// How many requests a reason may cause: a bucket that fills slowly.
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
