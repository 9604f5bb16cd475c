use std::time::Duration;

use jiff::tz::TimeZone;

use super::*;
use crate::core::{
    calendar::Calendar,
    jose::{
        jwk::Jwk,
        jwk_set::Profile,
        publication::{Document, Publication},
    },
    ledger::{
        Lineage, Retention, RotationCommandError, TargetObservation,
        merge::{Merged, NodeStatement, SourceAnswer, SourceReport, merge, statements},
    },
    signer::{
        DesiredState,
        announcement::{AnnouncedKey, Announcement, SignedAnnouncement, StatementVersion},
    },
    target_plan::kids_shown,
    tests::{at, ec_key, kid, node, retention, rsa_key, terms},
};

mod alarms;
mod model;
mod operator;
mod tripwire;

/// Waits in seconds: propagation 99 and one for rounding, tokens 50, margin 10, rotation after 1000.
fn timing() -> Timing {
    let seconds = Duration::from_secs;
    Timing {
        rotate_after: Some(seconds(1000)),
        window: None,
        propagation: seconds(89),
        jwks_max_age: seconds(44),
        max_token_lifetime: seconds(50),
        margin: seconds(10),
    }
}

fn owed() -> Retention {
    let Timing { max_token_lifetime, margin, .. } = timing();
    Retention { max_token_lifetime, margin, ..retention() }
}

fn standby(since: i64) -> Stage {
    Stage::Standby { since: at(since) }
}

fn active(since: i64) -> Stage {
    Stage::Active { since: at(since) }
}

fn retired(since: i64, latest_exp: i64) -> Stage {
    Stage::Retired { since: at(since), latest_exp: Some(at(latest_exp)) }
}

/// An issuer whose keys were announced, shown and ordered.
struct Scene {
    ledger: Ledger,
    seen: RotationInputs,
    timing: Timing,
}

impl Scene {
    /// Everything is new: no relying party can have read a JWKS before.
    fn new() -> Self {
        let ledger = Ledger::new(terms().issuer, Lineage::from_random([1; 8]));
        let seen = RotationInputs {
            required_targets: ["eu", "us"].map(str::to_owned).into(),
            is_complete: true,
            ..RotationInputs::default()
        };
        Self { ledger, seen, timing: timing() }
    }

    /// Key 0 is active since 0, key 1 its standby; both are shown since 0 and no clock is behind.
    fn settled() -> Self {
        let mut scene = Self::new();
        scene.announce(0, &[(0, "a", active(0)), (1, "a", standby(0))]);
        scene.show(0, &["eu", "us"], &[0, 1]);
        assert_eq!(scene.step(0), order("a", 0, OrderReason::First));
        scene.settle(0);
        scene
    }

    fn announce(&mut self, now: i64, keys: &[(usize, &str, Stage)]) {
        self.announce_as_of(now, now, keys);
    }

    /// Observes at `now` what was stated at another time.
    fn announce_as_of(&mut self, said: i64, now: i64, keys: &[(usize, &str, Stage)]) {
        let mut of_nodes: BTreeMap<&str, Vec<AnnouncedKey>> = BTreeMap::new();
        for (index, name, stage) in keys {
            let key = AnnouncedKey { jwk: rsa_key(*index), stage: *stage, excluded_from_discovery: false };
            of_nodes.entry(name).or_default().push(key);
        }
        self.hear(said, now, of_nodes);
    }

