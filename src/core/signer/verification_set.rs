//! What the API server is told to verify with.

use std::collections::{BTreeMap, BTreeSet};

use super::Journal;
use crate::core::jose::{jwk::Jwk, kid::Kid};

/// A key that the API server verifies with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerificationKey {
    pub jwk: Jwk,
    /// It is for tokens that only the API server reads, and not shown to others.
    pub exclude: bool,
}

impl Journal {
    /// The keys that the API server verifies with, sorted by kid; `None` as long as there is none that it
    /// may show to others, for it refuses such a set and keeps the one it has.
    ///
    /// Only what is trusted on this disk goes in: keys of this keyring, of the operator's files, and of the nodes
    /// of [`crate::core::signer::trust`]. A word of the publisher can take one away (`revoked`), never add one.
    #[must_use]
    pub fn verification_set(&self, revoked: &BTreeSet<Kid>) -> Option<Vec<VerificationKey>> {
        let legacy =
            self.additional_keys.iter().chain(&self.trusted).map(|legacy| (&legacy.jwk, legacy.exclude));
        let own = self.keys.values().map(|held| (&held.jwk, held.excluded_from_discovery));
        let mut set: BTreeMap<&Kid, (&Jwk, bool)> = BTreeMap::new();
        for (jwk, exclude) in own.chain(legacy).filter(|(jwk, _)| !revoked.contains(jwk.kid())) {
            // A key that stands twice is shown if either says so.
            set.entry(jwk.kid()).and_modify(|(_, other)| *other &= exclude).or_insert((jwk, exclude));
        }
        let keys: Vec<_> =
            set.into_values().map(|(jwk, exclude)| VerificationKey { jwk: jwk.clone(), exclude }).collect();
        keys.iter().any(|key| !key.exclude).then_some(keys)
    }
}
