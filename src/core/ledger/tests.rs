use std::collections::BTreeSet;

use jiff::Timestamp;
use serde_json::json;

use crate::core::{
    jose::{
        jwk::Jwk,
        jwk_set::{MAX_KEYS, ReceivedJwks},
        kid::Kid,
        left_out::Unreadable,
        stored::InvalidDocument,
    },
    ledger::{
        AdoptionError, ChangeKind, EntryState, KeyRefusal, Ledger, TargetObservation,
        merge::{SourceAnswer, SourceReport, merge},
    },
    tests::{impostor, known, retention, rsa_key},
};

const START: Timestamp = Timestamp::UNIX_EPOCH;

/// The ledger after its one source lists these keys.
fn after(ledger: &Ledger, keys: &[Jwk], now: Timestamp) -> Ledger {
    let reports = [SourceReport { source: "a".to_owned(), answer: SourceAnswer::Keys(keys.to_vec()) }];
    ledger.observe(&merge(ledger, &reports), now, &retention()).ledger
}

fn state(ledger: &Ledger, key: &Jwk) -> EntryState {
    ledger.entries()[key.kid()].state
}

fn is_public(ledger: &Ledger, key: &Jwk) -> bool {
    ledger.public_keys().any(|public| public == key)
}

#[test]
fn a_key_stays_public_for_a_full_retention_after_nobody_lists_it_and_not_longer() {
    let both = known(&[], &[rsa_key(1), rsa_key(2)]);
    let missing = after(&both, &[rsa_key(2)], START);
    assert_eq!(EntryState::Missing { since: START }, state(&missing, &rsa_key(1)));
    let over = START + retention().wait();
    let last_second = over - std::time::Duration::from_secs(1);
    assert!(is_public(&after(&missing, &[rsa_key(2)], last_second), &rsa_key(1)));
    let removed = after(&missing, &[rsa_key(2)], over);
    assert!(!is_public(&removed, &rsa_key(1)));
    assert_eq!(ChangeKind::Removed, removed.changes().last().expect("recorded").kind);
}

#[test]
fn nothing_is_removed_while_a_witness_of_the_ledger_has_not_been_heard() {
    let missing = after(&known(&[], &[rsa_key(1), rsa_key(2)]), &[rsa_key(2)], START);
    let over = START + retention().wait();
    let reports = [SourceReport { source: "a".to_owned(), answer: SourceAnswer::Keys(vec![rsa_key(2)]) }];
    let mut merged = merge(&missing, &reports);
    merged.may_remove = false;
    assert_eq!(missing, missing.observe(&merged, over, &retention()).ledger);
    merged.may_remove = true;
    assert!(!is_public(&missing.observe(&merged, over, &retention()).ledger, &rsa_key(1)));
}

#[test]
fn a_key_that_returns_starts_a_new_retention_when_it_leaves_again() {
    let missing = after(&known(&[], &[rsa_key(1), rsa_key(2)]), &[rsa_key(2)], START);
    let later = START + retention().wait() / 2;
    let returned = after(&missing, &[rsa_key(1), rsa_key(2)], later);
    assert_eq!(EntryState::Listed, state(&returned, &rsa_key(1)));
    let gone = after(&returned, &[rsa_key(2)], later);
    assert_eq!(EntryState::Missing { since: later }, state(&gone, &rsa_key(1)));
}

#[test]
fn a_tombstone_is_not_brought_back_by_a_source_but_by_the_operator() {
    let missing = after(&known(&[], &[rsa_key(1), rsa_key(2)]), &[rsa_key(2)], START);
    let over = START + retention().wait();
    let removed = after(&missing, &[rsa_key(2)], over);
    let reports =
        [SourceReport { source: "a".to_owned(), answer: SourceAnswer::Keys(vec![rsa_key(1), rsa_key(2)]) }];
    let observed = removed.observe(&merge(&removed, &reports), over, &retention());
    assert_eq!(Some(&KeyRefusal::Tombstone), observed.refused.get(rsa_key(1).kid()));
    assert!(!is_public(&observed.ledger, &rsa_key(1)));
    let adopted = removed.adopt(rsa_key(1).kid(), over).expect("was removed");
    assert_eq!(EntryState::Missing { since: over }, state(&adopted, &rsa_key(1)));
}

/// The report of one source with this JWKS.
fn said(jwks: &serde_json::Value) -> SourceReport {
    let ReceivedJwks { keys, left_out } = ReceivedJwks::parse(jwks.to_string().as_bytes()).expect("a JWKS");
    SourceReport { source: "a".to_owned(), answer: SourceAnswer::of(keys, Unreadable::of(&left_out)) }
}

#[test]
fn a_key_that_turned_odd_is_unreadable_and_not_missing() {
    let both = known(&[], &[rsa_key(1), rsa_key(2)]);
    let long_after = START + 10 * retention().wait();
    let with = |member: &str, value: serde_json::Value| {
        let mut odd = json!(rsa_key(1));
        odd[member] = value;
        said(&json!({"keys": [rsa_key(2), odd]}))
    };
    let turned = [
        with("kid", json!("")),
        with("kid", json!(5)),
        with("kid", json!("x".repeat(2000))),
        with("n", json!("=")),
        with("e", json!(null)),
        with("kty", json!("AKP")),
        with("use", json!("enc")),
        said(&json!({"keys": [rsa_key(2), 5]})),
    ];
    for report in turned {
        let pass = |ledger: &Ledger, now| ledger.observe(&merge(ledger, [&report]), now, &retention()).ledger;
        let kept = pass(&pass(&both, START), long_after);
        assert_eq!((EntryState::Listed, &both), (state(&kept, &rsa_key(1)), &kept), "{report:?}");
        let missing = after(&both, &[rsa_key(2)], START);
        assert!(is_public(&pass(&missing, long_after), &rsa_key(1)), "{report:?}");
    }
    let another = said(&json!({"keys": [rsa_key(2), {"kty": "RSA", "kid": "another", "n": "="}]}));
    let gone = both.observe(&merge(&both, [&another]), START, &retention()).ledger;
    assert_eq!(
        EntryState::Missing { since: START },
        state(&gone, &rsa_key(1)),
        "it is none of those that are odd"
    );
}

