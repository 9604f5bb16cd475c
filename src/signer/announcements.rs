//! Where a node says what it holds: `NODE.json` in a directory that the publisher reads.

use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions, Permissions},
    io::{self, Write as _},
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    sync::Arc,
};

use super::keyring::{SigningError, SigningKey};
use crate::core::{
    announcement::{Announcement, Draft, NodeName, Posted},
    kid::Kid,
};

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

    /// Posts an announcement, signed with every key that is there. It is there to stay when this returns;
    /// nothing is written when it was there.
    pub(super) fn post(
        &self,
        announcement: &Announcement,
        keys: &BTreeMap<Kid, Arc<SigningKey>>,
    ) -> Result<(), BoardError> {
        let path = self.directory.join(&self.name);
        let keys: Vec<_> = keys.iter().filter(|(kid, _)| announcement.keys().contains_key(*kid)).collect();
        if self.present().is_some_and(|present| {
            let is_signed = present.signed_by().iter().eq(keys.iter().map(|(kid, _)| *kid));
            is_signed && present.announcement() == announcement
        }) {
            return Ok(());
        }
        let mut draft = Draft::new(announcement);
        for (_, key) in keys {
            draft.sign(key.jwk(), |message| key.sign_message(message))?;
        }
        let json = draft.to_json();
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
            BoardError::Write { path, source }
        })
    }

    /// What is posted already.
    fn present(&self) -> Option<Posted> {
        Posted::read(&fs::read(self.directory.join(&self.name)).ok()?).ok()
    }
}

/// An announcement cannot be posted.
#[derive(Debug, thiserror::Error)]
pub enum BoardError {
    #[error("cannot post the announcement `{path}`", path = path.display())]
    Write { path: PathBuf, source: io::Error },
    #[error("cannot sign the announcement")]
    Sign(#[from] SigningError),
}
