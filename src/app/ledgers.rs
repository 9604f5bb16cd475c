//! The ledgers of all issuers: their location, and what the operator can do with them.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::Arc,
};

use crate::{
    clock,
    config::{Config, IssuerConfig, LedgerConfig, NamespacedName},
    core::{
        jose::{
            issuer::Issuer,
            kid::Kid,
            publication::{Terms, sha256_hex},
        },
        ledger::{
            AdoptionError, Irreconcilable, Ledger, RotationCommand, RotationCommandError, StoredLedger,
        },
        rotation::{RotationInputs, RotationStatus, rotation_status},
        signer::announcement::NodeName,
        text::Hint,
    },
    kubernetes::Access,
    store::{ConfigMapStore, FileStore, LedgerStore, StoreError, read_all},
};

/// The terms of an issuer, followed by those of its previous issuers.
pub(super) fn all_terms(issuer: &IssuerConfig) -> Vec<Terms> {
    let own = [(&issuer.issuer, issuer.jwks_uri())];
    let previous = issuer.previous_issuers.iter().map(|previous| (&previous.issuer, previous.jwks_uri()));
    let terms = |(named, jwks_uri): (&Issuer, String)| Terms {
        issuer: named.clone(),
        jwks_uri,
        max_age: issuer.jwks_max_age.get(),
    };
    own.into_iter().chain(previous).map(terms).collect()
}

pub(super) fn store(data_dir: &Path, issuer: &IssuerConfig) -> LedgerStore {
    open(data_dir, issuer, |map| map)
}

/// The same store, opened by a node that only reads its desired state.
pub(super) fn read_by(node: NodeName, data_dir: &Path, issuer: &IssuerConfig) -> LedgerStore {
    open(data_dir, issuer, |map| map.read_by(node))
}

fn open(
    data_dir: &Path,
    issuer: &IssuerConfig,
    with_rights: impl FnOnce(ConfigMapStore) -> ConfigMapStore,
) -> LedgerStore {
    let previous: Vec<Issuer> =
        issuer.previous_issuers.iter().map(|previous| previous.issuer.clone()).collect();
    let directories = previous.iter().map(|previous| directory(data_dir, previous)).collect();
    let file = FileStore::new(directory(data_dir, &issuer.issuer), directories);
    match &issuer.ledger {
        None => LedgerStore::file(file, issuer.issuer.clone(), previous),
        Some(LedgerConfig { config_map, kubeconfig, context }) => {
            let access = Access::new(kubeconfig.clone(), context.clone());
            let NamespacedName { namespace, name } = config_map.clone();
            let map = with_rights(ConfigMapStore::new(namespace, name, access));
            LedgerStore::config_map(map, file, issuer.issuer.clone(), previous)
        }
    }
}

fn all_directories(data_dir: &Path) -> PathBuf {
    data_dir.join("issuers")
}

/// The directory of one issuer, recognisable by its name.
fn directory(data_dir: &Path, issuer: &Issuer) -> PathBuf {
    let readable: String = format!("{}{}", issuer.authority(), issuer.path())
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() || c == '.' { c } else { '-' })
        .take(64)
        .collect();
    let unique = &sha256_hex(issuer.as_str().as_bytes())[..8];
    all_directories(data_dir).join(format!("{readable}-{unique}"))
}

/// Reads the ledgers of all issuers: of a configured issuer from its store, of any other from the data
/// directory. Ledgers that cannot be read are returned as errors beside the others.
///
/// # Errors
///
/// Fails when the data directory cannot be read.
pub async fn all(config: &Config) -> Result<(Vec<Ledger>, Vec<StoreError>), StoreError> {
    let (in_directory, mut unusable) = read_all(&all_directories(&config.data_dir))?;
    let mut ledgers: BTreeMap<Issuer, Ledger> =
        in_directory.into_iter().map(|ledger| (ledger.issuer().clone(), ledger)).collect();
    for issuer in config.issuers.iter().filter(|issuer| issuer.ledger.is_some()) {
        match store(&config.data_dir, issuer).read().await {
            Ok(StoredLedger::Ledger(ledger) | StoredLedger::Previous(ledger)) => {
                ledgers.insert(issuer.issuer.clone(), Arc::unwrap_or_clone(ledger));
            }
            // The local copy, if there is one, is used.
            Ok(StoredLedger::Nothing | StoredLedger::Damaged(_)) => {}
            Err(error) => unusable.push(error),
        }
    }
    Ok((ledgers.into_values().collect(), unusable))
}

