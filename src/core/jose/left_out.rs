//! Keys that a source lists and that cannot be used.
//!
//! One of them must not take the others down (RFC 7517 section 5), and a key that was good before must not look
//! as if it were gone.

use std::{collections::BTreeSet, fmt};

use super::{jwk::Jwk, kid::Kid, public_key::PublicKey};

/// A key, or a whole file, that is left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeftOut {
    /// Which one, and why, in words.
    pub what: String,
    /// Which of the keys that are known it may be.
    pub may_be: Unreadable,
}

impl fmt::Display for LeftOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

/// Which keys cannot be read: they may be there, so they do not count as missing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Unreadable {
    kids: BTreeSet<Kid>,
    /// Keys that are well-formed and stand under a name that none can have.
    keys: Vec<PublicKey>,
    /// Whether it may be any key, because nothing of it can be read.
    any: bool,
}

impl Unreadable {
    /// The keys of this name and with these numbers, as far as either can be read.
    #[must_use]
    pub fn known_by(kid: Option<Kid>, key: Option<PublicKey>) -> Self {
        Self { kids: kid.into_iter().collect(), keys: key.into_iter().collect(), any: false }
    }

    /// Any key.
    #[must_use]
    pub fn anything() -> Self {
        Self { any: true, ..Self::default() }
    }

    /// Whether it is certain that no key is unreadable.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Whether this key may be among them.
    #[must_use]
    pub fn may_be(&self, key: &Jwk) -> bool {
        self.any || self.kids.contains(key.kid()) || self.keys.contains(key.public_key())
    }

    /// Takes in those of another answer.
    pub fn extend(&mut self, other: &Self) {
        self.kids.extend(other.kids.iter().cloned());
        self.keys.extend(other.keys.iter().cloned());
        self.any |= other.any;
    }

    /// Those of all that is left out.
    #[must_use]
    pub fn of<'a>(left_out: impl IntoIterator<Item = &'a LeftOut>) -> Self {
        let mut all = Self::default();
        left_out.into_iter().for_each(|it| all.extend(&it.may_be));
        all
    }
}
