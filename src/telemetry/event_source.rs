//! Queues Events for status changes, between the writers of the status and the event loop.
//!
//! Writers never wait: an event is counted into its series, and excess events are dropped.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::{select, sync::Notify, time::sleep};

use crate::{
    clock,
    core::{
        entra::ExchangeAnswer,
        events::{
            aggregator::{EventAggregator, SendOutcome, Series, Totals},
            event::{Event, Reason},
        },
        ledger::Ledger,
        text::redaction::printable,
        verification::Verdict,
    },
};

use super::issuer_status::{SourceStatus, TargetStatus};

/// Shared by the status and the event loop.
#[derive(Clone, Debug, Default)]
pub struct EventQueue(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    events: Mutex<EventAggregator>,
    changed: Notify,
}

impl EventQueue {
    pub(super) fn record(&self, events: impl IntoIterator<Item = Event>) {
        for event in events {
            self.with(|queue| queue.record(event, clock::now()));
            self.0.changed.notify_one();
        }
    }

    /// Waits for the next series to send.
    pub async fn next(&self) -> Series {
        loop {
            let now = clock::now();
            let next = self.with(|queue| queue.next(now).map(|(at, series)| (at, series.clone())));
            match next {
                Some((at, series)) if at <= now => return series,
                Some((at, _)) => {
                    let wait = Duration::try_from(at.duration_since(now)).unwrap_or_default();
                    select! { () = sleep(wait) => {}, () = self.0.changed.notified() => {} }
                }
                None => self.0.changed.notified().await,
            }
        }
    }

    /// Records the outcome of sending a series.
    pub fn after(&self, series: &Series, outcome: SendOutcome) {
        self.with(|queue| queue.after(series, outcome, clock::now()));
    }

    pub(super) fn totals(&self) -> Totals {
        self.with(|queue| queue.totals())
    }

    fn with<T>(&self, work: impl FnOnce(&mut EventAggregator) -> T) -> T {
        work(&mut self.0.events.lock().expect("nobody panics while holding it"))
    }
}

/// The events of a change of a source. A source that is healthy from the start is not reported.
pub(super) fn of_source(before: &SourceStatus, now: &SourceStatus, issuer: &str, name: &str) -> Vec<Event> {
    use Reason::{IssuerMismatch, SigningKeyNotPublic, SigningKeyPublic, SourceFailed, SourceRecovered};
    let up = |status: &SourceStatus| (status.answers + status.failures > 0).then_some(status.up);
    let reasons = [
        turned(up(before), up(now), SourceFailed, SourceRecovered),
        turned(before.issuer_matches, now.issuer_matches, IssuerMismatch, SourceRecovered),
        turned(before.signing_key_public, now.signing_key_public, SigningKeyNotPublic, SigningKeyPublic),
    ];
    let mut reasons: Vec<_> = reasons.into_iter().flatten().collect();
    reasons.dedup();
    let error = now.error.as_deref().unwrap_or_default();
    let kid = printable(now.signs_with.as_deref().unwrap_or_default());
    let what = |reason| match reason {
        SourceFailed => format!("source `{name}` failed, keeping its last good keys: {error}"),
        SigningKeyNotPublic => format!(
            "source `{name}` signs with key `{kid}`, which is not published: relying parties refuse its tokens"
        ),
        SigningKeyPublic => format!("the signing key of source `{name}` is published: `{kid}`"),
        IssuerMismatch => format!("source `{name}` has another issuer, its keys are ignored"),
        _ => format!("source `{name}` answers again"),
    };
    reasons.into_iter().map(|reason| Event::new(reason, issuer, name, &what(reason))).collect()
}

/// The event of a change of a target.
pub(super) fn of_target(
    before: &TargetStatus,
    now: &TargetStatus,
    issuer: &str,
    name: &str,
) -> Option<Event> {
    let up = |status: &TargetStatus| (status.checks > 0).then_some(status.up);
    let reason = turned(up(before), up(now), Reason::TargetFailed, Reason::TargetRecovered)?;
    let what = match &now.error {
        Some(error) => format!("target `{name}` failed, retrying: {error}"),
        None => format!("target `{name}` is in sync again"),
    };
    Some(Event::new(reason, issuer, name, &what))
}

/// The event when the ledger cannot be stored, or can be again.
pub(super) fn of_storage(failed_before: bool, error: Option<&str>, issuer: &str) -> Option<Event> {
    let reason = failed(failed_before, error, Reason::LedgerFailed, Reason::LedgerRecovered)?;
    let what = match error {
        Some(error) => format!("the ledger is not stored, the publication is unchanged: {error}"),
        None => "the ledger is stored again".to_owned(),
    };
    Some(Event::new(reason, issuer, "", &what))
}

/// The events of raised and resolved alarms.
pub(super) fn of_alarms(before: &[String], now: &[String], issuer: &str) -> Vec<Event> {
    let raised = now.iter().filter(|alarm| !before.contains(alarm));
    let raised = raised.map(|alarm| Event::new(Reason::AlarmRaised, issuer, alarm, alarm));
    let resolved = before
        .iter()
        .filter(|alarm| !now.contains(alarm))
        .map(|alarm| Event::new(Reason::AlarmResolved, issuer, alarm, &format!("resolved: {alarm}")));
    raised.chain(resolved).collect()
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

/// The event of a new answer of Entra; each code is a series of its own.
pub(super) fn of_exchange(
    before: Option<&ExchangeAnswer>,
    now: &ExchangeAnswer,
    issuer: &str,
) -> Option<Event> {
    if !now.is_news_after(before) {
        return None;
    }
    let reason = if now.is_accepted() { Reason::ExchangeAccepted } else { Reason::ExchangeRefused };
    Some(Event::new(reason, issuer, &now.known_code().unwrap_or_default(), &now.in_words()))
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
pub(super) fn of_configuration(failed_before: bool, error: Option<&str>) -> Option<Event> {
    let reason = failed(failed_before, error, Reason::ConfigurationRejected, Reason::ConfigurationAccepted)?;
    Some(Event::about_process(reason, error.unwrap_or("the configuration is accepted again")))
}

/// The event when the certificate of the listener cannot be replaced, or can be again.
pub(super) fn of_certificate(failed_before: bool, error: Option<&str>) -> Option<Event> {
    let reason = failed(failed_before, error, Reason::CertificateRejected, Reason::CertificateAccepted)?;
    let what = match error {
        Some(error) => format!("the certificate is not usable, keeping the previous one: {error}"),
        None => "the certificate is served".to_owned(),
    };
    Some(Event::about_process(reason, &what))
}

fn failed(before: bool, error: Option<&str>, bad: Reason, good: Reason) -> Option<Reason> {
    turned(Some(!before), Some(error.is_none()), bad, good)
}

/// The reason to report after a change to `false` or to `true`; `None` is unknown.
fn turned(before: Option<bool>, now: Option<bool>, bad: Reason, good: Reason) -> Option<Reason> {
    match (before, now) {
        (Some(true) | None, Some(false)) => Some(bad),
        (Some(false), Some(true)) => Some(good),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
