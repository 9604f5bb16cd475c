//! Answers of the token endpoint (RFC 6749 section 5; Microsoft, client credentials grant).

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::errors::{EntraError, explain};
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
    /// With a token for a user, if `offline_access` was asked for.
    pub refresh_token: Option<RefreshToken>,
    /// Seconds.
    pub expires_in: Option<u64>,
}

/// The text of a refresh token: with it, and what proves the client, one gets tokens of the user for months. It is
/// never printed, and wiped when dropped.
pub struct RefreshToken(Zeroizing<String>);

impl RefreshToken {
    /// The text, to be sent to Entra.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for RefreshToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RefreshToken(<redacted>)")
    }
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

/// A refusal with its row of the table of answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct ExplainedRefusal {
    /// Such as `AADSTS700213`.
    pub code: String,
    /// Such as `invalid_client`.
    pub error: String,
    /// The text of Entra.
    pub text: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub meaning: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fix: Option<&'static str>,
    /// What Microsoft's support asks for, with the next two.
    pub trace_id: String,
    pub correlation_id: String,
    pub timestamp: String,
    #[serde(skip)]
    row: Option<&'static EntraError>,
}

impl From<Refusal> for ExplainedRefusal {
    fn from(refusal: Refusal) -> Self {
        let Refusal { code, error, text, trace_id, correlation_id, timestamp } = refusal;
        let row = explain(code);
        Self {
            code: format!("AADSTS{code}"),
            error,
            text,
            meaning: row.map(|row| row.meaning),
            fix: row.map(|row| row.fix),
            trace_id,
            correlation_id,
            timestamp,
            row,
        }
    }
}

/// What Entra answered to an exchange of one step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "outcome", rename_all = "lowercase")]
pub enum ExchangeAnswer {
    Accepted,
    Refused {
        #[serde(flatten)]
        refusal: Box<ExplainedRefusal>,
        /// Why it may pass without a change: Entra may not have read a new key yet.
        #[serde(skip_serializing_if = "Option::is_none")]
        wait: Option<String>,
    },
}

impl ExchangeAnswer {
    #[must_use]
    pub fn is_accepted(&self) -> bool {
        *self == Self::Accepted
    }

    /// The code of a refusal, as in the table of answers; `other` if it is not there.
    #[must_use]
    pub fn known_code(&self) -> Option<String> {
        let Self::Refused { refusal, .. } = self else { return None };
        Some(refusal.row.map_or_else(|| "other".to_owned(), |row| format!("AADSTS{}", row.code)))
    }

    /// Whether an answer is worth reporting after the previous one: a first acceptance is not, nor is another
    /// refusal with the same code.
    #[must_use]
    pub fn is_news_after(&self, before: Option<&Self>) -> bool {
        let code = |answer: &Self| match answer {
            Self::Accepted => None,
            Self::Refused { refusal, .. } => Some(refusal.code.clone()),
        };
        code(self) != before.and_then(code)
    }

    /// The answer in one line.
    #[must_use]
    pub fn in_words(&self) -> String {
        let Self::Refused { refusal, wait } = self else {
            return "Microsoft Entra issues a token for its tokens".to_owned();
        };
        let ExplainedRefusal { code, text, meaning, fix, trace_id, .. } = &**refusal;
        let fix = wait.as_deref().or(*fix).map_or_else(String::new, |fix| format!("; fix: {fix}"));
        format!(
            "Microsoft Entra refuses its tokens with {code}: {}{fix} (trace {trace_id})",
            meaning.unwrap_or(text)
        )
    }
}

#[derive(Deserialize)]
struct Success {
    access_token: String,
    refresh_token: Option<String>,
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
        if let Ok(Success { access_token, refresh_token, expires_in }) = serde_json::from_slice(body)
            && !access_token.is_empty()
        {
            let refresh_token = refresh_token.map(|text| RefreshToken(Zeroizing::new(text)));
            let refresh_token = refresh_token.filter(|it| !it.as_str().is_empty());
            return Some(Self::Issued(Issued { token: Token::new(access_token), refresh_token, expires_in }));
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
pub(crate) mod tests;
