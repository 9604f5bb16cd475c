//! Keys that are created in a PKCS#11 token, and never leave it.
//!
//! The token knows nothing of issuers and nodes, and several may share one. So a keyring keeps the public key
//! of each of its keys in the token as a file. In the token, `CKA_ID` and label of a key are its kid.
//!
//! Without the feature `pkcs11`, [`Hsm`] has no values, and opening one returns an error.

use std::path::PathBuf;

use super::KeyringError;
use crate::core::{jose::kid::Kid, text::Hint};

#[cfg_attr(feature = "pkcs11", path = "hsm/connected.rs")]
#[cfg_attr(not(feature = "pkcs11"), path = "hsm/absent.rs")]
mod implementation;

pub use self::implementation::Hsm;

/// The address of a PKCS#11 token, and how to open it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HsmSettings {
    /// The library of the token's vendor.
    pub module: PathBuf,
    pub token_label: String,
    /// File with the user's PIN; only its owner may read it.
    pub pin_file: PathBuf,
}

/// A PKCS#11 operation failed. Contains no PIN.
#[derive(Debug, thiserror::Error)]
pub enum HsmError {
    #[error("this program was built without PKCS#11")]
    NotBuilt,
    #[error("cannot load the PKCS#11 module `{path}`: {reason}", path = path.display())]
    Module { path: PathBuf, reason: String },
    #[error("no PKCS#11 token has the label `{label}`, found {found}")]
    NoToken { label: String, found: String },
    #[error("{count} PKCS#11 tokens have the label `{label}`, expected one")]
    Ambiguous { label: String, count: usize },
    #[error("cannot use the PIN in `{path}`", path = path.display())]
    PinFile { path: PathBuf, source: Box<KeyringError> },
    #[error("`{path}` holds no PIN", path = path.display())]
    NoPin { path: PathBuf },
    #[error("PKCS#11 token `{label}` refuses the PIN in `{path}`", path = path.display())]
    WrongPin { label: String, path: PathBuf },
    #[error("the PIN of PKCS#11 token `{label}` is locked")]
    LockedPin { label: String },
    #[error("PKCS#11 token `{label}` does not {action}: {reason}")]
    Failed { label: String, action: &'static str, reason: String },
    #[error("PKCS#11 token `{label}` has no key `{kid}`")]
    NoKey { label: String, kid: Kid },
    #[error("PKCS#11 token `{label}` gives its private keys away")]
    Exposed { label: String },
}

impl Hint for HsmError {
    fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::NotBuilt => "use a build with `--features pkcs11`, or remove `signer.pkcs11`",
            Self::Module { .. } => {
                "install the library of the token's vendor, and name it in `signer.pkcs11.module`"
            }
            Self::NoToken { .. } => "initialise the token, or correct `signer.pkcs11.token_label`",
            Self::Ambiguous { .. } => "give each token a label of its own",
            Self::PinFile { source, .. } => return source.hint(),
            Self::NoPin { .. } => "write the PIN of the token's user into it",
            Self::WrongPin { .. } => {
                "correct the file, and restart: some tokens are locked after a few wrong PINs"
            }
            Self::LockedPin { .. } => "have the token's security officer reset it",
            Self::Exposed { .. } => "use a token that makes keys which cannot be extracted",
            Self::Failed { .. } | Self::NoKey { .. } => return None,
        };
        Some(hint.to_owned())
    }
}
