//! Keeps a ledger in a file: locked for the comparison, written to a temporary file, synced, renamed.
//!
//! The previous version is kept as `ledger.previous.json`: a file system that loses a synced rename, or an
//! operator who truncates the file, then costs one change and not the ledger.

use std::{
    collections::BTreeMap,
    fs::{self, File, Metadata},
    io::{self, Read as _},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use jiff::{SignedDuration, Timestamp};

use super::{LedgerLocation, Revision, StoreError, Stored, is_worth_keeping};
use crate::{
    blocking, clock,
    core::{
        jose::{publication::sha256_hex, stored::InvalidDocument},
        ledger::{Ledger, Lineage, StoredLedger},
        text::Hint,
    },
    files,
};

const LEDGER: &str = "ledger.json";
const SERVICE_LOCK: &str = "signpost.lock";
const PREVIOUS: &str = "ledger.previous.json";
const LOCK: &str = "ledger.lock";
/// Longest wait for another writer, which holds the lock for a few milliseconds.
const LOCK_WAIT: Duration = Duration::from_secs(5);
/// Largest ledger, in bytes: a thousand times that of an issuer with a hundred keys.
const MAX_SIZE: u64 = 64 * 1024 * 1024;

/// Age at which a file counts as settled: any later write gives it another time, because the time resolution
/// of file systems is finer.
const MIN_SETTLED_AGE: SignedDuration = SignedDuration::from_secs(2);

/// The directory that holds the ledger of one issuer.
#[derive(Debug)]
pub struct FileStore {
    directory: PathBuf,
    /// The directories of its previous issuers.
    previous: Vec<PathBuf>,
    /// The last parsed contents of a settled file. Only reads use it: a write compares the bytes.
    remembered: Mutex<Option<Remembered>>,
}

#[derive(Debug)]
struct Remembered {
    face: FileMetadata,
    stored: Stored,
}

/// The metadata of a file; every write changes some of it, in place or by a rename.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct FileMetadata {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    /// The change time, which programs cannot set, so that even a restored modification time hides no write.
    changed: (i64, i64),
}

impl FileMetadata {
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
        Timestamp::from_second(self.changed.0)
            .is_ok_and(|changed| now.duration_since(changed) > MIN_SETTLED_AGE)
    }
}

impl FileStore {
    /// Uses a directory, which the first write creates. A ledger that exists only in one of the
    /// `previous_issuers` directories is read there, and written here.
    #[must_use]
    pub fn new(directory: PathBuf, previous: Vec<PathBuf>) -> Self {
        Self { directory, previous, remembered: Mutex::default() }
    }

    pub(super) fn at(&self) -> LedgerLocation {
        LedgerLocation::File(self.directory.join(LEDGER))
    }

    pub(super) fn directory_at(&self) -> LedgerLocation {
        LedgerLocation::File(self.directory.clone())
    }

    pub(super) fn previous_at(&self) -> LedgerLocation {
        LedgerLocation::File(self.directory.join(PREVIOUS))
    }

    /// The version before the stored one.
    pub(super) fn previous(&self) -> Result<Option<Ledger>, StoreError> {
        Ok(bytes(&self.directory, PREVIOUS)?.and_then(|bytes| Ledger::parse(&bytes).ok()))
    }

    /// The stored ledger. A previous issuer's ledger of the same lineage with a later sequence takes
    /// precedence: the issuer may have been moved, and moved back.
    pub(super) fn read(&self) -> Result<Stored, StoreError> {
        self.read_at(clock::now())
    }

    /// Reads and parses the file only if it has changed since the last read.
    pub(super) fn read_at(&self, now: Timestamp) -> Result<Stored, StoreError> {
        let Stored { found: mut newest, revision } = self.own(now)?;
        for directory in &self.previous {
            let StoredLedger::Ledger(other) = find(directory, bytes(directory, LEDGER)?)? else { continue };
            let counts = match &newest {
                StoredLedger::Nothing => true,
                StoredLedger::Ledger(own) => {
                    own.lineage() == other.lineage() && own.sequence() < other.sequence()
                }
                StoredLedger::Previous(_) | StoredLedger::Damaged(_) => false,
            };
            if counts {
                newest = StoredLedger::Ledger(other);
            }
        }
        Ok(Stored { found: newest, revision })
    }

