use std::{
    collections::BTreeSet,
    fs::{self, Permissions},
    os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink},
    path::{Path, PathBuf},
    sync::Arc,
};

use base64ct::{Base64UrlUnpadded, Encoding as _};
use openssl::{
    bn::BigNum,
    ecdsa::EcdsaSig,
    hash::{MessageDigest, hash},
    pkey::PKey,
    rsa::Rsa,
    sign::Verifier,
};
use serde_json::json;
use tempfile::TempDir;

use super::{Keyring, KeyringError, NewKey, SigningKey, UnusableKey};
use crate::core::{
    jose::{jwk::Algorithm, public_key::PublicKey, token::UnverifiedToken},
    signer::KeyType,
    text::Hint,
};

/// A fresh key, and the path of its keyring, which no process holds.
struct Fresh {
    _parent: TempDir,
    path: PathBuf,
    key: Arc<SigningKey>,
}

fn fresh() -> Fresh {
    let parent = tempfile::tempdir().expect("a directory");
    let path = parent.path().join("data/keys");
    let mut keyring = Keyring::hold(&path, None).expect("a keyring");
    let new = NewKey::generate(KeyType::default(), None).expect("a key");
    keyring.add(new).map_err(|(_, error)| error).expect("there is room");
    let key = keyring.keys().values().next().expect("it was just added").clone();
    Fresh { _parent: parent, path, key }
}

impl Fresh {
    fn active(&self) -> &SigningKey {
        &self.key
    }

    fn file(&self, extension: &str) -> PathBuf {
        self.path.join(format!("{}.{extension}", self.active().kid()))
    }
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).expect("it is there").mode() & 0o7777
}

fn chmod(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).expect("it is ours");
}

#[test]
fn a_private_key_is_readable_by_its_owner_alone() {
    let fresh = fresh();
    assert_eq!(0o700, mode(&fresh.path));
    assert_eq!(0o600, mode(&fresh.file("pem")));
    assert_eq!(0o644, mode(&fresh.file("pub")));
    assert_eq!(2, fs::read_dir(&fresh.path).expect("a directory").count());
}

#[test]
fn the_file_beside_the_private_key_holds_its_public_half_alone() {
    let fresh = fresh();
    let pem = fs::read(fresh.file("pub")).expect("it is there");
    assert!(pem.starts_with(b"-----BEGIN PUBLIC KEY-----"));
    let spki = PKey::public_key_from_pem(&pem).and_then(|key| key.public_key_to_der()).expect("a public key");
    let key = fresh.active();
    assert_eq!(Ok(key.public_key().clone()), PublicKey::from_spki(&spki));
    assert_eq!(*key.kid(), key.public_key().kid());
}

#[test]
fn an_opened_keyring_has_the_key_it_was_made_with() {
    let fresh = fresh();
    let again = Keyring::hold(&fresh.path, None).expect("a keyring");
    assert!(again.keys().keys().eq([fresh.active().kid()]));
}

#[test]
fn opening_makes_no_key() {
    let parent = tempfile::tempdir().expect("a directory");
    chmod(parent.path(), 0o700);
    for path in [parent.path().to_owned(), parent.path().join("missing")] {
        assert!(Keyring::hold(&path, None).expect("a keyring").keys().is_empty(), "{}", path.display());
    }
}

#[test]
fn a_crash_before_the_public_half_is_written_heals_on_open() {
    let fresh = fresh();
    let public = fs::read(fresh.file("pub")).expect("it is there");
    fs::remove_file(fresh.file("pub")).expect("it is there");
    Keyring::hold(&fresh.path, None).expect("a keyring");
    assert_eq!(public, fs::read(fresh.file("pub")).expect("it is there again"));
    fs::write(fresh.file("pub"), b"").expect("it is ours");
    Keyring::hold(&fresh.path, None).expect("a keyring");
    assert_eq!(public, fs::read(fresh.file("pub")).expect("it is whole again"));
}

#[test]
fn a_crash_while_a_key_is_written_leaves_no_key() {
    let fresh = fresh();
    let unfinished = fresh.path.join(format!(".{}.pem.tmp", fresh.active().kid()));
    fs::rename(fresh.file("pem"), &unfinished).expect("it is ours");
    assert!(Keyring::hold(&fresh.path, None).expect("a keyring").keys().is_empty());
    assert!(!unfinished.exists());
}

