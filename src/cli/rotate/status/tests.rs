use std::{collections::BTreeMap, time::Duration};

use super::*;
use crate::core::{
    jose::kid::Kid,
    ledger::{Order, OrderReason, RotationRequest},
    rotation::Phase,
};

const NOW: i64 = 1_763_712_000;

fn at(offset: i64) -> Timestamp {
    Timestamp::from_second(NOW + offset).expect("a time")
}

fn key(kid: &str, life: &[(&str, i64)], until: Option<i64>) -> KeyStatus {
    let (standing, since) = life.last().expect("it was born");
    KeyStatus {
        kid: kid.to_owned(),
        node: Some("cp-1".to_owned()),
        state: (*standing).to_owned(),
        first_seen: at(life[0].1),
        since: at(*since),
        timeline: life
            .iter()
            .map(|(name, since)| Phase { state: (*name).to_owned(), since: at(*since) })
            .collect(),
        until: until.map(at),
        shown: BTreeMap::new(),
    }
}

/// An hour of a rotation: one key retired, one active, one to follow.
fn rotating() -> RotationStatus {
    let order =
        Order { sign: Kid::parse("second-key").expect("a kid"), at: at(-1205), reason: OrderReason::Age };
    let node = NodeStatus {
        order: Some(order),
        active_keys: vec!["second-key".to_owned()],
        next: Some("third-key-with-a-long-name".to_owned()),
        due: Some(at(600)),
        blocked_by: vec!["a JWKS without it may be cached until 2025-11-21T08:05:00Z (eu)".to_owned()],
        not_before: Some(at(600)),
    };
    RotationStatus {
        issuer: "https://oidc.example.com/kind".to_owned(),
        at: at(0),
        nodes: [("cp-1".to_owned(), node)].into(),
        keys: vec![
            key(
                "zeroth-key",
                &[("standby", -9000), ("active", -8000), ("retired", -6000), ("removed", -3600)],
                None,
            ),
            key(
                "first-key",
                &[("standby", -3600), ("ready", -3000), ("active", -2800), ("retired", -1200)],
                Some(900),
            ),
            key("second-key", &[("standby", -2800), ("ready", -2200), ("active", -1200)], None),
            key("third-key-with-a-long-name", &[("standby", -1200)], None),
        ],
        unmanaged_keys: BTreeMap::new(),
        rotation_request: None,
    }
}

#[test]
fn a_rotation_is_a_time_line() {
    insta::assert_snapshot!(text(&rotating()));
}

#[test]
fn a_key_that_was_imported_and_signs_is_not_the_next_one() {
    let mut report = rotating();
    let node = report.nodes.get_mut("cp-1").expect("it is there");
    (node.order, node.next) = (None, Some("second-key".to_owned()));
    let told = text(&report);
    assert!(
        told.contains("  next: the publisher orders it to keep signing with that key\n    blocked: a JWKS"),
        "{told}"
    );
    assert!(!told.contains("next: second-key"), "{told}");
}

#[test]
fn what_the_operator_asked_for_is_seen_until_it_is_over() {
    let request = Some(RotationRequest { at: at(-60), without: ["us".to_owned()].into() });
    let told = text(&RotationStatus { rotation_request: request, ..rotating() });
    assert!(told.ends_with(
        "\nrotation requested at 2025-11-21T07:59:00Z\nwarning: the rotation does not wait for target `us`\n"
    ));
}

#[test]
fn an_issuer_without_keys_or_nodes_has_a_page_too() {
    let empty = RotationStatus { keys: Vec::new(), nodes: BTreeMap::new(), ..rotating() };
    assert!(text(&empty).ends_with("\nno key is known yet\n"));
    let observed = RotationStatus { nodes: BTreeMap::new(), ..rotating() };
    assert!(!text(&observed).contains("node cp-1\n"));
}

