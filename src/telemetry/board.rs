//! The state of everything, as it was last seen: the one place that metrics and status are made from.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard},
};

use jiff::Timestamp;
use serde::Serialize;

use super::{
    metrics,
    notices::{Notices, SourceBefore, TargetBefore, of_alarms},
};
use crate::core::{issuer::Issuer, jwk_set::Profile, ledger::Ledger, notice::Notice};

/// Shared by all tasks; every lock is held for a copy only.
#[derive(Clone, Default)]
pub struct Board {
    issuers: Arc<Mutex<BTreeMap<String, IssuerStatus>>>,
    /// What changes for the better or the worse is told here, where somebody tells it.
    notices: Option<Notices>,
}

/// What is known of one issuer.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct IssuerStatus {
    /// Whether there is something true to serve.
    pub ready: bool,
    pub lineage: String,
    pub sequence: u64,
    pub keys: Vec<KeyStatus>,
    /// Kids that only a target knows: `signpost ledger adopt` takes them over.
    pub strangers: Vec<String>,
    /// What is wrong with what the sources say together, in words; nothing of it is published.
    pub alarms: Vec<String>,
    pub sources: BTreeMap<String, SourceStatus>,
    pub targets: BTreeMap<String, TargetStatus>,
    pub changes: Vec<ChangeStatus>,
}

/// One key of the ledger.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct KeyStatus {
    pub kid: String,
    pub algorithm: &'static str,
    /// `listed`, `missing` or `removed`.
    pub state: &'static str,
    pub first_seen: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub missing_since: Option<Timestamp>,
    pub public: bool,
    /// Since when each place shows it.
    pub shown: BTreeMap<String, Timestamp>,
}

/// One change of the ledger.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ChangeStatus {
    pub at: Timestamp,
    pub kid: String,
    pub event: &'static str,
}

/// What is known of one source.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct SourceStatus {
    /// Whether the last answer was used.
    pub up: bool,
    pub last_success: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    pub answers: u64,
    pub failures: u64,
    /// How many keys it listed last.
    pub keys: usize,
    /// Whether its own discovery document names the configured issuer; absent where it has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub issuer_matches: Option<bool>,
    /// The kid that a token minted just now was signed with; absent where no token may be minted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signs_with: Option<String>,
    /// Whether that kid is public: `false` is the tripwire.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signing_key_public: Option<bool>,
}

/// What is known of one target.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct TargetStatus {
    /// Whether it held the publication when it was last looked at.
    pub up: bool,
    /// When it was last seen to hold the publication.
    pub last_true: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    pub checks: u64,
    pub failures: u64,
    pub writes: u64,
    /// What the public URL showed when it was last read: `true`, `behind` or an error in words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub public_url: Option<String>,
}

impl Board {
    /// A board whose changes are told.
    #[must_use]
    pub fn telling(notices: Notices) -> Self {
        Self { notices: Some(notices), ..Self::default() }
    }

    /// Changes what is known of an issuer.
    pub fn issuer(&self, issuer: &Issuer, change: impl FnOnce(&mut IssuerStatus)) {
        let notices = self.change(issuer, |status| {
            let before = self.notices.is_some().then(|| status.alarms.clone());
            change(status);
            before.map(|before| of_alarms(&before, &status.alarms, issuer.as_str()))
        });
        self.tell(notices.into_iter().flatten());
    }

    /// Changes what is known of a source.
    pub fn source(&self, issuer: &Issuer, name: &str, change: impl FnOnce(&mut SourceStatus)) {
        let notices = self.change(issuer, |status| {
            let source = status.sources.entry(name.to_owned()).or_default();
            let before = SourceBefore::of(source);
            change(source);
            before.until(source, issuer.as_str(), name)
        });
        self.tell(notices);
    }

    /// Changes what is known of a target.
    pub fn target(&self, issuer: &Issuer, name: &str, change: impl FnOnce(&mut TargetStatus)) {
        let notice = self.change(issuer, |status| {
            let target = status.targets.entry(name.to_owned()).or_default();
            let before = TargetBefore::of(target);
            change(target);
            before.until(target, issuer.as_str(), name)
        });
        self.tell(notice);
    }

    /// Shows a ledger; `profile` is the one that is served. What the first one tells is long past.
    pub fn ledger(&self, ledger: &Ledger, profile: Profile) {
        let notices = self.change(ledger.issuer(), |status| {
            let known = !status.lineage.is_empty();
            let before = std::mem::replace(
                &mut status.changes,
                ledger.changes().iter().map(ChangeStatus::of).collect(),
            );
            status.lineage = ledger.lineage().to_string();
            status.sequence = ledger.sequence();
            status.keys = ledger.entries().values().map(|entry| KeyStatus::of(entry, profile)).collect();
            status.strangers = ledger.strangers().keys().map(ToString::to_string).collect();
            let new = ledger.changes().iter().filter(|change| !before.contains(&ChangeStatus::of(change)));
            let notice = |change| Notice::of_key(ledger.issuer().as_str(), change);
            if known { new.map(notice).collect() } else { Vec::new() }
        });
        self.tell(notices);
    }

    fn change<T>(&self, issuer: &Issuer, change: impl FnOnce(&mut IssuerStatus) -> T) -> T {
        change(self.lock().entry(issuer.to_string()).or_default())
    }

    fn tell(&self, notices: impl IntoIterator<Item = Notice>) {
        if let Some(told) = &self.notices {
            told.hear(notices);
        }
    }

    /// Whether every issuer has something true to serve.
    #[must_use]
    pub fn ready(&self) -> bool {
        let issuers = self.lock();
        !issuers.is_empty() && issuers.values().all(|issuer| issuer.ready)
    }

    /// Everything, for `/status.json`.
    #[must_use]
    pub fn status(&self) -> serde_json::Value {
        let issuers = self.lock().clone();
        serde_json::json!({ "version": env!("CARGO_PKG_VERSION"), "issuers": issuers })
    }

    /// Everything in numbers, in the text format of OpenMetrics.
    #[must_use]
    pub fn metrics(&self, requests: &[(&'static str, u16, u64)]) -> String {
        let events = self.notices.as_ref().map(Notices::totals);
        metrics::render(&self.lock().clone(), requests, events)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, IssuerStatus>> {
        self.issuers.lock().expect("nobody panics while holding it")
    }
}

impl KeyStatus {
    fn of(entry: &crate::core::ledger::Entry, profile: Profile) -> Self {
        use crate::core::ledger::State;
        let (state, missing_since) = match entry.state {
            State::Listed => ("listed", None),
            State::Missing { since } => ("missing", Some(since)),
            State::Removed { .. } => ("removed", None),
        };
        Self {
            kid: entry.jwk.kid().to_string(),
            algorithm: entry.jwk.algorithm().name(),
            state,
            first_seen: entry.first_seen,
            missing_since,
            public: entry.is_public() && profile.includes(&entry.jwk),
            shown: entry.shown.clone(),
        }
    }
}

impl ChangeStatus {
    fn of(change: &crate::core::ledger::Change) -> Self {
        Self { at: change.at, kid: change.kid.to_string(), event: change.event.name() }
    }
}
