//! Waits for a condition by polling, without fixed sleeps.

use std::{
    thread,
    time::{Duration, Instant},
};

/// Longest wait for any condition; builds may run beside the tests.
const DEADLINE: Duration = Duration::from_mins(1);
const POLL_EVERY: Duration = Duration::from_millis(20);

/// Polls until there is a value, and returns it with the time it took.
///
/// # Panics
///
/// Panics with `what` when it takes too long.
#[track_caller]
pub(crate) fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> (T, Duration) {
    let start = Instant::now();
    loop {
        if let Some(found) = look() {
            return (found, start.elapsed());
        }
        assert!(start.elapsed() < DEADLINE, "after {DEADLINE:?} still not: {what}");
        thread::sleep(POLL_EVERY);
    }
}
