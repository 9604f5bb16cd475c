//! Tokens for tests and probes: from the embedded signer, or from a cluster.

use std::{path::Path, time::Duration};

use crate::{
    clock,
    core::{service_account::ServiceAccount, token::Token},
    kubernetes::Access,
    signer::{self, Keyring, KeyringError, SigningError, Statement},
    source::api_server::{ApiServer, ApiServerError},
    store::StoreError,
};

/// What a token shall say.
#[derive(Clone, Debug)]
pub struct Wanted {
    pub account: ServiceAccount,
    pub audiences: Vec<String>,
    /// From now to `exp`; without one the signer decides.
    pub lifetime: Option<Duration>,
}

/// How long a token of the embedded signer lives unless something else is asked for: short, so that
/// its end can be watched.
const EMBEDDED_LIFETIME: Duration = Duration::from_secs(30);

/// Signs a token with the embedded key of a data directory.
///
/// # Errors
///
/// Fails when there is no such key, or no issuer that publishes it.
pub fn embedded(data_dir: &Path, wanted: &Wanted) -> Result<Token, TokenError> {
    let keyring = Keyring::open(&super::keyring_directory(data_dir))?;
    let key = keyring.active()?;
    let ledgers = super::ledgers::in_directory(data_dir)?;
    let ledger = ledgers
        .iter()
        .find(|ledger| ledger.key(key.kid()).is_some())
        .ok_or_else(|| TokenError::NotPublished { kid: key.kid().to_string() })?;
    let claims = signer::claims(&Statement {
        issuer: ledger.issuer(),
        subject: &wanted.account,
        uid: &random_uuid(),
        audiences: &wanted.audiences,
        now: clock::now(),
        lifetime: wanted.lifetime.unwrap_or(EMBEDDED_LIFETIME),
        jti: &random_uuid(),
    });
    Ok(key.sign(&claims)?)
}

/// Asks a cluster for a token.
///
/// # Errors
///
/// Fails when the cluster cannot be asked or refuses.
pub async fn cluster(context: Option<String>, wanted: &Wanted) -> Result<Token, TokenError> {
    let access = Access { context, ..Access::default() };
    let server = ApiServer::new("kubernetes".to_owned(), access);
    Ok(server.mint(&wanted.account, &wanted.audiences, wanted.lifetime).await?)
}

/// Whether a data directory has an embedded signer.
#[must_use]
pub fn has_embedded(data_dir: &Path) -> bool {
    super::keyring_directory(data_dir).is_dir()
}

/// A version 4 UUID (RFC 9562 section 5.4).
fn random_uuid() -> String {
    let mut bytes = [0; 16];
    openssl::rand::rand_bytes(&mut bytes).expect("the system has randomness");
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let hex = bytes.map(|byte| format!("{byte:02x}")).concat();
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}

/// There is no token.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    #[error(transparent)]
    Keyring(#[from] KeyringError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("no issuer publishes the embedded key `{kid}` yet")]
    NotPublished { kid: String },
    #[error("cannot sign the token")]
    Signing(#[from] SigningError),
    #[error("the cluster gave no token")]
    Cluster(#[from] ApiServerError),
}

impl TokenError {
    /// What the operator can do.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Keyring(error) => error.hint(),
            Self::Store(error) => error.hint(),
            Self::NotPublished { .. } => {
                Some("start `signpost run` on the same data directory first".to_owned())
            }
            Self::Signing(_) => None,
            Self::Cluster(error) => error.hint(),
        }
    }
}
