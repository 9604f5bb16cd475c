//! Where public keys come from.
//!
//! A source says what it sees now and remembers nothing: what to publish when it fails, or says less
//! than before, is for [`crate::core::ledger::merge`].

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
};

/// A place that keys are read from.
#[derive(Debug)]
pub enum Source {
    ApiServer(Box<ApiServer>),
    KeyFiles(KeyFiles),
    RemoteJwks(Box<RemoteJwks>),
    Announcements(Announcements),
}

impl Source {
    /// What the source is called in messages, metrics and the ledger.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::ApiServer(server) => server.name(),
            Self::KeyFiles(files) => files.name(),
            Self::RemoteJwks(jwks) => jwks.name(),
            Self::Announcements(announcements) => announcements.name(),
        }
    }

    /// Resolves once there is a reason to read the source again before its time. May never.
    pub async fn connection_lost(&self) {
        match self {
            Self::ApiServer(server) => server.lost().await,
            Self::KeyFiles(_) | Self::RemoteJwks(_) | Self::Announcements(_) => std::future::pending().await,
        }
    }

    /// Lets go of open connections: they may lead to somebody who is gone.
    pub async fn reconnect(&self) {
        match self {
            Self::ApiServer(server) => server.reconnect().await,
            Self::KeyFiles(_) | Self::RemoteJwks(_) | Self::Announcements(_) => {}
        }
    }

    /// Which issuer the source says it is; `None` where it does not say.
    ///
    /// # Errors
    ///
    /// Fails when it should say and does not.
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
    /// Fails as a whole: half of what a source has would look like a retirement of the rest.
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

/// What a source said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fetched {
    /// One kid never names two keys. None only where the operator said that there may be none.
    pub keys: Vec<Jwk>,
    /// Keys, and whole files, that cannot be used.
    pub left_out: Vec<LeftOut>,
    /// What nodes have announced, where the source is one of announcements.
    pub said: Option<Vec<NodeStatement>>,
    /// What else to warn about: what is no key, IDs that Kubernetes would not derive.
    pub notes: Vec<String>,
    /// What the other side takes for the present, in whole seconds: a witness for our clock.
    pub server_time: Option<Timestamp>,
}

impl Fetched {
    /// All that is to be warned about, in words.
    pub fn warnings(&self) -> impl Iterator<Item = String> {
        self.left_out.iter().map(ToString::to_string).chain(self.notes.iter().cloned())
    }
}

/// A note about every key whose ID is not the one that Kubernetes derives.
fn foreign_kids(keys: &[Jwk]) -> impl Iterator<Item = String> {
    keys.iter().filter(|key| !key.has_derived_kid()).map(|key| {
        format!("kid `{}` is kept, Kubernetes would derive `{}`", key.kid(), key.public_key().kid())
    })
}

/// A source could not be read.
#[derive(Debug, thiserror::Error)]
#[error("cannot fetch the keys of source `{name}`")]
pub struct FetchError {
    name: String,
    #[source]
    cause: SourceError,
}

impl FetchError {
    /// What to do about it.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        self.cause.hint()
    }
}

/// What a source of any kind may say.
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

impl SourceError {
    /// What to do about it.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::ApiServer(error) => error.hint(),
            Self::KeyFiles(error) => error.hint(),
            Self::RemoteJwks(error) => error.hint(),
            Self::Announcements(error) => error.hint(),
        }
    }
}
