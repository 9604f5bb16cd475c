//! A directory that another program serves, such as nginx.
//!
//! Does not use `object_store`'s local file system, which refuses metadata and conditional updates, and
//! stages under a name that a web server would serve. The owner is kept in a dot-file; a write locks, reads,
//! compares with the expected version, stages both files, syncs, renames, syncs the directory and reads back.
//! Readers need no lock.
//!
//! The owner is written before the document: a crash in between leaves an old document under our name, which
//! the next pass replaces. The other order would leave our document under another owner, which no instance
//! may replace. Reads use the reverse order. A version is the hash of owner and content, because times are
//! too coarse and editors preserve them. A symlink is replaced and not followed. The lock file is never
//! removed: a lock on a removed file excludes no other process.

use std::{
    fs::File,
    io::{self, ErrorKind},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use sha2::{Digest as _, Sha256};

use crate::{
    blocking::{self, TimedOut},
    core::{
        jose::publication::{Document, Paths},
        target_plan::Stored,
    },
    files::{self, Staged},
};

use super::{
    Change, Entry, MAX_DOCUMENT_BYTES, Version, VersionOf,
    error::{Cause, Failure},
};

mod owner_file;

use owner_file::Owners;

/// The owners of the documents.
const OWNERS: &str = ".signpost.json";
/// Locked during a write, and never removed: a lock on a removed file excludes no other process.
const LOCK: &str = ".signpost.lock";
/// Longest wait for another writer, which holds the lock for a few milliseconds.
const LOCK_WAIT: Duration = Duration::from_secs(5);

#[derive(Clone, Debug)]
pub(super) struct Directory {
    root: Arc<Path>,
    paths: Paths,
}

/// SHA-256 over owner and content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct FileVersion([u8; 32]);

impl FileVersion {
    pub(super) fn mark(&self) -> String {
        format!("{:?}", self.0)
    }
}

impl Directory {
    pub(super) fn new(root: PathBuf, paths: Paths) -> Self {
        Self { root: root.into(), paths }
    }

    pub(super) async fn version(&self, document: Document) -> Result<Option<Version>, Cause> {
        Ok(self.read(document).await?.map(|entry| entry.version))
    }

    pub(super) async fn read(&self, document: Document) -> Result<Option<Entry>, Cause> {
        let directory = self.clone();
        blocking::at(&self.root, move || directory.read_now(document))
            .await
            .unwrap_or_else(|error| Err(self.hangs(error)))
    }

    /// The content at a path other than those of the documents.
    pub(super) async fn read_at(&self, path: &str) -> Result<Option<Vec<u8>>, Cause> {
        let file = self.root.join(path);
        blocking::at(&self.root, move || read_file(&file))
            .await
            .unwrap_or_else(|error| Err(self.hangs(error)))
    }

    pub(super) async fn write(&self, change: Change, expected: Option<Version>) -> Result<Version, Failure> {
        let directory = self.clone();
        blocking::at(&self.root, move || directory.write_now(&change, expected.as_ref()))
            .await
            .unwrap_or_else(|error| Err(self.hangs(error).into()))
    }

    fn hangs(&self, error: TimedOut) -> Cause {
        cannot("reach", &self.root)(error.into())
    }

    /// Reads the document first and its owner second: writes use the reverse order, so this state existed at
    /// some instant.
    fn read_now(&self, document: Document) -> Result<Option<Entry>, Cause> {
        let Some(bytes) = read_file(&self.file(document))? else { return Ok(None) };
        let owner = self.owners()?.get(document).cloned();
        let version = version_of(&bytes, owner.as_ref().map(|owner| owner.lineage.as_str()));
        let (lineage, sequence) = owner.map(|owner| (owner.lineage, owner.sequence)).unzip();
        Ok(Some(Entry { stored: Stored { bytes, lineage, headers: None }, sequence, version }))
    }

    fn write_now(&self, change: &Change, expected: Option<&Version>) -> Result<Version, Failure> {
        create_directory(&self.root)?;
        let _lock = self.lock(LOCK_WAIT)?;
        if self.read_now(change.document)?.map(|entry| entry.version).as_ref() != expected {
            return Err(Failure::LostRace);
        }
        for (staged, path) in self.stage(change)? {
            staged.commit().map_err(cannot("replace", &path))?;
        }
        let is_ours = |entry: &Entry| {
            entry.stored.bytes == change.bytes && entry.owner().as_ref() == Some(&change.owner)
        };
        // Otherwise another program wrote without the lock.
        let back = self.read_now(change.document)?.filter(is_ours);
        back.map(|entry| entry.version).ok_or(Failure::LostRace)
    }

    /// The files that a write replaces, in commit order. Both are complete before either is renamed, so that
    /// a full disk changes nothing.
    fn stage(&self, change: &Change) -> Result<[(Staged, PathBuf); 2], Cause> {
        let file = self.file(change.document);
        create_directory(file.parent().expect("a document has a path below the root"))?;
        // The documents are public, and read by a process of another user.
        let stage = |path: PathBuf, bytes: &[u8]| {
            let staged = Staged::write(&path, bytes, files::PUBLIC_FILE).map_err(cannot("write", &path))?;
            Ok::<_, Cause>((staged, path))
        };
        let owners = stage(self.root.join(OWNERS), &self.owners()?.with(change).to_json())?;
        Ok([owners, stage(file, &change.bytes)?])
    }

    fn file(&self, document: Document) -> PathBuf {
        self.root.join(self.paths.of(document))
    }

    fn owners(&self) -> Result<Owners, Cause> {
        let path = self.root.join(OWNERS);
        let Some(bytes) = read_file(&path)? else { return Ok(Owners::default()) };
        Owners::parse(&bytes).map_err(|reason| Cause::Unusable { path, reason })
    }

    /// Waits for other writers, in this process and others; the lock ends with the file handle.
    fn lock(&self, wait: Duration) -> Result<File, Cause> {
        let path = self.root.join(LOCK);
        blocking::lock(&path, files::PUBLIC_FILE, wait).map_err(cannot("lock", &path))
    }
}

/// Reads a file up to the length limit of a document; `None` when there is none.
fn read_file(path: &Path) -> Result<Option<Vec<u8>>, Cause> {
    match files::read(path, MAX_DOCUMENT_BYTES) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) if error.kind() == ErrorKind::FileTooLarge => Err(Cause::TooLong),
        Err(error) => Err(cannot("read", path)(error)),
    }
}

