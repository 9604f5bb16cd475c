//! Finds PEM blocks (RFC 7468) in other text.
//!
//! Not OpenSSL's reader, which asks for a password at the terminal when a key is encrypted.

use std::iter::Peekable;

use base64ct::{Base64, Encoding as _};
use zeroize::Zeroizing;

const BEGIN: &str = "-----BEGIN ";
const END: &str = "-----END ";
const DASHES: &str = "-----";
/// Longest label, in bytes; the longest in use is about `TRUSTED CERTIFICATE`.
const MAX_LABEL: usize = 64;

/// One decoded block, wiped on drop.
pub(super) struct Block {
    /// The text between `BEGIN` and the dashes.
    pub(super) label: String,
    /// Whether the contents are encrypted, according to the label or the header of RFC 1421 section 4.6.1.1.
    pub(super) encrypted: bool,
    pub(super) der: Zeroizing<Vec<u8>>,
}

/// All blocks in order, complete or not; none is no error.
pub(super) fn blocks(bytes: &[u8]) -> Vec<Result<Block, InvalidPem>> {
    let mut blocks = Vec::new();
    let lines = bytes.split(|&byte| byte == b'\n' || byte == b'\r').map(<[u8]>::trim_ascii);
    let mut lines = lines.peekable();
    while let Some(line) = lines.next() {
        let number = blocks.len() + 1;
        match marker(line, BEGIN) {
            Some(label) => blocks.push(block(number, label, bytes.len(), &mut lines)),
            None if line.starts_with(BEGIN.as_bytes()) => blocks.push(Err(InvalidPem::NoLabel { number })),
            None => {}
        }
    }
    blocks
}

/// The block that begins with this label; `size` is that of the file.
fn block<'a>(
    number: usize,
    label: String,
    size: usize,
    lines: &mut Peekable<impl Iterator<Item = &'a [u8]>>,
) -> Result<Block, InvalidPem> {
    let mut encrypted = label == "ENCRYPTED PRIVATE KEY";
    // Encoded text is never longer than the file, so this buffer never moves.
    let mut encoded = Zeroizing::new(Vec::with_capacity(size));
    loop {
        // A truncated block does not swallow the next one.
        let Some(line) = lines.next_if(|line| !line.starts_with(BEGIN.as_bytes())) else {
            return Err(InvalidPem::NoEnd { number, label });
        };
        if let Some(end) = marker(line, END) {
            if end != label {
                return Err(InvalidPem::OtherEnd { number, label, end });
            }
            break;
        }
        if line.contains(&b':') {
            encrypted |= line.starts_with(b"Proc-Type:") && line.ends_with(b"ENCRYPTED");
        } else {
            encoded.extend(line.iter().filter(|byte| !byte.is_ascii_whitespace()));
        }
    }
    let mut der = Zeroizing::new(vec![0; encoded.len() / 4 * 3]);
    let Ok(length) = Base64::decode(&*encoded, &mut der).map(<[u8]>::len) else {
        return Err(InvalidPem::NotBase64 { number, label });
    };
    der.truncate(length);
    Ok(Block { label, encrypted, der })
}

/// The label of a line that begins or ends a block.
///
/// RFC 7468 permits longer labels than are in use. Messages repeat the label, so it must not be a key: a file
/// without its line breaks has the whole key in this line.
fn marker(line: &[u8], kind: &str) -> Option<String> {
    let label = line.strip_prefix(kind.as_bytes())?.strip_suffix(DASHES.as_bytes())?;
    let is_of_labels =
        |&byte: &u8| byte.is_ascii_uppercase() || byte.is_ascii_digit() || b" #".contains(&byte);
    if label.len() > MAX_LABEL || !label.iter().all(is_of_labels) {
        return None;
    }
    String::from_utf8(label.to_vec()).ok()
}

/// The text has PEM markers but is not valid PEM.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum InvalidPem {
    #[error("block {number} has no label, expected a line `{BEGIN}LABEL{DASHES}`")]
    NoLabel { number: usize },
    #[error("block {number} (`{label}`) has no `{END}{label}{DASHES}` line")]
    NoEnd { number: usize, label: String },
    #[error("block {number} (`{label}`) ends as `{end}`")]
    OtherEnd { number: usize, label: String, end: String },
    #[error("block {number} (`{label}`) is not base64")]
    NotBase64 { number: usize, label: String },
}

impl InvalidPem {
    /// The label of the block.
    pub(super) fn label(&self) -> Option<&str> {
        match self {
            Self::NoLabel { .. } => None,
            Self::NoEnd { label, .. } | Self::OtherEnd { label, .. } | Self::NotBase64 { label, .. } => {
                Some(label)
            }
        }
    }
}

#[cfg(test)]
mod tests;