#[test]
fn what_others_could_have_read_is_refused() {
    for bits in [0o640, 0o602, 0o610] {
        let fresh = fresh();
        let file = fresh.file("pem");
        chmod(&file, bits);
        let refusal = Keyring::hold(&fresh.path, None).expect_err("others have a right");
        assert_eq!(format!("`{}` has mode {bits:04o}, expected 0600", file.display()), refusal.to_string());
        assert!(refusal.hint().is_some_and(|hint| hint.contains("chmod 600")));
    }
    let fresh = fresh();
    chmod(&fresh.path, 0o750);
    let refusal = Keyring::hold(&fresh.path, None).expect_err("others have a right");
    assert!(refusal.hint().is_some_and(|hint| hint.contains("chmod 700")), "{refusal}");
}

#[test]
fn a_key_file_that_is_a_symlink_is_refused() {
    let fresh = fresh();
    let elsewhere = fresh.path.with_file_name("elsewhere");
    fs::rename(fresh.file("pem"), &elsewhere).expect("it is ours");
    symlink(&elsewhere, fresh.file("pem")).expect("a symlink");
    assert!(matches!(Keyring::hold(&fresh.path, None), Err(KeyringError::Io { action: "open", .. })));
}

#[test]
fn a_file_that_does_not_hold_the_key_it_is_named_after_is_refused() {
    let (one, other) = (fresh(), fresh());
    fs::copy(other.file("pem"), one.file("pem")).expect("both are ours");
    let refusal = Keyring::hold(&one.path, None).expect_err("another key");
    assert!(refusal.to_string().contains(other.active().kid().as_str()), "{refusal}");
    fs::copy(other.file("pem"), one.path.join("second.pem")).expect("both are ours");
    assert!(matches!(Keyring::hold(&one.path, None), Err(KeyringError::Misnamed { .. })));
}

#[test]
fn a_file_that_cannot_be_a_signing_key_is_refused_without_a_question() {
    let fresh = fresh();
    let rsa = Rsa::generate(2048).expect("a key");
    let encrypted = rsa
        .private_key_to_pem_passphrase(openssl::symm::Cipher::aes_128_cbc(), b"secret")
        .expect("an encrypted key");
    let relabelled = String::from_utf8(encrypted.clone())
        .expect("PEM is text")
        .replace("RSA PRIVATE", "PRIVATE")
        .into_bytes();
    let curve = openssl::ec::EcGroup::from_curve_name(openssl::nid::Nid::SECP384R1).expect("a curve");
    let ec = openssl::ec::EcKey::generate(&curve).and_then(PKey::from_ec_key).expect("a key");
    let ec = ec.private_key_to_pem_pkcs8().expect("PEM");
    let weak = Rsa::generate(1024).and_then(PKey::from_rsa).and_then(|key| key.private_key_to_pem_pkcs8());
    for (pem, why) in [
        (Vec::new(), UnusableKey::Malformed),
        (b"nonsense".to_vec(), UnusableKey::Malformed),
        (encrypted, UnusableKey::Encrypted),
        (relabelled, UnusableKey::Encrypted),
        (ec, UnusableKey::Algorithm { algorithm: "ES384" }),
    ] {
        fs::write(fresh.file("pem"), pem).expect("it is ours");
        let refusal = Keyring::hold(&fresh.path, None).expect_err("no signing key");
        assert!(matches!(&refusal, KeyringError::Unusable { source, .. } if *source == why), "{refusal:?}");
    }
    fs::write(fresh.file("pem"), weak.expect("a key")).expect("it is ours");
    let refusal = Keyring::hold(&fresh.path, None).expect_err("a weak key");
    assert!(matches!(refusal, KeyringError::Unusable { source: UnusableKey::Public(_), .. }), "{refusal:?}");
}

