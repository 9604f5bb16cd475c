//! The unix socket of a signer, and who may connect.
//!
//! The socket is bound in a directory of its own beside its path, given mode and group, and renamed: its mode
//! is never wider, and a stale socket, one that refuses connections, is replaced in one step. Once a second
//! its file is checked; a removed one is created again. At the end the file is removed only if it is still
//! ours.
//!
//! Peers are checked whatever the mode, because an abstract name has none: root, our own user, and the
//! configured users and group. Supplementary groups count. No safe binding has `SO_PEERGROUPS`, so for a file
//! that others may not write, the kernel's decision to let a peer connect proves membership; otherwise
//! `/proc/PID/status` does, if the process still belongs to the peer's user. Others are closed and logged
//! once.

mod connection;

use std::{
    collections::BTreeSet,
    fmt, fs, io,
    os::{
        linux::net::SocketAddrExt as _,
        unix::{
            fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _},
            net::{SocketAddr, UnixListener as Blocking, UnixStream as Stream},
        },
    },
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use futures_util::{Stream as Incoming, stream::unfold};
use rustix::process::geteuid;
use tokio::{
    net::{UnixListener, unix::UCred},
    select,
    time::{MissedTickBehavior, interval, sleep},
};
use tracing::{info, warn};

use self::connection::{Connection, ConnectionSlots};
use crate::{
    core::{signer::SocketName, text::Hint},
    files,
    telemetry::signer_metrics::SignerMetrics,
};

/// Wait after a failed accept, for example without free file descriptors.
const PAUSE: Duration = Duration::from_millis(100);
/// Time between two checks that the socket file is still there.
const EVERY: Duration = Duration::from_secs(1);

/// Who may connect, besides root and our own user.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Access {
    /// Mode of the socket file.
    pub mode: u32,
    /// Group of the socket file; its members may connect.
    pub gid: Option<u32>,
    pub uids: BTreeSet<u32>,
}

impl Access {
    fn allows(&self, uid: u32, gid: u32) -> bool {
        uid == 0 || uid == geteuid().as_raw() || self.uids.contains(&uid) || self.gid == Some(gid)
    }
}

/// A listening socket. Its file is removed when it is dropped.
pub struct Socket {
    name: SocketName,
    access: Access,
    bound: Bound,
}

struct Bound {
    listener: UnixListener,
    /// Its file, and the inode that we created: a file with another inode is not ours.
    file: Option<(PathBuf, u64)>,
}

impl Bound {
    /// Whether a client finds this socket.
    fn is_there(&self) -> bool {
        let Some((path, inode)) = &self.file else { return true };
        fs::symlink_metadata(path).is_ok_and(|present| present.ino() == *inode)
    }
}

impl Socket {
    /// Listens, and replaces a stale socket.
    ///
    /// # Errors
    ///
    /// Fails if a process answers at the socket, and if the path is unusable.
    pub fn bind(name: &SocketName, access: Access) -> Result<Self, SocketError> {
        Ok(Self { bound: bind(name, &access)?, name: name.clone(), access })
    }

    /// Accepts authorised connections; closes others. A connection that is silent for `idle` is closed.
    pub(super) fn connections(
        self,
        meter: Arc<SignerMetrics>,
        idle: Duration,
    ) -> impl Incoming<Item = io::Result<Connection>> {
        let mut look = interval(EVERY);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // Log each unauthorised UID once.
        let told = BTreeSet::new();
        unfold(
            (self, look, ConnectionSlots::default(), told),
            move |(mut socket, mut look, mut seats, mut told)| {
                let meter = Arc::clone(&meter);
                async move {
                    loop {
                        let accepted = select! {
                            accepted = socket.bound.listener.accept() => accepted,
                            _ = look.tick() => {
                                socket.stay_reachable(&meter);
                                continue;
                            }
                        };
                        match accepted.and_then(|(stream, _)| Ok((stream.peer_cred()?, stream))) {
                            Ok((peer, stream)) if socket.may_connect(peer) => {
                                let connection = seats.take(stream, idle);
                                return Some((Ok(connection), (socket, look, seats, told)));
                            }
                            Ok((peer, _)) => {
                                meter.record_unauthorized();
                                if told.insert(peer.uid()) {
                                    warn!(
                                        uid = peer.uid(),
                                        gid = peer.gid(),
                                        "unauthorized connection to the signer"
                                    );
                                }
                            }
                            Err(_) => sleep(PAUSE).await,
                        }
                    }
                }
            },
        )
    }

