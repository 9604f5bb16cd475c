//! Listed keys that cannot be used.
//!
//! One of them must not invalidate the others (RFC 7517 section 5), and a key that was good before must not
//! count as missing.

use std::{collections::BTreeSet, fmt};

use super::{jwk::Jwk, kid::Kid, public_key::PublicKey};

/// A key, or a whole file, that is left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeftOut {
    /// Which one, and why, in words.
    pub what: String,
    /// The known keys that it may be.
    pub may_be: Unreadable,
}

impl fmt::Display for LeftOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

/// Keys that are unreadable: they may be listed, so they do not count as missing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Unreadable {
    kids: BTreeSet<Kid>,
    /// Well-formed keys under an invalid kid.
    keys: Vec<PublicKey>,
    /// Whether it may be any key, because nothing of it is readable.
    any: bool,
}

impl Unreadable {
    /// Matches keys with this kid or this public key, as far as either is readable.
    #[must_use]
    pub fn known_by(kid: Option<Kid>, key: Option<PublicKey>) -> Self {
        Self { kids: kid.into_iter().collect(), keys: key.into_iter().collect(), any: false }
    }

    /// Matches any key.
    #[must_use]
    pub fn anything() -> Self {
        Self { any: true, ..Self::default() }
    }

    /// Whether no key is unreadable.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Whether this key may be among them.
    #[must_use]
    pub fn may_include(&self, key: &Jwk) -> bool {
        self.any || self.kids.contains(key.kid()) || self.keys.contains(key.public_key())
    }

    /// Adds those of another answer.
    pub fn extend(&mut self, other: &Self) {
        self.kids.extend(other.kids.iter().cloned());
        self.keys.extend(other.keys.iter().cloned());
        self.any |= other.any;
    }

    /// The union over all that is left out.
    #[must_use]
    pub fn of<'a>(left_out: impl IntoIterator<Item = &'a LeftOut>) -> Self {
        let mut all = Self::default();
        left_out.into_iter().for_each(|it| all.extend(&it.may_be));
        all
    }
}
