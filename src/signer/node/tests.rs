use std::{fs, os::unix::fs::MetadataExt as _, path::Path};

use base64ct::{Base64UrlUnpadded, Encoding as _};
use openssl::{hash::MessageDigest, pkey::PKey, sign::Verifier};
use serde_json::json;
use tempfile::TempDir;

use super::*;
use crate::core::{
    jose::jwk::Jwk,
    signer::announcement::{Announcement, SignedAnnouncement, Stage},
};

const API: &str = "https://issuer.example";
const OTHERS: &str = "api://AzureADTokenExchange";

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).expect("a time")
}

fn settings(folder: &Path) -> Settings {
    Settings {
        node: NodeName::parse("node-1").expect("a name"),
        issuer: Issuer::parse(API).expect("an issuer"),
        keyring: folder.join("keys"),
        announcements: folder.join("announcements"),
        trust: folder.join("trust"),
        api_audiences: BTreeSet::from([API.to_owned()]),
        max_token_lifetime: Duration::from_hours(1),
        margin: Duration::from_secs(10),
        key_type: KeyType::Rsa2048,
        hsm: None,
        additional_keys: Vec::new(),
    }
}

fn open(folder: &TempDir) -> Node {
    Node::open(settings(folder.path()), at(0)).expect("a node").0
}

fn started(folder: &TempDir) -> Node {
    let node = open(folder);
    node.reconcile(&DesiredState::default(), at(0)).expect("keys are made");
    node
}

fn claims(audience: &str, exp: Timestamp) -> String {
    let claims = json!({"iss": API, "aud": [audience], "exp": exp.as_second()});
    Base64UrlUnpadded::encode_string(claims.to_string().as_bytes())
}

fn announced(folder: &TempDir) -> Announcement {
    let file = folder.path().join("announcements/node-1.json");
    assert_eq!(fs::metadata(&file).expect("it is there").mode() & 0o777, 0o644);
    let signed = SignedAnnouncement::read(&fs::read(file).expect("it is there")).expect("whole");
    assert!(signed.signed_by().iter().eq(signed.announcement().keys().keys()), "every key has signed");
    signed.announcement().clone()
}

fn journal(folder: &TempDir) -> Journal {
    Journal::parse(&fs::read(folder.path().join("keys/signer.json")).expect("it is there")).expect("whole")
}

fn verifies(jwk: &Jwk, claims: &str, signed: &Signature) -> bool {
    let key = PKey::public_key_from_der(&jwk.public_key().to_spki()).expect("a public key");
    let mut verifier = Verifier::new(MessageDigest::sha256(), &key).expect("a verifier");
    verifier.update(format!("{}.{claims}", signed.header).as_bytes()).expect("bytes");
    verifier.verify(&Base64UrlUnpadded::decode_vec(&signed.signature).expect("base64url")).expect("an answer")
}

