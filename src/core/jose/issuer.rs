//! The issuer: the URL in `iss` of every token.

use std::fmt;

use serde::{Deserialize, Serialize};
use url::{Host, Url};

use crate::core::text::redaction::brief;

/// Path of the discovery document below the issuer (OpenID Connect Discovery 1.0 section 4).
pub const DISCOVERY_PATH: &str = ".well-known/openid-configuration";
/// Path of the JWKS below the issuer, as in Kubernetes.
pub const JWKS_PATH: &str = "openid/v1/jwks";

/// An issuer identifier (OpenID Connect Discovery 1.0 section 3).
///
/// Invariant: an `https` URL (or `http` on a loopback host) in normal form, without user, query or fragment.
/// Two issuers are equal if their bytes are: relying parties compare `iss` that way, so nothing is ever
/// normalised.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Issuer(String);

impl Issuer {
    /// Validates an issuer and keeps its bytes.
    ///
    /// # Errors
    ///
    /// Returns the first rule that it breaks.
    pub fn parse(text: &str) -> Result<Self, InvalidIssuer> {
        let refuse = |reason: String| InvalidIssuer {
            issuer: brief(text).into_owned(),
            reason: brief(&reason).into_owned(),
        };
        if text.trim() != text {
            return Err(refuse("has white space around it, expected none".to_owned()));
        }
        let url = Url::parse(text).map_err(|error| refuse(format!("is not a URL: {error}")))?;
        match (url.scheme(), is_loopback(&url)) {
            ("https", _) | ("http", true) => {}
            ("http", false) => {
                return Err(refuse(
                    "has scheme `http`, expected `https` (`http` is only for loopback hosts)".to_owned(),
                ));
            }
            (scheme, _) => return Err(refuse(format!("has scheme `{scheme}`, expected `https`"))),
        }
        if url.query().is_some() {
            return Err(refuse("has a query, expected none".to_owned()));
        }
        if url.fragment().is_some() {
            return Err(refuse("has a fragment, expected none".to_owned()));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(refuse("has a user name or password, expected none".to_owned()));
        }
        let normal = url.as_str();
        if text != normal && !(url.path() == "/" && text == normal.trim_end_matches('/')) {
            return Err(refuse(format!("is not in normal form, expected `{normal}`")));
        }
        if url.path().contains("//") {
            return Err(refuse("has an empty path segment (`//`), expected none".to_owned()));
        }
        Ok(Self(text.to_owned()))
    }

    /// The issuer as in `iss`.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The URL of the discovery document: one trailing `/` is dropped, then the well-known path is appended
    /// (OpenID Connect Discovery 1.0 section 4).
    #[must_use]
    pub fn discovery_url(&self) -> String {
        format!("{}/{DISCOVERY_PATH}", self.base())
    }

    /// The URL of the JWKS unless the configuration sets another one.
    #[must_use]
    pub fn jwks_uri(&self) -> String {
        format!("{}/{JWKS_PATH}", self.base())
    }

    /// Host and port as in the `Host` header of a client.
    #[must_use]
    pub fn authority(&self) -> &str {
        let rest = self.0.split_once("://").map_or(self.0.as_str(), |(_, rest)| rest);
        rest.split('/').next().unwrap_or(rest)
    }

    /// The path of the issuer without a trailing `/`; empty at the root of a host.
    #[must_use]
    pub fn path(&self) -> &str {
        let rest = self.0.split_once("://").map_or(self.0.as_str(), |(_, rest)| rest);
        let path = rest.find('/').map_or("", |start| &rest[start..]);
        path.strip_suffix('/').unwrap_or(path)
    }

    /// Whether the host is a loopback host, which only this machine can reach.
    #[must_use]
    pub fn is_loopback(&self) -> bool {
        Url::parse(&self.0).is_ok_and(|url| is_loopback(&url))
    }

    fn base(&self) -> &str {
        self.0.strip_suffix('/').unwrap_or(&self.0)
    }
}

/// Whether relying parties can read this address: `https`, or `http` on a loopback host.
#[must_use]
pub fn is_readable_url(text: &str) -> bool {
    Url::parse(text).is_ok_and(|url| match url.scheme() {
        "https" => true,
        "http" => is_loopback(&url),
        _ => false,
    })
}

/// The path of `url` below `base`, if it consists of plain names only: a bucket and a directory use the same
/// names for it.
#[must_use]
pub fn path_below<'a>(base: &str, url: &'a str) -> Option<&'a str> {
    let path = url.strip_prefix(base.strip_suffix('/').unwrap_or(base))?.strip_prefix('/')?;
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    let is_name = |name: &str| !["", ".", ".."].contains(&name) && name.bytes().all(is_plain);
    path.split('/').all(is_name).then_some(path)
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

impl fmt::Display for Issuer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for Issuer {
    type Error = InvalidIssuer;

    fn try_from(text: String) -> Result<Self, InvalidIssuer> {
        Self::parse(&text)
    }
}

impl From<Issuer> for String {
    fn from(issuer: Issuer) -> Self {
        issuer.0
    }
}

/// The text is not a valid issuer.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("issuer `{issuer}` {reason}")]
pub struct InvalidIssuer {
    issuer: String,
    reason: String,
}

#[cfg(test)]
mod tests;
