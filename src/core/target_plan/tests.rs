use std::collections::BTreeSet;

use proptest::prelude::*;

use crate::core::{
    jose::{
        jwk::Jwk,
        jwk_set::Profile,
        public_key::PublicKey,
        publication::{Document, MEDIA_TYPE, Publication},
    },
    ledger::{Ledger, Lineage},
    target_plan::{
        Headers, OtherJwks, Stored, TargetContents, TargetPlan, WriteRefused, decide, other_jwks, shown_kids,
    },
    tests::{ec_key, known, rsa_key, terms},
};

fn planned(found: &TargetContents, ledger: &Ledger) -> Result<TargetPlan, WriteRefused> {
    decide(found, ledger, &terms(), Profile::Entra, false)
}

/// A target in sync with this ledger.
fn true_place(ledger: &Ledger) -> TargetContents {
    let publication =
        Publication::render(&terms(), Profile::Entra, ledger.public_keys().cloned()).expect("has keys");
    let stored = |document| {
        let headers = Headers {
            content_type: Some(MEDIA_TYPE.to_owned()),
            cache_control: Some(publication.cache_control()),
        };
        Some(Stored {
            bytes: publication.bytes(document).to_vec(),
            lineage: Some(ledger.lineage().clone()),
            headers: Some(headers),
        })
    };
    TargetContents {
        jwks: stored(Document::Jwks),
        discovery: stored(Document::Discovery),
        ..TargetContents::default()
    }
}

fn jwks_of(keys: &[Jwk]) -> Vec<u8> {
    Publication::render(&terms(), Profile::All, keys.to_vec()).expect("keys").bytes(Document::Jwks).to_vec()
}

#[test]
fn an_empty_place_gets_the_jwks_first_and_the_discovery_document_second() {
    let plan = planned(&TargetContents::default(), &known(&[], &[rsa_key(1)])).expect("free");
    assert_eq!(vec![Document::Jwks, Document::Discovery], plan.writes);
}

/// What a relying party keeps that trusts this issuer with these keys.
fn trust(issuer: &str, keys: &[Jwk]) -> TargetContents {
    let jwks = Stored { bytes: jwks_of(keys), lineage: None, headers: None };
    TargetContents { jwks: Some(jwks), trusted_issuer: Some(issuer.to_owned()), ..TargetContents::default() }
}

#[test]
fn a_relying_party_that_keeps_the_keys_gets_the_jwks_alone() {
    let ledger = known(&[], &[rsa_key(1)]);
    let issuer = terms().issuer.as_str().to_owned();
    let empty = TargetContents { trusted_issuer: Some(issuer.clone()), ..TargetContents::default() };
    assert_eq!(planned(&empty, &ledger).expect("free").writes, [Document::Jwks]);
    assert!(planned(&trust(&issuer, &[rsa_key(1)]), &ledger).expect("ours").writes.is_empty());
    let plan = planned(&trust(&issuer, &[rsa_key(2)]), &ledger).expect("kept");
    assert_eq!((plan.unmanaged_keys, plan.writes), (vec![rsa_key(2)], vec![Document::Jwks]));
    let spaced = format!(" {} ", String::from_utf8(jwks_of(&[rsa_key(1)])).expect("text")).into_bytes();
    let jwks = Some(Stored { bytes: spaced, lineage: None, headers: None });
    assert!(planned(&TargetContents { jwks, ..empty }, &ledger).expect("the same").writes.is_empty());
}

#[test]
fn a_relying_party_that_trusts_another_issuer_is_never_written() {
    let ledger = known(&[], &[rsa_key(1)]);
    let found = trust("https://other.example", &[rsa_key(2)]);
    for adopt in [false, true] {
        let refused =
            decide(&found, &ledger, &terms(), Profile::Entra, adopt).expect_err("no token is accepted");
        assert!(matches!(refused, WriteRefused::TrustsOtherIssuer { .. }), "{refused}");
    }
}

#[test]
fn a_relying_party_loses_no_key_but_those_of_the_ledger() {
    let issuer = terms().issuer.as_str().to_owned();
    // The operator's profile leaves out the second key.
    let both = trust(&issuer, &[rsa_key(1), Jwk::of_public_key(ec_key())]);
    planned(&both, &known(&[], &[rsa_key(1), Jwk::of_public_key(ec_key())])).expect("ours");
    let ledger = known(&[], &[rsa_key(1)]);
    let refused = planned(&both, &ledger).expect_err("theirs");
    assert!(matches!(refused, WriteRefused::TrustLost { .. }), "{refused}");
    let mut odd = trust(&issuer, &[rsa_key(1)]);
    odd.jwks = Some(Stored { bytes: b"<html>".to_vec(), lineage: None, headers: None });
    assert!(matches!(planned(&odd, &ledger), Err(WriteRefused::UnreadableTrust(_))));
    decide(&odd, &ledger, &terms(), Profile::Entra, true).expect("the operator says so");
}