#[test]
fn it_is_said_what_a_revocation_breaks() {
    let report = rotating();
    let breaks = |kid: &str| what_breaks(&report, kid, false).expect("it is known");
    assert!(breaks("second-key").contains("no other key of its node is ready"), "{}", breaks("second-key"));
    assert!(breaks("second-key").contains("its unexpired tokens are refused"));
    assert!(breaks("first-key").contains("its unexpired tokens are refused"));
    assert!(breaks("third-key-with-a-long-name").contains("it has signed no token"));
    assert!(breaks("zeroth-key").contains("it is not published"));
    assert_eq!(what_breaks(&report, "unknown", false), None);
    let mut ready = rotating();
    ready.keys[3].state = "ready".to_owned();
    let breaks = what_breaks(&ready, "second-key", false).expect("it is known");
    assert!(breaks.contains("its node signs with the next key at once"), "{breaks}");
    assert!(
        breaks.contains("until they are restarted") && breaks.contains("--sign-with-new-key"),
        "{breaks}"
    );
    assert!(!self::breaks_nobody(&ready).contains("restarted"), "it has signed nothing");
    let anew = what_breaks(&ready, "second-key", true).expect("it is known");
    assert!(
        anew.contains("Microsoft Entra") && !anew.contains("from every target at once; its node"),
        "{anew}"
    );
}

#[test]
fn a_standby_that_is_ordered_may_have_signed() {
    let mut report = rotating();
    let node = report.nodes.get_mut("cp-1").expect("it is there");
    node.order.as_mut().expect("an order").sign = Kid::parse("third-key-with-a-long-name").expect("a kid");
    let told = breaks_nobody(&report);
    assert!(told.contains("it is ordered to sign") && !told.contains("it has signed no token"), "{told}");
}

#[test]
fn what_blocks_a_node_is_shown_without_a_next_key_and_a_new_order_is_not_in_the_future() {
    let mut report = rotating();
    let node = report.nodes.get_mut("cp-1").expect("it is there");
    node.next = None;
    node.order.as_mut().expect("an order").at = at(1);
    let told = text(&report);
    assert!(told.contains("no standby key yet\n    blocked: "), "{told}");
    assert!(told.contains("ordered just now") && !told.contains("in the future"), "{told}");
}

fn breaks_nobody(report: &RotationStatus) -> String {
    what_breaks(report, "third-key-with-a-long-name", false).expect("it is known")
}

#[test]
fn it_is_said_what_a_node_says_and_not_what_nobody_knows() {
    let told = |change: &dyn Fn(&mut NodeStatus)| {
        let mut report = rotating();
        change(report.nodes.get_mut("cp-1").expect("a node"));
        text(&report).lines().skip_while(|line| *line != "node cp-1").nth(1).expect("a line").to_owned()
    };
    let order = |node: &mut NodeStatus, at| {
        node.order.as_mut().expect("an order").at = at;
    };
    assert_eq!(told(&|_| {}), "  signs with second-key for external audiences, ordered 20m 5s ago");
    assert_eq!(
        told(&|node| order(node, at(400 * 86_400))),
        "  signs with second-key for external audiences, ordered at 2026-12-26T08:00:00Z (in the future)"
    );
    assert_eq!(
        told(&|node| node.active_keys = vec!["first-key".to_owned()]),
        "  ordered 20m 5s ago to sign with second-key for external audiences; signs with first-key"
    );
    assert_eq!(
        told(&|node| node.order = None),
        "  signs with second-key: only for the API server until a key is ready, or for external audiences \
         too if it was imported"
    );
    let strange =
        RotationStatus { unmanaged_keys: [("odd".to_owned(), vec!["eu".to_owned()])].into(), ..rotating() };
    assert!(text(&strange).contains("warning: target eu has unmanaged key odd; anyone"));
    assert!(what_breaks(&strange, "odd", false).expect("it is known").contains("unmanaged, at target eu"));
}

#[test]
fn a_time_line_survives_every_report() {
    let far = RotationStatus { at: Timestamp::MAX, ..rotating() };
    assert!(text(&far).contains("first-key"));
    let early = RotationStatus { at: Timestamp::MIN, ..rotating() };
    assert!(text(&early).contains("first-key"));
    assert_eq!(rough(SignedDuration::try_from(Duration::from_secs(90_061)).expect("small")), "1d 1h");
}
