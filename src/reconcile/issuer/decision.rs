//! What an observation makes of the ledger of an issuer.

use std::collections::BTreeSet;

use jiff::Timestamp;

use super::{
    conditions::Conditions,
    observations::{Observation, Observations},
    spec::{IssuerSpec, LISTENER_TARGET},
};
use crate::{
    core::{
        jose::{
            jwk_set::{JwkSet, Profile},
            kid::Kid,
        },
        ledger::{Ledger, RotationCommandError, TargetObservation, merge},
        rotation::{RotationInputs, RotationStep, after, next_step},
    },
    target::Reading,
};

/// What is decided on, besides the ledger and the observation.
pub(super) struct Situation<'a> {
    pub(super) spec: &'a IssuerSpec,
    pub(super) observations: &'a Observations,
    pub(super) now: Timestamp,
    /// `now`, if no clock disagrees with it.
    pub(super) trusted: Option<Timestamp>,
    /// Whether every target was read since the start.
    pub(super) all_targets_read: bool,
    /// Whether this process has run for a whole retention.
    pub(super) has_waited: bool,
}

/// The outcome of an observation, besides the ledger.
#[derive(Default)]
pub struct Outcome {
    /// The conditions of the sources; empty after other observations.
    pub conditions: Conditions,
    /// Why the operator's command was not executed.
    pub refused: Option<RotationCommandError>,
}

impl Situation<'_> {
    /// The ledger after a recorded observation, with the orders that are due.
    pub(super) fn decide(&self, ledger: &Ledger, observation: Observation<'_>) -> (Ledger, Outcome) {
        let (now, retention) = (self.now, &self.spec.retention);
        let mut outcome = Outcome::default();
        let ledger = match observation {
            Observation::Ledger => ledger.clone(),
            Observation::Source { .. } => {
                let (ledger, conditions) = self.observe_sources(ledger);
                outcome.conditions = conditions;
                ledger
            }
            Observation::Readings(readings) => self.observe_revisions(ledger, readings),
            Observation::LaterRevision { target, sequence } => {
                ledger.observe_revision(target, sequence, now, retention.wait())
            }
            Observation::Target { target, observation, unmanaged_keys, .. } => ledger
                .observe_unmanaged(target, unmanaged_keys, now)
                .observe_target(target, observation, self.trusted),
            Observation::Adopt { target, unmanaged_keys } => {
                let ledger = ledger.observe_unmanaged(target, unmanaged_keys, now);
                unmanaged_keys.iter().fold(ledger, |ledger, key| {
                    // A key that is public by now needs no adoption.
                    ledger.adopt(key.kid(), now).unwrap_or(ledger)
                })
            }
            Observation::Command(command) => {
                let (targets, wait) = (self.spec.all_required_targets(), self.spec.timing.until_ready());
                ledger.execute(command, &targets, retention, wait, now).unwrap_or_else(|reason| {
                    outcome.refused = Some(reason);
                    ledger.clone()
                })
            }
        };
        (self.give_orders(ledger), outcome)
    }

    /// The ledger after the latest answers of all sources.
    pub(super) fn observe_sources(&self, before: &Ledger) -> (Ledger, Conditions) {
        let retention = &self.spec.retention;
        // A clock that disagrees with the others must not end a retention.
        let before =
            &self.trusted.map_or_else(|| before.clone(), |now| before.without_times_ahead(now, retention));
        let mut merged = merge::merge(before, self.observations.reports());
        // If not every target can be read, removals wait for one retention.
        merged.may_remove = self.all_targets_read || self.has_waited;
        merged.complete &= self.trusted.is_some();
        merged.is_beginning = self.all_targets_read && !self.observations.was_published();
        let observed = before.observe(&merged, self.now, retention);
        let mut ledger = observed.ledger;
        if self.spec.serves_documents {
            let served = TargetObservation::of_own_listener(self.kids_served(&ledger));
            ledger = ledger.observe_target(LISTENER_TARGET, &served, self.trusted);
        }
        let ledger = self.observations.date(ledger, self.trusted);
        let mut conditions = Conditions {
            ledger: ledger.alarm(self.now),
            conflicts: merged.conflicts,
            mistrusted: merged.rejected,
            refused: observed.refused,
            breaks: self.breaks(&ledger),
            nothing_to_publish: None,
        };
        // A ledger begins with the first key that can be published to a target.
        if before.sequence() == 0 && !self.has_publishable_keys(&ledger) {
            let known = !ledger.entries().is_empty();
            conditions.nothing_to_publish = self.spec.render(&ledger).err().filter(|_| known);
            return (before.clone(), conditions);
        }
        (ledger, conditions)
    }

    /// The ledger after the ledger revisions that targets carry.
    pub(super) fn observe_revisions(&self, ledger: &Ledger, readings: &[(String, Reading)]) -> Ledger {
        let wait = self.spec.retention.wait();
        readings.iter().fold(ledger.clone(), |ledger, (target, reading)| {
            match reading.newer_sequence(&ledger) {
                Some(sequence) => ledger.observe_revision(target, sequence, self.now, wait),
                None => ledger,
            }
        })
    }

    fn give_orders(&self, mut ledger: Ledger) -> Ledger {
        // Most issuers have no signing node.
        if ledger.nodes().is_empty() {
            return ledger;
        }
        let inputs = self.rotation_inputs(&ledger);
        loop {
            match next_step(&ledger, &inputs, self.now, &self.spec.timing) {
                RotationStep::Wait { .. } => return ledger,
                step => ledger = after(&ledger, &step, self.now),
            }
        }
    }

    pub(super) fn rotation_inputs(&self, ledger: &Ledger) -> RotationInputs {
        RotationInputs {
            required_targets: self.spec.all_required_targets(),
            api_servers: self.observations.api_servers(),
            nodes: merge::statements(ledger, self.observations.reports()),
            cache_lifetimes: self.observations.cache_lifetimes().clone(),
            is_complete: self.all_targets_read && self.observations.knows_all() && self.trusted.is_some(),
        }
    }

    /// Which relying parties the keys break in a target that gets all of them.
    fn breaks(&self, ledger: &Ledger) -> Option<&'static str> {
        let mixes = self.spec.retention.profiles.contains(&Profile::All);
        JwkSet::new(ledger.public_keys().cloned()).ok().filter(|_| mixes)?.breaks()
    }

    fn kids_served(&self, ledger: &Ledger) -> BTreeSet<Kid> {
        let served = ledger.public_keys().filter(|key| self.spec.profile.includes(key));
        served.map(|key| key.kid().clone()).collect()
    }

    fn has_publishable_keys(&self, ledger: &Ledger) -> bool {
        let profiles = &self.spec.retention.profiles;
        ledger.public_keys().any(|key| profiles.iter().any(|profile| profile.includes(key)))
    }
}

#[cfg(test)]
mod tests;
