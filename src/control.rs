//! The control socket of a running service, in its data directory, for the operator of this machine.
//!
//! One line of JSON is the request, one the reply, and the connection ends. Only the user of the service and
//! root may connect: no other user can open the socket, and the kernel reports the peer's UID.

use std::{
    fs::{self, File},
    io,
    os::{fd::AsRawFd as _, unix::fs::OpenOptionsExt as _},
    path::{Path, PathBuf},
    time::Duration,
};

use rustix::process::geteuid;
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{UnixListener, UnixStream},
    select,
    task::JoinSet,
    time::timeout,
};
use tracing::{debug, warn};

use crate::{
    blocking,
    core::{ledger::RotationCommand, rotation::RotationStatus, text::Hint},
    files,
};

/// The name of the socket in a data directory.
const NAME: &str = "control.sock";
/// Largest line, in bytes: a report of a hundred keys for each of some thousand issuers.
const MAX_LINE: u64 = 64 * 1024 * 1024;
/// Most concurrent connections.
const MAX_CONVERSATIONS: usize = 16;
/// Time limit of a connection; a ledger that hangs takes ten seconds.
const TIMEOUT: Duration = Duration::from_secs(20);

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    /// The rotation status of one issuer, or of all.
    Rotation { issuer: Option<String> },
    /// A rotation command. The issuer may be omitted where there is only one.
    Rotate { issuer: Option<String>, ask: RotationCommand },
    /// A token of the node that this process runs.
    Token(TokenRequest),
}

/// The requested claims of a token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenRequest {
    pub issuer: Option<String>,
    pub namespace: String,
    pub service_account: String,
    pub audiences: Vec<String>,
    /// From now to `exp`; by default the service decides.
    pub lifetime: Option<Duration>,
}

#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Reply {
    Rotation(Vec<RotationStatus>),
    /// A bearer token: its holder acts as its subject.
    Token(String),
    /// The command was applied to this issuer.
    Done {
        issuer: String,
    },
    Refused {
        error: String,
        hint: Option<String>,
    },
}

/// The socket of a running service.
pub struct Control {
    listener: UnixListener,
    path: PathBuf,
}

impl Control {
    /// Listens in a locked data directory: an existing socket is a leftover.
    ///
    /// # Errors
    ///
    /// Fails when the directory cannot be written.
    pub fn listen(data_dir: &Path) -> Result<Self, ControlError> {
        let path = data_dir.join(NAME);
        let cannot = |source| ControlError::Listen { path: path.clone(), source };
        let listen = || {
            let (listener, _) = files::bind_socket(&path, files::PRIVATE_FILE, None)?;
            listener.set_nonblocking(true)?;
            UnixListener::from_std(listener)
        };
        let listener = listen().map_err(cannot)?;
        Ok(Self { listener, path })
    }

    /// Serves until `stop` resolves.
    pub async fn serve<A>(
        self,
        answer: impl Fn(Request) -> A + Clone + Send + 'static,
        stop: impl Future<Output = ()>,
    ) where
        A: Future<Output = Reply> + Send,
    {
        let mut conversations = JoinSet::new();
        tokio::pin!(stop);
        loop {
            select! {
                () = &mut stop => break,
                Some(_) = conversations.join_next() => {}
                accepted = self.listener.accept(), if conversations.len() < MAX_CONVERSATIONS => match accepted {
                    Ok((stream, _)) => {
                        let answer = answer.clone();
                        conversations.spawn(async move {
                            match timeout(TIMEOUT, converse(stream, answer)).await {
                                Ok(Ok(())) => {}
                                Ok(Err(error)) => debug!(%error, "control connection failed"),
                                Err(_) => debug!("control connection timed out"),
                            }
                        });
                    }
                    Err(error) => {
                        warn!(%error, "cannot accept on the control socket");
                        tokio::time::sleep(Duration::from_millis(100)).await;
                    }
                },
            }
        }
        // If the removal hangs, the socket stays, and the next service replaces it.
        let path = self.path.clone();
        let _ = blocking::at(&self.path, move || fs::remove_file(path)).await;
    }
}

