use std::collections::BTreeSet;

use jiff::Timestamp;
use proptest::prelude::*;

use super::{ControlPlane, MEMBERSHIP_GRACE, Member};

const START: Timestamp = Timestamp::UNIX_EPOCH;

fn urls(urls: &[&str]) -> BTreeSet<String> {
    urls.iter().map(|url| (*url).to_owned()).collect()
}

fn instance(url: &str) -> Member {
    Member::Instance(url.to_owned())
}

fn instances(urls: &[&str]) -> BTreeSet<Member> {
    urls.iter().map(|url| instance(url)).collect()
}

/// Lists these API servers, of which the first has answered.
fn reached(listed: &[&str]) -> ControlPlane {
    let mut plane = ControlPlane::default();
    plane.listed(urls(listed), START);
    plane.record_poll(&instance(listed[0]), true, START);
    plane
}

#[test]
fn nobody_is_asked_before_the_cluster_was() {
    let plane = ControlPlane::default();
    assert!(plane.members(START).is_empty() && plane.tries().is_empty() && !plane.is_settled(START));
}

#[test]
fn without_a_list_the_url_is_asked_and_is_all_there_is() {
    let mut plane = ControlPlane::default();
    plane.listed(urls(&[]), START);
    assert_eq!((BTreeSet::from([Member::Fallback]), true), (plane.members(START), plane.is_settled(START)));
}

#[test]
fn while_the_list_cannot_be_had_the_members_stay_and_are_not_all() {
    let mut plane = ControlPlane::default();
    plane.listing_lost();
    assert_eq!((BTreeSet::from([Member::Fallback]), false), (plane.members(START), plane.is_settled(START)));
    let mut plane = reached(&["a", "b"]);
    plane.listing_lost();
    assert_eq!((instances(&["a", "b"]), false), (plane.members(START), plane.is_settled(START)));
    plane.listed(urls(&["a", "b"]), START);
    assert!(plane.is_settled(START));
}

#[test]
fn who_joins_is_asked_at_once() {
    let mut plane = reached(&["a"]);
    plane.listed(urls(&["a", "b"]), START);
    assert_eq!(instances(&["a", "b"]), plane.members(START));
}

#[test]
fn who_leaves_is_asked_for_another_minute() {
    let mut plane = reached(&["a", "b"]);
    plane.listed(urls(&["a"]), START);
    assert_eq!(Some(START + MEMBERSHIP_GRACE), plane.next_change(START));
    assert_eq!(instances(&["a", "b"]), plane.members(START + MEMBERSHIP_GRACE * 59 / 60));
    assert_eq!(instances(&["a"]), plane.members(START + MEMBERSHIP_GRACE));
}

#[test]
fn who_comes_back_within_the_minute_was_never_away() {
    let mut plane = reached(&["a", "b"]);
    plane.listed(urls(&["a"]), START);
    plane.listed(urls(&["a", "b"]), START + MEMBERSHIP_GRACE / 2);
    assert_eq!(
        (None, instances(&["a", "b"])),
        (plane.next_change(START + MEMBERSHIP_GRACE / 2), plane.members(START + MEMBERSHIP_GRACE * 9))
    );
}

#[test]
fn addresses_are_tried_before_they_are_asked() {
    let mut plane = ControlPlane::default();
    plane.listed(urls(&["a", "b"]), START);
    assert_eq!((urls(&["a", "b"]), BTreeSet::new()), (plane.tries(), plane.members(START)));
    plane.record_poll(&instance("b"), true, START);
    assert_eq!((urls(&[]), instances(&["a", "b"])), (plane.tries(), plane.members(START)));
}

#[test]
fn where_no_address_can_be_reached_the_url_is_asked_and_after_a_minute_is_all_there_is() {
    let mut plane = ControlPlane::default();
    plane.listed(urls(&["a"]), START);
    plane.record_unreachable(START);
    plane.record_poll(&Member::Fallback, true, START);
    assert_eq!(BTreeSet::from([Member::Fallback]), plane.members(START));
    assert!(!plane.is_settled(START) && !plane.is_out_of_reach(START));
    let later = START + MEMBERSHIP_GRACE;
    assert!(plane.is_settled(later) && plane.is_out_of_reach(later));
    assert_eq!(urls(&["a"]), plane.tries(), "it may come within reach");
    plane.record_poll(&instance("a"), true, later);
    assert_eq!((instances(&["a"]), false), (plane.members(later), plane.is_out_of_reach(later)));
}

#[test]
fn when_all_that_were_reached_are_silent_the_url_is_asked_too_and_nothing_is_settled_by_it() {
    let mut plane = reached(&["a"]);
    plane.record_poll(&instance("a"), false, START);
    assert_eq!(instances(&["a"]), plane.members(START));
    let later = START + MEMBERSHIP_GRACE;
    plane.record_poll(&Member::Fallback, true, later);
    assert_eq!(BTreeSet::from([Member::Fallback, instance("a")]), plane.members(later));
    assert!(
        !plane.is_out_of_reach(later + MEMBERSHIP_GRACE),
        "it is an alarm that a known address is silent"
    );
}

#[derive(Clone, Debug)]
enum Turn {
    Listed(BTreeSet<String>),
    LostSight,
    /// Every member and every tried API server is polled; those in the set answer.
    Asked(BTreeSet<String>, bool),
    Wait(u8),
}

fn turns() -> impl Strategy<Value = Vec<Turn>> {
    let some = || {
        prop::collection::btree_set(prop::sample::select(vec!["a", "b", "c"]).prop_map(str::to_owned), 0..4)
    };
    let turn = prop_oneof![
        some().prop_map(Turn::Listed),
        Just(Turn::LostSight),
        (some(), any::<bool>()).prop_map(|(answering, url)| Turn::Asked(answering, url)),
        (1..90_u8).prop_map(Turn::Wait),
    ];
    prop::collection::vec(turn, 1..40)
}

proptest! {
    /// Every listed API server is polled, or known to be out of reach, or nothing is settled: only then may
    /// an unlisted key count as missing.
    #[test]
    fn nothing_is_settled_while_somebody_who_is_listed_is_not_asked(turns in turns()) {
        let mut plane = ControlPlane::default();
        let (mut now, mut truth, mut current) = (START, BTreeSet::new(), false);
        let mut ever_reached = false;
        for turn in turns {
            match turn {
                Turn::Listed(urls) => {
                    (truth, current) = (urls.clone(), true);
                    plane.listed(urls, now);
                }
                Turn::LostSight => {
                    current = false;
                    plane.listing_lost();
                }
                Turn::Asked(answering, url) => {
                    let tries = plane.tries();
                    match tries.iter().find(|url| answering.contains(*url)) {
                        Some(reached) => plane.record_poll(&instance(reached), true, now),
                        None if !tries.is_empty() => plane.record_unreachable(now),
                        None => {}
                    }
                    for member in plane.members(now) {
                        let answers = match &member {
                            Member::Fallback => url,
                            Member::Instance(url) => answering.contains(url),
                        };
                        ever_reached |= answers && member != Member::Fallback;
                        plane.record_poll(&member, answers, now);
                    }
                }
                Turn::Wait(seconds) => now += std::time::Duration::from_secs(seconds.into()),
            }
            let members = plane.members(now);
            if plane.is_settled(now) {
                prop_assert!(current, "settled with a list of before");
                prop_assert!(!members.is_empty(), "settled with nobody to ask");
                let all_asked = truth.iter().all(|url| members.contains(&instance(url)));
                prop_assert!(all_asked || (!ever_reached && plane.is_out_of_reach(now)), "{:?}", plane);
            }
        }
    }
}
