//! One private key. It signs, and shows its public half.

use std::fmt;

use base64ct::{Base64UrlUnpadded, Encoding as _};
use josekit::{
    JoseError,
    jws::{
        JwsSigner as _, JwsVerifier as _, RS256,
        alg::rsassa::{RsassaJwsSigner, RsassaJwsVerifier},
    },
};
use openssl::{error::ErrorStack, pkey::PKey, rsa::Rsa};
use serde::Serialize;
use serde_json::Value;
use zeroize::Zeroizing;

use super::UnusableKey;
use crate::core::{jwk::Jwk, kid::Kid, public_key::PublicKey, signing::RsaSize, token::Token};

/// A key that signs RS256.
///
/// It is neither `Clone` nor written by `Debug`; OpenSSL wipes it when it is dropped.
pub struct SigningKey {
    kid: Kid,
    public_key: PublicKey,
    /// The first segment of what it signs for an API server: the same bytes each time.
    header: String,
    signer: RsassaJwsSigner,
    verifier: RsassaJwsVerifier,
}

/// The two segments of a token that a signer adds to the claims.
#[derive(Clone, PartialEq, Eq)]
pub struct Signature {
    pub header: String,
    pub signature: String,
}

/// Makes a new key and gives it as PKCS#8 PEM. Takes up to some seconds.
pub(super) fn generate(size: RsaSize) -> Result<Zeroizing<Vec<u8>>, ErrorStack> {
    PKey::from_rsa(Rsa::generate(size.bits())?)?.private_key_to_pem_pkcs8().map(Zeroizing::new)
}

impl SigningKey {
    pub(super) fn from_pem(pem: &[u8]) -> Result<Self, UnusableKey> {
        let read = || {
            // With a passphrase, if an empty one, OpenSSL does not ask the terminal for it.
            let key = PKey::private_key_from_pem_passphrase(pem, b"")?;
            let sound = key.rsa()?.check_key()?;
            Ok::<_, ErrorStack>((
                sound,
                key.public_key_to_der()?,
                Zeroizing::new(key.private_key_to_pkcs8()?),
            ))
        };
        let Ok((true, spki, pkcs8)) = read() else { return Err(UnusableKey::Malformed) };
        let public_key = PublicKey::from_spki(&spki)?;
        let kid = public_key.kid();
        let header = format!(r#"{{"alg":"RS256","kid":"{kid}","typ":"JWT"}}"#);
        Ok(Self {
            kid,
            header: Base64UrlUnpadded::encode_string(header.as_bytes()),
            signer: RS256.signer_from_der(&*pkcs8).map_err(|_| UnusableKey::Malformed)?,
            verifier: RS256.verifier_from_der(&spki).map_err(|_| UnusableKey::Malformed)?,
            public_key,
        })
    }

    #[must_use]
    pub fn kid(&self) -> &Kid {
        &self.kid
    }

    #[must_use]
    pub fn jwk(&self) -> Jwk {
        Jwk::of_public_key(self.public_key.clone())
    }

    #[must_use]
    pub fn public_key(&self) -> &PublicKey {
        &self.public_key
    }

    /// Makes a JWT of the claims. The header is the one of kube-apiserver: `alg` and `kid`, no `typ`.
    ///
    /// # Errors
    ///
    /// Fails when OpenSSL does not sign, or when the signature does not verify: a wrong one would let an
    /// attacker compute the key.
    pub fn sign(&self, claims: &Value) -> Result<Token, SigningError> {
        #[derive(Serialize)]
        struct Header<'a> {
            alg: &'static str,
            kid: &'a Kid,
        }
        let header = serde_json::to_vec(&Header { alg: "RS256", kid: &self.kid });
        let header = header.expect("strings always serialise");
        let claims = serde_json::to_vec(claims).expect("JSON values always serialise");
        let mut token = [header, claims].map(|part| Base64UrlUnpadded::encode_string(&part)).join(".");
        let signature = self.signature(token.as_bytes())?;
        token.push('.');
        token.push_str(&signature);
        Ok(Token::new(token))
    }

    /// Signs the claims that an API server encoded, as they are.
    ///
    /// # Errors
    ///
    /// As [`Self::sign`].
    pub fn sign_encoded(&self, claims: &str) -> Result<Signature, SigningError> {
        let signature = self.signature(format!("{}.{claims}", self.header).as_bytes())?;
        Ok(Signature { header: self.header.clone(), signature })
    }

    /// Signs any message, as JWS signs (RFC 7515 section 5.1).
    ///
    /// # Errors
    ///
    /// As [`Self::sign`].
    pub(in crate::signer) fn sign_message(&self, message: &[u8]) -> Result<Vec<u8>, SigningError> {
        let signature = self.signer.sign(message).map_err(SigningError::Sign)?;
        self.verifier.verify(message, &signature).map_err(SigningError::Verify)?;
        Ok(signature)
    }

    fn signature(&self, message: &[u8]) -> Result<String, SigningError> {
        self.sign_message(message).map(|signature| Base64UrlUnpadded::encode_string(&signature))
    }

    /// The public key as PEM.
    pub(super) fn public_pem(&self) -> Vec<u8> {
        let key = PKey::public_key_from_der(&self.public_key.to_spki());
        key.and_then(|key| key.public_key_to_pem()).expect("a key that was read can be written")
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey({})", self.kid)
    }
}

/// No token was made.
#[derive(Debug, thiserror::Error)]
pub enum SigningError {
    #[error("cannot sign")]
    Sign(#[source] JoseError),
    #[error("the signature does not verify with the public key")]
    Verify(#[source] JoseError),
}
