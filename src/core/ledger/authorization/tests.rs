use std::time::Duration;

use super::*;
use crate::core::{
    ledger::{
        Lineage, Retention,
        merge::{SourceAnswer, SourceReport, merge},
    },
    signer::announcement::{AnnouncedKey, Announcement, SignedAnnouncement, Stage, StatementVersion},
    tests::{at, kid, node, retention, rsa_key, terms},
};

/// A statement of a node at a time about its keys, all standby; signed with some of them.
fn said(name: &str, second: i64, keys: &[usize], signed_by: &[usize]) -> NodeStatement {
    vouching(name, second, keys, signed_by, &[])
}

fn vouching(
    name: &str,
    second: i64,
    keys: &[usize],
    signed_by: &[usize],
    admits: &[(&str, usize)],
) -> NodeStatement {
    let stage = Stage::Standby { since: at(1) };
    let key = |index: &usize| AnnouncedKey { jwk: rsa_key(*index), stage, excluded_from_discovery: false };
    let word = StatementVersion { at: at(second), observed_order: None };
    let admits = admits.iter().map(|(name, index)| (node(name), BTreeSet::from([kid(*index)]))).collect();
    let announcement = Announcement::new(node(name), terms().issuer, word, keys.iter().map(key));
    let signed_by = signed_by.iter().map(|index| kid(*index)).collect();
    NodeStatement::new(
        SignedAnnouncement::by(announcement.admitting(admits), signed_by),
        at(second),
        Duration::ZERO,
    )
}

/// The ledger after these statements were observed together.
fn heard(ledger: &Ledger, now: i64, said: &[NodeStatement]) -> Ledger {
    let report = SourceReport { source: "nodes".to_owned(), answer: SourceAnswer::Announced(said.to_vec()) };
    ledger.observe(&merge(ledger, &[report]), at(now), &retention()).ledger
}

fn one_node() -> Ledger {
    heard(&Ledger::new(terms().issuer, Lineage::from_random([1; 8])), 10, &[said("a", 10, &[0, 1], &[0, 1])])
}

fn verdict(ledger: &Ledger, said: &NodeStatement) -> Result<(), AnnouncementRejection> {
    ledger.authorize(&[said]).remove(0)
}

#[test]
fn the_first_nodes_of_an_issuer_are_believed() {
    let ledger = Ledger::new(terms().issuer, Lineage::from_random([1; 8]));
    let both = [said("a", 10, &[0], &[0]), said("b", 10, &[2], &[2])];
    assert_eq!(ledger.authorize(&[&both[0], &both[1]]), [Ok(()), Ok(())]);
}

#[test]
fn a_known_node_needs_a_signature_of_a_known_key() {
    let ledger = one_node();
    assert_eq!(verdict(&ledger, &said("a", 11, &[1, 2], &[1, 2])), Ok(()));
    let unproven = Err(AnnouncementRejection::Unproven { node: node("a") });
    assert_eq!(verdict(&ledger, &said("a", 11, &[1, 2], &[2])), unproven, "by a new key alone");
    assert_eq!(verdict(&ledger, &said("a", 11, &[1, 2], &[])), unproven);
    let revoked = ledger.revoke(&kid(1), at(11)).expect("known");
    assert_eq!(verdict(&revoked, &said("a", 12, &[1, 2], &[1, 2])), unproven, "whoever stole the key");
    let own = NodeStatement { is_own: true, ..said("a", 11, &[2], &[2]) };
    assert_eq!(verdict(&ledger, &own), Ok(()), "it is in this process");
}

#[test]
fn what_was_said_before_the_last_word_does_not_count() {
    let ledger = heard(&one_node(), 20, &[said("a", 20, &[0, 1, 2], &[0, 1, 2])]);
    let outdated = AnnouncementRejection::Outdated { node: node("a"), at: at(10), known: at(20) };
    assert_eq!(verdict(&ledger, &said("a", 10, &[0, 1], &[0, 1])), Err(outdated));
    // Key 2 is neither lost by it, nor missing.
    let replayed = heard(&ledger, 30, &[said("a", 10, &[0, 1], &[0, 1])]);
    assert_eq!(replayed, ledger);
}

#[test]
fn a_new_node_is_believed_once_one_that_is_known_admits_it_or_who_that_has_admitted() {
    let ledger = one_node();
    let (b, c) = (said("b", 11, &[2], &[2]), said("c", 11, &[3], &[3]));
    let not_admitted = |name| Err(AnnouncementRejection::NotAdmitted { node: node(name) });
    assert_eq!(ledger.authorize(&[&b, &c]), [not_admitted("b"), not_admitted("c")]);
    assert_eq!(
        heard(&ledger, 11, &[said("a", 10, &[0, 1], &[0, 1]), b.clone()]),
        ledger,
        "it is not published"
    );

    let a = vouching("a", 11, &[0, 1], &[0], &[("b", 2)]);
    let b_for_c = vouching("b", 11, &[2], &[2], &[("c", 3)]);
    assert_eq!(ledger.authorize(&[&c, &b_for_c, &a]), [Ok(()), Ok(()), Ok(())]);
    let impostor = said("b", 11, &[4], &[4]);
    assert_eq!(
        ledger.authorize(&[&a, &impostor]),
        [Ok(()), not_admitted("b")],
        "another key than was admitted"
    );
    let unsigned = said("b", 11, &[2], &[]);
    assert_eq!(
        ledger.authorize(&[&a, &unsigned]),
        [Ok(()), not_admitted("b")],
        "anybody can copy a public key"
    );
    let forged = vouching("a", 11, &[0, 1, 5], &[5], &[("b", 2)]);
    assert_eq!(
        ledger.authorize(&[&forged, &b])[1],
        not_admitted("b"),
        "who is not believed vouches for nobody"
    );
}

#[test]
fn a_node_that_is_set_up_anew_is_believed_once_the_old_one_is_forgotten() {
    let owed = Retention { margin: Duration::from_secs(10), ..retention() };
    let anew = said("a", 90, &[7], &[7]);
    let ledger = one_node();
    assert_eq!(verdict(&ledger, &anew), Err(AnnouncementRejection::Unproven { node: node("a") }));
    let ledger = ledger.forget(&node("a"), &owed, at(100)).expect("known");
    let forgotten = AnnouncementRejection::Forgotten { node: node("a"), gone: at(100) };
    assert_eq!(verdict(&ledger, &said("a", 10, &[0, 1], &[0, 1])), Err(forgotten), "its file is still there");
    assert_eq!(verdict(&ledger, &anew), Ok(()));
    let ledger = heard(&ledger, 101, &[anew]);
    assert!(ledger.entries().contains_key(&kid(7)) && ledger.entries()[&kid(0)].is_public());
    assert_eq!(ledger.nodes(), BTreeSet::from([&node("a")]));
}
