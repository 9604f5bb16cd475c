//! Decides whether a relying party would accept a token, from evidence and a question.
//!
//! Every rule is in one table, [`checks()`], with the error that Microsoft Entra returns for a violation. The
//! order of Entra's checks is unknown, so all violations are listed, and one is marked as the likely first
//! error (`docs/decisions/0008`). `crate::reconcile::document_read` gathers the evidence.

use schemars::JsonSchema;
use serde::Serialize;

mod address;
mod agreement;
mod checks;
mod checks_page;
mod context;
mod difference;
mod evidence;
mod question;
pub mod situation;
mod verdict;

pub use self::{
    address::{is_public_host, is_public_url},
    agreement::Agreement,
    checks::checks,
    checks_page::reference,
    difference::{Difference, Kind},
    evidence::{
        Again, ApiServerView, DocumentEvidence, ENTRA_LIFE, Evidence, HttpResponse, NoAnswer, PROPAGATION,
        Unanswered,
    },
    question::{Expectation, Party, Question},
    verdict::Verdict,
};
pub use crate::core::entra::{Cloud, Credential, InvalidCredentials, credentials, errors::Certainty};
use crate::core::text::redaction::evidence as shown;
use context::Context;

/// A rule and the consequence of breaking it.
pub struct Check {
    /// Stable: scripts may rely on it.
    pub id: &'static str,
    /// The rule in words.
    pub rule: &'static str,
    pub level: Level,
    /// The relying parties that it concerns.
    pub parties: &'static [Party],
    /// The AADSTS codes of Microsoft Entra, the likeliest first. A violation may narrow them.
    pub codes: &'static [u32],
    pub basis: Basis,
    pub step: CheckStage,
    judge: fn(&Context) -> CheckResult,
}

/// The consequence of a violation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// Worth knowing.
    Note,
    /// Works now, but may not everywhere or not for long.
    Warning,
    /// The token is rejected.
    Error,
}

impl Level {
    pub const ALL: [Self; 3] = [Self::Error, Self::Warning, Self::Note];

    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Note => "note",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

/// The certainty and its source: the short name of a page, a source file or an issue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Basis {
    pub certainty: Certainty,
    pub source: &'static str,
}

impl Basis {
    const fn documented(source: &'static str) -> Self {
        Self { certainty: Certainty::Documented, source }
    }

    const fn observed(source: &'static str) -> Self {
        Self { certainty: Certainty::Observed, source }
    }

    const fn inferred(source: &'static str) -> Self {
        Self { certainty: Certainty::Inferred, source }
    }
}

/// The stage at which Microsoft Entra checks a rule, as far as known (`docs/decisions/0008`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum CheckStage {
    /// The workload sends a request at all.
    Request,
    Tenant,
    Client,
    /// The grant, the scope, and how the client authenticates.
    Grant,
    /// The assertion is a JWT.
    Form,
    KeyName,
    Type,
    Algorithm,
    Claims,
    /// The lifetime from `iat` to `exp`.
    Lifetime,
    /// The identity has federated credentials at all.
    Credential,
    Issuer,
    Audience,
    Subject,
    /// What is allowed to tokens that Entra itself issued.
    EntraToken,
    /// The tenant has a principal of the identity, and allows the exchange.
    Principal,
    /// The documents of the issuer are fetched.
    Metadata,
    Key,
    Signature,
    Time,
    /// The user, and what was granted.
    Grants,
}

/// The result of one check.
enum CheckResult {
    /// The rule holds; the observation in words.
    Holds(String),
    Violated(Violation),
    /// There is no evidence to check.
    NotApplicable,
}

struct Violation {
    seen: String,
    expected: String,
    fix: String,
    difference: Option<Difference>,
    /// See [`Finding::unless`].
    unless: Option<String>,
    /// In place of those of the check, of which they are some.
    codes: Option<&'static [u32]>,
}

impl CheckResult {
    /// Narrows the codes that Entra would return.
    fn with_codes(self, codes: &'static [u32]) -> Self {
        match self {
            Self::Violated(it) => Self::Violated(Violation { codes: Some(codes), ..it }),
            other => other,
        }
    }

    /// Adds a condition under which this is no violation, and which only the operator can check.
    fn unless(self, condition: impl Into<String>) -> Self {
        match self {
            Self::Violated(it) => Self::Violated(Violation { unless: Some(condition.into()), ..it }),
            other => other,
        }
    }
}

/// A violated rule, for output.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Finding {
    pub id: &'static str,
    pub level: Level,
    /// Whether this is the likely first error of the relying party; set for one finding at most.
    pub likely_first: bool,
    pub seen: String,
    pub expected: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub difference: Option<Difference>,
    /// A condition under which the relying party accepts anyway, and which only the operator can check.
    /// Errors that all have one are no refusal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unless: Option<String>,
    /// The AADSTS codes that Microsoft Entra would return; empty for others.
    pub predicted_codes: &'static [u32],
    pub certainty: Certainty,
    /// The source of the prediction.
    pub source: &'static str,
    pub fix: String,
}

