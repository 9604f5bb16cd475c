//! Where a node says what it holds: `NODE.json` in a directory that the publisher reads.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{
    keyring::{SigningError, SigningKey},
    whole_file,
};
use crate::core::{
    announcement::{Announcement, Draft, InvalidPost, NodeName, Posted},
    kid::Kid,
};

/// Mode of an announcement: it is for everybody.
const MODE: u32 = 0o644;
/// Largest announcement that is read, in bytes: a node has a handful of keys.
const MAX_SIZE: u64 = 1024 * 1024;

/// The file of one node.
pub(super) struct Board {
    directory: PathBuf,
    name: String,
    /// What others had posted when it was last read.
    read: BTreeMap<PathBuf, Posted>,
}

impl Board {
    pub(super) fn new(directory: &Path, node: &NodeName) -> Self {
        Self { directory: directory.to_owned(), name: format!("{node}.json"), read: BTreeMap::new() }
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
        fs::create_dir_all(&self.directory)
            .and_then(|()| whole_file::write(&self.directory, &self.name, &json, MODE))
            .map_err(|source| BoardError::Write { path, source })
    }

    /// What others have posted, as far as it can be read, and what is wrong with the first that cannot.
    /// A file is read again only once it has changed.
    pub(super) fn others(&mut self, own: &NodeName) -> Result<(Vec<Posted>, Option<BoardError>), BoardError> {
        let failed = |source| BoardError::Read { path: self.directory.clone(), source };
        let own = format!("{own}.json");
        let mut read = BTreeMap::new();
        let mut unreadable = None;
        let entries = match fs::read_dir(&self.directory) {
            // Nobody has posted anything.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok((Vec::new(), None)),
            entries => entries.map_err(failed)?,
        };
        for entry in entries {
            let path = entry.map_err(failed)?.path();
            let is_json = path.extension().is_some_and(|extension| extension == "json");
            let is_hidden = path.file_name().is_none_or(|name| name.as_encoded_bytes().starts_with(b"."));
            if !is_json || is_hidden || path.file_name().is_some_and(|name| name == own.as_str()) {
                continue;
            }
            let present = fs::metadata(&path).and_then(|metadata| {
                if metadata.len() > MAX_SIZE {
                    return Err(io::Error::from(io::ErrorKind::FileTooLarge));
                }
                fs::read(&path)
            });
            let posted = match present {
                Ok(present) => Posted::read_again(&present, self.read.remove(&path))
                    .map_err(|source| BoardError::Unusable { path: path.clone(), source }),
                Err(source) => Err(BoardError::Read { path: path.clone(), source }),
            };
            match posted {
                Ok(posted) => drop(read.insert(path, posted)),
                Err(error) => drop(unreadable.get_or_insert(error)),
            }
        }
        self.read = read;
        Ok((self.read.values().cloned().collect(), unreadable))
    }

    /// What is posted already.
    fn present(&self) -> Option<Posted> {
        Posted::read(&fs::read(self.directory.join(&self.name)).ok()?).ok()
    }
}

/// An announcement cannot be posted, or one of another node not be read.
#[derive(Debug, thiserror::Error)]
pub enum BoardError {
    #[error("cannot post the announcement `{path}`", path = path.display())]
    Write { path: PathBuf, source: io::Error },
    #[error("cannot read `{path}`", path = path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("cannot use `{path}`", path = path.display())]
    Unusable { path: PathBuf, source: InvalidPost },
    #[error("cannot sign the announcement")]
    Sign(#[from] SigningError),
}
