//! The discovery document (OpenID Connect Discovery 1.0 section 3).

use serde::{Deserialize, Serialize};

use super::{issuer::Issuer, json, jwk::Algorithm, jwk_set::JwkSet};
use crate::core::text::redaction::brief;

/// What `kube-apiserver` says of itself, in its order: five members and no more.
///
/// There is no `authorization_endpoint`, although the standard asks for one: nobody can log in here,
/// Kubernetes leaves it out, and Microsoft Entra refuses an empty one (AADSTS501661).
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
    /// Derives the document; nothing in it is configured apart from these.
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

/// The members that matter of a discovery document that somebody else wrote.
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
    /// Present in some foreign documents; Microsoft Entra refuses an empty one.
    pub authorization_endpoint: Option<String>,
}

impl ReceivedDiscovery {
    /// Reads a discovery document.
    ///
    /// # Errors
    ///
    /// Fails when it is not JSON, has a member twice, or lacks `issuer` or `jwks_uri`.
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
