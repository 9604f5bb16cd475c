use proptest::prelude::*;

use super::*;
use crate::core::{
    signer::{
        Journal,
        announcement::{AnnouncedKey, Announcement, Stage, StatementVersion},
    },
    tests::{at, kid, node, rsa_key, terms},
};

fn kids(indices: &[usize]) -> BTreeSet<Kid> {
    indices.iter().map(|index| kid(*index)).collect()
}

/// A statement of a node at a time about its keys, signed with some of them.
fn said(
    name: &str,
    second: i64,
    keys: &[usize],
    signed_by: &[usize],
    admits: &[(&str, &[usize])],
) -> SignedAnnouncement {
    let stage = Stage::Standby { since: at(1) };
    let key = |index: &usize| AnnouncedKey { jwk: rsa_key(*index), stage, excluded_from_discovery: false };
    let word = StatementVersion { at: at(second), observed_order: None };
    let admits = admits.iter().map(|(name, keys)| (node(name), kids(keys))).collect();
    let announcement = Announcement::new(node(name), terms().issuer, word, keys.iter().map(key));
    SignedAnnouncement::by(announcement.admitting(admits), kids(signed_by))
}

fn honest(name: &str, second: i64, keys: &[usize], admits: &[(&str, &[usize])]) -> SignedAnnouncement {
    said(name, second, keys, keys, admits)
}

/// The node `me` with key 0 applies announcements at second 100.
fn learn(trust: &Trust, signed: &[SignedAnnouncement], revoked: &[usize]) -> (Trust, Vec<Distrust>) {
    let (me, issuer, own, revoked) = (node("me"), terms().issuer, kids(&[0]), kids(revoked));
    let me = LocalNode { node: &me, issuer: &issuer, keys: &own, revoked: &revoked };
    let (learnt, distrusted) = trust.update(me, signed);
    assert_eq!(learnt.update(me, signed), (learnt.clone(), distrusted.clone()), "heard twice");
    (learnt, distrusted)
}

fn admitting(signed: &[SignedAnnouncement]) -> Trust {
    let admitted = signed.iter().map(|signed| (signed.announcement().node().clone(), signed.clone()));
    Trust { admitted: admitted.collect(), known: BTreeMap::new() }
}

/// The keys that the API server of `me` verifies with.
fn verified(trust: &Trust) -> BTreeSet<Kid> {
    let journal = Journal::new(node("me"), terms().issuer, at(0)).with_trust(trust, at(100));
    let set = journal.verification_set(&BTreeSet::new()).unwrap_or_default();
    set.into_iter().map(|key| key.jwk.kid().clone()).collect()
}

#[test]
fn nobody_is_trusted_without_the_operators_word() {
    let (trust, distrusted) = learn(&Trust::default(), &[honest("b", 10, &[1], &[("me", &[0])])], &[]);
    assert_eq!((verified(&trust), distrusted), (kids(&[]), vec![Distrust::NotAdmitted { node: node("b") }]));
}

#[test]
fn who_was_admitted_is_trusted_at_once_and_with_every_key_that_follows() {
    let admitted = admitting(&[honest("b", 10, &[1], &[])]);
    let (trust, _) = learn(&admitted, &[], &[]);
    assert_eq!(verified(&trust), kids(&[1]));
    let (trust, distrusted) = learn(&trust, &[honest("b", 11, &[1, 2], &[])], &[]);
    assert_eq!((verified(&trust), distrusted), (kids(&[1, 2]), vec![]));
    let (trust, _) = learn(&trust, &[honest("b", 12, &[2, 3], &[])], &[]);
    assert_eq!(verified(&trust), kids(&[2, 3]), "what a node has destroyed");
    // A replayed earlier copy.
    let (replayed, distrusted) = learn(&trust, &[honest("b", 11, &[1, 2], &[])], &[]);
    assert_eq!((replayed, distrusted), (trust, vec![]));
}

#[test]
fn a_key_that_its_node_has_destroyed_proves_nothing_any_more_and_another_admission_does() {
    let admitted = admitting(&[honest("b", 10, &[1], &[])]);
    let (trust, _) = learn(&admitted, &[honest("b", 11, &[1, 2], &[])], &[]);
    let (trust, _) = learn(&trust, &[honest("b", 12, &[2], &[])], &[]);
    let stolen = honest("b", 13, &[1, 7], &[]);
    let (after, distrusted) = learn(&trust, &[stolen], &[]);
    assert_eq!((verified(&after), distrusted), (kids(&[2]), vec![Distrust::Unproven { node: node("b") }]));

    let anew = honest("b", 20, &[8], &[]);
    let again = Trust { admitted: admitting(&[anew]).admitted, ..trust };
    assert_eq!(verified(&learn(&again, &[], &[]).0), kids(&[8]), "its disk was lost");
}

