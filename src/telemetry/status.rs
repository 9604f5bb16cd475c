//! The last observed state of the process: the single input of metrics and status.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, RwLock},
};

use jiff::Timestamp;
use serde::Serialize;

use super::{
    event_source::{self, EventQueue},
    issuer_status::{
        ConfigurationStatus, IssuerStatus, Issuers, Shared, SourceStatus, Summary, TargetStatus, TlsStatus,
        Traffic, UNPOISONED, lock,
    },
    log, metrics,
    signer_metrics::SignerMetrics,
};
use crate::core::{
    entra::ExchangeAnswer,
    events::event::Event,
    jose::{issuer::Issuer, jwk_set::Profile},
    ledger::Ledger,
    text::redaction::redact_json,
    verification::Verdict,
};

mod view;

/// Shared by all tasks. Every issuer has its own lock, so that rendering thousands of them blocks no task.
#[derive(Clone, Debug, Default)]
pub struct StatusStore(Arc<State>);

#[derive(Debug, Default)]
struct State {
    issuers: RwLock<BTreeMap<String, Shared>>,
    /// The node that signs in this process, by issuer.
    signers: Mutex<BTreeMap<String, Arc<SignerMetrics>>>,
    configuration: Mutex<ConfigurationStatus>,
    /// Certificate of the public listener; `None` where it serves plain text.
    tls: Mutex<Option<TlsStatus>>,
    /// The queue for Kubernetes Events, if they are enabled.
    events: Option<EventQueue>,
}

impl StatusStore {
    /// A status whose changes are sent as Events.
    #[must_use]
    pub fn with_events(events: EventQueue) -> Self {
        Self(Arc::new(State { events: Some(events), ..State::default() }))
    }

    pub fn issuer(&self, issuer: &Issuer, change: impl FnOnce(&mut IssuerStatus)) {
        let events = self.change(issuer, |status| {
            let (alarms, failed) = (status.alarms.clone(), status.ledger.error.is_some());
            change(status);
            let issuer = issuer.as_str();
            let mut events = event_source::of_alarms(&alarms, &status.alarms, issuer);
            events.extend(event_source::of_storage(failed, status.ledger.error.as_deref(), issuer));
            events
        });
        self.record(events);
    }

    fn change<T>(&self, issuer: &Issuer, change: impl FnOnce(&mut IssuerStatus) -> T) -> T {
        let known = self.0.issuers.read().expect(UNPOISONED).get(issuer.as_str()).cloned();
        let status = known.unwrap_or_else(|| {
            let mut issuers = self.0.issuers.write().expect(UNPOISONED);
            Arc::clone(issuers.entry(issuer.to_string()).or_default())
        });
        change(&mut lock(&status))
    }

    fn record(&self, events: impl IntoIterator<Item = Event>) {
        if let Some(queue) = &self.0.events {
            queue.record(events);
        }
    }

    pub fn source(&self, issuer: &Issuer, name: &str, change: impl FnOnce(&mut SourceStatus)) {
        let events = self.change(issuer, |status| {
            let source = named(&mut status.sources, name);
            let before = source.clone();
            change(source);
            event_source::of_source(&before, source, issuer.as_str(), name)
        });
        self.record(events);
    }

    /// Removes a source that is no longer configured.
    pub fn forget_source(&self, issuer: &Issuer, name: &str) {
        self.issuer(issuer, |status| drop(status.sources.remove(name)));
    }

    pub fn target(&self, issuer: &Issuer, name: &str, change: impl FnOnce(&mut TargetStatus)) {
        let event = self.change(issuer, |status| {
            let target = named(&mut status.targets, name);
            let before = target.clone();
            change(target);
            event_source::of_target(&before, target, issuer.as_str(), name)
        });
        self.record(event);
    }

