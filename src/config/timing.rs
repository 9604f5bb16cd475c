//! Contradicting durations.

use super::{
    duration::duration_text,
    issuer::IssuerConfig,
    problem::{Fault, Problems},
    section::Section,
};
use crate::core::{
    rotation::{Contradiction, Timing},
    signer::MAX_KEYS_PER_NODE,
};

impl IssuerConfig {
    /// The times of a rotation.
    #[must_use]
    pub fn timing(&self) -> Timing {
        Timing {
            rotate_after: Some(self.rotate_after.get()),
            window: self.rotate_within(),
            propagation: self.propagation.get(),
            jwks_max_age: self.jwks_max_age.get(),
            max_token_lifetime: self.max_token_lifetime.get(),
            margin: self.margin.get(),
        }
    }
}

/// Reports each at the duration that must change.
pub(super) fn check(config: &IssuerConfig, at: &Section<'_>, problems: &mut Problems) {
    let durations = ["rotate_after", "propagation", "jwks_max_age", "max_token_lifetime", "margin"];
    if !problems.none_at(at, &durations) {
        return;
    }
    for contradiction in (Timing { window: None, ..config.timing() }).contradictions() {
        let text = duration_text;
        let (key, message, hint) = match contradiction {
            Contradiction::TooSoon { propagation, jwks_max_age } => (
                "propagation",
                format!(
                    "`{}` is too short, expected at least `{}`, twice `jwks_max_age`",
                    text(propagation),
                    text(jwks_max_age * 2)
                ),
                "a relying party may read a JWKS from a cache just before it changes, and keep it as long again",
            ),
            Contradiction::NeverReady { rotate_after, standby } => (
                "rotate_after",
                format!(
                    "`{}` is too short, expected more than `{}`, `propagation` plus `margin`",
                    text(rotate_after),
                    text(standby)
                ),
                "the next key is generated when the previous one starts to sign, and waits that long",
            ),
            Contradiction::TooMany { rotate_after, max_token_lifetime, keys } => (
                "rotate_after",
                format!(
                    "`{}` is too short: with tokens that live for `{}`, a node would have {keys} keys at once, \
                     and holds {MAX_KEYS_PER_NODE} at most",
                    text(rotate_after),
                    text(max_token_lifetime)
                ),
                "rotate less often, or shorten `max_token_lifetime`",
            ),
        };
        at.refuse_key(key, Fault::new(message).hint(hint), problems);
    }
}
