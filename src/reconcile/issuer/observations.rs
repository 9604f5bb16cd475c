//! What the sources of one issuer said last, by source and by who spoke for it.

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

/// How long something has to be wrong with a rotation until it rings.
const ALARM_DELAY: Duration = Duration::from_secs(5);

/// What the sources said last, and what was said about it in the log.
pub(super) struct SourceObservations {
    /// In configured order.
    sources: Vec<SourceGroup>,
    pub(super) alarms: BTreeSet<String>,
    /// What was wrong with the rotation when that was last looked at, and since when.
    rotation: BTreeMap<String, Instant>,
    /// What places were seen to show while our clock was not to be trusted.
    undated: BTreeMap<String, TargetObservation>,
    /// How long relying parties may keep what places give them.
    cache_lifetimes: BTreeMap<String, Freshness>,
}

/// Those who speak for one configured source.
struct SourceGroup {
    endpoints: BTreeMap<String, Endpoint>,
    verify: bool,
    /// What whoever else may speak for it says: nothing, or nobody knows.
    others: SourceReport,
}

/// What one of them said.
struct Endpoint {
    report: SourceReport,
    /// What it took for the present, and when it said so on a clock that nobody sets.
    present: Option<(Timestamp, Instant)>,
}

/// Who speaks for a configured source: itself, or the API servers of a control plane.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoints {
    /// Each by its own name.
    pub names: BTreeSet<String>,
    /// Whether there is nobody else: only then can a key be missing.
    pub all: bool,
    /// Whether they verify tokens with the keys that they list: API servers do.
    pub verify: bool,
}

impl Endpoints {
    /// A source that speaks for itself.
    #[must_use]
    pub fn one(name: &str) -> Self {
        Self { names: BTreeSet::from([name.to_owned()]), all: true, verify: false }
    }

    /// Nobody knows yet who speaks.
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

    /// Notes how long relying parties may keep what a place gives them, if it gives them anything.
    pub(super) fn set_cache_lifetime(&mut self, place: &str, kept: Option<Freshness>) {
        self.cache_lifetimes.remove(place);
        self.cache_lifetimes.extend(kept.map(|kept| (place.to_owned(), kept)));
    }

    pub(super) fn cache_lifetimes(&self) -> &BTreeMap<String, Freshness> {
        &self.cache_lifetimes
    }

    /// What has been wrong with the rotation for a while: a switch is a moment in which much is.
    pub(super) fn lasting_alarms(&mut self, wrong: Vec<String>) -> Vec<String> {
        let before = std::mem::take(&mut self.rotation);
        let since = |alarm: String| (before.get(&alarm).copied().unwrap_or_else(Instant::now), alarm);
        self.rotation = wrong.into_iter().map(since).map(|(since, alarm)| (alarm, since)).collect();
        let lasting = self.rotation.iter().filter(|(_, since)| since.elapsed() >= ALARM_DELAY);
        lasting.map(|(alarm, _)| alarm.clone()).collect()
    }

    /// How many sources are configured.
    pub(super) fn len(&self) -> usize {
        self.sources.len()
    }

    /// Notes that a look at a place was recorded, with a time or without one.
    pub(super) fn observe_target(&mut self, place: &str, look: &TargetObservation, is_dated: bool) {
        if is_dated {
            self.undated.remove(place);
        } else {
            let found = look.left.clone();
            self.undated.insert(place.to_owned(), TargetObservation { found, ..look.clone() });
        }
    }

    /// Lets the times begin that could not when places were looked at.
    pub(super) fn date(&self, ledger: Ledger, trusted: Option<Timestamp>) -> Ledger {
        let undated = self.undated.iter().filter(|_| trusted.is_some());
        undated.fold(ledger, |ledger, (place, look)| ledger.observe_target(place, look, trusted))
    }

    /// Notes that they have begun.
    pub(super) fn dated(&mut self) {
        self.undated.clear();
    }

    /// Returns the names of those who do not speak any more.
    pub(super) fn expect(&mut self, source: usize, endpoints: &Endpoints) -> Vec<String> {
        self.sources[source].expect(endpoints)
    }

    /// Takes in what was said just now by one who speaks for the source.
    pub(super) fn record(&mut self, source: usize, name: &str, observation: SourceObservation) {
        if let Some(endpoint) = self.sources[source].endpoints.get_mut(name) {
            endpoint.report.answer = observation.answer;
            endpoint.present = observation.server_time.map(|theirs| (theirs, Instant::now()));
        }
    }

    fn endpoints(&self) -> impl Iterator<Item = &Endpoint> {
        self.sources.iter().flat_map(|panel| panel.endpoints.values())
    }

    pub(super) fn reports(&self) -> impl Iterator<Item = &SourceReport> + Clone {
        self.sources.iter().flat_map(|panel| {
            panel.endpoints.values().map(|endpoint| &endpoint.report).chain([&panel.others])
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

    /// Whether everybody who may speak is known.
    pub(super) fn knows_all(&self) -> bool {
        self.reports().all(|report| report.answer != SourceAnswer::NotYetAsked)
    }

    /// Those whose clock is further than `margin` from ours, which shows `now`. It may have been set since they
    /// spoke.
    pub(super) fn disagreeing(&self, now: Timestamp, margin: Duration) -> impl Iterator<Item = &str> {
        self.endpoints()
            .filter(move |endpoint| endpoint.ahead(now).is_some_and(|ahead| ahead.unsigned_abs() > margin))
            .map(|endpoint| endpoint.report.source.as_str())
    }

    /// The time, if nobody disagrees with it. Where there are API servers, one at least must agree.
    pub(super) fn trusted(&self, now: Timestamp, margin: Duration) -> Option<Timestamp> {
        let knows = |endpoint: &Endpoint| endpoint.present.is_some();
        let could_know = self.sources.iter().any(|panel| panel.verify);
        let is_known = !could_know || self.endpoints().any(knows);
        (is_known && self.disagreeing(now, margin).next().is_none()).then_some(now)
    }
}

impl Endpoint {
    /// How far its clock is ahead of one that shows `now`.
    fn ahead(&self, now: Timestamp) -> Option<SignedDuration> {
        let (theirs, said) = self.present?;
        Some(theirs.duration_since(now) + signed(said.elapsed()))
    }
}

impl SourceGroup {
    fn new(endpoints: &Endpoints) -> Self {
        let others = SourceReport { source: "others".to_owned(), answer: SourceAnswer::NotYetAsked };
        let mut panel = Self { endpoints: BTreeMap::new(), verify: endpoints.verify, others };
        panel.expect(endpoints);
        panel
    }

    fn expect(&mut self, endpoints: &Endpoints) -> Vec<String> {
        self.others.answer =
            if endpoints.all { SourceAnswer::Keys(Vec::new()) } else { SourceAnswer::NotYetAsked };
        for name in &endpoints.names {
            self.endpoints.entry(name.clone()).or_insert_with(|| Endpoint {
                report: SourceReport { source: name.clone(), answer: SourceAnswer::NotYetAsked },
                present: None,
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
