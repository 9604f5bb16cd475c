use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use proptest::prelude::*;

use super::*;
use crate::core::{
    jose::{issuer::Issuer, jwk::Jwk},
    ledger::{
        TargetObservation,
        merge::{SourceAnswer, SourceReport, merge},
    },
    tests::{known, retention, rsa_key},
};

const START: Timestamp = Timestamp::UNIX_EPOCH;
const MINUTE: Duration = Duration::from_mins(1);

fn wait() -> Duration {
    retention().wait()
}

/// The ledger after its one source lists these keys.
fn after(ledger: &Ledger, keys: &[usize], now: Timestamp) -> Ledger {
    let keys = keys.iter().map(|index| rsa_key(*index)).collect();
    let reports = [SourceReport { source: "a".to_owned(), answer: SourceAnswer::Keys(keys) }];
    ledger.observe(&merge(ledger, &reports), now, &retention()).ledger
}

fn is_public(ledger: &Ledger, index: usize) -> bool {
    ledger.public_keys().any(|public| *public == rsa_key(index))
}

/// A ledger edited by hand, through its JSON.
fn edited(ledger: &Ledger, edit: impl FnOnce(&mut serde_json::Value)) -> Ledger {
    let mut json = serde_json::from_slice(&ledger.to_json()).expect("JSON");
    edit(&mut json);
    Ledger::parse(json.to_string().as_bytes()).expect("a ledger")
}

fn reconciled(known: &Ledger, found: &Ledger, now: Timestamp) -> Ledger {
    known.reconcile(&StoredLedger::Ledger(Arc::new(found.clone())), now, wait()).expect("one lineage")
}

fn what(ledger: &Ledger) -> &IncidentKind {
    &ledger.incidents().last().expect("told").kind
}

#[test]
fn a_ledger_that_has_moved_on_is_taken_as_it_is() {
    let before = known(&[], &[rsa_key(1)]);
    let missing = after(&before, &[2], START);
    let removed = after(&missing, &[2], START + wait());
    for later in [&before, &missing, &removed] {
        assert_eq!(*later, reconciled(&before, later, START));
    }
}

#[test]
fn an_older_ledger_is_united_with_what_is_known_and_nothing_is_removed_for_a_retention() {
    let backup = known(&[], &[rsa_key(1)]);
    let missing = after(&backup, &[2], START);
    let now = START + 2 * MINUTE;
    let restored = reconciled(&missing, &backup, now);
    assert_eq!(missing.entries(), restored.entries());
    assert!(restored.sequence() > missing.sequence());
    let (found, known) = (backup.sequence(), missing.sequence());
    assert_eq!(IncidentKind::Restored { found, seen_by: "memory".to_owned(), known }, *what(&restored));
    assert!(restored.alarm(now).is_some_and(|alarm| alarm.contains("restored from a backup")));

    // Due two minutes earlier, but the hold counts from when the backup was noticed.
    let due = START + wait();
    assert!(is_public(&after(&restored, &[2], due), 1));
    let over = now + wait();
    assert!(!is_public(&after(&restored, &[2], over), 1));
    assert_eq!(None, restored.alarm(over));
}

#[test]
fn a_key_that_only_the_backup_has_comes_back_and_a_tombstone_does_not() {
    let missing = after(&known(&[], &[rsa_key(1), rsa_key(2)]), &[2], START);
    let removed = after(&missing, &[2], START + wait());
    let backup = edited(&missing, |json| {
        json["keys"][rsa_key(3).kid().as_str()] = serde_json::json!({
            "jwk": rsa_key(3), "first_seen": START, "state": "listed",
        });
    });
    let restored = reconciled(&removed, &backup, START + wait());
    assert!(is_public(&restored, 3));
    assert!(!is_public(&restored, 1), "it came back from its tombstone");
}

