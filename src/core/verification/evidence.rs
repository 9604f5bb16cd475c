//! The gathered evidence, as plain data.

use std::{fmt, time::Duration};

use jiff::{SignedDuration, Timestamp};

use crate::core::{
    entra::{Credential, Identity, TokenRequest},
    freshness::CacheFields,
    jose::{
        kid::Kid,
        token::{NotAToken, UnverifiedToken},
    },
    ledger::Ledger,
    workload::Workload,
};

/// How long a key must be public before Entra can be assumed to know it. Microsoft does not document it;
/// users have observed an hour, and AKS keeps keys for a day.
pub const PROPAGATION: Duration = Duration::from_hours(24);

/// Longest token lifetime that Entra accepts, `1.01:00:00` in its notation.
pub const ENTRA_LIFE: Duration = Duration::from_hours(25);

/// The evidence. A member that was not gathered is `None`, and is not judged.
pub struct Evidence {
    pub token: Option<Result<UnverifiedToken, NotAToken>>,
    /// What surrounds the token in its file, in words.
    pub token_file: Option<String>,
    pub discovery: DocumentEvidence,
    pub jwks: DocumentEvidence,
    /// The view of the API server.
    pub api_server: Option<ApiServerView>,
    /// The service account and its pods.
    pub workload: Option<Workload>,
    /// The identity that a token is requested for.
    pub identity: Option<Identity>,
    /// All federated credentials of the identity.
    pub credentials: Option<Vec<Credential>>,
    /// The request to Entra's token endpoint.
    pub request: Option<TokenRequest>,
    /// The ledger, for the history of the keys.
    pub ledger: Option<Ledger>,
    /// The configured longest token lifetime of this issuer.
    pub max_token_lifetime: Option<Duration>,
    pub now: Timestamp,
}

/// The view of an API server, requested with credentials.
#[derive(Clone, Debug, Default)]
pub struct ApiServerView {
    /// The keys that it verifies with and lists.
    pub kids: Vec<Kid>,
    /// Whether it has just minted the token under judgement.
    pub minted: bool,
    /// Whether it accepts the token for its own audience; `None`: not checked.
    pub takes_for_its_own: Option<bool>,
}

/// A document as a relying party gets it.
#[derive(Clone, Debug)]
pub enum DocumentEvidence {
    /// Not fetched, because its URL is unknown or unusable.
    NotSought,
    /// A file given by the operator: it has no headers.
    File {
        path: String,
        bytes: Vec<u8>,
    },
    /// A response of any status.
    Answer(Box<HttpResponse>),
    NoAnswer(NoAnswer),
}

#[derive(Clone, Debug)]
pub struct HttpResponse {
    /// The requested URL.
    pub url: String,
    /// The redirects, in order.
    pub redirects: Vec<String>,
    /// The requested addresses that are not reachable from the internet.
    pub private: Vec<String>,
    pub status: u16,
    pub content_type: Option<String>,
    /// The content coding that was applied although not requested; `bytes` are decoded.
    pub content_coding: Option<String>,
    /// The fields that control caching.
    pub cache: CacheFields,
    /// How long a cache has stored it (RFC 9111 section 5.1).
    pub age: Option<Duration>,
    /// The server's clock minus the local one when the response arrived, from the `Date` header.
    pub clock_difference: Option<SignedDuration>,
    /// From the request to the last byte.
    pub took: Duration,
    /// The file with CA certificates that were trusted besides those of the system.
    pub ca_file: Option<String>,
    pub bytes: Vec<u8>,
    /// A second read, a moment later.
    pub again: Option<Again>,
}

/// What a second read adds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Again {
    pub same_bytes: bool,
}

