//! The operator's commands: forget, revoke, abort.

use super::*;

#[test]
fn a_node_that_falls_silent_keeps_its_keys_until_the_operator_forgets_it() {
    let mut scene = Scene::settled();
    for now in [1, 100_000] {
        scene.announce(now, &[(2, "b", active(0))]);
    }
    assert!(scene.ledger.entries()[&kid(0)].is_public(), "it may still sign");
    let unknown = scene.ledger.forget(&node("c"), &owed(), at(100_000));
    assert_eq!(unknown, Err(RotationCommandError::UnknownNode { node: node("c") }));
    scene.ledger = scene.ledger.forget(&node("a"), &owed(), at(100_000)).expect("it is known");
    assert_eq!(scene.ledger.orders().get(&node("a")), None);
    // Its earlier statements are rejected.
    let before = &[(0, "a", active(0)), (1, "a", standby(0)), (2, "b", active(0))];
    scene.announce_as_of(100_000, 100_001, before);
    for (now, is_public) in [(100_069, true), (100_070, false)] {
        scene.announce(now, &[(2, "b", active(0))]);
        scene.announce(now, &[(2, "b", active(0))]);
        assert_eq!(scene.ledger.entries()[&kid(0)].is_public(), is_public, "at {now}");
    }
}

#[test]
fn a_node_that_was_forgotten_and_lives_is_heard_again() {
    let mut scene = Scene::settled();
    scene.ledger = scene.ledger.forget(&node("a"), &owed(), at(100)).expect("it is known");
    assert_eq!(scene.ledger.orders_for(&node("a")).forgotten, Some(at(100)), "it can learn of that");
    scene.announce_as_of(100, 101, &[(0, "a", active(0)), (1, "a", standby(0))]);
    assert!(scene.ledger.nodes().is_empty(), "what it said before does not count");
    scene.announce(101, &[(0, "a", active(0)), (1, "a", active(101))]);
    assert_eq!(scene.ledger.entries()[&kid(1)].signer.as_ref().map(|signer| signer.stage), Some(active(101)));
    assert_eq!(scene.ledger.orders_for(&node("a")).forgotten, None, "it was heard");
}

#[test]
fn a_node_that_goes_on_with_a_revoked_key_is_told_of_until_it_stops() {
    let mut scene = Scene::settled();
    scene.ledger = scene.ledger.revoke(&kid(0), at(200)).expect("it is known");
    let ring = |scene: &Scene| alarms(&scene.ledger, &scene.seen, at(201), &timing()).join("\n");
    let says = |scene: &Scene| {
        let report = rotation_status(&scene.ledger, &scene.seen, at(201), &scene.timing);
        report.nodes["a"].active_keys.clone()
    };
    let text = format!("node `a` still signs with revoked key `{}`", kid(0));
    scene.announce(201, &[(0, "a", active(0)), (1, "a", standby(0))]);
    assert!(ring(&scene).contains(&text), "{}", ring(&scene));
    assert_eq!(says(&scene), [kid(0).as_str()]);
    scene.announce(202, &[(1, "a", active(202))]);
    assert!(!ring(&scene).contains("revoked"), "{}", ring(&scene));
    assert_eq!(says(&scene), [kid(1).as_str()]);
}

#[test]
fn an_order_that_a_node_has_dealt_with_otherwise_is_given_anew() {
    let mut scene = Scene::settled();
    scene.timing.rotate_after = None;
    // The node had a later order of a ledger that is lost since: for the key that it signs with.
    scene.ledger = scene.ledger.order(&node("a"), &kid(1), OrderReason::Age, at(100));
    scene.announce(200, &[(0, "a", active(0)), (1, "a", standby(0))]);
    assert_eq!(scene.step(201), order("a", 0, OrderReason::First));
}

#[test]
fn a_revoked_active_key_is_followed_by_its_standby_in_the_same_step() {
    let mut scene = Scene::settled();
    scene.ledger = scene.ledger.revoke(&kid(0), at(200)).expect("it is known");
    assert!(!scene.ledger.entries()[&kid(0)].is_public());
    assert_eq!(scene.step(200), order("a", 1, OrderReason::First));
    let revoked = BTreeSet::from([kid(0)]);
    let announced = scene.ledger.orders_for(&node("a")).announced;
    let none = DesiredState { revoked: revoked.clone(), announced, ..DesiredState::default() };
    assert_eq!(scene.ledger.orders_for(&node("a")), none, "the order for it is gone");
    scene.settle(200);
    let announced = scene.ledger.orders_for(&node("a")).announced;
    let orders =
        DesiredState { sign: Some(kid(1)), at: at(200), revoked, announced, ..DesiredState::default() };
    assert_eq!(scene.ledger.orders_for(&node("a")), orders);
    let again = scene.ledger.revoke(&kid(0), at(201));
    assert_eq!(again, Err(RotationCommandError::RevokedAlready { kid: kid(0) }));
    let unknown = scene.ledger.revoke(&kid(9), at(201));
    assert_eq!(unknown, Err(RotationCommandError::UnknownKey { kid: kid(9) }));
    assert!(scene.ledger.adopt(&kid(0), at(202)).is_err(), "it came back");
    scene.announce(203, &[(0, "a", active(0)), (1, "a", standby(0))]);
    assert!(!scene.ledger.entries()[&kid(0)].is_public(), "it came back");
}

