use std::{
    fs,
    os::unix::fs::{MetadataExt as _, symlink},
    sync::{
        Barrier,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use tempfile::TempDir;

use super::*;
use crate::target::{
    Owner,
    tests::{chain, owner, publication},
};

struct Place {
    root: TempDir,
    directory: Directory,
}

/// A directory that does not exist yet, in one that does.
fn place() -> Place {
    let root = tempfile::tempdir().expect("a directory");
    let directory = Directory::new(root.path().join("public"), Paths::default());
    Place { root, directory }
}

impl Place {
    fn write(&self, number: u8, expected: Option<&Version>) -> Result<Version, Failure> {
        self.directory.write_now(&change(Document::Jwks, number, &owner("ours", 1)), expected)
    }

    fn read(&self) -> Option<Entry> {
        self.directory.read_now(Document::Jwks).expect("it can be read")
    }

    fn file(&self) -> PathBuf {
        self.directory.file(Document::Jwks)
    }
}

fn change(document: Document, number: u8, owner: &Owner) -> Change {
    let publication = publication(number);
    Change {
        document,
        bytes: publication.bytes(document).clone(),
        cache_control: publication.cache_control(),
        owner: owner.clone(),
    }
}

#[track_caller]
fn lost(written: &Result<Version, Failure>) {
    assert!(matches!(written, Err(Failure::LostRace)), "{written:?}");
}

#[test]
fn a_document_is_written_with_its_owner() {
    let place = place();
    assert!(place.read().is_none());
    let version = place.write(1, None).expect("nothing was there");
    let entry = place.read().expect("it was written");
    assert_eq!(entry.version, version);
    assert_eq!(entry.stored.bytes, *publication(1).bytes(Document::Jwks));
    assert_eq!(entry.owner(), Some(owner("ours", 1)));
}

#[test]
fn a_write_rests_on_the_version_that_was_read() {
    let place = place();
    let first = place.write(1, None).expect("nothing was there");
    lost(&place.write(2, None));
    let second = place.write(2, Some(&first)).expect("nobody else wrote");
    lost(&place.write(3, Some(&first)));
    fs::remove_file(place.file()).expect("it is there");
    lost(&place.write(3, Some(&second)));
    assert!(place.read().is_none());
}

#[test]
fn an_edit_and_a_change_of_owner_are_other_versions() {
    let place = place();
    let version = place.write(1, None).expect("nothing was there");
    fs::write(place.file(), "edited").expect("it can be written");
    let edited = place.read().expect("it is there").version;
    assert_ne!(edited, version);

    let hers = change(Document::Jwks, 1, &owner("hers", 1));
    let hers = place.directory.write_now(&hers, Some(&edited)).expect("nobody else wrote");
    assert_ne!(hers, version);
}

#[test]
fn the_owner_of_one_document_does_not_change_the_version_of_the_other() {
    let place = place();
    let theirs = change(Document::Discovery, 1, &owner("theirs", 1));
    let version = place.directory.write_now(&theirs, None).expect("nothing was there");
    place.write(1, None).expect("nothing was there");
    let discovery = place.directory.read_now(Document::Discovery).expect("readable").expect("written");
    assert_eq!(discovery.version, version);
    assert_eq!(discovery.owner(), Some(owner("theirs", 1)));
}

#[test]
fn of_two_writers_at_once_one_wins_and_the_other_knows() {
    const ROUNDS: u8 = 100;
    let place = place();
    let mut version = None;
    for round in 0..ROUNDS {
        let barrier = Barrier::new(2);
        let write = |number| {
            barrier.wait();
            place.write(number, version.as_ref())
        };
        let (one, two) = thread::scope(|scope| {
            let one = scope.spawn(|| write(2 * round));
            let two = scope.spawn(|| write(2 * round + 1));
            (one.join().expect("no panic"), two.join().expect("no panic"))
        });
        let (winner, number) = match (one, two) {
            (Ok(winner), Err(Failure::LostRace)) => (winner, 2 * round),
            (Err(Failure::LostRace), Ok(winner)) => (winner, 2 * round + 1),
            other => panic!("expected one winner, got {other:?}"),
        };
        let entry = place.read().expect("it was written");
        assert_eq!(entry.stored.bytes, *publication(number).bytes(Document::Jwks));
        assert_eq!(entry.version, winner);
        version = Some(winner);
    }
}

#[test]
fn a_reader_never_meets_half_a_document() {
    let place = place();
    let written: Vec<_> = (0..2).map(|number| publication(number).bytes(Document::Jwks).clone()).collect();
    let mut version = place.write(0, None).expect("nothing was there");
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let reader = scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                let entry = place.read().expect("it never goes away");
                assert!(written.contains(&entry.stored.bytes.into()));
            }
        });
        for number in 1..200 {
            version = place.write(number % 2, Some(&version)).expect("nobody else writes");
        }
        done.store(true, Ordering::Relaxed);
        reader.join().expect("no half document");
    });
}

#[test]
fn dying_at_any_step_leaves_a_whole_document_that_the_next_pass_repairs() {
    for steps in 0..=2 {
        let place = place();
        let theirs = change(Document::Jwks, 1, &owner("theirs", 1));
        place.directory.write_now(&theirs, None).expect("nothing was there");

        let ours = change(Document::Jwks, 2, &owner("ours", 1));
        let mut staged = place.directory.stage(&ours).expect("there is room").into_iter();
        for (step, _) in staged.by_ref().take(steps) {
            step.commit().expect("nothing is in the way");
        }
        // A killed process leaves its temporary files.
        staged.for_each(std::mem::forget);

        let entry = place.read().expect("the document never goes away");
        let number = if steps < 2 { 1 } else { 2 };
        assert_eq!(entry.stored.bytes, *publication(number).bytes(Document::Jwks), "after {steps} steps");
        // Never our document under their name, which would be refused permanently.
        let lineage = if steps < 1 { "theirs" } else { "ours" };
        assert_eq!(entry.owner(), Some(owner(lineage, 1)), "after {steps} steps");

        place.directory.write_now(&ours, Some(&entry.version)).expect("nothing is in the way");
        assert_eq!(place.read().expect("it was written").owner(), Some(owner("ours", 1)));
    }
}

