//! The private keys of one node: a directory that only its user can enter, one file per key; or a PKCS#11
//! token, which they never leave, and the directory for everything else.
//!
//! `KID.pem` is the private key (PKCS#8) unless it is in the token, `KID.pub` the public key, and
//! `signer.json` the journal ([`Journal`]). Files are written atomically, and a missing public key is written
//! again, so that a crash at any instant leaves a keyring that opens. One process at a time holds a keyring;
//! others may read it.

mod directory;
mod hsm;
mod signing_key;

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use openssl::error::ErrorStack;
use rustix::{
    io::Errno,
    process::{DumpableBehavior, geteuid, set_dumpable_behavior},
};
use zeroize::Zeroizing;

use self::directory::Directory;
pub use self::{
    hsm::{Hsm, HsmError, HsmSettings},
    signing_key::{Signature, SigningError, SigningKey},
};
use crate::core::{
    jose::{jwk::Jwk, kid::Kid, public_key::InvalidPublicKey, stored::InvalidDocument},
    signer::{Journal, KeyType},
    text::Hint,
};

/// File name of the journal.
const JOURNAL: &str = "signer.json";

/// A private key that is not in a keyring yet. Wiped when dropped, unless it is in a PKCS#11 token.
pub struct NewKey {
    /// `None`: it is in the PKCS#11 token.
    pem: Option<Zeroizing<Vec<u8>>>,
    key: Arc<SigningKey>,
}

impl NewKey {
    /// Creates a key, in the PKCS#11 token if there is one. Blocks, for up to some seconds.
    ///
    /// # Errors
    ///
    /// Fails if OpenSSL or the token does.
    pub fn generate(key_type: KeyType, hsm: Option<&Arc<Hsm>>) -> Result<Self, KeyringError> {
        if let Some(hsm) = hsm {
            let key = SigningKey::in_hsm(hsm.generate(key_type)?, Arc::clone(hsm));
            return Ok(Self { pem: None, key: Arc::new(key) });
        }
        let pem = signing_key::generate(key_type).map_err(KeyringError::Generate)?;
        let key = SigningKey::from_pem(&pem).expect("a key that was just made is usable");
        Ok(Self { pem: Some(pem), key: Arc::new(key) })
    }

    /// Reads an existing key, such as kubeadm's `sa.key`: the first private key of the file, which
    /// kube-apiserver signs with. Also returns the number of further keys, which only verify.
    ///
    /// # Errors
    ///
    /// Fails if the file cannot be read, if others could have read it, and if it holds no such key.
    pub fn import(file: &Path) -> Result<(Self, usize), KeyringError> {
        let read = || {
            let text = directory::read_named(file)?;
            let (first, others) = first_private(&text);
            let unusable = |source| KeyringError::Unusable { path: file.to_owned(), source };
            let key = SigningKey::from_pem(first).map_err(unusable)?;
            let pem = Some(Zeroizing::new(first.to_vec()));
            Ok((Self { pem, key: Arc::new(key) }, others))
        };
        read().map_err(|source| KeyringError::Import { file: file.to_owned(), source: Box::new(source) })
    }

    /// The public key.
    #[must_use]
    pub fn jwk(&self) -> &Jwk {
        self.key.jwk()
    }
}

/// An open keyring.
#[derive(Debug)]
pub struct Keyring {
    directory: Directory,
    /// Where new keys are created, unless in the directory.
    hsm: Option<Arc<Hsm>>,
    keys: BTreeMap<Kid, Arc<SigningKey>>,
}

impl Keyring {
    /// Locks a keyring for this process until it is dropped: creates the directory if there is none, and
    /// repairs what a crash has left. Blocks.
    ///
    /// # Errors
    ///
    /// Fails if another process holds it, if others could have read or replaced a key, and if the PKCS#11
    /// token is unusable.
    pub fn hold(path: &Path, hsm: Option<&HsmSettings>) -> Result<Self, KeyringError> {
        directory::create(path)?;
        let directory = Directory::hold(path)?;
        directory.remove_unfinished()?;
        // From here on the memory of this process is in no core dump, and debuggers of the same user cannot
        // attach.
        let forbid = |source: Errno| KeyringError::CoreDumps(source.into());
        set_dumpable_behavior(DumpableBehavior::NotDumpable).map_err(forbid)?;
        let hsm = hsm.map(Hsm::open).transpose()?.map(Arc::new);
        let mut keyring = Self { directory, hsm, keys: BTreeMap::new() };
        keyring.load_files()?;
        keyring.load_from_hsm()?;
        Ok(keyring)
    }

    /// The PKCS#11 token in which new keys are created.
    #[must_use]
    pub fn hsm(&self) -> Option<&Arc<Hsm>> {
        self.hsm.as_ref()
    }

    #[must_use]
    pub fn keys(&self) -> &BTreeMap<Kid, Arc<SigningKey>> {
        &self.keys
    }

