use proptest::prelude::*;

use super::{Document, Publication, sha256_hex};
use crate::core::{
    jose::{jwk::Jwk, jwk_set::Profile},
    tests::{ec_key, rsa_key, terms},
};

#[test]
fn profile_entra_publishes_rs256_alone_and_profile_all_publishes_everything() {
    let keys = || [rsa_key(1), Jwk::of_public_key(ec_key())];
    let render = |profile| Publication::render(&terms(), profile, keys()).expect("has keys");
    let discovery =
        |profile| String::from_utf8_lossy(render(profile).bytes(Document::Discovery)).into_owned();
    assert_eq!((1, 2), (render(Profile::Entra).keys().count(), render(Profile::All).keys().count()));
    assert!(discovery(Profile::Entra).contains(r#""id_token_signing_alg_values_supported":["RS256"]"#));
    assert!(discovery(Profile::All).contains(r#""id_token_signing_alg_values_supported":["ES256","RS256"]"#));
}

#[test]
fn a_profile_without_a_key_publishes_nothing() {
    let refusal =
        Publication::render(&terms(), Profile::Entra, [Jwk::of_public_key(ec_key())]).expect_err("no RS256");
    assert_eq!(
        "nothing to publish: profile `entra` includes none of the listed keys (1), expected an RS256 key",
        refusal.to_string()
    );
}

#[test]
fn the_entity_tag_is_strong_and_follows_from_the_bytes() {
    let publication = Publication::render(&terms(), Profile::Entra, [rsa_key(1)]).expect("one key");
    let bytes = publication.bytes(Document::Jwks);
    assert_eq!(format!("\"{}\"", sha256_hex(bytes)), publication.etag(Document::Jwks));
    assert_eq!("public, max-age=300", publication.cache_control());
}

proptest! {
    /// Promise 4: the bytes are a function of the keys, in any order and with duplicates.
    #[test]
    fn the_bytes_do_not_depend_on_the_order_of_the_keys(mut picked in prop::collection::vec(0..20_usize, 1..20)) {
        let render = |picked: &[usize]| {
            Publication::render(&terms(), Profile::Entra, picked.iter().map(|index| rsa_key(*index)))
        };
        let before = render(&picked);
        picked.reverse();
        picked.push(picked[0]);
        prop_assert_eq!(before, render(&picked));
    }
}
