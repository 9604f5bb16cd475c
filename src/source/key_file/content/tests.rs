use std::error::Error as _;

use openssl::{
    asn1::Asn1Time,
    ec::{EcGroup, EcKey},
    hash::MessageDigest,
    nid::Nid,
    pkey::{PKey, Private},
    rsa::Rsa,
    symm::Cipher,
    x509::X509Builder,
};

use super::{InvalidContent, parse};
use crate::core::{
    jose::{jwk::Jwk, public_key::PublicKey},
    text::Hint,
};

fn rsa() -> PKey<Private> {
    Rsa::generate(2048).and_then(PKey::from_rsa).expect("a key")
}

fn ec(curve: Nid) -> PKey<Private> {
    let group = EcGroup::from_curve_name(curve).expect("a curve");
    EcKey::generate(&group).and_then(PKey::from_ec_key).expect("a key")
}

fn pem(label: &str, der: &[u8]) -> Vec<u8> {
    let body = openssl::base64::encode_block(der);
    format!("-----BEGIN {label}-----\n{body}\n-----END {label}-----\n").into_bytes()
}

/// The public half according to OpenSSL.
fn public_half(key: &PKey<Private>) -> Jwk {
    let spki = key.public_key_to_der().expect("a public key");
    Jwk::of_public_key(PublicKey::from_spki(&spki).expect("a supported key"))
}

fn certificate(key: &PKey<Private>) -> Vec<u8> {
    let build = || {
        let mut builder = X509Builder::new()?;
        builder.set_pubkey(key)?;
        builder.set_not_before(&*Asn1Time::from_unix(0)?)?;
        builder.set_not_after(&*Asn1Time::from_unix(1)?)?;
        builder.sign(key, MessageDigest::sha256())?;
        builder.build().to_pem()
    };
    build().expect("a certificate")
}

#[track_caller]
fn reads(form: &str, bytes: &[u8], expected: &[&Jwk]) {
    let content = parse(bytes).expect(form);
    assert_eq!(expected, content.keys.iter().collect::<Vec<_>>(), "{form}");
    assert!(content.left_out.is_empty() && content.notes.is_empty(), "{form}: {content:?}");
}

#[track_caller]
fn leaves_out(bytes: &[u8], reason: &str) {
    let content = parse(bytes).expect(reason);
    assert!(content.keys.is_empty(), "{reason}");
    let left_out = content.left_out.iter().map(ToString::to_string).chain(content.notes);
    assert_eq!(vec![reason.to_owned()], left_out.collect::<Vec<_>>());
}

#[track_caller]
fn refuses(bytes: &[u8], reason: &str) -> InvalidContent {
    let refusal = parse(bytes).expect_err(reason);
    let cause = refusal.source().map(|cause| format!(": {cause}")).unwrap_or_default();
    assert_eq!(reason, format!("{refusal}{cause}"));
    refusal
}

#[test]
fn an_rsa_key_is_read_in_every_form_it_is_written_in() {
    let key = rsa();
    let jwk = public_half(&key);
    let inner = key.rsa().expect("RSA");
    let spki = key.public_key_to_der().expect("DER");
    let pkcs1 = inner.public_key_to_der_pkcs1().expect("DER");
    reads("SPKI", &key.public_key_to_pem().expect("PEM"), &[&jwk]);
    reads("PKCS#1", &inner.public_key_to_pem_pkcs1().expect("PEM"), &[&jwk]);
    reads("PKCS#1 as PUBLIC KEY", &pem("PUBLIC KEY", &pkcs1), &[&jwk]);
    reads("SPKI as RSA PUBLIC KEY", &pem("RSA PUBLIC KEY", &spki), &[&jwk]);
    reads("certificate", &certificate(&key), &[&jwk]);
    reads("RSA PRIVATE KEY", &inner.private_key_to_pem().expect("PEM"), &[&jwk]);
    reads("PRIVATE KEY", &key.private_key_to_pem_pkcs8().expect("PEM"), &[&jwk]);
    reads("DER SPKI", &spki, &[&jwk]);
    reads("DER PKCS#1", &pkcs1, &[&jwk]);
}

