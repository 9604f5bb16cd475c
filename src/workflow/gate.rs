//! Lets a bounded number of loops work at once, and nobody wait for one that dawdles.
//!
//! What is bounded is prompt work: reading files, asking a service that answers. Whoever takes longer
//! waits for somebody else, costs next to nothing meanwhile, and must not hold a place that others could
//! use; so it loses its place, and takes none the next time (`docs/decisions/0016`).

use std::{pin::pin, sync::Arc, time::Duration};

use tokio::{
    sync::Semaphore,
    time::{Instant, timeout},
};

/// How much can be under way at once: enough to keep a disk and some cores busy, few enough threads
/// for their stacks not to count.
const PERMITS: usize = 64;
/// Longest that work counts as prompt. A file is read within a millisecond, an API server answers within
/// tens of them.
const PATIENCE: Duration = Duration::from_millis(250);

/// What all loops of a process pass through; clones are the same gate.
#[derive(Clone, Debug)]
pub struct Concurrency {
    places: Arc<Semaphore>,
    patience: Duration,
}

impl Default for Concurrency {
    fn default() -> Self {
        Self::new(PERMITS, PATIENCE)
    }
}

impl Concurrency {
    fn new(places: usize, patience: Duration) -> Self {
        Self { places: Arc::new(Semaphore::new(places)), patience }
    }

    /// A pass for one loop.
    #[must_use]
    pub fn permit(&self) -> Permit {
        Permit { gate: self.clone(), dawdles: false }
    }
}

/// The pass of one loop: remembers whether its work took too long the last time.
#[derive(Debug)]
pub struct Permit {
    gate: Concurrency,
    dawdles: bool,
}

impl Permit {
    /// Does the work, once there is a place for it.
    pub async fn run<T>(&mut self, work: impl Future<Output = T>) -> T {
        let Concurrency { places, patience } = &self.gate;
        let place = if self.dawdles { None } else { Some(places.acquire().await.expect("nobody closes it")) };
        let began = Instant::now();
        let mut work = pin!(work);
        let done = if let Ok(done) = timeout(*patience, &mut work).await {
            done
        } else {
            drop(place);
            work.await
        };
        self.dawdles = began.elapsed() >= *patience;
        done
    }
}

#[cfg(test)]
mod tests;
