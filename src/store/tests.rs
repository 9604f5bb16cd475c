use std::{fs, os::unix::fs::MetadataExt as _, path::Path, time::Duration};

use jiff::{SignedDuration, Timestamp};

use super::*;
use crate::core::{
    jose::issuer::Issuer,
    ledger::{
        IncidentKind, Ledger,
        merge::{SourceAnswer, SourceReport, merge},
    },
    tests::{retention, rsa_key, terms},
};

fn store(directory: &tempfile::TempDir) -> LedgerStore {
    LedgerStore::file(FileStore::new(directory.path().to_owned(), Vec::new()), terms().issuer, Vec::new())
}

/// Stores what `decide` returns, as a process without a known ledger does.
async fn update(
    store: &LedgerStore,
    mut decide: impl FnMut(&Ledger) -> Ledger,
) -> Result<Arc<Ledger>, StoreError> {
    let known = store.read_last_known().await?;
    let wait = retention().wait();
    let decide =
        |found: &StoredLedger| Ok((decide(&known.reconcile(found, Timestamp::UNIX_EPOCH, wait)?), ()));
    Ok(store.update(decide).await?.0)
}

async fn read(store: &LedgerStore) -> Arc<Ledger> {
    match store.read().await.expect("readable") {
        StoredLedger::Ledger(ledger) => ledger,
        other => panic!("{other:?}"),
    }
}

fn with_key(ledger: &Ledger, index: usize) -> Ledger {
    let keys = ledger.public_keys().cloned().chain([rsa_key(index)]).collect();
    let reports = [SourceReport { source: "test".to_owned(), answer: SourceAnswer::Keys(keys) }];
    ledger.observe(&merge(ledger, &reports), Timestamp::UNIX_EPOCH, &retention()).ledger
}

#[tokio::test]
async fn a_ledger_that_was_never_stored_is_empty_and_nothing_is_written_for_reading_it() {
    let directory = tempfile::tempdir().expect("tempdir");
    assert_eq!(StoredLedger::Nothing, store(&directory).read().await.expect("empty"));
    update(&store(&directory), Ledger::clone).await.expect("nothing to store");
    assert_eq!(0, fs::read_dir(directory.path()).expect("readable").count());
}

#[tokio::test]
async fn an_update_without_a_change_writes_nothing() {
    let directory = tempfile::tempdir().expect("tempdir");
    update(&store(&directory), |ledger| with_key(ledger, 1)).await.expect("stored");
    let before =
        fs::metadata(directory.path().join("ledger.json")).expect("stored").modified().expect("time");
    update(&store(&directory), Ledger::clone).await.expect("read");
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
                update(&store, |ledger| with_key(ledger, writer * EACH + index)).await.expect("stored");
            }
        });
    }
    writers.join_all().await;
    let ledger = read(&store(&directory)).await;
    assert_eq!(2 * EACH, ledger.entries().len());
    assert_eq!(2 * EACH, usize::try_from(ledger.sequence()).expect("small"));
}

#[tokio::test]
async fn a_damaged_or_missing_ledger_falls_back_to_the_version_before_and_holds_removals() {
    for cut in [Some(2), None] {
        let directory = tempfile::tempdir().expect("tempdir");
        update(&store(&directory), |ledger| with_key(ledger, 1)).await.expect("stored");
        let before = read(&store(&directory)).await;
        update(&store(&directory), |ledger| with_key(ledger, 2)).await.expect("stored");
        let path = directory.path().join("ledger.json");
        let bytes = fs::read(&path).expect("stored");
        match cut {
            Some(part) => fs::write(&path, &bytes[..bytes.len() / part]).expect("truncated"),
            None => fs::remove_file(&path).expect("deleted"),
        }
        assert_eq!(
            StoredLedger::Previous(before),
            store(&directory).read().await.expect("the version before")
        );
        let healed = update(&store(&directory), |ledger| with_key(ledger, 2)).await.expect("healed");
        assert_eq!(2, healed.entries().len());
        assert_eq!(IncidentKind::Damaged, healed.incidents()[0].kind);
        assert_eq!(healed, read(&store(&directory)).await);
    }
}

