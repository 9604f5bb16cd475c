//! The latest observations of the sources of one issuer, by source and endpoint.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use jiff::{SignedDuration, Timestamp};

use super::SourceObservation;
use crate::core::{
    freshness::Freshness,
    jose::kid::Kid,
    ledger::{
        Ledger, TargetObservation,
        merge::{SourceAnswer, SourceReport},
        signed,
    },
};

/// How long a problem of a rotation must last before it raises an alarm.
const ALARM_DELAY: Duration = Duration::from_secs(5);

/// The latest observations, and the alarms that were logged.
pub(super) struct SourceObservations {
    /// In configured order.
    sources: Vec<SourceGroup>,
    pub(super) alarms: BTreeSet<String>,
    /// The problems of the rotation at the last check, and since when each exists.
    rotation: BTreeMap<String, Instant>,
    /// Target observations made while the local clock was not trusted.
    undated: BTreeMap<String, TargetObservation>,
    /// How long relying parties may cache the JWKS of each target.
    cache_lifetimes: BTreeMap<String, Freshness>,
}

/// The endpoints of one configured source.
struct SourceGroup {
    endpoints: BTreeMap<String, Endpoint>,
    verify: bool,
    /// The report of all other endpoints: no keys, or unknown.
    unknown_endpoints: SourceReport,
}

/// The observation of one endpoint.
struct Endpoint {
    report: SourceReport,
    /// The time by its clock, and when it was observed on the monotonic clock.
    server_time: Option<(Timestamp, Instant)>,
}

/// The endpoints of a configured source: itself, or the API servers of a control plane.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoints {
    /// Their names.
    pub names: BTreeSet<String>,
    /// Whether these are all endpoints: only then can a key be missing.
    pub all: bool,
    /// Whether they verify tokens with the keys that they list: API servers do.
    pub verify: bool,
}

impl Endpoints {
    /// A source that is its own endpoint.
    #[must_use]
    pub fn one(name: &str) -> Self {
        Self { names: BTreeSet::from([name.to_owned()]), all: true, verify: false }
    }

    /// The endpoints are not known yet.
    #[must_use]
    pub fn unknown() -> Self {
        Self { names: BTreeSet::new(), all: false, verify: false }
    }
}

impl SourceObservations {
    pub(super) fn new(sources: impl IntoIterator<Item = Endpoints>) -> Self {
        Self {
            sources: sources.into_iter().map(|endpoints| SourceGroup::new(&endpoints)).collect(),
            alarms: BTreeSet::new(),
            rotation: BTreeMap::new(),
            undated: BTreeMap::new(),
            cache_lifetimes: BTreeMap::new(),
        }
    }

    /// Records how long relying parties may cache the JWKS of a target; `None`: it has no public address.
    pub(super) fn set_cache_lifetime(&mut self, place: &str, kept: Option<Freshness>) {
        self.cache_lifetimes.remove(place);
        self.cache_lifetimes.extend(kept.map(|kept| (place.to_owned(), kept)));
    }

    pub(super) fn cache_lifetimes(&self) -> &BTreeMap<String, Freshness> {
        &self.cache_lifetimes
    }

    /// The problems of the rotation that have lasted for a while: during a switch many exist for a moment.
    pub(super) fn lasting_alarms(&mut self, wrong: Vec<String>) -> Vec<String> {
        let before = std::mem::take(&mut self.rotation);
        let since = |alarm: String| (before.get(&alarm).copied().unwrap_or_else(Instant::now), alarm);
        self.rotation = wrong.into_iter().map(since).map(|(since, alarm)| (alarm, since)).collect();
        let lasting = self.rotation.iter().filter(|(_, since)| since.elapsed() >= ALARM_DELAY);
        lasting.map(|(alarm, _)| alarm.clone()).collect()
    }

    /// Number of configured sources.
    pub(super) fn len(&self) -> usize {
        self.sources.len()
    }

    /// Records that a target observation was applied, with or without a time.
    pub(super) fn observe_target(&mut self, place: &str, look: &TargetObservation, is_dated: bool) {
        if is_dated {
            self.undated.remove(place);
        } else {
            let found = look.revision_after.clone();
            self.undated
                .insert(place.to_owned(), TargetObservation { revision_found: found, ..look.clone() });
        }
    }

