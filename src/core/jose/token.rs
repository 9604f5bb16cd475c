//! Tokens: their text, and their unverified contents.

use std::fmt;

use base64ct::{Base64UrlUnpadded, Encoding as _};
use jiff::Timestamp;
use serde::{Deserialize, Deserializer, de::Error as _};
use serde_json::{Map, Value};
use zeroize::Zeroizing;

use super::{json, kid::Kid};
use crate::core::service_account::ServiceAccount;

/// Longest token that is parsed, in bytes: a common server accepts no larger header.
const MAX_LENGTH: usize = 20_000;

/// The text of a minted token. It is a credential, so it is printed only on request, and wiped when dropped.
pub struct Token(Zeroizing<String>);

impl Token {
    #[must_use]
    pub fn new(text: String) -> Self {
        Self(Zeroizing::new(text))
    }

    /// The text, to be sent or printed on request; never to be logged.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(<redacted>)")
    }
}

/// The JOSE header of a token (RFC 7515 section 4.1), with the members of service-account tokens.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Header {
    pub alg: String,
    /// `None` if it is empty.
    #[serde(default, deserialize_with = "named")]
    pub kid: Option<Kid>,
    pub typ: Option<String>,
    /// SHA-1 of the certificate that signed, in base64url.
    pub x5t: Option<String>,
    /// SHA-256 of it.
    #[serde(rename = "x5t#S256")]
    pub x5t_s256: Option<String>,
}

/// A parsed JWT (RFC 7519); nothing in it is verified.
///
/// It has no `Debug`: the text of a token is a credential.
pub struct UnverifiedToken {
    header: Header,
    claims: Map<String, Value>,
    signing_input: String,
    signature: Vec<u8>,
}

fn named<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Kid>, D::Error> {
    let text = Option::<String>::deserialize(deserializer)?.filter(|text| !text.is_empty());
    text.map(Kid::try_from).transpose().map_err(D::Error::custom)
}

impl UnverifiedToken {
    /// Parses a JWT in compact form.
    ///
    /// # Errors
    ///
    /// Returns which part is unreadable; never repeats the token.
    pub fn parse(text: &str) -> Result<Self, NotAToken> {
        if text.is_empty() {
            return Err(NotAToken::Empty);
        }
        if text.len() > MAX_LENGTH {
            return Err(NotAToken::TooLong { length: text.len() });
        }
        if text.trim() != text {
            return Err(NotAToken::Surrounded { by: "white space" });
        }
        if text.starts_with(['"', '\'']) || text.ends_with(['"', '\'']) {
            return Err(NotAToken::Surrounded { by: "quotation marks" });
        }
        if text.get(..7).is_some_and(|start| start.eq_ignore_ascii_case("bearer ")) {
            return Err(NotAToken::Surrounded { by: "the word `Bearer`" });
        }
        let parts: Vec<&str> = text.split('.').collect();
        let [header, claims, signature] = parts[..] else {
            return Err(NotAToken::Parts { count: parts.len() });
        };
        let signing_input = text[..header.len() + 1 + claims.len()].to_owned();
        Ok(Self {
            header: members("header", &decode("header", header)?)?,
            claims: members("claims", &decode("claims", claims)?)?,
            signing_input,
            signature: decode("signature", signature)?,
        })
    }

    #[must_use]
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// All claims, unknown ones included.
    #[must_use]
    pub fn claims(&self) -> &Map<String, Value> {
        &self.claims
    }

    /// `iss`, if it is a string.
    #[must_use]
    pub fn issuer(&self) -> Option<&str> {
        self.text("iss")
    }

    /// `sub`, if it is a string.
    #[must_use]
    pub fn subject(&self) -> Option<&str> {
        self.text("sub")
    }

    /// The service account that `sub` names.
    #[must_use]
    pub fn service_account(&self) -> Option<ServiceAccount> {
        self.subject().and_then(ServiceAccount::of_subject)
    }

    /// `aud`: a string or a list of strings (RFC 7519 section 4.1.3); other values are left out.
    #[must_use]
    pub fn audiences(&self) -> Vec<&str> {
        match self.claims.get("aud") {
            Some(Value::String(one)) => vec![one],
            Some(Value::Array(many)) => many.iter().filter_map(Value::as_str).collect(),
            _ => Vec::new(),
        }
    }

    /// `exp`, if it is a time.
    #[must_use]
    pub fn expires_at(&self) -> Option<Timestamp> {
        self.time("exp")
    }

    /// `nbf`, if it is a time.
    #[must_use]
    pub fn not_before(&self) -> Option<Timestamp> {
        self.time("nbf")
    }

    /// `iat`, if it is a time.
    #[must_use]
    pub fn issued_at(&self) -> Option<Timestamp> {
        self.time("iat")
    }

    /// The signed bytes: header and claims as sent.
    #[must_use]
    pub fn signing_input(&self) -> &[u8] {
        self.signing_input.as_bytes()
    }

    #[must_use]
    pub fn signature(&self) -> &[u8] {
        &self.signature
    }

    fn text(&self, claim: &str) -> Option<&str> {
        self.claims.get(claim).and_then(Value::as_str)
    }

    /// Parses a `NumericDate` (RFC 7519 section 2); a fraction is cut off.
    #[must_use]
    pub fn time(&self, claim: &str) -> Option<Timestamp> {
        let number = self.claims.get(claim)?;
        #[expect(clippy::cast_possible_truncation, reason = "`Timestamp` refuses what is out of its range")]
        let seconds = number.as_i64().or_else(|| number.as_f64().map(|seconds| seconds.floor() as i64))?;
        Timestamp::from_second(seconds).ok()
    }
}

fn decode(part: &'static str, text: &str) -> Result<Vec<u8>, NotAToken> {
    Base64UrlUnpadded::decode_vec(text).map_err(|_| NotAToken::NotBase64Url { part })
}

fn members<T: for<'de> Deserialize<'de>>(part: &'static str, bytes: &[u8]) -> Result<T, NotAToken> {
    let value = json::parse(bytes).map_err(|error| {
        if json::is_ambiguous(&error) { NotAToken::MemberTwice { part } } else { NotAToken::NotJson { part } }
    })?;
    serde_json::from_value(value).map_err(|_| NotAToken::WrongMembers { part })
}

fn parts(count: usize) -> String {
    if count == 1 { "1 part".to_owned() } else { format!("{count} parts") }
}

/// The text is not a JWT in compact form. Contains none of the text.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum NotAToken {
    #[error("the token is empty")]
    Empty,
    #[error("the token has {length} bytes, expected at most {MAX_LENGTH}")]
    TooLong { length: usize },
    #[error("the token has {by} around it, expected none")]
    Surrounded { by: &'static str },
    #[error("the token has {}, expected 3 with `.` between them", parts(*count))]
    Parts { count: usize },
    #[error("the {part} of the token is not base64url without padding")]
    NotBase64Url { part: &'static str },
    #[error("the {part} of the token is not JSON")]
    NotJson { part: &'static str },
    #[error("the {part} of the token has a duplicate member")]
    MemberTwice { part: &'static str },
    #[error("the {part} of the token is JSON, but not what a JWT has there")]
    WrongMembers { part: &'static str },
}

#[cfg(test)]
mod tests;
