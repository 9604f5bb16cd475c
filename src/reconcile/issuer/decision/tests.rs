use std::time::Duration;

use super::*;
use crate::{
    core::{
        ledger::{RotationCommand, merge::SourceAnswer},
        rotation::Timing,
        tests::{known, retention, rsa_key, terms},
    },
    reconcile::issuer::{Endpoints, SourceObservation},
};

fn spec() -> IssuerSpec {
    let hour = Duration::from_hours(1);
    IssuerSpec {
        terms: terms(),
        previous_issuers: Vec::new(),
        profile: Profile::Entra,
        retention: retention(),
        targets: ["blob".to_owned()].into(),
        required_targets: ["blob".to_owned()].into(),
        timing: Timing {
            rotate_after: None,
            window: None,
            propagation: hour,
            jwks_max_age: hour / 2,
            max_token_lifetime: hour,
            margin: Duration::from_mins(1),
        },
        serves_documents: true,
        has_signers: false,
    }
}

fn situation<'a>(spec: &'a IssuerSpec, observations: &'a Observations) -> Situation<'a> {
    let now = Timestamp::UNIX_EPOCH;
    Situation { spec, observations, now, trusted: Some(now), all_targets_read: true, has_waited: false }
}

#[test]
fn an_observation_changes_the_ledger_once() {
    let (spec, mut observations) = (spec(), Observations::new([Endpoints::one("files")]));
    let answer = SourceAnswer::Keys(vec![rsa_key(0), rsa_key(1)]);
    let source = SourceObservation { answer, server_time: None, notes: Vec::new() };
    let shown = TargetObservation {
        view: [rsa_key(0).kid().clone()].into(),
        revision_found: None,
        revision_after: Some("1".to_owned()),
    };
    let mut ledger = known(&[], &[rsa_key(0)]);
    for observation in [
        Observation::Source { source: 0, endpoint: "files", observation: Some(&source) },
        Observation::Target {
            target: "blob",
            observation: &shown,
            unmanaged_keys: &[rsa_key(2)],
            cache_lifetime: None,
        },
        Observation::Adopt { target: "blob", unmanaged_keys: &[rsa_key(2)] },
        Observation::LaterRevision { target: "blob", sequence: 1000 },
    ] {
        observations.record(observation);
        let situation = situation(&spec, &observations);
        let (decided, _) = situation.decide(&ledger, observation);
        assert!(decided.sequence() > ledger.sequence());
        assert_eq!(situation.decide(&decided, observation).0, decided);
        assert_eq!(situation.decide(&decided, Observation::Ledger).0, decided);
        ledger = decided;
    }
    assert_eq!(ledger.public_keys().count(), 3);
}

/// The store decides again on what another process has stored meanwhile.
#[test]
fn a_decision_follows_the_ledger_that_it_is_given() {
    let (spec, observations) = (spec(), Observations::new([]));
    let situation = situation(&spec, &observations);
    let command = RotationCommand::Revoke { kid: rsa_key(0).kid().clone(), with_new_key: false };
    let [before, after] = [&[rsa_key(1)][..], &[rsa_key(0), rsa_key(1)]].map(|keys| known(&[], keys));
    for _ in 0..2 {
        let (ledger, outcome) = situation.decide(&before, Observation::Command(&command));
        assert!(ledger == before && outcome.refused.is_some(), "nobody knows the key");
        let (ledger, outcome) = situation.decide(&after, Observation::Command(&command));
        assert!(ledger.public_keys().eq([&rsa_key(1)]) && outcome.refused.is_none());
    }
}
