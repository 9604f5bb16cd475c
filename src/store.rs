//! Where ledgers live. Every write is compare-and-swap: nobody's update is lost.

use std::sync::Arc;

use crate::core::{
    issuer::Issuer,
    ledger::{InvalidLedger, Ledger, Lineage},
};

mod file;

pub use file::{DirectoryInUse, FileStore, hold_directory, read_all, was_held};

/// A stored ledger as it was read, and what a write is conditional on.
#[derive(Clone, Debug)]
pub struct Stored {
    pub ledger: Arc<Ledger>,
    revision: Option<Revision>,
    /// What the operator should know about how it was read.
    pub note: Option<&'static str>,
}

/// Which bytes were stored when they were read.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Revision(String);

/// The store of one issuer's ledger.
#[derive(Clone, Debug)]
pub struct LedgerStore {
    file: Arc<FileStore>,
    issuer: Issuer,
}

impl LedgerStore {
    #[must_use]
    pub fn new(file: FileStore, issuer: Issuer) -> Self {
        Self { file: Arc::new(file), issuer }
    }

    /// Reads the ledger; one that was never stored, or that is lost, begins a new lineage.
    ///
    /// # Errors
    ///
    /// Fails when it cannot be read, when a newer program wrote it, and when it is about another issuer.
    pub async fn read(&self) -> Result<Stored, StoreError> {
        let file = Arc::clone(&self.file);
        let Some(stored) = blocking(move || file.read()).await? else {
            let ledger = Arc::new(Ledger::new(self.issuer.clone(), new_lineage()));
            return Ok(Stored { ledger, revision: None, note: None });
        };
        if *stored.ledger.issuer() != self.issuer {
            return Err(StoreError::OtherIssuer {
                path: self.file.path().display().to_string(),
                found: stored.ledger.issuer().clone(),
                expected: self.issuer.clone(),
            });
        }
        Ok(stored)
    }

    /// Replaces the ledger that was read by what `decide` makes of it, and returns what is stored now.
    ///
    /// `decide` is asked again when somebody else wrote in between. When it changes nothing, nothing is
    /// written.
    ///
    /// # Errors
    ///
    /// Fails as [`LedgerStore::read`] does, and when the ledger cannot be written.
    pub async fn update(&self, mut decide: impl FnMut(&Ledger) -> Ledger) -> Result<Stored, StoreError> {
        loop {
            let stored = self.read().await?;
            let wanted = decide(&stored.ledger);
            if wanted == *stored.ledger {
                return Ok(stored);
            }
            let (file, json, expected) = (Arc::clone(&self.file), wanted.to_json(), stored.revision);
            match blocking(move || file.write(&json, expected.as_ref())).await {
                Ok(revision) => {
                    let ledger = Arc::new(wanted);
                    return Ok(Stored { ledger, revision: Some(revision), note: stored.note });
                }
                Err(StoreError::Changed) => {}
                Err(error) => return Err(error),
            }
        }
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    tokio::task::spawn_blocking(work).await.expect("store code does not panic")
}

fn new_lineage() -> Lineage {
    let mut bytes = [0; 8];
    openssl::rand::rand_bytes(&mut bytes).expect("the system has randomness");
    Lineage::from_random(bytes)
}

/// A ledger could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("cannot {action} `{path}`")]
    Io { action: &'static str, path: String, source: std::io::Error },
    #[error("cannot use the ledger `{path}`")]
    Invalid { path: String, source: InvalidLedger },
    #[error("the ledger `{path}` is about issuer `{found}`, expected `{expected}`")]
    OtherIssuer { path: String, found: Issuer, expected: Issuer },
    /// Somebody else wrote in between; [`LedgerStore::update`] decides again.
    #[error("the ledger changed while it was being updated")]
    Changed,
}

impl StoreError {
    /// What the operator can do.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Invalid { source: InvalidLedger::Newer { .. }, .. } => Some(
                "run the newer signpost that wrote it, or restore the ledger from before the upgrade"
                    .to_owned(),
            ),
            Self::Invalid { path, .. } => Some(format!(
                "move `{path}` away to start a new ledger, then run `signpost sync --adopt` once to take the targets over"
            )),
            Self::OtherIssuer { .. } => Some(
                "use another `--data-dir`, or move the ledger away if the issuer was renamed on purpose"
                    .to_owned(),
            ),
            Self::Io { .. } => Some(
                "make the data directory readable and writable for this user, or pass another `--data-dir`"
                    .to_owned(),
            ),
            Self::Changed => None,
        }
    }
}

#[cfg(test)]
mod tests;
