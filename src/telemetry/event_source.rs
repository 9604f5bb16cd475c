//! Queues Events for status changes, between the writers of the status and the event loop.
//!
//! Writers never wait: an event is counted into its series, and excess events are dropped.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicU64, Ordering},
};

use tokio::sync::Notify;

use crate::{
    clock,
    core::{
        events::{
            aggregator::{EventAggregator, EventUpdate, Next, SendOutcome},
            event::{Event, Reason},
        },
        ledger::Ledger,
        text::redaction::printable,
        verification::Verdict,
    },
};

use super::status::{IssuerStatus, SourceStatus, TargetStatus};

/// Shared by the status and the event loop.
#[derive(Clone, Debug, Default)]
pub struct EventQueue(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    bulletins: Mutex<EventAggregator>,
    heard: Notify,
    told: AtomicU64,
    failed: AtomicU64,
}

/// Counters of the queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Totals {
    /// Events that were created or incremented.
    pub(super) told: u64,
    /// Requests that failed.
    pub(super) failed: u64,
    /// Events dropped without being sent.
    pub(super) dropped: u64,
}

impl EventQueue {
    pub(super) fn record(&self, notices: impl IntoIterator<Item = Event>) {
        let mut any = false;
        for notice in notices {
            any = true;
            self.with(|bulletins| bulletins.record(notice, clock::now()));
        }
        if any {
            self.0.heard.notify_one();
        }
    }

    /// The next action of the event loop.
    #[must_use]
    pub fn next(&self) -> Next {
        self.with(|bulletins| bulletins.next(clock::now()))
    }

    /// Resolves once there is a new event.
    pub async fn changed(&self) {
        self.0.heard.notified().await;
    }

    /// Records the outcome of sending an update.
    pub fn after(&self, bulletin: &EventUpdate, outcome: SendOutcome) {
        let total = if outcome == SendOutcome::Sent { &self.0.told } else { &self.0.failed };
        total.fetch_add(1, Ordering::Relaxed);
        self.with(|bulletins| bulletins.after(bulletin, outcome, clock::now()));
    }

    pub(super) fn totals(&self) -> Totals {
        Totals {
            told: self.0.told.load(Ordering::Relaxed),
            failed: self.0.failed.load(Ordering::Relaxed),
            dropped: self.with(|bulletins| bulletins.dropped()),
        }
    }

    fn with<T>(&self, work: impl FnOnce(&mut EventAggregator) -> T) -> T {
        work(&mut self.0.bulletins.lock().expect("nobody panics while holding it"))
    }
}

/// The reported state of a source before a change. `None` means unknown: a source that is healthy from the
/// start is not reported.
#[derive(Clone, Copy)]
pub(super) struct SourceBefore {
    up: Option<bool>,
    issuer_matches: Option<bool>,
    signing_key_public: Option<bool>,
}

impl SourceBefore {
    pub(super) fn of(status: &SourceStatus) -> Self {
        Self {
            up: (status.answers + status.failures > 0).then_some(status.up),
            issuer_matches: status.issuer_matches,
            signing_key_public: status.signing_key_public,
        }
    }

    pub(super) fn until(self, status: &SourceStatus, issuer: &str, name: &str) -> Vec<Event> {
        let now = Self::of(status);
        let error = status.error.as_deref().unwrap_or_default();
        let kid = printable(status.signs_with.as_deref().unwrap_or_default());
        let told = [
            turned(self.up, now.up, (Reason::SourceFailed, Reason::SourceRecovered)),
            turned(
                self.issuer_matches,
                now.issuer_matches,
                (Reason::IssuerMismatch, Reason::SourceRecovered),
            ),
            turned(
                self.signing_key_public,
                now.signing_key_public,
                (Reason::SigningKeyNotPublic, Reason::SigningKeyPublic),
            ),
        ];
        let what = |reason| match reason {
            Reason::SourceFailed => format!("source `{name}` failed, keeping its last good keys: {error}"),
            Reason::SigningKeyNotPublic => {
                format!(
                    "source `{name}` signs with key `{kid}`, which is not published: relying parties refuse \
                     its tokens"
                )
            }
            Reason::SigningKeyPublic => {
                format!("the signing key of source `{name}` is published: `{kid}`")
            }
            Reason::IssuerMismatch => format!("source `{name}` has another issuer, its keys are ignored"),
            _ => format!("source `{name}` answers again"),
        };
        let mut reasons: Vec<Reason> = told.into_iter().flatten().collect();
        reasons.dedup();
        reasons.into_iter().map(|reason| Event::new(reason, issuer, name, &what(reason))).collect()
    }
}

