//! Parses the public keys in the bytes of one file.
//!
//! OpenSSL opens the containers; the result is a `SubjectPublicKeyInfo`, checked by [`PublicKey::from_spki`].
//! Of a private key only the public half is read.

use openssl::{
    pkey::{Id, PKey, Private},
    rsa::Rsa,
    x509::X509,
};

use super::pem::{self, Block, InvalidPem};
use crate::core::{
    jose::{
        json,
        jwk::{InvalidJwk, Jwk},
        jwk_set::{InvalidJwkSet, InvalidJwks, ReceivedJwks},
        left_out::{LeftOut, Unreadable},
        public_key::{InvalidPublicKey, PublicKey},
    },
    text::{Hint, in_utf8},
};

/// The contents of one file.
#[derive(Debug, Default)]
pub struct Content {
    pub keys: Vec<Jwk>,
    /// Keys that cannot be used.
    pub left_out: Vec<LeftOut>,
    /// Descriptions of contents that are not keys.
    pub notes: Vec<String>,
}

/// Parses a file in any supported format. A file without keys is not an error yet.
///
/// # Errors
///
/// Fails when the file has the form of a key but holds no usable one, and when it holds a private key that
/// everybody may read.
pub fn parse(bytes: &[u8]) -> Result<Content, InvalidContent> {
    let text = in_utf8(bytes);
    // A file with both PEM and JSON would lose the keys of one format.
    if text.trim_ascii_start().first() == Some(&b'{') {
        return parse_json(&text);
    }
    let content = parse_pem(&text)?;
    if !content.keys.is_empty() || !content.left_out.is_empty() || !content.notes.is_empty() {
        return Ok(content);
    }
    match text.trim_ascii_start().first() {
        Some(&SEQUENCE) => parse_der(&text),
        _ => Ok(content),
    }
}

/// First byte of every DER form of a key.
pub(super) const SEQUENCE: u8 = 0x30;

fn parse_json(bytes: &[u8]) -> Result<Content, InvalidContent> {
    let value = json::parse(bytes).map_err(|error| {
        if json::is_ambiguous(&error) {
            InvalidContent::Ambiguous(error.to_string())
        } else {
            InvalidContent::NotJson { line: error.line(), column: error.column() }
        }
    })?;
    // Without `keys` and `kty` it is not a key with a missing type, but something else.
    if value.get("keys").is_some() || value.get("kty").is_none() {
        let ReceivedJwks { keys, left_out } = ReceivedJwks::parse(bytes).map_err(InvalidContent::Jwks)?;
        return Ok(Content { keys, left_out, notes: Vec::new() });
    }
    match Jwk::from_json(&value) {
        Ok(key) => Ok(Content { keys: vec![key], ..Content::default() }),
        Err(unknown @ InvalidJwk::Unknown { .. }) => {
            let left_out = LeftOut { what: unknown.to_string(), may_be: Jwk::may_be(&value, &unknown) };
            Ok(Content { left_out: vec![left_out], ..Content::default() })
        }
        Err(source) => Err(InvalidContent::Jwk(source)),
    }
}

/// A key of an unsupported type, which is never one of ours.
fn of_another_kind(what: String) -> LeftOut {
    LeftOut { what, may_be: Unreadable::default() }
}

fn parse_der(bytes: &[u8]) -> Result<Content, InvalidContent> {
    let mut content = Content::default();
    match public_key(bytes) {
        Ok(key) => content.keys.push(Jwk::of_public_key(key)),
        Err(InvalidKey::Public(InvalidPublicKey::Unsupported(what))) => {
            content.left_out.push(of_another_kind(format!("{what} is not supported")));
        }
        Err(source) => return Err(InvalidContent::Der(source)),
    }
    Ok(content)
}

fn parse_pem(bytes: &[u8]) -> Result<Content, InvalidContent> {
    let mut content = Content::default();
    let mut odd = None;
    for (index, block) in pem::blocks(bytes).into_iter().enumerate() {
        let number = index + 1;
        let refusal = match block.map_err(InvalidContent::Pem) {
            Ok(block) => match key_of(&block) {
                Ok(Some(key)) => {
                    content.keys.push(Jwk::of_public_key(key));
                    continue;
                }
                // `openssl ecparam -genkey` writes this block before the key that repeats it.
                Ok(None) if block.label == "EC PARAMETERS" => continue,
                Ok(None) => {
                    content.notes.push(format!("block {number} (`{}`) is not a key, skipped", block.label));
                    continue;
                }
                Err(InvalidKey::Public(InvalidPublicKey::Unsupported(what))) => {
                    let what = format!("block {number} (`{}`): {what} is not supported", block.label);
                    content.left_out.push(of_another_kind(what));
                    continue;
                }
                Err(source) => InvalidContent::Block { number, label: block.label, source },
            },
            Err(refusal) => refusal,
        };
        let what = match &refusal {
            InvalidContent::Block { number, label, source } => {
                format!("block {number} (`{label}`) is left out: {source}")
            }
            other => format!("left out: {other}"),
        };
        let is_weak = matches!(
            refusal,
            InvalidContent::Block { source: InvalidKey::Public(InvalidPublicKey::Weak { .. }), .. }
        );
        // A weak key is never one of ours.
        let may_be = if is_weak { Unreadable::default() } else { Unreadable::anything() };
        content.left_out.push(LeftOut { what, may_be });
        odd = odd.or(Some(refusal));
    }
    match odd {
        Some(odd) if content.keys.is_empty() => Err(odd),
        _ => Ok(content),
    }
}