#[test]
fn a_node_signs_for_the_api_server_at_once_and_for_others_when_it_is_ordered_to() {
    let folder = TempDir::new().expect("a folder");
    let node = started(&folder);
    let (mine, others) = (claims(API, at(600)), claims(OTHERS, at(600)));
    let signed = node.sign(&mine, at(1)).expect("it signs");
    let refusal = node.sign(&others, at(1));
    assert!(matches!(refusal, Err(SignError::Refused(SigningRefusal::NotReady))));
    let kid = node.journal().signing().expect("one signs").clone();
    node.reconcile(&DesiredState { sign: Some(kid.clone()), ..DesiredState::default() }, at(2))
        .expect("allowed");
    let for_others = node.sign(&others, at(3)).expect("it signs");
    let jwk = announced(&folder).keys()[&kid].jwk.clone();
    assert!(verifies(&jwk, &mine, &signed) && verifies(&jwk, &others, &for_others));
    let header = Base64UrlUnpadded::decode_vec(&signed.header).expect("base64url");
    let expected = format!(r#"{{"alg":"RS256","kid":"{kid}","typ":"JWT"}}"#);
    assert_eq!(String::from_utf8(header).expect("JSON"), expected);
    assert_eq!(signed.header, for_others.header);
}

#[test]
fn an_announcement_that_somebody_took_away_or_changed_is_made_anew() {
    let folder = TempDir::new().expect("a folder");
    let node = started(&folder);
    let (directory, before) = (folder.path().join("announcements"), announced(&folder));
    let spoil: [fn(&Path); 3] = [
        |directory| fs::write(directory.join("node-1.json"), "{").expect("it is ours"),
        |directory| fs::remove_file(directory.join("node-1.json")).expect("it is ours"),
        |directory| fs::remove_dir_all(directory).expect("it is ours"),
    ];
    for spoil in spoil {
        spoil(&directory);
        node.read_peers();
        node.reconcile(&DesiredState::default(), at(1)).expect("it can be written");
        assert_eq!(before, announced(&folder));
    }
}

#[test]
fn how_long_a_token_lives_is_on_disk_before_it_is_signed_and_once_a_minute() {
    let folder = TempDir::new().expect("a folder");
    let node = started(&folder);
    let early = claims(API, at(600));
    assert!(matches!(node.sign_from_memory(&early, at(1)), Err(SignError::ExpiryNotReserved(_))));
    node.sign(&early, at(1)).expect("it signs");
    let kid = journal(&folder).signing().expect("one signs").clone();
    assert_eq!(journal(&folder).keys()[&kid].latest_internal_exp_bound, Some(at(660)));
    assert!(node.sign_from_memory(&claims(API, at(660)), at(1)).is_ok());
    assert!(matches!(
        node.sign_from_memory(&claims(API, at(661)), at(1)),
        Err(SignError::ExpiryNotReserved(_))
    ));
}

#[test]
fn what_was_ordered_survives_a_restart_and_the_old_key_is_announced_with_its_last_token() {
    let folder = TempDir::new().expect("a folder");
    let node = started(&folder);
    let first = node.journal().signing().expect("one signs").clone();
    node.reconcile(&DesiredState { sign: Some(first.clone()), ..DesiredState::default() }, at(1))
        .expect("allowed");
    node.sign(&claims(OTHERS, at(600)), at(2)).expect("it signs");
    let standby = node.journal().keys().keys().find(|kid| **kid != first).expect("a spare").clone();
    node.reconcile(
        &DesiredState { sign: Some(standby.clone()), at: at(3), ..DesiredState::default() },
        at(3),
    )
    .expect("rotated");
    let stage = Stage::Retired { since: at(3), latest_exp: Some(at(660)) };
    assert_eq!(announced(&folder).keys()[&first].stage, stage);
    let before = node.journal();
    drop(node);
    let (node, findings) = Node::open(settings(folder.path()), at(4)).expect("a node");
    assert_eq!((node.journal(), findings), (before, vec![]));
    assert!(node.sign(&claims(OTHERS, at(600)), at(5)).is_ok());
}

#[test]
fn a_node_whose_journal_was_lost_goes_on_with_new_keys_and_keeps_the_old_ones_public() {
    let folder = TempDir::new().expect("a folder");
    let node = started(&folder);
    let kid = node.journal().signing().expect("one signs").clone();
    drop(node);
    fs::remove_file(folder.path().join("keys/signer.json")).expect("it is there");
    let (node, findings) = Node::open(settings(folder.path()), at(10)).expect("a node");
    assert_eq!(findings.len(), 2);
    let stage = Stage::Retired { since: at(10), latest_exp: Some(at(10 + 3600 + 10)) };
    assert_eq!(announced(&folder).keys()[&kid].stage, stage);
    node.reconcile(&DesiredState::default(), at(10)).expect("keys are made");
    assert_eq!(node.journal().keys().len(), 4);
    assert!(matches!(
        node.sign(&claims(OTHERS, at(600)), at(11)),
        Err(SignError::Refused(SigningRefusal::NotReady))
    ));
}

#[test]
fn a_private_key_that_was_lost_retires_and_another_one_signs() {
    let folder = TempDir::new().expect("a folder");
    let node = started(&folder);
    let kid = node.journal().signing().expect("one signs").clone();
    drop(node);
    fs::remove_file(folder.path().join(format!("keys/{kid}.pem"))).expect("it is there");
    let (node, findings) = Node::open(settings(folder.path()), at(10)).expect("a node");
    assert_eq!(findings, [RecoveryFinding::Lost { kid: kid.clone() }]);
    assert!(matches!(
        node.sign(&claims(API, at(600)), at(10)),
        Err(SignError::Refused(SigningRefusal::NoKey))
    ));
    let orders = DesiredState { sign: Some(kid.clone()), ..DesiredState::default() };
    node.reconcile(&orders, at(11)).expect("another one begins");
    assert_ne!(node.journal().signing(), Some(&kid));
    assert!(node.sign(&claims(API, at(600)), at(12)).is_ok());
}

#[test]
fn a_keyring_of_another_node_or_issuer_is_refused() {
    let folder = TempDir::new().expect("a folder");
    drop(started(&folder));
    let other = Settings { node: NodeName::parse("node-2").expect("a name"), ..settings(folder.path()) };
    let refusal = Node::open(other, at(1)).map(drop).expect_err("another node");
    assert!(refusal.to_string().ends_with("belongs to node `node-1`, expected `node-2`"), "{refusal}");
    assert!(refusal.hint().is_some_and(|hint| hint.contains("--node node-1")));
    let issuer = Issuer::parse("https://other.example").expect("an issuer");
    let refusal = Node::open(Settings { issuer, ..settings(folder.path()) }, at(1)).map(drop);
    assert!(
        refusal
            .is_err_and(|refusal| refusal.to_string().contains("belongs to issuer `https://issuer.example`"))
    );
}

#[test]
fn a_damaged_journal_is_refused_with_what_to_do() {
    let folder = TempDir::new().expect("a folder");
    drop(started(&folder));
    fs::write(folder.path().join("keys/signer.json"), "{").expect("it is ours");
    let refusal = Node::open(settings(folder.path()), at(1)).map(drop).expect_err("damaged");
    assert!(refusal.to_string().starts_with("cannot use the journal"), "{refusal}");
    assert!(refusal.hint().is_some_and(|hint| hint.starts_with("remove the file")));
}

#[test]
fn nothing_changes_hands_that_could_not_be_announced() {
    let folder = TempDir::new().expect("a folder");
    let node = started(&folder);
    let before = node.journal();
    let first = before.signing().expect("one signs").clone();
    let standby = before.keys().keys().find(|kid| **kid != first).expect("a spare").clone();
    // A file in place of the directory.
    fs::remove_dir_all(folder.path().join("announcements")).expect("it is ours");
    fs::write(folder.path().join("announcements"), "").expect("it is ours");
    let orders = DesiredState { sign: Some(standby.clone()), ..DesiredState::default() };
    assert!(matches!(node.reconcile(&orders, at(1)), Err(NodeError::Board(_))));
    assert_eq!(node.journal(), before);
    assert_eq!(journal(&folder).signing(), Some(&standby), "it would go on from here");
    assert!(node.sign(&claims(API, at(600)), at(2)).is_ok());
    assert_eq!(node.journal().signing(), Some(&first));
    fs::remove_file(folder.path().join("announcements")).expect("it is ours");
    node.reconcile(&orders, at(3)).expect("it goes on");
    assert_eq!(node.journal().signing(), Some(&standby));
    let held = journal(&folder).keys()[&first].clone();
    assert_eq!(
        held.latest_internal_exp_bound,
        Some(at(660)),
        "nothing that was signed meanwhile is forgotten"
    );
}

#[test]
fn a_revoked_key_does_not_sign_although_the_disk_cannot_say_so() {
    let folder = TempDir::new().expect("a folder");
    let node = started(&folder);
    node.sign(&claims(API, at(600)), at(1)).expect("it signs");
    let kid = node.journal().signing().expect("one signs").clone();
    fs::remove_dir_all(folder.path().join("announcements")).expect("it is ours");
    fs::write(folder.path().join("announcements"), "").expect("it is ours");
    let orders = DesiredState { revoked: BTreeSet::from([kid.clone()]), ..DesiredState::default() };
    assert!(node.reconcile(&orders, at(2)).is_err());
    assert!(matches!(
        node.sign(&claims(API, at(600)), at(3)),
        Err(SignError::Refused(SigningRefusal::NoKey))
    ));
    let (set, _) = node.verification_set().expect("the standby");
    assert!(set.iter().all(|key| *key.jwk.kid() != kid));
}

#[test]
fn a_key_whose_revocation_could_not_be_recorded_does_not_sign_after_a_restart_without_a_ledger() {
    let folder = TempDir::new().expect("a folder");
    let node = started(&folder);
    let kid = node.journal().signing().expect("one signs").clone();
    // Like a full disk, this fails writes but not removals.
    let (file, aside) = (folder.path().join("keys/signer.json"), folder.path().join("signer.json"));
    fs::rename(&file, &aside).expect("the folder is ours");
    fs::create_dir(&file).expect("the folder is ours");
    let orders = DesiredState { revoked: BTreeSet::from([kid.clone()]), ..DesiredState::default() };
    assert!(node.reconcile(&orders, at(2)).is_err(), "it could be recorded");
    fs::remove_dir(&file).expect("it is empty");
    fs::rename(&aside, &file).expect("the folder is ours");
    assert_eq!(journal(&folder).signing(), Some(&kid));
    drop(node);
    let node = started(&folder);
    node.sign(&claims(API, at(600)), at(3)).expect("the standby signs");
    assert_ne!(node.journal().signing(), Some(&kid));
}

#[test]
fn two_keyrings_share_nothing() {
    let (one, other) = (TempDir::new().expect("a folder"), TempDir::new().expect("a folder"));
    let kids = |node: &Node| node.journal().keys().keys().cloned().collect::<BTreeSet<_>>();
    assert!(kids(&started(&one)).is_disjoint(&kids(&started(&other))));
}

/// k3s keeps previous keys in the file of the signing key, and kube-apiserver signs with the first.
#[test]
fn of_several_keys_in_a_file_the_first_private_one_is_taken_over_and_the_others_are_counted() {
    let folder = TempDir::new().expect("a folder");
    let file = folder.path().join("service.key");
    let keys = [(); 3].map(|()| openssl::rsa::Rsa::generate(2048).expect("a key"));
    let parts = [
        keys[2].public_key_to_pem().expect("PEM"),
        keys[0].private_key_to_pem().expect("PEM"),
        keys[1].private_key_to_pem().expect("PEM"),
    ];
    fs::write(&file, parts.concat()).expect("it is ours");
    fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o600)).expect("it is ours");
    let node = started(&folder);
    let Imported { kid, others } = node.import(&file, at(5)).expect("imported");
    let first =
        crate::core::jose::public_key::PublicKey::from_spki(&keys[0].public_key_to_der().expect("DER"));
    assert_eq!((kid, others), (Jwk::of_public_key(first.expect("RSA")).kid().clone(), 2));
    drop(node);
    let stored = fs::read_dir(folder.path().join("keys")).expect("it is there");
    let stored = stored.filter(|entry| {
        let path = entry.as_ref().expect("readable").path();
        path.extension().is_some_and(|extension| extension == "pem")
            && fs::read_to_string(path).expect("ours").matches("PRIVATE KEY-----").count() == 2
    });
    assert_eq!(stored.count(), 3, "one key in each file");
}

