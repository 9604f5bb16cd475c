//! JWK sets (RFC 7517 section 5): received and published.

use std::collections::{BTreeMap, btree_map::Entry};

use serde::{Deserialize, Serialize};

use super::{
    json,
    jwk::{Algorithm, InvalidJwk, Jwk},
    kid::Kid,
    left_out::{LeftOut, Unreadable},
    public_key::PublicKey,
};
use crate::core::text::redaction::{brief, printable};

/// Most keys in a published set: Microsoft Entra stores only the first 100 that it downloads.
pub const MAX_KEYS: usize = 100;

/// Which keys a target gets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Profile {
    /// RS256 keys only, which Microsoft Entra supports.
    #[default]
    Entra,
    /// Every key of the sources.
    All,
}

impl Profile {
    pub const ALL: [Self; 2] = [Self::Entra, Self::All];

    /// The name in flags and configuration.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Entra => "entra",
            Self::All => "all",
        }
    }

    /// Whether this profile publishes the key.
    #[must_use]
    pub fn includes(self, key: &Jwk) -> bool {
        match self {
            Self::Entra => key.algorithm() == Algorithm::RS256,
            Self::All => true,
        }
    }
}

/// A published set: unique kids in sorted order, at least one key, at most [`MAX_KEYS`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JwkSet(BTreeMap<Kid, Jwk>);

impl JwkSet {
    /// Collects keys into a set; duplicates are merged.
    ///
    /// # Errors
    ///
    /// Fails without keys, with more than [`MAX_KEYS`], and if one kid names two different keys.
    pub fn new(keys: impl IntoIterator<Item = Jwk>) -> Result<Self, InvalidJwkSet> {
        let mut set = BTreeMap::new();
        for key in keys {
            match set.entry(key.kid().clone()) {
                Entry::Vacant(entry) => {
                    entry.insert(key);
                }
                Entry::Occupied(entry) if *entry.get() == key => {}
                Entry::Occupied(entry) => return Err(InvalidJwkSet::Ambiguous { kid: entry.key().clone() }),
            }
        }
        match set.len() {
            0 => Err(InvalidJwkSet::Empty),
            1..=MAX_KEYS => Ok(Self(set)),
            count => Err(InvalidJwkSet::TooMany { count }),
        }
    }

    pub fn iter(&self) -> impl Iterator<Item = &Jwk> {
        self.0.values()
    }

    pub fn kids(&self) -> impl Iterator<Item = &Kid> {
        self.0.keys()
    }

    #[must_use]
    pub fn get(&self, kid: &Kid) -> Option<&Jwk> {
        self.0.get(kid)
    }

    #[must_use]
    pub fn contains(&self, kid: &Kid) -> bool {
        self.0.contains_key(kid)
    }

    /// Number of keys; never zero.
    #[must_use]
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// The algorithms of the keys, sorted, each once.
    #[must_use]
    pub fn algorithms(&self) -> Vec<Algorithm> {
        let mut algorithms: Vec<_> = self.iter().map(Jwk::algorithm).collect();
        algorithms.sort_unstable();
        algorithms.dedup();
        algorithms
    }

    /// Which relying parties break on RSA and EC keys in one set; `None` if there is one type.
    #[must_use]
    pub fn breaks(&self) -> Option<&'static str> {
        let is_rsa = |key: &Jwk| matches!(key.public_key(), PublicKey::Rsa { .. });
        let (rsa, ec) = (self.iter().any(is_rsa), !self.iter().all(is_rsa));
        (rsa && ec).then_some(
            "RSA and EC keys are in one set: python-jose ignores the kid and fails on the first key of the \
             other type, \
             and Entra's handling of EC keys is undocumented",
        )
    }

    /// Compact JSON, keys sorted by kid: the same keys always give the same bytes.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        #[derive(Serialize)]
        struct Document<'a> {
            keys: Vec<&'a Jwk>,
        }
        serde_json::to_vec(&Document { keys: self.iter().collect() }).expect("strings always serialise")
    }
}

/// Which relying parties break on tokens with a new algorithm; `None` if no algorithm is new.
#[must_use]
pub fn change_breaks(before: &[Algorithm], after: &[Algorithm]) -> Option<String> {
    let new: Vec<_> = after.iter().filter(|algorithm| !before.contains(algorithm)).copied().collect();
    if before.is_empty() || new.is_empty() {
        return None;
    }
    let names = new.iter().map(|algorithm| algorithm.name()).collect::<Vec<_>>().join(", ");
    let entra = if new == [Algorithm::RS256] { "" } else { "Microsoft Entra, " };
    Some(format!(
        "tokens signed with {names} are refused by {entra}readers whose algorithms were set when they were built (Spring \
         Security) and, for ten minutes after the discovery document names it, express-oauth2-jwt-bearer"
    ))
}

