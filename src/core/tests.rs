//! The promises of `docs/architecture.md`, as properties over random histories of a [`World`], and the keys
//! that the tests of `core` share.

use std::{collections::BTreeSet, sync::LazyLock, time::Duration};

use base64ct::{Base64, Encoding as _};
use jiff::Timestamp;
use proptest::prelude::*;

use self::{
    history::{Turn, damages, turns},
    world::World,
};
use super::{
    jose::{
        issuer::Issuer,
        jwk::Jwk,
        jwk_set::{Profile, ReceivedJwks},
        kid::Kid,
        public_key::PublicKey,
        publication::Terms,
    },
    ledger::{Ledger, Retention},
    signer::announcement::NodeName,
};

mod history;
mod stored;
mod world;

const MINUTE: Duration = Duration::from_mins(1);
const KEYS: usize = 6;

/// The time so many seconds after the Unix epoch.
pub(crate) fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).expect("a time")
}

/// The kid of [`rsa_key`].
pub(crate) fn kid(index: usize) -> Kid {
    rsa_key(index).kid().clone()
}

pub(crate) fn node(name: &str) -> NodeName {
    NodeName::parse(name).expect("a name")
}

/// A public key without a private key, identified by `index`, which is less than 128.
pub(crate) fn rsa_key(index: usize) -> Jwk {
    static KEYS: LazyLock<Vec<Jwk>> = LazyLock::new(|| (0..128).map(make).collect());
    fn make(index: u8) -> Jwk {
        let mut n = vec![0xa5; 256];
        n[1] = index;
        Jwk::of_public_key(PublicKey::rsa(&n, &[1, 0, 1]).expect("odd and long enough"))
    }
    KEYS[index].clone()
}

/// A public key on P-256, from Kubernetes' own tests (`openidmetadata_test.go`).
pub(crate) fn ec_key() -> PublicKey {
    let spki = "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEH6cuzP8XuD5wal6wf9M6xDljTOPL\
                X2i8uIp/C/ASqiIGUeeKQtX0/IR3qCXyThP/dbCiHrF3v1cuhBOHY8CLVg==";
    PublicKey::from_spki(&Base64::decode_vec(spki).expect("base64")).expect("on the curve")
}