    /// Applies the target observations that were made without a trusted time.
    pub(super) fn date(&self, ledger: Ledger, trusted: Option<Timestamp>) -> Ledger {
        let undated = self.undated.iter().filter(|_| trusted.is_some());
        undated.fold(ledger, |ledger, (place, look)| ledger.observe_target(place, look, trusted))
    }

    /// Records that they were applied.
    pub(super) fn dated(&mut self) {
        self.undated.clear();
    }

    /// Sets the endpoints of a source; returns the names of those that are gone.
    pub(super) fn expect(&mut self, source: usize, endpoints: &Endpoints) -> Vec<String> {
        self.sources[source].expect(endpoints)
    }

    pub(super) fn record(&mut self, source: usize, name: &str, observation: SourceObservation) {
        if let Some(endpoint) = self.sources[source].endpoints.get_mut(name) {
            endpoint.report.answer = observation.answer;
            endpoint.server_time = observation.server_time.map(|theirs| (theirs, Instant::now()));
        }
    }

    fn endpoints(&self) -> impl Iterator<Item = &Endpoint> {
        self.sources.iter().flat_map(|panel| panel.endpoints.values())
    }

    pub(super) fn reports(&self) -> impl Iterator<Item = &SourceReport> + Clone {
        self.sources.iter().flat_map(|panel| {
            panel.endpoints.values().map(|endpoint| &endpoint.report).chain([&panel.unknown_endpoints])
        })
    }

    /// The kids that each API server verifies now; `None` for one that did not answer.
    pub(super) fn api_servers(&self) -> BTreeMap<String, Option<BTreeSet<Kid>>> {
        let verifying = self.sources.iter().filter(|panel| panel.verify);
        let endpoints = verifying.flat_map(|panel| &panel.endpoints);
        let kids = |endpoint: &Endpoint| {
            let keys = endpoint.report.answer.keys()?;
            Some(keys.into_iter().map(|key| key.kid().clone()).collect())
        };
        endpoints.map(|(name, endpoint)| (name.clone(), kids(endpoint))).collect()
    }

    /// Whether every endpoint is known and was polled.
    pub(super) fn knows_all(&self) -> bool {
        self.reports().all(|report| report.answer != SourceAnswer::NotYetAsked)
    }

    /// The endpoints whose clocks differ from `now` by more than `margin`. The local clock may have been set
    /// since they were observed.
    pub(super) fn disagreeing(&self, now: Timestamp, margin: Duration) -> impl Iterator<Item = &str> {
        self.endpoints()
            .filter(move |endpoint| endpoint.ahead(now).is_some_and(|ahead| ahead.unsigned_abs() > margin))
            .map(|endpoint| endpoint.report.source.as_str())
    }

    /// `now`, if no clock disagrees with it. If there are API servers, at least one must agree.
    pub(super) fn trusted(&self, now: Timestamp, margin: Duration) -> Option<Timestamp> {
        let knows = |endpoint: &Endpoint| endpoint.server_time.is_some();
        let could_know = self.sources.iter().any(|panel| panel.verify);
        let is_known = !could_know || self.endpoints().any(knows);
        (is_known && self.disagreeing(now, margin).next().is_none()).then_some(now)
    }
}

impl Endpoint {
    /// How far its clock is ahead of `now`.
    fn ahead(&self, now: Timestamp) -> Option<SignedDuration> {
        let (theirs, said) = self.server_time?;
        Some(theirs.duration_since(now) + signed(said.elapsed()))
    }
}

impl SourceGroup {
    fn new(endpoints: &Endpoints) -> Self {
        let others = SourceReport { source: "others".to_owned(), answer: SourceAnswer::NotYetAsked };
        let mut panel =
            Self { endpoints: BTreeMap::new(), verify: endpoints.verify, unknown_endpoints: others };
        panel.expect(endpoints);
        panel
    }

    fn expect(&mut self, endpoints: &Endpoints) -> Vec<String> {
        self.unknown_endpoints.answer =
            if endpoints.all { SourceAnswer::Keys(Vec::new()) } else { SourceAnswer::NotYetAsked };
        for name in &endpoints.names {
            self.endpoints.entry(name.clone()).or_insert_with(|| Endpoint {
                report: SourceReport { source: name.clone(), answer: SourceAnswer::NotYetAsked },
                server_time: None,
            });
        }
        self.endpoints
            .extract_if(.., |name, _| !endpoints.names.contains(name))
            .map(|(name, _)| name)
            .collect()
    }
}

#[cfg(test)]
mod tests;