/// A backup is restored, continues, and is then replaced by the previous ledger: the wrong one was restored
/// first.
#[test]
fn a_ledger_whose_history_is_another_one_takes_nothing_away() {
    let backup = known(&[], &[rsa_key(1), rsa_key(2)]);
    let others = (0..5).fold(backup.clone(), |ledger, index| {
        after(&ledger, if index % 2 == 0 { &[2] } else { &[2, 3] }, START)
    });
    let now = START + wait();
    let ours = after(&backup, &[2], now);
    assert!(others.sequence() > ours.sequence());
    let united = reconciled(&ours, &others, now);
    assert_eq!(ours.entries()[rsa_key(1).kid()], united.entries()[rsa_key(1).kid()], "unlisted since now");
    assert!(is_public(&united, 3), "a key that only the other one knows");
    assert!(matches!(what(&united), IncidentKind::Restored { .. }) && united.is_held(now));
    assert!(is_public(&after(&united, &[2], now), 1), "removed before its last token is dead");
    assert!(united.is_continuation_of(&ours) && united.is_continuation_of(&others));
    assert!(!others.is_continuation_of(&ours) && !ours.is_continuation_of(&ours));
}

#[test]
fn what_a_hand_took_out_is_put_back() {
    let before = after(&known(&[], &[rsa_key(1)]), &[1, 2], START);
    let kid = rsa_key(1).kid().clone();
    let vanished = edited(&before, |json| {
        json["keys"].as_object_mut().expect("keys").remove(kid.as_str());
    });
    let flipped = edited(&before, |json| {
        json["keys"][kid.as_str()]["state"] = serde_json::json!({ "removed": { "at": START } });
    });
    let raised = edited(&flipped, |json| json["sequence"] = 99.into());
    for found in [vanished, flipped, raised] {
        let repaired = reconciled(&before, &found, START);
        assert!(is_public(&repaired, 1) && is_public(&repaired, 2));
        assert!(repaired.sequence() > found.sequence());
        assert_eq!(IncidentKind::Edited { kids: [kid.clone()].into() }, *what(&repaired));
        assert!(repaired.is_held(START));
    }
}

#[test]
fn a_hand_does_not_bring_a_tombstone_back_but_a_recorded_adoption_does() {
    let missing = after(&known(&[], &[rsa_key(1), rsa_key(2)]), &[2], START);
    let removed = after(&missing, &[2], START + wait());
    let kid = rsa_key(1).kid().clone();
    let flipped = edited(&removed, |json| {
        json["keys"][kid.as_str()]["state"] = "listed".into();
        json["sequence"] = 99.into();
    });
    assert!(!is_public(&reconciled(&removed, &flipped, START), 1));
    let adopted = removed.adopt(&kid, START + wait()).expect("a tombstone");
    assert_eq!(adopted, reconciled(&removed, &adopted, START));
}

#[test]
fn records_that_were_dropped_are_believed() {
    let before = known(&[], &[rsa_key(1), rsa_key(2)]);
    let mut later = after(&before, &[2], START);
    later = after(&later, &[2], START + wait());
    for round in 0..CHANGES_KEPT {
        let keys: &[usize] = if round % 2 == 0 { &[2, 3] } else { &[2] };
        later = after(&later, keys, START + wait());
    }
    assert!(later.changes().iter().all(|change| change.kid != *rsa_key(1).kid()), "not dropped yet");
    assert_eq!(later, reconciled(&before, &later, START));
}

#[test]
fn a_lost_or_damaged_ledger_is_stored_again_from_memory() {
    let before = known(&[], &[rsa_key(1)]);
    let damage = || InvalidDocument::damaged("ledger", "cut off");
    for (found, expected) in [
        (StoredLedger::Nothing, IncidentKind::Lost),
        (StoredLedger::Damaged(damage()), IncidentKind::Damaged),
    ] {
        let repaired = before.reconcile(&found, START, wait()).expect("known");
        assert_eq!((before.entries(), &expected), (repaired.entries(), what(&repaired)));
        assert!(repaired.is_held(START) && repaired.sequence() > before.sequence());
    }
    let empty = Ledger::new(before.issuer().clone(), before.lineage().clone());
    assert_eq!(Ok(empty.clone()), empty.reconcile(&StoredLedger::Nothing, START, wait()));
    let refused = empty.reconcile(&StoredLedger::Damaged(damage()), START, wait());
    assert_eq!(Err(Irreconcilable::Damaged(damage())), refused);
}

