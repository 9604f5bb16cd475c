//! Keeps a ledger in a file: locked while it is compared, written beside, synced, renamed.
//!
//! The version before the last is kept as `ledger.previous.json`: a file system that loses a synced
//! rename, or a human who truncates the file, then costs one change and not the ledger.

use std::{
    fs::{self, File, Metadata, OpenOptions},
    io::{self, Read as _, Write as _},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard},
};

use jiff::{SignedDuration, Timestamp};
use rustix::fs::{FlockOperation, flock};

use super::{Revision, StoreError, Stored};
use crate::{
    clock,
    core::{
        ledger::{InvalidLedger, Ledger},
        publication::sha256_hex,
    },
};

const LEDGER: &str = "ledger.json";
const SERVICE_LOCK: &str = "signpost.lock";
const PREVIOUS: &str = "ledger.previous.json";

/// Age at which a file counts as settled: whatever writes it from then on gives it another time, because
/// file systems count time in steps that are shorter.
const SETTLED: SignedDuration = SignedDuration::from_secs(2);

/// The directory that holds the ledger of one issuer.
#[derive(Debug)]
pub struct FileStore {
    directory: PathBuf,
    path: PathBuf,
    /// What was read last of a settled file. Only reading rests on it: a write compares the bytes.
    remembered: Mutex<Option<Remembered>>,
}

#[derive(Debug)]
struct Remembered {
    face: Face,
    stored: Stored,
}

/// What a file shows without being read; every write changes something of it, in place or by a rename.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Face {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    /// Nobody can set it, so that not even a copied time hides a write.
    changed: (i64, i64),
}

impl Face {
    fn of(file: &Metadata) -> Self {
        Self {
            device: file.dev(),
            inode: file.ino(),
            size: file.size(),
            modified: (file.mtime(), file.mtime_nsec()),
            changed: (file.ctime(), file.ctime_nsec()),
        }
    }

    fn is_settled(&self, now: Timestamp) -> bool {
        Timestamp::from_second(self.changed.0).is_ok_and(|changed| now.duration_since(changed) > SETTLED)
    }
}

impl FileStore {
    /// Uses a directory, which is created with the first write.
    #[must_use]
    pub fn new(directory: PathBuf) -> Self {
        Self { path: directory.join(LEDGER), directory, remembered: Mutex::default() }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// What is stored; `None` when nothing is.
    pub(super) fn read(&self) -> Result<Option<Stored>, StoreError> {
        self.read_at(clock::now())
    }

    /// Reads and parses only what was written since it was last read.
    pub(super) fn read_at(&self, now: Timestamp) -> Result<Option<Stored>, StoreError> {
        let failed = |source| self.failed("read", &self.path, source);
        let mut file = match File::open(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(failed(source)),
        };
        let face = Face::of(&file.metadata().map_err(failed)?);
        if let Some(remembered) = self.remembered().as_ref().filter(|remembered| remembered.face == face) {
            return Ok(Some(remembered.stored.clone()));
        }
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(failed)?;
        let stored = self.parse(&bytes)?;
        let remember = stored.note.is_none() && face.is_settled(now);
        *self.remembered() = remember.then(|| Remembered { face, stored: stored.clone() });
        Ok(Some(stored))
    }

    fn parse(&self, bytes: &[u8]) -> Result<Stored, StoreError> {
        let revision = Some(Revision(sha256_hex(bytes)));
        let invalid = match Ledger::parse(bytes) {
            Ok(ledger) => return Ok(Stored { ledger: Arc::new(ledger), revision, note: None }),
            Err(invalid) => invalid,
        };
        if matches!(invalid, InvalidLedger::Damaged(_))
            && let Some(Ok(ledger)) = self.bytes(PREVIOUS)?.map(|bytes| Ledger::parse(&bytes))
        {
            let note = Some("the ledger was damaged, the version before it is used");
            return Ok(Stored { ledger: Arc::new(ledger), revision, note });
        }
        Err(StoreError::Invalid { path: self.path.display().to_string(), source: invalid })
    }

    /// Writes the ledger if the file still is what was read: `None` when there was none.
    pub(super) fn write(&self, json: &[u8], expected: Option<&Revision>) -> Result<Revision, StoreError> {
        fs::create_dir_all(&self.directory)
            .map_err(|source| self.failed("create", &self.directory, source))?;
        let lock = self.open_lock("ledger.lock")?;
        flock(&lock, FlockOperation::LockExclusive)
            .map_err(|error| self.failed("lock", &self.directory, error.into()))?;
        let present = self.bytes(LEDGER)?;
        if present.as_deref().map(|bytes| Revision(sha256_hex(bytes))).as_ref() != expected {
            return Err(StoreError::Changed);
        }
        if let Some(bytes) = present.filter(|bytes| Ledger::parse(bytes).is_ok()) {
            self.replace(PREVIOUS, &bytes)?;
        }
        self.replace(LEDGER, json)?;
        Ok(Revision(sha256_hex(json)))
    }

    fn remembered(&self) -> MutexGuard<'_, Option<Remembered>> {
        self.remembered.lock().expect("nobody panics while holding it")
    }

