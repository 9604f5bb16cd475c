//! The public keys in the bytes of one file.
//!
//! OpenSSL opens the containers; what leaves is a `SubjectPublicKeyInfo`, checked by
//! [`PublicKey::from_spki`]. Private keys are read for their public half alone.

use openssl::{pkey::PKey, rsa::Rsa, x509::X509};

use super::pem::{self, Block, InvalidPem};
use crate::core::{
    json,
    jwk::{InvalidJwk, Jwk},
    jwk_set::{InvalidJwkSet, InvalidJwks, ReceivedJwks},
    public_key::{InvalidPublicKey, PublicKey},
};

/// What one file holds.
#[derive(Debug)]
pub struct Content {
    pub keys: Vec<Jwk>,
    /// What was no key, or one of a kind that is not known here, in words.
    pub left_out: Vec<String>,
}

/// Reads a file in whichever form it has. Without any key it is not an error yet.
///
/// # Errors
///
/// Fails when one part of it has the form of a key and is none that can be used.
pub fn parse(bytes: &[u8]) -> Result<Content, InvalidContent> {
    let content = parse_pem(bytes)?;
    if !content.keys.is_empty() || !content.left_out.is_empty() {
        return Ok(content);
    }
    match bytes.trim_ascii_start().first() {
        Some(b'{') => parse_json(bytes),
        Some(&SEQUENCE) => parse_der(bytes),
        _ => Ok(content),
    }
}

/// First byte of every DER form of a key.
const SEQUENCE: u8 = 0x30;

fn parse_json(bytes: &[u8]) -> Result<Content, InvalidContent> {
    let value = json::parse(bytes).map_err(|error| {
        if json::is_ambiguous(&error) {
            InvalidContent::Ambiguous(error.to_string())
        } else {
            InvalidContent::NotJson { line: error.line(), column: error.column() }
        }
    })?;
    // Without either member it is no key that lacks its type, but something else.
    if value.get("keys").is_some() || value.get("kty").is_none() {
        let received = ReceivedJwks::parse(bytes).map_err(InvalidContent::Jwks)?;
        return Ok(Content { keys: received.keys, left_out: received.left_out });
    }
    match Jwk::from_json(&value) {
        Ok(key) => Ok(Content { keys: vec![key], left_out: Vec::new() }),
        Err(unknown @ InvalidJwk::Unknown { .. }) => {
            Ok(Content { keys: Vec::new(), left_out: vec![unknown.to_string()] })
        }
        Err(source) => Err(InvalidContent::Jwk(source)),
    }
}

fn parse_der(bytes: &[u8]) -> Result<Content, InvalidContent> {
    let mut content = Content { keys: Vec::new(), left_out: Vec::new() };
    match public_key(bytes) {
        Ok(key) => content.keys.push(Jwk::of_public_key(key)),
        Err(InvalidKey::Public(InvalidPublicKey::Unsupported(what))) => {
            content.left_out.push(format!("{what} is not known here"));
        }
        Err(source) => return Err(InvalidContent::Der(source)),
    }
    Ok(content)
}

fn parse_pem(bytes: &[u8]) -> Result<Content, InvalidContent> {
    let mut content = Content { keys: Vec::new(), left_out: Vec::new() };
    for (index, block) in pem::blocks(bytes)?.iter().enumerate() {
        let (number, label) = (index + 1, &block.label);
        match key_of(block) {
            Ok(Some(key)) => content.keys.push(Jwk::of_public_key(key)),
            // What `openssl ecparam -genkey` writes before the key that repeats it.
            Ok(None) if label == "EC PARAMETERS" => {}
            Ok(None) => content.left_out.push(format!("block {number} (`{label}`) is no key, skipped")),
            Err(InvalidKey::Public(InvalidPublicKey::Unsupported(what))) => {
                content.left_out.push(format!("block {number} (`{label}`): {what} is not known here"));
            }
            Err(source) => {
                return Err(InvalidContent::Block { number, label: label.clone(), source });
            }
        }
    }
    Ok(content)
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
            spki(PKey::private_key_from_der(&block.der)).map(Some)
        }
        _ => Ok(None),
    }
}

/// Reads PKCS#1 or `SubjectPublicKeyInfo`; both stand under either label, and neither is ever the other.
fn public_key(der: &[u8]) -> Result<PublicKey, InvalidKey> {
    match Rsa::public_key_from_der_pkcs1(der) {
        Ok(rsa) => spki(PKey::from_rsa(rsa)),
        Err(_) => Ok(PublicKey::from_spki(der)?),
    }
}

fn spki<T: openssl::pkey::HasPublic>(
    key: Result<PKey<T>, openssl::error::ErrorStack>,
) -> Result<PublicKey, InvalidKey> {
    // The cause is not given: OpenSSL's words about a private key are not ours to print.
    let der = key.and_then(|key| key.public_key_to_der()).map_err(|_| InvalidKey::Unreadable)?;
    Ok(PublicKey::from_spki(&der)?)
}

/// A file has the form of keys, but they cannot be used.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
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
    Pem(#[from] InvalidPem),
    #[error("block {number} (`{label}`) cannot be used")]
    Block { number: usize, label: String, source: InvalidKey },
    #[error("not a DER public key")]
    Der(#[source] InvalidKey),
}

impl InvalidContent {
    /// What to do about it.
    pub(super) fn hint(&self) -> &'static str {
        match self {
            Self::Block { source: InvalidKey::Encrypted, .. } => {
                "give the public half: `openssl pkey -in KEY -pubout`"
            }
            Self::Jwk(InvalidJwk::Private { .. })
            | Self::Jwks(InvalidJwks::Key { source: InvalidJwk::Private { .. }, .. }) => {
                "keep the private key away from here and give a JWKS of public members alone"
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
                "copy the file anew from where it was made; `openssl pkey -pubin -in FILE -noout` checks a public key"
            }
            Self::Jwks(InvalidJwks::NothingKnown { .. }) => {
                "name a key that kube-apiserver can sign with: RSA, P-256, P-384 or P-521"
            }
            Self::Jwks(InvalidJwks::Set(InvalidJwkSet::TooMany { .. })) => {
                "leave keys out that no live token needs"
            }
            Self::Jwks(InvalidJwks::Set(_)) => {
                "give each key its own kid; leave `kid` out to have the one that Kubernetes derives"
            }
            Self::NotJson { .. } | Self::Ambiguous(_) | Self::Jwks(_) | Self::Jwk(_) => {
                "fetch it anew: `kubectl get --raw /openid/v1/jwks`"
            }
        }
    }
}

/// A container does not give a public key.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum InvalidKey {
    #[error("the private key is encrypted, expected a public key")]
    Encrypted,
    #[error("not the DER that its label promises")]
    Unreadable,
    #[error(transparent)]
    Public(#[from] InvalidPublicKey),
}

#[cfg(test)]
mod tests;
