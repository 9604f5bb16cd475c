use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::core::events::event::Reason;

const START: Timestamp = Timestamp::UNIX_EPOCH;
const SECOND: Duration = Duration::from_secs(1);

fn event(reason: Reason, subject: usize) -> Event {
    Event::new(reason, "https://oidc.example", &subject.to_string(), "it happened")
}

/// The Events that Kubernetes holds, and the requests that it received.
#[derive(Default)]
struct Cluster {
    /// By number: its subject, and the number of occurrences.
    events: BTreeMap<u64, ((Reason, String), u64)>,
    requests: Vec<(Reason, Timestamp)>,
}

impl Cluster {
    /// Sends everything that may be sent now; Kubernetes answers with `outcome`.
    fn send_all(&mut self, queue: &mut EventAggregator, outcome: SendOutcome, now: Timestamp) {
        while let Some(series) = due(queue, now) {
            assert_eq!(due(queue, now), Some(series.clone()), "asking twice is not harmless");
            let reason = series.event.reason;
            self.requests.push((reason, now));
            assert!(series.first <= series.last && series.last <= now && series.count > 0);
            if outcome == SendOutcome::Sent {
                let topic = (reason, series.event.subject.clone());
                let before = self.events.insert(series.number, (topic, series.count.into()));
                assert_eq!(before.is_none(), series.is_new());
                assert!(before.is_none_or(|(_, count)| count < series.count.into()));
            }
            queue.after(&series, outcome, now);
        }
    }

    fn counts(&self) -> Vec<u64> {
        self.events.values().map(|(_, count)| *count).collect()
    }
}

/// The series that may be sent now.
fn due(queue: &mut EventAggregator, now: Timestamp) -> Option<Series> {
    queue.next(now).filter(|(at, _)| *at == now).map(|(_, series)| series.clone())
}

#[test]
fn a_thousand_flaps_are_two_events_with_a_count() {
    let (mut queue, mut cluster, mut now) = (EventAggregator::default(), Cluster::default(), START);
    for flap in 0..1000 {
        let reason = [Reason::SourceFailed, Reason::SourceRecovered][flap % 2];
        queue.record(event(reason, 0), now);
        cluster.send_all(&mut queue, SendOutcome::Sent, now);
        now += SECOND;
    }
    cluster.send_all(&mut queue, SendOutcome::Sent, now + COUNT_EVERY);
    assert_eq!(cluster.counts(), [500, 500]);
    assert!(cluster.requests.len() <= 2 * (2 + 1000 / 60), "{}", cluster.requests.len());
    assert_eq!(queue.next(now + COUNT_EVERY), None);
}

#[test]
fn what_happens_after_a_silence_is_a_new_series() {
    let (mut queue, mut cluster) = (EventAggregator::default(), Cluster::default());
    for time in [START, START + SERIES_ENDS, START + SERIES_ENDS * 2 - SECOND] {
        queue.record(event(Reason::KeyAppeared, 0), time);
        cluster.send_all(&mut queue, SendOutcome::Sent, time + COUNT_EVERY);
    }
    assert_eq!(cluster.counts(), [1, 2]);
}

#[test]
fn ten_thousand_failing_targets_do_not_crowd_out_the_one_key() {
    let (mut queue, mut cluster) = (EventAggregator::default(), Cluster::default());
    let sent = |cluster: &Cluster| {
        let of = |reason| cluster.requests.iter().filter(|(sent, _)| *sent == reason).count();
        [of(Reason::TargetFailed), of(Reason::SigningKeyNotPublic), of(Reason::KeyRevoked)]
    };
    for target in 0..10_000 {
        queue.record(event(Reason::TargetFailed, target), START);
    }
    queue.record(event(Reason::SigningKeyNotPublic, 0), START);
    cluster.send_all(&mut queue, SendOutcome::Sent, START);
    assert_eq!(sent(&cluster), [24, 1, 0]);
    assert_eq!(queue.totals(), Totals { sent: 25, failed: 0, dropped: 10_000 - 32 });
    assert_eq!(queue.next(START).map(|(at, _)| at), Some(START + REGAIN));

    queue.record(event(Reason::KeyRevoked, 0), START);
    cluster.send_all(&mut queue, SendOutcome::Sent, START + REGAIN);
    assert_eq!(sent(&cluster), [24, 1, 1], "it does not wait for the targets");
}

