//! JSON Web Keys (RFC 7517), public members only, printed as `kube-apiserver` prints them.

use base64ct::{Base64UrlUnpadded, Encoding as _};
use josekit::{
    JoseError,
    jws::{ES256, ES384, ES512, JwsVerifier, RS256, RS384, RS512},
};
use serde::{Deserialize, Serialize};

use super::{
    kid::{InvalidKid, Kid},
    left_out::Unreadable,
    public_key::{Curve, InvalidPublicKey, PublicKey},
};
use crate::core::text::redaction::brief;

/// Members that only a private key has (RFC 7518 sections 6.2.2, 6.3.2 and 6.4.1).
pub(in crate::core) const PRIVATE_MEMBERS: [&str; 8] = ["d", "p", "q", "dp", "dq", "qi", "oth", "k"];

/// Members that define a public key, without its kid and use.
const KEY_NUMBERS: [&str; 6] = ["kty", "crv", "x", "y", "n", "e"];

/// A signature algorithm (RFC 7518 section 3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Algorithm {
    ES256,
    ES384,
    ES512,
    RS256,
    RS384,
    RS512,
}

impl Algorithm {
    const ALL: [Self; 6] = [Self::ES256, Self::ES384, Self::ES512, Self::RS256, Self::RS384, Self::RS512];

    /// The `alg` member.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::ES256 => "ES256",
            Self::ES384 => "ES384",
            Self::ES512 => "ES512",
            Self::RS256 => "RS256",
            Self::RS384 => "RS384",
            Self::RS512 => "RS512",
        }
    }

    /// The algorithm that Kubernetes signs with, given this key.
    /// Source: `signerFromRSAPrivateKey` and its neighbours in `kubernetes/pkg/serviceaccount/jwt.go`.
    #[must_use]
    pub fn of_key(key: &PublicKey) -> Self {
        match key {
            PublicKey::Rsa { .. } => Self::RS256,
            PublicKey::Ec { curve: Curve::P256, .. } => Self::ES256,
            PublicKey::Ec { curve: Curve::P384, .. } => Self::ES384,
            PublicKey::Ec { curve: Curve::P521, .. } => Self::ES512,
        }
    }

    fn fits(self, key: &PublicKey) -> bool {
        match key {
            PublicKey::Rsa { .. } => matches!(self, Self::RS256 | Self::RS384 | Self::RS512),
            PublicKey::Ec { .. } => self == Self::of_key(key),
        }
    }
}

/// A verification key with its ID and algorithm.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Jwk {
    kid: Kid,
    algorithm: Algorithm,
    key: PublicKey,
    /// Whether Kubernetes derives `kid` from `key`; stored because deriving costs a hash.
    derived: bool,
}

impl Jwk {
    /// The JWK that `kube-apiserver` derives from a public key.
    #[must_use]
    pub fn of_public_key(key: PublicKey) -> Self {
        Self { kid: key.kid(), algorithm: Algorithm::of_key(&key), key, derived: true }
    }

    #[must_use]
    pub fn kid(&self) -> &Kid {
        &self.kid
    }

    #[must_use]
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    #[must_use]
    pub fn public_key(&self) -> &PublicKey {
        &self.key
    }

    /// Whether the ID is the one that Kubernetes derives; any other ID is kept as reported.
    #[must_use]
    pub fn has_derived_kid(&self) -> bool {
        self.derived
    }