#[test]
fn after_a_revocation_with_a_new_key_that_waits_for_the_places_alone() {
    let mut scene = Scene::settled();
    let refused = scene.ledger.revoke_for_a_new_key(&kid(1), at(200));
    assert_eq!(refused, Err(RotationCommandError::NotSigning { kid: kid(1) }));
    assert_eq!(
        scene.ledger.revoke_for_a_new_key(&kid(9), at(200)),
        Err(RotationCommandError::UnknownKey { kid: kid(9) })
    );
    scene.ledger = scene.ledger.revoke_for_a_new_key(&kid(0), at(200)).expect("it signs");
    scene.held_by("a", 200, &[BlockedReason::NoStandby]);
    // The standby is ready, and public.
    scene.announce(201, &[(1, "a", active(200)), (2, "a", standby(200))]);
    scene.held_by("a", 201, &[not_shown("eu"), not_shown("us")]);
    scene.show(202, &["eu"], &[1, 2]);
    scene.held_by("a", 202, &[not_shown("us")]);
    scene.show(203, &["us"], &[1, 2]);
    assert_eq!(scene.step(203), order("a", 2, OrderReason::Unseen));
    scene.settle(203);
    let ring = |scene: &Scene, now| alarms(&scene.ledger, &scene.seen, at(now), &timing()).join("\n");
    let told = ring(&scene, 204);
    assert!(
        told.contains("on the operator's request") && told.contains("until 1970-01-01T00:05:03Z at most"),
        "{told}"
    );
    scene.announce(205, &[(1, "a", retired(204, 260)), (2, "a", active(204)), (3, "a", standby(205))]);
    scene.show(206, &["eu", "us"], &[1, 2, 3]);
    assert!(ring(&scene, 302).contains("on the operator's request"));
    assert_eq!(ring(&scene, 303), "", "no copy without it is left");
    // The waiver counts once.
    scene.ledger = scene.ledger.start(BTreeSet::new(), &scene.seen.required_targets, at(207)).expect("asked");
    scene.held_by("a", 305, &[propagating("eu", 306), propagating("us", 306)]);
    assert_eq!(scene.step(306), order("a", 3, OrderReason::Asked));
}

#[test]
fn a_new_key_that_does_not_come_is_not_waited_for_once_that_is_taken_back() {
    let mut scene = Scene::settled();
    scene.ledger = scene.ledger.revoke_for_a_new_key(&kid(0), at(200)).expect("it signs");
    scene.held_by("a", 200, &[BlockedReason::NoStandby]);
    let (required_targets, propagation) = (scene.seen.required_targets.clone(), timing().propagation);
    scene.ledger = scene
        .ledger
        .abort(&required_targets, propagation, timing().margin, at(210))
        .expect("there is something to take back");
    assert_eq!(scene.step(210), order("a", 1, OrderReason::First));
}

#[test]
fn a_revocation_without_a_ready_standby_waits_for_it() {
    let mut scene = Scene::settled();
    scene.announce(100, &[(0, "a", active(0)), (2, "a", standby(100))]);
    scene.ledger = scene.ledger.revoke(&kid(1), at(100)).expect("it is known");
    scene.show(110, &["eu", "us"], &[0, 2]);
    scene.ledger = scene.ledger.revoke(&kid(0), at(120)).expect("it is known");
    scene.held_by("a", 209, &[propagating("eu", 210), propagating("us", 210)]);
    assert_eq!(scene.step(210), order("a", 2, OrderReason::First));
}

#[test]
fn an_abort_holds_whether_or_not_the_node_has_reported_the_order_that_it_takes_back() {
    let age = Duration::from_secs(100);
    for reported in [false, true] {
        let mut scene = Scene::settled();
        scene.timing.rotate_after = Some(age);
        scene.ledger = scene.ledger.order(&node("a"), &kid(1), OrderReason::Age, at(200));
        if reported {
            scene.announce(201, &[(0, "a", retired(200, 260)), (1, "a", active(200))]);
        }
        let required_targets = scene.seen.required_targets.clone();
        let aborted = scene.ledger.abort(&required_targets, timing().propagation, timing().margin, at(202));
        scene.ledger = aborted.expect("there is a way back");
        scene.settle(202);
        if reported {
            scene.announce(203, &[(0, "a", active(203)), (1, "a", retired(203, 260))]);
        }
        for now in [203, 301] {
            scene.settle(now);
            let order = &scene.ledger.orders()[&node("a")];
            assert_eq!(
                (&order.sign, order.reason),
                (&kid(0), OrderReason::Aborted),
                "at {now}, reported: {reported}"
            );
        }
    }
}

