//! Stores of ledgers. Every write is compare-and-swap, so no update is lost.

use std::{fmt, io, path::PathBuf, sync::Arc};

use tracing::warn;

use crate::{
    core::{
        jose::{issuer::Issuer, stored::InvalidDocument},
        ledger::{Irreconcilable, Ledger, Lineage, StoredLedger},
        text::Hint,
    },
    kubernetes::KubernetesError,
};

pub mod announcement_sync;
mod config_map;
mod file;

pub use config_map::ConfigMapStore;
pub use file::{DirectoryInUse, FileStore, lock_directory, read_all, was_locked};

/// How often an update is decided again after a concurrent write. Every lost round has a winner, so this
/// limit only stops stores with a broken compare.
const ROUNDS: u32 = 100;

/// A ledger as read, and the revision that a write is conditional on.
#[derive(Clone, Debug)]
struct Stored {
    found: StoredLedger,
    revision: Option<Revision>,
}

/// The stored revision; `None` in its place: nothing was stored.
#[derive(Clone, Debug)]
enum Revision {
    /// SHA-256 of the file.
    File(String),
    /// The whole object, which a write replaces.
    ConfigMap(Box<config_map::Object>),
}

#[derive(Clone, Debug)]
pub struct LedgerStore {
    home: Home,
    issuer: Issuer,
    previous: Vec<Issuer>,
}

#[derive(Clone, Debug)]
enum Home {
    File(Arc<FileStore>),
    ConfigMap {
        map: Arc<ConfigMapStore>,
        /// The ledger last known to this installation: used while the API server is away, and as evidence
        /// after a restore.
        copy: Arc<FileStore>,
    },
}

impl LedgerStore {
    /// Keeps the ledger of an issuer in a file. A ledger of a previous issuer is migrated.
    #[must_use]
    pub fn file(file: FileStore, issuer: Issuer, previous: Vec<Issuer>) -> Self {
        Self { home: Home::File(Arc::new(file)), issuer, previous }
    }

    /// Keeps the ledger in a `ConfigMap`, with a copy in a file.
    #[must_use]
    pub fn config_map(map: ConfigMapStore, copy: FileStore, issuer: Issuer, previous: Vec<Issuer>) -> Self {
        Self { home: Home::ConfigMap { map: Arc::new(map), copy: Arc::new(copy) }, issuer, previous }
    }

    /// The last ledger known to this installation: the version before the stored one, or the local copy of a
    /// remote ledger; otherwise an empty ledger of a new lineage.
    ///
    /// # Errors
    ///
    /// Fails when it cannot be read, and when it belongs to another issuer.
    pub async fn read_last_known(&self) -> Result<Arc<Ledger>, StoreError> {
        let witness = match &self.home {
            Home::File(file) => file.at_work(FileStore::previous).await?.map(Arc::new),
            Home::ConfigMap { copy, .. } => match copy.at_work(FileStore::read).await?.found {
                StoredLedger::Ledger(ledger) | StoredLedger::Previous(ledger) => Some(ledger),
                StoredLedger::Nothing | StoredLedger::Damaged(_) => None,
            },
        };
        let Some(known) = witness else {
            return Ok(Arc::new(Ledger::new(self.issuer.clone(), new_lineage())));
        };
        self.check_issuer(&known, &self.witness_at())?;
        Ok(Arc::new(Arc::unwrap_or_clone(known).of_issuer(self.issuer.clone())))
    }

    /// Reads the stored ledger.
    ///
    /// # Errors
    ///
    /// Fails when it cannot be read, when a newer program wrote it, and when it belongs to another issuer.
    pub async fn read(&self) -> Result<StoredLedger, StoreError> {
        Ok(self.stored().await?.found)
    }

    async fn stored(&self) -> Result<Stored, StoreError> {
        let stored = match &self.home {
            Home::File(file) => file.at_work(FileStore::read).await?,
            Home::ConfigMap { map, .. } => map.read().await?,
        };
        if let StoredLedger::Ledger(ledger) | StoredLedger::Previous(ledger) = &stored.found {
            self.check_issuer(ledger, &self.at())?;
        }
        Ok(stored)
    }

