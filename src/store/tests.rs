use std::{fs, os::unix::fs::MetadataExt as _, path::Path, sync::Arc};

use jiff::{SignedDuration, Timestamp};

use super::{FileStore, LedgerStore, StoreError, hold_directory, new_lineage};
use crate::core::{
    issuer::Issuer,
    ledger::Ledger,
    merge::{Answer, Report, merge},
    tests::{retention, rsa_key, terms},
};

fn store(directory: &tempfile::TempDir) -> LedgerStore {
    LedgerStore::new(FileStore::new(directory.path().to_owned()), terms().issuer)
}

fn with_key(ledger: &Ledger, index: usize) -> Ledger {
    let keys = ledger.public_keys().cloned().chain([rsa_key(index)]).collect();
    let reports = [Report { source: "test".to_owned(), answer: Answer::Keys(keys) }];
    ledger.observe(&merge(ledger, &reports), Timestamp::UNIX_EPOCH, &retention()).ledger
}

#[tokio::test]
async fn a_ledger_that_was_never_stored_is_empty_and_nothing_is_written_for_reading_it() {
    let directory = tempfile::tempdir().expect("tempdir");
    let stored = store(&directory).read().await.expect("empty");
    assert!(stored.ledger.entries().is_empty());
    assert_eq!(0, fs::read_dir(directory.path()).expect("readable").count());
}

