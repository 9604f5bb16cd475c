//! Which keys of a directory belong to certificates: those are for TLS, and whoever holds one of them must not be
//! able to sign tokens.

use std::{
    fs,
    path::{Path, PathBuf},
};

use openssl::{
    error::ErrorStack,
    pkey::{PKey, Public},
    x509::{X509, X509Req},
};

use super::{
    KeyFileError,
    content::{self, Content, SEQUENCE},
    pem::{self, Block},
};
use crate::core::{
    jose::{jwk::Jwk, left_out::Unreadable, public_key::PublicKey},
    text::in_utf8,
};

/// Names of files with certificates in them, whether they can be read or not.
const EXTENSIONS: [&str; 8] = ["crt", "cer", "cert", "csr", "p12", "pfx", "p7b", "p7c"];
/// Names that files with keys have as well.
const OF_BOTH: [&str; 2] = ["pem", "der"];
/// What the two files of a pair have behind a name that is the same.
const SUFFIXES: [&str; 5] = ["-key", "_key", "-cert", "_cert", "-crt"];

/// What is known of the certificates beside key files.
#[derive(Default)]
pub(super) struct Certificates {
    all: Vec<X509>,
    keys: Vec<PublicKey>,
    /// The files that have one, by directory and name of the pair: while both are replaced, their keys differ.
    pairs: Vec<PathBuf>,
    /// The files that should have one and cannot be read.
    doubtful: Vec<PathBuf>,
}

impl Certificates {
    /// Looks at a file: what it holds, or nothing if it cannot be read.
    pub(super) fn look(&mut self, path: &Path, bytes: Option<&[u8]>) {
        let found = bytes.is_some_and(|bytes| self.find(&in_utf8(bytes)));
        let has_keys = || bytes.is_some_and(has_keys);
        if found {
            self.pairs.push(pair(path));
        } else if (has_extension(path, &EXTENSIONS) || has_extension(path, &OF_BOTH)) && !has_keys() {
            self.doubtful.push(pair(path));
        }
    }

    /// Whether there is a certificate or a request for one.
    fn find(&mut self, bytes: &[u8]) -> bool {
        let mut found = false;
        for block in pem::blocks(bytes) {
            found |= match block {
                Ok(Block { label, der, .. }) if is_certificate(&label) => {
                    self.take(&der);
                    true
                }
                // Of a broken one nobody can tell whose key is in it.
                Err(error) => error.label().is_some_and(is_certificate),
                Ok(_) => false,
            };
        }
        let is_der = bytes.first() == Some(&SEQUENCE);
        found || (is_der && self.take(bytes))
    }

    fn take(&mut self, der: &[u8]) -> bool {
        let certificate = X509::from_der(der);
        let key = match &certificate {
            Ok(certificate) => certificate.public_key(),
            Err(_) => X509Req::from_der(der).and_then(|request| request.public_key()),
        };
        let is_one = key.is_ok();
        self.all.extend(certificate);
        self.keys.extend(
            key.and_then(|key| key.public_key_to_der()).ok().and_then(|der| PublicKey::from_spki(&der).ok()),
        );
        is_one
    }

    /// Whether the key is that of a certificate, or has signed one.
    fn have(&self, key: &Jwk) -> bool {
        let has_signed = |key: &PKey<Public>| self.all.iter().any(|it| it.verify(key).unwrap_or_default());
        let of_openssl: Result<_, ErrorStack> = PKey::public_key_from_der(&key.public_key().to_spki());
        self.keys.contains(key.public_key()) || of_openssl.is_ok_and(|key| has_signed(&key))
    }

    /// Decides about a file that was found: it is taken, or left alone because it is for TLS.
    ///
    /// # Errors
    ///
    /// Fails as the file did, and when nobody can tell whose key is in it.
    pub(super) fn leave(
        &self,
        path: &Path,
        content: Result<Content, KeyFileError>,
    ) -> Result<Option<Content>, KeyFileError> {
        let end = fs::canonicalize(path).ok();
        let is_in = |pairs: &[PathBuf]| {
            [Some(path), end.as_deref()].into_iter().flatten().any(|path| pairs.contains(&pair(path)))
        };
        if is_in(&self.pairs) {
            return Ok(None);
        }
        match content {
            Ok(content) if content.keys.iter().any(|key| self.have(key)) => Ok(None),
            Ok(content) if is_in(&self.doubtful) => {
                let mut may_be = Unreadable::default();
                for key in &content.keys {
                    may_be.extend(&Unreadable::known_by(None, Some(key.public_key().clone())));
                }
                Err(KeyFileError::Doubtful { path: path.to_owned(), may_be })
            }
            Err(_) if is_of_certificates_alone(path) => {
                Err(KeyFileError::Doubtful { path: path.to_owned(), may_be: Unreadable::default() })
            }
            content => content.map(Some),
        }
    }
}

/// Whether the name is one that no key file has.
fn is_of_certificates_alone(path: &Path) -> bool {
    has_extension(path, &EXTENSIONS)
}

fn has_extension(path: &Path, extensions: &[&str]) -> bool {
    let extension = path.extension().and_then(|extension| extension.to_str()).map(str::to_ascii_lowercase);
    extension.is_some_and(|extension| extensions.contains(&extension.as_str()))
}

/// Whether there are keys and nothing else, be they of a kind that is not supported, encrypted, or broken.
fn has_keys(bytes: &[u8]) -> bool {
    let labels = pem::blocks(&in_utf8(bytes)).into_iter().map(|block| match block {
        Ok(block) => Some(block.label.clone()),
        Err(error) => error.label().map(str::to_owned),
    });
    let labels: Vec<_> = labels.collect();
    let are_of_keys = labels.iter().all(|label| label.as_ref().is_some_and(|label| label.ends_with("KEY")));
    (!labels.is_empty() && are_of_keys) || content::parse(bytes).is_ok_and(|it| !it.keys.is_empty())
}

fn is_certificate(label: &str) -> bool {
    label.contains("CERTIFICATE") || matches!(label, "PKCS7" | "CMS")
}

/// The path of a file without what tells the two files of a pair apart.
fn pair(path: &Path) -> PathBuf {
    let stem = path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
    let shared = SUFFIXES.iter().find_map(|suffix| stem.strip_suffix(suffix)).unwrap_or(&stem);
    path.with_file_name(shared)
}