#[test]
fn an_announcement_that_is_not_as_it_should_be_changes_nothing() {
    let (trust, _) = learn(&admitting(&[honest("b", 10, &[1], &[]), honest("c", 10, &[5], &[])]), &[], &[]);
    let b = || node("b");
    let many: Vec<usize> = (1..34).collect();
    for (signed, expected) in [
        (said("b", 11, &[1, 2], &[2], &[]), Distrust::Unproven { node: b() }),
        (said("b", 11, &[1, 2], &[], &[]), Distrust::Unproven { node: b() }),
        (said("b", 11, &[1, 2], &[1], &[]), Distrust::Unsigned { node: b(), kid: kid(2) }),
        (honest("b", 11, &[1, 5], &[]), Distrust::Taken { node: b(), kid: kid(5), owner: node("c") }),
        (honest("b", 11, &[1, 0], &[]), Distrust::Taken { node: b(), kid: kid(0), owner: node("me") }),
        (honest("b", 11, &many, &[]), Distrust::TooMany { node: b(), count: 33 }),
    ] {
        let (after, distrusted) = learn(&trust, &[signed], &[]);
        assert_eq!((after, distrusted), (trust.clone(), vec![expected]));
    }
    let (_, distrusted) = learn(&trust, &[honest("b", 11, &[1, 2], &[])], &[1]);
    assert_eq!(distrusted, [Distrust::Unproven { node: b() }], "whoever stole a key that is revoked");
}

/// It dates every announcement later than the previous one, so those in between count too.
#[test]
fn a_node_whose_clock_was_ahead_is_heard_without_a_pause() {
    let admitted = admitting(&[honest("b", 10, &[1], &[])]);
    let (trust, distrusted) = learn(&admitted, &[honest("b", 100_000_000, &[1, 2], &[])], &[]);
    assert_eq!((verified(&trust), distrusted), (kids(&[1, 2]), vec![]));
    let (trust, _) = learn(&trust, &[honest("b", 100_000_001, &[2, 3], &[])], &[]);
    assert_eq!(verified(&trust), kids(&[2, 3]));
}

#[test]
fn who_was_admitted_may_admit_others_and_they_go_with_him() {
    let b_for_c = honest("b", 11, &[1], &[("c", &[2])]);
    let signed = [honest("c", 11, &[2], &[("d", &[3])]), b_for_c.clone(), honest("d", 11, &[3], &[])];
    let (trust, distrusted) = learn(&admitting(&[honest("b", 10, &[1], &[])]), &signed, &[]);
    assert_eq!((verified(&trust), distrusted), (kids(&[1, 2, 3]), vec![]));
    let impostor = [b_for_c, honest("c", 11, &[4], &[])];
    let (impostored, _) = learn(&admitting(&[honest("b", 10, &[1], &[])]), &impostor, &[]);
    assert_eq!(verified(&impostored), kids(&[1]), "another key than was admitted");

    let expelled = Trust { admitted: BTreeMap::new(), ..trust.clone() };
    let (expelled, distrusted) = learn(&expelled, &signed, &[]);
    assert_eq!((verified(&expelled), distrusted.len()), (kids(&[]), 3));
    // Nodes that admit only each other are trusted by no other node.
    let (b, c) = (honest("b", 12, &[1], &[("c", &[2])]), honest("c", 12, &[2], &[("b", &[1])]));
    let (left, _) = learn(&Trust { admitted: BTreeMap::new(), ..trust }, &[b, c], &[]);
    assert_eq!(verified(&left), kids(&[]));
}

proptest! {
    /// Whatever an attacker without a trusted key posts: the API server verifies with none of the attacker's
    /// keys.
    #[test]
    fn a_stranger_gains_nothing(
        words in prop::collection::vec(
            (0..4_usize, 0..120_i64, prop::collection::vec(0..8_usize, 0..4), prop::collection::vec(0..8_usize, 0..4), 0..4_usize),
            0..12,
        ),
    ) {
        // Keys 0 to 3 are those of me, b and c; only they can sign with them.
        let names = ["me", "b", "c", "d"];
        let own = [honest("b", 10, &[1, 2], &[]), honest("c", 10, &[3], &[])];
        let (before, _) = learn(&admitting(&own), &[], &[]);
        let signed: Vec<SignedAnnouncement> = words
            .iter()
            .map(|(name, second, keys, signed_by, admits)| {
                let signed_by: Vec<_> =
                    signed_by.iter().copied().filter(|key| *key > 3 && keys.contains(key)).collect();
                said(names[*name], *second, keys, &signed_by, &[(names[*admits], &[4, 5, 6, 7])])
            })
            .collect();
        let (after, _) = learn(&before, &signed, &[]);
        prop_assert_eq!(after, before);
    }
}
