//! A node that signs: one keyring, its journal, and what the world has been told of it.
//!
//! What follows from a step takes effect in this order: key file, journal, announcement, memory. So whatever
//! dies in between, the disk promises more than memory did (`docs/decisions/0028`). Signing reads memory
//! alone, except when a token ends later than the journal says any does.

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
    announcement_dir::{AnnouncementDir, AnnouncementDirError, PeerReader},
    keyring::{Hsm, HsmSettings, Keyring, KeyringError, NewKey, Signature, SigningError, SigningKey},
    trust::{TrustError, TrustStore},
};
use crate::{
    blocking::TimedOut,
    core::{
        jose::{issuer::Issuer, kid::Kid},
        signer::{
            Claims, DesiredState, Done, Journal, KeyType, OutOfOrder, RecoveryFinding, SignerStep,
            SigningRefusal, UnreadableClaims, VerificationKey, VerificationOnlyKey,
            announcement::{NodeName, SignedAnnouncement},
            trust::{Distrust, LocalNode},
        },
    },
    telemetry::signer_metrics::{SignerMetrics, SignerState},
};

/// How long a token for the API server alone may live although a shorter life was asked for.
/// Source: `ExpirationExtensionSeconds` in `kubernetes/pkg/serviceaccount/claims.go`.
const LONGEST_EXTENDED: Duration = Duration::from_hours(365 * 24);

/// What a node is told by its operator.
#[derive(Clone, Debug)]
pub struct Settings {
    pub node: NodeName,
    pub issuer: Issuer,
    /// Where its private keys are.
    pub keyring: PathBuf,
    /// Where it says what it holds, and reads what others say.
    pub announcements: PathBuf,
    /// Where it keeps which other nodes it trusts.
    pub trust: PathBuf,
    /// The audiences that the API server accepts itself. A token for these alone needs no ready key.
    pub api_audiences: BTreeSet<String>,
    pub max_token_lifetime: Duration,
    /// Added to every wait, to allow for clock skew.
    pub margin: Duration,
    pub key_type: KeyType,
    /// Where new keys are made, unless that is on this disk.
    pub hsm: Option<HsmSettings>,
    /// Public keys of before.
    pub additional_keys: Vec<VerificationOnlyKey>,
}

/// A node that signs. Blocks, except where it says otherwise.
pub struct Node {
    settings: Settings,
    metrics: Arc<SignerMetrics>,
    /// What takes effect when memory is lost. Signing may wait for it, so nobody who holds it reads or writes
    /// where others may.
    durable: Mutex<DurableState>,
    board: AnnouncementDir,
    /// Whether what is in effect is announced.
    announced: AtomicBool,
    /// Whether a signature waits in vain for the disk.
    unrecorded: AtomicBool,
    /// What is in effect.
    snapshot: ArcSwap<Snapshot>,
    orders: ArcSwap<DesiredState>,
    hsm: Option<Arc<Hsm>>,
    /// Made, but not written yet: a full disk shall not cost a key each second.
    spare: Mutex<Option<NewKey>>,
    /// Held by whoever tends.
    reconciling: Mutex<()>,
    /// Held by whoever listens to others, however long that takes.
    others: Mutex<PeerReader>,
    peer_announcements: Mutex<PeerAnnouncements>,
    peer_state: Mutex<PeerState>,
}

struct DurableState {
    keyring: Keyring,
    /// As it is on the disk.
    journal: Journal,
}

/// What others said when they were last listened to.
#[derive(Default)]
struct PeerAnnouncements {
    posted: Arc<[SignedAnnouncement]>,
    unreadable: Option<Arc<AnnouncementDirError>>,
}

/// What became of what others said.
struct PeerState {
    trust_store: TrustStore,
    distrusted: Vec<Distrust>,
    /// The nodes that counted.
    trusted: BTreeSet<NodeName>,
}

struct Snapshot {
    journal: Journal,
    keys: BTreeMap<Kid, Arc<SigningKey>>,
}