/// Adopts a key; a running service publishes it with its next pass.
///
/// # Errors
///
/// Fails when the key cannot be adopted or the ledger cannot be stored. A damaged ledger is not repaired
/// here: only a pass knows how long to hold removals.
pub async fn adopt(config: &Config, issuer: &Issuer, kid: &Kid) -> Result<(), AdoptError> {
    let now = clock::now();
    Ok(change(config, issuer, |ledger| ledger.adopt(kid, now)).await??)
}

/// Applies the operator's rotation command when no service runs that could.
///
/// # Errors
///
/// Fails when the command is refused or the ledger cannot be stored.
pub async fn rotate(config: &Config, issuer: &Issuer, ask: &RotationCommand) -> Result<(), RotateError> {
    let now = clock::now();
    let configured = config.issuers.iter().find(|configured| configured.issuer == *issuer);
    let Some(configured) = configured else {
        // Needs no configuration, so it also works without one.
        return match ask {
            RotationCommand::Revoke { kid, with_new_key: false } => {
                Ok(change(config, issuer, |ledger| ledger.revoke(kid, now)).await??)
            }
            RotationCommand::Revoke { kid, with_new_key: true } => {
                Ok(change(config, issuer, |ledger| ledger.revoke_for_a_new_key(kid, now)).await??)
            }
            _ => Err(RotateError::NotConfigured { issuer: issuer.clone() }),
        };
    };
    let (required_targets, retention) = (super::required_targets(configured), super::retention(configured));
    let asked = |ledger: &Ledger| {
        ledger.execute(ask, &required_targets, &retention, configured.propagation.get(), now)
    };
    Ok(change(config, issuer, asked).await??)
}

/// The state of every key according to the ledger; live observations of a service are missing.
#[must_use]
pub fn rotation(ledger: &Ledger, issuer: &IssuerConfig) -> RotationStatus {
    report_of(ledger, issuer, super::required_targets(issuer))
}

/// The same for an issuer that is not configured: `defaults` are its settings, and every target that serves
/// its keys counts as required.
#[must_use]
pub fn unconfigured_rotation(ledger: &Ledger, defaults: &IssuerConfig) -> RotationStatus {
    let shown = ledger.entries().values().flat_map(|entry| entry.shown.keys().cloned());
    report_of(ledger, defaults, shown.collect())
}

fn report_of(ledger: &Ledger, issuer: &IssuerConfig, required_targets: BTreeSet<String>) -> RotationStatus {
    let nodes = ledger.nodes().into_iter().map(|node| (node.clone(), Ok(()))).collect();
    let seen = RotationInputs { required_targets, nodes, ..RotationInputs::default() };
    rotation_status(ledger, &seen, clock::now(), &issuer.timing())
}

/// Stores the ledger that `decide` returns, unless it refuses.
async fn change<E>(
    config: &Config,
    issuer: &Issuer,
    mut decide: impl FnMut(&Ledger) -> Result<Ledger, E>,
) -> Result<Result<(), E>, StoreError> {
    let configured = config.issuers.iter().find(|configured| configured.issuer == *issuer);
    let store = configured.map_or_else(
        || {
            let file = FileStore::new(directory(&config.data_dir, issuer), Vec::new());
            LedgerStore::file(file, issuer.clone(), Vec::new())
        },
        |configured| store(&config.data_dir, configured),
    );
    let decide = |found: &StoredLedger| {
        let StoredLedger::Ledger(ledger) = found else { return Err(Irreconcilable::NotWhole) };
        Ok(match decide(ledger) {
            Ok(decided) => (decided, Ok(())),
            Err(refusal) => (Ledger::clone(ledger), Err(refusal)),
        })
    };
    Ok(store.update(decide).await?.1)
}

#[derive(Debug, thiserror::Error)]
pub enum RotateError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Refused(#[from] RotationCommandError),
    #[error("issuer `{issuer}` is not in the configuration")]
    NotConfigured { issuer: Issuer },
}

impl Hint for RotateError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Store(error) => error.hint(),
            Self::Refused(reason) => reason.hint(),
            Self::NotConfigured { .. } => {
                Some("pass the `--config` that the running signpost uses".to_owned())
            }
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum AdoptError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    NotAdopted(#[from] AdoptionError),
}

impl Hint for AdoptError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Store(error) => error.hint(),
            Self::NotAdopted(_) => None,
        }
    }
}
