use std::{fs, os::unix::fs::symlink};

use rustix::fs::{CWD, Mode, mkfifoat};
use tempfile::TempDir;

use super::*;
use crate::core::{
    jose::issuer::Issuer,
    signer::announcement::{Announcement, AnnouncementSigner, StatementVersion},
};

fn announced(node: &NodeName) -> String {
    let issuer = Issuer::parse("https://issuer.example").expect("an issuer");
    let word = StatementVersion { at: jiff::Timestamp::UNIX_EPOCH, observed_order: None };
    let announcement = Announcement::new(node.clone(), issuer, word, []);
    String::from_utf8(AnnouncementSigner::new(&announcement).to_json()).expect("JSON is UTF-8")
}

#[test]
fn what_others_put_in_the_way_is_replaced_and_neither_followed_nor_waited_for() {
    let folder = TempDir::new().expect("a folder");
    let path = |name: &str| folder.path().join(name);
    let precious = path("precious");
    fs::write(&precious, "precious").expect("it is ours");
    let nodes = ["a", "b", "c"].map(|name| NodeName::parse(name).expect("a name"));
    symlink(&precious, path(".a.json.carried")).expect("it is ours");
    symlink(&precious, path("b.json")).expect("it is ours");
    mkfifoat(CWD, path("c.json"), Mode::RWXU).expect("it is ours");
    let theirs = nodes.iter().map(|node| (node.clone(), announced(node))).collect();
    take_over(folder.path(), &theirs).expect("everything is replaced");
    for node in &nodes {
        let file = path(&format!("{node}.json"));
        assert!(fs::symlink_metadata(&file).expect("it is there").is_file(), "{node}");
        assert_eq!(fs::read_to_string(&file).expect("it is there"), announced(node));
    }
    assert_eq!(fs::read(&precious).expect("it is there"), b"precious");
}
