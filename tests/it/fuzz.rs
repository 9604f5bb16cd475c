//! Damaged external inputs: the targets of `make fuzz`, on stable Rust, briefly and reproducibly.

use std::{fs, panic, path::PathBuf};

use self::mutation::Mutations;
use self::targets::Target;

mod mutation;
#[path = "../fuzz/targets/all.rs"]
mod targets;

/// Mutations of each target: a few seconds of an unoptimised build.
const MUTATIONS: usize = 1000;
/// Least number of accepted and of rejected mutations.
const FEW: usize = 10;
/// Largest corpus of a target, in bytes: inputs without new coverage are not kept.
const MAX_CORPUS: usize = 8192;

#[test]
fn damaged_announcements_break_no_promise() {
    breaks_no_promise("announcement");
}

#[test]
fn damaged_configurations_break_no_promise() {
    breaks_no_promise("configuration");
}

#[test]
fn damaged_discovery_documents_break_no_promise() {
    breaks_no_promise("discovery");
}

#[test]
fn damaged_jwk_sets_break_no_promise() {
    breaks_no_promise("jwks");
}

#[test]
fn damaged_ledgers_break_no_promise() {
    breaks_no_promise("ledger");
}

#[test]
fn damaged_key_files_break_no_promise() {
    breaks_no_promise("pem");
}

#[test]
fn damaged_tokens_break_no_promise() {
    breaks_no_promise("token");
}

#[test]
fn every_target_has_a_small_corpus_and_every_corpus_a_target() {
    let mut folders: Vec<_> = fs::read_dir(folder().join("corpus")).expect("it is there").collect();
    let named = |name: &str| targets::ALL.iter().any(|target| target.name == name);
    folders.retain(|entry| !named(&entry.as_ref().expect("it can be read").file_name().to_string_lossy()));
    assert!(folders.is_empty(), "no target for {folders:?}");
    for Target { name, .. } in targets::ALL {
        let size: usize = corpus(name).iter().map(|(_, bytes)| bytes.len()).sum();
        assert!((1..=MAX_CORPUS).contains(&size), "{size} bytes for `{name}`");
    }
}

#[track_caller]
fn breaks_no_promise(name: &str) {
    let target = targets::ALL.iter().find(|target| target.name == name).expect("a target");
    let corpus = corpus(name);
    for (file, bytes) in &corpus {
        is_accepted(target, bytes, file);
    }
    let corpus = corpus.into_iter().map(|(_, bytes)| bytes).collect();
    let (mut mutations, mut accepted) = (Mutations::of(corpus, words()), 0);
    for number in 0..MUTATIONS {
        let bytes = mutations.next();
        if is_accepted(target, &bytes, &format!("mutation {number}")) {
            mutations.keep(bytes);
            accepted += 1;
        }
    }
    assert!(
        (FEW..MUTATIONS - FEW).contains(&accepted),
        "{accepted} accepted: damage that tests one side alone"
    );
}

#[track_caller]
fn is_accepted(target: &Target, bytes: &[u8], what: &str) -> bool {
    let outcome = panic::catch_unwind(|| (target.run)(bytes));
    outcome.unwrap_or_else(|_| panic!("target `{}`, {what}: {}", target.name, bytes.escape_ascii()))
}

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz")
}

/// The files with their names, in a fixed order.
fn corpus(name: &str) -> Vec<(String, Vec<u8>)> {
    let files = fs::read_dir(folder().join("corpus").join(name)).expect("every target has a corpus");
    let mut files: Vec<_> = files
        .map(|file| file.expect("it can be read").path())
        .map(|path| (path.display().to_string(), fs::read(&path).expect("it can be read")))
        .collect();
    files.sort();
    files
}

/// The dictionary of libFuzzer: a quoted text in each line.
fn words() -> Vec<Vec<u8>> {
    let text = fs::read_to_string(folder().join("words.txt")).expect("it is there");
    let word = |line: &str| serde_json::from_str::<String>(line).expect("a text in quotes").into_bytes();
    text.lines().map(word).collect()
}
