//! Request signing for `object_store`, with OpenSSL.
//!
//! `object_store` brings ring or aws-lc; this program has one stack (`docs/decisions/0002`).

use object_store::{
    Error, Result,
    client::{CryptoProvider, DigestAlgorithm, DigestContext, HmacContext, Signer, SigningAlgorithm},
};
use openssl::{
    error::ErrorStack,
    hash::{DigestBytes, Hasher, MessageDigest},
    pkey::{PKey, Private},
    sign,
};

/// SHA-256, HMAC-SHA256 and RS256 with OpenSSL.
#[derive(Debug)]
pub(super) struct OpenSsl;

impl CryptoProvider for OpenSsl {
    fn digest(&self, algorithm: DigestAlgorithm) -> Result<Box<dyn DigestContext>> {
        let hasher = Hasher::new(digest_of(algorithm)?).map_err(failed)?;
        Ok(Box::new(Digest { hasher, digest: None }))
    }

    fn hmac(&self, algorithm: DigestAlgorithm, secret: &[u8]) -> Result<Box<dyn HmacContext>> {
        let digest = digest_of(algorithm)?;
        let key = PKey::hmac(secret).map_err(failed)?;
        Ok(Box::new(Hmac { digest, key, message: Vec::new(), code: Vec::new() }))
    }

    fn sign(&self, algorithm: SigningAlgorithm, pem: &[u8]) -> Result<Box<dyn Signer>> {
        match algorithm {
            SigningAlgorithm::RS256 => {
                let key = PKey::private_key_from_pem(pem).map_err(|_| not_a_key())?;
                Ok(Box::new(Rs256 { key }))
            }
            unknown => Err(not_supported(&unknown)),
        }
    }
}

fn digest_of(algorithm: DigestAlgorithm) -> Result<MessageDigest> {
    match algorithm {
        DigestAlgorithm::Sha256 => Ok(MessageDigest::sha256()),
        unknown => Err(not_supported(&unknown)),
    }
}

fn not_supported(algorithm: &dyn std::fmt::Debug) -> Error {
    Error::NotSupported { source: format!("unknown algorithm `{algorithm:?}`").into() }
}

/// OpenSSL reports only which of its decoders failed.
fn not_a_key() -> Error {
    Error::Generic { store: "OpenSSL", source: "`private_key` is not a private key in PEM".into() }
}

fn failed(error: ErrorStack) -> Error {
    Error::Generic { store: "OpenSSL", source: error.into() }
}

struct Digest {
    hasher: Hasher,
    digest: Option<DigestBytes>,
}

impl DigestContext for Digest {
    fn update(&mut self, data: &[u8]) {
        self.hasher.update(data).expect("SHA-256 takes any data");
    }

    fn finish(&mut self) -> Result<&[u8]> {
        let digest = self.hasher.finish().map_err(failed)?;
        Ok(self.digest.insert(digest))
    }
}

/// Buffers the whole message: a `sign::Signer` borrows its key, and the message is only a few lines of
/// request headers.
struct Hmac {
    digest: MessageDigest,
    key: PKey<Private>,
    message: Vec<u8>,
    code: Vec<u8>,
}

impl HmacContext for Hmac {
    fn update(&mut self, data: &[u8]) {
        self.message.extend_from_slice(data);
    }

    fn finish(&mut self) -> Result<&[u8]> {
        let mut signer = sign::Signer::new(self.digest, &self.key).map_err(failed)?;
        self.code = signer.sign_oneshot_to_vec(&self.message).map_err(failed)?;
        Ok(&self.code)
    }
}

struct Rs256 {
    key: PKey<Private>,
}

impl Signer for Rs256 {
    fn sign(&self, string_to_sign: &[u8]) -> Result<Vec<u8>> {
        let mut signer = sign::Signer::new(MessageDigest::sha256(), &self.key).map_err(failed)?;
        signer.sign_oneshot_to_vec(string_to_sign).map_err(failed)
    }
}

#[cfg(test)]
mod tests;