impl Node {
    /// Opens a keyring, or makes it; it has no key before [`Self::tend`] made one.
    ///
    /// # Errors
    ///
    /// Fails when another process holds it, when others could have read it, when it is another node's or
    /// another issuer's, and when the disk cannot be written.
    pub fn open(settings: Settings, now: Timestamp) -> Result<(Self, Vec<RecoveryFinding>), NodeError> {
        let keyring = Keyring::hold(&settings.keyring, settings.hsm.as_ref())?;
        let board = AnnouncementDir::new(&settings.announcements, &settings.node);
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
        let (journal, surprises) = before.with_private_keys(found, now, settings.max_token_lifetime);
        let mut trust_store = TrustStore::new(settings.trust.clone());
        let trust = trust_store.load()?;
        let journal =
            journal.with_additional_keys(settings.additional_keys.clone(), now).with_trust(&trust, now);
        if stored.as_ref() != Some(&journal) {
            keyring.record(&journal)?;
        }
        // Whoever cannot say so goes on with what it did, and says it later.
        let announced = board.post(&journal.announcement(), keyring.keys()).is_ok();
        let live = Snapshot { journal: journal.clone(), keys: keyring.keys().clone() };
        let meter = Arc::new(SignerMetrics::new(settings.node.clone()));
        meter.set_state(standing(&journal, now));
        let node = Self {
            hsm: keyring.hsm().cloned(),
            metrics: meter,
            others: Mutex::new(PeerReader::new(&settings.announcements, &settings.node)),
            durable: Mutex::new(DurableState { keyring, journal }),
            board,
            announced: announced.into(),
            unrecorded: false.into(),
            snapshot: ArcSwap::from_pointee(live),
            orders: ArcSwap::default(),
            spare: Mutex::default(),
            reconciling: Mutex::default(),
            peer_announcements: Mutex::default(),
            peer_state: Mutex::new(PeerState { trust_store, distrusted: Vec::new(), trusted: trust.nodes() }),
            settings,
        };
        Ok((node, surprises))
    }

    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// What it does, for those who look.
    #[must_use]
    pub fn metrics(&self) -> &Arc<SignerMetrics> {
        &self.metrics
    }

    /// What is in effect. Does not block.
    #[must_use]
    pub fn journal(&self) -> Journal {
        self.snapshot.load().journal.clone()
    }

    /// The keys that the API server verifies with and when they last changed; `None` as long as there is none
    /// to show. Does not block.
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
    /// Fails with [`SignError::NotCovered`] or [`SignError::Blocks`] when [`Self::sign`] has to be asked.
    pub fn sign_from_memory(&self, claims: &str, now: Timestamp) -> Result<Signature, SignError> {
        self.sign_with(&self.snapshot.load(), claims, now, false)
    }