#[test]
fn the_last_key_of_a_profile_is_never_removed() {
    let ec = Jwk::of_public_key(crate::core::tests::ec_key());
    let ledger = known(&[], &[rsa_key(1), ec.clone()]);
    let missing = after(&ledger, std::slice::from_ref(&ec), START);
    let long_after = after(&missing, &[ec], START + 10 * retention().wait());
    assert!(is_public(&long_after, &rsa_key(1)), "profile `entra` would be left without a key");
}

#[test]
fn more_keys_than_relying_parties_read_are_refused_and_the_others_stay() {
    let all: Vec<Jwk> = (0..=MAX_KEYS).map(rsa_key).collect();
    let full = known(&[], &all[..MAX_KEYS]);
    let reports = [SourceReport { source: "a".to_owned(), answer: SourceAnswer::Keys(all.clone()) }];
    let observed = full.observe(&merge(&full, &reports), START, &retention());
    assert_eq!(Some(&KeyRefusal::TooMany), observed.refused.get(all[MAX_KEYS].kid()));
    assert_eq!(MAX_KEYS, observed.ledger.public_keys().count());
}

#[test]
fn the_rightful_key_replaces_one_that_only_claimed_its_kid() {
    let fooled = known(&[], &[impostor(1)]);
    let honest = after(&fooled, &[rsa_key(1)], START);
    assert_eq!(Some(&rsa_key(1)), honest.key(rsa_key(1).kid()));
    assert_eq!(ChangeKind::Replaced, honest.changes().last().expect("recorded").kind);
}

#[test]
fn a_place_that_stops_showing_a_key_starts_its_time_anew() {
    let kids = BTreeSet::from([rsa_key(1).kid().clone()]);
    let later = START + retention().margin;
    let shown = known(&[], &[rsa_key(1)]).observe_target(
        "blob",
        &TargetObservation::of_own_listener(kids.clone()),
        Some(START),
    );
    assert_eq!(
        shown,
        shown.observe_target("blob", &TargetObservation::of_own_listener(kids.clone()), Some(later)),
        "nothing new, nothing written"
    );
    let gap = shown.observe_target("blob", &TargetObservation::default(), Some(later));
    let again = gap.observe_target("blob", &TargetObservation::of_own_listener(kids.clone()), Some(later));
    assert_eq!(later, again.entries()[rsa_key(1).kid()].shown["blob"]);
}

#[test]
fn strangers_stay_out_of_the_publication_until_they_are_adopted() {
    let met = known(&[], &[rsa_key(1)]).observe_unmanaged("blob", &[rsa_key(9)], START);
    assert!(!is_public(&met, &rsa_key(9)));
    assert_eq!(met, met.observe_unmanaged("blob", &[rsa_key(9)], START), "met once");
    let adopted = met.adopt(rsa_key(9).kid(), START).expect("met");
    assert!(is_public(&adopted, &rsa_key(9)));
    assert!(adopted.unmanaged_keys().is_empty());
}

#[test]
fn adopting_needs_a_key_that_is_known_and_not_public() {
    let ledger = known(&[], &[rsa_key(1)]);
    let public = rsa_key(1).kid().clone();
    assert_eq!(Err(AdoptionError::AlreadyPublic { kid: public.clone() }), ledger.adopt(&public, START));
    let unknown = Kid::parse("nobody").expect("valid");
    assert_eq!(Err(AdoptionError::Unknown { kid: unknown.clone() }), ledger.adopt(&unknown, START));
}

#[test]
fn a_ledger_of_a_newer_version_is_told_from_a_damaged_one() {
    let json = String::from_utf8(known(&[], &[rsa_key(1)]).to_json()).expect("JSON");
    let parse = |text: &str| Ledger::parse(text.as_bytes());
    assert!(parse(&json).is_ok());
    let newer = json.replace("\"version\": 2", "\"version\": 3").replace("\"keys\"", "\"something_new\"");
    assert_eq!(Err(InvalidDocument::Newer { kind: "ledger", version: 3 }), parse(&newer));
    for damaged in [&json[..json.len() / 2], "", "[]", &json.replace("\"lineage\": \"", "\"lineage\": \"a b")]
    {
        assert!(matches!(parse(damaged), Err(InvalidDocument::Damaged { .. })), "{damaged}");
    }
}

#[test]
fn an_entry_under_another_kid_is_damage() {
    let ledger = known(&[], &[rsa_key(1)]);
    let json = String::from_utf8(ledger.to_json()).expect("JSON");
    let moved = json.replacen(rsa_key(1).kid().as_str(), "other", 1);
    let damage = Ledger::parse(moved.as_bytes()).expect_err("moved").to_string();
    assert_eq!(format!("damaged ledger: entry `other` holds key `{}`", rsa_key(1).kid()), damage);
}
