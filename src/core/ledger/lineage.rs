//! The owner of a publication.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Identifies the ledger that owns a publication: created with the ledger and written to everything derived
/// from it.
///
/// Invariant: printable ASCII without white space, so that it fits in a header.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String")]
pub struct Lineage(String);

impl Lineage {
    /// Creates a lineage from random bytes.
    #[must_use]
    pub fn from_random(bytes: [u8; 8]) -> Self {
        Self(format!("{:016x}", u64::from_be_bytes(bytes)))
    }

    /// A lineage as read from a target; any other text there counts as the lineage of another owner.
    #[must_use]
    pub fn read(text: &str) -> Self {
        let printable: String = text.chars().filter(char::is_ascii_graphic).collect();
        Self(if printable.is_empty() { "unreadable".to_owned() } else { printable })
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Lineage {
    type Error = InvalidLineage;

    fn try_from(text: String) -> Result<Self, InvalidLineage> {
        if !text.is_empty() && text.chars().all(|c| c.is_ascii_graphic()) {
            Ok(Self(text))
        } else {
            Err(InvalidLineage)
        }
    }
}

/// The text cannot be a lineage.
#[derive(Clone, Copy, Debug, thiserror::Error, PartialEq, Eq)]
#[error("lineage is not printable ASCII without white space")]
pub struct InvalidLineage;

impl fmt::Display for Lineage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
