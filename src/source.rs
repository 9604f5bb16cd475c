//! Sources of public keys.
//!
//! A source reports what it sees now and keeps no state: [`crate::core::ledger::merge`] decides what to
//! publish when it fails or reports fewer keys than before.

pub mod announcements;
pub mod api_server;
pub mod cluster;
pub mod key_file;
pub mod remote_jwks;

use jiff::Timestamp;

use self::{
    announcements::{AnnouncementError, Announcements},
    api_server::{ApiServer, ApiServerError},
    key_file::{KeyFileError, KeyFiles},
    remote_jwks::{RemoteError, RemoteJwks},
};
use crate::core::{
    jose::{jwk::Jwk, left_out::LeftOut},
    ledger::merge::NodeStatement,
    text::Hint,
};

#[derive(Debug)]
pub enum Source {
    ApiServer(Box<ApiServer>),
    KeyFiles(KeyFiles),
    RemoteJwks(Box<RemoteJwks>),
    Announcements(Announcements),
}

impl Source {
    /// The name of the source in messages, metrics and the ledger.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::ApiServer(server) => server.name(),
            Self::KeyFiles(files) => files.name(),
            Self::RemoteJwks(jwks) => jwks.name(),
            Self::Announcements(announcements) => announcements.name(),
        }
    }

    /// Resolves once the source should be read before its next poll. May never resolve.
    pub async fn connection_lost(&self) {
        match self {
            Self::ApiServer(server) => server.lost().await,
            Self::KeyFiles(_) | Self::RemoteJwks(_) | Self::Announcements(_) => std::future::pending().await,
        }
    }

    /// Closes open connections: their peer may be gone.
    pub async fn reconnect(&self) {
        match self {
            Self::ApiServer(server) => server.reconnect().await,
            Self::KeyFiles(_) | Self::RemoteJwks(_) | Self::Announcements(_) => {}
        }
    }

    /// The issuer that the source reports; `None` where it reports none.
    ///
    /// # Errors
    ///
    /// Fails when the source should report one and does not.
    pub async fn issuer(&self) -> Result<Option<String>, SourceError> {
        match self {
            Self::ApiServer(server) => Ok(Some(server.issuer().await?)),
            // An announcement names its issuer, and one of another issuer fails the fetch.
            Self::KeyFiles(_) | Self::Announcements(_) => Ok(None),
            Self::RemoteJwks(jwks) => Ok(jwks.issuer().await?),
        }
    }

    /// Reads all keys of the source, once and without retries.
    ///
    /// # Errors
    ///
    /// Fails as a whole: a part of the keys would look like a retirement of the others.
    pub async fn fetch(&self) -> Result<Fetched, FetchError> {
        let fetched = match self {
            Self::ApiServer(server) => server.fetch().await.map_err(SourceError::ApiServer),
            Self::KeyFiles(files) => files.fetch().await.map_err(SourceError::KeyFiles),
            Self::RemoteJwks(jwks) => jwks.fetch().await.map_err(SourceError::RemoteJwks),
            Self::Announcements(announcements) => {
                announcements.fetch().await.map_err(SourceError::Announcements)
            }
        };
        fetched.map_err(|cause| FetchError { name: self.name().to_owned(), cause })
    }
}

/// One reading of a source.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fetched {
    /// At most one key per kid. Empty only where the operator permits it.
    pub keys: Vec<Jwk>,
    /// Keys, and whole files, that cannot be used.
    pub left_out: Vec<LeftOut>,
    /// The nodes' statements, if the source reads announcements.
    pub statements: Option<Vec<NodeStatement>>,
    /// Further warnings: contents that are not keys, and key IDs that Kubernetes would not derive.
    pub notes: Vec<String>,
    /// The clock of the server, in whole seconds, to check ours against.
    pub server_time: Option<Timestamp>,
}

impl Fetched {
    /// All warnings as text.
    pub fn warnings(&self) -> impl Iterator<Item = String> {
        self.left_out.iter().map(ToString::to_string).chain(self.notes.iter().cloned())
    }
}

/// A note for every key whose ID is not the one that Kubernetes derives.
fn foreign_kids(keys: &[Jwk]) -> impl Iterator<Item = String> {
    keys.iter().filter(|key| !key.has_derived_kid()).map(|key| {
        format!("kid `{}` is kept, Kubernetes would derive `{}`", key.kid(), key.public_key().kid())
    })
}

#[derive(Debug, thiserror::Error)]
#[error("cannot fetch the keys of source `{name}`")]
pub struct FetchError {
    name: String,
    #[source]
    cause: SourceError,
}

impl Hint for FetchError {
    fn hint(&self) -> Option<String> {
        self.cause.hint()
    }
}

#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    #[error(transparent)]
    ApiServer(#[from] ApiServerError),
    #[error(transparent)]
    KeyFiles(#[from] KeyFileError),
    #[error(transparent)]
    RemoteJwks(#[from] RemoteError),
    #[error(transparent)]
    Announcements(#[from] AnnouncementError),
}

impl Hint for SourceError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::ApiServer(error) => error.hint(),
            Self::KeyFiles(error) => error.hint(),
            Self::RemoteJwks(error) => error.hint(),
            Self::Announcements(error) => error.hint(),
        }
    }
}
