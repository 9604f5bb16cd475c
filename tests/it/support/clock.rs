//! A fake clock for a process, which leaves the machine's clock alone.

use std::ffi::OsString;
use std::fs;
use std::path::PathBuf;

use tempfile::TempDir;

use super::components;

pub(crate) struct Clock {
    folder: TempDir,
}

impl Clock {
    /// A clock without offset.
    pub(crate) fn right() -> Self {
        let clock = Self { folder: TempDir::new().expect("a temporary folder") };
        clock.set(0);
        clock
    }

    /// Sets the offset to the machine's clock, in seconds, also for running processes.
    pub(crate) fn set(&self, ahead: i64) {
        let staged = self.folder.path().join("staged");
        fs::write(&staged, format!("{ahead:+}\n")).expect("the folder can be written");
        fs::rename(&staged, self.file()).expect("the folder can be written");
    }

    /// Environment variables for a process with this clock. The monotonic clock stays the machine's.
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
