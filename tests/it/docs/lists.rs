//! Compares the lists of docs/operations.md with the code: metrics, members of the status, states of keys,
//! Events.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use serde_json::Value;
use signpost::{
    core::{
        entra::{ExchangeAnswer, TokenAnswer},
        events::event::Reason,
        jose::{issuer::Issuer, jwk_set::Profile, kid::Kid},
        ledger::{EntryState, Ledger, Lineage, Order, OrderReason},
        rotation::NodeStatus,
        signer::announcement::NodeName,
        verification::{self, Party},
    },
    telemetry::{
        event_source::EventQueue,
        issuer_status::Traffic,
        signer_metrics::{SignerMetrics, SignerState},
        status::StatusStore,
    },
};

use super::markdown::{page, quoted, table};

#[test]
fn every_metric_is_explained_and_no_other() {
    let operations = page("docs/operations.md");
    let rows = table(&operations, "| metric | type | labels | meaning |");
    let explained: BTreeSet<_> = rows.iter().flat_map(|row| quoted(&row[0])).collect();
    assert_eq!(explained, metrics());
    for word in operations.text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_') {
        assert!(!word.starts_with("signpost_") || explained.contains(word), "there is no metric `{word}`");
    }
}

/// The status of a process with every kind of entry.
fn board() -> StatusStore {
    let board = StatusStore::with_events(EventQueue::default());
    board.configuration_read(jiff::Timestamp::UNIX_EPOCH);
    let issuer = Issuer::parse("https://issuer.example").expect("an issuer");
    board.source(&issuer, "kubernetes", |source| {
        source.last_success = Some(jiff::Timestamp::UNIX_EPOCH);
        source.issuer_matches = Some(true);
        source.signing_key_public = Some(true);
        source.signing_key_ready = Some(true);
        source.signs_with = Some("a".to_owned());
        source.error = Some("words".to_owned());
    });
    board.issuer(&issuer, |status| status.previous_issuers.push("https://former.example".to_owned()));
    let at = jiff::Timestamp::UNIX_EPOCH;
    let node = NodeStatus {
        order: Some(Order { sign: Kid::parse("a").expect("a kid"), at, reason: OrderReason::First }),
        active_keys: Vec::new(),
        next: Some("b".to_owned()),
        due: Some(at),
        blocked_by: Vec::new(),
        not_before: Some(at),
    };
    board.issuer(&issuer, |status| drop(status.nodes.insert("node".to_owned(), node)));
    let now = jiff::Timestamp::UNIX_EPOCH;
    let ledger = Ledger::new(issuer.clone(), Lineage::from_random([0; 8]));
    board.ledger(Arc::new(ledger.observe_revision("blob", 2, now, Duration::from_mins(1))), Profile::Entra);
    let outcome = verification::VerificationOutcome::Accepted;
    let judgement =
        verification::Verdict { party: Party::Entra, outcome, likely_code: None, findings: Vec::new() };
    board.verified(&issuer, at, judgement);
    board.exchanged(&issuer, at, ExchangeAnswer::Accepted);
    let body = br#"{"error": "invalid_client", "error_codes": [700213]}"#;
    let Some(TokenAnswer::Refused(refusal)) = TokenAnswer::parse(body) else { panic!("a refusal") };
    let wait = Some("words".to_owned());
    board.exchanged(&issuer, at, ExchangeAnswer::Refused { refusal: Box::new(refusal.into()), wait });
    board.not_exchanged(&issuer, "words");
    board.target(&issuer, "blob", |target| {
        target.last_in_sync = Some(jiff::Timestamp::UNIX_EPOCH);
        target.error = Some("words".to_owned());
        target.public_url = Some("stale".to_owned());
    });
    let signer = SignerMetrics::new(NodeName::parse("node").expect("a name"));
    signer.set_state(SignerState {
        keys: [("active", 1)].into(),
        observed_order: Some(now),
        ..SignerState::default()
    });
    board.signer(&issuer, Arc::new(signer));
    board.tls(|tls| tls.not_after = Some(jiff::Timestamp::UNIX_EPOCH));
    board
}

/// The names of all metrics.
fn metrics() -> BTreeSet<String> {
    let page = board().metrics(Some(Traffic { requests: vec![("jwks", 200, 1)], connections: 1 }));
    let samples = page.lines().filter(|line| !line.starts_with('#'));
    samples.filter_map(|line| Some(line.split_once(['{', ' '])?.0.to_owned())).collect()
}

#[test]
fn every_reason_of_an_event_is_explained_with_its_type_and_no_other() {
    let mut explained = BTreeMap::new();
    for row in table(&page("docs/operations.md"), "| reason | type | tells |") {
        let types: Vec<_> = row[1].split(", ").collect();
        for (number, reason) in quoted(&row[0]).into_iter().enumerate() {
            let of_type = (*types.get(number).unwrap_or(&types[0])).to_owned();
            assert_eq!(explained.insert(reason.clone(), of_type), None, "{reason} has two rows");
        }
    }
    let reasons = Reason::all().map(|reason| (reason.name(), reason.type_name().to_owned()));
    assert_eq!(explained, reasons.collect());
}

#[test]
fn every_member_of_the_status_is_explained_and_no_other() {
    let operations = page("docs/operations.md");
    let status: Value = serde_json::from_str(&board().status()).expect("JSON");
    let (_, section) = operations.text.split_once("### Status").expect("a section");
    let (introduction, section) = section.split_once("| member | is |").expect("a table");
    let named: BTreeSet<_> = quoted(introduction).into_iter().collect();
    for member in members(&status) {
        assert!(named.contains(&member), "nothing explains `{member}`");
    }
    let issuer = status["issuers"].as_object().expect("issuers").values().next().expect("one");
    let rows = table(&operations, "| member | is |");
    let explained: BTreeSet<_> = rows.iter().flat_map(|row| quoted(&row[0])).collect();
    assert_eq!(explained, members(issuer));
    // Nested members are listed in the other cell.
    for (member, within) in [
        ("ledger", &issuer["ledger"]),
        ("nodes", &issuer["nodes"]["node"]),
        ("sources", &issuer["sources"]["kubernetes"]),
        ("targets", &issuer["targets"]["blob"]),
        ("verification", &issuer["verification"]),
        ("exchange", &issuer["exchange"]),
    ] {
        let row = rows.iter().find(|row| quoted(&row[0]).contains(&member.to_owned())).expect("a row");
        let named: BTreeSet<_> = quoted(&row[1]).into_iter().collect();
        for member in members(within) {
            assert!(named.contains(&member), "nothing explains `{member}`: {row:?}");
        }
    }
    assert!(section.contains("`changes`"));
}

fn members(object: &Value) -> BTreeSet<String> {
    object.as_object().unwrap_or_else(|| panic!("{object}")).keys().cloned().collect()
}

#[test]
fn every_state_of_a_key_is_explained_and_no_other() {
    let rows = table(&page("docs/operations.md"), "| member | is |");
    let keys = rows.iter().find(|row| row[0] == "`keys`").expect("a row");
    let (_, states) = keys[1].split_once("`state` (").expect("states");
    let (states, _) = states.split_once(')').expect("they end");
    assert_eq!(quoted(states), EntryState::NAMES);
}
