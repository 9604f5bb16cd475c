//! A signed announcement: a JWS with a signature by every key of its node.
//!
//! JSON serialization (RFC 7515 section 7.2.1). `typ` separates it from the tokens that the same keys sign:
//! the node writes the header of a token itself, and never uses this type there.

use std::{collections::BTreeSet, sync::Arc};

use base64ct::{Base64UrlUnpadded, Encoding as _};
use serde::{Deserialize, Serialize};

use super::{Announcement, MAX_KEYS_PER_NODE};
use crate::core::{
    jose::{
        jwk::Jwk,
        kid::Kid,
        stored::{self, InvalidDocument},
    },
    text::redaction::brief,
};

/// `typ` of the protected headers (RFC 7515 section 4.1.9).
const TYPE: &str = "signpost-announcement";

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Jws {
    payload: String,
    signatures: Vec<Signed>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Signed {
    protected: String,
    signature: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    alg: String,
    kid: Kid,
    typ: String,
}

/// An announcement that is being signed.
pub struct AnnouncementSigner {
    payload: String,
    signatures: Vec<Signed>,
}

impl AnnouncementSigner {
    #[must_use]
    pub fn new(announcement: &Announcement) -> Self {
        let payload = Base64UrlUnpadded::encode_string(&announcement.to_json());
        Self { payload, signatures: Vec::new() }
    }

    /// Adds the signature that `sign` computes over the given bytes with the private key of `key`.
    ///
    /// # Errors
    ///
    /// Fails as `sign` does.
    pub fn sign<E>(&mut self, key: &Jwk, sign: impl FnOnce(&[u8]) -> Result<Vec<u8>, E>) -> Result<(), E> {
        let (alg, kid) = (key.algorithm().name().to_owned(), key.kid().clone());
        let header = serde_json::to_vec(&Header { alg, kid, typ: TYPE.to_owned() });
        let protected = Base64UrlUnpadded::encode_string(&header.expect("strings always serialise"));
        let signature = sign(format!("{protected}.{}", self.payload).as_bytes())?;
        let signature = Base64UrlUnpadded::encode_string(&signature);
        self.signatures.push(Signed { protected, signature });
        Ok(())
    }

    /// The JWS in JSON serialization.
    #[must_use]
    pub fn to_json(self) -> Vec<u8> {
        let Self { payload, signatures } = self;
        stored::to_json(&Jws { payload, signatures })
    }
}

/// An announcement and the keys that have signed it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedAnnouncement {
    announcement: Announcement,
    signed_by: BTreeSet<Kid>,
    json: Arc<[u8]>,
}

impl SignedAnnouncement {
    /// Reads a signed announcement and verifies all its signatures.
    ///
    /// A signature counts only for a key of the announcement itself whose kid is derived from the key; so the
    /// kid identifies the signer.
    ///
    /// # Errors
    ///
    /// Fails if it is damaged, if a newer version wrote it, and if one signature is invalid.
    pub fn read(bytes: &[u8]) -> Result<Self, InvalidSignedAnnouncement> {
        let jws: Jws = serde_json::from_slice(bytes)
            .map_err(|error| InvalidSignedAnnouncement::Jws(brief(&error.to_string()).into_owned()))?;
        let count = jws.signatures.len();
        if count > MAX_KEYS_PER_NODE {
            return Err(InvalidSignedAnnouncement::TooMany { count });
        }
        let payload =
            Base64UrlUnpadded::decode_vec(&jws.payload).map_err(|_| InvalidSignedAnnouncement::Encoding)?;
        let announcement = Announcement::parse(&payload)?;
        let mut signed_by = BTreeSet::new();
        for Signed { protected, signature } in &jws.signatures {
            let header =
                Base64UrlUnpadded::decode_vec(protected).map_err(|_| InvalidSignedAnnouncement::Encoding)?;
            let header: Header = serde_json::from_slice(&header)
                .map_err(|error| InvalidSignedAnnouncement::Header(brief(&error.to_string()).into_owned()))?;
            let signature =
                Base64UrlUnpadded::decode_vec(signature).map_err(|_| InvalidSignedAnnouncement::Encoding)?;
            let key = announcement.keys().get(&header.kid).map(|key| &key.jwk);
            let key = key.filter(|key| {
                let message = format!("{protected}.{}", jws.payload);
                header.typ == TYPE
                    && header.alg == key.algorithm().name()
                    && key.has_derived_kid()
                    && key.verifies(message.as_bytes(), &signature)
            });
            match key {
                Some(key) => drop(signed_by.insert(key.kid().clone())),
                None => return Err(InvalidSignedAnnouncement::Signature { kid: header.kid }),
            }
        }
        Ok(Self { announcement, signed_by, json: bytes.into() })
    }

    /// As [`Self::read`], but does not verify the same bytes again.
    ///
    /// # Errors
    ///
    /// Fails as [`Self::read`] does.
    pub fn read_again(bytes: &[u8], before: Option<Self>) -> Result<Self, InvalidSignedAnnouncement> {
        before.filter(|before| before.json() == bytes).map_or_else(|| Self::read(bytes), Ok)
    }

    /// An announcement that counts as signed by these keys, without private keys.
    #[cfg(test)]
    #[must_use]
    pub fn by(announcement: Announcement, signed_by: BTreeSet<Kid>) -> Self {
        let json = announcement.to_json().into();
        Self { announcement, signed_by, json }
    }

    /// The bytes as read.
    #[must_use]
    pub fn json(&self) -> &[u8] {
        &self.json
    }

    #[must_use]
    pub fn announcement(&self) -> &Announcement {
        &self.announcement
    }

    /// The keys of the announcement that have signed it.
    #[must_use]
    pub fn signed_by(&self) -> &BTreeSet<Kid> {
        &self.signed_by
    }

    /// Whether one of these keys has signed it.
    #[must_use]
    pub fn is_signed_by_any(&self, kids: &BTreeSet<Kid>) -> bool {
        !self.signed_by.is_disjoint(kids)
    }
}

/// The signed announcement is invalid.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum InvalidSignedAnnouncement {
    #[error("not a signed announcement (JWS in JSON serialization): {0}")]
    Jws(String),
    /// Each costs a verification.
    #[error("{count} signatures, a node has at most {MAX_KEYS_PER_NODE} keys")]
    TooMany { count: usize },
    #[error("not base64url without padding")]
    Encoding,
    #[error("unexpected protected header: {0}")]
    Header(String),
    #[error("the signature of key `{kid}` does not verify")]
    Signature { kid: Kid },
    #[error(transparent)]
    Announcement(#[from] InvalidDocument),
}

#[cfg(test)]
mod tests;
