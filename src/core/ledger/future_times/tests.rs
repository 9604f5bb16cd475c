use std::{collections::BTreeSet, sync::Arc};

use proptest::prelude::*;

use super::*;
use crate::core::{
    ledger::{
        KeyOwner, Order, OrderReason, StoredLedger, TargetObservation,
        merge::{SourceAnswer, SourceReport, merge},
    },
    signer::announcement::Stage,
    tests::{at, kid, known, node, retention, rsa_key},
};

const YEARS: i64 = 40_000_000;

/// In seconds.
fn wait() -> i64 {
    i64::try_from(retention().wait().as_secs()).expect("small")
}

fn passed(ledger: &Ledger, now: i64) -> Ledger {
    ledger.without_times_ahead(at(now), &retention())
}

/// A ledger in which every kind of time was recorded at `now`.
fn recorded(now: i64) -> Ledger {
    let mut ledger = known(&[], &[0, 1, 2].map(rsa_key));
    let keys = [rsa_key(0), rsa_key(1)].to_vec();
    let report = SourceReport { source: "a".to_owned(), answer: SourceAnswer::Keys(keys) };
    ledger = ledger.observe(&merge(&ledger, [&report]), at(now), &retention()).ledger;
    ledger = ledger.observe_target(
        "eu",
        &TargetObservation::of_own_listener(BTreeSet::from([kid(0), kid(1)])),
        Some(at(now)),
    );
    ledger = ledger.observe_unmanaged("eu", &[rsa_key(9)], at(now));
    for entry in ledger.keys.values_mut() {
        entry.first_seen = at(now);
        entry.signer = Some(KeyOwner { node: node("a"), stage: Stage::Standby { since: at(now) } });
    }
    ledger = ledger.order(&node("a"), &kid(0), OrderReason::First, at(now));
    ledger = ledger.start(BTreeSet::new(), &BTreeSet::new(), at(now)).expect("somebody signs");
    ledger.forgotten.insert(node("c"), at(now));
    ledger
}

fn times(ledger: &Ledger) -> Vec<Timestamp> {
    let mut times = Vec::new();
    ledger.clone().each_time(|time| times.push(*time));
    times
}

/// Without the times of the retention hold, which begins anew each time that future times are noticed.
fn waits(ledger: &Ledger) -> Vec<Timestamp> {
    times(&Ledger { retention_hold: None, ..ledger.clone() })
}

#[test]
fn times_that_are_still_to_come_count_from_when_that_was_noticed() {
    let ledger = recorded(YEARS);
    let noticed = passed(&ledger, 1000);
    assert_eq!(
        noticed.alarm(at(1000)).expect("it rings").split(';').next(),
        Some(
            "the ledger has times in the future, up to 1971-04-08T23:06:41Z, which now count as the present: \
             a clock was ahead when it was written, or this clock is behind"
        )
    );
    assert!(noticed.is_held(at(1000 + wait() - 1)), "nothing is removed or switched");
    assert_eq!(passed(&noticed, 1000 + wait() - 1), noticed, "it is told once");

    let dated = passed(&noticed, 1000 + wait());
    assert!(!dated.is_held(at(1000 + wait())));
    assert_eq!(dated.alarm(at(1000 + wait())), None);
    let ahead: Vec<_> = times(&dated).into_iter().filter(|time| *time > at(1000 + wait())).collect();
    assert_eq!(ahead, []);
    assert_eq!(dated.entries()[&kid(0)].shown["eu"], at(1000));
    assert_eq!(dated.entries()[&kid(2)].state, EntryState::Missing { since: at(1000) });
    let order = Order { sign: kid(0), at: at(1000), reason: OrderReason::First };
    assert_eq!(dated.orders()[&node("a")], order);
    assert_eq!(
        dated.rotation_request().map(|request| request.at),
        Some(at(1000 + wait())),
        "it is not done yet"
    );
    assert_eq!(passed(&dated, 1001 + wait()), dated, "once");
    // Another process that knew the ledger before accepts it.
    let found = StoredLedger::Ledger(Arc::new(dated.clone()));
    let other = noticed.reconcile(&found, at(1001 + wait()), retention().wait()).expect("of one lineage");
    assert!(times(&other).into_iter().all(|time| time <= at(1001 + wait())), "{other:#?}");
    assert_eq!(other.incidents().len(), dated.incidents().len(), "nobody edited it");
}

/// As after a start without a battery-backed clock, until the time is synchronised.
#[test]
fn a_clock_that_was_behind_for_a_while_loses_no_time() {
    let ledger = recorded(YEARS);
    let noticed = passed(&ledger, 1000);
    let put_right = passed(&noticed, YEARS + 10);
    assert_eq!(put_right.ahead_since, None);
    let recorded = |ledger: &Ledger| {
        (ledger.entries().clone(), ledger.orders().clone(), ledger.rotation_request().cloned())
    };
    assert_eq!(recorded(&put_right), recorded(&ledger));
    // What is noticed again counts anew.
    let again = passed(&put_right, 2 * wait());
    assert_eq!(again.ahead_since, Some(at(2 * wait())));
    assert_eq!(recorded(&passed(&again, 3 * wait() - 1)), recorded(&ledger));
}

/// Otherwise all of them would be over at once.
#[test]
fn whoever_writes_the_ledger_cannot_say_that_it_was_noticed_long_ago() {
    let ledger = recorded(YEARS);
    let noticed = passed(&ledger, 100_000);
    let mut forged = noticed.clone();
    forged.ahead_since = Some(at(0));
    forged.advance();
    let forged = StoredLedger::Ledger(Arc::new(forged));
    for (known, since) in [(&ledger, 100_010), (&noticed, 100_000)] {
        let read = known.reconcile(&forged, at(100_010), retention().wait()).expect("of one lineage");
        assert_eq!(read.ahead_since, Some(at(since)));
        assert_eq!(times(&passed(&read, 100_010)), times(&read));
    }
}

#[test]
fn a_ledger_of_the_present_is_left_alone() {
    let ledger = recorded(1000);
    for now in [1000 - 299, 1000, YEARS] {
        assert_eq!(passed(&ledger, now), ledger, "at {now}");
    }
}

proptest! {
    /// Whatever the clock shows, and however often it is set: no time becomes earlier than it was, unless it
    /// was in the future, and none earlier than when that was noticed.
    #[test]
    fn no_wait_is_ever_shorter_than_by_a_clock_that_is_right(
        recorded_at in 0..YEARS,
        clocks in prop::collection::vec(0..YEARS, 1..12),
    ) {
        let mut ledger = recorded(recorded_at);
        for now in clocks {
            let (before, noticed) = (waits(&ledger), ledger.ahead_since);
            ledger = passed(&ledger, now);
            for (was, is) in before.into_iter().zip(waits(&ledger)) {
                let was_ahead = was > at(now) && noticed.is_some_and(|since| {
                    is >= since && at(now).duration_since(since) >= signed(retention().wait())
                });
                prop_assert!(is == was || was_ahead, "{was} became {is} at {now}");
            }
        }
    }

    /// A clock that continues from any time ends every wait, two retentions later.
    #[test]
    fn nothing_waits_for_a_time_that_is_far_away(recorded_at in 0..YEARS, now in 0..YEARS) {
        let mut ledger = recorded(recorded_at);
        for step in 0..3 {
            ledger = passed(&ledger, now + step * wait());
        }
        let end = at(now + 2 * wait() + 300);
        prop_assert!(times(&ledger).into_iter().all(|time| time <= end));
        prop_assert!(!ledger.is_held(end));
    }
}
