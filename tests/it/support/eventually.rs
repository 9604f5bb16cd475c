//! Waiting for what must come to pass: a condition is polled, nothing is slept through.

use std::{
    thread,
    time::{Duration, Instant},
};

/// Longest that anything may take that the tests wait for; builds may run beside them.
const DEADLINE: Duration = Duration::from_mins(1);
const POLL_EVERY: Duration = Duration::from_millis(20);

/// Polls until there is something, and returns it with the time it took.
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
