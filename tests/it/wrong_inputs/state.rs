use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::{COULD_NOT, Transcript, tree};
use crate::support::pki::KeyFiles;
use crate::support::port::Port;

const SYNC: &str = "sync --issuer https://k8s.example --source keys/sa.pub --data-dir data --target out";

/// A folder in which a key was published once.
fn published() -> (Transcript, PathBuf) {
    let mut it = Transcript::new();
    fs::create_dir(it.path("keys")).expect("the folder is ours");
    KeyFiles::rsa(&it.path("keys"), "sa");
    it.succeeds(SYNC);
    let ledger = only_entry(&it.path("data/issuers")).join("ledger.json");
    let kid = kid(&ledger);
    it.replace(kid, "KID");
    (it, ledger)
}

fn only_entry(folder: &Path) -> PathBuf {
    let mut entries = fs::read_dir(folder).expect("it is there");
    let entry = entries.next().expect("there is one").expect("it can be read");
    assert!(entries.next().is_none(), "there is more than one");
    entry.path()
}

fn kid(ledger: &Path) -> String {
    let json: serde_json::Value =
        serde_json::from_slice(&fs::read(ledger).expect("it is there")).expect("JSON");
    json["keys"].as_object().and_then(|keys| keys.keys().next()).expect("one key").clone()
}

#[test]
fn a_ledger_that_cannot_be_used_is_left_as_it_is() {
    let (mut it, ledger) = published();
    let good = fs::read_to_string(&ledger).expect("it was just written");
    let _ = fs::remove_file(ledger.with_file_name("ledger.previous.json"));
    let kid = kid(&ledger);
    let mut refuses = |what: &str, content: &str| {
        fs::write(&ledger, content).expect("the folder is ours");
        it.refuses_silently(&format!("{SYNC} --adopt"), COULD_NOT, |it| it);
        it.refuses_silently(&format!("{SYNC} --dry-run"), COULD_NOT, |it| it);
        it.refuses(what, SYNC, COULD_NOT);
    };
    let replaced = |from: &str, to: &str| {
        assert!(good.contains(from), "no {from} in {good}");
        good.replacen(from, to, 1)
    };
    refuses("of a newer version", &replaced("\"version\": 2", "\"version\": 3"));
    refuses("cut off", &good[..good.len() / 2]);
    refuses("empty", "");
    refuses("of another issuer", &replaced("https://k8s.example", "https://other.example"));
    refuses("an entry under the wrong kid", &replaced(&format!("\"{kid}\": {{"), "\"other\": {"));
    refuses("with a member that is not known", &replaced("\"version\"", "\"verison\": 1, \"version\""));
    it.refuses("shown", "ledger show --data-dir data", COULD_NOT);
    fs::remove_file(&ledger).expect("the folder is ours");
    fs::create_dir(&ledger).expect("the folder is ours");
    it.refuses("a directory in its place", SYNC, COULD_NOT);
    it.compare("ledgers");
}

#[test]
fn what_the_ledger_does_not_know_is_not_adopted() {
    let (mut it, _) = published();
    it.refuses("no ledger", "ledger show --data-dir elsewhere", COULD_NOT);
    it.refuses("another issuer", "ledger show --data-dir data --issuer https://other.example", COULD_NOT);
    it.refuses("an unknown kid", "ledger adopt nobody --data-dir data", COULD_NOT);
    it.refuses(
        "an output directory that is a file",
        "jwks --issuer https://k8s.example --source keys/sa.pub --output-dir keys/sa.pub",
        COULD_NOT,
    );
    it.refuses("a data directory that is a file", &SYNC.replace("data ", "keys/sa.pub "), COULD_NOT);
    it.refuses("a target that is a file", &SYNC.replace(" out", " keys/sa.pub"), COULD_NOT);
    it.compare("unknown");
}

#[test]
fn a_place_that_belongs_to_somebody_else_is_left_as_it_is() {
    let (mut it, _) = published();
    let second = SYNC.replace("data ", "second ");
    // The first attempt gives the second ledger its lineage; after that, nothing changes.
    let _ = it.signpost(&second).finish(super::WITHIN).expect_code(COULD_NOT);
    for (folder, word) in [("data", "FIRST"), ("second", "SECOND")] {
        let ledger = only_entry(&it.path(folder).join("issuers")).join("ledger.json");
        let json: serde_json::Value =
            serde_json::from_slice(&fs::read(ledger).expect("it is there")).expect("JSON");
        it.replace(json["lineage"].as_str().expect("a lineage"), word);
    }
    it.refuses("of another ledger", &second, COULD_NOT);
    it.refuses("of another ledger, for programs", &format!("{second} --output json"), COULD_NOT);
    it.compare("owners");
}

#[test]
fn a_keyring_that_others_could_read_is_refused() {
    let mut it = Transcript::new();
    it.succeeds("sync --data-dir data");
    let key = fs::read_dir(it.path("data/keys"))
        .expect("it was just made")
        .map(|entry| entry.expect("it can be read").path())
        .find(|path| path.extension().is_some_and(|it| it == "pem"))
        .expect("there is a private key");
    let stem = key.file_stem().expect("a name").to_str().expect("base64url").to_owned();
    it.replace(stem, "KID");
    let mode = |path: &Path, mode| fs::set_permissions(path, Permissions::from_mode(mode)).expect("ours");
    mode(&key, 0o644);
    it.refuses("a readable key", "sync --data-dir data", COULD_NOT);
    mode(&key, 0o600);
    mode(&it.path("data/keys"), 0o755);
    it.refuses("a readable keyring", "sync --data-dir data", COULD_NOT);
    mode(&it.path("data/keys"), 0o700);
    let pem = fs::read(&key).expect("it is ours");
    fs::write(&key, "-----BEGIN PRIVATE KEY-----\n").expect("it is ours");
    it.refuses("a key that is cut off", "sync --data-dir data", COULD_NOT);
    let _ = fs::write(&key, &pem);
    fs::rename(&key, key.with_file_name("other.pem")).expect("it is ours");
    it.refuses("a key with another name", "sync --data-dir data", COULD_NOT);
    it.compare("keyrings");
}

/// Waits until all threads of a stopped process have stopped.
fn wait_until_quiet(it: &Transcript) {
    let deadline = Instant::now() + super::WITHIN;
    let mut before = tree(it.folder.path());
    loop {
        thread::sleep(Duration::from_millis(50));
        let after = tree(it.folder.path());
        if before == after {
            return;
        }
        assert!(Instant::now() < deadline, "it still writes");
        before = after;
    }
}

#[test]
fn a_second_service_on_a_data_directory_is_refused() {
    let mut it = Transcript::new();
    let (public, admin) = (Port::free(), Port::free());
    let run = format!("run --data-dir data --listen {} --admin-listen {}", public.address(), admin.address());
    let mut first = it.signpost(&run).start();
    first.wait_for(&format!("http://{}/readyz", admin.address()));
    first.wait_for_output("Stop it with Ctrl-C");
    // It holds the directory while it is stopped, and writes nothing.
    first.signal(Signal::STOP);
    wait_until_quiet(&it);
    it.replace(public.address(), "PUBLIC");
    it.replace(admin.address(), "ADMIN");
    it.refuses("the same once more", &run, COULD_NOT);
    let elsewhere = "run --data-dir data --listen 127.0.0.1:0 --issuer https://k8s.example --source embedded";
    it.refuses("on another port", &format!("{elsewhere} --admin-listen 127.0.0.1:0"), COULD_NOT);
    it.compare("second");
}
