//! Errors of a target, with remedies and without credentials.

use std::{io, path::PathBuf};

use reqwest::StatusCode;

use super::{MAX_DOCUMENT_BYTES, connections::NoMetadata, workload_identity::ProviderFault};
use crate::{
    core::{text::Hint, tls_fault::TlsFault},
    http_client::{ClientError, REQUEST_TIMEOUT},
};

#[derive(Debug, thiserror::Error)]
#[error("cannot {task} {}target `{target}`", of(path.as_deref()))]
pub struct TargetError {
    target: String,
    task: &'static str,
    /// The document or URL that the error is about.
    path: Option<String>,
    hint: Option<String>,
    source: Box<Cause>,
}

fn of(path: Option<&str>) -> String {
    path.map_or_else(String::new, |path| format!("`{path}` of "))
}

impl TargetError {
    pub(super) fn new(target: &str, task: &'static str, path: Option<String>, source: Cause) -> Self {
        Self { target: target.to_owned(), task, path, hint: source.hint(), source: source.into() }
    }

    /// Adds a hint that the target knows better than the cause alone.
    pub(super) fn or_hint(mut self, hint: impl FnOnce(&Cause) -> Option<String>) -> Self {
        self.hint = self.hint.or_else(|| hint(&self.source));
        self
    }
}

impl Hint for TargetError {
    fn hint(&self) -> Option<String> {
        self.hint.clone()
    }
}

#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// A concurrent write happened: read and decide again.
    #[error("`{path}` of target `{target}` has changed since it was read")]
    LostRace { target: String, path: String },
    #[error(transparent)]
    Failed(#[from] TargetError),
}

impl Hint for WriteError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::LostRace { .. } => None,
            Self::Failed(error) => error.hint(),
        }
    }
}

/// Why a write failed, before the target's name is added.
#[derive(Debug)]
pub(super) enum Failure {
    LostRace,
    Cause(Cause),
}

impl From<Cause> for Failure {
    fn from(cause: Cause) -> Self {
        Self::Cause(cause)
    }
}

/// The failure at the target itself.
///
/// Holds no error of `object_store`: their texts contain URLs and answers, and with them credentials.
#[derive(Debug, thiserror::Error)]
pub(super) enum Cause {
    #[error("`{address}` {reason}")]
    Address { address: String, reason: String },
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error("access denied{}", in_brackets(code.as_deref()))]
    AccessDenied { code: Option<String> },
    #[error("there is no {kind} `{name}`")]
    NoContainer { kind: &'static str, name: String },
    #[error("{reason}")]
    Environment { reason: String, variables: &'static str },
    #[error("the environment has no credentials, and the metadata service gave none: {0}")]
    NoCredentials(NoMetadata),
    #[error("the token of the cluster was exchanged for none: {0}")]
    NoToken(String),
    #[error("it was redirected, so the bucket is in another region")]
    OtherRegion,
    #[error("no answer within {} s", REQUEST_TIMEOUT.as_secs())]
    TimedOut,
    #[error("cannot connect: {0}")]
    Unreachable(String),
    #[error("no TLS connection: {0}")]
    Tls(TlsFault),
    #[error("it is encoded as `{coding}`, which was not requested")]
    Encoded { coding: String },
    #[error("the answer was `{code}`")]
    Answer { code: String },
    #[error("the answer was `{code}`: {message}")]
    Refused { code: String, message: String },
    #[error(transparent)]
    Provider(#[from] ProviderFault),
    #[error("the answer was `{status}`, expected `200 OK`")]
    PublicStatus { status: StatusCode },
    #[error("without credentials the answer was `{status}`{}, expected `200 OK`", in_brackets(code.as_deref()))]
    NotPublic { status: StatusCode, code: Option<String> },
    #[error("it is longer than {MAX_DOCUMENT_BYTES} bytes")]
    TooLong,
    #[error("{what} reads back as `{actual}`, expected `{expected}`")]
    NotKept { what: &'static str, actual: String, expected: String },
    #[error("cannot {task} `{}`", path.display())]
    File { task: &'static str, path: PathBuf, source: io::Error },
    #[error("`{}` {reason}", path.display())]
    Unusable { path: PathBuf, reason: String },
    #[error("{0}")]
    Other(String),
}

impl Hint for Cause {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Environment { variables, .. } => Some(format!("check {variables}")),
            Self::Client(error) => error.hint(),
            Self::Provider(fault) => Some(fault.hint()),
            Self::Tls(fault) => Some(fault.fix("`ca_file` of the target")),
            Self::Encoded { .. } => Some(
                "serve it as it is: most relying parties do not decode an encoding that they did not request"
                    .to_owned(),
            ),
            Self::PublicStatus { status } if status.is_redirection() => Some(
                "serve it there without a redirect, or give the address to which it leads as `public_url`: jwks-rsa, \
                 PyJWT and jose read no JWKS behind one"
                    .to_owned(),
            ),
            Self::PublicStatus { .. } => Some(
                "make it readable without credentials, or correct the public URL of the target"
                    .to_owned(),
            ),
            _ => None,
        }
    }
}

fn in_brackets(code: Option<&str>) -> String {
    code.map_or_else(String::new, |code| format!(" (`{code}`)"))
}
