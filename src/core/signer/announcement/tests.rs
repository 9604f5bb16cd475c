use super::*;
use crate::core::tests::{at, rsa_key};

fn key(index: usize, stage: Stage) -> AnnouncedKey {
    AnnouncedKey { jwk: rsa_key(index), stage, excluded_from_discovery: false }
}

#[test]
fn a_node_is_named_as_kubernetes_names_nodes() {
    for name in ["n", "node-1", "ip-10-0-0-1.eu.example", &"a".repeat(MAX_NAME)] {
        assert_eq!(NodeName::parse(name).expect(name).as_str(), name);
    }
    for name in ["", "Node", "-a", "a-", "a..b", ".a", "a_b", "a/b", "a b", &"a".repeat(MAX_NAME + 1)] {
        let error = NodeName::parse(name).expect_err(name).to_string();
        assert!(error.contains("is not a node name"), "{error}");
    }
}

#[test]
fn a_key_is_listed_until_its_last_token_is_dead() {
    let margin = Duration::from_secs(10);
    let stages = [
        (Stage::Standby { since: at(0) }, i64::MAX),
        (Stage::Active { since: at(0) }, i64::MAX),
        (Stage::Retired { since: at(100), latest_exp: Some(at(500)) }, 510),
        // A clock that was set back, or a key that signed nothing.
        (Stage::Retired { since: at(100), latest_exp: Some(at(50)) }, 110),
        (Stage::Retired { since: at(100), latest_exp: None }, 110),
    ];
    for (stage, until) in stages {
        let announcement = Announcement::new(
            NodeName::parse("a").expect("a name"),
            Issuer::parse("https://issuer.example").expect("an issuer"),
            StatementVersion { at: at(0), observed_order: None },
            [key(0, stage)],
        );
        for (now, listed) in [(0, true), (until.min(600) - 1, true), (until.min(600), until > 600)] {
            assert_eq!(announcement.listed(at(now), margin).count() == 1, listed, "{stage:?} at {now}");
        }
    }
}

#[test]
fn an_announcement_survives_being_stored() {
    let announcement = Announcement::new(
        NodeName::parse("node-1").expect("a name"),
        Issuer::parse("https://issuer.example").expect("an issuer"),
        StatementVersion { at: at(5), observed_order: Some(at(4)) },
        [
            key(0, Stage::Standby { since: at(1) }),
            key(1, Stage::Active { since: at(2) }),
            AnnouncedKey {
                excluded_from_discovery: true,
                ..key(2, Stage::Retired { since: at(3), latest_exp: Some(at(4)) })
            },
        ],
    );
    let other = NodeName::parse("node-2").expect("a name");
    let announcement = announcement.admitting([(other, BTreeSet::from([rsa_key(3).kid().clone()]))].into());
    let json = announcement.to_json();
    assert_eq!(Announcement::parse(&json), Ok(announcement));

    let text = String::from_utf8(json).expect("JSON is text");
    let newer = text.replace("\"version\": 2", "\"version\": 3");
    assert_eq!(
        Announcement::parse(newer.as_bytes()),
        Err(InvalidDocument::Newer { kind: "announcement", version: 3 })
    );
    let kid = rsa_key(0).kid().to_string();
    let misnamed = text.replacen(&format!("\"{kid}\": {{"), "\"other\": {", 1);
    let error = Announcement::parse(misnamed.as_bytes()).expect_err("misnamed").to_string();
    assert_eq!(error, format!("damaged announcement: entry `other` holds key `{kid}`"));
    for damaged in [&text[..text.len() / 2], "", "[]", &text.replace("standby", "asleep")] {
        assert!(matches!(Announcement::parse(damaged.as_bytes()), Err(InvalidDocument::Damaged { .. })));
    }
}

#[test]
fn whoever_says_that_a_token_lives_for_ever_keeps_a_key_and_breaks_nothing() {
    let stage = Stage::Retired { since: at(0), latest_exp: Some(Timestamp::MAX) };
    assert_eq!(stage.unneeded_after(Duration::from_hours(1)), Some(Timestamp::MAX));
}