    /// The ledger in the issuer's own directory.
    fn own(&self, now: Timestamp) -> Result<Stored, StoreError> {
        let path = self.directory.join(LEDGER);
        let failed = |source| StoreError::Io { action: "read", path: shown(&path), source };
        let file = match files::open_regular(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Ok(Stored { found: find(&self.directory, None)?, revision: None });
            }
            Err(source) => return Err(failed(source)),
        };
        let face = FileMetadata::of(&file.metadata().map_err(failed)?);
        if let Some(remembered) = self.remembered().as_ref().filter(|remembered| remembered.face == face) {
            return Ok(remembered.stored.clone());
        }
        let mut bytes = Vec::new();
        file.take(MAX_SIZE).read_to_end(&mut bytes).map_err(failed)?;
        let revision = Some(Revision::File(sha256_hex(&bytes)));
        let stored = Stored { found: find(&self.directory, Some(bytes))?, revision };
        let remember = matches!(stored.found, StoredLedger::Ledger(_)) && face.is_settled(now);
        *self.remembered() = remember.then(|| Remembered { face, stored: stored.clone() });
        Ok(stored)
    }

    fn remembered(&self) -> MutexGuard<'_, Option<Remembered>> {
        self.remembered.lock().expect("nobody panics while holding it")
    }

    /// Runs file operations on a thread that may block.
    pub(super) async fn at_work<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Self) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let this = Arc::clone(self);
        let done = blocking::at(&self.directory, move || work(&this)).await;
        done.unwrap_or_else(|error| {
            Err(StoreError::Io { action: "reach", path: shown(&self.directory), source: error.into() })
        })
    }

    /// Writes the ledger if the file still has the `expected` SHA-256; `None`: if there is no file.
    pub(super) fn write(&self, json: &[u8], expected: Option<&String>) -> Result<(), StoreError> {
        let _lock = self.lock()?;
        let present = bytes(&self.directory, LEDGER)?;
        if present.as_deref().map(sha256_hex).as_ref() != expected {
            return Err(StoreError::Changed { at: self.at() });
        }
        self.replace_both(present, json)
    }

    /// Keeps a copy of a remote ledger, unless a later one is kept already.
    pub(super) fn write_copy(&self, ledger: &Ledger) -> Result<(), StoreError> {
        let json = ledger.to_json();
        let is_kept = |present: Option<&[u8]>| {
            let known = present.and_then(|bytes| Ledger::parse(bytes).ok());
            let is_later =
                |known: Ledger| known.lineage() == ledger.lineage() && known.sequence() > ledger.sequence();
            present == Some(&json) || known.is_some_and(is_later)
        };
        if ledger.sequence() == 0 || is_kept(bytes(&self.directory, LEDGER)?.as_deref()) {
            return Ok(());
        }
        let _lock = self.lock()?;
        let present = bytes(&self.directory, LEDGER)?;
        if is_kept(present.as_deref()) { Ok(()) } else { self.replace_both(present, &json) }
    }

    fn lock(&self) -> Result<File, StoreError> {
        let failed = |source| StoreError::Io { action: "create", path: shown(&self.directory), source };
        files::create_directory(&self.directory, files::PRIVATE_DIRECTORY).map_err(failed)?;
        let path = self.directory.join(LOCK);
        let failed = |source| StoreError::Io { action: "lock", path: shown(&path), source };
        blocking::lock(&path, files::PRIVATE_FILE, LOCK_WAIT).map_err(failed)
    }

    fn replace_both(&self, present: Option<Vec<u8>>, json: &[u8]) -> Result<(), StoreError> {
        if let Some(bytes) = present.filter(|present| is_worth_keeping(present, json)) {
            self.replace(PREVIOUS, &bytes)?;
        }
        self.replace(LEDGER, json)
    }

    fn replace(&self, name: &str, bytes: &[u8]) -> Result<(), StoreError> {
        let path = self.directory.join(name);
        files::replace(&path, bytes, files::PRIVATE_FILE).map_err(|source| StoreError::Io {
            action: "write",
            path: shown(&path),
            source,
        })
    }
}

fn bytes(directory: &Path, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
    let path = directory.join(name);
    match files::read(&path, MAX_SIZE) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(StoreError::Io { action: "read", path: shown(&path), source }),
    }
}

