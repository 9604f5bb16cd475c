use std::{fs::Permissions, os::unix::fs::PermissionsExt as _};

use jiff::Timestamp;
use openssl::{
    hash::MessageDigest,
    pkey::{PKey, Private},
    rsa::Rsa,
    sign::Signer,
};
use tempfile::TempDir;

use super::*;
use crate::core::{
    jose::{issuer::Issuer, jwk::Jwk, public_key::PublicKey},
    signer::announcement::{AnnouncedKey, Announcement, AnnouncementSigner, Stage, StatementVersion},
};

fn keys(count: usize) -> Vec<PKey<Private>> {
    let key = |_| Rsa::generate(2048).and_then(PKey::from_rsa).expect("OpenSSL makes keys");
    (0..count).map(key).collect()
}

/// A statement of a node at a time, signed with all of its keys.
fn signed(name: &str, second: i64, keys: &[PKey<Private>]) -> SignedAnnouncement {
    let at = Timestamp::from_second(second).expect("a time");
    let jwk = |key: &PKey<Private>| {
        let spki = key.public_key_to_der().expect("a key has DER");
        Jwk::of_public_key(PublicKey::from_spki(&spki).expect("RSA"))
    };
    let announced = |key| AnnouncedKey {
        jwk: jwk(key),
        stage: Stage::Standby { since: at },
        excluded_from_discovery: false,
    };
    let issuer = Issuer::parse("https://issuer.example").expect("an issuer");
    let word = StatementVersion { at, observed_order: None };
    let announcement = Announcement::new(node(name), issuer, word, keys.iter().map(announced));
    let mut draft = AnnouncementSigner::new(&announcement);
    for key in keys {
        let sign = |message: &[u8]| Signer::new(MessageDigest::sha256(), key)?.sign_oneshot_to_vec(message);
        draft.sign(&jwk(key), sign).expect("it signs");
    }
    SignedAnnouncement::read(&draft.to_json()).expect("well-formed")
}

fn node(name: &str) -> NodeName {
    NodeName::parse(name).expect("a name")
}

fn store(folder: &TempDir) -> TrustStore {
    TrustStore::new(folder.path().join("trust"))
}

#[test]
fn a_file_that_changes_under_a_running_node_is_seen_at_once() {
    let folder = TempDir::new().expect("a temporary folder");
    let (mut running, operator, keys) = (store(&folder), store(&folder), keys(1));
    assert_eq!(running.load().expect("nobody was admitted"), Trust::default());
    let [first, later] = [1, 2].map(|second| signed("a", second, &keys));
    for admitted in [&first, &first, &later, &first] {
        operator.admit(admitted).expect("it can be written");
        assert_eq!(running.load().expect("readable").admitted[&node("a")], *admitted);
    }
    // By hand, of the same length, and within the same second.
    let file = folder.path().join("trust/admitted/a.json");
    let text = fs::read_to_string(&file).expect("it is there");
    let payload = text.find("payload").expect("it has one") + 20;
    let forged = [&text[..payload], "AAAA", &text[payload + 4..]].concat();
    fs::write(&file, forged).expect("the folder is ours");
    let Err(TrustError::File(AnnouncementFileError::Unusable { path, .. })) = running.load() else {
        panic!("it was forged")
    };
    assert_eq!(path, file);
    fs::write(&file, text).expect("the folder is ours");
    assert_eq!(running.load().expect("it is right again").admitted[&node("a")], first);
    operator.expel(&node("a")).expect("it can be removed");
    assert_eq!(running.load().expect("readable"), Trust::default());
}

#[test]
fn what_others_can_write_is_not_believed_although_it_was_read_before() {
    let folder = TempDir::new().expect("a temporary folder");
    let mut running = store(&folder);
    running.admit(&signed("a", 1, &keys(1))).expect("it can be written");
    running.load().expect("readable");
    let directory = folder.path().join("trust/admitted");
    fs::set_permissions(&directory, Permissions::from_mode(0o777)).expect("it is ours");
    let exposed = running.load().expect_err("anybody can write there");
    assert!(exposed.hint().expect("a hint").contains("chmod 700"), "{exposed}");
}
