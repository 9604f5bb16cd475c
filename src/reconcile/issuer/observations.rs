//! What is observed of one issuer: the latest answers of its sources, by endpoint, and what its targets show.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use jiff::{SignedDuration, Timestamp};

use crate::{
    core::{
        freshness::Freshness,
        jose::{jwk::Jwk, kid::Kid},
        ledger::{
            Ledger, RotationCommand, TargetObservation,
            merge::{SourceAnswer, SourceReport},
            signed,
        },
    },
    target::Reading,
};

/// What was observed, or what the operator commands.
#[derive(Clone, Copy)]
pub enum Observation<'a> {
    /// Nothing: only read the stored ledger again. Another process may have removed keys since.
    Ledger,
    /// An endpoint of the source with this index in the configuration was polled; `None`: without a usable
    /// answer. Unknown endpoints are ignored.
    Source { source: usize, endpoint: &'a str, observation: Option<&'a SourceObservation> },
    /// These targets were read, before anything is decided.
    Readings(&'a [(String, Reading)]),
    /// A target was written from a later change of the ledger than the known one.
    LaterRevision { target: &'a str, sequence: u64 },
    /// A target was read back.
    Target {
        target: &'a str,
        observation: &'a TargetObservation,
        unmanaged_keys: &'a [Jwk],
        /// How long relying parties may cache its JWKS; `None`: it has no public address.
        cache_lifetime: Option<Freshness>,
    },
    /// The operator adopts these unmanaged keys of a target.
    Adopt { target: &'a str, unmanaged_keys: &'a [Jwk] },
    /// The operator commands a rotation or a revocation.
    Command(&'a RotationCommand),
}

/// The observation of one endpoint of a source.
pub struct SourceObservation {
    pub answer: SourceAnswer,
    /// The current time by the source's clock.
    pub server_time: Option<Timestamp>,
    /// Warnings, in words.
    pub notes: Vec<String>,
}

/// The latest observations.
pub(super) struct Observations {
    /// In configured order.
    sources: Vec<SourceGroup>,
    /// Whether some target was found to hold a document.
    was_published: bool,
    /// Target observations made while the local clock was not trusted.
    undated: BTreeMap<String, TargetObservation>,
    /// How long relying parties may cache the JWKS of each target.
    cache_lifetimes: BTreeMap<String, Freshness>,
}

/// The endpoints of one configured source.
struct SourceGroup {
    endpoints: BTreeMap<String, Endpoint>,
    verify: bool,
    /// Stands for endpoints that are not discovered: not polled until all are known, then without keys.
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

impl Observations {
    pub(super) fn new(sources: impl IntoIterator<Item = Endpoints>) -> Self {
        Self {
            sources: sources.into_iter().map(|endpoints| SourceGroup::new(&endpoints)).collect(),
            was_published: false,
            undated: BTreeMap::new(),
            cache_lifetimes: BTreeMap::new(),
        }
    }

    /// Number of configured sources.
    pub(super) fn len(&self) -> usize {
        self.sources.len()
    }

    /// Records an observation, before it is decided on.
    pub(super) fn record(&mut self, observation: Observation<'_>) {
        match observation {
            Observation::Source { source, endpoint, observation } => {
                if let Some(endpoint) = self.sources[source].endpoints.get_mut(endpoint) {
                    endpoint.report.answer =
                        observation.map_or(SourceAnswer::Failed, |observation| observation.answer.clone());
                    let server_time = observation.and_then(|observation| observation.server_time);
                    endpoint.server_time = server_time.map(|theirs| (theirs, Instant::now()));
                }
            }
            Observation::Readings(readings) => {
                self.was_published |= readings.iter().any(|(_, reading)| reading.found.has_documents());
            }
            Observation::Target { target, cache_lifetime, .. } => {
                self.cache_lifetimes.remove(target);
                self.cache_lifetimes.extend(cache_lifetime.map(|lifetime| (target.to_owned(), lifetime)));
            }
            _ => {}
        }
    }

    /// Records that an observation is stored, with or without a time. What a target shows without one gets
    /// it with the next observation of a source that has one.
    pub(super) fn stored(&mut self, observation: Observation<'_>, is_dated: bool) {
        match observation {
            Observation::Source { .. } if is_dated => self.undated.clear(),
            Observation::Target { target, .. } if is_dated => drop(self.undated.remove(target)),
            Observation::Target { target, observation, .. } => {
                let revision_found = observation.revision_after.clone();
                let undated = TargetObservation { revision_found, ..observation.clone() };
                self.undated.insert(target.to_owned(), undated);
            }
            _ => {}
        }
    }

    /// Applies the target observations that were stored without a time.
    pub(super) fn date(&self, ledger: Ledger, trusted: Option<Timestamp>) -> Ledger {
        let undated = self.undated.iter().filter(|_| trusted.is_some());
        undated
            .fold(ledger, |ledger, (target, observation)| ledger.observe_target(target, observation, trusted))
    }

    pub(super) fn was_published(&self) -> bool {
        self.was_published
    }

    pub(super) fn cache_lifetimes(&self) -> &BTreeMap<String, Freshness> {
        &self.cache_lifetimes
    }

    /// Sets the endpoints of a source; returns the names of those that are gone.
    pub(super) fn set_endpoints(&mut self, source: usize, endpoints: &Endpoints) -> Vec<String> {
        self.sources[source].set_endpoints(endpoints)
    }

    fn endpoints(&self) -> impl Iterator<Item = &Endpoint> {
        self.sources.iter().flat_map(|group| group.endpoints.values())
    }

    pub(super) fn reports(&self) -> impl Iterator<Item = &SourceReport> + Clone {
        self.sources.iter().flat_map(|group| {
            group.endpoints.values().map(|endpoint| &endpoint.report).chain([&group.unknown_endpoints])
        })
    }

    /// The kids that each API server verifies now; `None` for one that did not answer.
    pub(super) fn api_servers(&self) -> BTreeMap<String, Option<BTreeSet<Kid>>> {
        let verifying = self.sources.iter().filter(|group| group.verify);
        let endpoints = verifying.flat_map(|group| &group.endpoints);
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
        let could_know = self.sources.iter().any(|group| group.verify);
        let is_known = !could_know || self.endpoints().any(knows);
        (is_known && self.disagreeing(now, margin).next().is_none()).then_some(now)
    }
}

impl Endpoint {
    /// How far its clock is ahead of `now`.
    fn ahead(&self, now: Timestamp) -> Option<SignedDuration> {
        let (theirs, observed) = self.server_time?;
        Some(theirs.duration_since(now) + signed(observed.elapsed()))
    }
}

impl SourceGroup {
    fn new(endpoints: &Endpoints) -> Self {
        let others = SourceReport { source: "others".to_owned(), answer: SourceAnswer::NotYetAsked };
        let mut group =
            Self { endpoints: BTreeMap::new(), verify: endpoints.verify, unknown_endpoints: others };
        group.set_endpoints(endpoints);
        group
    }

    fn set_endpoints(&mut self, endpoints: &Endpoints) -> Vec<String> {
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