#[test]
fn a_token_verifies_with_the_public_key_and_names_it() {
    let fresh = fresh();
    let key = fresh.active();
    let claims = json!({ "iss": "https://k8s.example", "sub": "system:serviceaccount:a:b" });
    let token = key.sign(&claims).expect("a signature");
    let header = token.as_str().split('.').next().expect("a header");
    let header = Base64UrlUnpadded::decode_vec(header).expect("base64url");
    assert_eq!(format!(r#"{{"alg":"RS256","kid":"{}"}}"#, key.kid()).into_bytes(), header);
    let token = UnverifiedToken::parse(token.as_str()).expect("a token");
    assert_eq!(claims, serde_json::Value::Object(token.claims().clone()));
    let public = PKey::public_key_from_der(&key.public_key().to_spki()).expect("a public key");
    let mut verifier = Verifier::new(MessageDigest::sha256(), &public).expect("a verifier");
    verifier.update(token.signing_input()).expect("bytes");
    assert!(verifier.verify(token.signature()).expect("an answer"));
}

#[test]
fn an_es256_signature_is_two_numbers_of_full_length() {
    let key = NewKey::generate(KeyType::P256, None).expect("a key").key;
    let public = PKey::public_key_from_der(&key.public_key().to_spki()).and_then(|key| key.ec_key());
    let public = public.expect("a public key");
    let mut short = 0;
    for turn in 0..2000 {
        let token = key.sign(&json!({ "jti": turn })).expect("a signature");
        let token = UnverifiedToken::parse(token.as_str()).expect("a token");
        let (r, s) = token.signature().split_at(32);
        assert_eq!(s.len(), 32);
        // OpenSSL's own encoding omits leading zeros; the JOSE form must not.
        short += usize::from(r[0] == 0 || s[0] == 0);
        let number = |bytes| BigNum::from_slice(bytes).expect("a number");
        let signature = EcdsaSig::from_private_components(number(r), number(s)).expect("two numbers");
        let digest = hash(MessageDigest::sha256(), token.signing_input()).expect("a digest");
        assert!(signature.verify(&digest, &public).expect("an answer"));
    }
    assert!(short > 0, "the case that matters has occurred");
}

#[test]
fn a_keyring_opens_with_keys_of_every_type() {
    let fresh = fresh();
    let mut keyring = Keyring::hold(&fresh.path, None).expect("a keyring");
    let new = NewKey::generate(KeyType::P256, None).expect("a key");
    let jwk = new.jwk().clone();
    keyring.add(new).map_err(|(_, error)| error).expect("room for it");
    drop(keyring);
    let keyring = Keyring::hold(&fresh.path, None).expect("a keyring");
    let algorithms = keyring.keys().values().map(|key| key.jwk().algorithm()).collect::<BTreeSet<_>>();
    assert_eq!(algorithms, BTreeSet::from([Algorithm::ES256, Algorithm::RS256]));
    assert_eq!(*keyring.keys()[jwk.kid()].jwk(), jwk);
}

#[test]
fn debug_output_shows_no_key_material() {
    let fresh = fresh();
    let output = format!("{:?}", Keyring::hold(&fresh.path, None).expect("a keyring"));
    let kid = fresh.active().kid();
    assert!(output.ends_with(&format!("keys: {{Kid(\"{kid}\"): SigningKey({kid})}} }}")), "{output}");
}

#[test]
fn a_second_process_is_told_who_holds_the_keyring() {
    let fresh = fresh();
    let held = Keyring::hold(&fresh.path, None).expect("nobody has it");
    let refusal = Keyring::hold(&fresh.path, None).expect_err("it is held");
    let expected = format!("keyring `{}` is held by process {}", fresh.path.display(), std::process::id());
    assert_eq!(expected, refusal.to_string());
    drop(held);
    assert!(Keyring::hold(&fresh.path, None).is_ok());
}

#[test]
fn a_process_that_has_read_a_key_leaves_no_core_dump() {
    let _fresh = fresh();
    let behavior = rustix::process::dumpable_behavior().expect("an answer");
    assert_eq!(behavior, rustix::process::DumpableBehavior::NotDumpable);
}

#[test]
fn many_keys_are_kept_until_they_are_destroyed() {
    let fresh = fresh();
    let mut keyring = Keyring::hold(&fresh.path, None).expect("a keyring");
    let new = NewKey::generate(KeyType::Rsa3072, None).expect("a key");
    let jwk = new.jwk().clone();
    keyring.add(new).map_err(|(_, error)| error).expect("room for it");
    drop(keyring);
    let mut keyring = Keyring::hold(&fresh.path, None).expect("a keyring");
    assert_eq!(keyring.keys().len(), 2);
    assert_eq!(*keyring.keys()[jwk.kid()].jwk(), jwk);
    keyring.destroy(jwk.kid()).expect("it is ours");
    keyring.destroy(jwk.kid()).expect("once is enough");
    drop(keyring);
    assert_eq!(Keyring::hold(&fresh.path, None).expect("a keyring").keys().len(), 1);
}
