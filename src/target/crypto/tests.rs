use openssl::{rsa::Rsa, sign::Verifier};

use super::*;

fn hex(bytes: &[u8]) -> String {
    bytes
        .iter()
        .flat_map(|byte| [byte >> 4, byte & 15])
        .filter_map(|digit| char::from_digit(digit.into(), 16))
        .collect()
}

fn sha256(parts: &[&[u8]]) -> String {
    let mut digest = OpenSsl.digest(DigestAlgorithm::Sha256).expect("SHA-256 exists");
    for part in parts {
        digest.update(part);
    }
    hex(digest.finish().expect("it finishes"))
}

fn hmac_sha256(key: &[u8], parts: &[&[u8]]) -> String {
    let mut hmac = OpenSsl.hmac(DigestAlgorithm::Sha256, key).expect("HMAC exists");
    for part in parts {
        hmac.update(part);
    }
    hex(hmac.finish().expect("it finishes"))
}

/// FIPS 180-4 examples.
#[test]
fn sha_256_agrees_with_the_standard() {
    assert_eq!(sha256(&[]), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    assert_eq!(sha256(&[b"a", b"bc"]), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
}

/// RFC 4231 sections 4.2, 4.3 and 4.7.
#[test]
fn hmac_sha_256_agrees_with_the_standard() {
    assert_eq!(
        hmac_sha256(&[0x0b; 20], &[b"Hi There"]),
        "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7"
    );
    assert_eq!(
        hmac_sha256(b"Jefe", &[b"what do ya want ", b"for nothing?"]),
        "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
    );
    assert_eq!(
        hmac_sha256(&[0xaa; 131], &[b"Test Using Larger Than Block-Size Key - Hash Key First"]),
        "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54"
    );
}

#[test]
fn an_rs256_signature_is_verified_by_the_public_key() {
    let key = PKey::from_rsa(Rsa::generate(2048).expect("a key")).expect("a key");
    let pem = key.private_key_to_pem_pkcs8().expect("PEM");
    let signature =
        OpenSsl.sign(SigningAlgorithm::RS256, &pem).expect("a key").sign(b"text").expect("signed");
    let mut verifier = Verifier::new(MessageDigest::sha256(), &key).expect("a verifier");
    assert!(verifier.verify_oneshot(&signature, b"text").expect("a signature"));
}

#[test]
fn a_key_that_is_none_is_refused() {
    assert!(OpenSsl.sign(SigningAlgorithm::RS256, b"no PEM").is_err());
}