#[tokio::test]
async fn an_update_without_a_change_writes_nothing() {
    let directory = tempfile::tempdir().expect("tempdir");
    store(&directory).update(|ledger| with_key(ledger, 1)).await.expect("stored");
    let before =
        fs::metadata(directory.path().join("ledger.json")).expect("stored").modified().expect("time");
    store(&directory).update(Ledger::clone).await.expect("read");
    let after = fs::metadata(directory.path().join("ledger.json")).expect("stored").modified().expect("time");
    assert_eq!(before, after);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_that_share_a_ledger_lose_no_update() {
    const EACH: usize = 40;
    let directory = tempfile::tempdir().expect("tempdir");
    let mut writers = tokio::task::JoinSet::new();
    for writer in 0..2 {
        let store = store(&directory);
        writers.spawn(async move {
            for index in 0..EACH {
                store.update(|ledger| with_key(ledger, writer * EACH + index)).await.expect("stored");
            }
        });
    }
    writers.join_all().await;
    let ledger = store(&directory).read().await.expect("stored").ledger;
    assert_eq!(2 * EACH, ledger.entries().len());
    assert_eq!(2 * EACH, usize::try_from(ledger.sequence()).expect("small"));
}

#[tokio::test]
async fn a_damaged_ledger_falls_back_to_the_version_before_and_says_so() {
    let directory = tempfile::tempdir().expect("tempdir");
    store(&directory).update(|ledger| with_key(ledger, 1)).await.expect("stored");
    store(&directory).update(|ledger| with_key(ledger, 2)).await.expect("stored");
    let path = directory.path().join("ledger.json");
    let bytes = fs::read(&path).expect("stored");
    fs::write(&path, &bytes[..bytes.len() / 2]).expect("truncated");
    let stored = store(&directory).read().await.expect("previous version");
    assert_eq!(1, stored.ledger.entries().len());
    assert!(stored.note.is_some_and(|note| note.contains("damaged")));
    let healed = store(&directory).update(|ledger| with_key(ledger, 2)).await.expect("healed");
    assert_eq!(2, healed.ledger.entries().len());
    assert_eq!(None, store(&directory).read().await.expect("good").note);
}

#[tokio::test]
async fn a_damaged_ledger_without_a_version_before_is_an_error_and_stays_as_it_is() {
    let directory = tempfile::tempdir().expect("tempdir");
    let path = directory.path().join("ledger.json");
    fs::write(&path, "{").expect("written");
    let error = store(&directory).update(|ledger| with_key(ledger, 1)).await.expect_err("damaged");
    assert!(error.hint().is_some_and(|hint| hint.contains("signpost sync --adopt")));
    assert_eq!("{", fs::read_to_string(&path).expect("still there"));
}

#[tokio::test]
async fn a_ledger_of_a_newer_program_is_refused() {
    let directory = tempfile::tempdir().expect("tempdir");
    store(&directory).update(|ledger| with_key(ledger, 1)).await.expect("stored");
    store(&directory).update(|ledger| with_key(ledger, 2)).await.expect("stored");
    let path = directory.path().join("ledger.json");
    let newer = fs::read_to_string(&path).expect("stored").replace("\"version\": 1", "\"version\": 2");
    fs::write(&path, newer).expect("written");
    let error = store(&directory).read().await.expect_err("newer");
    let cause = std::error::Error::source(&error).expect("cause").to_string();
    assert_eq!("ledger has version 2, this program knows versions up to 1", cause);
}

#[tokio::test]
async fn a_ledger_of_another_issuer_is_refused() {
    let directory = tempfile::tempdir().expect("tempdir");
    store(&directory).update(|ledger| with_key(ledger, 1)).await.expect("stored");
    let other = Issuer::parse("https://other.example").expect("valid");
    let other = LedgerStore::new(FileStore::new(directory.path().to_owned()), other);
    assert!(matches!(other.read().await, Err(StoreError::OtherIssuer { .. })));
}

#[test]
fn a_data_directory_is_held_by_one_process_at_a_time() {
    let directory = tempfile::tempdir().expect("tempdir");
    let held = hold_directory(directory.path()).expect("free");
    let refusal = hold_directory(directory.path()).expect_err("held").to_string();
    assert!(refusal.starts_with("another signpost runs on data directory"), "{refusal}");
    drop(held);
    hold_directory(directory.path()).expect("free again");
}

#[test]
fn a_settled_ledger_is_read_again_only_when_somebody_wrote_it() {
    let directory = tempfile::tempdir().expect("tempdir");
    let (path, staged) = (directory.path().join("ledger.json"), directory.path().join("staged"));
    let store = FileStore::new(directory.path().to_owned());
    let now = crate::clock::now();
    let later = now + SignedDuration::from_secs(10);
    let read = |at| store.read_at(at).expect("readable").expect("stored").ledger;
    let lineage = || read(later).lineage().clone();
    let [written, edited, replaced] = [(); 3].map(|()| Ledger::new(terms().issuer, new_lineage()));
    store.write(&written.to_json(), None).expect("stored");

    assert!(!Arc::ptr_eq(&read(now), &read(now)), "what was just written could be written again unseen");
    assert!(Arc::ptr_eq(&read(later), &read(later)), "a settled ledger is read again");

    // In place, of the same length, and with the old time of modification.
    let modified = fs::metadata(&path).expect("stored").modified().expect("time");
    let_time_pass(&path);
    fs::write(&path, edited.to_json()).expect("written");
    let file = fs::File::options().write(true).open(&path).expect("open");
    file.set_modified(modified).expect("touched");
    assert_eq!(*edited.lineage(), lineage());

    // As another process does.
    let_time_pass(&path);
    fs::write(&staged, replaced.to_json()).expect("written");
    fs::rename(&staged, &path).expect("renamed");
    assert_eq!(*replaced.lineage(), lineage());

    fs::remove_file(&path).expect("removed");
    assert!(store.read_at(later).expect("none is no error").is_none());
}

/// Until the file system would give a change another time than the last one of this file.
fn let_time_pass(path: &Path) {
    let changed =
        |path: &Path| fs::metadata(path).map(|file| (file.ctime(), file.ctime_nsec())).expect("stored");
    let witness = path.with_file_name("witness");
    loop {
        fs::write(&witness, "").expect("written");
        if changed(&witness) > changed(path) {
            return;
        }
    }
}
