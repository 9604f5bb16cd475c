//! What happens to keys, as the ledger remembers it.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::core::jose::kid::Kid;

/// One thing that happened to a key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Change {
    pub at: Timestamp,
    pub kid: Kid,
    #[serde(alias = "event")]
    pub kind: ChangeKind,
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ChangeKind {
    /// A source lists the key for the first time.
    Appeared,
    /// No source lists it any more; its retention begins.
    WentMissing,
    /// A source lists it again.
    Returned,
    /// Its retention is over.
    Removed,
    /// A place shows it and no source knows it.
    #[serde(alias = "stranger_found")]
    UnmanagedKeyFound,
    /// The operator said that it belongs to this issuer.
    Adopted,
    /// Its kid had been claimed by another key before.
    Replaced,
    /// Its node shall sign with it.
    Ordered,
    /// Its node signs with it.
    Activated,
    /// Its node has stopped signing with it.
    Retired,
    /// The operator said that its node is gone.
    Forgotten,
    /// The operator said that somebody else may have the private key.
    Revoked,
    /// Its retention had begun at a time that was still to come, and counts from when that was noticed.
    Redated,
}

impl ChangeKind {
    /// The event in words, for tables and logs.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Appeared => "appeared",
            Self::WentMissing => "unlisted",
            Self::Returned => "returned",
            Self::Removed => "removed",
            Self::UnmanagedKeyFound => "unmanaged key found",
            Self::Adopted => "adopted",
            Self::Replaced => "replaced",
            Self::Ordered => "ordered",
            Self::Activated => "activated",
            Self::Retired => "retired",
            Self::Forgotten => "forgotten",
            Self::Revoked => "revoked",
            Self::Redated => "redated",
        }
    }
}
