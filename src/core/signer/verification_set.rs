//! The keys that the API server verifies with.

use std::collections::{BTreeMap, BTreeSet};

use super::Journal;
use crate::core::jose::{jwk::Jwk, kid::Kid};

/// A key that the API server verifies with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerificationKey {
    pub jwk: Jwk,
    /// Only tokens for the API server need it; it is excluded from the JWKS of the API server.
    pub exclude: bool,
}

impl Journal {
    /// The keys that the API server verifies with, sorted by kid; `None` if every one of them is excluded,
    /// because the API server rejects such a set and keeps the previous one.
    ///
    /// Only keys trusted on this disk are included: those of this keyring, of the operator's files, and of
    /// the nodes in [`crate::core::signer::trust`]. The publisher can remove a key (`revoked`), never add
    /// one.
    #[must_use]
    pub fn verification_set(&self, revoked: &BTreeSet<Kid>) -> Option<Vec<VerificationKey>> {
        let legacy =
            self.additional_keys.iter().chain(&self.trusted).map(|legacy| (&legacy.jwk, legacy.exclude));
        let own = self.keys.values().map(|held| (&held.jwk, held.excluded_from_discovery));
        let mut set: BTreeMap<&Kid, (&Jwk, bool)> = BTreeMap::new();
        for (jwk, exclude) in own.chain(legacy).filter(|(jwk, _)| !revoked.contains(jwk.kid())) {
            // A duplicate key is excluded only if both entries exclude it.
            set.entry(jwk.kid()).and_modify(|(_, other)| *other &= exclude).or_insert((jwk, exclude));
        }
        let keys: Vec<_> =
            set.into_values().map(|(jwk, exclude)| VerificationKey { jwk: jwk.clone(), exclude }).collect();
        keys.iter().any(|key| !key.exclude).then_some(keys)
    }
}
