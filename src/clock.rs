//! The only module that reads the system time.

use jiff::Timestamp;

/// The current time in whole seconds, the resolution of all decisions.
#[expect(clippy::disallowed_methods, reason = "this is the place that reads it")]
#[must_use]
pub fn now() -> Timestamp {
    Timestamp::from_second(Timestamp::now().as_second()).expect("the present is in range")
}
