//! One private key: signs, and gives its public key.

use std::{fmt, sync::Arc};

use base64ct::{Base64UrlUnpadded, Encoding as _};
use josekit::{
    JoseError,
    jws::{ES256, JwsSigner, JwsVerifier, RS256},
};
use openssl::{
    ec::{EcGroup, EcKey},
    error::ErrorStack,
    nid::Nid,
    pkey::{PKey, Private},
    rsa::Rsa,
};
use serde::Serialize;
use serde_json::Value;
use zeroize::Zeroizing;

use super::{
    UnusableKey,
    hsm::{Hsm, HsmError},
};
use crate::core::{
    jose::{
        jwk::{Algorithm, Jwk},
        kid::Kid,
        public_key::PublicKey,
        token::Token,
    },
    signer::KeyType,
};

/// A key that signs RS256 or ES256.
///
/// It is not `Clone`, and `Debug` does not print it; OpenSSL wipes it when it is dropped.
pub struct SigningKey {
    jwk: Jwk,
    /// The encoded header of tokens that it signs for an API server: always the same bytes.
    header: String,
    private: PrivateHalf,
    verifier: Box<dyn JwsVerifier>,
}

enum PrivateHalf {
    Here(Box<dyn JwsSigner>),
    Hsm(Arc<Hsm>),
}

/// The two segments of a token that a signer adds to the claims.
#[derive(Clone, PartialEq, Eq)]
pub struct Signature {
    pub header: String,
    pub signature: String,
}

/// Creates a key and returns it as PKCS#8 PEM. Takes up to some seconds.
pub(super) fn generate(key_type: KeyType) -> Result<Zeroizing<Vec<u8>>, ErrorStack> {
    let rsa = |bits| Rsa::generate(bits).and_then(PKey::from_rsa);
    let key = match key_type {
        KeyType::Rsa2048 => rsa(2048),
        KeyType::Rsa3072 => rsa(3072),
        KeyType::Rsa4096 => rsa(4096),
        KeyType::P256 => EcGroup::from_curve_name(Nid::X9_62_PRIME256V1)
            .and_then(|curve| EcKey::generate(&curve))
            .and_then(PKey::from_ec_key),
    };
    key?.private_key_to_pem_pkcs8().map(Zeroizing::new)
}

impl SigningKey {
    pub(super) fn from_pem(pem: &[u8]) -> Result<Self, UnusableKey> {
        let read = || {
            // With a passphrase, even an empty one, OpenSSL does not prompt on the terminal.
            let key = PKey::private_key_from_pem_passphrase(pem, b"")?;
            let pkcs8 = Zeroizing::new(key.private_key_to_pkcs8()?);
            Ok::<_, ErrorStack>((is_sound(&key)?, key.public_key_to_der()?, pkcs8))
        };
        let Ok((true, spki, pkcs8)) = read() else {
            let is_encrypted = pem.windows(9).any(|window| window == b"ENCRYPTED");
            return Err(if is_encrypted { UnusableKey::Encrypted } else { UnusableKey::Malformed });
        };
        let jwk = Jwk::of_public_key(PublicKey::from_spki(&spki)?);
        let signer: Option<Box<dyn JwsSigner>> = match jwk.algorithm() {
            Algorithm::RS256 => RS256.signer_from_der(&*pkcs8).ok().map(|signer| Box::new(signer) as _),
            Algorithm::ES256 => ES256.signer_from_der(&*pkcs8).ok().map(|signer| Box::new(signer) as _),
            _ => None,
        };
        let unusable = UnusableKey::Algorithm { algorithm: jwk.algorithm().name() };
        let verifier = verifier(&jwk).ok_or(unusable)?;
        Ok(Self::new(jwk, PrivateHalf::Here(signer.ok_or(UnusableKey::Malformed)?), verifier))
    }

    /// A key in a PKCS#11 token, of a type that this program creates.
    pub(super) fn in_hsm(jwk: Jwk, hsm: Arc<Hsm>) -> Self {
        let verifier = verifier(&jwk).expect("a key that was read can verify");
        Self::new(jwk, PrivateHalf::Hsm(hsm), verifier)
    }