    /// Records the current verdict of a relying party on a token.
    pub fn verified(&self, issuer: &Issuer, now: Timestamp, judgement: Verdict) {
        let event = self.change(issuer, |status| {
            let known = status.verification.get_or_insert_default();
            let event = event_source::of_judgement(known.judgement.as_ref(), &judgement, issuer.as_str());
            (known.error, known.at, known.judgement) = (None, Some(now), Some(judgement));
            event
        });
        self.record(event);
    }

    /// Records why there was no verdict; the last verdict stays.
    pub fn unverified(&self, issuer: &Issuer, error: &str) {
        self.change(issuer, |status| {
            let known = status.verification.get_or_insert_default();
            known.failures += 1;
            known.error = Some(error.to_owned());
        });
    }

    /// Records an answer of Entra to a token.
    pub fn exchanged(&self, issuer: &Issuer, now: Timestamp, answer: ExchangeAnswer) {
        let event = self.change(issuer, |status| {
            let known = status.exchange.get_or_insert_default();
            let event = event_source::of_exchange(known.answer.as_ref(), &answer, issuer.as_str());
            if answer.is_accepted() {
                known.last_accepted = Some(now);
            }
            (known.error, known.at, known.answer) = (None, Some(now), Some(answer));
            event
        });
        self.record(event);
    }

    /// Records why Entra gave no answer; the last answer stays.
    pub fn not_exchanged(&self, issuer: &Issuer, error: &str) {
        self.change(issuer, |status| {
            let known = status.exchange.get_or_insert_default();
            known.failures += 1;
            known.error = Some(error.to_owned());
        });
    }

    /// Sets the ledger; `profile` is the served one. The first ledger causes no Events.
    pub fn ledger(&self, ledger: Arc<Ledger>, profile: Profile) {
        let issuer = ledger.issuer().clone();
        let events = self.change(&issuer, |status| {
            let events = status.stored.as_ref().map(|(before, _)| event_source::of_keys(before, &ledger));
            status.stored = Some((ledger, profile));
            events
        });
        self.record(events.into_iter().flatten());
    }

    /// Registers an issuer that the process starts with: readiness waits for it.
    pub fn expect(&self, issuer: &Issuer) {
        self.issuer(issuer, |_| {});
    }

    /// Registers an issuer that a reload added: readiness does not wait for it.
    pub fn expect_late(&self, issuer: &Issuer) {
        self.issuer(issuer, |status| status.late = true);
    }

    /// Removes the sources and targets of an issuer whose configuration changed; its served documents stay.
    pub fn reset(&self, issuer: &Issuer) {
        self.issuer(issuer, |status| {
            status.alarms.clear();
            status.sources.clear();
            status.targets.clear();
            status.verification = None;
            status.exchange = None;
        });
    }

    /// Sets the metrics of a node that signs in this process.
    pub fn signer(&self, issuer: &Issuer, meter: Arc<SignerMetrics>) {
        lock(&self.0.signers).insert(issuer.to_string(), meter);
    }

    /// Removes an issuer that is no longer configured.
    pub fn forget(&self, issuer: &Issuer) {
        lock(&self.0.signers).remove(issuer.as_str());
        self.0.issuers.write().expect(UNPOISONED).remove(issuer.as_str());
    }

    /// Records that a configuration was read and accepted.
    pub fn configuration_read(&self, now: Timestamp) {
        self.configure(|configuration| {
            let reads = configuration.reads + 1;
            *configuration = ConfigurationStatus { reads, read: Some(now), refused: None, alarm: None };
        });
    }

    /// Records that a configuration was rejected; the previous one stays.
    pub fn configuration_refused(&self, now: Timestamp, error: &str) {
        self.configure(|configuration| {
            configuration.reads += 1;
            configuration.refused = Some(now);
            configuration.alarm = Some(format!("the configuration was rejected: {error}"));
        });
    }

