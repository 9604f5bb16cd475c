//! Metrics of a signing node.
//!
//! Counted where it happens, without a lock: a signature never waits for a scrape.

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

/// The outcome of a signing request of an API server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SignOutcome {
    Signed,
    /// No key is ready, or the expiry of the token cannot be recorded on disk: the API server may retry.
    Unavailable,
    /// The claims cannot be parsed, or the token lifetime is too long.
    Refused,
    /// OpenSSL failed, or the signature did not verify.
    Failed,
}

impl SignOutcome {
    pub const ALL: [Self; 4] = [Self::Signed, Self::Unavailable, Self::Refused, Self::Failed];

    /// The label value in metrics.
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

/// Upper bounds of the histogram buckets, in seconds: bare RSA-2048 takes a quarter of a millisecond,
/// RSA-4096 two, and a write to the journal as long as the disk takes.
const BOUNDS: [f64; 8] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.05, 0.25, 1.0];

/// The metrics of one node. Shared by its tasks and the scrapes.
#[derive(Debug)]
pub struct SignerMetrics {
    node: NodeName,
    outcomes: [AtomicU64; SignOutcome::ALL.len()],
    /// Signatures per bucket: no longer than its bound and longer than the previous one; the last bucket has
    /// no bound.
    took: [AtomicU64; BOUNDS.len() + 1],
    nanoseconds: AtomicU64,
    fetches: AtomicU64,
    unmanaged_keys: AtomicU64,
    /// Why reconciliation fails.
    work: Mutex<Option<String>>,
    /// Why the socket cannot be used.
    socket: Mutex<Option<String>>,
    standing: Mutex<SignerState>,
}

/// The state of a node after its last change.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SignerState {
    /// Its keys by state; includes every state.
    pub keys: BTreeMap<&'static str, usize>,
    /// When the verification keys reported to API servers last changed.
    pub changed: Timestamp,
    /// Creation time of the last desired state that it observed.
    pub observed_order: Option<Timestamp>,
    /// Time of its last announcement.
    pub announced: Timestamp,
}

/// The histogram of signing durations.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Durations {
    pub(super) seconds: f64,
    pub(super) count: u64,
    /// Bounds in seconds, and the count between each and the previous one.
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
            unmanaged_keys: AtomicU64::default(),
            work: Mutex::default(),
            socket: Mutex::default(),
            standing: Mutex::default(),
        }
    }

    /// Records an answered request. Only signatures are timed: a refusal takes no time.
    pub fn answered(&self, outcome: SignOutcome, took: Duration) {
        self.outcomes[outcome as usize].fetch_add(1, Relaxed);
        if outcome == SignOutcome::Signed {
            let seconds = took.as_secs_f64();
            let bucket = BOUNDS.iter().position(|bound| seconds <= *bound).unwrap_or(BOUNDS.len());
            self.took[bucket].fetch_add(1, Relaxed);
            self.nanoseconds.fetch_add(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX), Relaxed);
        }
    }

    /// Records that an API server fetched the keys.
    pub fn fetched(&self) {
        self.fetches.fetch_add(1, Relaxed);
    }

    /// Records a connection of an unauthorised peer.
    pub fn record_unauthorized(&self) {
        self.unmanaged_keys.fetch_add(1, Relaxed);
    }

    /// Records the result of a reconciliation: `None`, or the error.
    pub fn record_reconcile(&self, trouble: Option<String>) {
        replace(&self.work, trouble);
    }

    /// Records whether the socket can be used; returns whether the error changed.
    pub fn reachable(&self, trouble: Option<String>) -> bool {
        replace(&self.socket, trouble)
    }

    /// All current errors of the node.
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
        self.unmanaged_keys.load(Relaxed)
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

/// Returns whether the value changed.
fn replace(known: &Mutex<Option<String>>, next: Option<String>) -> bool {
    let mut known = lock(known);
    let changed = *known != next;
    *known = next;
    changed
}

#[cfg(test)]
mod tests;
