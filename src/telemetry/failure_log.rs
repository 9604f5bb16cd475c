//! Logs a repeated failure once, whatever its text, and not while it may be transient.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

/// Most texts logged during one failure: a text with a port or a time differs each time.
const TEXTS: usize = 3;
/// How long a refusal may last before it is logged. An API server that has just started refuses all requests
/// for some seconds, until it has loaded its roles.
const PASSING: Duration = Duration::from_secs(20);

/// Whether an operation fails now, and what was logged of it.
#[derive(Debug, Default)]
pub struct FailureLog {
    told: BTreeSet<String>,
    times: u64,
    /// Since when every attempt is refused.
    refused: Option<Instant>,
}

impl FailureLog {
    /// Records a failure; returns whether to log it.
    pub fn record_failure(&mut self, text: &str) -> bool {
        self.record_refusal(text, false)
    }

    /// The same for a possible refusal, which is logged only once it has lasted.
    pub fn record_refusal(&mut self, text: &str, is_refusal: bool) -> bool {
        self.is_new(text, is_refusal, Instant::now())
    }

    fn is_new(&mut self, text: &str, is_refusal: bool, now: Instant) -> bool {
        self.times += 1;
        let since = is_refusal.then(|| *self.refused.get_or_insert(now));
        self.refused = since;
        let may_pass = since.is_some_and(|since| now.duration_since(since) < PASSING);
        !may_pass && self.told.len() < TEXTS && self.told.insert(text.to_owned())
    }

    /// Records a success; returns the number of failures before it, if they were logged.
    pub fn record_success(&mut self) -> Option<u64> {
        let Self { told, times, .. } = std::mem::take(self);
        (!told.is_empty()).then_some(times)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_that_alternates_is_told_of_once_and_counted() {
        let mut trouble = FailureLog::default();
        let told = (0..100).filter(|round| trouble.record_failure(["refused", "reset"][round % 2])).count();
        assert_eq!((told, trouble.record_success(), trouble.record_success()), (2, Some(100), None));
        assert!(trouble.record_failure("refused"), "it begins anew");
    }

    #[test]
    fn a_text_that_is_another_one_each_time_is_told_of_three_times() {
        let mut trouble = FailureLog::default();
        assert_eq!((0..100).filter(|port| trouble.record_failure(&format!("from port {port}"))).count(), 3);
    }

    #[test]
    fn a_refusal_is_told_of_once_it_has_lasted() {
        let begun = Instant::now();
        let mut trouble = FailureLog::default();
        assert!(!trouble.is_new("forbidden", true, begun));
        assert_eq!(trouble.record_success(), None, "what was not told is not told to be over");
        assert!(!trouble.is_new("forbidden", true, begun));
        assert!(trouble.is_new("forbidden", true, begun + PASSING));
        assert!(trouble.is_new("no answer", false, begun), "anything else at once");
    }
}
