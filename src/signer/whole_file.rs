//! Public files that are there whole, and to stay.

use std::{
    fs::{self, File, OpenOptions, Permissions},
    io::{self, Write as _},
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::Path,
};

/// Replaces a file of a directory that is there. Of an attempt that fails nothing stays.
///
/// # Errors
///
/// Fails when it cannot be written, or not be synced to disk.
pub(super) fn write(directory: &Path, name: &str, bytes: &[u8], mode: u32) -> io::Result<()> {
    let unfinished = directory.join(format!(".{name}.tmp"));
    let write = || {
        let mut options = OpenOptions::new();
        let mut file = options.write(true).create(true).truncate(true).mode(mode).open(&unfinished)?;
        file.set_permissions(Permissions::from_mode(mode))?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&unfinished, directory.join(name))?;
        File::open(directory)?.sync_all()
    };
    write().inspect_err(|_| {
        let _ = fs::remove_file(&unfinished);
    })
}
