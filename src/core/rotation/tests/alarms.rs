use super::*;
use crate::core::freshness::Field;

#[test]
fn a_switch_that_is_held_rings_once_it_is_late() {
    let mut scene = Scene::settled();
    let ring = |scene: &Scene, now| alarms(&scene.ledger, &scene.seen, at(now), &timing());
    scene.show(500, &["us"], &[0]);
    assert_eq!(ring(&scene, 1010), Vec::<String>::new());
    assert_eq!(ring(&scene, 1011), ["node `a` cannot switch to its next key: us does not show it"]);
    scene.show(1011, &["us"], &[0, 1]);
    assert_eq!(ring(&scene, 1012), Vec::<String>::new(), "that ends by itself");
    scene.ledger =
        scene.ledger.start(["us".to_owned()].into(), &scene.seen.required_targets, at(1012)).expect("asked");
    assert_eq!(ring(&scene, 1012), ["the rotation does not wait for target `us`"]);
}

#[test]
fn a_node_whose_clock_was_ahead_is_rotated_and_rings() {
    let mut scene = Scene::settled();
    scene.announce(5, &[(0, "a", active(50_000_000)), (1, "a", standby(0))]);
    let ring = |scene: &Scene, now| alarms(&scene.ledger, &scene.seen, at(now), &timing()).join("\n");
    let told = ring(&scene, 6);
    assert!(told.contains("dates key") && told.contains("1971-08-02T16:53:20Z, in the future"), "{told}");
    assert_eq!(scene.step(999), wait(Some(1000)));
    assert_eq!(scene.step(1000), order("a", 1, OrderReason::Age), "its age counts from its order");
    scene.settle(1000);
    scene.announce(1001, &[(0, "a", retired(1001, 1050)), (1, "a", active(1001)), (2, "a", standby(1001))]);
    assert_eq!(ring(&scene, 1002), "");
}

#[test]
fn a_node_that_does_not_obey_or_is_silent_rings() {
    let mut scene = Scene::settled();
    scene.settle(1000);
    let ring = |scene: &Scene, now| alarms(&scene.ledger, &scene.seen, at(now), &timing()).join("\n");
    assert_eq!(ring(&scene, 1010), "");
    assert!(ring(&scene, 1011).contains("the node was ordered at"), "{}", ring(&scene, 1011));
    let mut silent = Scene::settled();
    silent.announce(10, &[(2, "b", active(0))]);
    silent.announce(20, &[(2, "b", active(0))]);
    assert!(ring(&silent, 21).contains("node `a` no longer announces its key"), "{}", ring(&silent, 21));
}

#[test]
fn a_public_copy_that_may_be_kept_for_longer_than_half_the_propagation_time_rings() {
    let mut scene = Scene::settled();
    let ring = |scene: &Scene| alarms(&scene.ledger, &scene.seen, at(1), &timing()).join("\n");
    let kept = |lifetime| Freshness { lifetime, by: Some(Field::SharedMaxAge) };
    scene.seen.cache_lifetimes.insert("eu".to_owned(), kept(timing().propagation / 2));
    assert_eq!(ring(&scene), "");
    scene
        .seen
        .cache_lifetimes
        .insert("us".to_owned(), kept(timing().propagation / 2 + Duration::from_secs(1)));
    let told = ring(&scene);
    assert!(told.starts_with("relying parties may cache the JWKS of target `us` for "), "{told}");
    assert!(told.contains("by `s-maxage`, but `propagation` is "), "{told}");
    scene.ledger = Ledger::new(terms().issuer, Lineage::from_random([1; 8]));
    assert_eq!(ring(&scene), "", "nobody obeys");
}
