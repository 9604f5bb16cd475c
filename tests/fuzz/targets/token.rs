//! Tokens: as they are, or as header, claims and signature, each in a line, which are encoded here.

use base64ct::{Base64UrlUnpadded, Encoding as _};
use serde_json::{Map, Value};
use signpost::core::jose::token::UnverifiedToken;

use super::{DISCOVERY, JWKS, Scene, judged, told};

/// Longest text of a refusal, which is one of a few.
const MAX_REFUSAL: usize = 100;
/// A signature that is no shorter than one of `EdDSA` is in no report by chance.
const MIN_SIGNATURE: usize = 86;

pub(super) fn run(bytes: &[u8]) -> bool {
    let Some(text) = text(bytes) else { return false };
    let parsed = UnverifiedToken::parse(&text);
    let is_accepted = parsed.is_ok();
    match &parsed {
        Ok(token) => means_what_it_says(token, &text),
        Err(refusal) => assert!(told(refusal).len() <= MAX_REFUSAL, "{refusal}"),
    }
    let signature = text.rsplit('.').next().filter(|signature| signature.len() >= MIN_SIGNATURE);
    let documents = Scene { token: Some(parsed), discovery: Some(DISCOVERY), jwks: Some(JWKS), ledger: None };
    for report in judged(documents) {
        let shown = serde_json::to_string(&report).expect("reports are JSON");
        assert!(signature.is_none_or(|signature| !shown.contains(signature)), "a report shows the signature");
    }
    is_accepted
}

pub(super) fn text(bytes: &[u8]) -> Option<String> {
    let lines: Vec<_> = bytes.splitn(3, |&byte| byte == b'\n').collect();
    match lines[..] {
        [header, claims, signature] => {
            Some([header, claims, signature].map(Base64UrlUnpadded::encode_string).join("."))
        }
        _ => String::from_utf8(bytes.to_owned()).ok(),
    }
}

fn means_what_it_says(token: &UnverifiedToken, text: &str) {
    let signature = Base64UrlUnpadded::encode_string(token.signature());
    let again = [token.signing_input(), b".", signature.as_bytes()].concat();
    assert_eq!(text.as_bytes(), again, "the parts are not the token");
    // Whoever reads it with a reader of his own reads the same.
    let claims = text.split('.').nth(1).map(Base64UrlUnpadded::decode_vec);
    let claims = claims.expect("three parts").expect("base64url");
    let claims: Map<String, Value> = serde_json::from_slice(&claims).expect("an object");
    assert_eq!(&claims, token.claims());
    for time in [token.expires_at(), token.not_before(), token.issued_at()].into_iter().flatten() {
        assert!(claims.values().any(Value::is_number), "{time} comes from nowhere");
    }
    assert!(token.audiences().iter().all(|audience| text_in(&claims["aud"], audience)));
}

fn text_in(value: &Value, text: &str) -> bool {
    value == text || value.as_array().is_some_and(|items| items.iter().any(|item| item == text))
}