#[test]
fn a_true_place_is_left_alone() {
    let ledger = known(&[], &[rsa_key(1)]);
    assert!(planned(&true_place(&ledger), &ledger).expect("ours").writes.is_empty());
}

#[test]
fn whatever_differs_is_written_again() {
    let ledger = known(&[], &[rsa_key(1)]);
    let differs = |change: fn(&mut Stored)| {
        let mut found = true_place(&ledger);
        change(found.jwks.as_mut().expect("stored"));
        planned(&found, &ledger).expect("ours or nobody's").writes
    };
    for change in [
        (|stored| stored.bytes = b"<html>".to_vec()) as fn(&mut Stored),
        |stored| stored.lineage = None,
        |stored| stored.headers.as_mut().expect("has them").content_type = None,
        |stored| stored.headers.as_mut().expect("has them").cache_control = Some("no-store".to_owned()),
    ] {
        assert_eq!(vec![Document::Jwks], differs(change));
    }
}

#[test]
fn a_place_of_another_lineage_is_refused_until_the_operator_adopts_it() {
    let ours = known(&[], &[rsa_key(1)]);
    let theirs = Ledger::new(terms().issuer, Lineage::from_random([7; 8]));
    let mut found = true_place(&ours);
    found.discovery.as_mut().expect("stored").lineage = Some(theirs.lineage().clone());
    let refusal = planned(&found, &ours).expect_err("theirs");
    assert!(
        matches!(&refusal, WriteRefused::OtherLineage { owner, .. } if owner == theirs.lineage()),
        "{refusal}"
    );
    let adopted = decide(&found, &ours, &terms(), Profile::Entra, true).expect("adopted");
    assert_eq!(vec![Document::Discovery], adopted.writes);
}

