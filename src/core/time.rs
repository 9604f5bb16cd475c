//! Saturating arithmetic with foreign timestamps.

use std::time::Duration;

use jiff::Timestamp;

/// Adds a wait to a time. Saturates at `Timestamp::MAX`, so that keys stay and nothing begins.
#[must_use]
pub fn later(time: Timestamp, wait: Duration) -> Timestamp {
    time.checked_add(wait).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests;
