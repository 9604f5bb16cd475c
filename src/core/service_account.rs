//! Service accounts: the subjects of tokens.

use std::{fmt, str::FromStr};

/// Prefix of `sub` for a service account.
/// Source: `ServiceAccountUsernamePrefix` in `apiserver/pkg/authentication/serviceaccount/util.go`.
const SUBJECT_PREFIX: &str = "system:serviceaccount:";
/// Longest namespace, in bytes (RFC 1123 label).
const MAX_LABEL: usize = 63;
/// Longest name, in bytes (RFC 1123 subdomain).
const MAX_SUBDOMAIN: usize = 253;

/// A service account of a cluster.
///
/// Invariant: the namespace is an RFC 1123 label and the name an RFC 1123 subdomain, so both need no escaping
/// in a URL path.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServiceAccount {
    namespace: String,
    name: String,
}

impl ServiceAccount {
    /// Validates namespace and name.
    ///
    /// # Errors
    ///
    /// Fails if Kubernetes would reject the namespace or the name.
    pub fn new(namespace: &str, name: &str) -> Result<Self, InvalidServiceAccount> {
        let is_subdomain = name.len() <= MAX_SUBDOMAIN && name.split('.').all(is_dns);
        if !is_namespace(namespace) {
            return Err(InvalidServiceAccount { part: "namespace", text: namespace.to_owned() });
        }
        if !is_subdomain {
            return Err(InvalidServiceAccount { part: "name", text: name.to_owned() });
        }
        Ok(Self { namespace: namespace.to_owned(), name: name.to_owned() })
    }

    /// Parses a `sub`, which is also a Kubernetes user name; `None` if it is not a service account.
    #[must_use]
    pub fn of_subject(subject: &str) -> Option<Self> {
        let (namespace, name) = subject.strip_prefix(SUBJECT_PREFIX)?.split_once(':')?;
        Self::new(namespace, name).ok()
    }

    /// The `sub` of its tokens.
    #[must_use]
    pub fn subject(&self) -> String {
        format!("{SUBJECT_PREFIX}{}:{}", self.namespace, self.name)
    }

    #[must_use]
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }
}

/// Whether a text is a valid namespace, which needs no escaping in a URL path (RFC 1123 label).
#[must_use]
pub fn is_namespace(text: &str) -> bool {
    text.len() <= MAX_LABEL && is_dns(text)
}

/// Lower-case letters, digits and inner hyphens.
fn is_dns(text: &str) -> bool {
    let ends = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit();
    text.bytes().all(|c| ends(c) || c == b'-')
        && text.bytes().next().is_some_and(ends)
        && text.bytes().last().is_some_and(ends)
}

/// Parses `NAMESPACE/NAME`.
impl FromStr for ServiceAccount {
    type Err = NotAServiceAccount;

    fn from_str(text: &str) -> Result<Self, NotAServiceAccount> {
        text.split_once('/')
            .and_then(|(namespace, name)| Self::new(namespace, name).ok())
            .ok_or_else(|| NotAServiceAccount { text: text.to_owned() })
    }
}

impl fmt::Display for ServiceAccount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// Kubernetes would reject this service account.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("service account {part} `{text}` is not lower-case letters, digits and inner `-`")]
pub struct InvalidServiceAccount {
    part: &'static str,
    text: String,
}

/// The text does not name a service account.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("`{text}` is not a service account, expected `NAMESPACE/NAME`")]
pub struct NotAServiceAccount {
    text: String,
}

#[cfg(test)]
mod tests;
