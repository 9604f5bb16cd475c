//! The trusted nodes on disk: `admitted/NODE.json` is what the operator admitted, `known/NODE.json` the
//! node's latest accepted announcement.
//!
//! This is public data; but write access is equivalent to cluster-admin, so only the signer's user may have
//! it.

use std::{
    collections::BTreeMap,
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use rustix::process::geteuid;

use crate::{
    announcements::{AnnouncementFileError, AnnouncementFiles},
    core::{
        signer::{
            announcement::{NodeName, SignedAnnouncement},
            trust::Trust,
        },
        text::Hint,
    },
    files,
};

const ADMITTED: &str = "admitted";
const KNOWN: &str = "known";
const ADMIT_AGAIN: &str = "remove the file, and admit its node again with `signpost signer admit`";
/// The trust directory of one node.
#[derive(Debug)]
pub struct TrustStore {
    path: PathBuf,
    admitted: AnnouncementFiles,
    known: AnnouncementFiles,
}

impl TrustStore {
    /// Reads and creates nothing yet.
    #[must_use]
    pub fn new(path: PathBuf) -> Self {
        let of = |kind| AnnouncementFiles::new(path.join(kind), files::read);
        Self { admitted: of(ADMITTED), known: of(KNOWN), path }
    }

    /// Reads everything, and verifies what is new. Blocks.
    ///
    /// # Errors
    ///
    /// Fails if others could have written it, and if a file cannot be read or used.
    pub fn load(&mut self) -> Result<Trust, TrustError> {
        let Self { path, admitted, known } = self;
        Ok(Trust { admitted: read(path, admitted)?, known: read(path, known)? })
    }

    /// Admits a node by the operator's command. A running node notices.
    ///
    /// # Errors
    ///
    /// Fails if it cannot be written.
    pub fn admit(&self, signed: &SignedAnnouncement) -> Result<(), TrustError> {
        self.write(ADMITTED, signed)
    }

    /// Revokes an admission; returns whether there was one.
    ///
    /// # Errors
    ///
    /// Fails if it cannot be removed.
    pub fn expel(&self, node: &NodeName) -> Result<bool, TrustError> {
        self.remove(ADMITTED, node)
    }

    /// Stores the changes since `before`.
    ///
    /// # Errors
    ///
    /// Fails if it cannot be written.
    pub fn learnt(&self, before: &Trust, after: &Trust) -> Result<(), TrustError> {
        for (node, signed) in &after.known {
            if before.known.get(node) != Some(signed) {
                self.write(KNOWN, signed)?;
            }
        }
        for node in before.known.keys().filter(|node| !after.known.contains_key(*node)) {
            self.remove(KNOWN, node)?;
        }
        Ok(())
    }

    fn write(&self, kind: &str, signed: &SignedAnnouncement) -> Result<(), TrustError> {
        let directory = self.path.join(kind);
        let node = signed.announcement().node();
        let path = directory.join(format!("{node}.json"));
        files::create_directory(&directory, files::PRIVATE_DIRECTORY)
            .and_then(|()| files::replace(&path, signed.json(), files::PRIVATE_FILE))
            .map_err(failed("write", &path))
    }

    fn remove(&self, kind: &str, node: &NodeName) -> Result<bool, TrustError> {
        let path = self.path.join(kind).join(format!("{node}.json"));
        // Durably: an expelled node must not return after a power failure.
        files::remove(&path).map_err(failed("remove", &path))
    }
}

fn read(
    path: &Path,
    files: &mut AnnouncementFiles,
) -> Result<BTreeMap<NodeName, SignedAnnouncement>, TrustError> {
    for directory in [path, files.directory()] {
        let metadata = match fs::metadata(directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
            metadata => metadata.map_err(failed("inspect", directory))?,
        };
        let (owner, us) = (metadata.uid(), geteuid().as_raw());
        if owner != us || metadata.mode() & 0o022 != 0 {
            let mode = metadata.mode() & 0o7777;
            return Err(TrustError::Exposed { path: directory.to_owned(), owner, mode, us });
        }
    }
    let mut read = BTreeMap::new();
    for (path, signed) in files.read(files.paths(usize::MAX)?) {
        let signed = signed?;
        let node = signed.announcement().node().clone();
        if path.file_stem().is_none_or(|stem| stem != node.as_str()) {
            return Err(TrustError::Misnamed { path, node });
        }
        read.insert(node, signed);
    }
    Ok(read)
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> TrustError {
    move |source| TrustError::Io { action, path: path.to_owned(), source }
}

/// The trusted nodes cannot be read or stored.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    #[error("cannot {action} `{path}`", path = path.display())]
    Io { action: &'static str, path: PathBuf, source: io::Error },
    #[error("`{path}` is of user {owner} with mode {mode:o}, expected user {us} as its only writer", path = path.display())]
    Exposed { path: PathBuf, owner: u32, mode: u32, us: u32 },
    #[error(transparent)]
    File(#[from] AnnouncementFileError),
    #[error("`{path}` is of node `{node}`", path = path.display())]
    Misnamed { path: PathBuf, node: NodeName },
}

impl Hint for TrustError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Exposed { path, us, .. } => Some(format!(
                "`chown {us} {path}` and `chmod 700 {path}`, after checking who has written there",
                path = path.display()
            )),
            Self::File(error) if !error.is_content() => None,
            Self::File(_) | Self::Misnamed { .. } => Some(ADMIT_AGAIN.to_owned()),
            Self::Io { .. } => None,
        }
    }
}

#[cfg(test)]
mod tests;