    /// Listens again if the socket file is gone: an API server that starts would wait for it in vain.
    fn stay_reachable(&mut self, meter: &SignerMetrics) {
        if self.bound.is_there() {
            meter.reachable(None);
            return;
        }
        match bind(&self.name, &self.access) {
            Ok(bound) => {
                self.bound = bound;
                meter.reachable(None);
                info!(socket = %self.name, "the socket file was missing and was restored");
            }
            Err(error) => {
                let hint = error.hint();
                let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}"));
                let text = format!("{error}{}", cause.unwrap_or_default());
                if meter.reachable(Some(text.clone())) {
                    warn!(
                        error = text,
                        hint, "the socket file is missing, API servers cannot connect to the signer"
                    );
                }
            }
        }
    }

    fn may_connect(&self, peer: UCred) -> bool {
        self.access.allows(peer.uid(), peer.gid())
            || self.access.gid.is_some_and(|gid| self.let_in_as_a_member(gid) || is_member(peer, gid))
    }

    /// Whether the kernel lets in only members of this group, supplementary ones included, and users that no
    /// mode stops: to connect requires write permission (unix(7)). Always false for a name without a file.
    fn let_in_as_a_member(&self, gid: u32) -> bool {
        let Some((path, inode)) = &self.bound.file else { return false };
        fs::symlink_metadata(path).is_ok_and(|present| {
            present.ino() == *inode && present.gid() == gid && present.permissions().mode() & 0o002 == 0
        })
    }
}

/// Whether a process has a supplementary group. It may have ended since it connected, and another process of
/// the same user may have its PID; that user could connect anyway. A process in another PID namespace is not
/// found.
fn is_member(peer: UCred, gid: u32) -> bool {
    let Some(pid) = peer.pid().filter(|pid| *pid > 0) else { return false };
    let Ok(status) = files::read(Path::new(&format!("/proc/{pid}/status")), 64 * 1024) else { return false };
    let status = String::from_utf8_lossy(&status);
    let numbers = |line: &str| {
        let line = status.lines().find_map(|found| found.strip_prefix(line));
        line.unwrap_or_default().split_whitespace().filter_map(|word| word.parse().ok()).collect::<Vec<u32>>()
    };
    let users = numbers("Uid:");
    !users.is_empty() && users.iter().all(|uid| *uid == peer.uid()) && numbers("Groups:").contains(&gid)
}

impl Drop for Bound {
    fn drop(&mut self) {
        if let Some((path, _)) = &self.file
            && self.is_there()
        {
            let _ = fs::remove_file(path);
        }
    }
}

fn bind(name: &SocketName, access: &Access) -> Result<Bound, SocketError> {
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
            let bound = files::bind_socket(path, access.mode, access.gid);
            let (listener, inode) = bound.map_err(failed("listen at"))?;
            (listener, Some((path.clone(), inode)))
        }
    };
    listener.set_nonblocking(true).map_err(failed("listen at"))?;
    let listener = UnixListener::from_std(listener).map_err(failed("listen at"))?;
    Ok(Bound { listener, file })
}

/// Whether a process accepts connections at a socket; `None` if that cannot be determined.
#[must_use]
pub fn listens(name: &SocketName) -> Option<bool> {
    let connected = match name {
        SocketName::Abstract(text) => {
            SocketAddr::from_abstract_name(text).and_then(|address| Stream::connect_addr(&address))
        }
        SocketName::File(path) => Stream::connect(path),
    };
    match connected.map_err(|error| error.kind()) {
        Ok(_) => Some(true),
        Err(io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => Some(false),
        Err(_) => None,
    }
}

/// Checks that nothing in use is at the path.
fn clear(path: &Path, name: &SocketName) -> Result<(), SocketError> {
    let Ok(present) = fs::symlink_metadata(path) else { return Ok(()) };
    if !present.file_type().is_socket() {
        return Err(SocketError::NoSocket { name: name.clone() });
    }
    match Stream::connect(path) {
        Ok(_) => Err(SocketError::Taken { name: name.clone() }),
        Err(_) => Ok(()),
    }
}

/// Why the socket cannot listen.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    #[error("another process listens on socket `{name}`")]
    Taken { name: SocketName },
    #[error("`{name}` exists and is not a socket")]
    NoSocket { name: SocketName },
    #[error("cannot {action} socket `{name}`")]
    Io { action: &'static str, name: SocketName, source: io::Error },
}

impl Hint for SocketError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Taken { .. } => Some("stop that signer first, or pass another `--socket`".to_owned()),
            Self::NoSocket { .. } => Some("move it away, or pass another `--socket`".to_owned()),
            Self::Io { source, .. } if source.kind() == io::ErrorKind::NotFound => {
                Some("create the directory of the socket first, writable only for the signer".to_owned())
            }
            Self::Io { name: SocketName::File(path), source, .. }
                if source.kind() == io::ErrorKind::PermissionDenied =>
            {
                let (directory, user) = (path.parent().unwrap_or(path).display(), geteuid().as_raw());
                Some(format!(
                    "let user ID {user} write to `{directory}` each time that the machine starts (`/run` is empty \
                     then): with `RuntimeDirectory=` or tmpfiles.d of systemd; or run the signer as root; or listen at \
                     a name that needs no directory, such as `--socket @signpost`"
                ))
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
