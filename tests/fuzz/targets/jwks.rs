//! JWK sets of API servers, of other clusters and of strangers.

use serde_json::Value;
use signpost::core::jose::{
    jwk_set::{JwkSet, ReceivedJwks},
    public_key::PublicKey,
    token::UnverifiedToken,
};

use super::{DISCOVERY, Scene, judged, token, told};

/// Longest word on a key that is left out, in characters.
const MAX_NOTE: usize = 400;
/// All that a public key may have.
const MEMBERS: [&str; 9] = ["use", "kty", "kid", "crv", "alg", "x", "y", "n", "e"];
const TOKEN: &[u8] = include_bytes!("../corpus/token/kubernetes");

pub(super) fn run(bytes: &[u8]) -> bool {
    let received = ReceivedJwks::parse(bytes);
    match &received {
        Ok(received) => is_published_as_it_is_meant(received),
        Err(invalid) => drop(told(invalid)),
    }
    let token = token::text(TOKEN).map(|text| UnverifiedToken::parse(&text));
    judged(Scene { token, discovery: Some(DISCOVERY), jwks: Some(bytes), ledger: None });
    received.is_ok()
}

fn is_published_as_it_is_meant(received: &ReceivedJwks) {
    for note in &received.left_out {
        assert!(note.what.chars().count() <= MAX_NOTE, "a note of {} characters", note.what.len());
    }
    for key in &received.keys {
        let again = PublicKey::from_spki(&key.public_key().to_spki());
        assert_eq!(Ok(key.public_key()), again.as_ref());
    }
    let set = JwkSet::new(received.keys.clone()).expect("it was read as a set");
    let published = set.to_json();
    let again = ReceivedJwks::parse(&published).expect("what is published can be read");
    assert!(again.left_out.is_empty(), "{:?}", again.left_out);
    let again = JwkSet::new(again.keys).expect("what is published is a set");
    assert_eq!((&set, &published), (&again, &again.to_json()));
    let document: Value = serde_json::from_slice(&published).expect("JSON");
    for key in document["keys"].as_array().expect("a list") {
        let mut names = key.as_object().expect("an object").keys();
        assert!(names.all(|name| MEMBERS.contains(&name.as_str())), "{key}");
    }
}
