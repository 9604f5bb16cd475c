use std::{fs, path::Path};

use super::*;

const SIGNED: &[u8] = include_bytes!("../../../tests/vectors/stored/version-1/announcement.json");

fn source(directory: &Path) -> Announcements {
    Announcements::new("announcements".to_owned(), directory.to_owned(), None, Duration::from_secs(1))
}

#[tokio::test]
async fn a_file_is_verified_again_only_when_it_has_changed() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("embedded.json");
    fs::write(&path, SIGNED).expect("ours");
    let source = source(folder.path());
    let known =
        |source: &Announcements| source.files.lock().expect("unpoisoned").known(&path).json().as_ptr();
    source.fetch().await.expect("it is signed");
    let first = known(&source);
    source.fetch().await.expect("it is signed");
    assert_eq!(known(&source), first, "it was read anew");

    fs::write(&path, &SIGNED[..SIGNED.len() / 2]).expect("ours");
    assert!(matches!(
        source.fetch().await,
        Err(AnnouncementError::File(AnnouncementFileError::Unusable { .. }))
    ));
    fs::write(&path, SIGNED).expect("ours");
    source.fetch().await.expect("it is signed again");
}

#[tokio::test]
async fn more_files_than_a_cluster_has_nodes_are_refused_before_any_is_read() {
    let folder = tempfile::tempdir().expect("a folder");
    for file in 0..=MAX_FILES {
        fs::write(folder.path().join(format!("{file}.json")), "no announcement").expect("ours");
    }
    assert!(matches!(
        source(folder.path()).fetch().await,
        Err(AnnouncementError::File(AnnouncementFileError::TooMany { .. }))
    ));
}
