//! The changes of keys that the ledger records.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::core::jose::kid::Kid;

/// One change of a key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Change {
    pub at: Timestamp,
    pub kid: Kid,
    pub kind: ChangeKind,
}

/// What changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ChangeKind {
    /// A source lists the key for the first time.
    Appeared,
    /// No source lists it any more; its retention begins.
    WentMissing,
    /// A source lists it again.
    Returned,
    /// Its retention has expired.
    Removed,
    /// A target shows it and no source lists it.
    UnmanagedKeyFound,
    /// The operator confirmed that it belongs to this issuer.
    Adopted,
    /// Its kid was claimed by another key before.
    Replaced,
    /// Its node is ordered to sign with it.
    Ordered,
    /// Its node signs with it.
    Activated,
    /// Its node has stopped signing with it.
    Retired,
    /// The operator stated that its node is gone.
    Forgotten,
    /// The operator stated that the private key may be compromised.
    Revoked,
    /// Its retention began at a future time, and counts from when that was noticed.
    Redated,
}

impl ChangeKind {
    /// The name of the change, for tables and logs.
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
