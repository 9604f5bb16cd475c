//! What was gathered, as plain data.

use std::{fmt, time::Duration};

use jiff::{SignedDuration, Timestamp};

use super::Credential;
use crate::core::{
    freshness::CacheFields,
    jose::{
        kid::Kid,
        token::{NotAToken, UnverifiedToken},
    },
    ledger::Ledger,
    workload::Workload,
};

/// How long a key must be public before Entra can be trusted to know it; Microsoft does not say, people saw
/// an hour, and AKS keeps keys for a day.
pub const PROPAGATION: Duration = Duration::from_hours(24);

/// Longest life of a token that Entra takes: `1.01:00:00` in its own words.
pub const ENTRA_LIFE: Duration = Duration::from_hours(25);

/// What there is to judge by. Whatever nobody looked for is `None`, and is not judged.
pub struct Evidence {
    pub token: Option<Result<UnverifiedToken, NotAToken>>,
    /// What is around the token in its file, in words.
    pub token_file: Option<String>,
    pub discovery: DocumentEvidence,
    pub jwks: DocumentEvidence,
    /// What the API server says of itself.
    pub api_server: Option<ApiServerView>,
    /// The service account and its pods.
    pub workload: Option<Workload>,
    /// All federated credentials of the identity.
    pub credentials: Option<Vec<Credential>>,
    /// What Signpost remembers of the keys.
    pub ledger: Option<Ledger>,
    /// How long tokens of this issuer may live, as configured.
    pub max_token_lifetime: Option<Duration>,
    pub now: Timestamp,
}

/// An API server, asked with credentials.
#[derive(Clone, Debug, Default)]
pub struct ApiServerView {
    /// The keys that it verifies with and shows.
    pub kids: Vec<Kid>,
    /// Whether the token under judgement was just minted by it.
    pub minted: bool,
    /// Whether it takes the token for one that is meant for itself; `None`: it was not asked.
    pub takes_for_its_own: Option<bool>,
}

/// One document as a relying party got it.
#[derive(Clone, Debug)]
pub enum DocumentEvidence {
    /// Nobody looked, because the evidence before it already says where not to look.
    NotSought,
    /// A file that the operator gave: it has no headers.
    File {
        path: String,
        bytes: Vec<u8>,
    },
    /// An answer, whatever it says.
    Answer(Box<HttpResponse>),
    NoAnswer(NoAnswer),
}

#[derive(Clone, Debug)]
pub struct HttpResponse {
    /// That was asked for first.
    pub url: String,
    /// Where it led to, one after the other.
    pub redirects: Vec<String>,
    /// The addresses that cannot be reached from the internet and were asked all the same.
    pub private: Vec<String>,
    pub status: u16,
    pub content_type: Option<String>,
    /// How it was encoded although nobody asked for it; `bytes` are without.
    pub content_coding: Option<String>,
    /// By what it is kept.
    pub cache: CacheFields,
    /// How long a cache has kept it (RFC 9111 section 5.1).
    pub age: Option<Duration>,
    /// Of the server, minus ours when the answer came, from the `Date` header.
    pub clock_difference: Option<SignedDuration>,
    /// From the question to the last byte.
    pub took: Duration,
    /// The file with authorities that were trusted besides those of the system.
    pub ca_file: Option<String>,
    pub bytes: Vec<u8>,
    /// The same once more, a moment later.
    pub again: Option<Again>,
}

/// What a second look adds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Again {
    pub same_bytes: bool,
}

/// Why there is no answer to judge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoAnswer {
    pub url: String,
    pub why: Unanswered,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unanswered {
    /// The name has no address.
    NoAddress {
        host: String,
    },
    /// It is at addresses that cannot be reached from the internet, and was not asked.
    Private {
        addresses: Vec<String>,
    },
    /// No connection; what the system says.
    NoConnection {
        reason: String,
    },
    /// The certificate or the handshake; what OpenSSL says.
    Tls {
        reason: String,
        /// SHA-1 of the last certificate that was presented, in hexadecimal, where no known authority has
        /// signed it: IAM of AWS can be told to trust it.
        thumbprint: Option<String>,
    },
    TimedOut {
        after: Duration,
    },
    /// The connection ended before the answer did.
    Interrupted {
        reason: String,
    },
    TooLarge {
        limit: usize,
    },
    /// In a way that cannot be undone.
    Encoded {
        coding: String,
    },
    /// The URL has a user name or password.
    Credentials,
    /// A redirect too many, or to a place that nobody should be sent to.
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
                write!(f, "its addresses are not of the internet: `{}`", addresses.join("`, `"))
            }
            Self::NoConnection { reason } => write!(f, "no connection: {reason}"),
            Self::Tls { reason, .. } => f.write_str(reason),
            Self::TimedOut { after } => write!(f, "no answer within {} s", after.as_secs()),
            Self::Interrupted { reason } => write!(f, "the answer broke off: {reason}"),
            Self::TooLarge { limit } => write!(f, "it is longer than {limit} bytes"),
            Self::Encoded { coding } => write!(f, "it is encoded as `{coding}`, which nobody asked for"),
            Self::Credentials => f.write_str("the URL has a user name or password"),
            Self::Redirected { to, reason } => write!(f, "it redirects to `{to}`: {reason}"),
        }
    }
}

impl Unanswered {
    /// Whether it may be the fault of this machine or of the network between.
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
    /// Where it came from.
    #[must_use]
    pub fn origin(&self) -> &str {
        match self {
            Self::NotSought => "nowhere",
            Self::File { path, .. } => path,
            Self::Answer(answer) => &answer.url,
            Self::NoAnswer(none) => &none.url,
        }
    }

    /// What there is to read.
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
    /// Nothing but the time.
    #[must_use]
    pub fn none(now: Timestamp) -> Self {
        Self {
            token: None,
            token_file: None,
            discovery: DocumentEvidence::NotSought,
            jwks: DocumentEvidence::NotSought,
            api_server: None,
            workload: None,
            credentials: None,
            ledger: None,
            max_token_lifetime: None,
            now,
        }
    }

    /// Where the discovery document says that the JWKS is.
    #[must_use]
    pub fn jwks_uri(&self) -> Option<String> {
        let document = crate::core::jose::json::parse(self.discovery.bytes()?).ok()?;
        Some(document.get("jwks_uri")?.as_str()?.to_owned())
    }

    /// Whether a document is missing for a reason that may be ours.
    pub(super) fn is_unanswered(&self) -> bool {
        [&self.discovery, &self.jwks]
            .iter()
            .any(|exhibit| matches!(exhibit, DocumentEvidence::NoAnswer(none) if none.why.is_ambiguous()))
    }
}
