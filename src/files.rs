//! Reads files from untrusted paths, and writes files atomically.
//!
//! A name in a directory that others may write can be an endless pipe, a device, or a link to a file of
//! another user. So only regular files are read, up to a size; and a file is written under an unpredictable
//! name before it is renamed. Everything here blocks as long as the disk does, and no longer.

use std::{
    ffi::{OsStr, OsString},
    fs::{self, DirBuilder, File, Permissions},
    io::{self, Read, Write as _},
    os::{
        fd::AsRawFd as _,
        unix::{
            fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _, chown},
            net::UnixListener,
        },
    },
    path::{Path, PathBuf},
};

use rustix::{
    fs::{AtFlags, Mode, OFlags, mkdirat, open, openat, renameat, unlinkat},
    process::geteuid,
};

use crate::clock;

/// Mode of a file that only its owner may read.
pub const PRIVATE_FILE: u32 = 0o600;
/// Mode of a directory that only its owner may read.
pub const PRIVATE_DIRECTORY: u32 = 0o700;
/// Mode of a file that everybody may read.
pub const PUBLIC_FILE: u32 = 0o644;
/// Mode of a directory that everybody may read.
pub const PUBLIC_DIRECTORY: u32 = 0o755;

/// Prefix and suffix of temporary files.
const STAGED: (&str, &str) = (".signpost-", ".tmp");
/// Name of a socket until it is in its place.
const SOCKET: &str = "socket";
/// Age in seconds from which a file that was being written counts as left behind by a crash.
const LEFT_BEHIND: i64 = 3600;
/// Most directory entries that are checked for such files.
const MAX_LOOKED_AT: usize = 10_000;

/// Opens a regular file, through symbolic links.
///
/// # Errors
///
/// Fails when it cannot be opened, and when it is not a regular file: pipes and devices are never opened.
pub fn open_regular(path: &Path) -> io::Result<File> {
    open_with(path, OFlags::empty())
}

/// Reads a regular file, through symbolic links.
///
/// # Errors
///
/// Fails as [`open_regular`] does, and with [`io::ErrorKind::FileTooLarge`] when it has more than `limit`
/// bytes.
pub fn read(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    up_to(open_regular(path)?, limit)
}

/// Reads a regular file without following a symbolic link, for directories that others may write.
///
/// # Errors
///
/// Fails as [`read`] does, and when the path is a symbolic link.
pub fn read_no_follow(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    up_to(open_with(path, OFlags::NOFOLLOW)?, limit)
}

/// Reads a file that the operator names, which may be a pipe, such as `/dev/stdin`.
///
/// # Errors
///
/// Fails when it cannot be read, and with [`io::ErrorKind::FileTooLarge`] when there are more than `limit`
/// bytes.
pub fn read_stream(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    up_to(File::open(path)?, limit)
}

fn open_with(path: &Path, links: OFlags) -> io::Result<File> {
    // Checks before opening: opening a device may have side effects.
    let found = File::from(open(path, OFlags::PATH | OFlags::CLOEXEC | links, Mode::empty())?);
    must_be_regular(&found)?;
    // A lease on the file would block the open.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    Ok(open(format!("/proc/self/fd/{}", found.as_raw_fd()), flags, Mode::empty())?.into())
}

fn must_be_regular(file: &File) -> io::Result<()> {
    let kind = file.metadata()?.file_type();
    if kind.is_file() {
        return Ok(());
    }
    let (error, found) = if kind.is_dir() {
        (io::ErrorKind::IsADirectory, "a directory")
    } else if kind.is_symlink() {
        (io::ErrorKind::Other, "a symbolic link")
    } else {
        (io::ErrorKind::Other, "a pipe, a socket or a device")
    };
    Err(io::Error::new(error, format!("{found}, expected a regular file")))
}

/// Reads to the end.
///
/// # Errors
///
/// Fails when it cannot be read, and with [`io::ErrorKind::FileTooLarge`] when there are more than `limit`
/// bytes.
pub fn up_to(reader: impl Read, limit: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    reader.take(limit.saturating_add(1)).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit {
        let text = format!("it has more than {limit} bytes");
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, text));
    }
    Ok(bytes)
}

/// A complete temporary file on disk, which is removed unless it is committed.
#[derive(Debug)]
pub struct Staged {
    directory: File,
    temporary: OsString,
    name: OsString,
}

impl Staged {
    /// Writes a temporary file beside `path`, with this mode whatever the umask.
    ///
    /// # Errors
    ///
    /// Fails when there is no such directory, and when the file cannot be written. No file is left then.
    pub fn write(path: &Path, bytes: &[u8], mode: u32) -> io::Result<Self> {
        let name = path.file_name().ok_or(io::ErrorKind::InvalidFilename)?.to_owned();
        remove_left_behind(parent(path));
        let directory = open_directory(parent(path), OFlags::empty())?;
        let temporary = staged_name()?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut file = File::from(openat(&directory, &temporary, flags, Mode::from_raw_mode(PRIVATE_FILE))?);
        let staged = Self { directory, temporary: temporary.into(), name };
        file.write_all(bytes)?;
        file.set_permissions(Permissions::from_mode(mode))?;
        file.sync_all()?;
        Ok(staged)
    }

    /// Renames the file to its path, durably. A symbolic link there is replaced, not followed.
    ///
    /// # Errors
    ///
    /// Fails when the path is something that no file can replace, and when the rename cannot be synced to
    /// disk.
    pub fn commit(self) -> io::Result<()> {
        renameat(&self.directory, &self.temporary, &self.directory, &self.name)?;
        self.directory.sync_all()
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        // After a commit it does not exist.
        let _ = unlinkat(&self.directory, &self.temporary, AtFlags::empty());
    }
}