    fn bytes(&self, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
        let path = self.directory.join(name);
        match fs::read(&path) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(self.failed("read", &path, source)),
        }
    }

    fn replace(&self, name: &str, bytes: &[u8]) -> Result<(), StoreError> {
        let (path, staged) = (self.directory.join(name), self.directory.join(format!(".{name}.new")));
        let write = || {
            let mut file = File::create(&staged)?;
            file.write_all(bytes)?;
            file.sync_all()?;
            fs::rename(&staged, &path)?;
            File::open(&self.directory)?.sync_all()
        };
        write().map_err(|source| self.failed("write", &path, source))
    }

    fn open_lock(&self, name: &str) -> Result<File, StoreError> {
        let path = self.directory.join(name);
        open_lock(&path).map_err(|source| self.failed("open", &path, source))
    }

    #[expect(clippy::unused_self, reason = "reads as part of the store at every call")]
    fn failed(&self, action: &'static str, path: &Path, source: io::Error) -> StoreError {
        StoreError::Io { action, path: path.display().to_string(), source }
    }
}

/// Reads every ledger below a directory, sorted by issuer. Blocks.
///
/// # Errors
///
/// Fails when one of them cannot be read; that there is no such directory is no error.
pub fn read_all(directory: &Path) -> Result<Vec<Ledger>, StoreError> {
    let failed = |source| StoreError::Io { action: "read", path: directory.display().to_string(), source };
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed(error)),
    };
    let mut ledgers = Vec::new();
    for entry in entries {
        let stored = FileStore::new(entry.map_err(failed)?.path()).read()?;
        ledgers.extend(stored.map(|stored| Arc::unwrap_or_clone(stored.ledger)));
    }
    ledgers.sort_by(|a, b| a.issuer().cmp(b.issuer()));
    Ok(ledgers)
}

fn open_lock(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).truncate(false).write(true).open(path)
}

/// Whether a process ever held this data directory.
#[must_use]
pub fn was_held(directory: &Path) -> bool {
    directory.join(SERVICE_LOCK).exists()
}

/// Takes a data directory for this process until the returned file is dropped.
///
/// # Errors
///
/// Fails when another process holds it, and when it cannot be created.
pub fn hold_directory(directory: &Path) -> Result<File, DirectoryInUse> {
    let failed = |source| DirectoryInUse::Io { path: directory.display().to_string(), source };
    fs::create_dir_all(directory).map_err(failed)?;
    let lock = open_lock(&directory.join(SERVICE_LOCK)).map_err(failed)?;
    match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(lock),
        Err(error) if error == rustix::io::Errno::WOULDBLOCK => {
            Err(DirectoryInUse::Held { path: directory.display().to_string() })
        }
        Err(error) => Err(failed(error.into())),
    }
}

/// The data directory cannot be taken.
#[derive(Debug, thiserror::Error)]
pub enum DirectoryInUse {
    #[error("another signpost runs on data directory `{path}`")]
    Held { path: String },
    #[error("cannot use data directory `{path}`")]
    Io { path: String, source: io::Error },
}

impl DirectoryInUse {
    /// What the operator can do.
    #[must_use]
    pub fn hint(&self) -> String {
        match self {
            Self::Held { .. } => "stop it first, or pass another `--data-dir`",
            Self::Io { .. } => "make it writable for this user, or pass another `--data-dir`",
        }
        .to_owned()
    }
}