    /// Whether this key verifies a JWS signature (RFC 7515 section 5.2), with its own algorithm only.
    #[must_use]
    pub fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        let spki = self.key.to_spki();
        match self.algorithm {
            Algorithm::RS256 => verifies(RS256.verifier_from_der(spki), message, signature),
            Algorithm::RS384 => verifies(RS384.verifier_from_der(spki), message, signature),
            Algorithm::RS512 => verifies(RS512.verifier_from_der(spki), message, signature),
            Algorithm::ES256 => verifies(ES256.verifier_from_der(spki), message, signature),
            Algorithm::ES384 => verifies(ES384.verifier_from_der(spki), message, signature),
            Algorithm::ES512 => verifies(ES512.verifier_from_der(spki), message, signature),
        }
    }

    /// Parses one member of a JWKS.
    ///
    /// # Errors
    ///
    /// [`InvalidJwk::Unknown`] for a well-formed key of an unknown kind, which must not invalidate the
    /// others; any other error means that the sender is broken.
    pub fn from_json(value: &serde_json::Value) -> Result<Self, InvalidJwk> {
        if let Some(member) = PRIVATE_MEMBERS.iter().find(|member| value.get(member).is_some()) {
            return Err(InvalidJwk::Private { member });
        }
        let malformed = |what: &str| InvalidJwk::Malformed { what: what.to_owned() };
        let members = value.as_object().ok_or_else(|| malformed("it is not an object"))?;
        if !members.contains_key("kty") {
            return Err(malformed("member `kty` is missing"));
        }
        let raw: RawJwk = serde_json::from_value(value.clone())
            .map_err(|error| InvalidJwk::Malformed { what: brief(&error.to_string()).into_owned() })?;
        if raw.usage.as_deref().is_some_and(|usage| usage != "sig") {
            return Err(InvalidJwk::Unknown {
                what: format!("use `{}`", brief(&raw.usage.unwrap_or_default())),
            });
        }
        // RFC 7517 section 4.3.
        let operations = members.get("key_ops").and_then(serde_json::Value::as_array);
        if operations.is_some_and(|operations| operations.iter().all(|operation| operation != "verify")) {
            return Err(InvalidJwk::Unknown { what: "`key_ops` without `verify`".to_owned() });
        }
        let key = match raw.kty.as_str() {
            "RSA" => PublicKey::rsa(&number(raw.n.as_ref(), "n")?, &number(raw.e.as_ref(), "e")?)?,
            "EC" => {
                let name = raw.crv.unwrap_or_default();
                let Some(curve) = Curve::ALL.into_iter().find(|curve| curve.name() == name) else {
                    return Err(InvalidJwk::Unknown { what: format!("curve `{}`", brief(&name)) });
                };
                PublicKey::ec(curve, &number(raw.x.as_ref(), "x")?, &number(raw.y.as_ref(), "y")?)?
            }
            other => return Err(InvalidJwk::Unknown { what: format!("key type `{}`", brief(other)) }),
        };
        let algorithm = match raw.alg {
            None => Algorithm::of_key(&key),
            Some(name) => Algorithm::ALL
                .into_iter()
                .find(|algorithm| algorithm.name() == name && algorithm.fits(&key))
                .ok_or_else(|| InvalidJwk::Unknown { what: format!("algorithm `{}`", brief(&name)) })?,
        };
        let derived = key.kid();
        let kid = raw.kid.map_or_else(|| Ok(derived.clone()), |kid| Kid::parse(&kid))?;
        Ok(Self { derived: kid == derived, kid, algorithm, key })
    }

    /// Which keys a member may be that [`Jwk::from_json`] rejects.
    #[must_use]
    pub fn may_be(value: &serde_json::Value, refusal: &InvalidJwk) -> Unreadable {
        let kid = value.get("kid").and_then(serde_json::Value::as_str);
        let kid = kid.and_then(|kid| Kid::parse(kid).ok());
        let numbers = value.as_object().and_then(|members| {
            let numbers = members.iter().filter(|(name, _)| KEY_NUMBERS.contains(&name.as_str()));
            let numbers = numbers.map(|(name, value)| (name.clone(), value.clone())).collect();
            Self::from_json(&serde_json::Value::Object(numbers)).ok()
        });
        // Such a key was never valid.
        let was_never_ours =
            matches!(refusal, InvalidJwk::Unknown { .. } | InvalidJwk::Key(InvalidPublicKey::Weak { .. }));
        if kid.is_none() && numbers.is_none() && !was_never_ours {
            return Unreadable::anything();
        }
        Unreadable::known_by(kid, numbers.map(|jwk| jwk.key))
    }
}

/// A serialized JWK: member order, omissions and encodings are those of go-jose's `rawJSONWebKey`, so that a
/// key has the same bytes here and in `kube-apiserver`.
#[derive(Serialize, Deserialize)]
struct RawJwk {
    #[serde(rename = "use", skip_serializing_if = "Option::is_none")]
    usage: Option<String>,
    kty: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    kid: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    crv: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    alg: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    x: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    y: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    n: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    e: Option<String>,
}

impl Serialize for Jwk {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let encode = |number: &[u8]| Some(Base64UrlUnpadded::encode_string(number));
        let empty = RawJwk {
            usage: Some("sig".to_owned()),
            kty: String::new(),
            kid: Some(self.kid.as_str().to_owned()),
            crv: None,
            alg: Some(self.algorithm.name().to_owned()),
            x: None,
            y: None,
            n: None,
            e: None,
        };
        match &self.key {
            PublicKey::Rsa { n, e } => RawJwk { kty: "RSA".to_owned(), n: encode(n), e: encode(e), ..empty },
            PublicKey::Ec { curve, x, y } => RawJwk {
                kty: "EC".to_owned(),
                crv: Some(curve.name().to_owned()),
                x: encode(x),
                y: encode(y),
                ..empty
            },
        }
        .serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Jwk {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = serde_json::Value::deserialize(deserializer)?;
        Self::from_json(&value).map_err(serde::de::Error::custom)
    }
}

fn verifies(verifier: Result<impl JwsVerifier, JoseError>, message: &[u8], signature: &[u8]) -> bool {
    verifier.is_ok_and(|verifier| verifier.verify(message, signature).is_ok())
}

fn number(member: Option<&String>, name: &'static str) -> Result<Vec<u8>, InvalidJwk> {
    let text = member.ok_or_else(|| InvalidJwk::Malformed { what: format!("member `{name}` is missing") })?;
    let bytes = Base64UrlUnpadded::decode_vec(text).map_err(|_| InvalidJwk::Malformed {
        what: format!("member `{name}` is not base64url without padding"),
    })?;
    // Zero is `AA` (RFC 7518 section 2).
    if bytes.is_empty() {
        return Err(InvalidJwk::Malformed { what: format!("member `{name}` is empty") });
    }
    Ok(bytes)
}

/// Why a member of a JWKS cannot be used.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum InvalidJwk {
    /// A kind of key that a later Kubernetes may use; skip it.
    #[error("{what} is not supported")]
    Unknown { what: String },
    #[error("it holds the private member `{member}`, expected a public key")]
    Private { member: &'static str },
    #[error("{what}")]
    Malformed { what: String },
    #[error(transparent)]
    Key(#[from] InvalidPublicKey),
    #[error(transparent)]
    Kid(#[from] InvalidKid),
}

#[cfg(test)]
pub(crate) mod tests;
