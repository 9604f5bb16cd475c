//! The length of each wait of a rotation.

use std::time::Duration;

use super::Window;
use crate::core::signer::MAX_KEYS_PER_NODE;

/// Timestamps are whole seconds: the one since which a target shows a key is rounded down.
const RESOLUTION: Duration = Duration::from_secs(1);

/// The length of each wait.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Timing {
    /// Age since activation at which a signing key is replaced; `None`: only on request.
    pub rotate_after: Option<Duration>,
    /// When a key may be replaced because of its age; `None`: at any time.
    pub window: Option<Window>,
    /// How long every target shows a key before it may sign: at least as long as any relying party caches a
    /// JWKS.
    pub propagation: Duration,
    /// The `max-age` served with a JWKS: how long a relying party that respects it caches the JWKS.
    pub jwks_max_age: Duration,
    /// Longest `exp - iat` of a token of this issuer.
    pub max_token_lifetime: Duration,
    /// Largest tolerated clock skew.
    pub margin: Duration,
}

/// Two settings contradict each other.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum Contradiction {
    /// A JWKS may be read from a replica or a cache just before it changes, and then be cached for as long
    /// again.
    #[error("`propagation` ({propagation:?}) is shorter than twice `jwks_max_age` ({jwks_max_age:?})")]
    TooSoon { propagation: Duration, jwks_max_age: Duration },
    /// A standby key is created when the previous one starts to sign.
    #[error(
        "`rotate_after` ({rotate_after:?}) is not longer than `propagation` and `margin` ({standby:?}): no key would ever be ready in time"
    )]
    NeverReady { rotate_after: Duration, standby: Duration },
    #[error(
        "at a rotation every {rotate_after:?} and tokens that live for {max_token_lifetime:?}, a node has {keys} keys at once, and holds {MAX_KEYS_PER_NODE} at most"
    )]
    TooMany { rotate_after: Duration, max_token_lifetime: Duration, keys: u128 },
}

impl Timing {
    /// How long, by the local clock, every target must show a key before no cached JWKS lacks it.
    #[must_use]
    pub fn until_ready(&self) -> Duration {
        self.propagation + self.margin + RESOLUTION
    }

    /// Whether a cached JWKS may still lack a key when that key starts to sign: a copy may be served just
    /// before it expires, and be cached for as long again.
    #[must_use]
    pub fn is_shorter_than_twice(&self, kept: Duration) -> bool {
        self.propagation < kept.saturating_mul(2)
    }

    /// All contradictions between the settings.
    #[must_use]
    pub fn contradictions(&self) -> Vec<Contradiction> {
        let Self { rotate_after, propagation, jwks_max_age, max_token_lifetime, margin, .. } = *self;
        let mut found = Vec::new();
        if self.is_shorter_than_twice(jwks_max_age) {
            found.push(Contradiction::TooSoon { propagation, jwks_max_age });
        }
        let Some(rotate_after) = rotate_after else { return found };
        let standby = propagation + margin;
        if rotate_after <= standby {
            found.push(Contradiction::NeverReady { rotate_after, standby });
        }
        // The active key, its standby key, and those that wait for their last token to expire.
        let waiting = (max_token_lifetime + margin).as_nanos().div_ceil(rotate_after.as_nanos().max(1));
        let keys = waiting + 2;
        if keys > MAX_KEYS_PER_NODE as u128 {
            found.push(Contradiction::TooMany { rotate_after, max_token_lifetime, keys });
        }
        found
    }
}
