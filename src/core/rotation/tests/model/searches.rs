//! The searches: no promise breaks within these bounds, and each planted fault breaks one.

use super::{
    search::{Party, Scope, search},
    *,
};

/// One node and two targets; the third key is the standby after one rotation.
const ONE_NODE: Rules = Rules { nodes: 1, places: 2, keys: 3, api_servers: false, by_age: true, fault: None };
/// Two nodes and one target, and a rotation of each.
const TWO_NODES: Rules = Rules { nodes: 2, places: 1, keys: 6, ..ONE_NODE };

/// Every misfortune of one node, except for clocks.
fn misfortunes() -> Vec<Misfortune> {
    use Misfortune::{
        Backup, KillNode, KillPublisher, Lag, LoseJournal, LoseKey, Missing, Restore, Stale, Tamper,
        Unreadable,
    };
    vec![
        KillPublisher,
        KillNode(0),
        Unreadable,
        Stale(0),
        Missing(0),
        Tamper(0, Edit::Empty),
        Tamper(0, Edit::Without(1)),
        Tamper(0, Edit::Foreign),
        Backup,
        Restore { running: true },
        Restore { running: false },
        LoseKey(0),
        LoseKey(1),
        LoseJournal(0),
        Lag,
    ]
}

/// Bounds that fit into a normal test run.
fn scope(rules: Rules) -> Scope {
    Scope {
        rules,
        deviations: 1,
        late: None,
        misfortunes: Vec::new(),
        words: Vec::new(),
        ticks: 14,
        recoveries: 100,
    }
}

/// Searches, prints the size of the search, and fails with the events that broke a promise.
#[track_caller]
#[expect(clippy::print_stdout, reason = "how much was searched is to be seen")]
fn holds(scope: &Scope) {
    let searched = search(scope);
    println!(
        "{} states, {} of them after a removal, {} left to recover",
        searched.states, searched.removals, searched.recoveries
    );
    if let Some((broken, path)) = &searched.broken {
        let path: Vec<_> = path.iter().map(|event| format!("{event:?}")).collect();
        panic!("{broken:?} after\n{}", path.join("\n"));
    }
    assert!(searched.removals > 0, "no rotation came to its end");
}

#[test]
fn nothing_breaks_however_late_parties_are() {
    holds(&Scope { deviations: 2, ..scope(ONE_NODE) });
    holds(&scope(TWO_NODES));
    holds(&scope(Rules { api_servers: true, ..ONE_NODE }));
}

#[test]
fn nothing_breaks_whatever_goes_wrong_once() {
    let words = vec![Word::Start, Word::Abort, Word::Revoke(0), Word::Revoke(1), Word::RevokeAnew(0)];
    holds(&Scope { misfortunes: misfortunes(), words: words.clone(), ..scope(ONE_NODE) });
    let asked = Rules { api_servers: true, by_age: false, ..ONE_NODE };
    holds(&Scope { misfortunes: misfortunes(), words, ..scope(asked) });
}

#[test]
fn a_ledger_from_the_past_breaks_nothing() {
    use Misfortune::{Backup, Restore};
    let misfortunes = vec![Backup, Restore { running: true }, Restore { running: false }];
    holds(&Scope { deviations: 2, misfortunes, ..scope(ONE_NODE) });
}

#[test]
fn a_clock_that_is_set_back_and_forth_breaks_nothing() {
    holds(&Scope { deviations: 2, misfortunes: wrong_clocks(), ..scope(ONE_NODE) });
}

fn wrong_clocks() -> Vec<Misfortune> {
    [-3, 0, 3].map(Misfortune::WrongClock).into()
}

/// Checks trust only: such a writer can make tokens invalid.
#[test]
fn whoever_writes_the_ledger_gains_no_trust() {
    use Forgery::{Bury, Erase, List, Order};
    let orders = (0..3).map(|key| Order { node: 0, key });
    let other = Order { node: 0, key: FOREIGN };
    let forgeries = orders.chain([other, Bury(0), Bury(1), Erase(0), Erase(1), List]);
    let misfortunes = forgeries.map(Misfortune::Forge).collect();
    holds(&Scope { misfortunes, ..scope(ONE_NODE) });
}

