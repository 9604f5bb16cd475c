//! Key files: PEM, DER, JWK and JWKS.

use signpost::{core::jose::jwk::Jwk, source::key_file::content};

use super::told;

/// Longest word on what is left out, in characters.
const MAX_NOTE: usize = 400;
/// What no message repeats of PEM: so many characters of its base64 in a row. A label has no lower case.
const MAX_REPEATED: usize = 24;

pub(super) fn run(bytes: &[u8]) -> bool {
    let content = content::parse(bytes);
    let said = match &content {
        Ok(content) => {
            let spki: Vec<_> = content.keys.iter().map(|key| key.public_key().to_spki()).collect();
            for (key, spki) in content.keys.iter().zip(&spki) {
                let again = content::parse(spki).expect("its DER can be read");
                assert_eq!(Some(key.public_key()), again.keys.first().map(Jwk::public_key));
            }
            let left_out = content.left_out.iter().map(ToString::to_string);
            let notes: Vec<String> = left_out.chain(content.notes.iter().cloned()).collect();
            for note in &notes {
                assert!(note.chars().count() <= MAX_NOTE, "a note of {} characters", note.len());
            }
            notes.join("\n")
        }
        Err(invalid) => told(invalid),
    };
    // The names of a JWKS are no secret.
    if !bytes.trim_ascii_start().starts_with(b"{") {
        for run in runs_of_base64(bytes) {
            assert!(!said.contains(run), "repeats the key: {said}");
        }
    }
    content.is_ok_and(|content| !content.keys.is_empty())
}

/// Every piece of that length that may be a part of a key.
fn runs_of_base64(bytes: &[u8]) -> impl Iterator<Item = &str> {
    let is_base64 = |byte: &u8| byte.is_ascii_alphanumeric() || b"+/=".contains(byte);
    bytes
        .windows(MAX_REPEATED)
        .filter(move |run| run.iter().all(is_base64) && run.iter().any(u8::is_ascii_lowercase))
        .map(|run| std::str::from_utf8(run).expect("ASCII"))
}