/// Why there is no response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoAnswer {
    pub url: String,
    pub why: Unanswered,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unanswered {
    /// The host name has no address.
    NoAddress {
        host: String,
    },
    /// Its addresses are not reachable from the internet, and were not requested.
    Private {
        addresses: Vec<String>,
    },
    /// No connection; the error of the system.
    NoConnection {
        reason: String,
    },
    /// A certificate or handshake error; the message of OpenSSL.
    Tls {
        reason: String,
        /// SHA-1 of the last presented certificate, in hexadecimal, if no known CA has signed it: AWS IAM can
        /// be configured to trust it.
        thumbprint: Option<String>,
    },
    TimedOut {
        after: Duration,
    },
    /// The connection ended before the response did.
    Interrupted {
        reason: String,
    },
    TooLarge {
        limit: usize,
    },
    /// Encoded in a way that cannot be decoded.
    Encoded {
        coding: String,
    },
    /// The URL has a user name or password.
    Credentials,
    /// Too many redirects, or one to an unsafe address.
    Redirected {
        to: String,
        reason: &'static str,
    },
}

impl fmt::Display for Unanswered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoAddress { host } => write!(f, "the name `{host}` has no address"),
            Self::Private { addresses } => {
                write!(f, "its addresses are not public addresses: `{}`", addresses.join("`, `"))
            }
            Self::NoConnection { reason } => write!(f, "no connection: {reason}"),
            Self::Tls { reason, .. } => f.write_str(reason),
            Self::TimedOut { after } => write!(f, "no answer within {} s", after.as_secs()),
            Self::Interrupted { reason } => write!(f, "the response was cut off: {reason}"),
            Self::TooLarge { limit } => write!(f, "it is longer than {limit} bytes"),
            Self::Encoded { coding } => write!(f, "it is encoded as `{coding}`, which was not requested"),
            Self::Credentials => f.write_str("the URL has a user name or password"),
            Self::Redirected { to, reason } => write!(f, "it redirects to `{to}`: {reason}"),
        }
    }
}

impl Unanswered {
    /// Whether this machine or the network in between may be the cause.
    #[must_use]
    pub fn is_ambiguous(&self) -> bool {
        match self {
            Self::NoAddress { .. }
            | Self::NoConnection { .. }
            | Self::TimedOut { .. }
            | Self::Interrupted { .. } => true,
            Self::Private { .. }
            | Self::Tls { .. }
            | Self::TooLarge { .. }
            | Self::Encoded { .. }
            | Self::Credentials
            | Self::Redirected { .. } => false,
        }
    }
}

impl DocumentEvidence {
    /// The origin of the document.
    #[must_use]
    pub fn origin(&self) -> &str {
        match self {
            Self::NotSought => "nowhere",
            Self::File { path, .. } => path,
            Self::Answer(answer) => &answer.url,
            Self::NoAnswer(none) => &none.url,
        }
    }

    /// The document, if it can be read.
    #[must_use]
    pub fn bytes(&self) -> Option<&[u8]> {
        match self {
            Self::File { bytes, .. } => Some(bytes),
            Self::Answer(answer) if answer.status == 200 => Some(&answer.bytes),
            Self::NotSought | Self::Answer(_) | Self::NoAnswer(_) => None,
        }
    }

    pub(super) fn answer(&self) -> Option<&HttpResponse> {
        match self {
            Self::Answer(answer) => Some(answer),
            Self::NotSought | Self::File { .. } | Self::NoAnswer(_) => None,
        }
    }
}

impl Evidence {
    /// No evidence but the time.
    #[must_use]
    pub fn none(now: Timestamp) -> Self {
        Self {
            token: None,
            token_file: None,
            discovery: DocumentEvidence::NotSought,
            jwks: DocumentEvidence::NotSought,
            api_server: None,
            workload: None,
            identity: None,
            credentials: None,
            request: None,
            ledger: None,
            max_token_lifetime: None,
            now,
        }
    }

    /// The `jwks_uri` of the discovery document.
    #[must_use]
    pub fn jwks_uri(&self) -> Option<String> {
        let document = crate::core::jose::json::parse(self.discovery.bytes()?).ok()?;
        Some(document.get("jwks_uri")?.as_str()?.to_owned())
    }

    /// Whether a document is missing for a reason that may be local.
    pub(super) fn is_unanswered(&self) -> bool {
        [&self.discovery, &self.jwks]
            .iter()
            .any(|document| matches!(document, DocumentEvidence::NoAnswer(none) if none.why.is_ambiguous()))
    }
}
