//! How a prediction compares with what Entra answered.

use schemars::JsonSchema;
use serde::Serialize;

use super::{Level, VerificationOutcome, VerificationReport, situation::Answer};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Agreement {
    /// The answer is the likely first error; or both accept.
    First,
    /// The answer is one of those that were predicted.
    Listed,
    /// It was predicted to be accepted, with a warning that names the answer.
    Warned,
    /// There was no verdict, and the answer is not among the predicted ones.
    Open,
    /// It was predicted to be refused, for other reasons.
    Missed,
    /// It was predicted to be refused, and is accepted.
    FalseRed,
    /// It was predicted to be accepted, and is refused.
    FalseGreen,
}

impl Agreement {
    pub const ALL: [Self; 7] =
        [Self::First, Self::Listed, Self::Warned, Self::Open, Self::Missed, Self::FalseRed, Self::FalseGreen];

    /// Compares a prediction with an answer; `also` is what others got in the same situation.
    #[must_use]
    pub fn of(report: &VerificationReport, answer: Answer, also: &[u32]) -> Self {
        let Answer::Code(code) = answer else {
            return match report.outcome {
                VerificationOutcome::Accepted => Self::First,
                VerificationOutcome::Unknown => Self::Open,
                VerificationOutcome::Refused => Self::FalseRed,
            };
        };
        // Older answers were more general: 70021 has become 700211 to 700213.
        let refines = |it: u32| it.to_string().starts_with(&code.to_string());
        let is_answer = |it: &u32| refines(*it) || also.contains(it);
        let first = report.likely_first().and_then(|it| it.predicted_codes.first());
        let mut predicted = report.findings.iter().filter(|it| it.level != Level::Note);
        let is_listed = predicted.any(|it| it.predicted_codes.iter().any(is_answer));
        match report.outcome {
            VerificationOutcome::Accepted if is_listed => Self::Warned,
            VerificationOutcome::Accepted => Self::FalseGreen,
            _ if first.is_some_and(is_answer) => Self::First,
            _ if is_listed => Self::Listed,
            VerificationOutcome::Unknown => Self::Open,
            VerificationOutcome::Refused => Self::Missed,
        }
    }

    #[must_use]
    pub fn in_words(self) -> &'static str {
        match self {
            Self::First => "as predicted",
            Self::Listed => "among the predicted answers, but not the first",
            Self::Warned => "a warning named it",
            Self::Open => "no verdict was given beforehand",
            Self::Missed => "not predicted: other errors were",
            Self::FalseRed => "not predicted: an error was",
            Self::FalseGreen => "not predicted: it was to be accepted",
        }
    }
}