/// A rule that holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Confirmation {
    pub id: &'static str,
    pub seen: String,
}

/// The predicted answer of a relying party, with its reasons.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct VerificationReport {
    #[serde(rename = "for")]
    pub party: Party,
    pub outcome: VerificationOutcome,
    /// The likely first error, then errors, warnings and notes, each in the order in which a relying party
    /// checks them.
    pub findings: Vec<Finding>,
    pub holds: Vec<Confirmation>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum VerificationOutcome {
    Accepted,
    Refused,
    /// The evidence is insufficient.
    Unknown,
}

impl VerificationOutcome {
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Refused => "refused",
            Self::Unknown => "unknown",
        }
    }
}

impl VerificationReport {
    /// The likely first error of the relying party.
    #[must_use]
    pub fn likely_first(&self) -> Option<&Finding> {
        self.findings.iter().find(|finding| finding.likely_first)
    }

    /// Whether time alone may resolve every error.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        let mut errors = self.findings.iter().filter(|finding| finding.level == Level::Error);
        errors.all(|finding| checks::RETRYABLE.contains(&finding.id))
    }
}

/// Judges the evidence by every applicable check.
#[must_use]
pub fn judge(evidence: &Evidence, question: &Question) -> VerificationReport {
    let case = Context::new(evidence, question);
    let (mut violated, mut holds) = (Vec::new(), Vec::new());
    for check in checks().filter(|check| check.parties.contains(&question.party)) {
        let verdict = checks::for_google(check, &case, (check.judge)(&case));
        match verdict {
            CheckResult::NotApplicable => {}
            CheckResult::Holds(seen) => holds.push(Confirmation { id: check.id, seen: shown(&seen) }),
            CheckResult::Violated(violation) => violated.push((check, violation)),
        }
    }
    // The sort is stable: within one stage the order of the table counts.
    // What may hold all the same comes after what certainly does not.
    violated.sort_by_key(|(check, it)| (std::cmp::Reverse(check.level), it.unless.is_some(), check.step));
    let likely = match question.party {
        // Without a request there is no error code.
        Party::Entra if violated.first().is_some_and(|(check, _)| check.keeps_from_asking()) => None,
        Party::Entra => violated.iter().position(|(check, _)| !check.codes.is_empty()),
        _ => violated.iter().position(|(check, _)| check.level == Level::Error),
    };
    let mut findings: Vec<_> =
        violated.into_iter().map(|(check, violation)| check.finding(violation, question.party)).collect();
    if let Some(likely) = likely {
        findings[likely].likely_first = true;
        findings[..=likely].rotate_right(1);
    }
    VerificationReport { party: question.party, outcome: outcome(&case, &findings, &holds), findings, holds }
}

fn outcome(case: &Context, findings: &[Finding], holds: &[Confirmation]) -> VerificationOutcome {
    let mut errors = findings.iter().filter(|finding| finding.level == Level::Error).peekable();
    if errors.peek().is_some() {
        // An unanswered request may be a problem of this machine instead of the issuer.
        let is_ours = |finding: &Finding| finding.id == checks::REACH && case.evidence.is_unanswered();
        let is_open = errors.all(|finding| finding.unless.is_some() || is_ours(finding));
        return if is_open { VerificationOutcome::Unknown } else { VerificationOutcome::Refused };
    }
    let decisive = if case.is_about_a_token() { checks::SIGNATURE } else { checks::KEYS };
    if holds.iter().any(|rule| rule.id == decisive) {
        VerificationOutcome::Accepted
    } else {
        VerificationOutcome::Unknown
    }
}

impl Check {
    /// Whether a violation keeps the workload from sending a request.
    fn keeps_from_asking(&self) -> bool {
        self.level == Level::Error && self.step == CheckStage::Request && self.codes.is_empty()
    }

    fn finding(&self, violation: Violation, party: Party) -> Finding {
        let Violation { seen, expected, fix, difference, unless, codes } = violation;
        let codes = codes.unwrap_or(self.codes);
        debug_assert!(codes.iter().all(|code| self.codes.contains(code)), "{}: {codes:?}", self.id);
        Finding {
            id: self.id,
            level: self.level,
            likely_first: false,
            seen: shown(&seen),
            expected: shown(&expected),
            difference,
            unless: unless.as_deref().map(shown),
            predicted_codes: if party == Party::Entra { codes } else { &[] },
            certainty: self.basis.certainty,
            source: self.basis.source,
            fix: shown(&fix),
        }
    }
}

#[cfg(test)]
mod tests;
