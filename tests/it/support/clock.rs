//! The clock of a process, which a test sets without touching the machine's.

use std::ffi::OsString;
use std::fs;
use std::path::PathBuf;

use tempfile::TempDir;

use super::components;

pub(crate) struct Clock {
    folder: TempDir,
}

impl Clock {
    /// One that is right.
    pub(crate) fn right() -> Self {
        let clock = Self { folder: TempDir::new().expect("a temporary folder") };
        clock.set(0);
        clock
    }

    /// How far it is ahead of the machine's, in seconds; for those that run too.
    pub(crate) fn set(&self, ahead: i64) {
        let staged = self.folder.path().join("staged");
        fs::write(&staged, format!("{ahead:+}\n")).expect("the folder can be written");
        fs::rename(&staged, self.file()).expect("the folder can be written");
    }

    /// What stands in the environment of whoever reads it. The monotonic clock stays the machine's.
    pub(crate) fn environment(&self) -> [(&'static str, OsString); 4] {
        [
            ("LD_PRELOAD", components::path("faketime").into()),
            ("FAKETIME_TIMESTAMP_FILE", self.file().into()),
            ("FAKETIME_NO_CACHE", "1".into()),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1".into()),
        ]
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("clock")
    }
}
