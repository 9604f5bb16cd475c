use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

const START: Timestamp = Timestamp::UNIX_EPOCH;
const SECOND: Duration = Duration::from_secs(1);

fn notice(reason: Reason, subject: usize) -> Event {
    Event::new(reason, "https://oidc.example", &subject.to_string(), "it happened")
}

/// The Events that Kubernetes holds, and the requests that it received.
#[derive(Default)]
struct Cluster {
    /// By number: its subject, and the number of occurrences.
    events: BTreeMap<u64, ((Reason, String), u64)>,
    /// The occurrences of expired Events.
    forgotten: u64,
    requests: Vec<(Reason, Timestamp)>,
}

impl Cluster {
    /// Sends everything that may be sent now; Kubernetes answers with `answer`, if possible.
    fn tell_all(&mut self, bulletins: &mut EventAggregator, answer: SendOutcome, now: Timestamp) {
        while let Next::Send(bulletin) = bulletins.next(now) {
            assert_eq!(bulletins.next(now), Next::Send(bulletin.clone()), "asking twice is not harmless");
            let outcome =
                if bulletin.is_new && answer == SendOutcome::Gone { SendOutcome::Sent } else { answer };
            self.requests.push((bulletin.notice.reason, now));
            assert!(bulletin.first <= bulletin.last && bulletin.last <= now && bulletin.count > 0);
            match outcome {
                SendOutcome::Sent => {
                    let topic = (bulletin.notice.reason, bulletin.notice.subject.clone());
                    let before = self.events.insert(bulletin.number, (topic, bulletin.count.into()));
                    assert_eq!(before.is_none(), bulletin.is_new);
                    assert!(before.is_none_or(|(_, count)| count < bulletin.count.into()));
                }
                SendOutcome::Gone => {
                    let (_, count) = self.events.remove(&bulletin.number).expect("it was made before");
                    self.forgotten += count;
                }
                SendOutcome::Refused | SendOutcome::Failed => {}
            }
            bulletins.after(&bulletin, outcome, now);
        }
    }

    fn told(&self) -> u64 {
        self.forgotten + self.events.values().map(|(_, count)| count).sum::<u64>()
    }
}

#[test]
fn a_thousand_flaps_are_two_events_with_a_count() {
    let (mut bulletins, mut cluster, mut now) = (EventAggregator::default(), Cluster::default(), START);
    for flap in 0..1000 {
        let reason = [Reason::SourceFailed, Reason::SourceRecovered][flap % 2];
        bulletins.record(notice(reason, 0), now);
        cluster.tell_all(&mut bulletins, SendOutcome::Sent, now);
        now += SECOND;
    }
    cluster.tell_all(&mut bulletins, SendOutcome::Sent, now + COUNT_EVERY);
    let counts: Vec<u64> = cluster.events.values().map(|(_, count)| *count).collect();
    assert_eq!(counts, [500, 500]);
    assert!(cluster.requests.len() <= 2 * (2 + 1000 / 60), "{}", cluster.requests.len());
    assert_eq!(bulletins.next(now + COUNT_EVERY), Next::Rest);
}

#[test]
fn what_happens_after_a_silence_is_told_as_something_new() {
    let (mut bulletins, mut cluster) = (EventAggregator::default(), Cluster::default());
    for time in [START, START + SERIES_ENDS, START + SERIES_ENDS * 2 - SECOND] {
        bulletins.record(notice(Reason::KeyAppeared, 0), time);
        cluster.tell_all(&mut bulletins, SendOutcome::Sent, time + COUNT_EVERY);
    }
    let counts: Vec<u64> = cluster.events.values().map(|(_, count)| *count).collect();
    assert_eq!(counts, [1, 2]);
}

#[test]
fn ten_thousand_failing_targets_do_not_drown_the_one_key() {
    let (mut bulletins, mut cluster) = (EventAggregator::default(), Cluster::default());
    for target in 0..10_000 {
        bulletins.record(notice(Reason::TargetFailed, target), START);
    }
    bulletins.record(notice(Reason::SigningKeyNotPublic, 0), START);
    cluster.tell_all(&mut bulletins, SendOutcome::Sent, START);
    let of = |reason| cluster.requests.iter().filter(|(asked, _)| *asked == reason).count();
    assert_eq!((of(Reason::TargetFailed), of(Reason::SigningKeyNotPublic)), (10, 1));
    assert_eq!(bulletins.dropped(), 10_000 - 32);
    assert_eq!(bulletins.next(START), Next::Wait(START + REGAIN));
}