#[test]
fn what_fails_is_tried_again_and_dropped_in_the_end() {
    let (mut queue, mut now) = (EventAggregator::default(), START);
    queue.record(event(Reason::TargetFailed, 0), START);
    let mut requests = 0;
    while let Some((at, series)) = queue.next(now).map(|(at, series)| (at, series.clone())) {
        if at > now {
            now = at;
            continue;
        }
        requests += 1;
        queue.after(&series, SendOutcome::Failed, now);
    }
    assert_eq!((requests, now), (12, START + SERIES_ENDS));
    assert_eq!(queue.totals(), Totals { sent: 0, failed: 12, dropped: 1 });
}

#[derive(Clone, Debug)]
enum Op {
    Record(Reason, usize),
    Pass(Duration),
    Answer(SendOutcome),
}

fn op() -> impl Strategy<Value = Op> {
    let reason =
        prop::sample::select(&[Reason::TargetFailed, Reason::KeyAppeared, Reason::AlarmResolved][..]);
    let outcomes = [SendOutcome::Sent, SendOutcome::Sent, SendOutcome::Refused, SendOutcome::Failed];
    prop_oneof![
        6 => (reason, 0..40_usize).prop_map(|(reason, subject)| Op::Record(reason, subject % 7 * (subject % 6))),
        2 => (0..20_u64).prop_map(|seconds| Op::Pass(Duration::from_secs(seconds))),
        1 => (0..500_u64).prop_map(|seconds| Op::Pass(Duration::from_secs(seconds))),
        1 => prop::sample::select(outcomes.to_vec()).prop_map(Op::Answer),
    ]
}

proptest! {
    #[test]
    fn every_event_is_sent_counted_or_dropped_and_requests_keep_to_the_limit(
        ops in prop::collection::vec(op(), 1..400),
    ) {
        let (mut queue, mut cluster, mut now) = (EventAggregator::default(), Cluster::default(), START);
        let (mut recorded, mut answer) = (0, SendOutcome::Sent);
        for op in ops {
            match op {
                Op::Record(reason, subject) => {
                    queue.record(event(reason, subject), now);
                    recorded += 1;
                }
                Op::Pass(time) => now += time,
                Op::Answer(other) => answer = other,
            }
            cluster.send_all(&mut queue, answer, now);
            let unsent: u64 = queue.series.iter().map(|series| u64::from(series.unsent())).sum();
            let sent: u64 = cluster.counts().into_iter().sum();
            prop_assert_eq!(recorded, sent + unsent + queue.totals().dropped);
            prop_assert!(queue.series.len() <= 3 * MAX_SERIES);
        }
        for (first, (_, from)) in cluster.requests.iter().enumerate() {
            for (more, (_, until)) in cluster.requests[first..].iter().enumerate() {
                let regained = u64::try_from(until.duration_since(*from).as_secs()).expect("later") / 10;
                prop_assert!(more as u64 <= u64::from(BURST) + regained, "{more} and one");
            }
        }
    }

    #[test]
    fn two_events_of_a_kind_are_two_series_that_do_not_touch(ops in prop::collection::vec(op(), 1..400)) {
        let (mut queue, mut now) = (EventAggregator::default(), START);
        // By topic: the number of its last Event, and the time of its last occurrence.
        let mut sent: BTreeMap<(Reason, String), (u64, Timestamp)> = BTreeMap::new();
        for op in ops {
            match op {
                Op::Record(reason, subject) => queue.record(event(reason, subject), now),
                Op::Pass(time) => now += time,
                Op::Answer(_) => {}
            }
            while let Some(series) = due(&mut queue, now) {
                let topic = (series.event.reason, series.event.subject.clone());
                let before = sent.insert(topic, (series.number, series.last));
                match before {
                    Some((number, last)) if series.is_new() => {
                        prop_assert!(series.number > number);
                        prop_assert!(series.first.duration_since(last) >= SERIES_ENDS);
                    }
                    other => prop_assert_eq!(other.map(|(number, _)| number), (!series.is_new()).then_some(series.number)),
                }
                queue.after(&series, SendOutcome::Sent, now);
            }
        }
    }
}