#[test]
fn the_version_before_a_damaged_one_is_an_older_ledger() {
    let before = known(&[], &[rsa_key(1)]);
    let last = after(&before, &[1, 2], START);
    let empty = Ledger::new(before.issuer().clone(), Lineage::from_random([7; 8]));
    for known in [&last, &empty] {
        let repaired = known
            .reconcile(&StoredLedger::Previous(Arc::new(before.clone())), START, wait())
            .expect("usable");
        assert!(is_public(&repaired, 1) && repaired.is_held(START));
        assert_eq!(is_public(known, 2), is_public(&repaired, 2));
    }
}

#[test]
fn another_lineage_is_neither_followed_nor_overwritten() {
    let before = known(&[], &[rsa_key(1)]);
    let other = edited(&before, |json| json["lineage"] = "0000000000000007".into());
    let refused = before.reconcile(&StoredLedger::Ledger(Arc::new(other.clone())), START, wait());
    assert!(matches!(refused, Err(Irreconcilable::OtherLineage { .. })));
    // Nothing was stored yet, so there is nothing to lose.
    let empty = Ledger::new(before.issuer().clone(), before.lineage().clone());
    assert_eq!(other, reconciled(&empty, &other, START));
}

#[test]
fn a_moved_issuer_keeps_keys_and_lineage_and_the_move_is_recorded() {
    let before = after(&known(&[], &[rsa_key(1)]), &[2], START);
    let issuer = Issuer::parse("https://new.example").expect("valid");
    let empty = Ledger::new(issuer.clone(), Lineage::from_random([7; 8]));
    let moved = reconciled(&empty, &before, START);
    assert_eq!((&issuer, before.lineage()), (moved.issuer(), moved.lineage()));
    assert_eq!(before.entries(), moved.entries());
    assert_eq!(IncidentKind::Moved { from: before.issuer().clone() }, *what(&moved));
    assert_eq!(None, moved.alarm(START));
    assert_eq!(moved, reconciled(&before.of_issuer(issuer), &moved, START));
}

#[test]
fn a_place_that_was_written_from_a_later_change_tells_of_a_backup() {
    let ledger = after(&known(&[], &[rsa_key(1)]), &[2], START);
    assert_eq!(ledger, ledger.observe_revision("eu", ledger.sequence(), START, wait()));
    let restored = ledger.observe_revision("eu", 40, START, wait());
    assert_eq!((41, ledger.entries()), (restored.sequence(), restored.entries()));
    assert!(is_public(&after(&restored, &[2], START + wait() - MINUTE), 1));
    assert_eq!(restored, restored.observe_revision("us", 40, START, wait()));
}

#[test]
fn a_second_backup_within_a_retention_dates_what_its_place_shows_anew() {
    let look =
        TargetObservation::of_own_listener(known(&[], &[rsa_key(1)]).entries().keys().cloned().collect());
    let shown = |ledger: &Ledger, place| ledger.entries()[rsa_key(1).kid()].shown.get(place).copied();
    let ledger = known(&[], &[rsa_key(1)]);
    let ledger = ledger.observe_target("eu", &look, Some(START)).observe_target("us", &look, Some(START));
    // Nothing is switched during a hold.
    let held = ledger.observe_revision("eu", 40, START, wait());
    assert_eq!(shown(&held, "eu"), Some(START));
    let over = START + wait() + MINUTE;
    let again = held.observe_revision("eu", 50, over, wait());
    assert!(!again.is_held(over));
    assert_eq!((shown(&again, "eu"), shown(&again, "us")), (None, Some(START)));
    assert_eq!(shown(&again.observe_target("eu", &look, Some(over)), "eu"), Some(over));
}

