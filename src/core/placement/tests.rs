use crate::core::{
    jwk::Jwk,
    jwk_set::Profile,
    ledger::{Ledger, Lineage},
    placement::{Found, Headers, Placement, Refused, Stored, decide},
    publication::{Document, MEDIA_TYPE, Publication},
    tests::{known, rsa_key, terms},
};

fn placed(found: &Found, ledger: &Ledger) -> Result<Placement, Refused> {
    decide(found, ledger, &terms(), Profile::Entra, false)
}

/// A place as this ledger leaves it.
fn true_place(ledger: &Ledger) -> Found {
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
    Found { jwks: stored(Document::Jwks), discovery: stored(Document::Discovery) }
}

fn jwks_of(keys: &[Jwk]) -> Vec<u8> {
    Publication::render(&terms(), Profile::All, keys.to_vec()).expect("keys").bytes(Document::Jwks).to_vec()
}

#[test]
fn an_empty_place_gets_the_jwks_first_and_the_discovery_document_second() {
    let placement = placed(&Found::default(), &known(&[], &[rsa_key(1)])).expect("free");
    assert_eq!(vec![Document::Jwks, Document::Discovery], placement.writes);
}

#[test]
fn a_true_place_is_left_alone() {
    let ledger = known(&[], &[rsa_key(1)]);
    assert!(placed(&true_place(&ledger), &ledger).expect("ours").writes.is_empty());
}

#[test]
fn whatever_differs_is_written_again() {
    let ledger = known(&[], &[rsa_key(1)]);
    let differs = |change: fn(&mut Stored)| {
        let mut found = true_place(&ledger);
        change(found.jwks.as_mut().expect("stored"));
        placed(&found, &ledger).expect("ours or nobody's").writes
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
    let refusal = placed(&found, &ours).expect_err("theirs");
    assert!(
        matches!(&refusal, Refused::OtherLineage { owner, .. } if owner == theirs.lineage()),
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
        Found { jwks: None, discovery: Some(stored) }
    };
    assert!(placed(&by_hand(terms().issuer.as_str()), &ledger).is_ok());
    let refusal = placed(&by_hand("https://other.example"), &ledger).expect_err("another issuer's");
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
    let placement = placed(&found, &ledger).expect("ours");
    assert_eq!(vec![rsa_key(2)], placement.strangers);
    let shown: Vec<Jwk> = placement.publication.keys().iter().cloned().collect();
    assert!(shown.contains(&rsa_key(2)) && !shown.contains(&rsa_key(3)));
}

#[test]
fn nothing_is_written_when_there_is_nothing_to_publish() {
    let empty = Ledger::new(terms().issuer, Lineage::from_random([1; 8]));
    assert!(matches!(placed(&Found::default(), &empty), Err(Refused::Nothing(_))));
}
