//! Key IDs.

use std::fmt;

use base64ct::{Base64UrlUnpadded, Encoding as _};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::core::text::redaction::printable;

/// Longest key ID that `kube-apiserver` accepts from an external signer, in characters.
const MAX_LENGTH: usize = 1024;

/// The `kid` of a signing key (RFC 7517 section 4.5).
///
/// Invariant: 1 to 1024 characters.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Kid(String);

impl Kid {
    /// Derives the ID that `kube-apiserver` gives the same key, so that a key can be published before any API
    /// server has it.
    ///
    /// `spki` is the DER `SubjectPublicKeyInfo`, not the PKCS#1 form.
    /// Source: `keyIDFromPublicKey` in `kubernetes/pkg/serviceaccount/jwt.go`.
    #[must_use]
    pub fn of_public_key(spki: &[u8]) -> Self {
        Self(Base64UrlUnpadded::encode_string(&Sha256::digest(spki)))
    }

    /// Parses an ID that another party chose.
    ///
    /// # Errors
    ///
    /// Fails if `text` is empty or longer than 1024 characters.
    pub fn parse(text: &str) -> Result<Self, InvalidKid> {
        match text.chars().count() {
            1..=MAX_LENGTH => Ok(Self(text.to_owned())),
            length => Err(InvalidKid { length }),
        }
    }

    /// The ID as in a JWT header.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The ID as an argument of a command line to copy: another party may have chosen it, so it is quoted for
    /// a shell.
    #[must_use]
    pub fn as_argument(&self) -> String {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        let shown = printable(&self.0);
        let word = if shown.bytes().all(is_plain) {
            shown.into_owned()
        } else {
            format!("'{}'", shown.replace('\'', r"'\''"))
        };
        if word.starts_with('-') { format!("-- {word}") } else { word }
    }
}

/// Escapes what would control a terminal: another party may have chosen the ID.
impl fmt::Display for Kid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&printable(&self.0))
    }
}

impl TryFrom<String> for Kid {
    type Error = InvalidKid;

    fn try_from(text: String) -> Result<Self, InvalidKid> {
        Self::parse(&text)
    }
}

impl From<Kid> for String {
    fn from(kid: Kid) -> Self {
        kid.0
    }
}

/// The text is not a valid key ID.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
#[error("key ID has {length} characters, expected 1 to 1024")]
pub struct InvalidKid {
    length: usize,
}

#[cfg(test)]
mod tests;
