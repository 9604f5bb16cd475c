//! Documents that an earlier version has stored are read with the same meaning, and written in the current
//! format.

use crate::core::{
    ledger::{IncidentKind, Ledger},
    signer::{
        Journal,
        announcement::{Announcement, SignedAnnouncement},
    },
};

/// Written by `signpost` before the members of format 2 had their names: a key was rotated, the target had a
/// foreign key, a backup was restored, a key was revoked for a new one, and a rotation was requested.
const LEDGER: &[u8] = include_bytes!("../../../tests/vectors/stored/version-1/ledger.json");
const JOURNAL: &[u8] = include_bytes!("../../../tests/vectors/stored/version-1/signer.json");
const ANNOUNCEMENT: &[u8] = include_bytes!("../../../tests/vectors/stored/version-1/announcement.json");

#[test]
fn each_version_has_its_own_names() {
    let refused = |json: &str, reason: &str| {
        let error = Ledger::parse(json.as_bytes()).expect_err(reason).to_string();
        assert!(error.starts_with(&format!("damaged ledger: {reason}")), "{error}");
        let expected = error.split_once("expected").map_or("", |(_, expected)| expected);
        assert!(!expected.contains("stranger"), "{error}");
    };
    let of_2 = String::from_utf8(Ledger::parse(LEDGER).expect("it is read").to_json()).expect("JSON");
    refused(&text(LEDGER).replace("\"strangers\"", "\"unmanaged_keys\""), "unknown field `unmanaged_keys`");
    refused(&of_2.replace("\"unmanaged_keys\"", "\"strangers\""), "unknown field `strangers`");
    refused(&of_2.replace("unmanaged_key_found", "stranger_found"), "unknown variant `stranger_found`");
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("JSON")
}

#[test]
fn a_ledger_of_version_1_is_read_whole() {
    let ledger = Ledger::parse(LEDGER).expect("it is read");
    assert_eq!(ledger.entries().len(), 3);
    assert_eq!(ledger.unmanaged_keys().len(), 1);
    assert!(ledger.retention_hold().is_some());
    assert!(
        matches!(&ledger.incidents()[0].kind, IncidentKind::Restored { seen_by, .. } if seen_by == "memory")
    );
    assert_eq!(ledger.rotation_request().map(|request| request.without.len()), Some(1));
    let node = "embedded".parse().expect("a name");
    assert!(ledger.propagation_waived(&node).is_some() && ledger.observed_order(&node).is_some());
    assert!(ledger.changes().iter().any(|change| change.kind.name() == "unmanaged key found"));

    let written = ledger.to_json();
    for old in [
        "strangers",
        "wish",
        "words",
        "marks",
        "waived",
        "hold",
        "what",
        "witness",
        "stranger_found",
        "heard",
    ] {
        let old = format!("\"{old}\"");
        assert!(text(LEDGER).contains(&old), "the sample has no {old}");
        assert!(!text(&written).contains(&old), "{old} is still written");
    }
    assert!(text(&written).contains("\"version\": 2"));
    assert_eq!(Ledger::parse(&written), Ok(ledger));
}

#[test]
fn a_journal_of_version_1_is_read_whole() {
    let journal = Journal::parse(JOURNAL).expect("it is read");
    assert_eq!(journal.keys().len(), 3);
    assert!(journal.observed_order().is_some());
    assert_eq!(journal.keys().values().filter(|key| key.external_audiences).count(), 2);
    assert!(journal.keys().values().any(|key| key.latest_exp_bound.is_some()));

    let written = journal.to_json();
    for old in ["outside", "horizon", "internal_horizon", "withdrawn", "heard", "said", "legacy"] {
        let old = format!("\"{old}\"");
        assert!(text(JOURNAL).contains(&old), "the sample has no {old}");
        assert!(!text(&written).contains(&old), "{old} is still written");
    }
    assert_eq!(Journal::parse(&written).expect("it is read again"), journal);
}

#[test]
fn an_announcement_of_version_1_keeps_its_signatures() {
    let signed = SignedAnnouncement::read(ANNOUNCEMENT).expect("it is read");
    assert_eq!(signed.signed_by().len(), 3);
    assert!(signed.announcement().version().observed_order.is_some());

    let written = signed.announcement().to_json();
    assert!(!text(&written).contains("\"word\"") && text(&written).contains("\"statement\""));
    assert_eq!(Announcement::parse(&written).expect("it is read again"), *signed.announcement());
}
