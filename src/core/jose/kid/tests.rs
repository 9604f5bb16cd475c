use std::collections::BTreeSet;

use base64ct::{Base64, Encoding as _};
use proptest::prelude::*;
use serde_json::json;

use super::{Kid, MAX_LENGTH};
use crate::core::{
    jose::{
        jwk::Jwk,
        jwk_set::{Profile, ReceivedJwks},
        publication::{Document, Publication},
    },
    ledger::{Ledger, TargetObservation},
    signer::announcement::{AnnouncedKey, Announcement, Stage, StatementVersion},
    target_plan::{Stored, TargetContents, decide},
    tests::{at, known, node, rsa_key, terms},
};

/// Public keys and their IDs from Kubernetes' own tests (`jwt_test.go`, `openidmetadata_test.go`).
const KUBERNETES_VECTORS: [(&str, &str); 2] = [
    (
        "MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEA249XwEo9k4tM8fMxV7zx\
         OhcrP+WvXn917koM5Qr2ZXs4vo26e4ytdlrV0bQ9SlcLpQVSYjIxNfhTZdDt+ecI\
         zshKuv1gKIxbbLQMOuK1eA/4HALyEkFgmS/tleLJrhc65tKPMGD+pKQ/xhmzRuCG\
         51RoiMgbQxaCyYxGfNLpLAZK9L0Tctv9a0mJmGIYnIOQM4kC1A1I1n3EsXMWmeJU\
         j7OTh/AjjCnMnkgvKT2tpKxYQ59PgDgU8Ssc7RDSmSkLxnrv+OrN80j6xrw0OjEi\
         B4Ycr0PqfzZcvy8efTtFQ/Jnc4Bp1zUtFXt7+QeevePtQ2EcyELXE0i63T1CujRM\
         WwIDAQAB",
        "JHJehTTTZlsspKHT-GaJxK7Kd1NQgZJu3fyK6K_QDYU",
    ),
    (
        "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEH6cuzP8XuD5wal6wf9M6xDljTOPL\
         X2i8uIp/C/ASqiIGUeeKQtX0/IR3qCXyThP/dbCiHrF3v1cuhBOHY8CLVg==",
        "SoABiieYuNx4UdqYvZRVeuC6SihxgLrhLy9peHMHpTc",
    ),
];

#[test]
fn kid_of_a_key_is_the_one_kubernetes_derives() {
    for (spki, kid) in KUBERNETES_VECTORS {
        let spki = Base64::decode_vec(spki).expect("vector is base64");
        assert_eq!(kid, Kid::of_public_key(&spki).as_str());
    }
}

#[test]
fn an_empty_kid_is_refused() {
    let refusal = Kid::parse("").expect_err("empty");
    assert_eq!("key ID has 0 characters, expected 1 to 1024", refusal.to_string());
}

#[test]
fn a_kid_draws_nothing_where_people_see_it_and_stays_as_it_is_elsewhere() {
    let kid = Kid::parse("a\u{1b}[2Jb").expect("any text is one");
    assert_eq!("a<U+001B>[2Jb", kid.to_string());
    assert_eq!("a\u{1b}[2Jb", kid.as_str());
    assert_eq!("\"a\\u001b[2Jb\"", serde_json::to_string(&kid).expect("text"));
}

#[test]
fn a_kid_is_one_word_to_a_shell() {
    for (kid, argument) in [
        ("JHJehTTTZlsspKHT-GaJ", "JHJehTTTZlsspKHT-GaJ"),
        ("-a", "-- -a"),
        ("a\tb", "'a<U+0009>b'"),
        ("$(reboot)", "'$(reboot)'"),
        ("a';b", r"'a'\'';b'"),
    ] {
        assert_eq!(argument, Kid::parse(kid).expect("any text is one").as_argument());
    }
}

/// A key under a kid that another party chose.
fn named(kid: &str) -> Jwk {
    let mut jwk = json!(rsa_key(1));
    jwk["kid"] = json!(kid);
    Jwk::from_json(&jwk).expect("any text is a kid")
}

fn any_kid() -> impl Strategy<Value = String> {
    let text =
        prop_oneof![any::<String>(), "[\\x00-\\x20\u{7f}-\u{9f}\u{202a}-\u{202e}<>+U0-9`\"'$(){}/.-]{1,40}"];
    text.prop_filter("it has 1 to 1024 characters", |text| (1..=MAX_LENGTH).contains(&text.chars().count()))
}

proptest! {
    /// Escaping for display never affects what is stored, published or announced.
    #[test]
    fn any_kid_survives_publication_and_storage(text in any_kid()) {
        let key = named(&text);
        prop_assert_eq!(&text, key.kid().as_str());

        let listed = known(&[], &[key.clone(), rsa_key(2)]);
        let view = BTreeSet::from([key.kid().clone()]);
        let shown = listed.observe_target("blob", &TargetObservation::of_own_listener(view), Some(at(5)));
        let strange = known(&[], &[rsa_key(2)]).observe_unmanaged("blob", std::slice::from_ref(&key), at(6));
        for ledger in [shown, strange] {
            prop_assert_eq!(&ledger, &Ledger::parse(&ledger.to_json()).expect("it was just written"));
        }

        let publication = Publication::render(&terms(), Profile::All, [key.clone()]).expect("one key");
        let jwks = publication.bytes(Document::Jwks);
        let read = ReceivedJwks::parse(jwks).expect("it was just rendered");
        prop_assert_eq!((vec![key.clone()], true), (read.keys, read.left_out.is_empty()));
        let raw: serde_json::Value = serde_json::from_slice(jwks).expect("JSON");
        prop_assert_eq!(&raw["keys"][0]["kid"], &json!(text));

        let stored = Stored { bytes: jwks.to_vec(), lineage: None, headers: None };
        let found = TargetContents { jwks: Some(stored), ..TargetContents::default() };
        let plan = decide(&found, &known(&[], &[rsa_key(2)]), &terms(), Profile::All, false);
        prop_assert_eq!(vec![key.clone()], plan.expect("it is nobody's").unmanaged_keys);

        let stage = Stage::Active { since: at(1) };
        let announced = AnnouncedKey { jwk: key, stage, excluded_from_discovery: false };
        let word = StatementVersion { at: at(2), observed_order: None };
        let announcement = Announcement::new(node("n"), terms().issuer, word, [announced]);
        let again = Announcement::parse(&announcement.to_json());
        prop_assert_eq!(Ok(announcement), again);
    }
}