#[test]
fn what_was_uploaded_by_hand_is_taken_over_when_it_is_about_the_same_issuer() {
    let ledger = known(&[], &[rsa_key(1)]);
    let by_hand = |issuer: &str| {
        let document = format!(r#"{{"issuer":"{issuer}","jwks_uri":"{issuer}/openid/v1/jwks"}}"#);
        let stored =
            Stored { bytes: document.into_bytes(), lineage: None, headers: Some(Headers::default()) };
        TargetContents { discovery: Some(stored), ..TargetContents::default() }
    };
    assert!(planned(&by_hand(terms().issuer.as_str()), &ledger).is_ok());
    let refusal = planned(&by_hand("https://other.example"), &ledger).expect_err("another issuer's");
    assert_eq!(
        "it holds the discovery document of issuer `https://other.example`, expected `https://issuer.example/c1`",
        refusal.to_string()
    );
}

#[test]
fn a_key_that_only_the_place_knows_stays_there_and_a_removed_one_does_not() {
    let ledger = known(&[rsa_key(3).kid().clone()], &[rsa_key(1), rsa_key(3)]);
    let mut found = true_place(&ledger);
    found.jwks.as_mut().expect("stored").bytes = jwks_of(&[rsa_key(1), rsa_key(2), rsa_key(3)]);
    let plan = planned(&found, &ledger).expect("ours");
    assert_eq!(vec![rsa_key(2)], plan.unmanaged_keys);
    let shown: Vec<Jwk> = plan.publication.keys().iter().cloned().collect();
    assert!(shown.contains(&rsa_key(2)) && !shown.contains(&rsa_key(3)));
}

#[test]
fn nothing_is_written_when_there_is_nothing_to_publish() {
    let empty = Ledger::new(terms().issuer, Lineage::from_random([1; 8]));
    assert!(matches!(planned(&TargetContents::default(), &empty), Err(WriteRefused::Nothing(_))));
}

const ELSEWHERE: &str = "https://issuer.example/c1/keys.json";

fn by_hand(bytes: impl Into<Vec<u8>>) -> Stored {
    Stored { bytes: bytes.into(), lineage: None, headers: Some(Headers::default()) }
}

/// An issuer made by hand, with its JWKS at this URL and, if that is another one, these bytes there.
fn made_by_hand(jwks_uri: &str, other: Option<Result<Vec<u8>, String>>) -> TargetContents {
    let document = format!(r#"{{"issuer":"{}","jwks_uri":"{jwks_uri}"}}"#, terms().issuer);
    let other = other.map(|bytes| OtherJwks { uri: jwks_uri.to_owned(), bytes });
    TargetContents { discovery: Some(by_hand(document)), other, ..TargetContents::default() }
}

#[test]
fn the_jwks_that_a_document_made_by_hand_names_is_read_and_its_keys_stay() {
    let ledger = known(&[], &[rsa_key(1)]);
    assert_eq!(other_jwks(&made_by_hand(ELSEWHERE, None), &ledger, &terms()).as_deref(), Some(ELSEWHERE));
    let jwks = jwks_of(&[rsa_key(1), rsa_key(2)]);
    let plan = planned(&made_by_hand(ELSEWHERE, Some(Ok(jwks))), &ledger).expect("nobody's");
    assert_eq!(plan.unmanaged_keys, [rsa_key(2)]);
    assert_eq!(plan.moved_from.as_deref(), Some(ELSEWHERE));
    assert!(plan.publication.keys().contains(rsa_key(2).kid()));
    assert_eq!(plan.writes, Document::IN_WRITE_ORDER);
}

/// `jwks_uri` was changed in the configuration.
#[test]
fn keys_that_only_a_place_knows_move_with_its_jwks() {
    let ledger = known(&[], &[rsa_key(1)]);
    let mut found = made_by_hand(ELSEWHERE, Some(Ok(jwks_of(&[rsa_key(1), rsa_key(2)]))));
    found.discovery.as_mut().expect("stored").lineage = Some(ledger.lineage().clone());
    assert_eq!(other_jwks(&found, &ledger, &terms()).as_deref(), Some(ELSEWHERE));
    assert_eq!(planned(&found, &ledger).expect("ours").unmanaged_keys, [rsa_key(2)]);
    // A missing document needs no wait: the ledger knows everything that Signpost published.
    found.other.as_mut().expect("set").bytes = Err("status 404".to_owned());
    assert_eq!(planned(&found, &ledger).expect("ours").unmanaged_keys, []);
}

#[test]
fn no_other_jwks_is_looked_for_than_that_of_a_place_which_is_taken_over() {
    let ledger = known(&[], &[rsa_key(1)]);
    let other = |found: &TargetContents| other_jwks(found, &ledger, &terms());
    for same in ["https://issuer.example/c1/openid/v1/jwks", "https://ISSUER.example:443/c1/openid/v1/jwks"] {
        assert_eq!(other(&made_by_hand(same, None)), None, "{same}");
    }
    // An edited document of ours is repaired, and its editor adds no keys.
    let mut ours = true_place(&ledger);
    ours.discovery = made_by_hand("https://evil.example/keys", None).discovery;
    assert_eq!(other(&ours), None);
    assert_eq!(planned(&ours, &ledger).expect("ours").writes, [Document::Discovery]);
    // The keys of another issuer are not ours, even with the operator's adoption.
    let document = format!(r#"{{"issuer":"https://other.example","jwks_uri":"{ELSEWHERE}"}}"#);
    assert_eq!(
        other(&TargetContents { discovery: Some(by_hand(document)), ..TargetContents::default() }),
        None
    );
}

#[test]
fn what_cannot_be_read_is_not_taken_over_until_the_operator_says_so() {
    let ledger = known(&[], &[rsa_key(1)]);
    let own_path = terms().jwks_uri;
    let cases = [
        (made_by_hand(ELSEWHERE, Some(Err("status 403".to_owned()))), ELSEWHERE, "status 403"),
        (made_by_hand(ELSEWHERE, Some(Ok(b"<html>".to_vec()))), ELSEWHERE, "not JSON"),
        (
            TargetContents { jwks: Some(by_hand("<html>")), ..made_by_hand(&own_path, None) },
            "openid/v1/jwks",
            "not JSON",
        ),
        (
            TargetContents { discovery: Some(by_hand("{}")), ..TargetContents::default() },
            ".well-known/openid-configuration",
            "missing field `issuer`",
        ),
    ];
    for (found, what, reason) in cases {
        let refusal = planned(&found, &ledger).expect_err("it cannot be read").to_string();
        assert!(refusal.contains(&format!("`{what}` cannot be read: ")), "{refusal}");
        assert!(refusal.contains(reason), "{refusal}");
        decide(&found, &ledger, &terms(), Profile::Entra, true).expect("adopted");
    }
    // Without a discovery document no relying party finds it.
    planned(&TargetContents { jwks: Some(by_hand("<html>")), ..TargetContents::default() }, &ledger)
        .expect("nobody's");
}

#[test]
fn a_place_whose_readers_would_miss_keys_is_not_taken_over_until_the_operator_says_so() {
    let ledger = known(&[rsa_key(4).kid().clone()], &[rsa_key(1), rsa_key(4)]);
    let ec = Jwk::of_public_key(ec_key());
    let shown = |jwks: Vec<u8>| made_by_hand(ELSEWHERE, Some(Ok(jwks)));
    let found = shown(jwks_of(&[rsa_key(1), ec.clone()]));
    assert_eq!(
        planned(&found, &ledger).expect_err("an EC key for Entra").to_string(),
        format!("Signpost has not published there yet, and its readers would lose `{}` (ES256)", ec.kid())
    );
    decide(&found, &ledger, &terms(), Profile::All, false).expect("all keys stay");
    decide(&found, &ledger, &terms(), Profile::Entra, true).expect("adopted");

    // Another key under one of our kids.
    let mut other = serde_json::to_value(rsa_key(9)).expect("serialises");
    other["kid"] = rsa_key(1).kid().as_str().into();
    let refused = planned(&shown(serde_json::json!({ "keys": [other] }).to_string().into()), &ledger);
    assert!(matches!(refused, Err(WriteRefused::Losses { .. })), "{refused:?}");

    // A key of an unknown type.
    let unknown = serde_json::json!({"kty": "OKP", "crv": "Ed25519", "kid": "ed", "x": "AA"});
    let known_one = serde_json::to_value(rsa_key(1)).expect("serialises");
    let jwks = serde_json::json!({ "keys": [known_one, unknown] }).to_string();
    let refusal = planned(&shown(jwks.into()), &ledger).expect_err("Ed25519").to_string();
    assert!(refusal.ends_with("would lose `ed` (Ed25519)"), "{refusal}");

    // A removed key does not return, and is no loss.
    let plan = planned(&shown(jwks_of(&[rsa_key(1), rsa_key(4)])), &ledger).expect("nobody's");
    assert!(!plan.publication.keys().contains(rsa_key(4).kid()));
}

fn keys(indices: &BTreeSet<usize>) -> Vec<Jwk> {
    indices.iter().map(|index| if *index < 8 { rsa_key(*index) } else { ec_of(*index) }).collect()
}

/// A key that the Entra profile leaves out.
fn ec_of(index: usize) -> Jwk {
    let key: PublicKey = ec_key();
    let mut json = serde_json::to_value(Jwk::of_public_key(key)).expect("serialises");
    json["kid"] = format!("ec-{index}").into();
    Jwk::from_json(&json).expect("well-formed")
}

proptest! {
    /// Promise 3: after a takeover without adoption, readers still find every key that they find today,
    /// except for removed ones.
    #[test]
    fn no_takeover_loses_a_key(
        ours in prop::collection::btree_set(0_usize..8, 1..4),
        removed in prop::collection::btree_set(0_usize..8, 0..3),
        at_our_path in prop::collection::btree_set(0_usize..10, 0..4),
        elsewhere in prop::option::of(prop::collection::btree_set(0_usize..10, 1..5)),
        all in any::<bool>(),
        is_bare in any::<bool>(),
    ) {
        let dead: Vec<_> = removed.iter().map(|index| rsa_key(*index).kid().clone()).collect();
        let ledger = known(&dead, &keys(&ours.union(&removed).copied().collect()));
        let jwks_uri = if elsewhere.is_some() { ELSEWHERE.to_owned() } else { terms().jwks_uri };
        let other = elsewhere.map(|indices| Ok(jwks_of(&keys(&indices))));
        let jwks = (!at_our_path.is_empty()).then(|| jwks_of(&keys(&at_our_path))).map(by_hand);
        let mut found = TargetContents { jwks, ..made_by_hand(&jwks_uri, other) };
        // A JWKS without a discovery document, whose readers know its URL.
        if is_bare && found.other.is_none() {
            found.discovery = None;
        }
        let profile = if all { Profile::All } else { Profile::Entra };
        if let Ok(plan) = decide(&found, &ledger, &terms(), profile, false) {
            for kid in shown_kids(&found) {
                prop_assert!(plan.publication.keys().contains(&kid) || dead.contains(&kid), "{kid} is lost");
            }
        }
    }
}
