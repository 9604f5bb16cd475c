//! How long relying parties may cache a document.
//!
//! kube-apiserver computes this as cachecontrol 0.1 does, and looks for a new key only in the last 30 s of
//! that time. It uses `s-maxage`, `max-age`, `Expires` and `Last-Modified`, in this order; `no-cache`,
//! `no-store` and `Age` have no effect. Other libraries that cache a JWKS use `max-age`.

use std::{fmt, time::Duration};

use jiff::{SignedDuration, Timestamp, fmt::rfc2822::DateTimeParser};

/// Longest lifetime derived from `Last-Modified`.
const LONGEST_GUESS: SignedDuration = SignedDuration::from_hours(24);
/// A document without an explicit lifetime is fresh for its age divided by this.
const GUESSED_PART: i32 = 10;
/// Longest explicit lifetime, in seconds.
const MAX_SECONDS: u64 = i32::MAX as u64;

/// The response fields that control caching (RFC 9111 section 4.2.1).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CacheFields {
    pub cache_control: Option<String>,
    pub expires: Option<String>,
    pub date: Option<String>,
    pub last_modified: Option<String>,
}

/// How long a document may be cached, and which field says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Freshness {
    pub lifetime: Duration,
    /// `None`: no field does, and the document need not be cached.
    pub by: Option<Field>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field {
    SharedMaxAge,
    MaxAge,
    Expires,
    LastModified,
}

impl CacheFields {
    /// Takes the fields of a response, by their lower-case names.
    #[must_use]
    pub fn of(field: impl Fn(&str) -> Option<String>) -> Self {
        Self {
            cache_control: field("cache-control"),
            expires: field("expires"),
            date: field("date"),
            last_modified: field("last-modified"),
        }
    }

    /// How long kube-apiserver caches a response received now.
    #[must_use]
    pub fn freshness(&self, now: Timestamp) -> Freshness {
        let until = |from: Timestamp, until: Timestamp| until.duration_since(from);
        let (lifetime, by) = if let Some(seconds) = self.seconds("s-maxage") {
            (SignedDuration::from_secs(seconds), Some(Field::SharedMaxAge))
        } else if let Some(seconds) = self.seconds("max-age") {
            (SignedDuration::from_secs(seconds), Some(Field::MaxAge))
        } else if let Some(expires) = time(self.expires.as_deref()) {
            (until(time(self.date.as_deref()).unwrap_or(now), expires), Some(Field::Expires))
        } else if let Some(modified) = time(self.last_modified.as_deref()) {
            ((until(modified, now) / GUESSED_PART).min(LONGEST_GUESS), Some(Field::LastModified))
        } else {
            (SignedDuration::ZERO, None)
        };
        Freshness { lifetime: Duration::try_from(lifetime).unwrap_or_default(), by }
    }

    /// The longest time for which a relying party may cache a response received now or later: an unchanged
    /// document grows old, and private caches ignore `s-maxage`.
    #[must_use]
    pub fn longest(&self, now: Timestamp) -> Freshness {
        let freshness = self.freshness(now);
        let max_age = || Duration::from_secs(self.seconds("max-age").unwrap_or(0).unsigned_abs());
        match freshness.by {
            Some(Field::LastModified) => Freshness { lifetime: LONGEST_GUESS.unsigned_abs(), ..freshness },
            Some(Field::SharedMaxAge) if max_age() > freshness.lifetime => {
                Freshness { lifetime: max_age(), by: Some(Field::MaxAge) }
            }
            _ => freshness,
        }
    }

    /// The number in a directive of `Cache-Control`; the last one if it is repeated.
    fn seconds(&self, directive: &str) -> Option<i64> {
        let mut quoted = false;
        let ends = |c: char| {
            quoted ^= c == '"';
            !quoted && (c == ',' || c.is_ascii_whitespace())
        };
        let values = self.cache_control.as_deref()?.split(ends).filter_map(|part| part.split_once('='));
        let (_, value) = values.filter(|(name, _)| name.eq_ignore_ascii_case(directive)).last()?;
        let digits = value.trim_matches('"');
        let is_number = !digits.is_empty() && digits.bytes().all(|digit| digit.is_ascii_digit());
        // Values above the limit are capped.
        let seconds = digits.parse().unwrap_or(MAX_SECONDS).min(MAX_SECONDS);
        is_number.then_some(seconds.cast_signed())
    }
}

/// Parses an HTTP date (RFC 9110 section 5.6.7), in its preferred form.
fn time(text: Option<&str>) -> Option<Timestamp> {
    DateTimeParser::new().parse_timestamp(text?).ok()
}

impl fmt::Display for Freshness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.lifetime.as_secs();
        match self.by {
            Some(Field::SharedMaxAge) => write!(f, "{seconds} s, by `s-maxage`"),
            Some(Field::MaxAge) => write!(f, "{seconds} s, by `max-age`"),
            Some(Field::Expires) => write!(f, "{seconds} s, by `Expires`"),
            Some(Field::LastModified) => {
                write!(f, "up to {seconds} s, a tenth of its age by `Last-Modified`, without `max-age`")
            }
            None => write!(f, "{seconds} s"),
        }
    }
}

#[cfg(test)]
mod tests;
