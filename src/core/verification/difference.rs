//! Finds the character in which two texts differ that should be equal.
//!
//! Relying parties compare issuer, subject and audience byte for byte. A person who compares them easily
//! misses a final `/`, a trailing space or a Cyrillic `а`.

use std::fmt;

use schemars::JsonSchema;
use serde::Serialize;

use crate::core::text::redaction::redact;

/// Most characters that are shown before the difference, and from it on.
const AROUND: usize = 150;

/// The difference between two texts, without their secrets and without what is far from it.
///
/// Invariant: they differ first in the character at `at`. Where only secrets differ, both end before it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Difference {
    seen: String,
    expected: String,
    /// Number of characters in the common prefix.
    at: usize,
    kind: Kind,
}

/// The kind of the difference, if nothing else differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Only one of them has a final `/`.
    FinalSlash,
    /// Upper and lower case.
    Case,
    /// Spaces, tabs and line ends, in any position.
    WhiteSpace,
    /// A non-ASCII character, which often looks like an ASCII one.
    Unusual,
    /// Anything else.
    Other,
}

impl Difference {
    /// Compares two texts; `None` if they are equal.
    #[must_use]
    pub fn between(seen: &str, expected: &str) -> Option<Self> {
        if seen == expected {
            return None;
        }
        let kind = kind(seen, expected);
        let (seen, expected) = (redact(seen), redact(expected));
        let at = seen.chars().zip(expected.chars()).take_while(|(seen, expected)| seen == expected).count();
        let left_out = at.saturating_sub(AROUND);
        let near = |text: &str| {
            let kept: String = text.chars().skip(left_out).take(2 * AROUND).collect();
            let [before, behind] = [left_out > 0, text.chars().count() > left_out + 2 * AROUND]
                .map(|cut| if cut { "…" } else { "" });
            format!("{before}{kept}{behind}")
        };
        let at = at - left_out + usize::from(left_out > 0);
        Some(Self { seen: near(&seen), expected: near(&expected), at, kind })
    }

    #[must_use]
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The two texts below each other, with invisible characters made visible, and a mark below the first
    /// character that differs.
    #[must_use]
    pub fn lines(&self) -> [String; 3] {
        let width: usize =
            self.expected.chars().take(self.at).map(|character| visible(character).chars().count()).sum();
        let show = |text: &str| text.chars().map(visible).collect();
        [show(&self.seen), show(&self.expected), format!("{}^ {self}", " ".repeat(width))]
    }
}

fn kind(seen: &str, expected: &str) -> Kind {
    if without_slash(seen) == without_slash(expected) {
        Kind::FinalSlash
    } else if seen.to_lowercase() == expected.to_lowercase() {
        Kind::Case
    } else if without_space(seen) == without_space(expected) {
        Kind::WhiteSpace
    } else if !seen.is_ascii() || !expected.is_ascii() {
        Kind::Unusual
    } else {
        Kind::Other
    }
}

/// Drops one final `/`, as relying parties do.
fn without_slash(text: &str) -> &str {
    text.strip_suffix('/').unwrap_or(text)
}

fn without_space(text: &str) -> String {
    text.chars().filter(|character| !character.is_whitespace()).collect()
}

fn visible(character: char) -> String {
    match character {
        ' ' => "␠".to_owned(),
        '\t' => "␉".to_owned(),
        '\n' => "␊".to_owned(),
        '\r' => "␍".to_owned(),
        ' '..='~' => character.to_string(),
        other => format!("<U+{:04X}>", u32::from(other)),
    }
}

/// What differs, in words.
impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [seen, expected] = [&self.seen, &self.expected].map(|text| text.chars().nth(self.at));
        match (self.kind, seen, expected) {
            (Kind::FinalSlash, None, _) => f.write_str("the final `/` is missing"),
            (Kind::FinalSlash, _, _) => f.write_str("an extra final `/`"),
            (Kind::Case, Some(seen), Some(expected)) => {
                write!(f, "`{}` instead of `{}`: case counts", visible(seen), visible(expected))
            }
            (Kind::Other, Some(_), Some(_)) if self.at == 0 => f.write_str("another text from here on"),
            (_, Some(seen), Some(expected)) => {
                write!(f, "`{}` instead of `{}`", visible(seen), visible(expected))
            }
            (_, Some(seen), None) => write!(f, "extra text from `{}`", visible(seen)),
            (_, None, Some(expected)) => write!(f, "missing text from `{}`", visible(expected)),
            (_, None, None) => f.write_str("in a secret, which is not shown"),
        }
    }
}

#[cfg(test)]
mod tests;
