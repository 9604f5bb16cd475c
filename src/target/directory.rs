//! A directory that something else serves, such as nginx.
//!
//! Files have no headers and the file system has no conditional write, so the owner is kept in a
//! dot-file and writers exclude each other with a lock. Readers need no lock: files are only ever
//! replaced whole.
//!
//! The owner is written before the document. Dying between the two leaves a document that is older
//! than its owner says, and the next pass replaces it; the other order would leave our document under
//! a stranger's name, which nobody may touch (`docs/decisions/0007`).

use std::{
    fs::{self, DirBuilder, File, OpenOptions, Permissions, TryLockError},
    io::{self, ErrorKind, Read as _, Write as _},
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use rustix::fs::OFlags;
use sha2::{Digest as _, Sha256};

use crate::core::{placement::Stored, publication::Document};

use super::{
    Change, Entry, MAX_DOCUMENT_BYTES, Version, VersionOf,
    error::{Cause, Failure},
};

mod owners;

use owners::Owners;

/// Who wrote the documents.
const OWNERS: &str = ".signpost.json";
/// Locked during a write, and never removed: a lock on a removed file excludes nobody.
const LOCK: &str = ".signpost.lock";
/// A file that is being written; one per directory, because the lock lets one writer in.
const STAGE: &str = ".signpost.new";
/// Longest wait for another writer, which holds the lock for a few milliseconds.
const LOCK_WAIT: Duration = Duration::from_secs(5);
const LOCK_POLL: Duration = Duration::from_millis(5);

/// The documents are public and somebody else's process reads them, whatever the umask of this one.
const FILE_MODE: u32 = 0o644;
const DIRECTORY_MODE: u32 = 0o755;

/// A directory.
#[derive(Clone, Debug)]
pub(super) struct Directory {
    root: Arc<Path>,
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
    pub(super) fn new(root: PathBuf) -> Self {
        Self { root: root.into() }
    }

    pub(super) async fn version(&self, document: Document) -> Result<Option<Version>, Cause> {
        Ok(self.read(document).await?.map(|entry| entry.version))
    }

    pub(super) async fn read(&self, document: Document) -> Result<Option<Entry>, Cause> {
        let directory = self.clone();
        blocking(move || directory.read_now(document)).await
    }

    pub(super) async fn write(&self, change: Change, expected: Option<Version>) -> Result<Version, Failure> {
        let directory = self.clone();
        blocking(move || directory.write_now(&change, expected.as_ref())).await
    }

    /// The document first and its owner second: a writer goes the other way, so what is read stood
    /// there at some instant.
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
        for staged in self.stage(change)? {
            staged.commit()?;
        }
        let is_ours = |entry: &Entry| {
            entry.stored.bytes == change.bytes && entry.owner().as_ref() == Some(&change.owner)
        };
        // Otherwise somebody wrote who does not know the lock.
        let back = self.read_now(change.document)?.filter(is_ours);
        back.map(|entry| entry.version).ok_or(Failure::LostRace)
    }

    /// What a write replaces, in the order in which it must be committed. Both files are complete
    /// before either is in its place, so that a full disk changes nothing.
    fn stage(&self, change: &Change) -> Result<[Staged; 2], Cause> {
        let file = self.file(change.document);
        create_directory(file.parent().expect("a document has a path below the root"))?;
        let owners = Staged::new(self.root.join(OWNERS), &self.owners()?.with(change).to_json())?;
        let document = Staged::new(file, &change.bytes)?;
        Ok([owners, document])
    }

    fn file(&self, document: Document) -> PathBuf {
        self.root.join(document.path())
    }

    fn owners(&self) -> Result<Owners, Cause> {
        let path = self.root.join(OWNERS);
        let Some(bytes) = read_file(&path)? else { return Ok(Owners::default()) };
        Owners::parse(&bytes).map_err(|reason| Cause::Unusable { path, reason })
    }

    /// Waits for other writers, in this process and others; the lock ends with the file handle.
    fn lock(&self, wait: Duration) -> Result<File, Cause> {
        let path = self.root.join(LOCK);
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(false).mode(FILE_MODE);
        let file = options.open(&path).map_err(cannot("open", &path))?;
        let start = Instant::now();
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(file),
                Err(TryLockError::Error(error)) => return Err(cannot("lock", &path)(error)),
                Err(TryLockError::WouldBlock) if start.elapsed() < wait => thread::sleep(LOCK_POLL),
                Err(TryLockError::WouldBlock) => {
                    let reason = format!("was locked by another writer for {wait:?}");
                    return Err(Cause::Unusable { path, reason });
                }
            }
        }
    }
}

