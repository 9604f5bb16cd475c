//! Contradicting durations.

use super::{Fault, Mapping, Problems, value};
use crate::core::{
    rotation::{Contradiction, Timing},
    signer::MAX_KEYS_PER_NODE,
};

/// Reports each at the duration that must change.
pub(super) fn check(timing: &Timing, mapping: &Mapping<'_>, problems: &mut Problems) {
    for contradiction in timing.contradictions() {
        let text = value::duration_text;
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
        mapping.refuse(key, Fault::new(message).hint(hint), problems);
    }
}
