//! What a node that signs has done and what it has, for the metrics.
//!
//! Counted where it happens, without a lock: a signature waits for nobody who looks.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex, MutexGuard,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use jiff::Timestamp;

use crate::core::signer::announcement::NodeName;

/// What became of the claims that an API server wanted to be signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SignOutcome {
    Signed,
    /// No key is ready, or the disk cannot record how long the token lives: it may be asked again.
    Unavailable,
    /// The claims cannot be read, or the token would live too long.
    Refused,
    /// OpenSSL failed, or the signature did not verify.
    Failed,
}

impl SignOutcome {
    pub const ALL: [Self; 4] = [Self::Signed, Self::Unavailable, Self::Refused, Self::Failed];

    /// As metrics name it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Signed => "signed",
            Self::Unavailable => "unavailable",
            Self::Refused => "refused",
            Self::Failed => "failed",
        }
    }
}

/// Upper bounds, in seconds, between which signatures are counted: bare RSA-2048 takes a quarter of a millisecond,
/// RSA-4096 two, and a write to the journal as long as the disk takes.
const BOUNDS: [f64; 8] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.05, 0.25, 1.0];

/// What one node does. Shared by those who do it and those who look.
#[derive(Debug)]
pub struct SignerMetrics {
    node: NodeName,
    outcomes: [AtomicU64; SignOutcome::ALL.len()],
    /// How many signatures took no longer than each bound and longer than the one before; the last took longer
    /// than any.
    took: [AtomicU64; BOUNDS.len() + 1],
    nanoseconds: AtomicU64,
    fetches: AtomicU64,
    strangers: AtomicU64,
    /// What keeps it from doing what it has to.
    work: Mutex<Option<String>>,
    /// Why nobody can connect to it.
    socket: Mutex<Option<String>>,
    standing: Mutex<SignerState>,
}

/// What a node has, as it last changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SignerState {
    /// Its keys by what it does with them, each stage that there is.
    pub keys: BTreeMap<&'static str, usize>,
    /// When the verification keys of API servers last changed.
    pub changed: Timestamp,
    /// When the latest order was given that it has obeyed.
    pub obeyed: Option<Timestamp>,
    /// When it last said what it has.
    pub announced: Timestamp,
}

/// Duration of signatures.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Durations {
    pub(super) seconds: f64,
    pub(super) count: u64,
    /// Bounds in seconds, and how many lie between each and the one before.
    pub(super) buckets: Vec<(f64, u64)>,
}

impl SignerMetrics {
    #[must_use]
    pub fn new(node: NodeName) -> Self {
        Self {
            node,
            outcomes: Default::default(),
            took: Default::default(),
            nanoseconds: AtomicU64::default(),
            fetches: AtomicU64::default(),
            strangers: AtomicU64::default(),
            work: Mutex::default(),
            socket: Mutex::default(),
            standing: Mutex::default(),
        }
    }

    /// Claims were answered. Only signatures are timed: a refusal takes no time.
    pub fn answered(&self, outcome: SignOutcome, took: Duration) {
        self.outcomes[outcome as usize].fetch_add(1, Relaxed);
        if outcome == SignOutcome::Signed {
            let seconds = took.as_secs_f64();
            let bucket = BOUNDS.iter().position(|bound| seconds <= *bound).unwrap_or(BOUNDS.len());
            self.took[bucket].fetch_add(1, Relaxed);
            self.nanoseconds.fetch_add(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX), Relaxed);
        }
    }

    /// An API server fetched the keys.
    pub fn fetched(&self) {
        self.fetches.fetch_add(1, Relaxed);
    }

    /// Somebody connected who may not.
    pub fn record_unauthorized(&self) {
        self.strangers.fetch_add(1, Relaxed);
    }

    /// It was seen to do what it has to, or what keeps it from that.
    pub fn record_reconcile(&self, trouble: Option<String>) {
        replace(&self.work, trouble);
    }

    /// It can be connected to, or why not. Returns whether that is another reason than before.
    pub fn reachable(&self, trouble: Option<String>) -> bool {
        replace(&self.socket, trouble)
    }

    /// Everything that keeps it from doing what it has to.
    #[must_use]
    pub fn troubles(&self) -> Vec<String> {
        let known = [&self.work, &self.socket].map(|known| lock(known).clone());
        known.into_iter().flatten().collect()
    }

    pub fn set_state(&self, standing: SignerState) {
        *self.locked() = standing;
    }

    pub(super) fn node(&self) -> &NodeName {
        &self.node
    }

    pub(super) fn answers(&self) -> impl Iterator<Item = (SignOutcome, u64)> {
        SignOutcome::ALL.into_iter().zip(self.outcomes.iter().map(|count| count.load(Relaxed)))
    }

    pub(super) fn durations(&self) -> Durations {
        let bounds = BOUNDS.into_iter().chain([f64::INFINITY]);
        let buckets: Vec<_> = bounds.zip(self.took.iter().map(|count| count.load(Relaxed))).collect();
        let seconds = Duration::from_nanos(self.nanoseconds.load(Relaxed)).as_secs_f64();
        Durations { seconds, count: buckets.iter().map(|(_, count)| count).sum(), buckets }
    }

    pub(super) fn fetches(&self) -> u64 {
        self.fetches.load(Relaxed)
    }

    pub(super) fn unauthorized(&self) -> u64 {
        self.strangers.load(Relaxed)
    }

    pub(super) fn is_well(&self) -> bool {
        self.troubles().is_empty()
    }

    pub(super) fn standing(&self) -> SignerState {
        self.locked().clone()
    }

    fn locked(&self) -> MutexGuard<'_, SignerState> {
        lock(&self.standing)
    }
}

fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().expect("nobody panics while holding it")
}

/// Returns whether that was something else.
fn replace(known: &Mutex<Option<String>>, next: Option<String>) -> bool {
    let mut known = lock(known);
    let changed = *known != next;
    *known = next;
    changed
}

#[cfg(test)]
mod tests;