#[test]
fn nobody_goes_back_to_a_key_that_the_node_destroys() {
    let mut scene = Scene::settled();
    scene.ledger = scene.ledger.order(&node("a"), &kid(1), OrderReason::Asked, at(200));
    let unused = Stage::Retired { since: at(201), latest_exp: None };
    scene.announce(201, &[(0, "a", unused), (1, "a", active(201))]);
    let required_targets = scene.seen.required_targets.clone();
    let abort = |now| {
        scene.ledger.abort(&required_targets, timing().propagation, timing().margin, at(now)).map(|_| ())
    };
    let dead = 201 + i64::try_from(timing().margin.as_secs()).expect("small");
    assert_eq!(abort(dead - 1), Ok(()));
    let (node, kid) = (node("a"), kid(0));
    assert_eq!(abort(dead), Err(RotationCommandError::KeyDestroyed { node, kid }));
}

#[test]
fn abort_takes_back_a_wish_or_the_last_order() {
    let mut scene = Scene::settled();
    let required_targets = scene.seen.required_targets.clone();
    assert_eq!(
        scene.ledger.abort(&required_targets, timing().propagation, timing().margin, at(1)),
        Err(RotationCommandError::NothingToAbort)
    );
    let asked = scene.ledger.start(BTreeSet::new(), &required_targets, at(2)).expect("asked");
    let aborted =
        asked.abort(&required_targets, timing().propagation, timing().margin, at(3)).expect("taken back");
    assert_eq!((aborted.rotation_request(), aborted.orders()), (None, scene.ledger.orders()));

    scene.ledger = asked;
    scene.settle(500);
    scene.announce(510, &[(0, "a", retired(510, 550)), (1, "a", active(505)), (2, "a", standby(510))]);
    scene.settle(510);
    let before = scene.ledger.clone();
    scene.ledger = before
        .abort(&required_targets, timing().propagation, timing().margin, at(520))
        .expect("there is a way back");
    let order = &scene.ledger.orders()[&node("a")];
    assert_eq!((&order.sign, order.reason), (&kid(0), OrderReason::Aborted));
    // The aborted key is retired by its node and removed as any other.
    scene.announce(530, &[(0, "a", active(525)), (1, "a", retired(530, 560)), (2, "a", standby(510))]);
    assert_eq!(scene.settle(530), 0);
    assert_eq!(
        scene.ledger.abort(&required_targets, timing().propagation, timing().margin, at(531)),
        Err(RotationCommandError::NothingToAbort),
        "back and forth"
    );

    scene.ledger = before.clone();
    scene.show(519, &["us"], &[1, 2]);
    let error = scene
        .ledger
        .abort(&required_targets, timing().propagation, timing().margin, at(520))
        .expect_err("it is gone")
        .to_string();
    assert!(error.contains("`us` has not shown it without interruption since"), "{error}");
    // An earlier copy may lack it.
    scene.show(520, &["us"], &[0, 1, 2]);
    assert_eq!(
        scene
            .ledger
            .abort(&required_targets, timing().propagation, timing().margin, at(521))
            .expect_err("a gap")
            .to_string(),
        error
    );
    scene.ledger = before;
    scene.show(521, &["us"], &[0, 1, 2]);
    assert!(
        scene.ledger.abort(&required_targets, timing().propagation, timing().margin, at(521)).is_ok(),
        "it was there all the time"
    );
}

#[test]
fn a_key_that_was_ordered_stays_until_the_order_is_replaced() {
    let mut scene = Scene::settled();
    scene.ledger = scene.ledger.start(BTreeSet::new(), &scene.seen.required_targets, at(500)).expect("asked");
    scene.settle(500);
    let announced = [(0, "a", retired(510, 540)), (1, "a", active(505)), (2, "a", standby(510))];
    scene.announce(510, &announced);
    scene.show(510, &["eu", "us"], &[0, 1, 2]);
    scene.settle(510);
    // The rotation is aborted, and the node does not learn of it until the key is useless.
    scene.ledger = scene
        .ledger
        .abort(&scene.seen.required_targets, timing().propagation, timing().margin, at(520))
        .expect("there is a way back");
    for now in [550, 551] {
        scene.announce(now, &announced[1..]);
        assert!(scene.ledger.entries()[&kid(0)].is_public(), "its node may obey");
    }
    assert_eq!(scene.step(551), order("a", 1, OrderReason::First));
    assert_eq!(scene.settle(551), 1);
    scene.announce(552, &announced[1..]);
    assert!(!scene.ledger.entries()[&kid(0)].is_public());
}