/// A received JWKS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReceivedJwks {
    /// The usable keys; at least one.
    pub keys: Vec<Jwk>,
    /// The unusable keys, to be warned about.
    pub left_out: Vec<LeftOut>,
}

impl ReceivedJwks {
    /// Parses a JWKS document.
    ///
    /// An unusable key is left out (RFC 7517 section 5). An unknown kind of key is no error; a malformed key
    /// may be one that was good before, and [`LeftOut::may_be`] tells which.
    ///
    /// # Errors
    ///
    /// Fails if the document is invalid, if no key is usable, and if it contains a private key: its sender
    /// must not be trusted.
    pub fn parse(bytes: &[u8]) -> Result<Self, InvalidJwks> {
        let document = json::parse(bytes).map_err(|error| {
            if json::is_ambiguous(&error) {
                InvalidJwks::Ambiguous(error.to_string())
            } else {
                InvalidJwks::NotJson(error.to_string())
            }
        })?;
        let members =
            document.get("keys").and_then(serde_json::Value::as_array).ok_or(InvalidJwks::NoKeysMember)?;
        let mut received = Self { keys: Vec::new(), left_out: Vec::new() };
        let mut odd = None;
        for (index, member) in members.iter().enumerate() {
            let number = index + 1;
            match Jwk::from_json(member) {
                Ok(key) => received.keys.push(key),
                Err(source @ InvalidJwk::Private { .. }) => return Err(InvalidJwks::Key { number, source }),
                Err(source) => {
                    received.left_out.push(left_out(number, member, &source));
                    if !matches!(source, InvalidJwk::Unknown { .. }) {
                        odd = odd.or(Some(InvalidJwks::Key { number, source }));
                    }
                }
            }
        }
        match (JwkSet::new(received.keys.clone()), odd) {
            (Ok(_), _) => Ok(received),
            (Err(InvalidJwkSet::Empty), Some(odd)) => Err(odd),
            (Err(InvalidJwkSet::Empty), None) if received.left_out.is_empty() => Err(InvalidJwks::Empty),
            (Err(InvalidJwkSet::Empty), None) => {
                Err(InvalidJwks::NothingKnown { count: received.left_out.len() })
            }
            (Err(source), _) => Err(InvalidJwks::Set(source)),
        }
    }

    /// The keys that may be in it but are unreadable.
    #[must_use]
    pub fn unreadable(&self) -> Unreadable {
        Unreadable::of(&self.left_out)
    }
}

fn left_out(number: usize, member: &serde_json::Value, refusal: &InvalidJwk) -> LeftOut {
    let named = |kid: &str| if kid.is_empty() { number.to_string() } else { brief(kid).into_owned() };
    let what = match (member.get("kid").and_then(serde_json::Value::as_str), refusal) {
        (kid, InvalidJwk::Unknown { .. }) => {
            format!("key {}: {refusal}", kid.map_or_else(|| "without a kid".to_owned(), named))
        }
        (kid, _) => format!("key {} is left out: {refusal}", kid.map_or_else(|| number.to_string(), named)),
    };
    LeftOut { what: printable(&what).into_owned(), may_be: Jwk::may_be(member, refusal) }
}

/// Why keys cannot form a set.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum InvalidJwkSet {
    #[error("no keys, expected at least one")]
    Empty,
    #[error("{count} keys, expected at most {MAX_KEYS} (Microsoft Entra reads no more)")]
    TooMany { count: usize },
    #[error("kid `{kid}` names two different keys")]
    Ambiguous { kid: Kid },
}

/// Why a document is not a usable JWKS.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum InvalidJwks {
    #[error("not JSON: {0}")]
    NotJson(String),
    /// One parser takes the first, another the last.
    #[error("{0}, expected once")]
    Ambiguous(String),
    #[error("no `keys` array, expected a JWKS")]
    NoKeysMember,
    #[error("an empty JWKS, expected at least one key")]
    Empty,
    #[error("no key of a known kind ({count} of others), expected RSA or EC on P-256, P-384 or P-521")]
    NothingKnown { count: usize },
    #[error("key {number} cannot be used")]
    Key { number: usize, source: InvalidJwk },
    #[error(transparent)]
    Set(InvalidJwkSet),
}

#[cfg(test)]
mod tests;
