//! One suite for every kind of target: the guarantees of `Target` hold wherever a publication goes.
//!
//! A list of cases and a list of servers; every case runs against every server as a separate test, such as
//! `azurite::a_deletion_is_seen_and_repaired`. [`servers`] defines what a fault means for a server.

mod servers;

use std::fmt::Debug;
use std::time::{Duration, Instant};

use signpost::{
    core::{
        jose::{
            issuer::Issuer,
            jwk::Jwk,
            jwk_set::Profile,
            public_key::PublicKey,
            publication::{Document, Publication, Terms},
        },
        ledger::{Ledger, Lineage},
        target_plan::{Headers, WriteRefused, decide},
        text::Hint,
    },
    target::{Owner, TargetError, Version, WriteError},
};

use self::servers::{Edit, Fault, Keeps, Scene, run};

macro_rules! suite {
    ($server:ident: $($case:ident as $rights:ident,)*) => {
        mod $server {
            use super::servers::{self, Rights};

            $(
                #[test]
                fn $case() {
                    let test = concat!("target_conformance::", stringify!($server), "::", stringify!($case));
                    super::run(test, servers::$server, Rights::$rights, async |scene| super::$case(&scene).await);
                }
            )*
        }
    };
}

/// The list of cases, for each of the servers.
macro_rules! every_case_on {
    ($($server:ident)*) => {
        $(suite! { $server:
            an_empty_target_reads_as_empty as Writer,
            what_is_written_is_read_with_its_owner as Writer,
            creating_over_a_document_is_a_lost_race as Writer,
            updating_a_version_that_is_gone_is_a_lost_race as Writer,
            of_two_writers_at_once_one_wins as Writer,
            a_foreign_edit_is_seen_and_not_overwritten as Writer,
            an_edit_of_headers_alone_is_seen as Writer,
            a_deletion_is_seen_and_repaired as Writer,
            a_target_of_another_lineage_is_refused as Writer,
            a_writer_without_permission_is_told_what_to_do as Reader,
            a_busy_service_is_asked_again_within_seconds as Writer,
            a_service_that_never_answers_is_given_up as Writer,
            a_write_that_breaks_off_leaves_a_whole_document as Writer,
            an_answer_that_breaks_off_is_no_document as Writer,
        })*
    };
}

every_case_on! { azurite s3 gcs directory }

// It keeps no owner and no headers, and of two writers at once both win: see `src/target/workload_identity.rs`.
suite! { workload_identity:
    an_empty_target_reads_as_empty as Writer,
    creating_over_a_document_is_a_lost_race as Writer,
    updating_a_version_that_is_gone_is_a_lost_race as Writer,
    a_foreign_edit_is_seen_and_not_overwritten as Writer,
    a_deletion_is_seen_and_repaired as Writer,
    a_writer_without_permission_is_told_what_to_do as Reader,
    a_busy_service_is_asked_again_within_seconds as Writer,
    a_service_that_never_answers_is_given_up as Writer,
    a_write_that_breaks_off_leaves_a_whole_document as Writer,
    an_answer_that_breaks_off_is_no_document as Writer,
}

async fn an_empty_target_reads_as_empty(scene: &Scene) {
    let reading = scene.target.read().await.expect("it can be read");
    assert_eq!(reading.found.jwks, None);
    assert_eq!(reading.found.discovery, None);
    assert_eq!(reading.versions, scene.target.versions().await.expect("it can be asked"));
    assert_eq!(reading.owners, []);
}

async fn what_is_written_is_read_with_its_owner(scene: &Scene) {
    let (publication, owner) = (publication(1), owner("ours", 7));
    for document in Document::IN_WRITE_ORDER {
        scene.target.write(document, &publication, &owner, None).await.expect("nothing was there");
    }
    let reading = scene.target.read().await.expect("it can be read");
    for document in Document::IN_WRITE_ORDER {
        let stored = reading.found.get(document).expect("it was written");
        assert_eq!(stored.bytes, *publication.bytes(document), "{document:?}");
        assert_eq!(stored.lineage.as_ref(), Some(&owner.lineage), "{document:?}");
        let headers = Headers {
            content_type: Some("application/json".to_owned()),
            cache_control: Some("public, max-age=300".to_owned()),
        };
        assert_eq!(stored.headers, (scene.keeps == Keeps::Headers).then_some(headers), "{document:?}");
    }
    assert_eq!(reading.owners, [owner.clone(), owner]);
    assert_eq!(reading.versions, scene.target.versions().await.expect("it can be asked"));
}