/// A tombstone added by hand, and corrected, must not become the known ledger after a restart.
#[tokio::test]
async fn what_a_hand_changed_does_not_become_the_version_before() {
    let directory = tempfile::tempdir().expect("tempdir");
    update(&store(&directory), |ledger| with_key(ledger, 1)).await.expect("stored");
    update(&store(&directory), |ledger| with_key(ledger, 2)).await.expect("stored");
    let before = read(&store(&directory)).await;
    let mut json: serde_json::Value = serde_json::from_slice(&before.to_json()).expect("JSON");
    json["keys"][rsa_key(1).kid().as_str()]["state"] =
        serde_json::json!({ "removed": { "at": "2026-01-01T00:00:00Z" } });
    fs::write(directory.path().join("ledger.json"), json.to_string()).expect("written");

    let wait = retention().wait();
    let repair = |found: &StoredLedger| Ok((before.reconcile(found, Timestamp::UNIX_EPOCH, wait)?, ()));
    store(&directory).update(repair).await.expect("repaired");
    let restarted = update(&store(&directory), Ledger::clone).await.expect("read");
    assert_eq!(2, restarted.public_keys().count(), "{restarted:?}");
    assert_eq!(1, restarted.incidents().len(), "it was put right once");
}

#[tokio::test]
async fn a_damaged_ledger_without_a_version_before_is_an_error_and_stays_as_it_is() {
    let directory = tempfile::tempdir().expect("tempdir");
    let path = directory.path().join("ledger.json");
    fs::write(&path, "{").expect("written");
    let error = update(&store(&directory), |ledger| with_key(ledger, 1)).await.expect_err("damaged");
    assert!(error.hint().is_some_and(|hint| hint.contains("signpost sync --adopt")));
    assert_eq!("{", fs::read_to_string(&path).expect("still there"));
}

#[tokio::test]
async fn a_ledger_of_a_newer_program_is_refused() {
    let directory = tempfile::tempdir().expect("tempdir");
    update(&store(&directory), |ledger| with_key(ledger, 1)).await.expect("stored");
    update(&store(&directory), |ledger| with_key(ledger, 2)).await.expect("stored");
    let path = directory.path().join("ledger.json");
    let newer = fs::read_to_string(&path).expect("stored").replace("\"version\": 2", "\"version\": 3");
    fs::write(&path, newer).expect("written");
    let error = store(&directory).read().await.expect_err("newer");
    let cause = std::error::Error::source(&error).expect("cause").to_string();
    assert_eq!("ledger has version 3, this program knows versions up to 2", cause);
}

#[tokio::test]
async fn a_ledger_of_another_issuer_is_refused() {
    let directory = tempfile::tempdir().expect("tempdir");
    update(&store(&directory), |ledger| with_key(ledger, 1)).await.expect("stored");
    let other = Issuer::parse("https://other.example").expect("valid");
    let other = LedgerStore::file(FileStore::new(directory.path().to_owned(), Vec::new()), other, Vec::new());
    assert!(matches!(other.read().await, Err(StoreError::OtherIssuer { .. })));
}

/// The issuer is moved, and the operator moves it back the next day.
#[tokio::test]
async fn a_ledger_goes_on_when_its_issuer_is_moved_and_moved_back() {
    let data = tempfile::tempdir().expect("tempdir");
    let (old, new) = (terms().issuer, Issuer::parse("https://new.example").expect("valid"));
    let store = |own: &str, issuer: &Issuer, previous: &[(&str, &Issuer)]| {
        let directories = previous.iter().map(|(name, _)| data.path().join(name)).collect();
        let file = FileStore::new(data.path().join(own), directories);
        LedgerStore::file(
            file,
            issuer.clone(),
            previous.iter().map(|(_, issuer)| (*issuer).clone()).collect(),
        )
    };
    let before = update(&store("old", &old, &[]), |ledger| with_key(ledger, 1)).await.expect("stored");
    let moved =
        update(&store("new", &new, &[("old", &old)]), |ledger| with_key(ledger, 2)).await.expect("moved");
    assert_eq!((before.lineage(), 2, &new), (moved.lineage(), moved.entries().len(), moved.issuer()));
    assert_eq!(moved, read(&store("new", &new, &[("old", &old)])).await);
    let back = update(&store("old", &old, &[("new", &new)]), Ledger::clone).await.expect("moved back");
    assert_eq!((moved.entries(), &old), (back.entries(), back.issuer()));
    assert_eq!(
        vec![Arc::unwrap_or_clone(back)],
        read_all(data.path()).expect("readable").0,
        "of one lineage the newest"
    );
}

