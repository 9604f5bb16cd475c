//! The private keys of one node: a directory that only we can enter, one file per key.
//!
//! `KID.pem` is the private key (PKCS#8), `KID.pub` beside it the public one, and `signer.json` the journal
//! (`core::signing::Holdings`). A file appears whole or not at all, and the public half is written anew when
//! it is missing, so that a crash at any instant leaves a keyring that opens. One process at a time holds a
//! keyring; others may read it.

mod directory;
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
    process::{DumpableBehavior, set_dumpable_behavior},
};
use zeroize::Zeroizing;

use self::directory::Directory;
pub use self::signing_key::{Signature, SigningError, SigningKey};
use crate::core::{
    jwk::Jwk,
    kid::Kid,
    public_key::InvalidPublicKey,
    signing::{Holdings, InvalidHoldings, KeyType},
};

/// The journal beside the keys.
const JOURNAL: &str = "signer.json";

/// A private key that is on no disk yet. Wiped when it is dropped.
pub struct NewKey {
    pem: Zeroizing<Vec<u8>>,
    key: Arc<SigningKey>,
}

impl NewKey {
    /// Makes one. Blocks, for up to some seconds.
    ///
    /// # Errors
    ///
    /// Fails when OpenSSL does.
    pub fn generate(key_type: KeyType) -> Result<Self, KeyringError> {
        let pem = signing_key::generate(key_type).map_err(KeyringError::Generate)?;
        let key = SigningKey::from_pem(&pem).expect("a key that was just made is usable");
        Ok(Self { pem, key: Arc::new(key) })
    }

    /// Reads one that somebody else made, such as kubeadm's `sa.key`.
    ///
    /// # Errors
    ///
    /// Fails when the file cannot be read, when others could have read it, and when it holds no such key.
    pub fn import(file: &Path) -> Result<Self, KeyringError> {
        let pem = directory::read_private(file)?;
        let unusable = |source| KeyringError::Unusable { path: file.to_owned(), source };
        let key = SigningKey::from_pem(&pem).map_err(unusable)?;
        Ok(Self { pem, key: Arc::new(key) })
    }

    /// The public half.
    #[must_use]
    pub fn jwk(&self) -> &Jwk {
        self.key.jwk()
    }
}

/// An open keyring.
#[derive(Debug)]
pub struct Keyring {
    directory: Directory,
    keys: BTreeMap<Kid, Arc<SigningKey>>,
}

impl Keyring {
    /// Takes a keyring for this process until it is dropped: makes the directory when there is none, and puts
    /// right what a crash left behind. Blocks.
    ///
    /// # Errors
    ///
    /// Fails when another process holds it, and when others could have read or replaced a key.
    pub fn hold(path: &Path) -> Result<Self, KeyringError> {
        directory::create(path)?;
        Self::load_and_heal(Directory::hold(path)?)
    }

    #[must_use]
    pub fn keys(&self) -> &BTreeMap<Kid, Arc<SigningKey>> {
        &self.keys
    }

    /// Stores a key. It is there to stay when this returns.
    ///
    /// # Errors
    ///
    /// Fails when it cannot be written, and gives it back.
    pub fn add(&mut self, new: NewKey) -> Result<(), (NewKey, KeyringError)> {
        let kid = new.key.kid().clone();
        let written = self
            .directory
            .write(&private_name(&kid), &new.pem, directory::PRIVATE)
            .and_then(|()| self.directory.write_if_different(&public_name(&kid), &new.key.public_pem()));
        if let Err(error) = written {
            // Half of it is worse than nothing: it would be a key of which nobody knows anything.
            let _ = self.directory.remove(&private_name(&kid));
            return Err((new, error));
        }
        self.keys.insert(kid, new.key);
        Ok(())
    }

    /// Removes a key. That there is none is no error.
    ///
    /// # Errors
    ///
    /// Fails when its file cannot be removed.
    pub fn destroy(&mut self, kid: &Kid) -> Result<(), KeyringError> {
        self.directory.remove(&private_name(kid))?;
        self.directory.remove(&public_name(kid))?;
        self.keys.remove(kid);
        Ok(())
    }

