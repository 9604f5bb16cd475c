//! The token exchange of AWS and of Google Cloud: what is asked, and what each answer means.
//!
//! Both are predicted by the checks of [`verification`](super::verification); what an account is set up for is no
//! evidence of it, so some refusals cannot be predicted.

use jiff::Timestamp;

use super::{
    entra::errors::Certainty,
    jose::token::Token,
    verification::{VerificationOutcome, VerificationReport},
};

pub mod aws;
pub mod google;

/// What a service answered.
#[derive(Debug)]
pub enum StsAnswer {
    Issued(Issued),
    Refused(Refusal),
}

#[derive(Debug)]
pub struct Issued {
    /// The credentials as programs take them; never to be logged.
    pub credentials: Token,
    pub expires_at: Option<Timestamp>,
    /// What the service says of them, by name.
    pub facts: Vec<(&'static str, String)>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub code: String,
    pub text: String,
    /// What the service's support asks for; may be empty.
    pub request_id: String,
    pub explained: Option<&'static Explanation>,
}

impl Refusal {
    fn new(code: String, text: String, request_id: String, rows: &'static [Explanation]) -> Self {
        let explained = rows.iter().find(|row| row.code == code && text.contains(row.says));
        Self { code, text, request_id, explained }
    }
}

/// What a refusal means, and what to do.
#[derive(Debug, PartialEq, Eq)]
pub struct Explanation {
    pub code: &'static str,
    /// A part of the text that tells it from others with this code.
    pub says: &'static str,
    pub meaning: &'static str,
    pub fix: &'static str,
    /// The checks of `verify` that predict it; none if it depends on the account alone.
    pub checks: &'static [&'static str],
    pub certainty: Certainty,
}

/// The checks of documents that nobody can read.
const UNREADABLE: &[&str] = &[
    "ISS-PUBLIC",
    "PUB-PRIVATE",
    "PUB-CA",
    "PUB-TLS",
    "PUB-FIREWALL",
    "PUB-ANON",
    "PUB-PATH",
    "PUB-STATUS",
    "DISC-PARSE",
];

/// How an answer compares with its prediction.
#[must_use]
pub fn agreement(report: &VerificationReport, answer: &StsAnswer) -> &'static str {
    use VerificationOutcome::{Accepted, Refused, Unknown};
    let StsAnswer::Refused(refusal) = answer else {
        return match report.outcome {
            Accepted => "as predicted",
            Unknown => "no verdict was given beforehand",
            Refused => "not predicted: an error was",
        };
    };
    let checks = refusal.explained.map_or(&[][..], |row| row.checks);
    let is_first = report.likely_first().is_some_and(|first| checks.contains(&first.id));
    match report.outcome {
        Unknown => "no verdict was given beforehand",
        Refused if is_first => "as predicted",
        Refused => "a refusal was predicted, with another reason",
        Accepted if refusal.explained.is_some() && checks.is_empty() => {
            "what an account is set up for cannot be predicted"
        }
        Accepted => "not predicted: it was to be accepted",
    }
}

#[cfg(test)]
mod tests;