/// A ledger in which a source lists these keys; those in `removed` are tombstones.
pub(crate) fn known(removed: &[Kid], keys: &[Jwk]) -> Ledger {
    let entry = |key: &Jwk| {
        let state = if removed.contains(key.kid()) {
            r#"{"removed":{"at":"1970-01-01T00:00:00Z"}}"#
        } else {
            r#""listed""#
        };
        let jwk = serde_json::to_string(key).expect("serialises");
        let kid = serde_json::to_string(key.kid()).expect("serialises");
        format!(r#"{kid}:{{"jwk":{jwk},"first_seen":"1970-01-01T00:00:00Z","state":{state}}}"#)
    };
    let keys: Vec<String> = keys.iter().map(entry).collect();
    let json = format!(
        r#"{{"version":2,"lineage":"0101010101010101","sequence":1,"issuer":"{}","keys":{{{}}}}}"#,
        terms().issuer,
        keys.join(",")
    );
    Ledger::parse(json.as_bytes()).expect("well-formed")
}

/// Another key under the kid of `rsa_key(index)`.
pub(crate) fn impostor(index: usize) -> Jwk {
    let mut json = serde_json::to_value(rsa_key(index + KEYS)).expect("serialises");
    json["kid"] = rsa_key(index).kid().as_str().into();
    Jwk::from_json(&json).expect("well-formed")
}

pub(crate) fn terms() -> Terms {
    let issuer = Issuer::parse("https://issuer.example/c1").expect("valid");
    Terms { jwks_uri: issuer.jwks_uri(), issuer, max_age: 5 * MINUTE }
}

pub(crate) fn retention() -> Retention {
    Retention {
        max_token_lifetime: 60 * MINUTE,
        margin: 5 * MINUTE,
        profiles: BTreeSet::from([Profile::Entra]),
    }
}

proptest! {
    /// Promises 2, 3 and 6: a write never loses a key that is still needed, never brings a removed one back,
    /// and never points to a missing document.
    #[test]
    fn no_history_takes_away_a_key_that_is_still_owed(turns in turns()) {
        let mut world = World::new();
        for turn in &turns {
            world.take(turn)?;
        }
    }

    /// Promises 3 and 7: once everything works again, every target shows every key that is listed or still
    /// needed, whatever happened before.
    #[test]
    fn a_good_pass_makes_every_place_true_again(turns in turns()) {
        let mut world = World::new();
        for turn in &turns {
            world.take(turn)?;
        }
        world.good_pass()?;
        for target in &world.targets {
            let stored = target.jwks.as_ref().expect("written");
            let shown: BTreeSet<Kid> = ReceivedJwks::parse(&stored.bytes).expect("ours").keys.iter().map(|k| k.kid().clone()).collect();
            for index in world.truth.iter().flatten() {
                let kid = rsa_key(*index).kid().clone();
                prop_assert!(shown.contains(&kid) || world.removed.contains(&kid), "{kid} is listed and not shown");
            }
            for entry in world.ledger.entries().values().filter(|entry| entry.is_public()) {
                prop_assert!(shown.contains(entry.jwk.kid()));
            }
        }
    }

    /// Promises 4 and 6: a reconciliation without changes writes nothing.
    #[test]
    fn a_quiet_pass_writes_nothing(turns in turns()) {
        let mut world = World::new();
        for turn in &turns {
            world.take(turn)?;
        }
        world.good_pass()?;
        world.adopting = false;
        let (ledger, targets) = (world.ledger.clone(), world.targets.clone());
        world.good_pass()?;
        prop_assert_eq!(&ledger, &world.ledger);
        prop_assert!(world.tampered || ledger.incidents().is_empty(), "the other process was taken for damage");
        prop_assert_eq!(targets, world.targets);
    }

    /// Promise 2, the other half: a key does not stay forever either.
    #[test]
    fn a_key_that_nobody_lists_is_removed_when_its_retention_is_over(turns in turns()) {
        let mut world = World::new();
        for turn in &turns {
            world.take(turn)?;
        }
        world.good_pass()?;
        world.now += retention().wait();
        world.good_pass()?;
        let listed: BTreeSet<Kid> = world.truth.iter().flatten().map(|index| rsa_key(*index).kid().clone()).collect();
        let all_tombstones = listed.iter().all(|kid| world.removed.contains(kid));
        for kid in world.ledger.public_keys().map(Jwk::kid) {
            prop_assert!(listed.contains(kid) || all_tombstones, "{kid} is listed nowhere and still published");
        }
    }

    /// Promise 4: a stored ledger gives the same publication as the one in memory.
    #[test]
    fn a_ledger_survives_being_stored(turns in turns()) {
        let mut world = World::new();
        for turn in &turns {
            world.take(turn)?;
            let read = Ledger::parse(&world.ledger.to_json()).expect("own format");
            prop_assert_eq!(&read, &world.ledger);
        }
    }

    /// Promise 3: damage of the ledger under running processes, by a person or a disk, loses no key.
    #[test]
    fn no_damage_under_running_processes_takes_a_key_away(turns in turns(), damage in damages(), back in 0..12_usize) {
        let mut world = World::new();
        for turn in &turns {
            world.take(turn)?;
        }
        world.good_pass()?;
        let public: BTreeSet<Kid> = world.ledger.public_keys().map(|key| key.kid().clone()).collect();
        for turn in [Turn::Damage(damage), Turn::Restore { back, running: true }] {
            world.take(&turn)?;
            world.now += retention().wait() / 2;
            world.good_pass()?;
            for target in &world.targets {
                let stored = target.jwks.as_ref().expect("written");
                let shown = ReceivedJwks::parse(&stored.bytes).expect("ours").keys;
                for kid in public.iter().filter(|kid| !world.removed.contains(*kid)) {
                    prop_assert!(shown.iter().any(|key| key.kid() == kid), "{kid} was lost");
                }
            }
        }
    }
}

/// Found by 46,000 histories: a backup was restored while no process ran, and then a later one from before.
/// The second is indistinguishable from a state that another process has stored.
#[test]
fn a_backup_that_goes_on_from_another_one_is_believed() {
    use history::{
        Mood::{Lagging, Truthful},
        Turn,
    };
    let pass = |moods, up| Turn::Pass { moods, up: [up; 2], dies_after: None, who: 0 };
    let turns = [
        Turn::Toggle { source: 0, key: 5 },
        Turn::Toggle { source: 1, key: 0 },
        pass([Truthful, Truthful], false),
        pass([Truthful, Lagging], true),
        Turn::Wait(1),
        pass([Lagging, Truthful], false),
        Turn::Wait(20),
        Turn::Restore { back: 1, running: true },
        pass([Truthful, Truthful], false),
        pass([Lagging, Lagging], false),
        Turn::Wait(45),
        pass([Truthful, Truthful], false),
        Turn::Toggle { source: 0, key: 5 },
        Turn::Restore { back: 5, running: false },
        Turn::Restore { back: 4, running: true },
        Turn::Toggle { source: 0, key: 0 },
        Turn::Wait(1),
    ];
    let mut world = World::new();
    for turn in &turns {
        world.take(turn).expect("every promise holds");
    }
    world.good_pass().expect("every promise holds");
    world.now += retention().wait();
    world.good_pass().expect("every promise holds");
}
