use serde_json::{Value, json};

use super::{Algorithm, InvalidJwk, Jwk};
use crate::core::jose::public_key::{Curve, PublicKey};

/// The output of `kube-apiserver` for two keys, from Kubernetes' own tests (`openidmetadata_test.go`).
pub(crate) const KUBERNETES_RSA: &str = r#"{"use":"sig","kty":"RSA","kid":"JHJehTTTZlsspKHT-GaJxK7Kd1NQgZJu3fyK6K_QDYU","alg":"RS256","n":"249XwEo9k4tM8fMxV7zxOhcrP-WvXn917koM5Qr2ZXs4vo26e4ytdlrV0bQ9SlcLpQVSYjIxNfhTZdDt-ecIzshKuv1gKIxbbLQMOuK1eA_4HALyEkFgmS_tleLJrhc65tKPMGD-pKQ_xhmzRuCG51RoiMgbQxaCyYxGfNLpLAZK9L0Tctv9a0mJmGIYnIOQM4kC1A1I1n3EsXMWmeJUj7OTh_AjjCnMnkgvKT2tpKxYQ59PgDgU8Ssc7RDSmSkLxnrv-OrN80j6xrw0OjEiB4Ycr0PqfzZcvy8efTtFQ_Jnc4Bp1zUtFXt7-QeevePtQ2EcyELXE0i63T1CujRMWw","e":"AQAB"}"#;
pub(crate) const KUBERNETES_EC: &str = r#"{"use":"sig","kty":"EC","kid":"SoABiieYuNx4UdqYvZRVeuC6SihxgLrhLy9peHMHpTc","crv":"P-256","alg":"ES256","x":"H6cuzP8XuD5wal6wf9M6xDljTOPLX2i8uIp_C_ASqiI","y":"BlHnikLV9PyEd6gl8k4T_3Wwoh6xd79XLoQTh2PAi1Y"}"#;

pub(crate) fn read(text: &str) -> Jwk {
    serde_json::from_str(text).expect("a public JWK")
}

/// A known key with some members replaced, or removed if they are null.
fn altered(text: &str, members: &Value) -> Result<Jwk, InvalidJwk> {
    let mut value: Value = serde_json::from_str(text).expect("JSON");
    let object = value.as_object_mut().expect("an object");
    for (name, member) in members.as_object().expect("an object") {
        match member {
            Value::Null => object.remove(name),
            member => object.insert(name.clone(), member.clone()),
        };
    }
    Jwk::from_json(&value)
}

#[track_caller]
fn leaves_out(text: &str, members: &Value, what: &str) {
    assert_eq!(Err(InvalidJwk::Unknown { what: what.to_owned() }), altered(text, members), "{members}");
}

#[track_caller]
fn refuses(text: &str, members: &Value, reason: &str) {
    let refusal = altered(text, members).expect_err(reason);
    assert!(!matches!(refusal, InvalidJwk::Unknown { .. }), "{members}");
    assert_eq!(reason, refusal.to_string());
}

#[test]
fn a_key_is_printed_as_kubernetes_prints_it() {
    for text in [KUBERNETES_RSA, KUBERNETES_EC] {
        let key = read(text);
        assert_eq!(text, serde_json::to_string(&key).expect("JSON"));
        let made = Jwk::of_public_key(PublicKey::from_spki(&key.public_key().to_spki()).expect("a key"));
        assert_eq!(text, serde_json::to_string(&made).expect("JSON"));
        assert!(key.has_derived_kid());
    }
}

#[test]
fn an_algorithm_follows_from_the_kind_of_key() {
    let rsa = read(KUBERNETES_RSA);
    assert_eq!(Algorithm::RS256, Algorithm::of_key(rsa.public_key()));
    for (curve, algorithm) in
        Curve::ALL.into_iter().zip([Algorithm::ES256, Algorithm::ES384, Algorithm::ES512])
    {
        let key = PublicKey::Ec { curve, x: Vec::new(), y: Vec::new() };
        assert_eq!(algorithm, Algorithm::of_key(&key));
    }
}

#[test]
fn a_key_may_leave_out_what_follows_from_it() {
    for text in [KUBERNETES_RSA, KUBERNETES_EC] {
        assert_eq!(Ok(read(text)), altered(text, &json!({ "use": null, "alg": null, "kid": null })));
    }
}

