//! Operations in one session of a PKCS#11 token.

use std::collections::BTreeMap;

use cryptoki::{
    error::Error,
    mechanism::Mechanism,
    object::{Attribute, AttributeType, ObjectClass, ObjectHandle},
    session::Session,
};
use openssl::sha::sha256;

use crate::core::{
    jose::{
        jwk::{Algorithm, Jwk},
        kid::Kid,
        public_key::{Curve, PublicKey},
    },
    signer::KeyType,
};

/// DER of the object identifier of P-256 (RFC 5480 section 2.1.1.1).
const P256: [u8; 10] = [0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
/// The label of a key until its kid is known.
const UNNAMED: &[u8] = b"signpost: unfinished";

/// A session with its cached key handles.
#[derive(Debug)]
pub(super) struct HsmSession {
    session: Session,
    keys: BTreeMap<Kid, ObjectHandle>,
}

pub(super) enum SessionError {
    Refused(Error),
    NoKey(Kid),
    Exposed,
}

impl From<Error> for SessionError {
    fn from(error: Error) -> Self {
        Self::Refused(error)
    }
}

impl HsmSession {
    pub(super) fn new(session: Session) -> Self {
        Self { session, keys: BTreeMap::new() }
    }

    pub(super) fn find(&mut self, kid: &Kid) -> Result<ObjectHandle, SessionError> {
        if let Some(key) = self.keys.get(kid) {
            return Ok(*key);
        }
        let wanted = [Attribute::Class(ObjectClass::PRIVATE_KEY), id_of(kid)];
        let found = self.session.find_objects(&wanted)?;
        let key = *found.first().ok_or_else(|| SessionError::NoKey(kid.clone()))?;
        self.keys.insert(kid.clone(), key);
        Ok(key)
    }

    pub(super) fn sign(&mut self, jwk: &Jwk, message: &[u8]) -> Result<Vec<u8>, SessionError> {
        let key = self.find(jwk.kid())?;
        let signature = match jwk.algorithm() {
            // Few tokens support ECDSA with hashing.
            Algorithm::ES256 => self.session.sign(&Mechanism::Ecdsa, key, &sha256(message)),
            _ => self.session.sign(&Mechanism::Sha256RsaPkcs, key, message),
        };
        Ok(signature?)
    }

    /// Destroys both keys of a pair.
    pub(super) fn destroy(&mut self, kid: &Kid) -> Result<(), SessionError> {
        for half in self.session.find_objects(&[id_of(kid)])? {
            self.session.destroy_object(half)?;
        }
        Ok(())
    }

    /// Creates a key pair and names it.
    pub(super) fn generate(&mut self, key_type: KeyType) -> Result<Jwk, SessionError> {
        let rsa = |bits: u64| {
            let size = Attribute::ModulusBits(bits.into());
            (Mechanism::RsaPkcsKeyPairGen, vec![size, Attribute::PublicExponent(vec![1, 0, 1])])
        };
        let (mechanism, mut public) = match key_type {
            KeyType::Rsa2048 => rsa(2048),
            KeyType::Rsa3072 => rsa(3072),
            KeyType::Rsa4096 => rsa(4096),
            KeyType::P256 => (Mechanism::EccKeyPairGen, vec![Attribute::EcParams(P256.to_vec())]),
        };
        let label = Attribute::Label(UNNAMED.to_vec());
        public.extend([Attribute::Token(true), Attribute::Verify(true), label.clone()]);
        let private = [
            Attribute::Token(true),
            Attribute::Private(true),
            Attribute::Sensitive(true),
            Attribute::Extractable(false),
            Attribute::Sign(true),
            label,
        ];
        let (public, private) = self.session.generate_key_pair(&mechanism, &public, &private)?;
        let named = self.is_kept(private).and_then(|()| self.name(public, private, key_type));
        if named.is_err() {
            for half in [public, private] {
                let _ = self.session.destroy_object(half);
            }
        }
        named
    }

    /// Whether the private key was never outside the token, as the token attests.
    fn is_kept(&self, private: ObjectHandle) -> Result<(), SessionError> {
        let asked = [AttributeType::AlwaysSensitive, AttributeType::NeverExtractable];
        let said = self.session.get_attributes(private, &asked)?;
        let expected = [Attribute::AlwaysSensitive(true), Attribute::NeverExtractable(true)];
        if expected.iter().all(|one| said.contains(one)) { Ok(()) } else { Err(SessionError::Exposed) }
    }

    /// Names both keys of a new pair after its kid.
    fn name(
        &self,
        public: ObjectHandle,
        private: ObjectHandle,
        key_type: KeyType,
    ) -> Result<Jwk, SessionError> {
        let asked = match key_type.algorithm() {
            Algorithm::ES256 => vec![AttributeType::EcPoint],
            _ => vec![AttributeType::Modulus, AttributeType::PublicExponent],
        };
        let said = self.session.get_attributes(public, &asked)?;
        let key = match said.as_slice() {
            [Attribute::EcPoint(point)] => p256(point),
            [Attribute::Modulus(n), Attribute::PublicExponent(e)] => PublicKey::rsa(n, e).ok(),
            _ => None,
        };
        let jwk = Jwk::of_public_key(key.ok_or(Error::InvalidValue)?);
        let name = [id_of(jwk.kid()), Attribute::Label(jwk.kid().as_str().as_bytes().to_vec())];
        for half in [private, public] {
            self.session.update_attributes(half, &name)?;
        }
        Ok(jwk)
    }
}

fn id_of(kid: &Kid) -> Attribute {
    Attribute::Id(kid.as_str().as_bytes().to_vec())
}

/// Parses an uncompressed point, which is an octet string in DER (PKCS#11 3.0 section 2.3.3); some tokens
/// omit the wrapper.
fn p256(point: &[u8]) -> Option<PublicKey> {
    let point = point.strip_prefix(&[0x04, 0x41]).unwrap_or(point);
    let (x, y) = point.strip_prefix(&[0x04])?.split_at_checked(32)?;
    PublicKey::ec(Curve::P256, x, y).ok()
}