async fn creating_over_a_document_is_a_lost_race(scene: &Scene) {
    create(scene, 1).await;
    let before = scene.target.read().await.expect("it can be read");
    lost(&write(scene, 2, None).await);
    assert_eq!(scene.target.read().await.expect("it can be read"), before);
}

async fn updating_a_version_that_is_gone_is_a_lost_race(scene: &Scene) {
    let old = create(scene, 1).await;
    let new = write(scene, 2, Some(&old)).await.expect("nobody else wrote");
    assert_ne!(old, new);
    lost(&write(scene, 3, Some(&old)).await);
    assert_eq!(version(scene).await, Some(new));
    assert_holds(scene, 2).await;
}

async fn of_two_writers_at_once_one_wins(scene: &Scene) {
    create(scene, 1).await;
    for round in 0..10 {
        let version = version(scene).await;
        let numbers = [10 + 2 * round, 11 + 2 * round];
        let write = |index: usize| write(scene, numbers[index], version.as_ref());
        let winner = match tokio::join!(write(0), write(1)) {
            (Ok(_), Err(WriteError::LostRace { .. })) => numbers[0],
            (Err(WriteError::LostRace { .. }), Ok(_)) => numbers[1],
            other => panic!("expected one winner, got {other:?}"),
        };
        assert_holds(scene, winner).await;
    }
}

async fn a_foreign_edit_is_seen_and_not_overwritten(scene: &Scene) {
    let before = create(scene, 1).await;
    scene.edit(Document::Jwks, Edit::Overwrite(b"edited"));
    let after = version(scene).await;
    assert_ne!(after.as_ref(), Some(&before));
    lost(&write(scene, 4, Some(&before)).await);
    let reading = scene.target.read().await.expect("it can be read");
    assert_eq!(reading.found.jwks.expect("it is there").bytes, b"edited");

    write(scene, 4, after.as_ref()).await.expect("repaired");
    assert_holds(scene, 4).await;
}

/// A directory has no headers: its web server does.
async fn an_edit_of_headers_alone_is_seen(scene: &Scene) {
    if scene.keeps == Keeps::ContentOnly {
        return;
    }
    let before = create(scene, 1).await;
    scene.edit(Document::Jwks, Edit::CacheControl("no-store"));
    let after = version(scene).await;
    assert_ne!(after.as_ref(), Some(&before));
    let stored = scene.target.read().await.expect("it can be read").found.jwks.expect("it is there");
    assert_eq!(stored.headers.expect("it keeps them").cache_control.as_deref(), Some("no-store"));
    write(scene, 1, after.as_ref()).await.expect("nobody else wrote");
    assert_holds(scene, 1).await;
}

async fn a_deletion_is_seen_and_repaired(scene: &Scene) {
    let before = create(scene, 1).await;
    scene.edit(Document::Jwks, Edit::Delete);
    assert_eq!(version(scene).await, None);
    assert_eq!(scene.target.read().await.expect("it can be read").found.jwks, None);
    lost(&write(scene, 5, Some(&before)).await);

    write(scene, 5, None).await.expect("repaired");
    assert_holds(scene, 5).await;
}

async fn a_target_of_another_lineage_is_refused(scene: &Scene) {
    let theirs = owner("theirs", 3);
    for document in Document::IN_WRITE_ORDER {
        scene.target.write(document, &publication(6), &theirs, None).await.expect("nothing was there");
    }
    let reading = scene.target.read().await.expect("it can be read");
    assert_eq!(reading.owners, [theirs.clone(), theirs.clone()]);

    let ours = Ledger::new(terms().issuer, Lineage::read("ours"));
    let refused = decide(&reading.found, &ours, &terms(), Profile::Entra, false).expect_err("it is theirs");
    let expected = WriteRefused::OtherLineage { owner: theirs.lineage, ours: Lineage::read("ours") };
    assert_eq!(refused, expected);
}

async fn a_writer_without_permission_is_told_what_to_do(scene: &Scene) {
    let before = scene.target.read().await.expect("reading is allowed");
    let version = before.versions.jwks.clone().expect("somebody else wrote it");
    let error = failed(write(scene, 2, Some(&version)).await);
    let (text, hint) = (chain(&error), error.hint().expect("something can be done about it"));
    assert!(text.contains(scene.denied.0), "{text}");
    assert!(hint.contains(scene.denied.1), "{hint}");
    assert_eq!(scene.target.read().await.expect("reading is allowed"), before);
}

