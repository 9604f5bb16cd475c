//! The announcement directory: a node posts `NODE.json` there, and the publisher reads it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::keyring::{SigningError, SigningKey};
use crate::{
    core::{
        jose::kid::Kid,
        signer::announcement::{
            Announcement, AnnouncementSigner, InvalidSignedAnnouncement, NodeName, SignedAnnouncement,
        },
        text::Hint,
    },
    files,
};

/// Largest announcement that is read, in bytes: a node has a handful of keys.
const MAX_SIZE: u64 = 1024 * 1024;
/// Most announcements of other nodes that are read, those of trusted nodes first: a cluster has a handful of
/// nodes.
const MAX_OTHERS: usize = 256;
/// Most directory entries that are examined.
const MAX_NAMES: usize = 10_000;

/// The announcement file of one node.
pub(super) struct AnnouncementDir {
    directory: PathBuf,
    name: String,
}

/// Reads the files of other nodes, which may hold anything.
pub(super) struct PeerReader {
    directory: PathBuf,
    own: String,
    /// Their contents when last read.
    read: BTreeMap<PathBuf, SignedAnnouncement>,
}

impl AnnouncementDir {
    pub(super) fn new(directory: &Path, node: &NodeName) -> Self {
        Self { directory: directory.to_owned(), name: format!("{node}.json") }
    }

    /// Posts an announcement durably, signed with every key of the keyring; writes nothing if it is posted
    /// already.
    pub(super) fn post(
        &self,
        announcement: &Announcement,
        keys: &BTreeMap<Kid, Arc<SigningKey>>,
    ) -> Result<(), AnnouncementDirError> {
        let path = self.directory.join(&self.name);
        let keys: Vec<_> = keys.iter().filter(|(kid, _)| announcement.keys().contains_key(*kid)).collect();
        if self.present().is_some_and(|present| {
            let is_signed = present.signed_by().iter().eq(keys.iter().map(|(kid, _)| *kid));
            is_signed && present.announcement() == announcement
        }) {
            return Ok(());
        }
        let mut draft = AnnouncementSigner::new(announcement);
        for (_, key) in keys {
            draft.sign(key.jwk(), |message| key.sign_message(message))?;
        }
        let json = draft.to_json();
        let write = || files::replace(&path, &json, files::PUBLIC_FILE);
        files::create_directory(&self.directory, files::PUBLIC_DIRECTORY)
            .and_then(|()| match write() {
                // There is a directory with that name.
                Err(error) if error.kind() == io::ErrorKind::IsADirectory => {
                    files::move_aside(&path).and_then(|()| write())
                }
                written => written,
            })
            .map_err(|source| AnnouncementDirError::Write { path, source })
    }

    /// Whether this announcement is posted: whoever can write to the directory can remove it.
    pub(super) fn shows(&self, announcement: &Announcement) -> bool {
        self.present().is_some_and(|present| present.announcement() == announcement)
    }

    /// The posted announcement, if any.
    fn present(&self) -> Option<SignedAnnouncement> {
        let present = files::read_no_follow(&self.directory.join(&self.name), MAX_SIZE);
        SignedAnnouncement::read(&present.ok()?).ok()
    }
}

impl PeerReader {
    pub(super) fn new(directory: &Path, own: &NodeName) -> Self {
        Self { directory: directory.to_owned(), own: format!("{own}.json"), read: BTreeMap::new() }
    }

    /// Reads the announcements of other nodes; returns the readable ones and the first error. An unchanged
    /// file is not verified again. Blocks as long as the file system does.
    pub(super) fn read(
        &mut self,
        trusted: &BTreeSet<NodeName>,
    ) -> Result<(Vec<SignedAnnouncement>, Option<AnnouncementDirError>), AnnouncementDirError> {
        let failed = |source| AnnouncementDirError::Read { path: self.directory.clone(), source };
        let entries = match fs::read_dir(&self.directory) {
            // No node has posted anything.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok((Vec::new(), None)),
            entries => entries.map_err(failed)?,
        };
        // Those of trusted nodes are read, whatever else is there.
        let mut paths: Vec<_> =
            trusted.iter().map(|node| self.directory.join(format!("{node}.json"))).collect();
        let mut others = BTreeSet::new();
        for entry in entries.take(MAX_NAMES) {
            let path = entry.map_err(failed)?.path();
            let is_json = path.extension().is_some_and(|extension| extension == "json");
            let is_hidden = path.file_name().is_none_or(|name| name.as_encoded_bytes().starts_with(b"."));
            if is_json && !is_hidden && !paths.contains(&path) {
                others.insert(path);
            }
        }
        paths.extend(others);
        paths.retain(|path| path.file_name().is_some_and(|name| name != self.own.as_str()));
        let too_many =
            paths.get(MAX_OTHERS).map(|_| AnnouncementDirError::TooMany { path: self.directory.clone() });
        paths.truncate(MAX_OTHERS);
        let mut read = BTreeMap::new();
        let mut unreadable = None;
        for path in paths {
            let posted = match files::read_no_follow(&path, MAX_SIZE) {
                Ok(present) => SignedAnnouncement::read_again(&present, self.read.remove(&path))
                    .map_err(|source| AnnouncementDirError::Unusable { path: path.clone(), source }),
                // It was removed since the directory was listed.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(source) => Err(AnnouncementDirError::Read { path: path.clone(), source }),
            };
            match posted {
                Ok(posted) => drop(read.insert(path, posted)),
                Err(error) => drop(unreadable.get_or_insert(error)),
            }
        }
        self.read = read;
        Ok((self.read.values().cloned().collect(), unreadable.or(too_many)))
    }
}

/// An announcement cannot be posted, or one of another node cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum AnnouncementDirError {
    #[error("cannot post the announcement `{path}`", path = path.display())]
    Write { path: PathBuf, source: io::Error },
    #[error("cannot read `{path}`", path = path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("more than {MAX_OTHERS} announcements in `{path}`", path = path.display())]
    TooMany { path: PathBuf },
    #[error("cannot use `{path}`", path = path.display())]
    Unusable { path: PathBuf, source: InvalidSignedAnnouncement },
    #[error("cannot sign the announcement")]
    Sign(#[from] SigningError),
}

impl Hint for AnnouncementDirError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Write { source, .. } if source.kind() == io::ErrorKind::StorageFull => {
                Some("free some space: a key is not used before it is announced".to_owned())
            }
            Self::Read { .. } | Self::Unusable { .. } | Self::TooMany { .. } => {
                Some("check who writes there; files that are not announcements can be removed".to_owned())
            }
            Self::Write { .. } | Self::Sign(_) => None,
        }
    }
}