    /// Stores a key durably.
    ///
    /// # Errors
    ///
    /// Fails if it cannot be written, and returns the key.
    pub fn add(&mut self, new: NewKey) -> Result<(), (NewKey, KeyringError)> {
        let kid = new.key.kid().clone();
        let private =
            new.pem.as_ref().map(|pem| self.directory.write(&private_name(&kid), pem, directory::PRIVATE));
        let written = private
            .unwrap_or(Ok(()))
            .and_then(|()| self.directory.write_if_different(&public_name(&kid), &new.key.public_pem()));
        if let Err(error) = written {
            // Remove a half-written key: it would be an unrecorded key.
            let _ = self.directory.remove(&private_name(&kid));
            return Err((new, error));
        }
        self.keys.insert(kid, new.key);
        Ok(())
    }

    /// Removes a key. A missing key is not an error.
    ///
    /// # Errors
    ///
    /// Fails if its file cannot be removed, or if the PKCS#11 token does not destroy it.
    pub fn destroy(&mut self, kid: &Kid) -> Result<(), KeyringError> {
        self.destroy_revoked(kid)?;
        self.directory.remove(&public_name(kid))?;
        self.keys.remove(kid);
        Ok(())
    }

    /// Destroys a revoked private key, and keeps its record. Needs no space on the disk.
    ///
    /// # Errors
    ///
    /// As [`Self::destroy`].
    pub fn destroy_revoked(&self, kid: &Kid) -> Result<(), KeyringError> {
        if let Some(hsm) = &self.hsm {
            hsm.destroy(kid)?;
        }
        self.directory.remove(&private_name(kid))
    }

    /// The stored journal.
    ///
    /// # Errors
    ///
    /// Fails if it cannot be read.
    pub fn journal(&self) -> Result<Option<Journal>, KeyringError> {
        let path = self.directory.path().join(JOURNAL);
        let Some(bytes) = self.directory.read(JOURNAL)? else { return Ok(None) };
        Journal::parse(&bytes).map(Some).map_err(|source| KeyringError::Journal { path, source })
    }

    /// Stores the journal durably.
    ///
    /// # Errors
    ///
    /// Fails if it cannot be written; the previous one stays.
    pub fn record(&self, journal: &Journal) -> Result<(), KeyringError> {
        self.directory.write(JOURNAL, &journal.to_json(), directory::PRIVATE)
    }

    fn load_files(&mut self) -> Result<(), KeyringError> {
        for name in self.directory.with_extension("pem")? {
            let path = self.directory.path().join(&name);
            let pem = directory::read_private(&path)?;
            let key = SigningKey::from_pem(&pem)
                .map_err(|source| KeyringError::Unusable { path: path.clone(), source })?;
            if name != private_name(key.kid()) {
                return Err(KeyringError::Misnamed { path, kid: key.kid().clone() });
            }
            self.directory.write_if_different(&public_name(key.kid()), &key.public_pem())?;
            self.keys.insert(key.kid().clone(), Arc::new(key));
        }
        Ok(())
    }

    /// Keys in the PKCS#11 token belong to this keyring if their public key is in the directory.
    fn load_from_hsm(&mut self) -> Result<(), KeyringError> {
        let Some(hsm) = &self.hsm else { return Ok(()) };
        for name in self.directory.with_extension("pub")? {
            let path = self.directory.path().join(&name);
            let pem = self.directory.read(&name)?.unwrap_or_default();
            let jwk = signing_key::read_public(&pem)
                .map_err(|source| KeyringError::Unusable { path: path.clone(), source })?;
            if name != public_name(jwk.kid()) {
                return Err(KeyringError::Misnamed { path, kid: jwk.kid().clone() });
            }
            if !self.keys.contains_key(jwk.kid()) && hsm.has(jwk.kid())? {
                let key = SigningKey::in_hsm(jwk, Arc::clone(hsm));
                self.keys.insert(key.kid().clone(), Arc::new(key));
            }
        }
        Ok(())
    }
}

/// The PEM text from its first private key to the next key, and the number of other keys.
fn first_private(pem: &[u8]) -> (&[u8], usize) {
    const BEGIN: &[u8] = b"-----BEGIN ";
    let begins: Vec<usize> = (0..pem.len()).filter(|&at| pem[at..].starts_with(BEGIN)).collect();
    let label = |at: usize| pem[at + BEGIN.len()..].split(|byte| *byte == b'-').next().unwrap_or_default();
    let is_key = |at: &usize| label(*at).ends_with(b"KEY");
    let is_private = |at: &usize| label(*at).ends_with(b"PRIVATE KEY");
    let Some(first) = begins.iter().copied().find(|at| is_private(at)) else { return (pem, 0) };
    let next = begins.iter().copied().find(|at| *at > first).unwrap_or(pem.len());
    (&pem[first..next], begins.iter().filter(|at| is_key(at)).count() - 1)
}

fn private_name(kid: &Kid) -> String {
    format!("{kid}.pem")
}

fn public_name(kid: &Kid) -> String {
    format!("{kid}.pub")
}