/// The ledger in one directory; `present` is the content of its file.
fn find(directory: &Path, present: Option<Vec<u8>>) -> Result<StoredLedger, StoreError> {
    let parsed = present.map(|bytes| Ledger::parse(&bytes));
    let otherwise = match parsed {
        Some(Ok(ledger)) => return Ok(StoredLedger::Ledger(Arc::new(ledger))),
        Some(Err(source @ InvalidDocument::Newer { .. })) => {
            return Err(StoreError::Invalid { at: LedgerLocation::File(directory.join(LEDGER)), source });
        }
        Some(Err(damaged)) => StoredLedger::Damaged(damaged),
        None => StoredLedger::Nothing,
    };
    let previous = bytes(directory, PREVIOUS)?.and_then(|bytes| Ledger::parse(&bytes).ok());
    Ok(previous.map_or(otherwise, |ledger| StoredLedger::Previous(Arc::new(ledger))))
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}

/// Reads every ledger below a directory, sorted by issuer; of one lineage only the newest, because a moved
/// issuer leaves the others behind. Unreadable ledgers are returned as errors beside the others. Blocks.
///
/// # Errors
///
/// Fails when the directory cannot be read; a missing directory is no error.
pub fn read_all(directory: &Path) -> Result<(Vec<Ledger>, Vec<StoreError>), StoreError> {
    let failed = |source| StoreError::Io { action: "read", path: shown(directory), source };
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Default::default()),
        Err(error) => return Err(failed(error)),
    };
    let mut newest: BTreeMap<Lineage, Ledger> = BTreeMap::new();
    let mut unusable = Vec::new();
    for entry in entries {
        let directory = entry.map_err(failed)?.path();
        let ledger = match bytes(&directory, LEDGER).and_then(|present| find(&directory, present)) {
            Ok(StoredLedger::Ledger(ledger) | StoredLedger::Previous(ledger)) => Arc::unwrap_or_clone(ledger),
            Ok(StoredLedger::Damaged(source)) => {
                unusable
                    .push(StoreError::Invalid { at: LedgerLocation::File(directory.join(LEDGER)), source });
                continue;
            }
            Ok(StoredLedger::Nothing) => continue,
            Err(error) => {
                unusable.push(error);
                continue;
            }
        };
        match newest.get(ledger.lineage()) {
            Some(other) if other.sequence() >= ledger.sequence() => {}
            _ => {
                newest.insert(ledger.lineage().clone(), ledger);
            }
        }
    }
    let mut ledgers: Vec<Ledger> = newest.into_values().collect();
    ledgers.sort_by(|a, b| a.issuer().cmp(b.issuer()));
    Ok((ledgers, unusable))
}

/// Whether a process has ever locked this data directory.
#[must_use]
pub fn was_locked(directory: &Path) -> bool {
    directory.join(SERVICE_LOCK).exists()
}

/// Locks a data directory for this process until the returned file is dropped.
///
/// # Errors
///
/// Fails when another process holds it, and when it cannot be created.
pub fn lock_directory(directory: &Path) -> Result<File, DirectoryInUse> {
    let failed = |source| DirectoryInUse::Io { path: shown(directory), source };
    files::create_directory(directory, files::PRIVATE_DIRECTORY).map_err(failed)?;
    let path = directory.join(SERVICE_LOCK);
    blocking::lock(&path, files::PRIVATE_FILE, Duration::ZERO).map_err(|source| match source.kind() {
        io::ErrorKind::WouldBlock => DirectoryInUse::Held { path: shown(directory) },
        _ => DirectoryInUse::Lock { path: shown(&path), source },
    })
}

/// The data directory cannot be locked.
#[derive(Debug, thiserror::Error)]
pub enum DirectoryInUse {
    #[error("another signpost runs on data directory `{path}`")]
    Held { path: String },
    #[error("cannot use data directory `{path}`")]
    Io { path: String, source: io::Error },
    #[error("cannot lock `{path}`")]
    Lock { path: String, source: io::Error },
}

impl Hint for DirectoryInUse {
    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Held { .. } => "stop it first, or pass another `--data-dir`".to_owned(),
            Self::Io { path, source } | Self::Lock { path, source } => match source.kind() {
                io::ErrorKind::TimedOut => format!("check what `{path}` is mounted from"),
                io::ErrorKind::Other => format!("remove `{path}`: Signpost creates it again"),
                _ => "make it writable for this user, or pass another `--data-dir`".to_owned(),
            },
        })
    }
}
