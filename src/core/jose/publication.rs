//! The publication: both documents as bytes, rendered once.
//!
//! The same bytes are served, uploaded and verified. They are a pure function of issuer, `jwks_uri`,
//! `max-age` and keys.

use std::{fmt::Write as _, time::Duration};

use bytes::Bytes;
use sha2::{Digest as _, Sha256};

use super::{
    discovery::DiscoveryDocument,
    issuer::{DISCOVERY_PATH, Issuer, JWKS_PATH, path_below},
    jwk::Jwk,
    jwk_set::{InvalidJwkSet, JwkSet, Profile},
};
use crate::core::text::Hint;

/// Media type of both documents.
pub const MEDIA_TYPE: &str = "application/json";
/// The specific media type of a JWK Set (RFC 7517 section 8.5.2).
const JWK_SET_MEDIA_TYPE: &str = "application/jwk-set+json";

/// Whether relying parties that check the `Content-Type` accept a document as JSON.
#[must_use]
pub fn is_json(content_type: Option<&str>) -> bool {
    let media_type = content_type.unwrap_or_default().split(';').next().unwrap_or_default().trim();
    [MEDIA_TYPE, JWK_SET_MEDIA_TYPE].iter().any(|known| media_type.eq_ignore_ascii_case(known))
}

/// One of the two documents of an issuer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Document {
    Jwks,
    Discovery,
}

impl Document {
    /// Both, in write order: the JWKS first, so that a discovery document never points to a missing one.
    pub const IN_WRITE_ORDER: [Self; 2] = [Self::Jwks, Self::Discovery];

    /// A short name for tables, logs and metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Jwks => "jwks",
            Self::Discovery => "discovery",
        }
    }
}

/// The properties shared by all publications of an issuer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Terms {
    pub issuer: Issuer,
    /// The URL at which relying parties read the JWKS.
    pub jwks_uri: String,
    /// How long a relying party may cache either document: the `max-age` served with it.
    pub max_age: Duration,
}

impl Terms {
    /// The paths at which the documents are written and served.
    #[must_use]
    pub fn paths(&self) -> Paths {
        let jwks = path_below(self.issuer.as_str(), &self.jwks_uri).unwrap_or(JWKS_PATH);
        Paths { jwks: jwks.to_owned() }
    }

    /// The URL of a JWKS that is served elsewhere: it is not below the issuer.
    #[must_use]
    pub fn jwks_elsewhere(&self) -> Option<&str> {
        path_below(self.issuer.as_str(), &self.jwks_uri).is_none().then_some(&self.jwks_uri)
    }
}

/// The paths of both documents below the issuer, without a leading `/`; that of the JWKS follows `jwks_uri`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Paths {
    jwks: String,
}

/// The paths of Kubernetes.
impl Default for Paths {
    fn default() -> Self {
        Self { jwks: JWKS_PATH.to_owned() }
    }
}

impl Paths {
    #[must_use]
    pub fn of(&self, document: Document) -> &str {
        match document {
            Document::Jwks => &self.jwks,
            Document::Discovery => DISCOVERY_PATH,
        }
    }
}

/// Both documents of an issuer, ready to be served and uploaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Publication {
    keys: JwkSet,
    jwks: Bytes,
    discovery: Bytes,
    max_age: Duration,
}

impl Publication {
    /// Renders the keys that the profile includes.
    ///
    /// # Errors
    ///
    /// Fails if no key is left, or if the keys do not form a set; the previous publication stays.
    pub fn render(
        terms: &Terms,
        profile: Profile,
        keys: impl IntoIterator<Item = Jwk>,
    ) -> Result<Self, NothingToPublish> {
        let (included, left_out): (Vec<_>, Vec<_>) = keys.into_iter().partition(|key| profile.includes(key));
        let keys = JwkSet::new(included).map_err(|source| match (source, left_out.len()) {
            (InvalidJwkSet::Empty, 0) => NothingToPublish::NoKeys,
            (InvalidJwkSet::Empty, left_out) => NothingToPublish::NoneIncluded { profile, left_out },
            (source, _) => NothingToPublish::NoSet(source),
        })?;
        let discovery = DiscoveryDocument::new(&terms.issuer, &terms.jwks_uri, &keys).to_json();
        Ok(Self { jwks: keys.to_json().into(), discovery: discovery.into(), keys, max_age: terms.max_age })
    }

    /// The documents of another issuer with the same keys.
    #[must_use]
    pub fn under(&self, terms: &Terms) -> Self {
        let discovery = DiscoveryDocument::new(&terms.issuer, &terms.jwks_uri, &self.keys).to_json();
        Self { discovery: discovery.into(), max_age: terms.max_age, ..self.clone() }
    }

    #[must_use]
    pub fn keys(&self) -> &JwkSet {
        &self.keys
    }

    /// The bytes of one document.
    #[must_use]
    pub fn bytes(&self, document: Document) -> &Bytes {
        match document {
            Document::Jwks => &self.jwks,
            Document::Discovery => &self.discovery,
        }
    }

    /// The strong entity tag of one document (RFC 9110 section 8.8.3), quotes included.
    #[must_use]
    pub fn etag(&self, document: Document) -> String {
        format!("\"{}\"", sha256_hex(self.bytes(document)))
    }

    /// The `Cache-Control` of both documents.
    #[must_use]
    pub fn cache_control(&self) -> String {
        format!("public, max-age={}", self.max_age.as_secs())
    }
}

/// SHA-256 in hexadecimal, as in entity tags and reports.
#[must_use]
pub fn sha256_hex(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// Bytes in lower-case hexadecimal.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Why these keys give no publication.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum NothingToPublish {
    #[error("nothing to publish: no source lists a key")]
    NoKeys,
    #[error(
        "nothing to publish: profile `{}` includes none of the listed keys ({left_out}), expected an RS256 key",
        profile.name()
    )]
    NoneIncluded { profile: Profile, left_out: usize },
    #[error("these keys cannot be published together")]
    NoSet(#[source] InvalidJwkSet),
}

impl Hint for NothingToPublish {
    fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::NoKeys => "give at least one source that has keys",
            Self::NoneIncluded { .. } => {
                "Microsoft Entra needs an RS256 key: sign with an RSA key (`key_type` of a signer), or publish with `--profile all`"
            }
            Self::NoSet(InvalidJwkSet::TooMany { .. }) => "remove sources with old keys",
            Self::NoSet(_) => "find out which of the two sources is wrong, and remove it",
        };
        Some(hint.to_owned())
    }
}

#[cfg(test)]
mod tests;