/// A file that is complete on disk under another name, and goes away unless it is committed.
struct Staged {
    stage: PathBuf,
    path: PathBuf,
}

impl Staged {
    /// Writes the stage; what is left of a writer that died is replaced.
    fn new(path: PathBuf, bytes: &[u8]) -> Result<Self, Cause> {
        let staged = Self { stage: path.with_file_name(STAGE), path };
        match fs::remove_file(&staged.stage) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(cannot("remove", &staged.stage)(error));
            }
            _ => {}
        }
        let mut options = OpenOptions::new();
        options.write(true).create_new(true).mode(FILE_MODE);
        let write = || {
            let mut file = options.open(&staged.stage)?;
            file.set_permissions(Permissions::from_mode(FILE_MODE))?;
            file.write_all(bytes)?;
            file.sync_all()
        };
        write().map_err(cannot("write", &staged.stage))?;
        Ok(staged)
    }

    /// Puts the stage in the place of the file. A symbolic link there is replaced, not followed: what
    /// it points at belongs to somebody else.
    fn commit(self) -> Result<(), Cause> {
        fs::rename(&self.stage, &self.path).map_err(cannot("replace", &self.path))?;
        sync_directory(self.path.parent().expect("a file has a parent"))
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        // After a commit there is none.
        let _ = fs::remove_file(&self.stage);
    }
}

/// Reads a file that is not longer than a document; `None` when there is none.
fn read_file(path: &Path) -> Result<Option<Vec<u8>>, Cause> {
    let mut options = OpenOptions::new();
    // Opening a pipe would wait for its writer.
    options.read(true).custom_flags(OFlags::NONBLOCK.bits().cast_signed());
    let file = match options.open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(cannot("open", path)(error)),
    };
    if !file.metadata().map_err(cannot("read", path))?.is_file() {
        return Err(Cause::Unusable { path: path.to_owned(), reason: "is not a file".to_owned() });
    }
    let mut bytes = Vec::new();
    file.take(MAX_DOCUMENT_BYTES + 1).read_to_end(&mut bytes).map_err(cannot("read", path))?;
    if bytes.len() as u64 > MAX_DOCUMENT_BYTES { Err(Cause::TooLong) } else { Ok(Some(bytes)) }
}

/// Creates a directory and those above it, so that a crash does not take them away again.
fn create_directory(path: &Path) -> Result<(), Cause> {
    if path.is_dir() {
        return Ok(());
    }
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    let parent = parent.unwrap_or_else(|| Path::new("."));
    if path.parent().is_some() {
        create_directory(parent)?;
    }
    match DirBuilder::new().create(path) {
        Ok(()) => {
            let mode = Permissions::from_mode(DIRECTORY_MODE);
            fs::set_permissions(path, mode).map_err(cannot("create", path))?;
            sync_directory(parent)
        }
        Err(error) if error.kind() == ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
        Err(error) => Err(cannot("create", path)(error)),
    }
}

fn sync_directory(path: &Path) -> Result<(), Cause> {
    File::open(path).and_then(|directory| directory.sync_all()).map_err(cannot("sync", path))
}

fn version_of(bytes: &[u8], lineage: Option<&str>) -> Version {
    let lineage = lineage.unwrap_or_default();
    let mut hasher = Sha256::new();
    // The length keeps owner and content apart.
    hasher.update((lineage.len() as u64).to_be_bytes());
    hasher.update(lineage);
    hasher.update(bytes);
    Version(VersionOf::File(FileVersion(hasher.finalize().into())))
}

fn cannot(task: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Cause {
    let path = path.to_owned();
    move |source| Cause::File { task, path, source }
}

/// What the operator can do about a failure.
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
            _ => None,
        },
        Cause::Unusable { path, .. } if path.ends_with(OWNERS) => {
            Some(format!("remove `{}` if the directory belongs to this ledger", path.display()))
        }
        _ => None,
    }
}

/// Runs file I/O where it may block.
async fn blocking<T: Send + 'static, E: From<Cause> + Send + 'static>(
    work: impl FnOnce() -> Result<T, E> + Send + 'static,
) -> Result<T, E> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|error| Err(Cause::Other(format!("the file task ended early: {error}")).into()))
}

#[cfg(test)]
mod tests;
