//! The directory of the keyring: modes and owners.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use rustix::{
    fs::{FlockOperation, OFlags, flock},
    io::Errno,
    process::geteuid,
};
use zeroize::Zeroizing;

use super::KeyringError;
use crate::files;

/// Mode of a private key.
pub(super) const PRIVATE: u32 = files::PRIVATE_FILE;
/// Mode of a public key.
const PUBLIC: u32 = files::PUBLIC_FILE;
/// Mode of the directory.
const DIRECTORY: u32 = files::PRIVATE_DIRECTORY;
/// The permission bits that only the owner may have.
const OTHERS: u32 = 0o077;
/// Largest key file, in bytes: an RSA-16384 key takes a quarter of it.
const MAX_SIZE: usize = 64 * 1024;
/// Extension of a hidden temporary file.
const UNFINISHED: &str = "tmp";

/// Creates the directory and its parents if missing.
pub(super) fn create(path: &Path) -> Result<(), KeyringError> {
    files::create_directory(path, DIRECTORY).map_err(failed("create", path))
}

/// An open directory, locked against other processes until it is dropped.
#[derive(Debug)]
pub(super) struct Directory {
    path: PathBuf,
    handle: File,
}

impl Directory {
    /// Locks an existing directory until it is dropped, unless another process holds it.
    pub(super) fn hold(path: &Path) -> Result<Self, KeyringError> {
        let handle = File::open(path).map_err(failed("open", path))?;
        check(path, &handle, DIRECTORY)?;
        let directory = Self { path: path.to_owned(), handle };
        let locked = flock(&directory.handle, FlockOperation::NonBlockingLockExclusive);
        match locked {
            Err(Errno::WOULDBLOCK) => {
                Err(KeyringError::Held { path: path.to_owned(), holder: directory.holder() })
            }
            Err(error) => Err(failed("lock", path)(error.into())),
            Ok(()) => Ok(directory),
        }
    }

    /// The process that holds it, if the kernel tells (proc(5), `/proc/locks`).
    fn holder(&self) -> String {
        let find = || {
            let metadata = self.handle.metadata().ok()?;
            let (major, minor) = (rustix::fs::major(metadata.dev()), rustix::fs::minor(metadata.dev()));
            let file = format!("{major:02x}:{minor:02x}:{}", metadata.ino());
            let locks = fs::read_to_string("/proc/locks").ok()?;
            let words = locks.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
            let mut flocks = words.filter(|words| words.get(1) == Some(&"FLOCK"));
            let ours = flocks.find(|words| words.get(5) == Some(&file.as_str()))?;
            ours.get(4)?.parse::<u32>().ok()
        };
        find().map_or_else(|| "another process".to_owned(), |pid| format!("process {pid}"))
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Names of the files with an extension, sorted, without hidden files.
    pub(super) fn with_extension(&self, extension: &str) -> Result<Vec<String>, KeyringError> {
        let mut names = self.names()?;
        names.retain(|name| !name.starts_with('.') && has_extension(name, extension));
        names.sort();
        Ok(names)
    }

    /// Removes temporary files that a crash has left: one may be an unrecorded private key.
    pub(super) fn remove_unfinished(&self) -> Result<(), KeyringError> {
        for name in
            self.names()?.iter().filter(|name| name.starts_with('.') && has_extension(name, UNFINISHED))
        {
            let path = self.path.join(name);
            fs::remove_file(&path).map_err(failed("remove", &path))?;
        }
        Ok(())
    }

    /// Reads a file that only this user can have written; `None` if there is none.
    pub(super) fn read(&self, name: &str) -> Result<Option<Vec<u8>>, KeyringError> {
        let path = self.path.join(name);
        match fs::read(&path) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(failed("read", &path)(error)),
        }
    }

    /// Removes a file durably. A missing file is not an error.
    pub(super) fn remove(&self, name: &str) -> Result<(), KeyringError> {
        let path = self.path.join(name);
        files::remove(&path).map(drop).map_err(failed("remove", &path))
    }

    /// Writes a file atomically and durably.
    pub(super) fn write(&self, name: &str, bytes: &[u8], mode: u32) -> Result<(), KeyringError> {
        let path = self.path.join(name);
        files::replace(&path, bytes, mode).map_err(failed("write", &path))
    }

    /// Writes a public key unless the file has it already.
    pub(super) fn write_if_different(&self, name: &str, bytes: &[u8]) -> Result<(), KeyringError> {
        match fs::read(self.path.join(name)) {
            Ok(present) if present == bytes => Ok(()),
            _ => self.write(name, bytes, PUBLIC),
        }
    }

    fn names(&self) -> Result<Vec<String>, KeyringError> {
        let entries = fs::read_dir(&self.path).and_then(Iterator::collect::<io::Result<Vec<_>>>);
        let entries = entries.map_err(failed("read", &self.path))?;
        Ok(entries.into_iter().filter_map(|entry| entry.file_name().into_string().ok()).collect())
    }
}

/// Reads a private key that no other user can have read or written.
pub(super) fn read_private(path: &Path) -> Result<Zeroizing<Vec<u8>>, KeyringError> {
    // A symlink would lead out of the checked directory.
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed();
    let opened = OpenOptions::new().read(true).custom_flags(flags).open(path);
    read_checked(path, opened.map_err(failed("open", path))?)
}

/// Reads a private key from a file that the operator names; symlinks are followed.
pub(super) fn read_named(path: &Path) -> Result<Zeroizing<Vec<u8>>, KeyringError> {
    read_checked(path, files::open_regular(path).map_err(failed("open", path))?)
}

fn read_checked(path: &Path, file: File) -> Result<Zeroizing<Vec<u8>>, KeyringError> {
    // Mode and owner are those of the open file, so it cannot be exchanged after the check.
    check(path, &file, PRIVATE)?;
    let mut bytes = Zeroizing::new(Vec::with_capacity(MAX_SIZE));
    file.take(MAX_SIZE as u64).read_to_end(&mut bytes).map_err(failed("read", path))?;
    Ok(bytes)
}

/// Rejects a file that other users own or may access.
fn check(path: &Path, file: &File, expected: u32) -> Result<(), KeyringError> {
    let metadata = file.metadata().map_err(failed("inspect", path))?;
    let (owner, us) = (metadata.uid(), geteuid().as_raw());
    if owner != us {
        return Err(KeyringError::Owner { path: path.to_owned(), owner, expected: us });
    }
    let mode = metadata.mode() & 0o7777;
    if mode & OTHERS != 0 {
        return Err(KeyringError::Mode { path: path.to_owned(), mode, expected });
    }
    Ok(())
}

fn has_extension(name: &str, extension: &str) -> bool {
    Path::new(name).extension().is_some_and(|found| found == extension)
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> KeyringError {
    move |source| KeyringError::Io { action, path: path.to_owned(), source }
}
