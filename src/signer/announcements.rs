//! Where a node says what it holds: `NODE.json` in a directory that the publisher reads.

use std::{
    fs::{self, File, OpenOptions, Permissions},
    io::{self, Write as _},
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use crate::core::announcement::{Announcement, NodeName};

/// Mode of an announcement: it is for everybody.
const MODE: u32 = 0o644;

/// The file of one node.
pub(super) struct Board {
    directory: PathBuf,
    name: String,
}

impl Board {
    pub(super) fn new(directory: &Path, node: &NodeName) -> Self {
        Self { directory: directory.to_owned(), name: format!("{node}.json") }
    }

    /// Posts an announcement. It is there to stay when this returns; nothing is written when it was there.
    pub(super) fn post(&self, announcement: &Announcement) -> Result<(), BoardError> {
        let (path, json) = (self.directory.join(&self.name), announcement.to_json());
        if fs::read(&path).is_ok_and(|present| present == json) {
            return Ok(());
        }
        let unfinished = self.directory.join(format!(".{}.tmp", self.name));
        let write = || {
            fs::create_dir_all(&self.directory)?;
            let mut options = OpenOptions::new();
            let mut file = options.write(true).create(true).truncate(true).mode(MODE).open(&unfinished)?;
            file.set_permissions(Permissions::from_mode(MODE))?;
            file.write_all(&json)?;
            file.sync_all()?;
            fs::rename(&unfinished, &path)?;
            File::open(&self.directory)?.sync_all()
        };
        write().map_err(|source| {
            let _ = fs::remove_file(&unfinished);
            BoardError { path, source }
        })
    }
}

/// An announcement cannot be posted.
#[derive(Debug, thiserror::Error)]
#[error("cannot post the announcement `{path}`", path = path.display())]
pub struct BoardError {
    path: PathBuf,
    source: io::Error,
}
