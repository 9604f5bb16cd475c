use openssl::{
    bn::{BigNum, BigNumContext},
    ec::{EcGroup, EcKey},
    nid::Nid,
    pkey::{PKey, Private},
    rsa::Rsa,
};

use super::{Curve, InvalidPublicKey, PublicKey};

const CURVES: [(Curve, Nid); 3] =
    [(Curve::P256, Nid::X9_62_PRIME256V1), (Curve::P384, Nid::SECP384R1), (Curve::P521, Nid::SECP521R1)];

fn rsa(bits: u32) -> PKey<Private> {
    Rsa::generate(bits).and_then(PKey::from_rsa).expect("a key")
}

fn ec(curve: Nid) -> EcKey<Private> {
    EcGroup::from_curve_name(curve).and_then(|group| EcKey::generate(&group)).expect("a key")
}

fn ec_spki(curve: Nid) -> Vec<u8> {
    PKey::from_ec_key(ec(curve)).and_then(|key| key.public_key_to_der()).expect("DER")
}

/// The output of `openssl dgst -sha256 -binary | basenc --base64url | tr -d =` for the same bytes.
fn openssl_kid(spki: &[u8]) -> String {
    let base64 = openssl::base64::encode_block(&openssl::sha::sha256(spki));
    base64.replace('+', "-").replace('/', "_").replace('=', "")
}

#[track_caller]
fn refuses(outcome: Result<PublicKey, InvalidPublicKey>, reason: &str) {
    assert_eq!(reason, outcome.expect_err(reason).to_string());
}

#[test]
fn a_key_that_openssl_made_is_written_as_openssl_writes_it() {
    let rsa = [2048, 3072, 4096].map(|bits| rsa(bits).public_key_to_der().expect("DER"));
    let ec = CURVES.map(|(_, curve)| ec_spki(curve));
    for spki in rsa.into_iter().chain(ec) {
        let key = PublicKey::from_spki(&spki).expect("a supported key");
        assert_eq!(spki, key.to_spki());
        assert_eq!(openssl_kid(&spki), key.kid().as_str());
    }
}

#[test]
fn the_numbers_of_a_key_are_those_that_openssl_reads() {
    let key = rsa(2048);
    let inner = key.rsa().expect("RSA");
    let read = PublicKey::from_spki(&key.public_key_to_der().expect("DER"));
    assert_eq!(Ok(PublicKey::Rsa { n: inner.n().to_vec(), e: inner.e().to_vec() }), read);
    for (curve, nid) in CURVES {
        let key = ec(nid);
        let length = i32::try_from(curve.coordinate_length()).expect("small");
        let mut context = BigNumContext::new().expect("memory");
        let (mut x, mut y) = (BigNum::new().expect("memory"), BigNum::new().expect("memory"));
        key.public_key().affine_coordinates(key.group(), &mut x, &mut y, &mut context).expect("a point");
        let [x, y] = [x, y].map(|number| number.to_vec_padded(length).expect("it fits"));
        let spki = PKey::from_ec_key(key).and_then(|key| key.public_key_to_der()).expect("DER");
        assert_eq!(Ok(PublicKey::Ec { curve, x: x.clone(), y: y.clone() }), PublicKey::from_spki(&spki));
        assert_eq!(PublicKey::from_spki(&spki), PublicKey::ec(curve, &x, &y));
    }
}

#[test]
fn leading_zeros_do_not_make_another_rsa_key() {
    let n = rsa(2048).rsa().expect("RSA").n().to_vec();
    let padded = [vec![0, 0], n.clone()].concat();
    assert_eq!(PublicKey::rsa(&n, &[1, 0, 1]), PublicKey::rsa(&padded, &[0, 1, 0, 1]));
}

#[test]
fn a_compressed_point_is_the_same_key() {
    let key = ec(Nid::X9_62_PRIME256V1);
    let mut context = BigNumContext::new().expect("memory");
    let point =
        key.public_key().to_bytes(key.group(), openssl::ec::PointConversionForm::COMPRESSED, &mut context);
    let point = point.expect("a point");
    let spki = PKey::from_ec_key(key).and_then(|key| key.public_key_to_der()).expect("DER");
    assert_eq!(PublicKey::from_spki(&spki), PublicKey::from_point(Curve::P256, &point));
}