#[test]
fn what_cannot_be_taken_over_stays_as_it_is_for_the_cluster_uses_it() {
    let folder = TempDir::new().expect("a folder");
    let node = started(&folder);
    let file = folder.path().join("sa.key");
    let curve = openssl::ec::EcGroup::from_curve_name(openssl::nid::Nid::SECP384R1).expect("a curve");
    let p384 = openssl::ec::EcKey::generate(&curve).and_then(|key| key.private_key_to_pem()).expect("PEM");
    let cipher = openssl::symm::Cipher::aes_256_cbc();
    let encrypted = openssl::rsa::Rsa::generate(2048).and_then(PKey::from_rsa);
    let encrypted =
        encrypted.and_then(|key| key.private_key_to_pem_pkcs8_passphrase(cipher, b"x")).expect("PEM");
    for (pem, cause, to_do) in [
        (p384, "it is for ES384, expected RSA or P-256", "`signer.additional_verification_keys`"),
        (encrypted, "it is encrypted", "without a passphrase"),
        (
            b"text".to_vec(),
            "not an unencrypted RSA or P-256 key in PEM",
            "--service-account-signing-key-file",
        ),
    ] {
        fs::write(&file, &pem).expect("it is ours");
        fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o600)).expect("it is ours");
        let refused = node.import(&file, at(5)).expect_err(cause);
        let hint = refused.hint().expect("a hint");
        assert!(
            hint.contains(to_do) && hint.contains("keep the file unchanged") && !hint.starts_with("remove"),
            "{hint}"
        );
        let mut innermost: &dyn std::error::Error = &refused;
        while let Some(source) = innermost.source() {
            innermost = source;
        }
        assert_eq!(innermost.to_string(), cause);
        assert_eq!(fs::read(&file).expect("it is there"), pem);
    }
}

