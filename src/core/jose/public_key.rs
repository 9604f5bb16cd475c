//! Public keys: the validated parameters of an RSA or elliptic-curve key.
//!
//! Private keys have another type in another module (`crate::signer`). The `rsa` and `p256` family of crates
//! only parse, encode and validate here: `docs/decisions/0002-one-crypto-stack.md`.

use std::fmt;

use p256::{elliptic_curve::sec1::ToSec1Point as _, pkcs8::EncodePublicKey as _};
use rsa::{
    BigUint, RsaPublicKey,
    pkcs8::{
        EncodePublicKey as _, ObjectIdentifier,
        der::{Decode as _, asn1::AnyRef},
        spki::SubjectPublicKeyInfoRef,
    },
    traits::PublicKeyParts as _,
};

use super::kid::Kid;

/// Smallest RSA modulus that is published, in bits: the minimum of RFC 7518 section 3.3.
const MIN_RSA_BITS: usize = 2048;
/// Largest RSA modulus that is read, in bits; a larger one only costs relying parties time.
const MAX_RSA_BITS: usize = 16_384;

const RSA_ENCRYPTION: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
const EC_PUBLIC_KEY: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");

/// A curve that Kubernetes signs with (RFC 7518 section 6.2.1.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Curve {
    P256,
    P384,
    P521,
}

impl Curve {
    pub const ALL: [Self; 3] = [Self::P256, Self::P384, Self::P521];

    /// The `crv` member of a JWK.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::P256 => "P-256",
            Self::P384 => "P-384",
            Self::P521 => "P-521",
        }
    }

    /// Length of one coordinate, in bytes.
    fn coordinate_length(self) -> usize {
        match self {
            Self::P256 => 32,
            Self::P384 => 48,
            Self::P521 => 66,
        }
    }

    fn object_identifier(self) -> ObjectIdentifier {
        ObjectIdentifier::new_unwrap(match self {
            Self::P256 => "1.2.840.10045.3.1.7",
            Self::P384 => "1.3.132.0.34",
            Self::P521 => "1.3.132.0.35",
        })
    }
}

/// A verification key.
///
/// Invariant: RSA with an odd modulus of 2048 to 16384 bits and a valid exponent, or a point on one of three
/// curves. Numbers are big-endian; RSA without leading zeros, coordinates at full length.
#[derive(Clone, PartialEq, Eq, Hash)]
pub enum PublicKey {
    Rsa { n: Vec<u8>, e: Vec<u8> },
    Ec { curve: Curve, x: Vec<u8>, y: Vec<u8> },
}

impl PublicKey {
    /// Parses a DER `SubjectPublicKeyInfo` (RFC 5280 section 4.1).
    ///
    /// # Errors
    ///
    /// Fails if it is malformed, too weak, or of a kind that Kubernetes does not sign with.
    pub fn from_spki(der: &[u8]) -> Result<Self, InvalidPublicKey> {
        let info = SubjectPublicKeyInfoRef::from_der(der)
            .map_err(|_| InvalidPublicKey::Malformed("not a `SubjectPublicKeyInfo`"))?;
        let bits = info
            .subject_public_key
            .as_bytes()
            .ok_or(InvalidPublicKey::Malformed("its bit string is not whole bytes"))?;
        match info.algorithm.oid {
            RSA_ENCRYPTION => {
                let key = rsa::pkcs1::RsaPublicKey::from_der(bits)
                    .map_err(|_| InvalidPublicKey::Malformed("not a PKCS#1 RSA public key"))?;
                Self::rsa(key.modulus.as_bytes(), key.public_exponent.as_bytes())
            }
            EC_PUBLIC_KEY => {
                let named = info.algorithm.parameters.and_then(named_curve);
                let curve = Curve::ALL
                    .into_iter()
                    .find(|curve| named == Some(curve.object_identifier()))
                    .ok_or_else(|| {
                        InvalidPublicKey::Unsupported("a curve other than P-256, P-384, P-521".to_owned())
                    })?;
                Self::from_point(curve, bits)
            }
            other => Err(InvalidPublicKey::Unsupported(named_algorithm(other))),
        }
    }

    /// Validates the parameters of an RSA key.
    ///
    /// # Errors
    ///
    /// Fails if the modulus is shorter than 2048 bits, or if the numbers cannot be an RSA key.
    pub fn rsa(n: &[u8], e: &[u8]) -> Result<Self, InvalidPublicKey> {
        let modulus = BigUint::from_bytes_be(n);
        let bits = modulus.bits();
        if bits < MIN_RSA_BITS {
            return Err(InvalidPublicKey::Weak { bits });
        }
        let key = RsaPublicKey::new_with_max_size(modulus, BigUint::from_bytes_be(e), MAX_RSA_BITS)
            .map_err(|_| InvalidPublicKey::Malformed("modulus or exponent cannot be an RSA key"))?;
        Ok(Self::Rsa { n: key.n().to_bytes_be(), e: key.e().to_bytes_be() })
    }