    fn hear(&mut self, said: i64, now: i64, of_nodes: BTreeMap<&str, Vec<AnnouncedKey>>) {
        let kids = |keys: &[AnnouncedKey]| keys.iter().map(|key| key.jwk.kid().clone()).collect();
        let admits: BTreeMap<_, _> = of_nodes.iter().map(|(name, keys)| (node(name), kids(keys))).collect();
        let said = of_nodes.into_iter().map(|(name, keys)| {
            let (signed_by, word) =
                (kids(&keys), StatementVersion { at: at(said), observed_order: Some(at(said)) });
            let announcement = Announcement::new(node(name), terms().issuer, word, keys);
            let signed = SignedAnnouncement::by(announcement.admitting(admits.clone()), signed_by);
            NodeStatement::new(signed, at(now), timing().margin)
        });
        let answer = SourceAnswer::Announced(said.collect());
        let report = SourceReport { source: "nodes".to_owned(), answer };
        let merged = Merged { is_beginning: true, ..merge(&self.ledger, [&report]) };
        self.ledger = self.ledger.observe(&merged, at(now), &owed()).ledger;
        self.seen.nodes = statements(&self.ledger, [&report]);
    }

    fn show(&mut self, now: i64, places: &[&str], keys: &[usize]) {
        let look = TargetObservation::of_own_listener(keys.iter().map(|index| kid(*index)).collect());
        for place in places {
            self.ledger = self.ledger.observe_target(place, &look, Some(at(now)));
        }
    }

    fn step(&self, now: i64) -> RotationStep {
        let step = next_step(&self.ledger, &self.seen, at(now), &self.timing);
        assert_eq!(step, next_step(&self.ledger, &self.seen, at(now), &self.timing), "asked twice");
        step
    }

    /// Does every step that is due; returns their number.
    fn settle(&mut self, now: i64) -> usize {
        for count in 0..10 {
            match self.step(now) {
                RotationStep::Wait { .. } => return count,
                step => self.ledger = after(&self.ledger, &step, at(now)),
            }
        }
        panic!("it never ends: {:?}", self.step(now));
    }

    fn plan(&self, name: &str, now: i64) -> NodePlan {
        plan_node(&self.ledger, &node(name), &self.seen, at(now), &self.timing)
    }

    #[track_caller]
    fn held_by(&self, name: &str, now: i64, expected: &[BlockedReason]) {
        let reasons = self.plan(name, now).blocked;
        assert_eq!(reasons, expected.iter().cloned().collect(), "at {now}");
        assert!(!matches!(self.step(now), RotationStep::Order { .. }), "it was not held at {now}");
    }
}

fn order(name: &str, index: usize, why: OrderReason) -> RotationStep {
    RotationStep::Order { node: node(name), sign: kid(index), why }
}

fn wait(until: Option<i64>) -> RotationStep {
    RotationStep::Wait { until: until.map(at) }
}

fn propagating(place: &str, until: i64) -> BlockedReason {
    BlockedReason::Propagating { target: place.to_owned(), until: at(until) }
}

fn not_shown(place: &str) -> BlockedReason {
    BlockedReason::NotShown { target: place.to_owned() }
}

/// Some relying parties cache the list of algorithms in the discovery document, and reject other algorithms.
#[test]
fn the_algorithm_of_a_key_is_in_discovery_everywhere_for_the_whole_wait_before_its_first_token() {
    let ec = Jwk::of_public_key(ec_key());
    let announced = |jwk: Jwk, stage| AnnouncedKey { jwk, stage, excluded_from_discovery: false };
    let mut scene = Scene::new();
    scene.announce(0, &[(0, "a", active(0))]);
    scene.show(0, &["eu", "us"], &[0]);
    scene.settle(0);
    let keys = [announced(rsa_key(0), active(0)), announced(ec.clone(), standby(10))];
    scene.hear(10, 10, BTreeMap::from([("a", keys.to_vec())]));
    let render = |keys: &[Jwk]| Publication::render(&terms(), Profile::All, keys.to_vec()).expect("keys");
    let (both, before) = (render(&[rsa_key(0), ec.clone()]), render(&[rsa_key(0)]));
    let show = |scene: &mut Scene, now, discovery: &Publication| {
        let (jwks, discovery) = (both.bytes(Document::Jwks), discovery.bytes(Document::Discovery));
        let view = kids_shown(jwks, discovery, &terms().issuer).expect("ours");
        for place in ["eu", "us"] {
            scene.ledger = scene.ledger.observe_target(
                place,
                &TargetObservation::of_own_listener(view.clone()),
                Some(at(now)),
            );
        }
    };
    show(&mut scene, 10, &before);
    assert_eq!(&kid(0), &scene.ledger.orders()[&node("a")].sign, "the first key");
    scene.held_by("a", 2000, &[not_shown("eu"), not_shown("us")]);
    show(&mut scene, 2000, &both);
    scene.held_by("a", 2000, &[propagating("eu", 2100), propagating("us", 2100)]);
    scene.held_by("a", 2099, &[propagating("eu", 2100), propagating("us", 2100)]);
    assert!(matches!(scene.step(2100), RotationStep::Order { sign, .. } if sign == *ec.kid()));
}