#[test]
fn an_imported_key_signs_for_everybody_and_is_kept_for_what_others_signed_with_it() {
    let folder = TempDir::new().expect("a folder");
    let file = folder.path().join("sa.key");
    let rsa = openssl::rsa::Rsa::generate(2048).expect("a key");
    fs::write(&file, rsa.private_key_to_pem().expect("PEM")).expect("it is ours");
    let node = started(&folder);
    let first = node.journal().signing().expect("one signs").clone();
    let open_to_all = node.import(&file, at(5)).expect_err("others may read it");
    assert!(open_to_all.hint().is_some_and(|hint| hint.contains("install -o ")), "{open_to_all}");
    fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o600)).expect("it is ours");
    let link = folder.path().join("link.key");
    std::os::unix::fs::symlink(&file, &link).expect("it is ours");
    let Imported { kid, others } = node.import(&link, at(5)).expect("imported");
    assert_eq!(others, 0);
    assert!(matches!(node.import(&file, at(5)), Err(NodeError::Present { .. })));
    let others = claims(OTHERS, at(600));
    let signed = node.sign(&others, at(6)).expect("it signs");
    assert!(verifies(&announced(&folder).keys()[&kid].jwk, &others, &signed));
    node.reconcile(&DesiredState::default(), at(7)).expect("the other one stops");
    assert!(matches!(announced(&folder).keys()[&first].stage, Stage::Retired { .. }));
    let standby = node
        .journal()
        .keys()
        .iter()
        .find(|(_, held)| matches!(held.stage, Stage::Standby { .. }))
        .map(|(kid, _)| kid.clone());
    node.reconcile(&DesiredState { sign: standby, at: at(8), ..DesiredState::default() }, at(8))
        .expect("rotated away");
    let held = node.journal().keys()[&kid].clone();
    assert_eq!(held.latest_exp_bound, Some(at(5 + 3600 + 10)));
    assert_eq!(held.latest_internal_exp_bound, Some(at(5 + 365 * 24 * 3600 + 10)));
    drop(node);
    assert_eq!(open(&folder).journal().keys().len(), 4);
}
