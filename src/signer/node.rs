//! A signing node: one keyring, its journal, and its announcement.
//!
//! A step takes effect in this order: key file, journal, announcement, memory. So after any crash, the disk
//! covers all that was in effect (`docs/decisions/0028`). Signing reads memory only, unless a token expires
//! later than the journal has reserved.

use std::{
    collections::{BTreeMap, BTreeSet},
    mem,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use jiff::Timestamp;

use super::{
    announcement_dir::{AnnouncementDir, AnnouncementDirError},
    keyring::{Hsm, HsmSettings, Keyring, KeyringError, NewKey, Signature, SigningError, SigningKey},
    peers::Peers,
    trust::{TrustError, TrustStore},
};
use crate::{
    announcements::AnnouncementFileError,
    blocking::TimedOut,
    core::{
        jose::{issuer::Issuer, kid::Kid},
        signer::{
            Claims, DesiredState, Done, Journal, KeyType, OutOfOrder, RecoveryFinding, SignerStep,
            SigningRefusal, UnreadableClaims, VerificationKey, VerificationOnlyKey,
            announcement::NodeName,
            trust::{Distrust, LocalNode},
        },
        text::Hint,
    },
    telemetry::signer_metrics::{SignerMetrics, SignerState},
};

/// Longest lifetime of a token for the API server only, even if a shorter one was requested.
/// Source: `ExpirationExtensionSeconds` in `kubernetes/pkg/serviceaccount/claims.go`.
const LONGEST_EXTENDED: Duration = Duration::from_hours(365 * 24);

/// The settings of a node.
#[derive(Clone, Debug)]
pub struct Settings {
    pub node: NodeName,
    pub issuer: Issuer,
    /// Directory of its private keys.
    pub keyring: PathBuf,
    /// Directory in which it posts its announcement, and reads those of others.
    pub announcements: PathBuf,
    /// Directory of the nodes that it trusts.
    pub trust: PathBuf,
    /// The audiences that the API server accepts itself. A token for these alone needs no ready key.
    pub api_audiences: BTreeSet<String>,
    pub max_token_lifetime: Duration,
    /// Added to every wait, for clock skew.
    pub margin: Duration,
    pub key_type: KeyType,
    /// Where new keys are created, unless on this disk.
    pub hsm: Option<HsmSettings>,
    /// Previous public keys.
    pub additional_keys: Vec<VerificationOnlyKey>,
}

/// A signing node. Methods block unless they say otherwise.
pub struct Node {
    settings: Settings,
    metrics: Arc<SignerMetrics>,
    /// The state on disk. Signing may wait for this lock, so nothing that holds it accesses files that others
    /// may write.
    durable: Mutex<DurableState>,
    announcements: AnnouncementDir,
    /// Whether the announcement matches the state in effect.
    announced: AtomicBool,
    /// Whether a signature failed because the disk could not be written.
    unrecorded: AtomicBool,
    /// The state in effect.
    snapshot: ArcSwap<Snapshot>,
    orders: ArcSwap<DesiredState>,
    hsm: Option<Arc<Hsm>>,
    /// A created key that is not written yet: a full disk must not cost a key each second.
    unwritten_key: Mutex<Option<NewKey>>,
    /// Held during [`Self::reconcile`].
    reconciling: Mutex<()>,
    peers: Peers,
}

struct DurableState {
    keyring: Keyring,
    /// As stored on disk.
    journal: Journal,
}

struct Snapshot {
    journal: Journal,
    keys: BTreeMap<Kid, Arc<SigningKey>>,
}

impl Node {
    /// Opens a keyring, or creates it; it has no key before the first [`Self::reconcile`].
    ///
    /// # Errors
    ///
    /// Fails if another process holds it, if others could have read it, if it belongs to another node or
    /// issuer, and if the disk cannot be written.
    pub fn open(settings: Settings, now: Timestamp) -> Result<(Self, Vec<RecoveryFinding>), NodeError> {
        let keyring = Keyring::hold(&settings.keyring, settings.hsm.as_ref())?;
        let status_store = AnnouncementDir::new(&settings.announcements, &settings.node);
        let stored = keyring.journal()?;
        if let Some(journal) = &stored {
            let (found, expected) = (journal.node().to_string(), settings.node.to_string());
            check(&settings, "node", found, expected)?;
            check(&settings, "issuer", journal.issuer().to_string(), settings.issuer.to_string())?;
        }
        let before = stored
            .clone()
            .unwrap_or_else(|| Journal::new(settings.node.clone(), settings.issuer.clone(), now));
        let found = keyring.keys().values().map(|key| key.jwk().clone());
        let (journal, findings) = before.with_private_keys(found, now, settings.max_token_lifetime);
        let mut trust_store = TrustStore::new(settings.trust.clone());
        let trust = trust_store.load()?;
        let journal =
            journal.with_additional_keys(settings.additional_keys.clone(), now).with_trust(&trust, now);
        if stored.as_ref() != Some(&journal) {
            keyring.record(&journal)?;
        }
        // If posting fails, the node continues as before and posts later.
        let announced = status_store.post(&journal.announcement(), keyring.keys()).is_ok();
        let live = Snapshot { journal: journal.clone(), keys: keyring.keys().clone() };
        let meter = Arc::new(SignerMetrics::new(settings.node.clone()));
        meter.set_state(signer_state(&journal, now));
        let node = Self {
            hsm: keyring.hsm().cloned(),
            metrics: meter,
            durable: Mutex::new(DurableState { keyring, journal }),
            announcements: status_store,
            announced: announced.into(),
            unrecorded: false.into(),
            snapshot: ArcSwap::from_pointee(live),
            orders: ArcSwap::default(),
            unwritten_key: Mutex::default(),
            reconciling: Mutex::default(),
            peers: Peers::new(&settings.announcements, &settings.node, trust_store, trust.nodes()),
            settings,
        };
        Ok((node, findings))
    }

    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The metrics of the node.
    #[must_use]
    pub fn metrics(&self) -> &Arc<SignerMetrics> {
        &self.metrics
    }

    /// The journal in effect. Does not block.
    #[must_use]
    pub fn journal(&self) -> Journal {
        self.snapshot.load().journal.clone()
    }

    /// The keys that the API server verifies with, and when they last changed; `None` as long as every one of
    /// them is excluded from discovery. Does not block.
    #[must_use]
    pub fn verification_set(&self) -> Option<(Vec<VerificationKey>, Timestamp)> {
        let live = self.snapshot.load();
        let set = live.journal.verification_set(&self.orders.load().revoked)?;
        Some((set, live.journal.changed()))
    }

    /// Signs the claims of an API server if memory allows it. Does not block.
    ///
    /// # Errors
    ///
    /// Fails with [`SignError::ExpiryNotReserved`] or [`SignError::Blocks`] if [`Self::sign`] is needed.
    pub fn sign_from_memory(&self, claims: &str, now: Timestamp) -> Result<Signature, SignError> {
        self.sign_with(&self.snapshot.load(), claims, now, false)
    }

    /// Signs the claims of an API server, after reserving the lifetime of the token on disk.
    ///
    /// # Errors
    ///
    /// Fails if the token may not be signed, and if the disk cannot be written.
    pub fn sign(&self, claims: &str, now: Timestamp) -> Result<Signature, SignError> {
        match self.sign_with(&self.snapshot.load(), claims, now, true) {
            Err(SignError::ExpiryNotReserved(_)) => {}
            decided => return decided,
        }
        let mut desk = self.durable();
        // Memory changes only under this lock: another thread may just have reserved the expiry, and no other
        // key takes over before this one has signed.
        let live = self.snapshot.load_full();
        match self.sign_with(&live, claims, now, true) {
            Err(SignError::ExpiryNotReserved(done)) => {
                let covered = Snapshot { journal: live.journal.after(&done, now)?, keys: live.keys.clone() };
                let recorded = desk.record(&done, now);
                self.unrecorded.store(recorded.is_err(), Relaxed);
                recorded?;
                self.snapshot.store(Arc::new(covered));
            }
            decided => return decided,
        }
        self.sign_with(&self.snapshot.load(), claims, now, true)
    }

    fn sign_with(
        &self,
        live: &Snapshot,
        claims: &str,
        now: Timestamp,
        may_block: bool,
    ) -> Result<Signature, SignError> {
        let read = Claims::read(claims)?;
        let Settings { api_audiences, max_token_lifetime, .. } = &self.settings;
        let permit =
            live.journal.decide(&self.orders.load(), &read, api_audiences, now, *max_token_lifetime)?;
        if let Some(done) = live.journal.reserve_expiry(&permit) {
            return Err(SignError::ExpiryNotReserved(Box::new(done)));
        }
        let key = live.keys.get(&permit.kid).expect("what signs has its private key");
        if key.blocks() && !may_block {
            return Err(SignError::Blocks);
        }
        Ok(key.sign_encoded(claims)?)
    }

    /// Does every step that is due, and returns the steps. No other task waits for it.
    ///
    /// # Errors
    ///
    /// Fails with the first step that fails; the next call tries it again.
    pub fn reconcile(&self, orders: &DesiredState, now: Timestamp) -> Result<Vec<SignerStep>, NodeError> {
        let _alone = self.reconciling.lock().expect("nobody panics while holding it");
        // A revoked key stops signing at once, even if the disk fails.
        self.orders.store(Arc::new(orders.clone()));
        let shredded = self.destroy_revoked_keys(orders);
        let learnt = self.update_trust(orders, now);
        let mut steps = Vec::new();
        loop {
            self.take_effect(now)?;
            let mut desk = self.durable();
            let Some(step) = desk.journal.next_step(orders, now, self.settings.margin) else { break };
            let done = match &step {
                SignerStep::Generate => {
                    drop(desk);
                    let new = self.new_key()?;
                    desk = self.durable();
                    let jwk = new.jwk().clone();
                    self.store_spare(&mut desk, new)?;
                    Done::Generated(jwk)
                }
                SignerStep::Destroy { kid } => {
                    desk.keyring.destroy(kid)?;
                    Done::Step(step.clone())
                }
                _ => Done::Step(step.clone()),
            };
            desk.record(&done, now)?;
            steps.push(step);
        }
        self.record_again()?;
        // A problem of other nodes does not stop this one.
        learnt?;
        shredded?;
        Ok(steps)
    }

    /// Checks whether a disk that could not be written is writable again.
    fn record_again(&self) -> Result<(), NodeError> {
        if self.unrecorded.load(Relaxed) {
            let desk = self.durable();
            desk.keyring.record(&desk.journal)?;
            self.unrecorded.store(false, Relaxed);
        }
        Ok(())
    }

    /// Removes revoked private keys before anything is recorded: a process that dies here, or whose disk is
    /// full, and restarts while the ledger is unreadable, must not sign with them again.
    fn destroy_revoked_keys(&self, orders: &DesiredState) -> Result<(), KeyringError> {
        let desk = self.durable();
        let revoked = desk.keyring.keys().keys().filter(|kid| orders.revoked.contains(*kid));
        revoked.map(|kid| desk.keyring.destroy_revoked(kid)).fold(Ok(()), Result::and)
    }

    /// Why announcements of other nodes are rejected, as of the last read.
    #[must_use]
    pub fn rejected(&self) -> Vec<Distrust> {
        self.peers.rejected()
    }

    /// Reads the announcements of other nodes, and whether this node's own is still there, for the next
    /// [`Self::reconcile`].
    ///
    /// Blocks as long as the files of others do; no other task waits for it.
    pub fn read_peers(&self) {
        if !self.announcements.shows(&self.snapshot.load().journal.announcement()) {
            self.announced.store(false, Relaxed);
        }
        self.peers.read();
    }

    /// Applies the announcements of other nodes, and the operator's admissions.
    fn update_trust(&self, orders: &DesiredState, now: Timestamp) -> Result<(), NodeError> {
        let own = self.durable().journal.own_kids();
        let trust = self.peers.update(LocalNode {
            node: &self.settings.node,
            issuer: &self.settings.issuer,
            keys: &own,
            revoked: &orders.revoked,
        })?;
        let mut desk = self.durable();
        let next = desk.journal.with_trust(&trust, now);
        if next != desk.journal {
            desk.keyring.record(&next)?;
            desk.journal = next;
        }
        self.peers.unreadable().map_or(Ok(()), |error| Err(NodeError::Peers(error)))
    }

    /// Imports a key that was used elsewhere until now: it signs from now on, for external audiences too,
    /// because it is public already.
    ///
    /// # Errors
    ///
    /// Fails if the file is unusable, if keys are in a PKCS#11 token, if the key exists here already, and if
    /// the disk cannot be written.
    pub fn import(&self, file: &Path, now: Timestamp) -> Result<Imported, NodeError> {
        if self.hsm.is_some() {
            return Err(KeyringError::NoImport.into());
        }
        let (new, others) = NewKey::import(file)?;
        let (jwk, kid) = (new.jwk().clone(), new.jwk().kid().clone());
        let _alone = self.reconciling.lock().expect("nobody panics while holding it");
        let mut desk = self.durable();
        if desk.keyring.keys().contains_key(&kid) {
            return Err(NodeError::Present { kid });
        }
        let until = |lifetime| now + lifetime + self.settings.margin;
        let horizon = until(self.settings.max_token_lifetime);
        let internal_horizon = until(LONGEST_EXTENDED);
        desk.keyring.add(new).map_err(|(_, error)| error)?;
        desk.record(&Done::Imported { jwk, horizon, internal_horizon }, now)?;
        drop(desk);
        self.take_effect(now)?;
        Ok(Imported { kid, others })
    }

    /// Announces the state on disk, then puts it into effect.
    fn take_effect(&self, now: Timestamp) -> Result<(), NodeError> {
        loop {
            let (announcement, keys) = {
                let desk = self.durable();
                if self.announced.load(Relaxed) && self.snapshot.load().journal == desk.journal {
                    return Ok(());
                }
                (desk.journal.announcement(), desk.keyring.keys().clone())
            };
            self.announced.store(false, Relaxed);
            self.announcements.post(&announcement, &keys)?;
            let desk = self.durable();
            // A signature may have moved the last `exp` of a key meanwhile.
            if desk.journal.announcement() == announcement {
                self.announced.store(true, Relaxed);
                self.metrics.set_state(signer_state(&desk.journal, now));
                self.snapshot.store(Arc::new(Snapshot { journal: desk.journal.clone(), keys }));
                return Ok(());
            }
        }
    }

    fn new_key(&self) -> Result<NewKey, KeyringError> {
        let made = mem::take(&mut *self.unwritten_key.lock().expect("nobody panics while holding it"));
        made.map_or_else(|| NewKey::generate(self.settings.key_type, self.hsm.as_ref()), Ok)
    }

    fn store_spare(&self, desk: &mut DurableState, new: NewKey) -> Result<(), KeyringError> {
        desk.keyring.add(new).map(drop).map_err(|(new, error)| {
            *self.unwritten_key.lock().expect("nobody panics while holding it") = Some(new);
            error
        })
    }

    fn durable(&self) -> MutexGuard<'_, DurableState> {
        self.durable.lock().expect("nobody panics while holding it")
    }
}

