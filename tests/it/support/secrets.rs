//! Searches for leaked secrets.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};

use base64ct::{Base64, Base64Url, Encoding as _};
use openssl::bn::BigNum;
use openssl::pkey::{Id, PKey, Private};

use super::signpost::Finished;

/// How many bytes of a secret, in any encoding, count as a leak: 53 bits where it is decimal.
const WINDOW: usize = 16;

/// Parts of secrets in all encodings in which they could be written.
#[derive(Default)]
pub(crate) struct Secrets(HashSet<[u8; WINDOW]>);

impl Secrets {
    pub(crate) fn add_key(&mut self, key: &PKey<Private>) {
        let numbers = if key.id() == Id::RSA {
            let rsa = key.rsa().expect("it is RSA");
            let mut numbers = vec![rsa.d().to_owned().expect("a number")];
            let parts = [rsa.p(), rsa.q(), rsa.dmp1(), rsa.dmq1(), rsa.iqmp()];
            numbers.extend(parts.into_iter().flatten().map(|part| part.to_owned().expect("a number")));
            assert_eq!(numbers.len(), 6);
            numbers
        } else {
            let ec = key.ec_key().expect("it is EC");
            vec![ec.private_key().to_owned().expect("a number")]
        };
        for number in numbers {
            self.add_number(&number);
        }
    }

    fn add_number(&mut self, number: &BigNum) {
        let bytes = number.to_vec();
        self.add_text(&bytes);
        let hex = number.to_hex_str().expect("digits");
        self.add_text(hex.to_lowercase().as_bytes());
        self.add_text(hex.to_uppercase().as_bytes());
        self.add_text(number.to_dec_str().expect("digits").as_bytes());
        // Within a longer text it may start at any of three positions in a group of base64.
        for before in 0..3 {
            let shifted: Vec<u8> = vec![0; before].into_iter().chain(bytes.iter().copied()).collect();
            for encoded in [Base64::encode_string(&shifted), Base64Url::encode_string(&shifted)] {
                // The first and last characters also encode adjacent bytes.
                self.add_text(&encoded.as_bytes()[4..encoded.len() - 4]);
            }
        }
    }

    pub(crate) fn add_text(&mut self, text: &[u8]) {
        // All whole blocks: any text of two block lengths contains one. The last one too.
        let last = text.len().saturating_sub(WINDOW);
        for start in (0..last).step_by(WINDOW).chain([last]) {
            let piece = text.get(start..start + WINDOW).expect("secrets are longer than a block");
            self.0.insert(piece.try_into().expect("it has this length"));
        }
    }

    /// Whether a part of a secret is contained, also across line breaks.
    pub(crate) fn are_in(&self, haystack: &[u8]) -> bool {
        let is_in = |bytes: &[u8]| bytes.windows(WINDOW).any(|window| self.0.contains(window));
        let joined: Vec<u8> = haystack.iter().copied().filter(|byte| !byte.is_ascii_whitespace()).collect();
        is_in(haystack) || is_in(&joined)
    }

    #[track_caller]
    pub(crate) fn assert_not_in(&self, what: &str, text: impl AsRef<[u8]>) {
        let text = text.as_ref();
        assert!(!self.are_in(text), "{what} has a part of a secret:\n{}", String::from_utf8_lossy(text));
    }

    #[track_caller]
    pub(crate) fn assert_not_said(&self, what: &str, said: &Finished) {
        self.assert_not_in(what, &said.stdout);
        self.assert_not_in(what, &said.stderr);
    }

    /// The files below a directory that hold a part of a secret.
    pub(crate) fn files_with_secrets(&self, directory: &Path) -> Vec<PathBuf> {
        let mut found = Vec::new();
        let mut directories = vec![directory.to_owned()];
        while let Some(directory) = directories.pop() {
            for entry in fs::read_dir(directory).expect("it can be listed") {
                let path = entry.expect("it can be read").path();
                if path.is_dir() {
                    directories.push(path);
                } else if self.are_in(&fs::read(&path).expect("it can be read")) {
                    found.push(path);
                }
            }
        }
        found.sort();
        found
    }
}

/// Whether the text contains the start of any token: in base64url, a JSON object whose first member has a
/// name.
pub(crate) fn has_token(text: impl AsRef<[u8]>) -> bool {
    text.as_ref().windows(3).any(|window| window == b"eyJ")
}