#[test]
fn an_elliptic_curve_key_is_read_in_every_form_it_is_written_in() {
    for curve in [Nid::X9_62_PRIME256V1, Nid::SECP384R1, Nid::SECP521R1] {
        let key = ec(curve);
        let jwk = public_half(&key);
        let sec1 = key.ec_key().and_then(|key| key.private_key_to_pem()).expect("PEM");
        reads("SPKI", &key.public_key_to_pem().expect("PEM"), &[&jwk]);
        reads("EC PRIVATE KEY", &sec1, &[&jwk]);
        reads("after its parameters", &[pem("EC PARAMETERS", &[6, 1, 0]), sec1].concat(), &[&jwk]);
        reads("PRIVATE KEY", &key.private_key_to_pem_pkcs8().expect("PEM"), &[&jwk]);
        reads("certificate", &certificate(&key), &[&jwk]);
        reads("DER SPKI", &key.public_key_to_der().expect("DER"), &[&jwk]);
    }
}

#[test]
fn a_jwks_and_a_single_jwk_are_read() {
    let (one, other) = (public_half(&rsa()), public_half(&ec(Nid::SECP384R1)));
    let json = |key: &Jwk| serde_json::to_string(key).expect("JSON");
    reads("JWK", json(&one).as_bytes(), &[&one]);
    let set = format!("\n {{\"keys\":[{},{}]}}", json(&one), json(&other));
    reads("JWKS", set.as_bytes(), &[&one, &other]);
    leaves_out(br#"{"kty":"AKP","alg":"ML-DSA-65"}"#, "key type `AKP` is not supported");
}

#[test]
fn several_keys_of_one_file_keep_their_order() {
    let (one, other) = (ec(Nid::SECP384R1), ec(Nid::X9_62_PRIME256V1));
    let file =
        [one.public_key_to_pem().expect("PEM"), b"and\n".to_vec(), other.public_key_to_pem().expect("PEM")];
    reads("two keys", &file.concat(), &[&public_half(&one), &public_half(&other)]);
}

#[test]
fn blocks_that_are_no_keys_and_keys_of_unknown_kinds_are_left_out_with_a_note() {
    let ed25519 = PKey::generate_ed25519().expect("a key");
    leaves_out(&pem("X509 CRL", &[0]), "block 1 (`X509 CRL`) is not a key, skipped");
    let reason = "algorithm Ed25519";
    leaves_out(
        &ed25519.public_key_to_pem().expect("PEM"),
        &format!("block 1 (`PUBLIC KEY`): {reason} is not supported"),
    );
    leaves_out(
        &ed25519.private_key_to_pem_pkcs8().expect("PEM"),
        &format!("block 1 (`PRIVATE KEY`): {reason} is not supported"),
    );
    leaves_out(&ed25519.public_key_to_der().expect("DER"), &format!("{reason} is not supported"));
    leaves_out(
        &ec(Nid::SECP256K1).public_key_to_pem().expect("PEM"),
        "block 1 (`PUBLIC KEY`): a curve other than P-256, P-384, P-521 is not supported",
    );
}

#[test]
fn a_file_of_other_text_holds_no_key() {
    for bytes in [&b""[..], b"hello", b"\xff\xfe"] {
        let content = parse(bytes).expect("no key is not an error yet");
        assert!(content.keys.is_empty() && content.left_out.is_empty() && content.notes.is_empty());
    }
}

#[test]
fn an_encrypted_private_key_is_refused_without_asking_for_its_password() {
    let key = rsa();
    let pkcs8 = key.private_key_to_pem_pkcs8_passphrase(Cipher::aes_128_cbc(), b"secret").expect("PEM");
    let pkcs1 = key.rsa().expect("RSA").private_key_to_pem_passphrase(Cipher::aes_128_cbc(), b"secret");
    for (label, pem) in [("ENCRYPTED PRIVATE KEY", pkcs8), ("RSA PRIVATE KEY", pkcs1.expect("PEM"))] {
        let reason = format!(
            "block 1 (`{label}`) cannot be used: the private key is encrypted, expected a public key"
        );
        let refusal = refuses(&pem, &reason);
        assert!(refusal.hint().expect("a hint").contains("-pubout"));
    }
}

#[test]
fn a_weak_key_is_refused_in_every_form() {
    let key = Rsa::generate(1024).and_then(PKey::from_rsa).expect("a key");
    let reason = "RSA key has 1024 bits, expected at least 2048";
    refuses(
        &key.public_key_to_pem().expect("PEM"),
        &format!("block 1 (`PUBLIC KEY`) cannot be used: {reason}"),
    );
    refuses(&key.public_key_to_der().expect("DER"), &format!("not a DER public key: {reason}"));
    let private = key.private_key_to_pem_pkcs8().expect("PEM");
    refuses(&private, &format!("block 1 (`PRIVATE KEY`) cannot be used: {reason}"));
}

#[test]
fn a_malformed_key_is_left_out_and_fails_a_file_without_another() {
    let good = ec(Nid::X9_62_PRIME256V1);
    let pem_of_good = good.public_key_to_pem().expect("PEM");
    let mut cases: Vec<_> = ["CERTIFICATE", "PRIVATE KEY", "RSA PRIVATE KEY", "EC PRIVATE KEY"]
        .map(|label| (label, "not the DER that its label promises"))
        .into();
    cases.push(("PUBLIC KEY", "malformed public key: not a `SubjectPublicKeyInfo`"));
    for (label, reason) in cases {
        let bad = pem(label, &[0x30, 1, 2]);
        refuses(&bad, &format!("block 1 (`{label}`) cannot be used: {reason}"));
        let content = parse(&[pem_of_good.clone(), bad].concat()).expect("a key");
        assert_eq!(vec![public_half(&good)], content.keys);
        assert_eq!(format!("block 2 (`{label}`) is left out: {reason}"), content.left_out[0].to_string());
    }
    refuses(b"{\"keys\":[", "not JSON at line 1, column 9, expected a JWKS");
    refuses(b"{\"keys\":[]}", "an empty JWKS, expected at least one key");
}

#[test]
fn a_jwks_and_pem_in_one_file_are_refused() {
    let jwks = serde_json::json!({ "keys": [public_half(&rsa())] }).to_string().into_bytes();
    let pem = pem("PUBLIC KEY", &rsa().public_key_to_der().expect("a public key"));
    refuses(&[jwks, b"\n".to_vec(), pem].concat(), "not JSON at line 2, column 1, expected a JWKS");
}

#[test]
fn a_private_key_beside_the_public_key_of_another_one_is_refused() {
    let [one, other] = [(); 2].map(|()| ec(Nid::X9_62_PRIME256V1).ec_key().expect("of a curve"));
    let mixed = EcKey::from_private_components(one.group(), one.private_key(), other.public_key());
    let der = mixed.and_then(|key| key.private_key_to_der()).expect("it is not checked");
    let reason =
        "block 1 (`EC PRIVATE KEY`) cannot be used: the public key in it is not that of its private key";
    refuses(&pem("EC PRIVATE KEY", &der), reason);
}

#[test]
fn a_jwk_with_private_members_is_refused() {
    let reason = "it holds the private member `d`, expected a public key";
    let refusal = refuses(br#"{"kty":"RSA","n":"AQAB","e":"AQAB","d":"AQAB"}"#, reason);
    assert!(refusal.hint().expect("a hint").contains("public members"));
    let refusal =
        refuses(br#"{"keys":[{"kty":"RSA","d":"AQAB"}]}"#, &format!("key 1 cannot be used: {reason}"));
    assert!(refusal.hint().expect("a hint").contains("public members"));
}
