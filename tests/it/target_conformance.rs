//! One suite for every kind of target: what `Target` promises holds wherever a publication goes.
//!
//! [`conforms`] takes a target that is empty and a way to change it behind its back.

use std::{fmt::Debug, fs, time::Duration};

use signpost::{
    core::{
        issuer::Issuer,
        jwk::Jwk,
        jwk_set::Profile,
        ledger::Lineage,
        placement::Headers,
        public_key::PublicKey,
        publication::{Document, Publication, Terms},
    },
    target::{Connections, Location, Owner, Target, WriteError},
};

/// What a stranger does to a document.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Edit {
    /// Writes these bytes over it, without owner and headers.
    Overwrite(&'static [u8]),
    Delete,
}

/// Whether a target can keep headers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Keeps {
    Headers,
    ContentOnly,
}

/// Runs every case. `edit` changes the document that is published under its path below the target.
pub(crate) async fn conforms(target: &Target, keeps: Keeps, edit: impl AsyncFn(Document, Edit)) {
    an_empty_target_reads_as_empty(target).await;
    what_is_written_is_read_with_its_owner(target, keeps).await;
    creating_over_a_document_is_a_lost_race(target).await;
    updating_a_version_that_is_gone_is_a_lost_race(target).await;
    of_two_writers_at_once_one_wins(target).await;
    a_foreign_edit_is_seen_and_not_overwritten(target, &edit).await;
    a_deletion_is_seen_and_repaired(target, &edit).await;
    another_lineage_is_visible(target).await;
}

async fn an_empty_target_reads_as_empty(target: &Target) {
    let reading = target.read().await.expect("it can be read");
    assert_eq!(reading.found.jwks, None);
    assert_eq!(reading.found.discovery, None);
    assert_eq!(reading.versions, target.versions().await.expect("it can be asked"));
    assert_eq!(reading.owners, []);
}

async fn what_is_written_is_read_with_its_owner(target: &Target, keeps: Keeps) {
    let (publication, owner) = (publication(1), owner("ours", 7));
    for document in Document::IN_WRITE_ORDER {
        target.write(document, &publication, &owner, None).await.expect("nothing was there");
    }
    let reading = target.read().await.expect("it can be read");
    for document in Document::IN_WRITE_ORDER {
        let stored = reading.found.get(document).expect("it was written");
        assert_eq!(stored.bytes, *publication.bytes(document), "{document:?}");
        assert_eq!(stored.lineage.as_ref(), Some(&owner.lineage), "{document:?}");
        let headers = Headers {
            content_type: Some("application/json".to_owned()),
            cache_control: Some("public, max-age=300".to_owned()),
        };
        assert_eq!(stored.headers, (keeps == Keeps::Headers).then_some(headers), "{document:?}");
    }
    assert_eq!(reading.owners, [owner.clone(), owner]);
    assert_eq!(reading.versions, target.versions().await.expect("it can be asked"));
}

async fn creating_over_a_document_is_a_lost_race(target: &Target) {
    let before = target.read().await.expect("it can be read");
    lost(&target.write(Document::Jwks, &publication(2), &owner("ours", 8), None).await);
    assert_eq!(target.read().await.expect("it can be read"), before);
}

async fn updating_a_version_that_is_gone_is_a_lost_race(target: &Target) {
    let old = target.versions().await.expect("it can be asked").jwks;
    let new = target.write(Document::Jwks, &publication(2), &owner("ours", 8), old.as_ref()).await;
    let new = new.expect("nobody else wrote");
    assert_ne!(old.as_ref(), Some(&new));
    lost(&target.write(Document::Jwks, &publication(3), &owner("ours", 9), old.as_ref()).await);
    assert_eq!(target.versions().await.expect("it can be asked").jwks, Some(new));
    assert_holds(target, 2).await;
}

async fn of_two_writers_at_once_one_wins(target: &Target) {
    for round in 0..10 {
        let version = target.versions().await.expect("it can be asked").jwks;
        let (numbers, owner) = ([10 + 2 * round, 11 + 2 * round], owner("ours", 10));
        let publications = numbers.map(publication);
        let write =
            |index: usize| target.write(Document::Jwks, &publications[index], &owner, version.as_ref());
        let winner = match tokio::join!(write(0), write(1)) {
            (Ok(_), Err(WriteError::LostRace { .. })) => numbers[0],
            (Err(WriteError::LostRace { .. }), Ok(_)) => numbers[1],
            other => panic!("expected one winner, got {other:?}"),
        };
        assert_holds(target, winner).await;
    }
}

