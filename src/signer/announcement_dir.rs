//! The announcement of this node, `NODE.json` in the announcement directory, where the publisher and the other
//! nodes read it.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::keyring::{SigningError, SigningKey};
use crate::{
    announcements::MAX_SIZE,
    core::{
        jose::kid::Kid,
        signer::announcement::{Announcement, AnnouncementSigner, NodeName, SignedAnnouncement},
        text::Hint,
    },
    files,
};

/// The announcement file of one node.
pub(super) struct AnnouncementDir {
    directory: PathBuf,
    name: String,
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

/// An announcement cannot be posted.
#[derive(Debug, thiserror::Error)]
pub enum AnnouncementDirError {
    #[error("cannot post the announcement `{path}`", path = path.display())]
    Write { path: PathBuf, source: io::Error },
    #[error("cannot sign the announcement")]
    Sign(#[from] SigningError),
}

impl Hint for AnnouncementDirError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Write { source, .. } if source.kind() == io::ErrorKind::StorageFull => {
                Some("free some space: a key is not used before it is announced".to_owned())
            }
            Self::Write { .. } | Self::Sign(_) => None,
        }
    }
}
