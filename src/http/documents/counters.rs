//! Requests per document, counted without contention.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use http::StatusCode;

use crate::core::jose::publication::Document;

/// The statuses of answers at a document's path.
const STATUSES: [StatusCode; 4] = [
    StatusCode::OK,
    StatusCode::NOT_MODIFIED,
    StatusCode::METHOD_NOT_ALLOWED,
    StatusCode::SERVICE_UNAVAILABLE,
];

/// Number of shards; with more threads, some share one.
const SHARDS: usize = 16;

/// Requests per document and status.
#[derive(Default)]
pub struct Counters([Shard; SHARDS]);

/// The counts of some threads, in separate cache lines: no thread waits for another core.
#[derive(Default)]
#[repr(align(128))]
struct Shard {
    known: [[AtomicU64; STATUSES.len()]; Document::IN_WRITE_ORDER.len()],
    unknown: AtomicU64,
}

impl Counters {
    pub(super) fn count(&self, document: Document, status: StatusCode) {
        if let Some(at) = STATUSES.iter().position(|known| *known == status) {
            self.shard().known[document as usize][at].fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(super) fn count_unknown(&self) {
        self.shard().unknown.fetch_add(1, Ordering::Relaxed);
    }

    /// Requests so far: document (`unknown` for any other path), status and count.
    #[must_use]
    pub fn totals(&self) -> Vec<(&'static str, u16, u64)> {
        let sum = |counter: &dyn Fn(&Shard) -> &AtomicU64| {
            self.0.iter().map(|shard| counter(shard).load(Ordering::Relaxed)).sum()
        };
        let mut totals = vec![("unknown", 404, sum(&|shard| &shard.unknown))];
        for document in Document::IN_WRITE_ORDER {
            for (at, status) in STATUSES.iter().enumerate() {
                let count = sum(&|shard| &shard.known[document as usize][at]);
                totals.push((document.name(), status.as_u16(), count));
            }
        }
        totals
    }

    fn shard(&self) -> &Shard {
        static THREADS: AtomicUsize = AtomicUsize::new(0);
        thread_local!(static OWN: usize = THREADS.fetch_add(1, Ordering::Relaxed) % SHARDS);
        &self.0[OWN.with(|own| *own)]
    }
}
