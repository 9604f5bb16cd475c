//! Limits how many loops work at once, without letting a slow one delay the others.
//!
//! A plain semaphore would: sixty-four sources that hang until their timeout of 10 s would hold every permit.
//! So a permit is for prompt work (reading files, parsing, a service that answers). A loop that is not done
//! after 250 ms loses it and continues without; one that was slow the last time takes none. Waiting costs
//! some kilobytes, and is bounded by one piece of work per loop. A hundred hanging sources delay the first
//! round of the others by half a second.

use std::{pin::pin, sync::Arc, time::Duration};

use tokio::{
    sync::Semaphore,
    time::{Instant, timeout},
};

/// Most loops at work at once: enough to keep a disk and some cores busy, few enough for thread stacks not to
/// matter.
const PERMITS: usize = 64;
/// Longest time that work counts as prompt. A file is read within a millisecond, an API server answers within
/// tens of them.
const PROMPT_LIMIT: Duration = Duration::from_millis(250);

/// The concurrency limit shared by all loops of a process; clones share it.
#[derive(Clone, Debug)]
pub struct Concurrency {
    permits: Arc<Semaphore>,
    prompt_limit: Duration,
}

impl Default for Concurrency {
    fn default() -> Self {
        Self::new(PERMITS, PROMPT_LIMIT)
    }
}

impl Concurrency {
    fn new(places: usize, patience: Duration) -> Self {
        Self { permits: Arc::new(Semaphore::new(places)), prompt_limit: patience }
    }

    /// A permit handle for one loop.
    #[must_use]
    pub fn permit(&self) -> Permit {
        Permit { gate: self.clone(), is_slow: false }
    }
}

/// The permit handle of one loop: remembers whether its last work was slow.
#[derive(Debug)]
pub struct Permit {
    gate: Concurrency,
    is_slow: bool,
}

impl Permit {
    /// Runs `work` once a permit is free.
    pub async fn run<T>(&mut self, work: impl Future<Output = T>) -> T {
        let Concurrency { permits: places, prompt_limit: patience } = &self.gate;
        let place = if self.is_slow { None } else { Some(places.acquire().await.expect("nobody closes it")) };
        let began = Instant::now();
        let mut work = pin!(work);
        let done = if let Ok(done) = timeout(*patience, &mut work).await {
            done
        } else {
            drop(place);
            work.await
        };
        self.is_slow = began.elapsed() >= *patience;
        done
    }
}

#[cfg(test)]
mod tests;