/// Creates or replaces a file in an existing directory, atomically and durably.
///
/// # Errors
///
/// Fails as [`Staged::write`] and [`Staged::commit`] do.
pub fn replace(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    Staged::write(path, bytes, mode)?.commit()
}

/// Removes a file durably; returns whether there was one.
///
/// # Errors
///
/// Fails when it cannot be removed, and when the removal cannot be synced to disk.
pub fn remove(path: &Path) -> io::Result<bool> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        removed => {
            removed?;
            open_directory(parent(path), OFlags::empty())?.sync_all()?;
            Ok(true)
        }
    }
}

/// Renames the entry at a path, within its directory.
///
/// # Errors
///
/// Fails when it cannot be renamed.
pub fn move_aside(path: &Path) -> io::Result<()> {
    fs::rename(path, path.with_file_name(staged_name()?))
}

/// Removes temporary files left over from a crash, as far as possible.
fn remove_left_behind(directory: &Path) {
    let Ok(entries) = fs::read_dir(directory) else { return };
    let is_staged = |name: &OsStr| {
        let name = name.as_encoded_bytes();
        name.starts_with(STAGED.0.as_bytes()) && name.ends_with(STAGED.1.as_bytes())
    };
    for entry in entries.take(MAX_LOOKED_AT).flatten().filter(|entry| is_staged(&entry.file_name())) {
        let modified = entry.metadata().map(|metadata| metadata.mtime());
        if modified.is_ok_and(|modified| clock::now().as_second().saturating_sub(modified) > LEFT_BEHIND) {
            // A socket is made in a directory of its own.
            let _ = fs::remove_file(entry.path().join(SOCKET)).or_else(|_| fs::remove_file(entry.path()));
            let _ = fs::remove_dir(entry.path());
        }
    }
}

/// Creates a directory and its missing parents, with this mode whatever the umask. An existing one is not
/// changed.
///
/// # Errors
///
/// Fails when it cannot be created.
pub fn create_directory(path: &Path, mode: u32) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    let above = parent(path);
    if path.parent().is_some() {
        create_directory(above, mode)?;
    }
    match DirBuilder::new().mode(mode).create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
        made => {
            made?;
            open_directory(path, OFlags::NOFOLLOW)?.set_permissions(Permissions::from_mode(mode))?;
            // A parent that we may not read is synced by its owner.
            File::open(above).map_or(Ok(()), |above| above.sync_all())
        }
    }
}

/// Opens a file for locking, and creates it when it is missing.
///
/// # Errors
///
/// Fails when it cannot be opened, and when the path is something else: a link, a pipe.
pub fn open_lock(path: &Path, mode: u32) -> io::Result<File> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let lock = open(path, flags, Mode::from_raw_mode(mode)).map(File::from).map_err(|error| match error {
        rustix::io::Errno::LOOP => io::Error::other("a symbolic link, expected a regular file"),
        error => error.into(),
    })?;
    must_be_regular(&lock)?;
    let metadata = lock.metadata()?;
    if metadata.uid() == geteuid().as_raw() && metadata.mode() & 0o777 != mode {
        lock.set_permissions(Permissions::from_mode(mode))?;
    }
    Ok(lock)
}

/// Listens at a path, replacing an existing file, and returns the inode of the socket. It appears with its
/// mode and group: until then it is in a private directory, where no other user can replace it.
///
/// # Errors
///
/// Fails when the directory is missing or cannot be written, and when the group cannot be set.
pub fn bind_socket(path: &Path, mode: u32, gid: Option<u32>) -> io::Result<(UnixListener, u64)> {
    let name = path.file_name().ok_or(io::ErrorKind::InvalidFilename)?;
    remove_left_behind(parent(path));
    let directory = open_directory(parent(path), OFlags::empty())?;
    let private_name = staged_name()?;
    mkdirat(&directory, &private_name, Mode::from_raw_mode(PRIVATE_DIRECTORY))?;
    let bind = || {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let private = File::from(openat(&directory, &private_name, flags, Mode::empty())?);
        private.set_permissions(Permissions::from_mode(PRIVATE_DIRECTORY))?;
        // The path of a socket is limited to 108 bytes (unix(7)).
        let staged = PathBuf::from(format!("/proc/self/fd/{}/{SOCKET}", private.as_raw_fd()));
        let bind = || {
            let listener = UnixListener::bind(&staged)?;
            fs::set_permissions(&staged, Permissions::from_mode(mode))?;
            chown(&staged, None, gid)?;
            let inode = fs::symlink_metadata(&staged)?.ino();
            renameat(&private, SOCKET, &directory, name)?;
            Ok((listener, inode))
        };
        bind().inspect_err(|_| {
            let _ = unlinkat(&private, SOCKET, AtFlags::empty());
        })
    };
    let bound = bind();
    let _ = unlinkat(&directory, &private_name, AtFlags::REMOVEDIR);
    bound
}

/// An unpredictable name.
fn staged_name() -> io::Result<String> {
    let mut random = [0; 8];
    openssl::rand::rand_bytes(&mut random)?;
    Ok(format!("{}{:016x}{}", STAGED.0, u64::from_be_bytes(random), STAGED.1))
}

fn open_directory(path: &Path, links: OFlags) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | links;
    Ok(open(path, flags, Mode::empty())?.into())
}

fn parent(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."))
}

#[cfg(test)]
mod tests;
