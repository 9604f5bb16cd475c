//! The embedded keyring: a directory that only we can enter, one file per private key.
//!
//! `KID.pem` is the private key (PKCS#8), `KID.pub` beside it the public one, for the source that
//! publishes it. A key file appears whole or not at all, and the public half is written anew when it is
//! missing, so that a crash at any instant leaves a keyring that opens.

mod directory;
mod signing_key;

use std::{
    io,
    path::{Path, PathBuf},
};

use openssl::error::ErrorStack;

use self::directory::Directory;
pub use self::signing_key::{SigningError, SigningKey};
use crate::core::{kid::Kid, public_key::InvalidPublicKey};

/// The private keys of the embedded issuer; in this version always one.
#[derive(Debug)]
pub struct Keyring {
    active: SigningKey,
}

impl Keyring {
    /// Opens the keyring in a directory and puts right what a crash left behind. Blocks.
    ///
    /// # Errors
    ///
    /// Fails with [`KeyringError::NoKey`] when there is none yet, and when others could have read or
    /// replaced a key.
    pub fn open(path: &Path) -> Result<Self, KeyringError> {
        Self::load(&Directory::open(path)?)
    }

    /// Opens the keyring, and makes the directory and its first key when there is none. Blocks, for
    /// about a second when a key is made.
    ///
    /// # Errors
    ///
    /// As [`Self::open`], and when the key cannot be made or written.
    pub fn open_or_generate(path: &Path) -> Result<Self, KeyringError> {
        directory::create(path)?;
        let directory = Directory::open(path)?;
        match Self::load(&directory) {
            Err(KeyringError::NoKey { .. }) => {}
            opened => return opened,
        }
        let pem = signing_key::generate().map_err(KeyringError::Generate)?;
        let key = SigningKey::from_pem(&pem).expect("a key that was just made is usable");
        directory.write(&private_name(key.kid()), &pem, directory::PRIVATE)?;
        Self::load(&directory)
    }

    /// The key that signs.
    #[must_use]
    pub fn active(&self) -> &SigningKey {
        &self.active
    }

    fn load(directory: &Directory) -> Result<Self, KeyringError> {
        directory.remove_unfinished()?;
        let names = directory.with_extension("pem")?;
        let [name] = names.as_slice() else {
            return Err(match names.len() {
                0 => KeyringError::NoKey { path: directory.path().to_owned() },
                count => KeyringError::ManyKeys { path: directory.path().to_owned(), count },
            });
        };
        let path = directory.path().join(name);
        let pem = directory.read_private(name)?;
        let active = SigningKey::from_pem(&pem)
            .map_err(|source| KeyringError::Unusable { path: path.clone(), source })?;
        if *name != private_name(active.kid()) {
            return Err(KeyringError::Misnamed { path, kid: active.kid().clone() });
        }
        directory.write_if_different(&format!("{}.pub", active.kid()), &active.public_pem())?;
        Ok(Self { active })
    }
}

fn private_name(kid: &Kid) -> String {
    format!("{kid}.pem")
}

/// The keyring cannot be used. Never holds any part of a key.
#[derive(Debug, thiserror::Error)]
pub enum KeyringError {
    #[error("no signing key in `{path}`", path = path.display())]
    NoKey { path: PathBuf },
    #[error("{count} signing keys in `{path}`, expected one", path = path.display())]
    ManyKeys { path: PathBuf, count: usize },
    #[error("`{path}` has mode {mode:04o}, expected {expected:04o}", path = path.display())]
    Mode { path: PathBuf, mode: u32, expected: u32 },
    #[error("`{path}` belongs to user {owner}, expected {expected}", path = path.display())]
    Owner { path: PathBuf, owner: u32, expected: u32 },
    #[error("`{path}` holds the key with kid `{kid}`, expected the one it is named after", path = path.display())]
    Misnamed { path: PathBuf, kid: Kid },
    #[error("cannot use the key in `{path}`", path = path.display())]
    Unusable { path: PathBuf, source: UnusableKey },
    #[error("cannot {action} `{path}`", path = path.display())]
    Io { action: &'static str, path: PathBuf, source: io::Error },
    #[error("cannot make a signing key")]
    Generate(#[source] ErrorStack),
}

impl KeyringError {
    /// What to do about it.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::NoKey { .. } => Some(
                "start `signpost run` once, which makes one; or name other keys with `--source`".to_owned(),
            ),
            Self::ManyKeys { .. } => Some("move all but the key that signs to another directory".to_owned()),
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
            Self::Io { .. } | Self::Generate(_) => None,
        }
    }
}

/// A file does not hold a key that can sign here. OpenSSL's own words are left out.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum UnusableKey {
    #[error("not an unencrypted RSA key in PEM")]
    Malformed,
    #[error(transparent)]
    Public(#[from] InvalidPublicKey),
}

#[cfg(test)]
mod tests;
