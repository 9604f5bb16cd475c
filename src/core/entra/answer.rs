//! Answers of the token endpoint (RFC 6749 section 5; Microsoft, client credentials grant).

use serde::Deserialize;

use crate::core::{
    jose::token::Token,
    text::redaction::{brief, printable, redact_tokens},
};

/// A parsed answer.
#[derive(Debug)]
pub enum TokenAnswer {
    Issued(Issued),
    Refused(Refusal),
}

#[derive(Debug)]
pub struct Issued {
    pub token: Token,
    /// Seconds.
    pub expires_in: Option<u64>,
}

/// An error of Entra.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The number after `AADSTS`.
    pub code: u32,
    /// Such as `invalid_client`.
    pub error: String,
    /// The first sentence or two, without the ids.
    pub text: String,
    /// What Microsoft's support asks for.
    pub trace_id: String,
    pub correlation_id: String,
    pub timestamp: String,
}

#[derive(Deserialize)]
struct Success {
    access_token: String,
    expires_in: Option<u64>,
}

#[derive(Deserialize)]
struct Failure {
    error: String,
    #[serde(default)]
    error_description: String,
    #[serde(default)]
    error_codes: Vec<u32>,
    #[serde(default)]
    trace_id: String,
    #[serde(default)]
    correlation_id: String,
    #[serde(default)]
    timestamp: String,
}

impl TokenAnswer {
    /// Parses an answer; `None` if it is not one of Entra, as from a gateway in between.
    #[must_use]
    pub fn parse(body: &[u8]) -> Option<Self> {
        if let Ok(Success { access_token, expires_in }) = serde_json::from_slice(body)
            && !access_token.is_empty()
        {
            return Some(Self::Issued(Issued { token: Token::new(access_token), expires_in }));
        }
        let failure: Failure = serde_json::from_slice(body).ok()?;
        let clean = |text: &str| brief(&printable(&redact_tokens(text))).into_owned();
        Some(Self::Refused(Refusal {
            code: failure.error_codes.first().copied().or_else(|| code_in(&failure.error_description))?,
            error: clean(&failure.error),
            text: clean(sentence(&failure.error_description)),
            trace_id: clean(&failure.trace_id),
            correlation_id: clean(&failure.correlation_id),
            timestamp: clean(&failure.timestamp),
        }))
    }
}

/// The number after `AADSTS` at the beginning of a text.
fn code_in(text: &str) -> Option<u32> {
    let rest = text.strip_prefix("AADSTS")?;
    rest[..rest.find(|it: char| !it.is_ascii_digit()).unwrap_or(rest.len())].parse().ok()
}

/// The text without its code and the ids after it.
fn sentence(text: &str) -> &str {
    let text =
        text.split_once(": ").filter(|(code, _)| code_in(code).is_some()).map_or(text, |(_, rest)| rest);
    text.split(" Trace ID:").next().unwrap_or(text).lines().next().unwrap_or_default().trim()
}

#[cfg(test)]
mod tests;
