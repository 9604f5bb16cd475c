//! The documented limits of federated credentials.
//!
//! Source: learn.microsoft.com, "Important considerations and restrictions for federated identity credentials".

use jiff::SignedDuration;

/// Most federated credentials of an application, a blueprint or a managed identity.
pub const MAX_CREDENTIALS: usize = 20;
/// Longest issuer, subject, audience and description, in characters.
pub(super) const MAX_TEXT: usize = 600;
/// Shortest and longest name, in characters.
pub(super) const NAME_LENGTH: std::ops::RangeInclusive<usize> = 3..=120;

/// How fast the credentials of one identity may be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// Microsoft Graph documents no limit for them: one after the other.
    Sequential,
    /// Azure Resource Manager takes 0.25 writes a second for one managed identity.
    EveryFourSeconds,
}

impl Pace {
    #[must_use]
    pub fn between_writes(self) -> SignedDuration {
        match self {
            Self::Sequential => SignedDuration::ZERO,
            Self::EveryFourSeconds => SignedDuration::from_secs(4),
        }
    }

    /// How long a list may lag behind a write: Microsoft Graph is eventually consistent.
    pub(super) fn lag(self) -> SignedDuration {
        match self {
            Self::Sequential => SignedDuration::from_mins(2),
            Self::EveryFourSeconds => SignedDuration::ZERO,
        }
    }
}
