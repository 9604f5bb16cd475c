//! Text for people, and from them: errors, and files with a byte order mark or in UTF-16, as PowerShell's `>`
//! writes them.

pub mod flags_in_use;
pub mod redaction;

use std::{borrow::Cow, error::Error};

use self::redaction::error_line;

/// An error that the operator may be able to end.
pub trait Hint: Error + 'static {
    /// What the operator can do about it.
    #[must_use]
    fn hint(&self) -> Option<String>;
}

/// An error as text, without secrets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ErrorReport {
    /// The error with its causes, in one line.
    pub error: String,
    pub hint: Option<String>,
}

impl<E: Hint> From<E> for ErrorReport {
    fn from(error: E) -> Self {
        Self { error: error_line(&error), hint: error.hint() }
    }
}

/// The byte order mark of UTF-8 (RFC 3629 section 6), which Windows programs write.
const UTF_8_MARK: &[u8] = &[0xef, 0xbb, 0xbf];

/// Converts text to UTF-8 without a byte order mark. Other bytes stay as they are.
#[must_use]
pub fn in_utf8(bytes: &[u8]) -> Cow<'_, [u8]> {
    if let Some(text) = bytes.strip_prefix(UTF_8_MARK) {
        return Cow::Borrowed(text);
    }
    let unit: fn([u8; 2]) -> u16 = match bytes {
        [0xff, 0xfe, ..] => u16::from_le_bytes,
        [0xfe, 0xff, ..] => u16::from_be_bytes,
        _ => return Cow::Borrowed(bytes),
    };
    let (pairs, rest) = bytes[2..].as_chunks();
    // It may be a private key: reserve all space, because growing would leave copies behind.
    let mut text = String::with_capacity(3 * pairs.len());
    for character in char::decode_utf16(pairs.iter().copied().map(unit)) {
        match character {
            Ok(character) => text.push(character),
            Err(_) => return Cow::Borrowed(bytes),
        }
    }
    if rest.is_empty() { Cow::Owned(text.into_bytes()) } else { Cow::Borrowed(bytes) }
}

#[cfg(test)]
mod tests;
