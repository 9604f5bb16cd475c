use std::collections::BTreeMap;

use openssl::{
    hash::MessageDigest,
    pkey::{PKey, Private},
    rsa::Rsa,
    sign::Signer,
};
use serde_json::{Value, json};

use super::*;
use crate::core::{
    jose::public_key::PublicKey,
    signer::announcement::{AnnouncedKey, NodeName, Stage, StatementVersion},
    tests::terms,
};

struct Key {
    private: PKey<Private>,
    jwk: Jwk,
}

impl Key {
    fn new() -> Self {
        let private = Rsa::generate(2048).and_then(PKey::from_rsa).expect("OpenSSL makes RSA keys");
        let spki = private.public_key_to_der().expect("a public key has DER");
        Self { private, jwk: Jwk::of_public_key(PublicKey::from_spki(&spki).expect("supported")) }
    }

    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, openssl::error::ErrorStack> {
        Signer::new(MessageDigest::sha256(), &self.private)?.sign_oneshot_to_vec(message)
    }
}

fn announcement(keys: &[&Key]) -> Announcement {
    let at = jiff::Timestamp::from_second(100).expect("a time");
    let announced = |key: &&Key| AnnouncedKey {
        jwk: key.jwk.clone(),
        stage: Stage::Standby { since: at },
        excluded_from_discovery: false,
    };
    let node = NodeName::parse("node-1").expect("a name");
    Announcement::new(
        node,
        terms().issuer,
        StatementVersion { at, observed_order: None },
        keys.iter().map(announced),
    )
}

fn signed(announcement: &Announcement, by: &[&Key]) -> Vec<u8> {
    let mut draft = AnnouncementSigner::new(announcement);
    for key in by {
        draft.sign(&key.jwk, |message| key.sign(message)).expect("it is signed");
    }
    draft.to_json()
}

#[test]
fn what_is_posted_is_read_with_those_who_signed_it() {
    let (one, other) = (Key::new(), Key::new());
    let said = announcement(&[&one, &other]);
    for by in [vec![], vec![&one], vec![&other, &one]] {
        let read = SignedAnnouncement::read(&signed(&said, &by)).expect("it is whole");
        assert_eq!(read.announcement(), &said);
        assert_eq!(*read.signed_by(), by.iter().map(|key| key.jwk.kid().clone()).collect());
    }
}

#[test]
fn one_signature_that_is_not_as_it_should_be_spoils_all() {
    let (one, other) = (Key::new(), Key::new());
    let good = signed(&announcement(&[&one]), &[&one]);
    let foreign = signed(&announcement(&[&one]), &[&one, &other]);
    assert_eq!(
        SignedAnnouncement::read(&foreign),
        Err(InvalidSignedAnnouncement::Signature { kid: other.jwk.kid().clone() })
    );

    let edited = |edit: &dyn Fn(&mut Value)| {
        let mut jws: Value = serde_json::from_slice(&good).expect("JSON");
        edit(&mut jws);
        SignedAnnouncement::read(jws.to_string().as_bytes()).expect_err("it was changed")
    };
    let signature =
        |error: &InvalidSignedAnnouncement| matches!(error, InvalidSignedAnnouncement::Signature { .. });
    let payload = signed(&announcement(&[&one, &other]), &[]);
    let payload: Value = serde_json::from_slice(&payload).expect("JSON");
    assert!(signature(&edited(&|jws| jws["payload"] = payload["payload"].clone())), "another payload");
    for header in [
        json!({"alg": "RS256", "kid": one.jwk.kid(), "typ": "JWT"}),
        json!({"alg": "RS512", "kid": one.jwk.kid(), "typ": "signpost-announcement"}),
    ] {
        let protected = Base64UrlUnpadded::encode_string(header.to_string().as_bytes());
        let message = |jws: &Value| format!("{protected}.{}", jws["payload"].as_str().expect("text"));
        let error = edited(&|jws| {
            let signed = one.sign(message(jws).as_bytes()).expect("it is signed");
            jws["signatures"][0]["signature"] = Base64UrlUnpadded::encode_string(&signed).into();
            jws["signatures"][0]["protected"] = protected.clone().into();
        });
        assert!(signature(&error), "{header} was accepted");
    }
    let critical = json!({"alg": "RS256", "kid": one.jwk.kid(), "typ": "signpost-announcement", "crit": []});
    let critical = Base64UrlUnpadded::encode_string(critical.to_string().as_bytes());
    let error = edited(&|jws| jws["signatures"][0]["protected"] = critical.clone().into());
    assert!(matches!(error, InvalidSignedAnnouncement::Header(_)), "{error}");
    assert_eq!(edited(&|jws| jws["payload"] = "=".into()), InvalidSignedAnnouncement::Encoding);
    let count = MAX_KEYS_PER_NODE + 1;
    let error = edited(&|jws| jws["signatures"] = vec![jws["signatures"][0].clone(); count].into());
    assert_eq!(error, InvalidSignedAnnouncement::TooMany { count });
    assert!(matches!(edited(&|jws| jws["more"] = 1.into()), InvalidSignedAnnouncement::Jws(_)));
}

/// An attacker who can have a node sign chosen tokens must not be able to announce keys.
#[test]
fn a_token_is_no_announcement() {
    let key = Key::new();
    let claims = Base64UrlUnpadded::encode_string(&announcement(&[&key]).to_json());
    let header = format!(r#"{{"alg":"RS256","kid":"{}"}}"#, key.jwk.kid());
    let header = Base64UrlUnpadded::encode_string(header.as_bytes());
    let signature = key.sign(format!("{header}.{claims}").as_bytes()).expect("it is signed");
    let signed: BTreeMap<_, _> =
        BTreeMap::from([("protected", header), ("signature", Base64UrlUnpadded::encode_string(&signature))]);
    let jws = json!({"payload": claims, "signatures": [signed]});
    let error = SignedAnnouncement::read(jws.to_string().as_bytes()).expect_err("it is a token");
    assert!(matches!(error, InvalidSignedAnnouncement::Header(_)), "{error}");
}