    /// The stored journal.
    ///
    /// # Errors
    ///
    /// Fails when it cannot be read.
    pub fn journal(&self) -> Result<Option<Holdings>, KeyringError> {
        let path = self.directory.path().join(JOURNAL);
        let Some(bytes) = self.directory.read(JOURNAL)? else { return Ok(None) };
        Holdings::parse(&bytes).map(Some).map_err(|source| KeyringError::Journal { path, source })
    }

    /// Stores the journal. It is there to stay when this returns.
    ///
    /// # Errors
    ///
    /// Fails when it cannot be written; the one before is there then.
    pub fn record(&self, holdings: &Holdings) -> Result<(), KeyringError> {
        self.directory.write(JOURNAL, &holdings.to_json(), directory::PRIVATE)
    }

    fn load_and_heal(directory: Directory) -> Result<Self, KeyringError> {
        directory.remove_unfinished()?;
        let keyring = Self::load(directory)?;
        for key in keyring.keys.values() {
            keyring.directory.write_if_different(&public_name(key.kid()), &key.public_pem())?;
        }
        Ok(keyring)
    }

    fn load(directory: Directory) -> Result<Self, KeyringError> {
        // From here on the memory of this process is in no core dump, and no debugger of ours may attach.
        let forbid = |source: Errno| KeyringError::CoreDumps(source.into());
        set_dumpable_behavior(DumpableBehavior::NotDumpable).map_err(forbid)?;
        let mut keys = BTreeMap::new();
        for name in directory.with_extension("pem")? {
            let path = directory.path().join(&name);
            let pem = directory::read_private(&path)?;
            let key = SigningKey::from_pem(&pem)
                .map_err(|source| KeyringError::Unusable { path: path.clone(), source })?;
            if name != private_name(key.kid()) {
                return Err(KeyringError::Misnamed { path, kid: key.kid().clone() });
            }
            keys.insert(key.kid().clone(), Arc::new(key));
        }
        Ok(Self { directory, keys })
    }
}

fn private_name(kid: &Kid) -> String {
    format!("{kid}.pem")
}

fn public_name(kid: &Kid) -> String {
    format!("{kid}.pub")
}

/// The keyring cannot be used. Never holds any part of a key.
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
    #[error("cannot use the journal `{path}`", path = path.display())]
    Journal { path: PathBuf, source: InvalidHoldings },
    #[error("cannot {action} `{path}`", path = path.display())]
    Io { action: &'static str, path: PathBuf, source: io::Error },
    #[error("cannot keep private keys out of core dumps")]
    CoreDumps(#[source] io::Error),
    #[error("cannot make a signing key")]
    Generate(#[source] ErrorStack),
}

impl KeyringError {
    /// What to do about it.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Held { .. } => Some("stop that process first, or use another data directory".to_owned()),
            Self::Mode { path, expected, .. } => Some(format!(
                "somebody else could have read the key: replace it, or, if nobody did, `chmod {expected:o} {}`",
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
            Self::Unusable { .. } => {
                Some("restore the file from a backup, or remove it to have a new key made".to_owned())
            }
            Self::Journal { source: InvalidHoldings::Newer { .. }, .. } => {
                Some("use the newer signpost again".to_owned())
            }
            Self::Journal { .. } => Some(
                "remove the file: every key is then kept for `max_token_lifetime`, and new ones are made"
                    .to_owned(),
            ),
            Self::Io { .. } | Self::CoreDumps(_) | Self::Generate(_) => None,
        }
    }
}

/// A file does not hold a key that can sign here. OpenSSL's own words are left out.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum UnusableKey {
    #[error("not an unencrypted RSA or P-256 key in PEM")]
    Malformed,
    #[error(transparent)]
    Public(#[from] InvalidPublicKey),
}

#[cfg(test)]
mod tests;
