//! The ledgers of a data directory, for the operator.

use std::path::Path;

use crate::{
    clock,
    core::{
        issuer::Issuer,
        kid::Kid,
        ledger::{Ledger, NotAdopted},
    },
    store::{FileStore, LedgerStore, StoreError, read_all},
};

/// The ledgers of all issuers.
///
/// # Errors
///
/// Fails when one of them cannot be read.
pub fn all(data_dir: &Path) -> Result<Vec<Ledger>, StoreError> {
    read_all(&super::ledgers_directory(data_dir))
}

/// Adopts a key; a service that runs on the ledger publishes it with its next pass.
///
/// # Errors
///
/// Fails when the key cannot be adopted or the ledger cannot be stored.
pub async fn adopt(data_dir: &Path, issuer: &Issuer, kid: &Kid) -> Result<(), AdoptError> {
    let file = FileStore::new(super::ledger_directory(data_dir, issuer));
    let store = LedgerStore::new(file, issuer.clone());
    let mut refused = None;
    let now = clock::now();
    let decide = |ledger: &Ledger| match ledger.adopt(kid, now) {
        Ok(adopted) => adopted,
        Err(refusal) => {
            refused = Some(refusal);
            ledger.clone()
        }
    };
    store.update(decide).await?;
    refused.map_or(Ok(()), |refusal| Err(refusal.into()))
}

/// A key was not adopted.
#[derive(Debug, thiserror::Error)]
pub enum AdoptError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    NotAdopted(#[from] NotAdopted),
}

impl AdoptError {
    /// What the operator can do.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Store(error) => error.hint(),
            Self::NotAdopted(_) => None,
        }
    }
}