impl DurableState {
    fn record(&mut self, done: &Done, now: Timestamp) -> Result<(), NodeError> {
        let next = self.journal.after(done, now)?;
        if next != self.journal {
            self.keyring.record(&next)?;
            self.journal = next;
        }
        Ok(())
    }
}

/// An imported key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Imported {
    pub kid: Kid,
    /// Number of keys in the file that were not imported: they sign nothing.
    pub others: usize,
}

/// The state of a node's keys, for its metrics.
fn signer_state(journal: &Journal, now: Timestamp) -> SignerState {
    let mut keys = BTreeMap::from(["standby", "active", "retired"].map(|stage| (stage, 0)));
    for held in journal.keys().values() {
        *keys.entry(held.stage.name()).or_default() += 1;
    }
    SignerState { keys, changed: journal.changed(), observed_order: journal.observed_order(), announced: now }
}

fn check(settings: &Settings, what: &'static str, found: String, expected: String) -> Result<(), NodeError> {
    if found == expected {
        return Ok(());
    }
    Err(NodeError::Other { path: settings.keyring.clone(), what, found, expected })
}

/// Signer reconciliation failed.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    #[error("keyring `{path}` belongs to {what} `{found}`, expected `{expected}`", path = path.display())]
    Other { path: PathBuf, what: &'static str, found: String, expected: String },
    #[error("key `{kid}` is already in the keyring")]
    Present { kid: Kid },
    #[error(transparent)]
    Keyring(#[from] KeyringError),
    #[error(transparent)]
    Board(#[from] AnnouncementDirError),
    #[error(transparent)]
    Peers(Arc<AnnouncementFileError>),
    #[error(transparent)]
    Trust(#[from] TrustError),
    #[error(transparent)]
    OutOfOrder(#[from] OutOfOrder),
}

impl Hint for NodeError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Other { what: "node", found, .. } => {
                Some(format!("pass `--node {found}`, or use another data directory for another node"))
            }
            Self::Other { .. } => Some("use another data directory for another issuer".to_owned()),
            Self::Keyring(error) => error.hint(),
            Self::Trust(error) => error.hint(),
            Self::Board(error) => error.hint(),
            Self::Peers(_) => {
                Some("check who writes there; files that are not announcements can be removed".to_owned())
            }
            Self::Present { .. } | Self::OutOfOrder(_) => None,
        }
    }
}

/// A token was not signed. Contains none of its claims.
#[derive(Debug, thiserror::Error)]
pub enum SignError {
    #[error("cannot read the claims")]
    Unreadable(#[from] UnreadableClaims),
    #[error(transparent)]
    Refused(#[from] SigningRefusal),
    /// So late an expiry is not reserved on disk yet.
    #[error("`exp` is too late to be recorded")]
    ExpiryNotReserved(Box<Done>),
    /// The key is in a PKCS#11 token, which may block.
    #[error("signing would block")]
    Blocks,
    #[error("cannot reach the keyring")]
    TimedOut(#[from] TimedOut),
    #[error("cannot record how long the token lives")]
    Record(#[from] NodeError),
    #[error(transparent)]
    Signing(#[from] SigningError),
}

impl From<OutOfOrder> for SignError {
    fn from(error: OutOfOrder) -> Self {
        Self::Record(error.into())
    }
}

#[cfg(test)]
mod tests;
