use std::{error::Error as _, sync::LazyLock};

use openssl::{
    ec::{EcGroup, EcKey},
    nid::Nid,
    pkey::PKey,
};
use proptest::{prelude::*, sample::subsequence};
use serde_json::{Value, json};

use super::{InvalidJwkSet, InvalidJwks, JwkSet, MAX_KEYS, Profile, ReceivedJwks, change_breaks};
use crate::core::jose::{
    jwk::{
        Algorithm, InvalidJwk, Jwk,
        tests::{KUBERNETES_EC, KUBERNETES_RSA, read},
    },
    public_key::PublicKey,
};

/// One key more than a set accepts.
static KEYS: LazyLock<Vec<Jwk>> = LazyLock::new(|| {
    let curves = [Nid::X9_62_PRIME256V1, Nid::SECP384R1, Nid::SECP521R1];
    curves.into_iter().cycle().take(MAX_KEYS).map(make).chain([read(KUBERNETES_RSA)]).collect()
});

fn make(curve: Nid) -> Jwk {
    let key = EcGroup::from_curve_name(curve).and_then(|group| EcKey::generate(&group));
    let spki = key.and_then(PKey::from_ec_key).and_then(|key| key.public_key_to_der()).expect("DER");
    Jwk::of_public_key(PublicKey::from_spki(&spki).expect("a supported key"))
}

/// The same key under the kid of another.
fn renamed(key: &Jwk, other: &Jwk) -> Jwk {
    let mut json = serde_json::to_value(key).expect("JSON");
    json["kid"] = json!(other.kid());
    Jwk::from_json(&json).expect("a key")
}

