//! The signing key of an API server without orders.

use proptest::prelude::*;

use super::*;
use crate::core::rotation::{SigningKey, SigningKeyChange, signing_key, signing_key_changes};

impl Scene {
    /// Sources list these keys, and no node is ordered.
    fn list(&mut self, now: i64, is_beginning: bool, keys: &[usize]) {
        let answer = SourceAnswer::Keys(keys.iter().map(|index| rsa_key(*index)).collect());
        let report = SourceReport { source: "cluster".to_owned(), answer };
        let merged = Merged { is_beginning, ..merge(&self.ledger, [&report]) };
        self.ledger = self.ledger.observe(&merged, at(now), &owed()).ledger;
    }

    fn signing(&self, index: usize, now: i64) -> SigningKey {
        signing_key(&self.ledger, &kid(index), true, &self.seen.required_targets, at(now), &self.timing)
    }

    /// Key 0 from the start, key 1 listed and shown since 1000.
    fn restarted() -> Self {
        let mut scene = Self::new();
        scene.list(0, true, &[0]);
        scene.show(0, &["eu", "us"], &[0]);
        scene.list(1000, false, &[1]);
        scene.show(1000, &["eu", "us"], &[0, 1]);
        scene
    }
}

fn not_ready(waits_for: &[BlockedReason]) -> SigningKey {
    SigningKey::NotReady { waits_for: waits_for.iter().cloned().collect() }
}

#[test]
fn a_key_that_became_public_five_seconds_ago_is_not_ready_and_is_so_once_no_cache_can_lack_it() {
    let scene = Scene::restarted();
    let until = 1000 + 89 + 10 + 1;
    let waits = not_ready(&[propagating("eu", until), propagating("us", until)]);
    assert_eq!(scene.signing(1, 1005), waits);
    assert_eq!((waits.is_public(), waits.is_ready(), waits.ready_at()), (true, false, Some(at(until))));
    assert_eq!(scene.signing(1, until - 1), waits);
    assert_eq!(scene.signing(1, until), SigningKey::Ready);
}

#[test]
fn a_key_that_is_not_in_the_publication_is_told_apart() {
    let scene = Scene::restarted();
    let of = |index, is_public| {
        let Scene { ledger, seen, timing } = &scene;
        signing_key(ledger, &kid(index), is_public, &seen.required_targets, at(9000), timing)
    };
    assert_eq!(of(1, false), SigningKey::NotPublic);
    assert_eq!(of(2, true), SigningKey::NotPublic, "nobody has ever heard of it");
    assert!(!SigningKey::NotPublic.is_public() && SigningKey::NotPublic.ready_at().is_none());
}

#[test]
fn a_place_that_does_not_show_the_key_holds_it_and_nobody_knows_for_how_long() {
    let mut scene = Scene::new();
    scene.list(0, true, &[0]);
    scene.show(0, &["eu", "us"], &[0]);
    scene.list(1000, false, &[0, 1]);
    scene.show(1000, &["eu"], &[0, 1]);
    let found = scene.signing(1, 1010);
    assert_eq!(found, not_ready(&[propagating("eu", 1100), not_shown("us")]));
    assert_eq!(found.ready_at(), None);
    assert_eq!(scene.signing(1, 5000), not_ready(&[not_shown("us")]));
}

/// No relying party can have read a JWKS without it.
#[test]
fn the_first_keys_of_an_issuer_and_of_a_place_are_ready_at_once() {
    let mut scene = Scene::new();
    scene.list(0, true, &[0]);
    assert_eq!(scene.signing(0, 0), SigningKey::Ready, "before any place was given it");
    scene.show(0, &["eu"], &[0]);
    assert_eq!(scene.signing(0, 0), SigningKey::Ready);
    let mut scene = Scene::restarted();
    scene.seen.required_targets.insert("new".to_owned());
    assert_eq!(scene.signing(1, 5000), SigningKey::Ready);
    scene.show(5000, &["new"], &[0, 1]);
    assert_eq!(scene.signing(1, 5000), SigningKey::Ready);
}

#[test]
fn an_alert_is_raised_once_and_its_end_is_told() {
    let waits = |target| SigningKey::NotReady { waits_for: [not_shown(target)].into() };
    let not_ready = |target| SigningKeyChange::NotReady { waits_for: [not_shown(target)].into() };
    let mut before = None;
    let mut observe = |index, found| {
        let found = (kid(index), found);
        let changes = signing_key_changes(before.as_ref(), &found);
        before = Some(found);
        changes
    };
    let nothing = Vec::new();
    assert_eq!(observe(0, SigningKey::Ready), nothing, "no alert has ended");
    assert_eq!(observe(1, SigningKey::NotPublic), [SigningKeyChange::NotPublic]);
    assert_eq!(observe(1, SigningKey::NotPublic), nothing);
    assert_eq!(observe(2, SigningKey::NotPublic), [SigningKeyChange::NotPublic], "another key");
    assert_eq!(observe(2, waits("eu")), [SigningKeyChange::Published, not_ready("eu")]);
    assert_eq!(observe(2, waits("us")), nothing, "for another target");
    assert_eq!(observe(3, waits("us")), [not_ready("us")], "another key");
    assert_eq!(observe(3, SigningKey::Ready), [SigningKeyChange::Ready]);
    assert_eq!(observe(3, SigningKey::Ready), nothing);
    assert_eq!(observe(3, waits("eu")), [not_ready("eu")], "a target was emptied");
    assert_eq!(observe(3, SigningKey::NotPublic), [SigningKeyChange::NotPublic], "it was revoked");
    assert_eq!(
        observe(0, SigningKey::Ready),
        [SigningKeyChange::Published],
        "the API server signs with another"
    );
}

proptest! {
    /// Time alone makes keys ready, and changes nothing else.
    #[test]
    fn what_is_ready_stays_so(shown in prop::collection::vec((0_i64..500, any::<bool>()), 2), early in 0_i64..900, later in 0_i64..900) {
        let mut scene = Scene::new();
        scene.list(0, false, &[0, 1]);
        for ((since, both), place) in shown.iter().zip(["eu", "us"]) {
            scene.show(0, &[place], &[0]);
            if *both {
                scene.show(*since, &[place], &[0, 1]);
            }
        }
        let (early, later) = (early.min(later), early.max(later));
        let (first, second) = (scene.signing(1, early), scene.signing(1, later));
        prop_assert!(second.is_ready() || !first.is_ready());
        if let Some(at_last) = first.ready_at() {
            let seconds = at_last.as_second();
            prop_assert!(!scene.signing(1, seconds - 1).is_ready());
            prop_assert!(scene.signing(1, seconds).is_ready());
        }
        prop_assert_eq!(scene.signing(1, 10_000).is_ready(), shown.iter().all(|(_, both)| *both));
    }
}