#[tokio::test]
async fn a_copy_never_replaces_a_later_one() {
    let directory = tempfile::tempdir().expect("tempdir");
    let file = FileStore::new(directory.path().to_owned(), Vec::new());
    let first = update(&store(&directory), |ledger| with_key(ledger, 1)).await.expect("stored");
    let later = with_key(&first, 2);
    for ledger in [&later, &first] {
        file.write_copy(ledger).expect("writable");
    }
    assert_eq!(later, *read(&store(&directory)).await);
}

#[tokio::test]
async fn a_store_that_always_says_that_others_were_faster_is_given_up() {
    let directory = tempfile::tempdir().expect("tempdir");
    let path = directory.path().join("ledger.json");
    update(&store(&directory), |ledger| with_key(ledger, 1)).await.expect("stored");
    let mut rounds = 0;
    let store = store(&directory);
    let meddled = update(&store, |ledger| {
        rounds += 1;
        fs::write(&path, [ledger.to_json(), vec![b'\n'; rounds]].concat()).expect("written");
        with_key(ledger, 2)
    });
    let error =
        tokio::time::timeout(Duration::from_mins(1), meddled).await.expect("it ends").expect_err("lost");
    assert!(matches!(error, StoreError::Changed { .. }), "{error}");
}

#[test]
fn a_data_directory_is_held_by_one_process_at_a_time() {
    let directory = tempfile::tempdir().expect("tempdir");
    let held = lock_directory(directory.path()).expect("free");
    let refusal = lock_directory(directory.path()).expect_err("held").to_string();
    assert!(refusal.starts_with("another signpost runs on data directory"), "{refusal}");
    drop(held);
    lock_directory(directory.path()).expect("free again");
}

#[test]
fn a_settled_ledger_is_read_again_only_when_somebody_wrote_it() {
    let directory = tempfile::tempdir().expect("tempdir");
    let (path, staged) = (directory.path().join("ledger.json"), directory.path().join("staged"));
    let store = FileStore::new(directory.path().to_owned(), Vec::new());
    let now = crate::clock::now();
    let later = now + SignedDuration::from_secs(10);
    let read = |at| match store.read_at(at).expect("readable").found {
        StoredLedger::Ledger(ledger) => ledger,
        other => panic!("{other:?}"),
    };
    let lineage = || read(later).lineage().clone();
    let [written, edited, replaced] = [(); 3].map(|()| Ledger::new(terms().issuer, new_lineage()));
    store.write(&written.to_json(), None).expect("stored");

    assert!(!Arc::ptr_eq(&read(now), &read(now)), "what was just written could be written again unseen");
    assert!(Arc::ptr_eq(&read(later), &read(later)), "a settled ledger is read again");

    // Rewritten in place, with the same length and the old modification time.
    let modified = fs::metadata(&path).expect("stored").modified().expect("time");
    let_time_pass(&path);
    fs::write(&path, edited.to_json()).expect("written");
    let file = fs::File::options().write(true).open(&path).expect("open");
    file.set_modified(modified).expect("touched");
    assert_eq!(*edited.lineage(), lineage());

    // As another process writes.
    let_time_pass(&path);
    fs::write(&staged, replaced.to_json()).expect("written");
    fs::rename(&staged, &path).expect("renamed");
    assert_eq!(*replaced.lineage(), lineage());

    fs::remove_file(&path).expect("removed");
    assert_eq!(StoredLedger::Nothing, store.read_at(later).expect("none is no error").found);
}

/// Waits until the file system would give the next change of this file another time.
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
