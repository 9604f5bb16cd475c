//! The unix socket of a signer, and who may speak through it.

use std::{
    collections::BTreeSet,
    fmt, fs, io,
    os::{
        linux::net::SocketAddrExt as _,
        unix::{
            fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _, chown},
            net::{SocketAddr, UnixListener as Blocking, UnixStream as Connection},
        },
    },
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use futures_util::{Stream, stream::unfold};
use rustix::process::geteuid;
use tokio::{
    net::{UnixListener, UnixStream},
    time::sleep,
};
use tracing::warn;

use crate::{core::signing::SocketName, telemetry::signing::Meter};

/// Time until the next attempt when a connection cannot be taken, such as for want of file descriptors.
const PAUSE: Duration = Duration::from_millis(100);

/// Who may connect, besides root and our own user.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Access {
    /// Mode of the socket's file.
    pub mode: u32,
    /// Group of the socket's file; its members may connect.
    pub gid: Option<u32>,
    pub uids: BTreeSet<u32>,
}

impl Access {
    fn allows(&self, uid: u32, gid: u32) -> bool {
        uid == 0 || uid == geteuid().as_raw() || self.uids.contains(&uid) || self.gid == Some(gid)
    }
}

/// A socket that listens. Its file is removed when it is dropped.
pub struct Socket {
    listener: UnixListener,
    access: Access,
    file: Option<Bound>,
}

/// The file that we made: another one in its place is not ours.
struct Bound {
    path: PathBuf,
    inode: u64,
}

impl Socket {
    /// Listens, in the place of a socket that nobody answers at.
    ///
    /// # Errors
    ///
    /// Fails when somebody does, and when the place cannot be used.
    pub fn bind(name: &SocketName, access: Access) -> Result<Self, SocketError> {
        let failed = |action| move |source| SocketError::Io { action, name: name.clone(), source };
        let (listener, file) = match name {
            SocketName::Abstract(text) => {
                let address = SocketAddr::from_abstract_name(text).map_err(failed("name"))?;
                let listener = Blocking::bind_addr(&address).map_err(|source| match source.kind() {
                    io::ErrorKind::AddrInUse => SocketError::Taken { name: name.clone() },
                    _ => failed("listen at")(source),
                })?;
                (listener, None)
            }
            SocketName::File(path) => {
                clear(path, name)?;
                // It appears with its mode and group, and takes the place of a stale one in one step.
                let unfinished = beside(path);
                let bind = || {
                    let _ = fs::remove_file(&unfinished);
                    let listener = Blocking::bind(&unfinished)?;
                    fs::set_permissions(&unfinished, fs::Permissions::from_mode(access.mode))?;
                    chown(&unfinished, None, access.gid)?;
                    let inode = fs::symlink_metadata(&unfinished)?.ino();
                    fs::rename(&unfinished, path)?;
                    Ok((listener, Some(Bound { path: path.clone(), inode })))
                };
                bind().map_err(|source| {
                    let _ = fs::remove_file(&unfinished);
                    failed("listen at")(source)
                })?
            }
        };
        listener.set_nonblocking(true).map_err(failed("listen at"))?;
        let listener = UnixListener::from_std(listener).map_err(failed("listen at"))?;
        Ok(Self { listener, access, file })
    }

    /// Connections of those who may, for ever. Others are closed without a word.
    pub(super) fn connections(self, meter: Arc<Meter>) -> impl Stream<Item = io::Result<UnixStream>> {
        // A stranger that tries on is told of once.
        let told = BTreeSet::new();
        unfold((self, meter, told), async |(socket, meter, mut told)| {
            loop {
                let accepted = socket.listener.accept().await;
                match accepted.and_then(|(stream, _)| Ok((stream.peer_cred()?, stream))) {
                    Ok((peer, stream)) if socket.access.allows(peer.uid(), peer.gid()) => {
                        return Some((Ok(stream), (socket, meter, told)));
                    }
                    Ok((peer, _)) => {
                        meter.turned_away();
                        if told.insert(peer.uid()) {
                            warn!(uid = peer.uid(), gid = peer.gid(), "a stranger may not use the signer");
                        }
                    }
                    Err(_) => sleep(PAUSE).await,
                }
            }
        })
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        if let Some(Bound { path, inode }) = &self.file
            && fs::symlink_metadata(path).is_ok_and(|present| present.ino() == *inode)
        {
            let _ = fs::remove_file(path);
        }
    }
}

/// Makes sure that nobody needs what is in the way.
fn clear(path: &Path, name: &SocketName) -> Result<(), SocketError> {
    let Ok(present) = fs::symlink_metadata(path) else { return Ok(()) };
    if !present.file_type().is_socket() {
        return Err(SocketError::NoSocket { name: name.clone() });
    }
    match Connection::connect(path) {
        Ok(_) => Err(SocketError::Taken { name: name.clone() }),
        Err(_) => Ok(()),
    }
}

fn beside(path: &Path) -> PathBuf {
    let mut name = std::ffi::OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(".tmp");
    path.with_file_name(name)
}

/// There is no socket to listen at.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    #[error("another process answers at socket `{name}`")]
    Taken { name: SocketName },
    #[error("`{name}` is no socket, and in the way of one")]
    NoSocket { name: SocketName },
    #[error("cannot {action} socket `{name}`")]
    Io { action: &'static str, name: SocketName, source: io::Error },
}

impl SocketError {
    /// What the operator can do.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Taken { .. } => Some("stop that signer first, or pass another `--socket`".to_owned()),
            Self::NoSocket { .. } => Some("move it away, or pass another `--socket`".to_owned()),
            Self::Io { source, .. } if source.kind() == io::ErrorKind::NotFound => {
                Some("create the directory of the socket first, for the signer alone to write".to_owned())
            }
            Self::Io { .. } => None,
        }
    }
}

impl fmt::Debug for Socket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Socket").field("access", &self.access).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