async fn a_foreign_edit_is_seen_and_not_overwritten(target: &Target, edit: &impl AsyncFn(Document, Edit)) {
    let before = target.versions().await.expect("it can be asked").jwks;
    edit(Document::Jwks, Edit::Overwrite(b"edited")).await;
    let after = target.versions().await.expect("it can be asked").jwks;
    assert_ne!(after, before);
    lost(&target.write(Document::Jwks, &publication(4), &owner("ours", 11), before.as_ref()).await);
    let reading = target.read().await.expect("it can be read");
    assert_eq!(reading.found.jwks.expect("it is there").bytes, b"edited");

    target
        .write(Document::Jwks, &publication(4), &owner("ours", 11), after.as_ref())
        .await
        .expect("repaired");
    assert_holds(target, 4).await;
}

async fn a_deletion_is_seen_and_repaired(target: &Target, edit: &impl AsyncFn(Document, Edit)) {
    let before = target.versions().await.expect("it can be asked").jwks;
    edit(Document::Jwks, Edit::Delete).await;
    assert_eq!(target.versions().await.expect("it can be asked").jwks, None);
    assert_eq!(target.read().await.expect("it can be read").found.jwks, None);
    lost(&target.write(Document::Jwks, &publication(5), &owner("ours", 12), before.as_ref()).await);

    target.write(Document::Jwks, &publication(5), &owner("ours", 12), None).await.expect("repaired");
    assert_holds(target, 5).await;
}

async fn another_lineage_is_visible(target: &Target) {
    let version = target.versions().await.expect("it can be asked").jwks;
    let theirs = owner("theirs", 3);
    target
        .write(Document::Jwks, &publication(6), &theirs, version.as_ref())
        .await
        .expect("nobody else wrote");
    let reading = target.read().await.expect("it can be read");
    assert_eq!(reading.found.jwks.expect("it is there").lineage, Some(theirs.lineage.clone()));
    assert_eq!(reading.owners, [theirs, owner("ours", 7)]);
}

async fn assert_holds(target: &Target, number: u8) {
    let stored = target.read().await.expect("it can be read").found.jwks.expect("it is there");
    assert_eq!(stored.bytes, *publication(number).bytes(Document::Jwks));
}

#[track_caller]
fn lost<T: Debug>(written: &Result<T, WriteError>) {
    assert!(matches!(written, Err(WriteError::LostRace { .. })), "{written:?}");
}

/// A publication that differs from those of other numbers in its JWKS.
pub(crate) fn publication(number: u8) -> Publication {
    let issuer = Issuer::parse("https://issuer.example").expect("it is an issuer");
    let jwks_uri = issuer.jwks_uri();
    let terms = Terms { issuer, jwks_uri, max_age: Duration::from_mins(5) };
    let mut modulus = [0xc5; 256];
    modulus[1] = number;
    let key = PublicKey::rsa(&modulus, &[1, 0, 1]).expect("the modulus is odd and long");
    Publication::render(&terms, Profile::Entra, [Jwk::of_public_key(key)]).expect("there is a key")
}

pub(crate) fn owner(lineage: &str, sequence: u64) -> Owner {
    Owner { lineage: Lineage::read(lineage), sequence }
}

#[tokio::test]
async fn a_directory_conforms() {
    let root = tempfile::tempdir().expect("a directory");
    let connections = Connections::default();
    let location = Location::Directory(root.path().join("public"));
    let target = Target::new("local".to_owned(), location, None, &connections).expect("a target");
    conforms(&target, Keeps::ContentOnly, async |document, edit| {
        let path = root.path().join("public").join(document.path());
        match edit {
            Edit::Overwrite(bytes) => fs::write(path, bytes).expect("it can be written"),
            Edit::Delete => fs::remove_file(path).expect("it can be removed"),
        }
    })
    .await;
}