    fn new(jwk: Jwk, private: PrivateHalf, verifier: Box<dyn JwsVerifier>) -> Self {
        let header = format!(r#"{{"alg":"{}","kid":"{}","typ":"JWT"}}"#, jwk.algorithm().name(), jwk.kid());
        Self { header: Base64UrlUnpadded::encode_string(header.as_bytes()), jwk, private, verifier }
    }

    /// Whether signing waits for more than the processor.
    #[must_use]
    pub fn blocks(&self) -> bool {
        matches!(self.private, PrivateHalf::Hsm(_))
    }

    #[must_use]
    pub fn kid(&self) -> &Kid {
        self.jwk.kid()
    }

    #[must_use]
    pub fn jwk(&self) -> &Jwk {
        &self.jwk
    }

    #[must_use]
    pub fn public_key(&self) -> &PublicKey {
        self.jwk.public_key()
    }

    /// Signs the claims as a JWT. The header is that of kube-apiserver: `alg` and `kid`, no `typ`.
    ///
    /// # Errors
    ///
    /// Fails if OpenSSL does not sign, or if the signature does not verify: a wrong one would let an attacker
    /// compute the key.
    pub fn sign(&self, claims: &Value) -> Result<Token, SigningError> {
        #[derive(Serialize)]
        struct Header<'a> {
            alg: Algorithm,
            kid: &'a Kid,
        }
        let header = serde_json::to_vec(&Header { alg: self.jwk.algorithm(), kid: self.kid() });
        let header = header.expect("strings always serialise");
        let claims = serde_json::to_vec(claims).expect("JSON values always serialise");
        let mut token = [header, claims].map(|part| Base64UrlUnpadded::encode_string(&part)).join(".");
        let signature = self.signature(token.as_bytes())?;
        token.push('.');
        token.push_str(&signature);
        Ok(Token::new(token))
    }

    /// Signs the claims as encoded by an API server.
    ///
    /// # Errors
    ///
    /// As [`Self::sign`].
    pub fn sign_encoded(&self, claims: &str) -> Result<Signature, SigningError> {
        let signature = self.signature(format!("{}.{claims}", self.header).as_bytes())?;
        Ok(Signature { header: self.header.clone(), signature })
    }

    /// Signs any message, as JWS does (RFC 7515 section 5.1).
    ///
    /// # Errors
    ///
    /// As [`Self::sign`].
    pub(in crate::signer) fn sign_message(&self, message: &[u8]) -> Result<Vec<u8>, SigningError> {
        let signature = match &self.private {
            PrivateHalf::Here(signer) => signer.sign(message).map_err(SigningError::Sign)?,
            PrivateHalf::Hsm(hsm) => hsm.sign(&self.jwk, message)?,
        };
        self.verifier.verify(message, &signature).map_err(SigningError::Verify)?;
        Ok(signature)
    }

    fn signature(&self, message: &[u8]) -> Result<String, SigningError> {
        self.sign_message(message).map(|signature| Base64UrlUnpadded::encode_string(&signature))
    }

    pub(super) fn public_pem(&self) -> Vec<u8> {
        let key = PKey::public_key_from_der(&self.public_key().to_spki());
        key.and_then(|key| key.public_key_to_pem()).expect("a key that was read can be written")
    }
}

/// Reads a public key of a type that this program creates.
pub(super) fn read_public(pem: &[u8]) -> Result<Jwk, UnusableKey> {
    let spki = PKey::public_key_from_pem(pem).and_then(|key| key.public_key_to_der());
    let jwk = Jwk::of_public_key(PublicKey::from_spki(&spki.map_err(|_| UnusableKey::Malformed)?)?);
    if verifier(&jwk).is_some() { Ok(jwk) } else { Err(UnusableKey::Malformed) }
}

/// `None` for a key type that does not sign here.
fn verifier(jwk: &Jwk) -> Option<Box<dyn JwsVerifier>> {
    let spki = jwk.public_key().to_spki();
    match jwk.algorithm() {
        Algorithm::RS256 => RS256.verifier_from_der(spki).ok().map(|verifier| Box::new(verifier) as _),
        Algorithm::ES256 => ES256.verifier_from_der(spki).ok().map(|verifier| Box::new(verifier) as _),
        _ => None,
    }
}

/// Whether the parameters of a key are consistent.
fn is_sound(key: &PKey<Private>) -> Result<bool, ErrorStack> {
    match key.rsa() {
        Ok(rsa) => rsa.check_key(),
        Err(_) => key.ec_key()?.check_key().map(|()| true),
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey({})", self.kid())
    }
}

/// Why nothing was signed.
#[derive(Debug, thiserror::Error)]
pub enum SigningError {
    #[error("cannot sign")]
    Sign(#[source] JoseError),
    #[error(transparent)]
    Hsm(#[from] HsmError),
    #[error("the signature does not verify with the public key")]
    Verify(#[source] JoseError),
}