#[test]
fn what_fails_is_tried_again_and_dropped_in_the_end() {
    let mut bulletins = EventAggregator::default();
    bulletins.record(notice(Reason::TargetFailed, 0), START);
    let mut now = START;
    let mut attempts = 0;
    loop {
        match bulletins.next(now) {
            Next::Send(bulletin) => bulletins.after(&bulletin, SendOutcome::Failed, now),
            Next::Wait(until) => now = until,
            Next::Rest => break,
        }
        attempts += 1;
        assert!(attempts < 100, "for ever");
    }
    assert_eq!((bulletins.dropped(), now), (1, START + SERIES_ENDS));
}

#[derive(Clone, Debug)]
enum Op {
    Hear(Reason, usize),
    Pass(Duration),
    Answer(SendOutcome),
}

fn op() -> impl Strategy<Value = Op> {
    let reason =
        prop::sample::select(&[Reason::TargetFailed, Reason::KeyAppeared, Reason::AlarmResolved][..]);
    let outcomes =
        [SendOutcome::Sent, SendOutcome::Sent, SendOutcome::Gone, SendOutcome::Refused, SendOutcome::Failed];
    prop_oneof![
        6 => (reason, 0..40_usize).prop_map(|(reason, subject)| Op::Hear(reason, subject % 7 * (subject % 6))),
        2 => (0..20_u64).prop_map(|seconds| Op::Pass(Duration::from_secs(seconds))),
        1 => (0..500_u64).prop_map(|seconds| Op::Pass(Duration::from_secs(seconds))),
        1 => prop::sample::select(outcomes.to_vec()).prop_map(Op::Answer),
    ]
}

proptest! {
    #[test]
    fn every_notice_is_told_counted_or_dropped_and_no_reason_exceeds_its_allowance(
        ops in prop::collection::vec(op(), 1..400),
    ) {
        let (mut bulletins, mut cluster, mut now) = (EventAggregator::default(), Cluster::default(), START);
        let (mut heard, mut answer) = (0, SendOutcome::Sent);
        for op in ops {
            match op {
                Op::Hear(reason, subject) => {
                    bulletins.record(notice(reason, subject), now);
                    heard += 1;
                }
                Op::Pass(time) => now += time,
                Op::Answer(other) => answer = other,
            }
            cluster.tell_all(&mut bulletins, answer, now);
            let untold: u64 = bulletins.series.values().map(|series| u64::from(series.unsent())).sum();
            prop_assert_eq!(heard, cluster.told() + untold + bulletins.dropped());
            prop_assert!(bulletins.of(Reason::TargetFailed).count() <= MAX_SERIES);
        }
        for reason in [Reason::TargetFailed, Reason::KeyAppeared, Reason::AlarmResolved] {
            let times: Vec<_> = cluster.requests.iter().filter(|(of, _)| *of == reason).collect();
            for (first, (_, from)) in times.iter().enumerate() {
                for (more, (_, until)) in times[first..].iter().enumerate() {
                    let regained = u64::try_from(until.duration_since(*from).as_secs()).expect("later") / 30;
                    prop_assert!(more as u64 <= u64::from(BURST) + regained, "{reason:?}: {more} and one");
                }
            }
        }
    }

    #[test]
    fn two_events_of_a_kind_are_two_series_that_do_not_touch(ops in prop::collection::vec(op(), 1..400)) {
        let (mut bulletins, mut now) = (EventAggregator::default(), START);
        // By topic: the number of its last Event, and the time of its last occurrence.
        let mut told: BTreeMap<(Reason, String), (u64, Timestamp)> = BTreeMap::new();
        for op in ops {
            match op {
                Op::Hear(reason, subject) => bulletins.record(notice(reason, subject), now),
                Op::Pass(time) => now += time,
                Op::Answer(_) => {}
            }
            while let Next::Send(bulletin) = bulletins.next(now) {
                let topic = (bulletin.notice.reason, bulletin.notice.subject.clone());
                let before = told.insert(topic, (bulletin.number, bulletin.last));
                match before {
                    Some((number, last)) if bulletin.is_new => {
                        prop_assert!(bulletin.number > number);
                        prop_assert!(bulletin.first.duration_since(last) >= signed(SERIES_ENDS));
                    }
                    other => prop_assert_eq!(other.map(|(number, _)| number), (!bulletin.is_new).then_some(bulletin.number)),
                }
                bulletins.after(&bulletin, SendOutcome::Sent, now);
            }
        }
    }
}