    /// Validates the coordinates of a point.
    ///
    /// # Errors
    ///
    /// Fails if a coordinate has the wrong length (RFC 7518 section 6.2.1.2), or if the point is not on the
    /// curve.
    pub fn ec(curve: Curve, x: &[u8], y: &[u8]) -> Result<Self, InvalidPublicKey> {
        let length = curve.coordinate_length();
        if x.len() != length || y.len() != length {
            return Err(InvalidPublicKey::Malformed("a coordinate has the wrong length for its curve"));
        }
        Self::from_point(curve, &[&[4], x, y].concat())
    }

    fn from_point(curve: Curve, sec1: &[u8]) -> Result<Self, InvalidPublicKey> {
        let on_curve = match curve {
            Curve::P256 => {
                p256::PublicKey::from_sec1_bytes(sec1).map(|key| key.to_sec1_point(false).to_bytes())
            }
            Curve::P384 => {
                p384::PublicKey::from_sec1_bytes(sec1).map(|key| key.to_sec1_point(false).to_bytes())
            }
            Curve::P521 => {
                p521::PublicKey::from_sec1_bytes(sec1).map(|key| key.to_sec1_point(false).to_bytes())
            }
        };
        let point = on_curve.map_err(|_| InvalidPublicKey::Malformed("the point is not on its curve"))?;
        let (x, y) = point[1..].split_at(curve.coordinate_length());
        Ok(Self::Ec { curve, x: x.to_vec(), y: y.to_vec() })
    }

    /// The DER `SubjectPublicKeyInfo`, always encoded anew: a key ID must not depend on the encoding of the
    /// input.
    #[must_use]
    pub fn to_spki(&self) -> Vec<u8> {
        const CHECKED: &str = "the constructor checked the numbers";
        match self {
            Self::Rsa { n, e } => {
                RsaPublicKey::new_unchecked(BigUint::from_bytes_be(n), BigUint::from_bytes_be(e))
                    .to_public_key_der()
                    .expect(CHECKED)
                    .into_vec()
            }
            Self::Ec { curve, x, y } => {
                let point = [&[4], x.as_slice(), y.as_slice()].concat();
                match curve {
                    Curve::P256 => {
                        p256::PublicKey::from_sec1_bytes(&point).expect(CHECKED).to_public_key_der()
                    }
                    Curve::P384 => {
                        p384::PublicKey::from_sec1_bytes(&point).expect(CHECKED).to_public_key_der()
                    }
                    Curve::P521 => {
                        p521::PublicKey::from_sec1_bytes(&point).expect(CHECKED).to_public_key_der()
                    }
                }
                .expect(CHECKED)
                .into_vec()
            }
        }
    }

    /// The key ID that Kubernetes derives for this key.
    #[must_use]
    pub fn kid(&self) -> Kid {
        Kid::of_public_key(&self.to_spki())
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rsa { n, .. } => write!(f, "PublicKey(RSA {} {})", n.len() * 8, self.kid()),
            Self::Ec { curve, .. } => write!(f, "PublicKey({} {})", curve.name(), self.kid()),
        }
    }
}

/// The names of common unsupported algorithms (RFC 8410, RFC 9881, RFC 4055).
fn named_algorithm(identifier: ObjectIdentifier) -> String {
    let text = identifier.to_string();
    let name = match text.as_str() {
        "1.3.101.112" => "Ed25519",
        "1.3.101.113" => "Ed448",
        "1.2.840.113549.1.1.10" => "RSASSA-PSS",
        "2.16.840.1.101.3.4.3.17" => "ML-DSA-44",
        "2.16.840.1.101.3.4.3.18" => "ML-DSA-65",
        "2.16.840.1.101.3.4.3.19" => "ML-DSA-87",
        _ => return format!("algorithm {text}"),
    };
    format!("algorithm {name}")
}

fn named_curve(parameters: AnyRef<'_>) -> Option<ObjectIdentifier> {
    parameters.decode_as().ok()
}

/// The bytes or numbers are not a public key that can be published.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum InvalidPublicKey {
    #[error("malformed public key: {0}")]
    Malformed(&'static str),
    #[error("RSA key has {bits} bits, expected at least 2048")]
    Weak { bits: usize },
    #[error("unsupported public key: {0}")]
    Unsupported(String),
}

#[cfg(test)]
mod tests;