#[test]
fn an_issuer_without_nodes_has_nothing_to_decide() {
    assert_eq!(Scene::new().step(0), wait(None));
}

#[test]
fn the_first_key_of_an_issuer_signs_once_every_place_shows_it() {
    let mut scene = Scene::new();
    scene.announce(0, &[(0, "a", active(0)), (1, "a", standby(0))]);
    scene.held_by("a", 0, &[not_shown("eu"), not_shown("us")]);
    scene.show(1, &["eu"], &[0, 1]);
    scene.held_by("a", 1, &[not_shown("us")]);
    scene.show(2, &["us"], &[0, 1]);
    assert_eq!(scene.step(2), order("a", 0, OrderReason::First));
}

#[test]
fn a_key_that_joins_an_issuer_waits_until_no_cache_can_lack_it() {
    let mut scene = Scene::settled();
    let joined = [(0, "a", active(0)), (1, "a", standby(0)), (2, "b", active(10)), (3, "b", standby(10))];
    scene.announce(10, &joined);
    scene.show(20, &["eu"], &[0, 1, 2, 3]);
    scene.held_by("b", 20, &[propagating("eu", 120), not_shown("us")]);
    scene.show(50, &["us"], &[0, 1, 2, 3]);
    scene.held_by("b", 149, &[propagating("us", 150)]);
    assert_eq!(scene.step(149), wait(Some(150)), "and says when");
    assert_eq!(scene.step(150), order("b", 2, OrderReason::First));
}

#[test]
fn a_key_is_replaced_at_its_age_counted_from_its_activation() {
    let mut scene = Scene::settled();
    scene.announce(300, &[(0, "a", active(300)), (1, "a", standby(0))]);
    assert_eq!(scene.step(1299), wait(Some(1300)));
    assert_eq!(scene.step(1300), order("a", 1, OrderReason::Age));
    scene.settle(1300);
    scene.held_by("a", 1301, &[BlockedReason::NoStandby, BlockedReason::AwaitingSigner { since: at(1300) }]);
}

#[test]
fn a_gap_in_what_a_place_shows_starts_the_wait_anew() {
    let mut scene = Scene::settled();
    scene.show(950, &["us"], &[0]);
    scene.show(960, &["us"], &[0, 1]);
    scene.held_by("a", 1059, &[propagating("us", 1060)]);
    assert_eq!(scene.step(1060), order("a", 1, OrderReason::Age));
    // Another writer has changed the target: the key may have been away in between.
    let theirs = TargetObservation {
        revision_found: Some("2".to_owned()),
        revision_after: Some("2".to_owned()),
        ..TargetObservation::of_own_listener([kid(0), kid(1)].into())
    };
    scene.ledger = scene.ledger.observe_target("eu", &theirs, Some(at(1060)));
    scene.held_by("a", 1159, &[propagating("eu", 1160)]);
    let ours = TargetObservation { revision_after: Some("3".to_owned()), ..theirs };
    scene.ledger = scene.ledger.observe_target("eu", &ours, Some(at(1100)));
    assert_eq!(scene.step(1160), order("a", 1, OrderReason::Age), "what we write ourselves is no gap");
}

