//! The state of a key in its timeline.

use std::collections::BTreeSet;

use jiff::Timestamp;

use super::{RotationInputs, Timing, blocked_reasons};
use crate::core::{
    jose::kid::Kid,
    ledger::{EntryState, Ledger, signed},
    signer::announcement::Stage,
};

/// The state of a key in its timeline, in the terms of RFC 7583 section 3.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyState {
    /// A source lists it, and its owner is unknown.
    Published,
    /// It waits until it may sign.
    Standby,
    /// It may sign: no cached JWKS lacks it.
    Ready,
    /// It signs.
    Active,
    /// It signs no more, but live tokens may need it.
    Retired {
        /// When its last token has expired, if known.
        until: Option<Timestamp>,
    },
    Removed,
    Revoked,
}

impl KeyState {
    /// The name of the state, for tables and metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Published => "published",
            Self::Standby => "standby",
            Self::Ready => "ready",
            Self::Active => "active",
            Self::Retired { .. } => "retired",
            Self::Removed => "removed",
            Self::Revoked => "revoked",
        }
    }
}

/// The state of a key; `None` if the ledger does not know the kid.
#[must_use]
pub fn key_state(
    ledger: &Ledger,
    kid: &Kid,
    seen: &RotationInputs,
    now: Timestamp,
    timing: &Timing,
) -> Option<KeyState> {
    let entry = ledger.entries().get(kid)?;
    let signer = entry.signer.as_ref().map(|signer| signer.stage);
    Some(match (entry.state, signer) {
        (EntryState::Removed { .. }, _) => KeyState::Removed,
        (EntryState::Revoked { .. }, _) => KeyState::Revoked,
        (_, Some(Stage::Standby { .. })) => {
            let reasons = blocked_reasons(ledger, (kid, entry), seen, &BTreeSet::new(), now, timing);
            if reasons.is_empty() { KeyState::Ready } else { KeyState::Standby }
        }
        (_, Some(Stage::Active { .. })) => KeyState::Active,
        (_, Some(stage @ Stage::Retired { .. })) => {
            KeyState::Retired { until: stage.unneeded_after(timing.margin) }
        }
        (EntryState::Listed, None) => KeyState::Published,
        (EntryState::Missing { since }, None) => {
            let wait = signed(timing.max_token_lifetime) + signed(timing.margin);
            KeyState::Retired { until: since.checked_add(wait).ok() }
        }
    })
}