#[test]
fn files_and_directories_can_be_read_by_everybody_whatever_the_umask() {
    let place = place();
    let umask = rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    let written = place.write(1, None);
    rustix::process::umask(umask);
    written.expect("nothing was there");
    let mode = |path: &Path| fs::metadata(path).expect("it is there").mode() & 0o777;
    let file = place.file();
    assert_eq!(mode(&file), 0o644);
    for directory in file.ancestors().skip(1).take_while(|path| *path != place.root.path()) {
        assert_eq!(mode(directory), 0o755, "{}", directory.display());
    }
}

#[test]
fn a_symbolic_link_is_replaced_and_not_written_through() {
    let place = place();
    let elsewhere = place.root.path().join("elsewhere");
    fs::write(&elsewhere, "precious").expect("written");
    let version = place.write(1, None).expect("nothing was there");
    fs::remove_file(place.file()).expect("removed");
    symlink(&elsewhere, place.file()).expect("linked");
    lost(&place.write(1, Some(&version)));

    let linked = place.read().expect("the link is followed, as by a web server");
    assert_eq!(linked.stored.bytes, b"precious");
    place.write(2, Some(&linked.version)).expect("nobody else wrote");
    assert_eq!(fs::read(&elsewhere).expect("it is there"), b"precious");
    assert_eq!(place.read().expect("written").stored.bytes, *publication(2).bytes(Document::Jwks));
}

#[test]
fn a_file_where_a_directory_should_be_is_named() {
    let place = place();
    fs::write(&*place.directory.root, "in the way").expect("written");
    let Err(Failure::Cause(cause)) = place.write(1, None) else { panic!("there is no room") };
    let path = place.directory.root.display();
    assert_eq!(chain(&cause), format!("cannot create `{path}`: File exists (os error 17)"));
    assert!(hint(&cause).expect("it can be moved").starts_with("move the file away"));
    let cause = place.directory.read_now(Document::Jwks).expect_err("unreadable is not absent");
    assert!(chain(&cause).ends_with("Not a directory (os error 20)"), "{}", chain(&cause));
}

#[test]
fn what_is_no_short_file_is_not_read() {
    let place = place();
    create_directory(place.file().parent().expect("a parent")).expect("created");
    let refused = |expected: &str| {
        let cause = place.directory.read_now(Document::Jwks).expect_err("it is no document");
        assert!(chain(&cause).contains(expected), "{}", chain(&cause));
    };
    fs::write(place.file(), vec![b' '; 1024 * 1024 + 1]).expect("written");
    refused("it is longer than 1048576 bytes");
    fs::remove_file(place.file()).expect("removed");
    fs::create_dir(place.file()).expect("created");
    refused("a directory, expected a regular file");
    fs::remove_dir(place.file()).expect("removed");
    rustix::fs::mkfifoat(rustix::fs::CWD, place.file(), rustix::fs::Mode::RUSR).expect("created");
    refused("a pipe, a socket or a device, expected a regular file");
}

#[test]
fn owners_that_cannot_be_read_stop_everything() {
    let place = place();
    let version = place.write(1, None).expect("nothing was there");
    for (text, reason) in [
        ("", "is damaged: EOF while parsing"),
        ("{}", "is damaged: it has no version"),
        (r#"{"version": 2}"#, "has version 2, expected at most 1"),
    ] {
        fs::write(place.directory.root.join(OWNERS), text).expect("written");
        let Err(Failure::Cause(cause)) = place.write(2, Some(&version)) else { panic!("{text}") };
        assert!(chain(&cause).contains(reason), "{}", chain(&cause));
        assert!(hint(&cause).expect("it can be removed").starts_with("remove `"));
    }
}

#[test]
fn a_lock_that_is_no_file_is_named_and_not_waited_for() {
    let place = place();
    place.write(1, None).expect("nothing was there");
    let lock = place.directory.root.join(LOCK);
    let elsewhere = place.root.path().join("elsewhere");
    let refused = |expected: &str| {
        let cause = place.directory.lock(LOCK_WAIT).expect_err("it is no lock");
        assert!(chain(&cause).ends_with(expected), "{}", chain(&cause));
    };
    fs::remove_file(&lock).expect("it is there");
    rustix::fs::mkfifoat(rustix::fs::CWD, &lock, rustix::fs::Mode::RWXU).expect("created");
    refused("a pipe, a socket or a device, expected a regular file");
    fs::remove_file(&lock).expect("it is there");
    symlink(&elsewhere, &lock).expect("linked");
    refused("a symbolic link, expected a regular file");
    assert!(!elsewhere.exists());
}

#[test]
fn a_writer_that_holds_the_lock_too_long_is_reported() {
    let place = place();
    place.write(1, None).expect("nothing was there");
    let wait = Duration::from_millis(20);
    let _lock = place.directory.lock(wait).expect("nobody else holds it");
    let cause = place.directory.lock(wait).expect_err("it is locked");
    assert!(chain(&cause).ends_with("locked by another process for 20ms"), "{}", chain(&cause));
}
