use super::*;
use crate::core::{
    ledger::{
        ChangeKind, TargetObservation,
        merge::{SourceAnswer, SourceReport, merge},
    },
    tests::{known, retention, rsa_key},
};

fn store() -> ConfigMapStore {
    ConfigMapStore::new("team".to_owned(), "ledger".to_owned(), Access::default())
}

fn object(json: serde_json::Value) -> ConfigMap {
    serde_json::from_value(json).expect("a ConfigMap")
}

fn text(ledger: &Ledger) -> String {
    String::from_utf8(ledger.to_json()).expect("UTF-8")
}

fn found(data: &serde_json::Value) -> Result<StoredLedger, StoreError> {
    store().found(object(serde_json::json!({ "metadata": {}, "data": data }))).map(|stored| stored.found)
}

#[test]
fn what_a_config_map_holds_is_told_apart() {
    let (ledger, cut) = (Arc::new(known(&[], &[rsa_key(1)])), "{\"version\":");
    let whole = serde_json::json!({ LEDGER: text(&ledger), PREVIOUS: "x", "other": "y" });
    assert_eq!(StoredLedger::Ledger(Arc::clone(&ledger)), found(&whole).expect("usable"));
    let truncated = serde_json::json!({ LEDGER: cut, PREVIOUS: text(&ledger) });
    assert_eq!(StoredLedger::Previous(Arc::clone(&ledger)), found(&truncated).expect("usable"));
    let gone = serde_json::json!({ PREVIOUS: text(&ledger) });
    assert_eq!(StoredLedger::Previous(Arc::clone(&ledger)), found(&gone).expect("usable"));
    let damaged = found(&serde_json::json!({ LEDGER: cut })).expect("memory may help");
    assert!(matches!(damaged, StoredLedger::Damaged(_)));
    assert_eq!(StoredLedger::Nothing, found(&serde_json::json!({})).expect("made ahead by the operator"));
    let newer = text(&ledger).replace("\"version\": 2", "\"version\": 3");
    let newer = found(&serde_json::json!({ LEDGER: newer, PREVIOUS: text(&ledger) }));
    assert!(matches!(newer, Err(StoreError::Invalid { .. })));
    let foreign = found(&serde_json::json!({ "a": "1", "b": "2" })).expect_err("somebody else's").to_string();
    assert_eq!("ConfigMap `team/ledger` holds `a`, `b` and no `ledger.json`", foreign);
}

#[test]
fn an_object_is_filled_and_what_others_wrote_stays() {
    let ledger = known(&[], &[rsa_key(1)]);
    let before = object(serde_json::json!({
        "metadata": {
            "name": "ledger", "namespace": "team", "resourceVersion": "7", "uid": "u",
            "labels": { "theirs": "1" }, "finalizers": ["theirs/f"],
        },
        "data": { LEDGER: text(&ledger), "theirs": "stays" },
    }));
    let next = text(&next(&ledger));
    let filled = store().filled(before, next.clone(), ledger.issuer()).expect("small");
    assert_eq!(
        (Some("7"), Some("u")),
        (filled.metadata.resource_version.as_deref(), filled.metadata.uid.as_deref())
    );
    assert_eq!(Some(vec!["theirs/f".to_owned()]), filled.metadata.finalizers);
    let labels = filled.metadata.labels.expect("labels");
    assert_eq!(("1", "signpost"), (labels["theirs"].as_str(), labels["app.kubernetes.io/name"].as_str()));
    let data = filled.data.expect("data");
    assert_eq!((next.as_str(), "stays"), (data[LEDGER].as_str(), data["theirs"].as_str()));
    assert_eq!(text(&ledger), data[PREVIOUS]);
}

#[test]
fn the_version_before_gives_way_to_a_large_ledger_and_a_larger_one_is_refused() {
    let ledger = known(&[], &[rsa_key(1)]);
    let before = || object(serde_json::json!({ "metadata": {}, "data": { LEDGER: text(&ledger) } }));
    // Trailing white space in JSON is ignored.
    let fill = |bytes: usize| {
        let next = text(&next(&ledger));
        let padding = " ".repeat(bytes.saturating_sub(next.len()));
        store().filled(before(), next + &padding, ledger.issuer())
    };
    assert!(fill(0).expect("small").data.expect("data").contains_key(PREVIOUS));
    assert!(!fill(MAX_DATA).expect("fits alone").data.expect("data").contains_key(PREVIOUS));
    let error = fill(MAX_DATA + 1).expect_err("too large");
    assert!(matches!(error, StoreError::TooLarge { bytes, .. } if bytes == MAX_DATA + 1), "{error}");
}

fn next(ledger: &Ledger) -> Ledger {
    ledger.observe_target(
        "place",
        &TargetObservation::of_own_listener(ledger.entries().keys().cloned().collect()),
        Some(jiff::Timestamp::UNIX_EPOCH),
    )
}

/// The figures of `docs/operations.md`: a hundred public keys and the tombstones that fit beside them.
#[test]
fn more_than_a_thousand_tombstones_fit() {
    let of = |count: usize| {
        let keys: Vec<_> = (0..count).map(rsa_key).collect();
        let ledger = known(&[], &keys[..1]);
        let reports = [SourceReport { source: "a".to_owned(), answer: SourceAnswer::Keys(keys) }];
        let mut ledger =
            ledger.observe(&merge(&ledger, &reports), jiff::Timestamp::UNIX_EPOCH, &retention()).ledger;
        assert_eq!(ChangeKind::Appeared, ledger.changes()[0].kind);
        for place in ["https://account.blob.core.windows.net/$web", "s3://bucket/prefix", "http"] {
            let look = TargetObservation::of_own_listener(ledger.entries().keys().cloned().collect());
            ledger = ledger.observe_target(place, &look, Some(jiff::Timestamp::UNIX_EPOCH));
        }
        ledger.to_json().len()
    };
    let removed: Vec<_> = (0..100).map(|index| rsa_key(index).kid().clone()).collect();
    let keys: Vec<_> = (0..100).map(rsa_key).collect();
    let tombstone = known(&removed, &keys).to_json().len() / 100;
    let public = of(100);
    let fit = (MAX_DATA - public) / tombstone;
    let beside = (MAX_DATA / 2 - public) / tombstone;
    assert!(public < 93 * 1024 && fit >= 1300 && beside >= 580, "{public} {tombstone} {fit} {beside}");
}

#[test]
fn hints_are_commands_for_exactly_this_config_map() {
    let message =
        r#"configmaps "ledger" is forbidden: User "system:serviceaccount:team:signpost" cannot get resource"#;
    let hint = store().hint(&Method::GET, StatusCode::FORBIDDEN, Some(message)).expect("a hint");
    assert_eq!(
        hint,
        "let it keep its ledger: `kubectl create role signpost-ledger --namespace=team --verb=get,update \
         --resource=configmaps --resource-name=ledger && kubectl create rolebinding signpost-ledger \
         --namespace=team --role=signpost-ledger --serviceaccount=team:signpost`"
    );
    let hint = store().hint(&Method::POST, StatusCode::FORBIDDEN, Some(message)).expect("a hint");
    assert_eq!(hint, "make it, empty: `kubectl create configmap ledger --namespace=team`");
}
