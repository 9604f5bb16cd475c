//! Wrong inputs of every kind: messages, exit codes, and that nothing is written.
//!
//! Each area has one page under `snapshots/`, with every message and hint as an operator reads them. Values
//! that vary between runs are replaced: the folder by `DIR`, key IDs, ports, ages.

mod certificates;
mod configurations;
mod flags;
mod jwks;
mod keys;
mod kubeconfigs;
mod ledgers;
mod signers;
mod sources;
mod state;
mod targets;
mod tokens;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tempfile::TempDir;

use crate::support::signpost::{Finished, Signpost};

const WITHIN: Duration = Duration::from_mins(1);
/// Exit code: checked, and the answer is no.
const NO: i32 = 1;
/// Exit code: failed.
const COULD_NOT: i32 = 2;

/// A folder of inputs, and the messages about each.
struct Transcript {
    folder: TempDir,
    text: String,
    replaced: Vec<(String, &'static str)>,
}

impl Transcript {
    fn new() -> Self {
        let folder = TempDir::new().expect("a temporary folder");
        let path = folder.path().display().to_string();
        Self { folder, text: String::new(), replaced: vec![(path, "DIR")] }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().expect("it is below the folder")).expect("the folder is ours");
        fs::write(path, content).expect("the folder is ours");
    }

    /// Shows `word` instead of `text` from now on.
    fn replace(&mut self, text: impl Into<String>, word: &'static str) {
        self.replaced.push((text.into(), word));
    }

    fn signpost(&self, arguments: &str) -> Signpost {
        // The home folder must not change either.
        Signpost::new(words(arguments)).current_dir(self.folder.path()).env("HOME", self.folder.path())
    }

    /// Runs a command that must succeed, as a precondition.
    #[track_caller]
    fn succeeds(&self, arguments: &str) -> Finished {
        self.signpost(arguments).finish(WITHIN).expect_code(0)
    }

    #[track_caller]
    fn refuses(&mut self, what: &str, arguments: &str, code: i32) {
        self.refuses_with(what, arguments, code, |signpost| signpost);
    }

    /// Runs a command line that ends with `code` and changes no file, and records its output.
    #[track_caller]
    fn refuses_with(
        &mut self,
        what: &str,
        arguments: &str,
        code: i32,
        set_up: impl FnOnce(Signpost) -> Signpost,
    ) {
        let finished = self.refuses_silently(arguments, code, set_up);
        let said = [finished.stdout, finished.stderr].concat();
        let said = self.shown(&format!("$ signpost {arguments}\n{said}"));
        self.text += &format!("# {what}\n{said}[{code}]\n\n");
    }

    /// As [`Self::refuses_with`], without recording a repeated message.
    #[track_caller]
    fn refuses_silently(
        &self,
        arguments: &str,
        code: i32,
        set_up: impl FnOnce(Signpost) -> Signpost,
    ) -> Finished {
        let before = tree(self.folder.path());
        let finished = set_up(self.signpost(arguments)).finish(WITHIN);
        assert_eq!(Some(code), finished.code, "{arguments}\n{}{}", finished.stdout, finished.stderr);
        let after = tree(self.folder.path());
        let changed: Vec<_> =
            before.keys().chain(after.keys()).filter(|path| before.get(*path) != after.get(*path)).collect();
        assert!(changed.is_empty(), "`{arguments}` changed {changed:?}");
        assert!(!finished.stderr.contains("panicked"), "{}", finished.stderr);
        finished
    }

    fn shown(&self, said: &str) -> String {
        let shown = self.replaced.iter().fold(said.to_owned(), |said, (text, word)| said.replace(text, word));
        let mut lines = String::new();
        for line in shown.lines() {
            lines += &without_chance(line);
            lines.push('\n');
        }
        lines
    }

    /// Compares the transcript with the page of this name.
    fn compare(self, page: &str) {
        insta::with_settings!({ prepend_module_to_snapshot => false, omit_expression => true }, {
            insta::assert_snapshot!(format!("wrong_{page}"), self.text.trim_end());
        });
    }
}

/// Ages and lifetimes depend on when the test runs; a suggested command on paths and free ports.
fn without_chance(line: &str) -> String {
    for (start, what, end) in [
        ("expired ", "TIME", " ago"),
        ("valid for another ", "TIME", "\""),
        ("has a lifetime of ", "TIME", ", more"),
        ("next to it: `", "COMMAND", " --data-dir"),
    ] {
        if let Some((before, rest)) = line.split_once(start) {
            let after = rest.find(end).map_or("", |at| &rest[at..]);
            return format!("{before}{start}{what}{after}");
        }
    }
    line.to_owned()
}

fn words(arguments: &str) -> Vec<String> {
    arguments.split(' ').filter(|word| !word.is_empty()).map(|word| word.replace("\u{a0}", " ")).collect()
}

/// Every file below `folder` with its content; directories without.
fn tree(folder: &Path) -> BTreeMap<PathBuf, Option<Vec<u8>>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("the folder is ours") {
            let path = entry.expect("the folder is ours").path();
            if path.is_dir() {
                folders.push(path.clone());
                found.insert(path, None);
            } else if path.is_file() {
                let content = fs::read(&path).expect("the files are ours");
                found.insert(path, Some(content));
            }
        }
    }
    found
}