    /// Signs the claims of an API server, once the disk says how long the token lives.
    ///
    /// # Errors
    ///
    /// Fails when it may not be signed, and when the disk cannot be written.
    pub fn sign(&self, claims: &str, now: Timestamp) -> Result<Signature, SignError> {
        match self.sign_with(&self.snapshot.load(), claims, now, true) {
            Err(SignError::NotCovered(_)) => {}
            decided => return decided,
        }
        let mut desk = self.desk();
        // Memory changes only while the desk is held: somebody else may just have covered it, and no other key takes
        // over before this one has signed.
        let live = self.snapshot.load_full();
        match self.sign_with(&live, claims, now, true) {
            Err(SignError::NotCovered(done)) => {
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
            return Err(SignError::NotCovered(Box::new(done)));
        }
        let key = live.keys.get(&permit.kid).expect("what signs has its private key");
        if key.blocks() && !may_block {
            return Err(SignError::Blocks);
        }
        Ok(key.sign_encoded(claims)?)
    }

    /// Does everything that there is to do now, and says what it was. Nobody else waits for it.
    ///
    /// # Errors
    ///
    /// Fails with the first step that cannot be done; it is done when this is called again.
    pub fn reconcile(&self, orders: &DesiredState, now: Timestamp) -> Result<Vec<SignerStep>, NodeError> {
        let _alone = self.reconciling.lock().expect("nobody panics while holding it");
        // What is revoked stops at once, whatever the disk says.
        self.orders.store(Arc::new(orders.clone()));
        let shredded = self.shred(orders);
        let learnt = self.learn(orders, now);
        let mut steps = Vec::new();
        loop {
            self.take_effect(now)?;
            let mut desk = self.desk();
            let Some(step) = desk.journal.next_step(orders, now, self.settings.margin) else { break };
            let done = match step.clone() {
                SignerStep::Generate => {
                    drop(desk);
                    let new = self.new_key()?;
                    desk = self.desk();
                    let jwk = new.jwk().clone();
                    self.store_spare(&mut desk, new)?;
                    Done::Generated(jwk)
                }
                SignerStep::Begin { kid, ordered } => Done::Began { kid, ordered },
                SignerStep::Stop { kid } => Done::Stopped { kid },
                SignerStep::Allow { kid, ordered } => Done::Allowed { kid, ordered },
                SignerStep::Refuse { ordered } => Done::Refused { ordered },
                SignerStep::Reassert { after } => Done::Reasserted { after },
                SignerStep::Exclude { kid } => Done::Excluded { kid },
                SignerStep::Destroy { kid } => {
                    desk.keyring.destroy(&kid)?;
                    Done::Destroyed { kid }
                }
            };
            desk.record(&done, now)?;
            steps.push(step);
        }
        self.record_again()?;
        // What is wrong with others is no reason to stop.
        learnt?;
        shredded?;
        Ok(steps)
    }

    /// Looks whether a disk that could not be written can be again.
    fn record_again(&self) -> Result<(), NodeError> {
        if self.unrecorded.load(Relaxed) {
            let desk = self.desk();
            desk.keyring.record(&desk.journal)?;
            self.unrecorded.store(false, Relaxed);
        }
        Ok(())
    }

    /// Removes the private keys that are revoked before anything is recorded: a process that dies here, or whose disk
    /// is full, and starts while the ledger cannot be read, shall not sign with them again.
    fn shred(&self, orders: &DesiredState) -> Result<(), KeyringError> {
        let desk = self.desk();
        let revoked = desk.keyring.keys().keys().filter(|kid| orders.revoked.contains(*kid));
        revoked.map(|kid| desk.keyring.destroy_revoked(kid)).fold(Ok(()), Result::and)
    }

    /// Why announcements of other nodes do not count, since they were last read.
    #[must_use]
    pub fn rejected(&self) -> Vec<Distrust> {
        self.peer_state.lock().expect("nobody panics while holding it").distrusted.clone()
    }

    /// Reads what other nodes say, and whether what this one says still stands there, for the next [`Self::tend`]. Blocks as long as the files of others do, and nobody
    /// else waits for it.
    pub fn read_peers(&self) {
        if !self.board.shows(&self.snapshot.load().journal.announcement()) {
            self.announced.store(false, Relaxed);
        }
        let trusted = self.peer_state.lock().expect("nobody panics while holding it").trusted.clone();
        let read = self.others.lock().expect("nobody panics while holding it").read(&trusted);
        let mut heard = self.peer_announcements.lock().expect("nobody panics while holding it");
        match read {
            Ok((posted, unreadable)) => {
                *heard = PeerAnnouncements { posted: posted.into(), unreadable: unreadable.map(Arc::new) };
            }
            // What they said before still counts.
            Err(error) => heard.unreadable = Some(Arc::new(error)),
        }
    }

    /// Takes in what other nodes say, and what the operator says of them.
    fn learn(&self, orders: &DesiredState, now: Timestamp) -> Result<(), NodeError> {
        let (posted, unreadable) = {
            let heard = self.peer_announcements.lock().expect("nobody panics while holding it");
            (Arc::clone(&heard.posted), heard.unreadable.clone())
        };
        let mut hearsay = self.peer_state.lock().expect("nobody panics while holding it");
        let before = hearsay.trust_store.load()?;
        let mut desk = self.desk();
        let own = desk.journal.own_kids();
        let me = LocalNode {
            node: &self.settings.node,
            issuer: &self.settings.issuer,
            keys: &own,
            revoked: &orders.revoked,
        };
        let (trust, distrusted) = before.update(me, &posted);
        (hearsay.distrusted, hearsay.trusted) = (distrusted, trust.nodes());
        hearsay.trust_store.learnt(&before, &trust)?;
        let next = desk.journal.with_trust(&trust, now);
        if next != desk.journal {
            desk.keyring.record(&next)?;
            desk.journal = next;
        }
        unreadable.map_or(Ok(()), |error| Err(NodeError::Others(error)))
    }

    /// Takes over a key that others signed with until now: it signs from now on, for everybody, because it is
    /// public already.
    ///
    /// # Errors
    ///
    /// Fails when the file cannot be used, when keys are in a token, when the key is here already, and when the disk cannot be written.
    pub fn import(&self, file: &Path, now: Timestamp) -> Result<Imported, NodeError> {
        if self.hsm.is_some() {
            return Err(KeyringError::NoImport.into());
        }
        let (new, others) = NewKey::import(file)?;
        let (jwk, kid) = (new.jwk().clone(), new.jwk().kid().clone());
        let _alone = self.reconciling.lock().expect("nobody panics while holding it");
        let mut desk = self.desk();
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

    /// Tells the world what the disk says, and then memory.
    fn take_effect(&self, now: Timestamp) -> Result<(), NodeError> {
        loop {
            let (announcement, keys) = {
                let desk = self.desk();
                if self.announced.load(Relaxed) && self.snapshot.load().journal == desk.journal {
                    return Ok(());
                }
                (desk.journal.announcement(), desk.keyring.keys().clone())
            };
            self.announced.store(false, Relaxed);
            self.board.post(&announcement, &keys)?;
            let desk = self.desk();
            // A signature may have moved the last `exp` of a key meanwhile.
            if desk.journal.announcement() == announcement {
                self.announced.store(true, Relaxed);
                self.metrics.set_state(standing(&desk.journal, now));
                self.snapshot.store(Arc::new(Snapshot { journal: desk.journal.clone(), keys }));
                return Ok(());
            }
        }
    }

    fn new_key(&self) -> Result<NewKey, KeyringError> {
        let made = mem::take(&mut *self.spare.lock().expect("nobody panics while holding it"));
        made.map_or_else(|| NewKey::generate(self.settings.key_type, self.hsm.as_ref()), Ok)
    }

    fn store_spare(&self, desk: &mut DurableState, new: NewKey) -> Result<(), KeyringError> {
        desk.keyring.add(new).map(drop).map_err(|(new, error)| {
            *self.spare.lock().expect("nobody panics while holding it") = Some(new);
            error
        })
    }

    fn desk(&self) -> MutexGuard<'_, DurableState> {
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

/// A key that was taken over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Imported {
    pub kid: Kid,
    /// How many keys of the file were not: they sign nothing.
    pub others: usize,
}

/// What is said of a node's keys just now.
fn standing(journal: &Journal, now: Timestamp) -> SignerState {
    let mut keys = BTreeMap::from(["standby", "active", "retired"].map(|stage| (stage, 0)));
    for held in journal.keys().values() {
        *keys.entry(held.stage.name()).or_default() += 1;
    }
    SignerState { keys, changed: journal.changed(), obeyed: journal.observed_order(), announced: now }
}

fn check(settings: &Settings, what: &'static str, found: String, expected: String) -> Result<(), NodeError> {
    if found == expected {
        return Ok(());
    }
    Err(NodeError::Other { path: settings.keyring.clone(), what, found, expected })
}

/// The node cannot do what it has to.
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
    Others(Arc<AnnouncementDirError>),
    #[error(transparent)]
    Trust(#[from] TrustError),
    #[error(transparent)]
    OutOfOrder(#[from] OutOfOrder),
}

impl NodeError {
    /// What the operator can do.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Other { what: "node", found, .. } => {
                Some(format!("pass `--node {found}`, or use another data directory for another node"))
            }
            Self::Other { .. } => Some("use another data directory for another issuer".to_owned()),
            Self::Keyring(error) => error.hint(),
            Self::Trust(error) => error.hint(),
            Self::Board(error) => error.hint(),
            Self::Others(error) => error.hint(),
            Self::Present { .. } | Self::OutOfOrder(_) => None,
        }
    }
}

/// A token is not signed. Holds none of its claims.
#[derive(Debug, thiserror::Error)]
pub enum SignError {
    #[error("cannot read the claims")]
    Unreadable(#[from] UnreadableClaims),
    #[error(transparent)]
    Refused(#[from] SigningRefusal),
    /// The disk does not say yet that a token may live so long.
    #[error("`exp` is too late to be recorded")]
    NotCovered(Box<Done>),
    /// The key is in a token, which is waited for.
    #[error("signing would block")]
    Blocks,
    #[error("cannot reach the keyring")]
    Hangs(#[from] TimedOut),
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