/// A relying party that fetches again only for an unknown kid needs a key that no target has ever shown.
#[test]
fn after_a_revocation_with_a_new_key_one_signs_at_once_that_nobody_has_seen() {
    for rules in [ONE_NODE, TWO_NODES] {
        let mut world = World::new(Rules { keys: 20, by_age: false, ..rules });
        for _ in 0..6 {
            world.round().expect("nothing goes wrong");
        }
        let seen = |world: &World| {
            let views = world
                .places
                .iter()
                .flat_map(|place| place.copies.iter().map(|copy| copy.view).chain(place.view));
            views.fold(0, |all, view| all | view)
        };
        let (before, signing) = (seen(&world), world.signing());
        let revoked = each(signing & world.nodes[0].own).next().expect("it signs");
        world.take(Action::Operator(Word::RevokeAnew(revoked))).expect("nothing breaks");
        world.settle().expect("nothing breaks");
        assert!(world.is_settled(), "within the tick");
        let new = world.signing() & world.nodes[0].own;
        assert!(new != 0 && new & before == 0, "{new:b} {before:b}");
        assert_eq!(
            world.signing() & !world.nodes[0].own,
            signing & !world.nodes[0].own,
            "the other node goes on"
        );
        // From then on everything works as usual.
        world.check_recovery().expect("rotations go on");
    }
}

/// Searches for the promise that a planted fault breaks.
#[track_caller]
#[expect(clippy::print_stdout, reason = "how much was searched is to be seen")]
fn breaks(fault: Fault, expected: &[Broken], scope: &Scope) {
    let rules = Rules { fault: Some(fault), ..scope.rules };
    let searched = search(&Scope {
        rules,
        misfortunes: scope.misfortunes.clone(),
        words: scope.words.clone(),
        ..*scope
    });
    println!(
        "{fault:?}: {:?} after {} states",
        searched.broken.as_ref().map(|(broken, _)| broken),
        searched.states
    );
    let broken = searched.broken.map(|(broken, _)| broken);
    assert!(broken.is_some_and(|broken| expected.contains(&broken)), "{fault:?} breaks {broken:?}");
}

#[test]
fn a_wait_that_is_too_short_is_noticed() {
    let late = Scope { deviations: 2, ..scope(ONE_NODE) };
    let asked = Scope { words: vec![Word::Start], ..scope(ONE_NODE) };
    breaks(Fault::NoPropagationWait, &[Broken::OrderedTooEarly], &asked);
    breaks(Fault::WaitFromGeneration, &[Broken::OrderedTooEarly], &late);
    breaks(Fault::EarliestVisibility, &[Broken::OrderedTooEarly], &late);
    breaks(Fault::OneTargetCountsAsAll, &[Broken::OrderedTooEarly], &late);
    breaks(Fault::NoLifetimeWait, &[Broken::RemovedTooEarly], &late);
    let tampered = Scope { misfortunes: vec![Misfortune::Tamper(0, Edit::Empty)], ..scope(ONE_NODE) };
    breaks(Fault::GapIgnored, &[Broken::OrderedTooEarly], &tampered);
    let clocks = Scope { deviations: 2, misfortunes: wrong_clocks(), ..scope(ONE_NODE) };
    breaks(Fault::WrongClockTrusted, &[Broken::OrderedTooEarly], &clocks);
}

#[test]
fn a_key_that_ends_at_the_wrong_time_is_noticed() {
    let late = Scope { deviations: 2, ..scope(ONE_NODE) };
    let never = Broken::Stuck("a rotation that was asked for is not over");
    breaks(Fault::NeverRetire, &[never], &late);
    let slow = Scope { deviations: 4, late: Some(Party::Node(0)), ..scope(ONE_NODE) };
    breaks(Fault::RetireBeforeSwitch, &[Broken::RemovedTooEarly], &slow);
    let lagging = Rules { api_servers: true, ..ONE_NODE };
    let lagging = Scope { misfortunes: vec![Misfortune::Lag], ..scope(lagging) };
    breaks(Fault::TombstoneIgnored, &[Broken::Resurrected], &lagging);
    let restored = vec![Misfortune::Backup, Misfortune::Restore { running: true }];
    let restored = Scope { misfortunes: restored, deviations: 2, ..scope(ONE_NODE) };
    breaks(Fault::OlderLedgerWins, &[Broken::Shrunk, Broken::Resurrected], &restored);
}

#[test]
fn a_missing_standby_and_a_misplaced_trust_are_noticed() {
    let late = scope(ONE_NODE);
    breaks(Fault::NoStandby, &[Broken::Stuck("a rotation that was asked for is not over")], &late);
    let anew = Scope { words: vec![Word::RevokeAnew(0)], ..scope(ONE_NODE) };
    breaks(Fault::WaitOfNobody, &[Broken::OrderedTooEarly], &anew);
    let revoked = Scope { words: vec![Word::Revoke(0)], deviations: 2, ..scope(ONE_NODE) };
    breaks(Fault::RevokeWithoutStandby, &[Broken::OrderedTooEarly], &revoked);
    breaks(Fault::LedgerKeysFedToFetchKeys, &[Broken::Trust], &scope(TWO_NODES));
}
