//! Ledgers: files and `ConfigMap`s that people edit and restore.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use signpost::core::{
    jose::{jwk::Jwk, jwk_set::Profile, kid::Kid},
    ledger::{
        Ledger, Retention, StoredLedger,
        merge::{SourceAnswer, SourceReport, merge},
    },
    rotation::{RotationInputs, Timing, next_step},
};

use super::{Scene, judged, now, told};

const HOUR: Duration = Duration::from_hours(1);
const DAY: Duration = Duration::from_hours(24);

pub(super) fn run(bytes: &[u8]) -> bool {
    let ledger = match Ledger::parse(bytes) {
        Ok(ledger) => ledger,
        Err(invalid) => {
            told(&invalid);
            return false;
        }
    };
    let stored = ledger.to_json();
    let again = Ledger::parse(&stored).expect("what is stored can be read");
    assert_eq!((&ledger, &stored), (&again, &again.to_json()));
    no_silence_takes_a_key(&ledger);
    is_the_same_after_a_quiet_pass(&ledger);
    for gates in [BTreeSet::new(), BTreeSet::from(["target".to_owned()])] {
        let seen = RotationInputs { required_targets: gates, is_complete: true, ..RotationInputs::default() };
        let _ = next_step(&ledger, &seen, now(), &timing());
    }
    judged(Scene { ledger: Some(ledger), ..Scene::default() });
    true
}

/// Keys leave only when every source has answered without them, and their time is over.
fn no_silence_takes_a_key(ledger: &Ledger) {
    let silent = [SourceReport { source: "api-server".to_owned(), answer: SourceAnswer::Failed }];
    let observed = ledger.observe(&merge(ledger, &silent), now(), &retention()).ledger;
    assert_eq!(ledger, &observed);
    let repaired = ledger.reconcile(&StoredLedger::Nothing, now(), DAY).expect("it is of one lineage");
    assert!(public(ledger).is_subset(&public(&repaired)));
}

/// A source that lists all that is public brings nothing new, once it was heard.
fn is_the_same_after_a_quiet_pass(ledger: &Ledger) {
    let listed = ledger.public_keys().cloned().collect();
    let heard = [SourceReport { source: "api-server".to_owned(), answer: SourceAnswer::Keys(listed) }];
    let pass = |ledger: &Ledger| ledger.observe(&merge(ledger, &heard), now(), &retention()).ledger;
    let observed = pass(ledger);
    assert_eq!(public(ledger), public(&observed));
    assert_eq!(observed, pass(&observed));
    let found = StoredLedger::Ledger(Arc::new(observed.clone()));
    assert_eq!(Ok(&observed), observed.reconcile(&found, now(), DAY).as_ref());
}

fn public(ledger: &Ledger) -> BTreeSet<&Kid> {
    ledger.public_keys().map(Jwk::kid).collect()
}

fn retention() -> Retention {
    let profiles = BTreeSet::from([Profile::Entra]);
    Retention { max_token_lifetime: DAY, margin: HOUR, profiles }
}

fn timing() -> Timing {
    Timing {
        rotate_after: Some(90 * DAY),
        window: None,
        propagation: DAY,
        jwks_max_age: HOUR,
        max_token_lifetime: DAY,
        margin: HOUR,
    }
}
