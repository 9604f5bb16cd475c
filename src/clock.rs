//! The one place that reads the time.

use jiff::Timestamp;

/// The current time, in whole seconds: nothing here is decided on less.
#[expect(clippy::disallowed_methods, reason = "this is the place that reads it")]
#[must_use]
pub fn now() -> Timestamp {
    Timestamp::from_second(Timestamp::now().as_second()).expect("the present is in range")
}