    /// Replaces the stored ledger by the one that `decide` returns, and returns the ledger that is stored now
    /// with the rest of that decision.
    ///
    /// `decide` runs again after a concurrent write. Nothing is written when it changes nothing, or when
    /// there is nothing worth storing.
    ///
    /// # Errors
    ///
    /// Fails as [`LedgerStore::read`] does, when `decide` does, and when the ledger cannot be written.
    pub async fn update<T>(
        &self,
        mut decide: impl FnMut(&StoredLedger) -> Result<(Ledger, T), Irreconcilable>,
    ) -> Result<(Arc<Ledger>, T), StoreError> {
        for _ in 0..ROUNDS {
            let Stored { found, revision } = self.stored().await?;
            let (wanted, rest) = decide(&found).map_err(|error| self.irreconcilable(error))?;
            let stored = match found {
                // Reuses the ledger that was read, so that equal ledgers share memory.
                StoredLedger::Ledger(ledger) if *ledger == wanted => Some(ledger),
                StoredLedger::Nothing if wanted.sequence() == 0 => Some(Arc::new(wanted.clone())),
                _ => None,
            };
            let stored = match stored {
                Some(stored) => stored,
                None => match self.write(&wanted, revision).await {
                    Ok(()) => Arc::new(wanted),
                    Err(StoreError::Changed { .. }) => continue,
                    Err(error) => return Err(error),
                },
            };
            self.keep_copy(&stored).await;
            return Ok((stored, rest));
        }
        Err(StoreError::Changed { at: self.at() })
    }

    /// Adds the location to a ledger that cannot be reconciled with the known one.
    #[must_use]
    pub fn irreconcilable(&self, error: Irreconcilable) -> StoreError {
        match error {
            Irreconcilable::Damaged(source) => StoreError::Invalid { at: self.at(), source },
            Irreconcilable::NotWhole => StoreError::NotWhole { at: self.at() },
            source @ Irreconcilable::OtherLineage { .. } => {
                let source = Box::new(source);
                StoreError::OtherLineage { at: self.at(), witness: self.witness_at(), source }
            }
        }
    }

    async fn write(&self, wanted: &Ledger, revision: Option<Revision>) -> Result<(), StoreError> {
        let json = wanted.to_json();
        match (&self.home, revision) {
            (Home::File(file), None) => file.at_work(move |file| file.write(&json, None)).await,
            (Home::File(file), Some(Revision::File(expected))) => {
                file.at_work(move |file| file.write(&json, Some(&expected))).await
            }
            (Home::ConfigMap { map, .. }, None) => map.write(&self.issuer, json, None).await,
            (Home::ConfigMap { map, .. }, Some(Revision::ConfigMap(before))) => {
                map.write(&self.issuer, json, Some(*before)).await
            }
            (Home::File(_), Some(Revision::ConfigMap(_)))
            | (Home::ConfigMap { .. }, Some(Revision::File(_))) => {
                unreachable!("a revision is given back to the store that made it")
            }
        }
    }

    /// The ledger is stored already: a failed copy is not fatal.
    async fn keep_copy(&self, ledger: &Arc<Ledger>) {
        let Home::ConfigMap { copy, .. } = &self.home else { return };
        let ledger = Arc::clone(ledger);
        let kept = copy.at_work(move |copy| copy.write_copy(&ledger)).await;
        if let Err(error) = kept {
            warn!(issuer = %self.issuer, %error, "copy of the ledger not written");
        }
    }

    fn check_issuer(&self, ledger: &Ledger, at: &LedgerLocation) -> Result<(), StoreError> {
        let found = ledger.issuer();
        if *found == self.issuer || self.previous.contains(found) {
            return Ok(());
        }
        let (found, expected) = (found.clone(), self.issuer.clone());
        Err(StoreError::OtherIssuer { at: at.clone(), found, expected })
    }

    fn witness_at(&self) -> LedgerLocation {
        match &self.home {
            Home::File(file) => file.previous_at(),
            Home::ConfigMap { copy, .. } => copy.directory_at(),
        }
    }

    fn at(&self) -> LedgerLocation {
        match &self.home {
            Home::File(file) => file.at(),
            Home::ConfigMap { map, .. } => map.at(),
        }
    }
}

/// Whether the version that `new` replaces is kept as previous version. A manual edit that `new` corrects is
/// not kept: it would be trusted after a restart.
fn is_worth_keeping(before: &[u8], new: &[u8]) -> bool {
    let ledgers = Ledger::parse(new).and_then(|new| Ok((new, Ledger::parse(before)?)));
    ledgers.is_ok_and(|(new, before)| new.is_continuation_of(&before))
}

fn new_lineage() -> Lineage {
    let mut bytes = [0; 8];
    openssl::rand::rand_bytes(&mut bytes).expect("the system has randomness");
    Lineage::from_random(bytes)
}

/// The location of a ledger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LedgerLocation {
    File(PathBuf),
    ConfigMap { namespace: String, name: String },
}

