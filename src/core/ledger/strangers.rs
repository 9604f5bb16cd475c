//! Keys that only places know: they stay where they are until the operator adopts them.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Entry, Event, Ledger, State};
use crate::core::{jwk::Jwk, jwk_set::MAX_KEYS, kid::Kid};

/// A key that was found in places and in no source.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stranger {
    pub jwk: Jwk,
    /// The places that show it, and since when.
    pub shown: BTreeMap<String, Timestamp>,
}

impl Ledger {
    /// Takes in the keys that only this place knows.
    ///
    /// They stay on that place, where somebody may rely on them, and spread nowhere until
    /// [`Ledger::adopt`].
    #[must_use]
    pub fn met_strangers(&self, place: &str, strangers: &[Jwk], now: Timestamp) -> Self {
        let mut ledger = self.clone();
        let mut changed = false;
        for (kid, stranger) in &mut ledger.strangers {
            if !strangers.iter().any(|jwk| jwk.kid() == kid) {
                changed |= stranger.shown.remove(place).is_some();
            }
        }
        ledger.strangers.retain(|_, stranger| !stranger.shown.is_empty());
        if changed {
            ledger.advance();
        }
        for jwk in strangers.iter().filter(|jwk| !self.keys.contains_key(jwk.kid())) {
            // Who fills a place with keys must not fill the ledger: more can never be published anyway.
            if ledger.strangers.len() >= MAX_KEYS && !ledger.strangers.contains_key(jwk.kid()) {
                continue;
            }
            let stranger = ledger
                .strangers
                .entry(jwk.kid().clone())
                .or_insert_with(|| Stranger { jwk: jwk.clone(), shown: BTreeMap::new() });
            if !stranger.shown.contains_key(place) {
                stranger.shown.insert(place.to_owned(), now);
                ledger.record(now, jwk.kid(), Event::StrangerFound);
            }
        }
        ledger
    }

    /// Takes the operator's word that a stranger or a removed key belongs to this issuer.
    ///
    /// It is published everywhere and starts a full retention: nobody knows what it has signed.
    ///
    /// # Errors
    ///
    /// Fails when the kid is unknown or its key is public already.
    pub fn adopt(&self, kid: &Kid, now: Timestamp) -> Result<Self, NotAdopted> {
        let mut ledger = self.clone();
        let missing = State::Missing { since: now };
        match (ledger.strangers.remove(kid), ledger.keys.get_mut(kid)) {
            (_, Some(entry)) if entry.is_public() => {
                return Err(NotAdopted::AlreadyPublic { kid: kid.clone() });
            }
            (_, Some(Entry { state: State::Revoked { .. }, .. })) => {
                return Err(NotAdopted::Revoked { kid: kid.clone() });
            }
            (_, Some(entry)) => entry.state = missing,
            (Some(stranger), None) => {
                ledger.keys.insert(kid.clone(), Entry::new(stranger.jwk, now, missing));
            }
            (None, None) => return Err(NotAdopted::Unknown { kid: kid.clone() }),
        }
        ledger.record(now, kid, Event::Adopted);
        Ok(ledger)
    }
}

/// A key cannot be adopted.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum NotAdopted {
    #[error("kid `{kid}` is unknown: no place shows it and it was never removed")]
    Unknown { kid: Kid },
    #[error("kid `{kid}` is public already")]
    AlreadyPublic { kid: Kid },
    #[error("kid `{kid}` was revoked: somebody else may have the private key")]
    Revoked { kid: Kid },
}
