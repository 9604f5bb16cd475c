//! Recovers a keyring whose key files and journal disagree.

use std::{collections::BTreeMap, time::Duration};

use jiff::Timestamp;

use super::{Journal, JournalKey, signing_decision::latest_possible_exp};
use crate::core::{
    jose::{jwk::Jwk, kid::Kid},
    signer::announcement::Stage,
};

/// A difference between journal and key files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RecoveryFinding {
    /// A private key without a record: the journal was lost or restored from a backup, or the process died
    /// right after it created the key.
    Unrecorded { kid: Kid },
    /// A private key is gone.
    Lost { kid: Kid },
}

impl Journal {
    /// This journal, corrected by the private keys that exist.
    ///
    /// The worst is assumed of an unrecorded key: that it signed tokens for external audiences until now,
    /// with the longest lifetime. A key that can sign no more is retired.
    #[must_use]
    pub fn with_private_keys(
        &self,
        found: impl IntoIterator<Item = Jwk>,
        now: Timestamp,
        max_lifetime: Duration,
    ) -> (Self, Vec<RecoveryFinding>) {
        let mut next = self.clone();
        let found: BTreeMap<Kid, Jwk> = found.into_iter().map(|jwk| (jwk.kid().clone(), jwk)).collect();
        let mut findings = Vec::new();
        next.keys.retain(|kid, held| {
            let was_lost = std::mem::replace(&mut held.lost, !found.contains_key(kid));
            if held.lost && !was_lost {
                findings.push(RecoveryFinding::Lost { kid: kid.clone() });
                next.signing.take_if(|signing| signing == kid);
                let _ = held.retire(now);
            }
            // No token needs a key that never signed.
            !(held.lost && matches!(held.stage, Stage::Standby { .. }))
        });
        let worst = Some(latest_possible_exp(now, max_lifetime));
        for (kid, jwk) in found {
            next.keys.entry(kid.clone()).or_insert_with(|| {
                findings.push(RecoveryFinding::Unrecorded { kid });
                let mut held = JournalKey::new(jwk, Stage::Retired { since: now, latest_exp: worst });
                (held.latest_exp_bound, held.latest_internal_exp_bound) = (worst, worst);
                held
            });
        }
        (next.dated(self, now), findings)
    }
}