#[test]
fn no_time_begins_by_a_clock_that_is_wrong() {
    let mut scene = Scene::settled();
    let look = TargetObservation::of_own_listener([kid(0), kid(1)].into());
    scene.show(950, &["us"], &[0]);
    scene.ledger = scene.ledger.observe_target("us", &look, None);
    scene.held_by("a", 2000, &[not_shown("us")]);
    scene.ledger = scene.ledger.observe_target("us", &look, Some(at(2000)));
    scene.held_by("a", 2000, &[propagating("us", 2100)]);
    // A time that continues needs no clock.
    assert_eq!(scene.ledger.observe_target("us", &look, None), scene.ledger);
}

#[test]
fn what_holds_a_switch_is_named() {
    let mut scene = Scene::settled();
    let due = 1000;
    scene.seen.api_servers = BTreeMap::from([
        ("one".to_owned(), Some([kid(0)].into())),
        ("two".to_owned(), None),
        ("three".to_owned(), Some([kid(0), kid(1)].into())),
    ]);
    scene.held_by(
        "a",
        due,
        &[
            BlockedReason::NotVerified { api_server: "one".to_owned() },
            BlockedReason::ApiServerUnavailable { api_server: "two".to_owned() },
        ],
    );
    scene.seen.api_servers.clear();
    scene.seen.is_complete = false;
    scene.held_by("a", due, &[BlockedReason::IncompleteObservation]);
    scene.seen.is_complete = true;
    scene.show(due, &["us"], &[0]);
    scene.held_by("a", due, &[not_shown("us")]);
}

/// It may have lost the key that it would be ordered to use.
#[test]
fn a_node_that_is_not_heard_or_not_believed_is_given_no_order() {
    let due = 1000;
    let mut scene = Scene::settled();
    let why = AnnouncementRejection::Unproven { node: node("a") };
    scene.seen.nodes = [(node("a"), Err(why.clone()))].into();
    scene.held_by("a", due, &[BlockedReason::StatementRejected { why }]);
    scene.seen.nodes.clear();
    scene.held_by("a", due, &[BlockedReason::NoStatement]);
    // Nor is the standby ordered after a revocation: the node may be gone.
    scene.ledger = scene.ledger.revoke(&kid(0), at(due)).expect("it is known");
    scene.held_by("a", due, &[BlockedReason::NoStatement]);
    scene.announce(due, &[(0, "a", active(0)), (1, "a", standby(0))]);
    assert_eq!(scene.step(due), order("a", 1, OrderReason::First));
}

/// Opens every half hour, for a minute.
fn half_hours() -> Window {
    let opens = Calendar::parse("*/30 * * * *").expect("five fields");
    Window::new(opens, TimeZone::UTC, Duration::from_mins(1))
}

#[test]
fn a_key_of_age_is_replaced_while_the_window_is_open() {
    let mut scene = Scene::settled();
    scene.timing.window = Some(half_hours());
    let closed = [BlockedReason::Window { until: at(1800) }];
    scene.held_by("a", 1000, &closed);
    assert_eq!(scene.step(1000), wait(Some(1800)), "and says when");
    scene.held_by("a", 1799, &closed);
    assert_eq!(scene.step(1800), order("a", 1, OrderReason::Age));
    assert_eq!(scene.step(1859), order("a", 1, OrderReason::Age));
    scene.held_by("a", 1860, &[BlockedReason::Window { until: at(3600) }]);
    // It is open now, but the key is not due.
    scene.held_by("a", 30, &closed);
    let report = rotation_status(&scene.ledger, &scene.seen, at(30), &scene.timing);
    assert_eq!(report.nodes["a"].due, Some(at(1000)));
    assert_eq!(report.nodes["a"].not_before, Some(at(1800)), "the first window in which it is of age");
}