#[test]
fn a_forged_sequence_costs_one_retention_and_nothing_else() {
    let ledger = after(&known(&[], &[rsa_key(1)]), &[2], START);
    for forged in [u64::MAX, MAX_SEQUENCE, MAX_WITNESSED + 1] {
        assert_eq!(ledger, ledger.observe_revision("eu", forged, START, wait()));
    }
    // The largest accepted sequence leaves room for every change that follows.
    let mut forged = ledger.observe_revision("eu", MAX_WITNESSED, START, wait());
    assert_eq!(forged, forged.observe_revision("eu", u64::MAX, START, wait()));
    assert_eq!(Ok(forged.clone()), Ledger::parse(&forged.to_json()));
    forged = after(&forged, &[2, 3], START);
    assert!(forged.sequence() < MAX_SEQUENCE / 2 + 5);

    // Repeatedly, a minute apart: the key is removed anyway.
    let mut held = ledger;
    let mut now = START;
    while is_public(&held, 1) {
        assert!(now < START + 2 * wait() + MINUTE, "held for ever");
        held = held.observe_revision("eu", held.sequence() + 1, now, wait());
        held = after(&held, &[2], now);
        now += MINUTE;
    }
    assert!(now >= START + wait());
}

#[test]
fn a_sequence_that_cannot_be_is_damage() {
    let json = String::from_utf8(known(&[], &[rsa_key(1)]).to_json()).expect("UTF-8");
    let absurd = json.replace("\"sequence\": 1,", "\"sequence\": 18446744073709551615,");
    assert_ne!(json, absurd);
    assert!(matches!(Ledger::parse(absurd.as_bytes()), Err(InvalidDocument::Damaged { .. })));
}

#[test]
fn strangers_do_not_fill_the_ledger() {
    let unmanaged_keys: Vec<Jwk> = (1..=110).map(rsa_key).collect();
    let ledger = known(&[], &[rsa_key(0)]);
    let [one, other] = [&unmanaged_keys[..60], &unmanaged_keys[60..]];
    let full = ledger.observe_unmanaged("eu", one, START).observe_unmanaged("us", other, START);
    assert_eq!(100, full.unmanaged_keys().len());
}

/// A ledger with all its earlier states.
fn histories() -> impl Strategy<Value = Vec<Ledger>> {
    let lists = prop::collection::vec((prop::collection::btree_set(0..5_usize, 1..4), 0..90_u32), 1..20);
    lists.prop_map(|lists| {
        let mut now = START;
        let mut history = vec![known(&[], &[rsa_key(0)])];
        for (listed, minutes) in lists {
            now += minutes * MINUTE;
            let keys: Vec<usize> = listed.into_iter().collect();
            history.push(after(history.last().expect("one"), &keys, now));
        }
        history
    })
}

proptest! {
    /// Whatever part of the history is known and whatever part is found, edited or not: a public key is lost
    /// only by a recorded removal, no tombstone is lost, and a second reconciliation changes nothing.
    #[test]
    fn no_way_back_loses_anything(
        history in histories(),
        (known, found) in (any::<prop::sample::Index>(), any::<prop::sample::Index>()),
        edits in prop::collection::vec((0..5_usize, any::<bool>()), 0..3),
        raise in prop::option::of(0..1000_u64),
    ) {
        let (known, whole) = (known.get(&history), found.get(&history));
        let found = edited(whole, |json| {
            for (index, vanish) in &edits {
                let kid = rsa_key(*index).kid().to_string();
                let keys = json["keys"].as_object_mut().expect("keys");
                if *vanish {
                    keys.remove(&kid);
                } else if let Some(entry) = keys.get_mut(&kid) {
                    entry["state"] = serde_json::json!({ "removed": { "at": START } });
                }
            }
            if let Some(raise) = raise {
                json["sequence"] = raise.into();
            }
        });
        let now = START + 10_000 * MINUTE;
        let result = reconciled(known, &found, now);
        prop_assert!(result.sequence() >= known.sequence().max(found.sequence()));
        for (kid, entry) in known.entries() {
            let kept = result.entries().get(kid);
            let removed = whole.entries().get(kid).is_some_and(|entry| !entry.is_public());
            let is_public = kept.is_some_and(Entry::is_public);
            prop_assert!(kept.is_some(), "{kid} vanished");
            prop_assert!(is_public || removed || !entry.is_public(), "{kid} lost");
            prop_assert!(entry.is_public() || !is_public, "{kid} came back");
        }
        prop_assert_eq!(&result, &reconciled(&result, &result, now));
        if result != found {
            prop_assert!(result.is_held(now));
            // A process that knew less takes the repaired ledger over.
            prop_assert!(reconciled(known, &result, now).sequence() >= result.sequence());
        }
    }
}