/// The reported state of a target before a change.
#[derive(Clone, Copy)]
pub(super) struct TargetBefore(Option<bool>);

impl TargetBefore {
    pub(super) fn of(status: &TargetStatus) -> Self {
        Self((status.checks > 0).then_some(status.up))
    }

    pub(super) fn until(self, status: &TargetStatus, issuer: &str, name: &str) -> Option<Event> {
        let reason = turned(self.0, Self::of(status).0, (Reason::TargetFailed, Reason::TargetRecovered))?;
        let what = match &status.error {
            Some(error) => format!("target `{name}` failed, retrying: {error}"),
            None => format!("target `{name}` is in sync again"),
        };
        Some(Event::new(reason, issuer, name, &what))
    }
}

/// The reported state of an issuer before a change.
pub(super) struct IssuerBefore {
    alarms: Vec<String>,
    ledger_fails: bool,
}

impl IssuerBefore {
    pub(super) fn of(status: &IssuerStatus) -> Self {
        Self { alarms: status.alarms.clone(), ledger_fails: status.ledger.error.is_some() }
    }

    pub(super) fn until(self, status: &IssuerStatus, issuer: &str) -> Vec<Event> {
        let mut notices = of_alarms(&self.alarms, &status.alarms, issuer);
        let error = status.ledger.error.as_deref();
        let reasons = (Reason::LedgerFailed, Reason::LedgerRecovered);
        if let Some(reason) = turned(Some(!self.ledger_fails), Some(error.is_none()), reasons) {
            let failed =
                error.map(|error| format!("the ledger is not stored, the publication is unchanged: {error}"));
            let what = failed.as_deref().unwrap_or("the ledger is stored again");
            notices.push(Event::new(reason, issuer, "", what));
        }
        notices
    }
}

/// The event of a new verdict; each reason for refusing tokens is a series of its own.
pub(super) fn of_judgement(before: Option<&Verdict>, now: &Verdict, issuer: &str) -> Option<Event> {
    if !now.is_news_after(before) {
        return None;
    }
    let reason = if now.is_accepted() { Reason::VerificationRecovered } else { Reason::VerificationFailed };
    let subject = now.decisive().map_or("", |finding| finding.id);
    Some(Event::new(reason, issuer, subject, &now.in_words()))
}

/// The key events between two states of a ledger.
pub(super) fn of_keys(before: &Arc<Ledger>, now: &Arc<Ledger>) -> Vec<Event> {
    if Arc::ptr_eq(before, now) {
        return Vec::new();
    }
    let new = now.changes().iter().filter(|change| !before.changes().contains(change));
    new.map(|change| Event::of_key(now.issuer().as_str(), change)).collect()
}

/// The event when a configuration is rejected after an accepted one, or the reverse.
pub(super) fn of_configuration(before: Option<&str>, now: Option<&str>) -> Option<Event> {
    let reasons = (Reason::ConfigurationRejected, Reason::ConfigurationAccepted);
    let reason = turned(Some(before.is_none()), Some(now.is_none()), reasons)?;
    Some(Event::about_process(reason, now.unwrap_or("the configuration is accepted again")))
}

/// The event when the certificate of the listener cannot be replaced, or can be again.
pub(super) fn of_certificate(before: Option<&str>, now: Option<&str>) -> Option<Event> {
    let reasons = (Reason::CertificateRejected, Reason::CertificateAccepted);
    let reason = turned(Some(before.is_none()), Some(now.is_none()), reasons)?;
    let refused =
        now.map(|error| format!("the certificate is not usable, keeping the previous one: {error}"));
    Some(Event::about_process(reason, refused.as_deref().unwrap_or("the certificate is served")))
}

/// The events of raised and resolved alarms.
fn of_alarms(before: &[String], now: &[String], issuer: &str) -> Vec<Event> {
    let missing = |these: &[String], there: &[String], reason| {
        let one = |alarm: &&String| !there.contains(alarm);
        let notice = |alarm: &String| {
            let over = if reason == Reason::AlarmResolved { "resolved: " } else { "" };
            Event::new(reason, issuer, alarm, &format!("{over}{alarm}"))
        };
        these.iter().filter(one).map(notice).collect::<Vec<_>>()
    };
    [missing(now, before, Reason::AlarmRaised), missing(before, now, Reason::AlarmResolved)].concat()
}

/// The reason for `false` or for `true`, after a change.
fn turned(before: Option<bool>, now: Option<bool>, (bad, good): (Reason, Reason)) -> Option<Reason> {
    match (before, now) {
        (Some(true) | None, Some(false)) => Some(bad),
        (Some(false), Some(true)) => Some(good),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