#[test]
fn a_window_does_not_hold_what_the_operator_asks_for() {
    let mut scene = Scene::settled();
    scene.timing.window = Some(half_hours());
    scene.ledger = scene.ledger.start(BTreeSet::new(), &scene.seen.required_targets, at(500)).expect("asked");
    assert_eq!(scene.step(500), order("a", 1, OrderReason::Asked));
}

#[test]
fn a_window_does_not_hold_the_first_key() {
    let mut scene = Scene::new();
    scene.timing.window = Some(half_hours());
    scene.announce(100, &[(0, "a", active(100)), (1, "a", standby(100))]);
    scene.show(100, &["eu", "us"], &[0, 1]);
    assert_eq!(scene.step(100), order("a", 0, OrderReason::First));
}

#[test]
fn a_dead_target_holds_the_switch_until_the_operator_goes_on_without_it() {
    let mut scene = Scene::settled();
    scene.show(400, &["us"], &[]);
    let places = scene.seen.required_targets.clone();
    scene.ledger = scene.ledger.start(BTreeSet::new(), &places, at(500)).expect("asked");
    scene.held_by("a", 500, &[not_shown("us")]);
    let unknown = scene.ledger.start(["mars".to_owned()].into(), &places, at(501)).expect_err("unknown");
    assert_eq!(unknown.to_string(), "target `mars` is unknown, expected one of `eu`, `us`");
    let again = scene.ledger.start(BTreeSet::new(), &places, at(501));
    assert_eq!(again, Err(RotationCommandError::AlreadyRequested { at: at(500) }));
    scene.ledger = scene.ledger.start(["us".to_owned()].into(), &places, at(502)).expect("another word");
    assert_eq!(scene.step(502), order("a", 1, OrderReason::Asked));
}

#[test]
fn nodes_switch_one_after_the_other() {
    let mut scene = Scene::new();
    let stages =
        |a: [Stage; 2], b: [Stage; 2]| [(0, "a", a[0]), (1, "a", a[1]), (2, "b", b[0]), (3, "b", b[1])];
    scene.announce(0, &stages([active(0), standby(0)], [active(0), standby(0)]));
    scene.show(0, &["eu", "us"], &[0, 1, 2, 3]);
    assert_eq!(scene.settle(0), 2, "each gets its first order");
    assert_eq!(scene.step(1000), order("a", 1, OrderReason::Age));
    assert_eq!(scene.settle(1000), 1);
    let waits = BlockedReason::RolloutInProgress { node: node("a") };
    scene.held_by("b", 1001, std::slice::from_ref(&waits));
    // It signs with the new key, and may still sign with the old one.
    scene.announce(1010, &stages([active(0), active(1010)], [active(0), standby(0)]));
    scene.held_by("b", 1010, &[waits]);
    scene.announce(1020, &stages([retired(1020, 1060), active(1010)], [active(0), standby(0)]));
    assert_eq!(scene.step(1020), order("b", 3, OrderReason::Age));
}

#[test]
fn a_rotation_that_was_asked_for_is_over_when_every_node_has_switched() {
    let mut scene = Scene::settled();
    scene.ledger = scene.ledger.start(BTreeSet::new(), &scene.seen.required_targets, at(500)).expect("asked");
    assert_eq!(scene.settle(500), 1);
    assert!(scene.ledger.rotation_request().is_some());
    scene.announce(510, &[(0, "a", retired(510, 550)), (1, "a", active(505)), (2, "a", standby(510))]);
    assert_eq!(scene.settle(510), 1);
    assert_eq!(scene.ledger.rotation_request(), None);
    assert_eq!(scene.step(511), wait(Some(1505)), "and the next one is counted from the activation");
}