    fn configure(&self, change: impl FnOnce(&mut ConfigurationStatus)) {
        let mut configuration = lock(&self.0.configuration);
        let failed = configuration.alarm.is_some();
        change(&mut configuration);
        self.record(event_source::of_configuration(failed, configuration.alarm.as_deref()));
    }

    /// Changes the status of the certificate.
    pub fn tls(&self, change: impl FnOnce(&mut TlsStatus)) {
        let mut tls = lock(&self.0.tls);
        let tls = tls.get_or_insert_default();
        let failed = tls.error.is_some();
        change(tls);
        self.record(event_source::of_certificate(failed, tls.error.as_deref()));
    }

    /// Whether every issuer has valid documents to serve; those added by a reload do not count, because a
    /// process that serves thousands must not become unready for a new one.
    #[must_use]
    pub fn ready(&self) -> bool {
        let mut any = false;
        let waited_for = self.0.issuers.read().expect(UNPOISONED).values().all(|status| {
            let status = lock(status);
            any |= status.ready;
            status.ready || status.late
        });
        any && waited_for
    }

    /// The failed checks of each issuer, with `all` also the passed ones: result and text of each.
    #[must_use]
    pub fn checks(&self, all: bool) -> Vec<(bool, String)> {
        let mut checks = Vec::new();
        for (issuer, status) in self.issuers().0 {
            let of_issuer = lock(&status).checks(all).into_iter();
            checks.extend(of_issuer.map(|(passed, what)| (passed, format!("{issuer}: {what}"))));
        }
        for (issuer, signer) in lock(&self.0.signers).iter() {
            let troubles = signer.troubles().into_iter();
            let node = signer.node();
            checks.extend(troubles.map(|trouble| (false, format!("{issuer}: node `{node}`: {trouble}"))));
        }
        checks
    }

    /// A short status of an issuer.
    #[must_use]
    pub fn summary(&self, issuer: &Issuer) -> Summary {
        self.change(issuer, |status| status.summary())
    }

    /// The body of `/status.json`.
    #[must_use]
    pub fn status(&self) -> String {
        #[derive(Serialize)]
        struct Page<'a> {
            version: &'static str,
            configuration: ConfigurationStatus,
            log_lines_dropped: u64,
            #[serde(skip_serializing_if = "Option::is_none")]
            tls: Option<TlsStatus>,
            issuers: &'a Issuers,
        }
        let page = Page {
            version: env!("CARGO_PKG_VERSION"),
            configuration: self.configuration(),
            log_lines_dropped: log::dropped(),
            tls: self.tls_status(),
            issuers: &self.issuers(),
        };
        redact_json(&serde_json::to_string(&page).expect("strings and times always serialise")).into_owned()
    }

    /// All metrics, in the text format of OpenMetrics. `traffic` is that of the public listener, if there is
    /// one.
    #[must_use]
    pub fn metrics(&self, traffic: Option<Traffic>) -> String {
        metrics::render(metrics::Page {
            configuration: self.configuration(),
            log_lines_dropped: log::dropped(),
            tls: self.tls_status(),
            issuers: self.issuers(),
            signers: lock(&self.0.signers).clone(),
            traffic,
            events: self.0.events.as_ref().map(EventQueue::totals),
        })
    }

    fn tls_status(&self) -> Option<TlsStatus> {
        lock(&self.0.tls).clone()
    }

    fn configuration(&self) -> ConfigurationStatus {
        lock(&self.0.configuration).clone()
    }

    fn issuers(&self) -> Issuers {
        let issuers = self.0.issuers.read().expect(UNPOISONED);
        Issuers(issuers.iter().map(|(issuer, status)| (issuer.clone(), Arc::clone(status))).collect())
    }
}
/// The entry for a name; the name is copied only when it is new.
fn named<'a, T: Default>(all: &'a mut BTreeMap<String, T>, name: &str) -> &'a mut T {
    if !all.contains_key(name) {
        all.insert(name.to_owned(), T::default());
    }
    all.get_mut(name).expect("it was just put there")
}
