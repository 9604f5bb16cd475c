//! Arithmetic with times that others wrote.

use std::time::Duration;

use jiff::Timestamp;

/// So much later. What is beyond the last time that there is never comes: keys stay, and nothing begins.
#[must_use]
pub fn later(time: Timestamp, wait: Duration) -> Timestamp {
    time.checked_add(wait).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests;