#[test]
fn a_weak_rsa_key_is_refused_with_its_length() {
    let key = rsa(1024).public_key_to_der().expect("DER");
    refuses(PublicKey::from_spki(&key), "RSA key has 1024 bits, expected at least 2048");
    let short = [&[0x7f], [0xff; 255].as_slice()].concat();
    refuses(PublicKey::rsa(&short, &[1, 0, 1]), "RSA key has 2047 bits, expected at least 2048");
    refuses(PublicKey::rsa(&[], &[1, 0, 1]), "RSA key has 0 bits, expected at least 2048");
}

#[test]
fn numbers_that_cannot_be_an_rsa_key_are_refused() {
    let reason = "malformed public key: modulus or exponent cannot be an RSA key";
    let odd = [0xff; 256];
    refuses(PublicKey::rsa(&odd, &[]), reason);
    refuses(PublicKey::rsa(&odd, &[1]), reason);
    refuses(PublicKey::rsa(&odd, &[2]), reason);
    refuses(PublicKey::rsa(&odd, &[0xff; 9]), reason);
    refuses(PublicKey::rsa(&[0xff; 2049], &[1, 0, 1]), reason);
}

#[test]
fn an_even_modulus_is_refused() {
    let mut even = [0xff; 256];
    even[255] = 0xfe;
    refuses(
        PublicKey::rsa(&even, &[1, 0, 1]),
        "malformed public key: modulus or exponent cannot be an RSA key",
    );
}

#[test]
fn a_point_off_its_curve_is_refused() {
    for (curve, nid) in CURVES {
        let PublicKey::Ec { x, mut y, .. } = PublicKey::from_spki(&ec_spki(nid)).expect("a key") else {
            panic!("not EC");
        };
        let last = y.len() - 1;
        y[last] ^= 1;
        refuses(PublicKey::ec(curve, &x, &y), "malformed public key: the point is not on its curve");
        let zero = vec![0; x.len()];
        refuses(PublicKey::ec(curve, &zero, &zero), "malformed public key: the point is not on its curve");
    }
}

#[test]
fn a_coordinate_of_another_length_is_refused() {
    let PublicKey::Ec { x, y, .. } = PublicKey::from_spki(&ec_spki(Nid::SECP384R1)).expect("a key") else {
        panic!("not EC");
    };
    let reason = "malformed public key: a coordinate has the wrong length for its curve";
    refuses(PublicKey::ec(Curve::P256, &x, &y), reason);
    refuses(PublicKey::ec(Curve::P384, &x[1..], &y), reason);
    refuses(PublicKey::ec(Curve::P384, &[&[0], x.as_slice()].concat(), &y), reason);
}

#[test]
fn a_key_of_a_kind_that_kubernetes_does_not_sign_with_is_unsupported() {
    let ed25519 = PKey::generate_ed25519().and_then(|key| key.public_key_to_der()).expect("DER");
    refuses(PublicKey::from_spki(&ed25519), "unsupported public key: algorithm Ed25519");
    refuses(
        PublicKey::from_spki(&ec_spki(Nid::SECP256K1)),
        "unsupported public key: a curve other than P-256, P-384, P-521",
    );
}

#[test]
fn bytes_that_are_no_spki_are_malformed() {
    let spki = ec_spki(Nid::X9_62_PRIME256V1);
    let reason = "malformed public key: not a `SubjectPublicKeyInfo`";
    refuses(PublicKey::from_spki(&[]), reason);
    refuses(PublicKey::from_spki(&spki[1..]), reason);
    refuses(PublicKey::from_spki(&spki[..spki.len() - 1]), reason);
    refuses(PublicKey::from_spki(&[spki.as_slice(), &[0]].concat()), reason);
    let pkcs1 = rsa(2048).rsa().and_then(|key| key.public_key_to_der_pkcs1()).expect("DER");
    refuses(PublicKey::from_spki(&pkcs1), reason);
}