/// The public key of a block; `None` for blocks that are not keys.
fn key_of(block: &Block) -> Result<Option<PublicKey>, InvalidKey> {
    match block.label.as_str() {
        "ENCRYPTED PRIVATE KEY" | "PRIVATE KEY" | "RSA PRIVATE KEY" | "EC PRIVATE KEY" if block.encrypted => {
            Err(InvalidKey::Encrypted)
        }
        "PUBLIC KEY" | "RSA PUBLIC KEY" => public_key(&block.der).map(Some),
        "CERTIFICATE" => {
            let certificate = X509::from_der(&block.der).and_then(|it| it.public_key());
            spki(certificate).map(Some)
        }
        "PRIVATE KEY" | "RSA PRIVATE KEY" | "EC PRIVATE KEY" => {
            let key = PKey::private_key_from_der(&block.der);
            // The file repeats its public key, which may not match the private one.
            let is_whole = |key: &PKey<Private>| key.ec_key().is_ok_and(|ec| ec.check_key().is_ok());
            if key.as_ref().is_ok_and(|key| key.id() == Id::EC && !is_whole(key)) {
                return Err(InvalidKey::Halves);
            }
            spki(key).map(Some)
        }
        _ => Ok(None),
    }
}

/// Parses PKCS#1 or `SubjectPublicKeyInfo`; both occur under either label, and neither parses as the other.
fn public_key(der: &[u8]) -> Result<PublicKey, InvalidKey> {
    match Rsa::public_key_from_der_pkcs1(der) {
        Ok(rsa) => spki(PKey::from_rsa(rsa)),
        Err(_) => Ok(PublicKey::from_spki(der)?),
    }
}

fn spki<T: openssl::pkey::HasPublic>(
    key: Result<PKey<T>, openssl::error::ErrorStack>,
) -> Result<PublicKey, InvalidKey> {
    // The cause is dropped: OpenSSL's messages may quote a private key.
    let der = key.and_then(|key| key.public_key_to_der()).map_err(|_| InvalidKey::Unreadable)?;
    Ok(PublicKey::from_spki(&der)?)
}

/// A file has the form of keys, but they cannot be used.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum InvalidContent {
    #[error("not JSON at line {line}, column {column}, expected a JWKS")]
    NotJson { line: usize, column: usize },
    #[error("{0}, expected once")]
    Ambiguous(String),
    #[error(transparent)]
    Jwks(InvalidJwks),
    #[error(transparent)]
    Jwk(InvalidJwk),
    #[error(transparent)]
    Pem(InvalidPem),
    #[error("block {number} (`{label}`) cannot be used")]
    Block { number: usize, label: String, source: InvalidKey },
    #[error("not a DER public key")]
    Der(#[source] InvalidKey),
}

impl Hint for InvalidContent {
    fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Block { source: InvalidKey::Encrypted, .. } => {
                "give the public half: `openssl pkey -in KEY -pubout`"
            }
            Self::Jwk(InvalidJwk::Private { .. })
            | Self::Jwks(InvalidJwks::Key { source: InvalidJwk::Private { .. }, .. }) => {
                "remove the private key from here and pass a JWKS with only public members"
            }
            Self::Jwks(InvalidJwks::Key {
                source: InvalidJwk::Key(InvalidPublicKey::Weak { .. }), ..
            })
            | Self::Jwk(InvalidJwk::Key(InvalidPublicKey::Weak { .. }))
            | Self::Block { source: InvalidKey::Public(InvalidPublicKey::Weak { .. }), .. }
            | Self::Der(InvalidKey::Public(InvalidPublicKey::Weak { .. })) => {
                "replace the signing key of the cluster by one of at least 2048 bits"
            }
            Self::Pem(_) | Self::Block { .. } | Self::Der(_) => {
                "copy the file again from its origin; `openssl pkey -pubin -in FILE -noout` checks a public key"
            }
            Self::Jwks(InvalidJwks::NothingKnown { .. }) => {
                "name a key that kube-apiserver can sign with: RSA, P-256, P-384 or P-521"
            }
            Self::Jwks(InvalidJwks::Set(InvalidJwkSet::TooMany { .. })) => {
                "remove keys that no live token needs"
            }
            Self::Jwks(InvalidJwks::Set(_)) => {
                "give each key its own kid; omit `kid` to use the one that Kubernetes derives"
            }
            Self::NotJson { .. } | Self::Ambiguous(_) | Self::Jwks(_) | Self::Jwk(_) => {
                "fetch it again: `kubectl get --raw /openid/v1/jwks`"
            }
        };
        Some(hint.to_owned())
    }
}

/// A container yields no public key.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum InvalidKey {
    #[error("the private key is encrypted, expected a public key")]
    Encrypted,
    #[error("not the DER that its label promises")]
    Unreadable,
    #[error("the public key in it is not that of its private key")]
    Halves,
    #[error(transparent)]
    Public(#[from] InvalidPublicKey),
}

#[cfg(test)]
mod tests;
