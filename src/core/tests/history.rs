//! The events that may happen to an issuer.
//!
//! Sources fail, lag, restart, disagree and return garbage; targets are unavailable, are edited and emptied
//! by other writers; two processes share the ledger, and each dies between any two steps; the ledger is lost,
//! truncated, edited by hand, and restored from a backup.

use proptest::prelude::*;

use super::KEYS;

pub(super) const SOURCES: usize = 2;
pub(super) const TARGETS: usize = 2;
pub(super) const PROCESSES: usize = 2;

/// How a source answers in one reconciliation.
#[derive(Clone, Copy, Debug)]
pub(super) enum Mood {
    Truthful,
    Failing,
    /// Answers as before its last change: a lagging replica.
    Lagging,
    /// Uses a known kid for another key.
    Contradicting,
    /// The process has just started.
    NotYetAsked,
}

#[derive(Clone, Debug)]
pub(super) enum Turn {
    Wait(u8),
    /// A source starts to list a key, or stops.
    Toggle {
        source: usize,
        key: usize,
    },
    Pass {
        moods: [Mood; SOURCES],
        up: [bool; TARGETS],
        /// After how many writes the process dies.
        dies_after: Option<u8>,
        who: usize,
    },
    /// A person deletes a document.
    Delete {
        target: usize,
        discovery: bool,
    },
    /// A person uploads a JWKS by hand: garbage, or an unknown key.
    Upload {
        target: usize,
        nonsense: bool,
    },
    LoseLedger,
    /// The stored ledger is damaged, while every process knows it.
    Damage(Damage),
    /// The ledger of so many changes ago is restored: under running processes, or while none runs.
    Restore {
        back: usize,
        running: bool,
    },
    Restart {
        who: usize,
    },
    /// A process decides from the ledger that it knows, while the other one may have stored a later one.
    PlaceFromMemory {
        who: usize,
        target: usize,
    },
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Damage {
    Deleted,
    CutOff,
    /// A person removes an entry.
    Shortened {
        key: usize,
    },
    /// A person turns an entry into a tombstone.
    Buried {
        key: usize,
    },
}

pub(super) fn damages() -> impl Strategy<Value = Damage> {
    prop_oneof![
        Just(Damage::Deleted),
        Just(Damage::CutOff),
        (0..KEYS).prop_map(|key| Damage::Shortened { key }),
        (0..KEYS).prop_map(|key| Damage::Buried { key }),
    ]
}

pub(super) fn turns() -> impl Strategy<Value = Vec<Turn>> {
    let mood = prop_oneof![
        6 => Just(Mood::Truthful),
        2 => Just(Mood::Failing),
        1 => Just(Mood::Lagging),
        1 => Just(Mood::Contradicting),
        1 => Just(Mood::NotYetAsked),
    ];
    let dies_after = prop::option::weighted(0.3, 0..8_u8);
    let turn = prop_oneof![
        4 => (1..50_u8).prop_map(Turn::Wait),
        4 => (0..SOURCES, 0..KEYS).prop_map(|(source, key)| Turn::Toggle { source, key }),
        12 => ([mood.clone(), mood], any::<[bool; TARGETS]>(), dies_after, 0..PROCESSES)
            .prop_map(|(moods, up, dies_after, who)| Turn::Pass { moods, up, dies_after, who }),
        1 => (0..TARGETS, any::<bool>()).prop_map(|(target, discovery)| Turn::Delete { target, discovery }),
        1 => (0..TARGETS, any::<bool>()).prop_map(|(target, nonsense)| Turn::Upload { target, nonsense }),
        1 => prop::bool::weighted(0.2).prop_map(|lose| if lose { Turn::LoseLedger } else { Turn::Wait(1) }),
        1 => damages().prop_map(Turn::Damage),
        1 => (0..12_usize, any::<bool>()).prop_map(|(back, running)| Turn::Restore { back, running }),
        1 => (0..PROCESSES).prop_map(|who| Turn::Restart { who }),
        2 => (0..PROCESSES, 0..TARGETS).prop_map(|(who, target)| Turn::PlaceFromMemory { who, target }),
    ];
    prop::collection::vec(turn, 1..80)
}