fn create_directory(path: &Path) -> Result<(), Cause> {
    files::create_directory(path, files::PUBLIC_DIRECTORY).map_err(cannot("create", path))
}

fn version_of(bytes: &[u8], lineage: Option<&str>) -> Version {
    let lineage = lineage.unwrap_or_default();
    let mut hasher = Sha256::new();
    // The length separates owner and content.
    hasher.update((lineage.len() as u64).to_be_bytes());
    hasher.update(lineage);
    hasher.update(bytes);
    Version(VersionOf::File(FileVersion(hasher.finalize().into())))
}

fn cannot(task: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Cause {
    let path = path.to_owned();
    move |source| Cause::File { task, path, source }
}

pub(super) fn hint(cause: &Cause) -> Option<String> {
    match cause {
        Cause::File { path, source, .. } => match source.kind() {
            ErrorKind::PermissionDenied => {
                let user = rustix::process::geteuid().as_raw();
                Some(format!("let user ID {user} write to `{}`", path.display()))
            }
            ErrorKind::ReadOnlyFilesystem => Some(format!("mount `{}` writable", path.display())),
            ErrorKind::NotADirectory | ErrorKind::AlreadyExists => {
                Some("move the file away that stands where a directory should be".to_owned())
            }
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
                Some(format!("free some space below `{}`", path.display()))
            }
            ErrorKind::Other if path.ends_with(LOCK) => {
                Some(format!("remove `{}`: Signpost creates it again", path.display()))
            }
            ErrorKind::WouldBlock => Some("find out which process holds it, and stop that".to_owned()),
            ErrorKind::TimedOut => Some(format!("check what `{}` is mounted from", path.display())),
            _ => None,
        },
        Cause::Unusable { path, .. } if path.ends_with(OWNERS) => {
            Some(format!("remove `{}` if the directory belongs to this ledger", path.display()))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests;