#[test]
fn a_retired_key_leaves_when_its_last_token_is_dead_and_not_before() {
    let mut scene = Scene::settled();
    let retired = [(0, "a", retired(500, 540)), (1, "a", active(500))];
    scene.announce(500, &retired);
    // The node lists it no more; an API server may.
    scene.announce(549, &retired[1..]);
    scene.announce(549, &retired[1..]);
    let standing = |scene: &Scene, now| key_state(&scene.ledger, &kid(0), &scene.seen, at(now), &timing());
    assert_eq!(standing(&scene, 549), Some(KeyState::Retired { until: Some(at(550)) }));
    assert_eq!(scene.step(550), order("a", 1, OrderReason::First), "it signs with it already");
    scene.settle(550);
    scene.announce(550, &retired[1..]);
    assert_eq!(standing(&scene, 550), Some(KeyState::Removed));
}

#[test]
fn a_ledger_that_was_repaired_switches_nothing_for_a_retention() {
    let mut scene = Scene::settled();
    scene.ledger = scene.ledger.observe_revision("eu", 1000, at(990), owed().wait());
    scene.held_by("a", 1049, &[BlockedReason::Repaired { until: at(1050) }]);
    assert_eq!(scene.step(1049), wait(Some(1050)));
    assert_eq!(scene.step(1050), order("a", 1, OrderReason::Age));
}

#[test]
fn no_rotation_begins_that_would_pass_what_relying_parties_read() {
    let mut scene = Scene::settled();
    let old: Vec<_> = (2..MAX_KEYS).map(|index| (index, "old", retired(0, 100_000))).collect();
    let own = [(0, "a", active(0)), (1, "a", standby(0))];
    scene.announce(10, &[&own[..], &old].concat());
    scene.held_by("a", 1000, &[BlockedReason::TooManyKeys]);
}

#[test]
fn another_node_cannot_speak_for_a_key() {
    let mut scene = Scene::settled();
    scene.announce(10, &[(0, "b", retired(1, 2))]);
    let signer = scene.ledger.entries()[&kid(0)].signer.clone().expect("it has one");
    assert_eq!((signer.node, signer.stage), (node("a"), active(0)));
}

#[test]
fn waits_that_contradict_each_other_are_all_named() {
    assert_eq!(timing().contradictions(), []);
    let seconds = Duration::from_secs;
    let wrong = Timing { propagation: seconds(87), rotate_after: Some(seconds(97)), ..timing() };
    assert_eq!(wrong.contradictions().len(), 2, "{:?}", wrong.contradictions());
    let never = Timing { rotate_after: None, propagation: seconds(87), ..timing() };
    assert_eq!(never.contradictions().len(), 1);
    let crowded =
        Timing { max_token_lifetime: seconds(111 * 31), rotate_after: Some(seconds(111)), ..timing() };
    assert!(matches!(crowded.contradictions()[..], [Contradiction::TooMany { keys: 34, .. }]));
    let full = Timing { max_token_lifetime: seconds(111 * 30 - 10), ..crowded };
    assert_eq!(full.contradictions(), []);
}

#[test]
fn a_key_that_its_node_has_lost_leaves_when_no_token_of_it_can_live() {
    let mut scene = Scene::settled();
    // A known key may sign by the node's statement.
    scene.announce(99, &[(0, "a", active(0)), (1, "a", standby(0)), (2, "a", standby(99))]);
    scene.announce(100, &[(2, "a", standby(99))]);
    let signer = scene.ledger.entries()[&kid(0)].signer.clone().expect("it has one");
    // A token may live ten seconds longer than allowed.
    assert_eq!(signer.stage, retired(100, 160));
    scene.show(100, &["eu", "us"], &[0, 2]);
    // Its order is valid until there is another one.
    for (now, is_public) in [(169, true), (170, true), (200, false)] {
        scene.settle(now);
        scene.announce(now, &[(2, "a", standby(99))]);
        scene.announce(now, &[(2, "a", standby(99))]);
        assert_eq!(scene.ledger.entries()[&kid(0)].is_public(), is_public, "at {now}");
    }
}
