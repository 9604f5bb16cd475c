//! The part of a report that a repeated check keeps, and when it reports a change.

use serde::Serialize;

use super::{Finding, Level, Party, VerificationOutcome, VerificationReport};

/// A report without the rules that hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Verdict {
    #[serde(rename = "for")]
    pub party: Party,
    pub outcome: VerificationOutcome,
    /// The AADSTS code that Microsoft Entra would return, if it rejects the token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub likely_code: Option<u32>,
    /// In the order of the report.
    pub findings: Vec<Finding>,
}

impl From<VerificationReport> for Verdict {
    fn from(report: VerificationReport) -> Self {
        let likely_code = report.likely_first().and_then(|first| first.predicted_codes.first().copied());
        Self { party: report.party, outcome: report.outcome, likely_code, findings: report.findings }
    }
}

impl Verdict {
    #[must_use]
    pub fn is_accepted(&self) -> bool {
        self.outcome == VerificationOutcome::Accepted
    }

    /// The finding to fix first, if the token is not accepted.
    #[must_use]
    pub fn decisive(&self) -> Option<&Finding> {
        let likely = self.findings.iter().find(|finding| finding.likely_first);
        likely.filter(|_| !self.is_accepted())
    }

    /// Whether a verdict is worth reporting after the previous one: a first acceptance is not, nor is an
    /// unchanged reason.
    #[must_use]
    pub fn is_news_after(&self, before: Option<&Self>) -> bool {
        let reason = |judgement: &Self| (judgement.outcome, judgement.decisive().map(|finding| finding.id));
        match before {
            None => !self.is_accepted(),
            Some(before) => reason(before) != reason(self),
        }
    }

    /// Number of findings of this level.
    #[must_use]
    pub fn count(&self, level: Level) -> usize {
        self.findings.iter().filter(|finding| finding.level == level).count()
    }

    /// The verdict in one line.
    #[must_use]
    pub fn in_words(&self) -> String {
        let party = self.party.name();
        let code = self.likely_code.map_or_else(String::new, |code| format!(" with AADSTS{code}"));
        let told = match self.outcome {
            VerificationOutcome::Accepted => return format!("{party} would accept its tokens"),
            VerificationOutcome::Refused => format!("{party} would refuse its tokens{code}"),
            VerificationOutcome::Unknown => {
                format!("{party} may or may not accept its tokens")
            }
        };
        match self.decisive() {
            Some(Finding { id, seen, .. }) => format!("{told}, {id}: {seen}"),
            None => told,
        }
    }
}

#[cfg(test)]
mod tests;