#[test]
fn a_kid_that_another_party_chose_is_kept() {
    let key = altered(KUBERNETES_RSA, &json!({ "kid": "2026-key" })).expect("a key");
    assert_eq!("2026-key", key.kid().as_str());
    assert!(!key.has_derived_kid());
    assert_eq!(Some(&key), altered(KUBERNETES_RSA, &json!({ "kid": "2026-key" })).ok().as_ref());
}

#[test]
fn other_rsa_algorithms_are_kept() {
    let key = altered(KUBERNETES_RSA, &json!({ "alg": "RS512" })).expect("a key");
    assert_eq!(Algorithm::RS512, key.algorithm());
}

#[test]
fn members_that_are_not_known_are_dropped() {
    assert_eq!(
        Ok(read(KUBERNETES_RSA)),
        altered(KUBERNETES_RSA, &json!({ "x5t": "AA", "key_ops": ["wrapKey", "verify"] }))
    );
}

#[test]
fn a_key_of_an_unknown_kind_is_left_out() {
    leaves_out(KUBERNETES_RSA, &json!({ "kty": "AKP" }), "key type `AKP`");
    leaves_out(KUBERNETES_RSA, &json!({ "use": "enc" }), "use `enc`");
    leaves_out(KUBERNETES_RSA, &json!({ "key_ops": ["encrypt"] }), "`key_ops` without `verify`");
    leaves_out(KUBERNETES_RSA, &json!({ "alg": "PS256" }), "algorithm `PS256`");
    leaves_out(KUBERNETES_RSA, &json!({ "alg": "ES256" }), "algorithm `ES256`");
    leaves_out(KUBERNETES_EC, &json!({ "alg": "ES384" }), "algorithm `ES384`");
    leaves_out(KUBERNETES_EC, &json!({ "crv": "secp256k1" }), "curve `secp256k1`");
}

#[test]
fn a_note_or_refusal_is_brief_however_long_the_key_is() {
    let long = "x".repeat(1_000_000);
    for member in ["kty", "use", "alg"] {
        let refusal = altered(KUBERNETES_RSA, &json!({ member: long })).expect_err(member).to_string();
        assert!(refusal.len() < 300, "{member}: {} bytes", refusal.len());
    }
    let refusal = altered(KUBERNETES_EC, &json!({ "crv": long })).expect_err("crv").to_string();
    assert!(refusal.len() < 300, "{} bytes", refusal.len());
}

#[test]
fn a_private_key_is_refused_whatever_else_it_says() {
    for member in ["d", "p", "q", "dp", "dq", "qi", "oth", "k"] {
        let reason = format!("it holds the private member `{member}`, expected a public key");
        refuses(KUBERNETES_RSA, &json!({ member: "AQAB" }), &reason);
        refuses(KUBERNETES_EC, &json!({ "kty": "AKP", member: "AQAB" }), &reason);
    }
}

#[test]
fn a_malformed_key_is_refused() {
    refuses(KUBERNETES_RSA, &json!({ "n": null }), "member `n` is missing");
    refuses(KUBERNETES_RSA, &json!({ "n": "" }), "member `n` is empty");
    refuses(KUBERNETES_RSA, &json!({ "e": "AQAB=" }), "member `e` is not base64url without padding");
    refuses(KUBERNETES_EC, &json!({ "y": "+/" }), "member `y` is not base64url without padding");
    refuses(KUBERNETES_RSA, &json!({ "n": "AQAB" }), "RSA key has 17 bits, expected at least 2048");
    refuses(
        KUBERNETES_EC,
        &json!({ "y": "H6cuzP8XuD5wal6wf9M6xDljTOPLX2i8uIp_C_ASqiI" }),
        "malformed public key: the point is not on its curve",
    );
    refuses(KUBERNETES_RSA, &json!({ "kid": "" }), "key ID has 0 characters, expected 1 to 1024");
    assert!(matches!(altered(KUBERNETES_RSA, &json!({ "kty": null })), Err(InvalidJwk::Malformed { .. })));
    assert!(matches!(altered(KUBERNETES_RSA, &json!({ "n": 5 })), Err(InvalidJwk::Malformed { .. })));
    assert!(matches!(Jwk::from_json(&json!("text")), Err(InvalidJwk::Malformed { .. })));
}