/// The keyring cannot be used. Contains no part of a key.
#[derive(Debug, thiserror::Error)]
pub enum KeyringError {
    #[error("keyring `{path}` is held by {holder}", path = path.display())]
    Held { path: PathBuf, holder: String },
    #[error("`{path}` has mode {mode:04o}, expected {expected:04o}", path = path.display())]
    Mode { path: PathBuf, mode: u32, expected: u32 },
    #[error("`{path}` belongs to user {owner}, expected {expected}", path = path.display())]
    Owner { path: PathBuf, owner: u32, expected: u32 },
    #[error("`{path}` holds the key with kid `{kid}`, expected the one it is named after", path = path.display())]
    Misnamed { path: PathBuf, kid: Kid },
    #[error("cannot use the key in `{path}`", path = path.display())]
    Unusable { path: PathBuf, source: UnusableKey },
    #[error("cannot import the key in `{file}`", file = file.display())]
    Import { file: PathBuf, source: Box<KeyringError> },
    #[error("cannot use the journal `{path}`", path = path.display())]
    Journal { path: PathBuf, source: InvalidDocument },
    #[error("cannot {action} `{path}`", path = path.display())]
    Io { action: &'static str, path: PathBuf, source: io::Error },
    #[error("cannot keep private keys out of core dumps")]
    CoreDumps(#[source] io::Error),
    #[error("cannot make a signing key")]
    Generate(#[source] ErrorStack),
    #[error(transparent)]
    Hsm(#[from] HsmError),
    #[error("a PKCS#11 token generates its own keys, and cannot import one")]
    NoImport,
}

impl Hint for KeyringError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Held { .. } => Some("stop that process first, or use another data directory".to_owned()),
            Self::Mode { path, expected, .. } => Some(format!(
                "another user could have read the key: replace it, or, if that did not happen, `chmod \
                 {expected:o} {}`",
                path.display()
            )),
            Self::Owner { path, expected, .. } => {
                Some(format!("run as its owner, or `chown {expected} {}`", path.display()))
            }
            Self::Misnamed { path, kid } => Some(format!(
                "if the key is yours, rename it: `mv {} {}`",
                path.display(),
                path.with_file_name(private_name(kid)).display()
            )),
            Self::Import { file, source } => Some(source.hint_for_import(file)),
            Self::Unusable { .. } => {
                Some("restore the file from a backup, or remove it to have a new key made".to_owned())
            }
            Self::Journal { source: InvalidDocument::Newer { .. }, .. } => {
                Some("use the newer signpost again".to_owned())
            }
            Self::Journal { .. } => Some(
                "remove the file: every key is then kept for `max_token_lifetime`, and new ones are generated"
                    .to_owned(),
            ),
            Self::Hsm(error) => error.hint(),
            Self::NoImport => Some(
                "name the public key under `signer.additional_verification_keys`, or remove `signer.pkcs11` \
                 until the key was replaced"
                    .to_owned(),
            ),
            Self::Io { .. } | Self::CoreDumps(_) | Self::Generate(_) => None,
        }
    }
}

impl KeyringError {
    /// The hint for a file that the cluster still uses: it must not be changed.
    fn hint_for_import(&self, file: &Path) -> String {
        let (shown, user) = (file.display(), geteuid().as_raw());
        match self {
            Self::Unusable { source: UnusableKey::Encrypted, .. } => format!(
                "keep the file unchanged, and import a copy without a passphrase, of mode 0600: `openssl pkey -in \
                 {shown} -out COPY`; remove the copy afterwards"
            ),
            Self::Unusable { source: UnusableKey::Algorithm { .. }, .. } => format!(
                "keep the file unchanged, because API servers sign with it: start the signer with keys of its own, and name \
                 the public half of {shown} in `signer.additional_verification_keys`, so that tokens of it go on; let the signer's keys be \
                 public for `propagation` before an API server asks it"
            ),
            Self::Unusable { .. } => {
                "name the file of kube-apiserver's --service-account-signing-key-file; keep the file unchanged"
                    .to_owned()
            }
            Self::Mode { .. } | Self::Owner { .. } if file.extension().is_some_and(|end| end == "pub") => {
                format!(
                    "name the private key, such as `{}`: by its name this is the public half",
                    file.with_extension("key").display()
                )
            }
            Self::Mode { .. } | Self::Owner { .. } => format!(
                "keep the file unchanged, and import a copy: `install -o {user} -m 600 {shown} COPY`; remove the \
                 copy afterwards"
            ),
            Self::Io { .. } => {
                format!("run as a user that may read {shown}, or import a copy of it, of mode 0600")
            }
            _ => self.hint().unwrap_or_default(),
        }
    }
}

/// A file holds no usable signing key. OpenSSL's own messages are left out.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum UnusableKey {
    #[error("it is encrypted")]
    Encrypted,
    #[error("it is for {algorithm}, expected RSA or P-256")]
    Algorithm { algorithm: &'static str },
    #[error("not an unencrypted RSA or P-256 key in PEM")]
    Malformed,
    #[error(transparent)]
    Public(#[from] InvalidPublicKey),
}

#[cfg(test)]
mod tests;