impl fmt::Display for LedgerLocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "`{}`", path.display()),
            Self::ConfigMap { namespace, name } => write!(f, "ConfigMap `{namespace}/{name}`"),
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("cannot {action} `{path}`")]
    Io { action: &'static str, path: String, source: io::Error },
    #[error("cannot {action} {at}")]
    Kubernetes { action: &'static str, at: LedgerLocation, source: Box<KubernetesError> },
    #[error("cannot use the ledger {at}")]
    Invalid { at: LedgerLocation, source: InvalidDocument },
    #[error("the ledger {at} belongs to issuer `{found}`, expected `{expected}`")]
    OtherIssuer { at: LedgerLocation, found: Issuer, expected: Issuer },
    #[error("cannot use the ledger {at}")]
    OtherLineage {
        at: LedgerLocation,
        /// The location of the known lineage, which still conflicts after a restart.
        witness: LedgerLocation,
        source: Box<Irreconcilable>,
    },
    #[error("the ledger {at} is damaged or missing")]
    NotWhole { at: LedgerLocation },
    #[error("{at} holds `{}` and no `{}`", keys.join("`, `"), config_map::LEDGER)]
    NoLedger { at: LedgerLocation, keys: Vec<String> },
    #[error("{at} holds `{}` as binary data", config_map::LEDGER)]
    Binary { at: LedgerLocation },
    #[error("{at} is immutable")]
    Immutable { at: LedgerLocation },
    #[error("the ledger has {bytes} bytes, {at} can hold {limit}")]
    TooLarge { at: LedgerLocation, bytes: usize, limit: usize },
    /// A concurrent write happened; [`LedgerStore::update`] decides again.
    #[error("the ledger {at} changed whenever it was being updated")]
    Changed { at: LedgerLocation },
}

impl StoreError {
    /// Whether the failure is transient: the connection to the API server, not the stored contents.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Kubernetes { .. })
    }

    /// Whether the API server denies the permission.
    #[must_use]
    pub fn is_refusal(&self) -> bool {
        matches!(self, Self::Kubernetes { source, .. } if source.is_refusal())
    }
}

impl Hint for StoreError {
    fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Kubernetes { source, .. } => return source.hint(),
            Self::Invalid { source: InvalidDocument::Newer { .. }, .. } => {
                "run the newer signpost that wrote it, or restore the ledger from before the upgrade".to_owned()
            }
            Self::Invalid { at: LedgerLocation::File(path), .. } => format!(
                "move `{}` away to start a new ledger, then run `signpost sync --adopt` once to take the targets over",
                path.display()
            ),
            Self::Invalid { at: LedgerLocation::ConfigMap { namespace, name }, .. } => format!(
                "put it right with `kubectl edit configmap {name} --namespace={namespace}`, or delete it to start a \
                 new ledger, then run `signpost sync --adopt` once to take the targets over"
            ),
            Self::OtherIssuer { at: LedgerLocation::File(_), .. } => {
                "use another `--data-dir`; if the issuer was renamed on purpose, name the old one under `previous_issuers`"
                    .to_owned()
            }
            Self::OtherIssuer { at: LedgerLocation::ConfigMap { .. }, .. } => {
                "each issuer needs a ConfigMap of its own; if the issuer was renamed on purpose, name the old one \
                 under `previous_issuers`"
                    .to_owned()
            }
            Self::OtherLineage { witness, .. } => format!(
                "to keep the stored ledger, stop signpost and remove {witness}; to keep the known one, \
                 delete the stored ledger"
            ),
            Self::NotWhole { .. } => "run `signpost sync`, which repairs it, and then this again".to_owned(),
            Self::NoLedger { .. } => {
                "another application uses it: name another one as `ledger.config_map`, which need not \
                 exist".to_owned()
            }
            Self::Binary { at: LedgerLocation::ConfigMap { namespace, name } } => {
                format!("check who wrote it: `kubectl get configmap {name} --namespace={namespace} --output=yaml`")
            }
            Self::Immutable { at: LedgerLocation::ConfigMap { namespace, name } } => format!(
                "recreate it: `kubectl get configmap {name} --namespace={namespace} --output=json | \
                 sed 's/\"immutable\": true/\"immutable\": false/' | kubectl replace --force --filename=-`"
            ),
            Self::TooLarge { .. } => {
                "keep the ledger in a file: remove `ledger` from the configuration".to_owned()
            }
            Self::Changed { .. } => "find out what else writes it, and stop that".to_owned(),
            Self::Io { path, source, .. } if source.kind() == io::ErrorKind::TimedOut => {
                format!("check what `{path}` is mounted from")
            }
            Self::Io { action: "lock", path, source } if source.kind() == io::ErrorKind::Other => {
                format!("remove `{path}`: Signpost creates it again")
            }
            Self::Io { action: "lock", source, .. } if source.kind() == io::ErrorKind::WouldBlock => {
                "find out which process holds it, and stop that".to_owned()
            }
            Self::Io { .. } => {
                "make the data directory readable and writable for this user, or pass another `--data-dir`"
                    .to_owned()
            }
            Self::Binary { .. } | Self::Immutable { .. } => return None,
        };
        Some(hint)
    }
}

#[cfg(test)]
mod tests;
