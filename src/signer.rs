//! The only holder of private keys.
//!
//! They are created here, stay in files that only this user can read, and never leave: not over a network,
//! nor in a log, an error or a publication. Only signatures and public keys leave.

mod announcement_dir;
pub mod keyring;
pub mod node;
mod peers;
pub mod service;
pub mod socket;
pub mod trust;
#[rustfmt::skip]
#[expect(clippy::allow_attributes, clippy::allow_attributes_without_reason, clippy::pedantic, unreachable_pub, reason = "a tool wrote it")]
mod v1;
mod v1alpha1;

use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};

pub use self::{
    keyring::{Keyring, KeyringError, SigningError, SigningKey},
    node::{Node, NodeError},
};
use crate::core::{jose::issuer::Issuer, service_account::ServiceAccount};

/// The contents of a token of the embedded issuer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statement<'a> {
    pub issuer: &'a Issuer,
    pub subject: &'a ServiceAccount,
    /// The UID of the service account object.
    pub uid: &'a str,
    pub audiences: &'a [String],
    pub now: Timestamp,
    /// From now to `exp`.
    pub lifetime: Duration,
    /// Unique among all tokens of the issuer (RFC 7519 section 4.1.7).
    pub jti: &'a str,
}

/// The claims of a token, shaped as Kubernetes shapes those of a service account.
/// Source: `Claims` in `kubernetes/pkg/serviceaccount/claims.go`.
#[must_use]
pub fn claims(statement: &Statement<'_>) -> Value {
    let now = statement.now.as_second();
    let lifetime = i64::try_from(statement.lifetime.as_secs()).unwrap_or(i64::MAX);
    json!({
        "aud": statement.audiences,
        "exp": now.saturating_add(lifetime),
        "iat": now,
        "iss": statement.issuer,
        "jti": statement.jti,
        "kubernetes.io": {
            "namespace": statement.subject.namespace(),
            "serviceaccount": { "name": statement.subject.name(), "uid": statement.uid },
        },
        "nbf": now,
        "sub": statement.subject.subject(),
    })
}

#[cfg(test)]
mod tests;
