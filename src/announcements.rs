//! Reads signed announcements from a directory, one file `NODE.json` per node.

use std::{
    collections::BTreeMap,
    fs, io, mem,
    path::{Path, PathBuf},
};

use crate::core::signer::announcement::{InvalidSignedAnnouncement, SignedAnnouncement};

/// Largest announcement that is read, in bytes: a node has a handful of keys.
pub const MAX_SIZE: u64 = 1024 * 1024;
/// Most announcements that are read: a cluster has a handful of nodes.
pub const MAX_FILES: usize = 256;

/// A directory of announcements, and what it held when it was last read.
#[derive(Debug)]
pub struct AnnouncementFiles {
    directory: PathBuf,
    read_file: fn(&Path, u64) -> io::Result<Vec<u8>>,
    known: BTreeMap<PathBuf, SignedAnnouncement>,
}

impl AnnouncementFiles {
    /// `read_file` follows symbolic links or not: the files of a `ConfigMap` or Secret volume are links.
    #[must_use]
    pub fn new(directory: PathBuf, read_file: fn(&Path, u64) -> io::Result<Vec<u8>>) -> Self {
        Self { directory, read_file, known: BTreeMap::new() }
    }

    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The files among the first `entries` of the directory; none if it does not exist.
    ///
    /// # Errors
    ///
    /// Fails if the directory cannot be read.
    pub fn paths(&self, entries: usize) -> Result<Vec<PathBuf>, AnnouncementFileError> {
        let failed = |source| AnnouncementFileError::Read { path: self.directory.clone(), source };
        let found = match fs::read_dir(&self.directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            found => found.map_err(failed)?,
        };
        let mut paths = Vec::new();
        for entry in found.take(entries) {
            let path = entry.map_err(failed)?.path();
            // A leading dot marks a file that is being written.
            let is_hidden = path.file_name().is_none_or(|name| name.as_encoded_bytes().starts_with(b"."));
            if !is_hidden && path.extension().is_some_and(|extension| extension == "json") {
                paths.push(path);
            }
        }
        Ok(paths)
    }

    /// Reads these files; an unchanged one is not verified again. Blocks as long as the file system does.
    pub fn read(
        &mut self,
        paths: Vec<PathBuf>,
    ) -> Vec<(PathBuf, Result<SignedAnnouncement, AnnouncementFileError>)> {
        let mut before = mem::take(&mut self.known);
        let mut read = |path: PathBuf| {
            let signed = match (self.read_file)(&path, MAX_SIZE) {
                Ok(bytes) => SignedAnnouncement::read_again(&bytes, before.remove(&path))
                    .map_err(|source| AnnouncementFileError::Unusable { path: path.clone(), source }),
                Err(source) => Err(AnnouncementFileError::Read { path: path.clone(), source }),
            };
            if let Ok(signed) = &signed {
                self.known.insert(path.clone(), signed.clone());
            }
            (path, signed)
        };
        paths.into_iter().map(&mut read).collect()
    }

    #[cfg(test)]
    pub(crate) fn known(&self, path: &Path) -> &SignedAnnouncement {
        &self.known[path]
    }
}

/// Announcements cannot be read or used.
#[derive(Debug, thiserror::Error)]
pub enum AnnouncementFileError {
    #[error("cannot read `{path}`", path = path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("cannot use `{path}`", path = path.display())]
    Unusable { path: PathBuf, source: InvalidSignedAnnouncement },
    #[error("more than {MAX_FILES} announcements in `{directory}`", directory = directory.display())]
    TooMany { directory: PathBuf },
}

impl AnnouncementFileError {
    /// Whether something is there that is not an announcement.
    #[must_use]
    pub fn is_content(&self) -> bool {
        match self {
            Self::Read { source, .. } => source.kind() == io::ErrorKind::FileTooLarge,
            Self::Unusable { .. } | Self::TooMany { .. } => true,
        }
    }
}
