//! Unmanaged keys: found in targets only, left there, and not published elsewhere until the operator adopts
//! them.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{ChangeKind, Entry, EntryState, Ledger};
use crate::core::jose::{jwk::Jwk, jwk_set::MAX_KEYS, kid::Kid};

/// A key that was found in targets and in no source.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UnmanagedKey {
    pub jwk: Jwk,
    /// The targets that show it, and since when.
    pub shown: BTreeMap<String, Timestamp>,
}

impl Ledger {
    /// Records the unmanaged keys of a target.
    ///
    /// They stay in that target, where a relying party may need them, and are not published elsewhere until
    /// [`Ledger::adopt`].
    #[must_use]
    pub fn observe_unmanaged(&self, place: &str, unmanaged_keys: &[Jwk], now: Timestamp) -> Self {
        let mut ledger = self.clone();
        let mut changed = false;
        for (kid, unmanaged_key) in &mut ledger.unmanaged_keys {
            if !unmanaged_keys.iter().any(|jwk| jwk.kid() == kid) {
                changed |= unmanaged_key.shown.remove(place).is_some();
            }
        }
        ledger.unmanaged_keys.retain(|_, unmanaged_key| !unmanaged_key.shown.is_empty());
        if changed {
            ledger.advance();
        }
        for jwk in unmanaged_keys.iter().filter(|jwk| !self.keys.contains_key(jwk.kid())) {
            // A target full of keys must not fill the ledger: more can never be published anyway.
            if ledger.unmanaged_keys.len() >= MAX_KEYS && !ledger.unmanaged_keys.contains_key(jwk.kid()) {
                continue;
            }
            let unmanaged_key = ledger
                .unmanaged_keys
                .entry(jwk.kid().clone())
                .or_insert_with(|| UnmanagedKey { jwk: jwk.clone(), shown: BTreeMap::new() });
            if !unmanaged_key.shown.contains_key(place) {
                unmanaged_key.shown.insert(place.to_owned(), now);
                ledger.record(now, jwk.kid(), ChangeKind::UnmanagedKeyFound);
            }
        }
        ledger
    }

    /// Adopts an unmanaged or removed key that belongs to this issuer, by the operator's command.
    ///
    /// It is published to all targets and starts a full retention: it is unknown what it has signed.
    ///
    /// # Errors
    ///
    /// Fails if the kid is unknown, its key is public already, or it was revoked.
    pub fn adopt(&self, kid: &Kid, now: Timestamp) -> Result<Self, AdoptionError> {
        let mut ledger = self.clone();
        let missing = EntryState::Missing { since: now };
        match (ledger.unmanaged_keys.remove(kid), ledger.keys.get_mut(kid)) {
            (_, Some(entry)) if entry.is_public() => {
                return Err(AdoptionError::AlreadyPublic { kid: kid.clone() });
            }
            (_, Some(Entry { state: EntryState::Revoked { .. }, .. })) => {
                return Err(AdoptionError::Revoked { kid: kid.clone() });
            }
            (_, Some(entry)) => entry.state = missing,
            (Some(unmanaged_key), None) => {
                ledger.keys.insert(kid.clone(), Entry::new(unmanaged_key.jwk, now, missing));
            }
            (None, None) => return Err(AdoptionError::Unknown { kid: kid.clone() }),
        }
        ledger.record(now, kid, ChangeKind::Adopted);
        Ok(ledger)
    }
}

/// Why a key cannot be adopted.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum AdoptionError {
    #[error("kid `{kid}` is unknown: no target shows it and it was never removed")]
    Unknown { kid: Kid },
    #[error("kid `{kid}` is already published")]
    AlreadyPublic { kid: Kid },
    #[error("kid `{kid}` was revoked: its private key may be compromised")]
    Revoked { kid: Kid },
}
