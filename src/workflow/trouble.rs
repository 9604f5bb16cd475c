//! What is wrong, as it stands in the log: told once, and not while it may pass.

use std::time::Duration;

use tokio::time::Instant;

/// How long a refusal may last before it is told. An API server that has just started refuses everybody for some
/// seconds, until it knows its roles.
const PASSING: Duration = Duration::from_secs(20);

/// The trouble of one loop.
#[derive(Debug, Default)]
pub struct Trouble {
    told: Option<String>,
    /// Since when it is refused, and nothing else was met.
    refused: Option<Instant>,
}

impl Trouble {
    /// Whether this is to be told now.
    pub fn is_news(&mut self, text: &str, is_refusal: bool) -> bool {
        let now = Instant::now();
        let since = is_refusal.then(|| *self.refused.get_or_insert(now));
        self.refused = since;
        let may_pass = since.is_some_and(|since| now.duration_since(since) < PASSING);
        if may_pass || self.told.as_deref() == Some(text) {
            return false;
        }
        self.told = Some(text.to_owned());
        true
    }

    /// It is over; returns whether that is to be told.
    pub fn is_over(&mut self) -> bool {
        self.refused = None;
        self.told.take().is_some()
    }
}