async fn a_busy_service_is_asked_again_within_seconds(scene: &Scene) {
    let version = create(scene, 1).await;
    scene.suffer(Fault::BusyForAWhile);
    let started = Instant::now();
    scene.target.read().await.expect("it is asked again");
    scene.suffer(Fault::BusyForAWhile);
    write(scene, 2, Some(&version)).await.expect("it is asked again");
    assert!(started.elapsed() < Duration::from_secs(15), "{:?}", started.elapsed());
    scene.recover();
    assert_holds(scene, 2).await;
}

async fn a_service_that_never_answers_is_given_up(scene: &Scene) {
    let version = create(scene, 1).await;
    scene.suffer(Fault::NoAnswerToWrites);
    let started = Instant::now();
    let error = failed(write(scene, 2, Some(&version)).await);
    assert!(started.elapsed() < Duration::from_secs(45), "{:?}", started.elapsed());
    let text = chain(&error);
    assert!(text.contains(scene.late), "{text}");

    scene.recover();
    assert_holds(scene, 1).await;
    write(scene, 2, Some(&version)).await.expect("nobody else wrote");
    assert_holds(scene, 2).await;
}

async fn a_write_that_breaks_off_leaves_a_whole_document(scene: &Scene) {
    let version = create(scene, 1).await;
    scene.suffer(Fault::WritesBreakOff);
    failed(write(scene, 2, Some(&version)).await);
    scene.recover();
    assert_holds(scene, 1).await;
    assert_eq!(self::version(scene).await.as_ref(), Some(&version));
    write(scene, 2, Some(&version)).await.expect("nothing is in the way");
    assert_holds(scene, 2).await;
}

/// A file is read by the process itself, so no answer can be truncated.
async fn an_answer_that_breaks_off_is_no_document(scene: &Scene) {
    let version = create(scene, 1).await;
    if scene.keeps == Keeps::ContentOnly {
        return;
    }
    scene.suffer(Fault::AnswersBreakOff);
    failed(scene.target.read().await.map_err(WriteError::Failed));
    failed(write(scene, 2, Some(&version)).await);
    scene.recover();
    // It was written, and could not be read back; without conditions it is read first.
    assert_holds(scene, if scene.keeps == Keeps::JwksOnly { 1 } else { 2 }).await;
}

/// Writes the JWKS of publication `number`, where there is none.
async fn create(scene: &Scene, number: u8) -> Version {
    write(scene, number, None).await.expect("nothing was there")
}

async fn write(scene: &Scene, number: u8, expected: Option<&Version>) -> Result<Version, WriteError> {
    let owner = owner("ours", number.into());
    scene.target.write(Document::Jwks, &publication(number), &owner, expected).await
}

async fn version(scene: &Scene) -> Option<Version> {
    scene.target.versions().await.expect("it can be asked").jwks
}

/// Checks that the JWKS is that of publication `number`, complete, with its owner.
async fn assert_holds(scene: &Scene, number: u8) {
    let reading = scene.target.read().await.expect("it can be read");
    let stored = reading.found.jwks.expect("it is there");
    assert_eq!(stored.bytes, *publication(number).bytes(Document::Jwks));
    let owner = (scene.keeps != Keeps::JwksOnly).then(|| owner("ours", number.into()));
    assert_eq!(reading.owners.first(), owner.as_ref());
}

#[track_caller]
fn lost<T: Debug>(written: &Result<T, WriteError>) {
    assert!(matches!(written, Err(WriteError::LostRace { .. })), "{written:?}");
}

#[track_caller]
fn failed<T: Debug>(outcome: Result<T, WriteError>) -> TargetError {
    match outcome {
        Err(WriteError::Failed(error)) => error,
        other => panic!("expected a failure, got {other:?}"),
    }
}

/// The error and its causes, as a reporter prints them.
fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let causes = std::iter::successors(Some(error), |&error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

fn terms() -> Terms {
    let issuer = Issuer::parse("https://issuer.example").expect("it is an issuer");
    Terms { jwks_uri: issuer.jwks_uri(), issuer, max_age: Duration::from_mins(5) }
}

/// A publication whose JWKS differs for every number.
fn publication(number: u8) -> Publication {
    let mut modulus = [0xc5; 256];
    modulus[1] = number;
    let key = PublicKey::rsa(&modulus, &[1, 0, 1]).expect("the modulus is odd and long");
    Publication::render(&terms(), Profile::Entra, [Jwk::of_public_key(key)]).expect("there is a key")
}

fn owner(lineage: &str, sequence: u64) -> Owner {
    Owner { lineage: Lineage::read(lineage), sequence }
}