fn document(keys: &[&str]) -> String {
    format!(r#"{{"keys":[{}]}}"#, keys.join(","))
}

#[track_caller]
fn refuses(text: &str, reason: &str) -> InvalidJwks {
    let refusal = ReceivedJwks::parse(text.as_bytes()).expect_err(reason);
    assert_eq!(reason, refusal.to_string());
    refusal
}

#[test]
fn a_set_is_printed_as_kubernetes_prints_it() {
    let text = document(&[KUBERNETES_RSA, KUBERNETES_EC]);
    let received = ReceivedJwks::parse(text.as_bytes()).expect("a JWKS");
    assert!(received.left_out.is_empty());
    let set = JwkSet::new(received.keys).expect("a set");
    assert_eq!(text.as_bytes(), set.to_json());
    assert_eq!(vec![Algorithm::ES256, Algorithm::RS256], set.algorithms());
}

#[test]
fn the_entra_profile_publishes_rs256_keys_alone() {
    let (rsa, ec) = (read(KUBERNETES_RSA), read(KUBERNETES_EC));
    let rs512 = read(&KUBERNETES_RSA.replace("RS256", "RS512"));
    assert_eq!([true, false, false], [&rsa, &ec, &rs512].map(|key| Profile::Entra.includes(key)));
    assert_eq!([true, true, true], [&rsa, &ec, &rs512].map(|key| Profile::All.includes(key)));
}

#[test]
fn whoever_is_broken_by_a_mixture_or_a_new_algorithm_is_named() {
    let (rsa, ec) = (read(KUBERNETES_RSA), read(KUBERNETES_EC));
    let breaks = |keys: &[&Jwk]| JwkSet::new(keys.iter().copied().cloned()).expect("a set").breaks();
    assert_eq!([None, None], [breaks(&[&rsa]), breaks(&[&ec, &KEYS[1]])]);
    assert!(breaks(&[&rsa, &ec]).is_some_and(|whom| whom.contains("python-jose") && whom.contains("Entra")));
    let (rs256, es256) = (Algorithm::RS256, Algorithm::ES256);
    for quiet in [(&[][..], &[rs256][..]), (&[rs256], &[rs256]), (&[es256, rs256], &[rs256])] {
        assert_eq!(None, change_breaks(quiet.0, quiet.1));
    }
    let told = change_breaks(&[rs256], &[es256, rs256]).expect("somebody");
    assert!(told.starts_with("tokens signed with ES256 are refused by Microsoft Entra, "), "{told}");
    assert!(!change_breaks(&[es256], &[es256, rs256]).expect("somebody").contains("Entra"));
}

#[test]
fn a_set_is_never_empty_and_never_has_more_keys_than_entra_reads() {
    assert_eq!(Err(InvalidJwkSet::Empty), JwkSet::new([]));
    assert_eq!(MAX_KEYS, JwkSet::new(KEYS[..MAX_KEYS].to_vec()).expect("a set").count());
    assert_eq!(Err(InvalidJwkSet::TooMany { count: MAX_KEYS + 1 }), JwkSet::new(KEYS.clone()));
}

#[test]
fn the_same_key_twice_is_one() {
    let set = JwkSet::new([KEYS[0].clone(), KEYS[1].clone(), KEYS[0].clone()]).expect("a set");
    assert_eq!(2, set.count());
}

#[test]
fn one_kid_for_two_keys_is_refused() {
    let clash = [KEYS[0].clone(), renamed(&KEYS[1], &KEYS[0])];
    assert_eq!(Err(InvalidJwkSet::Ambiguous { kid: KEYS[0].kid().clone() }), JwkSet::new(clash.clone()));
    let text = serde_json::to_string(&json!({ "keys": clash })).expect("JSON");
    refuses(&text, &format!("kid `{}` names two different keys", KEYS[0].kid()));
}

#[test]
fn keys_of_unknown_kinds_are_left_out_and_named() {
    let unknown = [r#"{"kty":"AKP","kid":"pq","alg":"ML-DSA-65"}"#, r#"{"kty":"OKP"}"#];
    let text = document(&[unknown[0], KUBERNETES_EC, unknown[1]]);
    let received = ReceivedJwks::parse(text.as_bytes()).expect("a JWKS");
    assert_eq!(vec![read(KUBERNETES_EC)], received.keys);
    let notes =
        ["key pq: key type `AKP` is not supported", "key without a kid: key type `OKP` is not supported"];
    assert_eq!(notes.map(str::to_owned).to_vec(), words(&received));
    assert!(
        !received.unreadable().may_include(&read(KUBERNETES_RSA)),
        "neither is a key that was good before"
    );
    refuses(
        &document(&unknown),
        "no key of a known kind (2 of others), expected RSA or EC on P-256, P-384 or P-521",
    );
}

fn words(received: &ReceivedJwks) -> Vec<String> {
    received.left_out.iter().map(ToString::to_string).collect()
}

/// The key with other members, or without those that are null.
fn altered(key: &str, members: &Value) -> String {
    let mut key: Value = serde_json::from_str(key).expect("a key");
    for (name, value) in members.as_object().expect("members") {
        key[name] = value.clone();
    }
    key.as_object_mut().expect("an object").retain(|_, value| !value.is_null());
    key.to_string()
}

/// RFC 7517 section 5. Each of these was seen in the wild, and each has blocked the publication of a whole
/// set.
#[test]
fn an_odd_key_is_left_out_takes_no_other_one_along_and_is_known_again() {
    let good = read(KUBERNETES_EC);
    let weak = "rrrr".repeat(42);
    let odd = [
        (json!({"kid": ""}), "key 2 is left out: key ID has 0 characters, expected 1 to 1024"),
        (json!({"kid": 5}), "key 2 is left out: invalid type: integer `5`, expected a string"),
        (json!({"kid": "x".repeat(1025)}), "key ID has 1025 characters, expected 1 to 1024"),
        (json!({"n": null}), "is left out: member `n` is missing"),
        (json!({"e": null}), "is left out: member `e` is missing"),
        (json!({"e": "AQAB=="}), "is left out: member `e` is not base64url without padding"),
        (json!({"n": weak}), "is left out: RSA key has 1008 bits, expected at least 2048"),
        (json!({"kty": 1}), "is left out: invalid type: integer `1`, expected a string"),
        (json!({"kid": "evil\u{1b}[2J", "e": ""}), "key evil<U+001B>[2J is left out: member `e` is empty"),
    ];
    for (members, reason) in odd {
        let text = document(&[KUBERNETES_EC, &altered(KUBERNETES_RSA, &members)]);
        let received = ReceivedJwks::parse(text.as_bytes()).expect(reason);
        assert_eq!(std::slice::from_ref(&good), received.keys, "{reason}");
        assert!(words(&received)[0].contains(reason), "{reason}: {:?}", received.left_out);
        let knows = received.unreadable().may_include(&read(KUBERNETES_RSA));
        assert!(knows || members["kid"] == json!("evil\u{1b}[2J"), "{reason}");
        assert!(!received.unreadable().may_include(&good), "{reason}: it is somebody else");
    }
    let coordinate = altered(KUBERNETES_EC, &json!({"x": "AAAA"}));
    let received = ReceivedJwks::parse(document(&[KUBERNETES_RSA, &coordinate]).as_bytes()).expect("a JWKS");
    assert!(words(&received)[0].contains("a coordinate has the wrong length for its curve"));
    assert!(received.unreadable().may_include(&good));
    for nameless in ["5", "{}", r#"{"kid":"","kty":"RSA"}"#] {
        let received = ReceivedJwks::parse(document(&[KUBERNETES_EC, nameless]).as_bytes()).expect("a JWKS");
        assert!(received.unreadable().may_include(&read(KUBERNETES_RSA)), "{nameless} may be any key");
    }
}

#[test]
fn a_malformed_key_alone_is_refused_and_named_by_its_number() {
    let refusal =
        refuses(&document(&[r#"{"kty":"OKP"}"#, r#"{"kty":"RSA","e":"AQAB"}"#]), "key 2 cannot be used");
    let cause = refusal.source().and_then(|cause| cause.downcast_ref());
    assert_eq!(Some(&InvalidJwk::Malformed { what: "member `n` is missing".to_owned() }), cause);
    let private = KUBERNETES_EC.replace("\"use\"", "\"d\":\"AA\",\"use\"");
    let refusal = refuses(&document(&[&private]), "key 1 cannot be used");
    assert!(matches!(refusal, InvalidJwks::Key { number: 1, source: InvalidJwk::Private { member: "d" } }));
}

#[test]
fn a_jwks_with_a_member_twice_is_refused_because_others_may_read_the_other_one() {
    let twice = KUBERNETES_EC.replace("\"use\"", "\"kid\":\"other\",\"use\"");
    refuses(&document(&[&twice]), "member `kid` is duplicated at line 1 column 98, expected once");
    let two_lists = format!("{{\"keys\":[],\"keys\":[{KUBERNETES_EC}]}}");
    refuses(&two_lists, "member `keys` is duplicated at line 1 column 225, expected once");
}

#[test]
fn what_is_not_a_jwks_is_refused() {
    refuses(r#"{"keys":[]}"#, "an empty JWKS, expected at least one key");
    refuses(r#"{"keys":null}"#, "no `keys` array, expected a JWKS");
    refuses(r#"{"keys":{}}"#, "no `keys` array, expected a JWKS");
    refuses("[]", "no `keys` array, expected a JWKS");
    refuses("{}", "no `keys` array, expected a JWKS");
    refuses("", "not JSON: EOF while parsing a value at line 1 column 0");
    refuses("<html>", "not JSON: expected value at line 1 column 1");
    refuses(r#"{"keys":[]} {}"#, "not JSON: trailing characters at line 1 column 13");
    let many = serde_json::to_string(&json!({ "keys": *KEYS })).expect("JSON");
    refuses(&many, "101 keys, expected at most 100 (Microsoft Entra reads no more)");
}

proptest! {
    #[test]
    fn the_bytes_of_a_set_do_not_depend_on_the_order_of_its_keys(
        keys in subsequence(KEYS.clone(), 1..=8), order in any::<prop::sample::Index>(), twice in any::<bool>()
    ) {
        let expected = JwkSet::new(keys.clone()).expect("a set").to_json();
        let mut other = keys.clone();
        other.reverse();
        other.rotate_left(order.index(keys.len()));
        if twice {
            other.push(keys[0].clone());
        }
        prop_assert_eq!(expected, JwkSet::new(other).expect("a set").to_json());
    }

    /// Some relying parties fail on a duplicate key (jose, express-oauth2-jwt-bearer, openidconnect), and
    /// kube-apiserver publishes such sets.
    #[test]
    fn a_key_that_is_listed_twice_never_leaves_twice(
        keys in subsequence(KEYS.clone(), 1..=8), again in prop::collection::vec(any::<prop::sample::Index>(), 0..8)
    ) {
        let listed = again.iter().map(|index| keys[index.index(keys.len())].clone());
        let members: Vec<Jwk> = keys.iter().cloned().chain(listed).collect();
        let received = ReceivedJwks::parse(json!({ "keys": members }).to_string().as_bytes()).expect("a JWKS");
        let published: Value = serde_json::from_slice(&JwkSet::new(received.keys).expect("a set").to_json()).expect("JSON");
        let kids: Vec<_> = published["keys"].as_array().expect("keys").iter().map(|key| &key["kid"]).collect();
        let once: std::collections::BTreeSet<_> = kids.iter().map(|kid| kid.as_str()).collect();
        prop_assert_eq!((keys.len(), keys.len()), (kids.len(), once.len()));
    }

    #[test]
    fn a_set_that_was_printed_is_read_as_the_same_set(keys in subsequence(KEYS.clone(), 1..=8)) {
        let set = JwkSet::new(keys).expect("a set");
        let received = ReceivedJwks::parse(&set.to_json()).expect("a JWKS");
        prop_assert!(received.left_out.is_empty());
        prop_assert!(received.unreadable().is_empty());
        prop_assert_eq!(set, JwkSet::new(received.keys).expect("a set"));
    }

    #[test]
    fn no_document_makes_the_reader_panic(member in ".{0,40}", kty in "RSA|EC|OKP", value in ".{0,40}") {
        let json: Value = json!({ "keys": [{ "kty": kty, "crv": "P-256", member: value, "n": value, "x": value }] });
        let _ = ReceivedJwks::parse(json.to_string().as_bytes());
    }
}