async fn converse<A>(mut stream: UnixStream, answer: impl Fn(Request) -> A) -> io::Result<()>
where
    A: Future<Output = Reply>,
{
    let (peer, us) = (stream.peer_cred()?.uid(), geteuid().as_raw());
    let reply = if peer == us || peer == 0 {
        match serde_json::from_slice(&line(&mut stream).await?) {
            Ok(request) => answer(request).await,
            Err(error) => Reply::Refused {
                error: format!("the service cannot parse the request: {error}"),
                hint: Some("use the same version of signpost as the service".to_owned()),
            },
        }
    } else {
        warn!(uid = peer, "unauthorized user on the control socket");
        Reply::Refused { error: format!("user {peer} is not authorized"), hint: None }
    };
    write_line(&mut stream, &reply).await
}

async fn line(stream: &mut UnixStream) -> io::Result<Vec<u8>> {
    let mut line = Vec::new();
    BufReader::new(stream.take(MAX_LINE)).read_until(b'\n', &mut line).await?;
    if line.pop_if(|byte| *byte == b'\n').is_none() {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(line)
}

async fn write_line(stream: &mut UnixStream, words: &impl Serialize) -> io::Result<()> {
    let mut line = zeroize::Zeroizing::new(serde_json::to_vec(words).expect("strings always serialise"));
    line.push(b'\n');
    stream.write_all(&line).await
}

/// Sends a request to the service that runs on a data directory.
///
/// # Errors
///
/// Fails with [`ControlError::NobodyListens`] when no service runs, and when the connection breaks.
pub async fn ask(data_dir: &Path, request: &Request) -> Result<Reply, ControlError> {
    let path = data_dir.join(NAME);
    let directory = match directory(data_dir) {
        Ok(directory) => directory,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(ControlError::NobodyListens { path });
        }
        Err(source) => return Err(ControlError::Speak { path, source }),
    };
    let asked = async {
        let mut stream = UnixStream::connect(in_directory(&directory, NAME)).await?;
        write_line(&mut stream, request).await?;
        let line = zeroize::Zeroizing::new(line(&mut stream).await?);
        serde_json::from_slice(&line).map_err(io::Error::from)
    };
    match timeout(TIMEOUT, asked).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
        Ok(reply) => Ok(reply),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
            Err(ControlError::NobodyListens { path })
        }
        Err(source) => Err(ControlError::Speak { path, source }),
    }
}

fn directory(path: &Path) -> io::Result<File> {
    let flags = i32::try_from(rustix::fs::OFlags::DIRECTORY.bits()).expect("flags are small");
    fs::OpenOptions::new().read(true).custom_flags(flags).open(path)
}

/// The path of a socket is limited to 108 bytes (unix(7)), and a data directory may be deeper than that.
fn in_directory(directory: &File, name: &str) -> PathBuf {
    format!("/proc/self/fd/{}/{name}", directory.as_raw_fd()).into()
}

/// Whether a service has created its control socket in a data directory.
#[must_use]
pub fn is_present(data_dir: &Path) -> bool {
    data_dir.join(NAME).exists()
}

/// The control socket cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    #[error("cannot listen on `{path}`", path = path.display())]
    Listen { path: PathBuf, source: io::Error },
    #[error("no service listens on `{path}`", path = path.display())]
    NobodyListens { path: PathBuf },
    #[error("cannot connect to the service on `{path}`", path = path.display())]
    Speak { path: PathBuf, source: io::Error },
}

impl Hint for ControlError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::NobodyListens { .. } => Some(
                "start `signpost run`, or name the data directory of the one that runs with `--data-dir`"
                    .to_owned(),
            ),
            Self::Speak { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
                Some("run this as the user that runs the service, or as root".to_owned())
            }
            Self::Listen { .. } | Self::Speak { .. } => None,
        }
    }
}

#[cfg(test)]
mod tests;
