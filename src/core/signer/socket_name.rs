//! The address of the signer's socket.

use std::{
    fmt,
    path::{Path, PathBuf},
};

/// Longest name of a unix socket, in bytes: `sockaddr_un` has 108, including the NUL. The rest is reserved
/// for the temporary name under which the socket is created.
const MAX_LENGTH: usize = 102;

/// A unix socket, written as in `--service-account-signing-endpoint` of kube-apiserver.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum SocketName {
    /// An absolute path.
    File(PathBuf),
    /// In the abstract namespace, without its `@`: every process in the network namespace can connect.
    Abstract(String),
}

impl SocketName {
    /// Parses an absolute path, or `@NAME`.
    ///
    /// # Errors
    ///
    /// Returns why the text names no socket.
    pub fn parse(text: &str) -> Result<Self, InvalidSocketName> {
        let refuse = |reason| Err(InvalidSocketName { name: text.to_owned(), reason });
        if text.len() > MAX_LENGTH {
            return refuse("is too long, expected at most 102 bytes");
        }
        if let Some(name) = text.strip_prefix('@') {
            return if name.is_empty() {
                refuse("has no name after its `@`")
            } else {
                Ok(Self::Abstract(name.to_owned()))
            };
        }
        if text.starts_with("unix:") {
            return refuse(
                "has a scheme, expected only the path: kube-apiserver does not accept `unix://` either",
            );
        }
        let path = Path::new(text);
        if !path.is_absolute() || path.file_name().is_none() || text.ends_with('/') {
            return refuse("is not a socket, expected an absolute path or `@NAME`");
        }
        Ok(Self::File(path.to_owned()))
    }
}

impl fmt::Display for SocketName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => path.display().fmt(f),
            Self::Abstract(name) => write!(f, "@{name}"),
        }
    }
}

/// The text names no socket.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
#[error("`{name}` {reason}")]
pub struct InvalidSocketName {
    name: String,
    reason: &'static str,
}
