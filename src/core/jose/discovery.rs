//! The discovery document (OpenID Connect Discovery 1.0 section 3).

use serde::{Deserialize, Serialize};

use super::{issuer::Issuer, json, jwk::Algorithm, jwk_set::JwkSet};
use crate::core::text::redaction::brief;

/// The discovery document of `kube-apiserver`, in its order: exactly five members.
///
/// There is no `authorization_endpoint`, although the standard requires one: users cannot log in here,
/// Kubernetes omits it, and Microsoft Entra rejects an empty one (AADSTS501661).
/// Source: `openIDMetadataJSON` in `kubernetes/pkg/serviceaccount/openidmetadata.go`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DiscoveryDocument {
    issuer: Issuer,
    jwks_uri: String,
    response_types_supported: [&'static str; 1],
    subject_types_supported: [&'static str; 1],
    id_token_signing_alg_values_supported: Vec<Algorithm>,
}

impl DiscoveryDocument {
    /// Derives the document from issuer, JWKS URL and keys.
    #[must_use]
    pub fn new(issuer: &Issuer, jwks_uri: &str, keys: &JwkSet) -> Self {
        Self {
            issuer: issuer.clone(),
            jwks_uri: jwks_uri.to_owned(),
            response_types_supported: ["id_token"],
            subject_types_supported: ["public"],
            id_token_signing_alg_values_supported: keys.algorithms(),
        }
    }

    /// Compact JSON.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("strings always serialise")
    }
}

/// The relevant members of a received discovery document.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct ReceivedDiscovery {
    /// Compared byte for byte with `iss`, so it stays text.
    pub issuer: String,
    pub jwks_uri: String,
    #[serde(default)]
    pub response_types_supported: Vec<String>,
    #[serde(default)]
    pub subject_types_supported: Vec<String>,
    #[serde(default)]
    pub id_token_signing_alg_values_supported: Vec<String>,
    /// Present in some documents; Microsoft Entra rejects an empty one.
    pub authorization_endpoint: Option<String>,
}

impl ReceivedDiscovery {
    /// Parses a discovery document.
    ///
    /// # Errors
    ///
    /// Fails if it is not JSON, has a duplicate member, or lacks `issuer` or `jwks_uri`.
    pub fn parse(bytes: &[u8]) -> Result<Self, InvalidDiscovery> {
        let read = json::parse(bytes).and_then(|_| serde_json::from_slice(bytes));
        read.map_err(|error| InvalidDiscovery(brief(&error.to_string()).into_owned()))
    }
}

/// The bytes are not a discovery document.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("not a discovery document: {0}")]
pub struct InvalidDiscovery(String);

#[cfg(test)]
mod tests;
