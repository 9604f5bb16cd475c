//! Would a relying party accept this token? Evidence in, findings out.
//!
//! Every check stands in one table, [`CHECKS`], with its rule and the answer that Microsoft Entra would
//! give. Nobody knows in which order Entra checks, so all violations are listed
//! (`docs/decisions/0008`). Gathering the evidence is for `crate::workflow::verifying`.

use jiff::Timestamp;
use serde::Serialize;

use super::{
    discovery::{InvalidDiscovery, ReceivedDiscovery},
    issuer::Issuer,
    jwk_set::{InvalidJwks, ReceivedJwks},
    token::{NotAToken, UnverifiedToken},
};

mod checks;

pub use checks::CHECKS;

/// What a relying party has before it when it decides.
pub struct Evidence {
    pub token: Result<UnverifiedToken, NotAToken>,
    /// What the operator says that the issuer is.
    pub issuer: Option<Issuer>,
    /// The audience that the relying party expects.
    pub audience: Option<String>,
    /// The subject that the relying party expects.
    pub subject: Option<String>,
    pub discovery: Exhibit,
    pub jwks: Exhibit,
    pub now: Timestamp,
}

/// One document as a relying party got it.
#[derive(Clone, Debug)]
pub enum Exhibit {
    /// Nobody looked, because the evidence before it already says where not to look.
    NotSought,
    /// A file that the operator gave: it has no headers.
    File { path: String, bytes: Vec<u8> },
    /// An answer, whatever it says.
    Answer { url: String, status: u16, content_type: Option<String>, bytes: Vec<u8> },
}

impl Exhibit {
    /// Where it came from.
    #[must_use]
    pub fn origin(&self) -> &str {
        match self {
            Self::NotSought => "nowhere",
            Self::File { path, .. } => path,
            Self::Answer { url, .. } => url,
        }
    }

    fn bytes(&self) -> Option<&[u8]> {
        match self {
            Self::File { bytes, .. } | Self::Answer { status: 200, bytes, .. } => Some(bytes),
            Self::NotSought | Self::Answer { .. } => None,
        }
    }
}

impl Evidence {
    /// The discovery document, if there was one.
    #[must_use]
    pub fn discovery(&self) -> Option<Result<ReceivedDiscovery, InvalidDiscovery>> {
        self.discovery.bytes().map(ReceivedDiscovery::parse)
    }

    /// The JWKS, if there was one.
    #[must_use]
    pub fn jwks(&self) -> Option<Result<ReceivedJwks, InvalidJwks>> {
        self.jwks.bytes().map(ReceivedJwks::parse)
    }
}

/// One rule and what breaking it leads to.
pub struct Check {
    /// Stable: scripts may rely on it.
    pub id: &'static str,
    pub level: Level,
    /// The AADSTS codes that Microsoft Entra would answer with.
    pub codes: &'static [u32],
    pub certainty: Certainty,
    judge: fn(&Evidence) -> Verdict,
}

/// What a violation means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// Worth knowing.
    Note,
    /// Works now, may not everywhere or not for long.
    Warning,
    /// The token is refused.
    Error,
}

/// How sure it is that Microsoft Entra answers with these codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Certainty {
    /// Microsoft says so.
    Documented,
    /// People met it.
    Observed,
    /// It follows from the other two.
    Inferred,
}

/// The answer of one check.
pub(crate) enum Verdict {
    /// The rule holds; in words, what was seen.
    Holds(String),
    Violated {
        observed: String,
        fix: String,
    },
    /// There is nothing to check it on.
    NotApplicable,
}

/// A check and its answer, to be printed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    pub id: &'static str,
    pub holds: bool,
    /// Of the violation; a rule that holds is a note.
    pub level: Level,
    pub observed: String,
    /// The AADSTS codes that Microsoft Entra would answer with.
    #[serde(skip_serializing_if = "<[u32]>::is_empty")]
    pub predicted_codes: &'static [u32],
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certainty: Option<Certainty>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fix: Option<String>,
}

/// Judges the evidence by every check to which it applies, in the order of the table.
#[must_use]
pub fn judge(evidence: &Evidence) -> Vec<Finding> {
    CHECKS.iter().filter_map(|check| check.apply(evidence)).collect()
}

/// Whether a relying party would accept the token: no error, and a signature that was verified.
#[must_use]
pub fn accepted(findings: &[Finding]) -> bool {
    findings.iter().all(|finding| finding.holds || finding.level != Level::Error)
        && findings.iter().any(|finding| finding.holds && finding.id == checks::SIGNATURE)
}

impl Check {
    fn apply(&self, evidence: &Evidence) -> Option<Finding> {
        match (self.judge)(evidence) {
            Verdict::NotApplicable => None,
            Verdict::Holds(observed) => Some(Finding {
                id: self.id,
                holds: true,
                level: Level::Note,
                observed,
                predicted_codes: &[],
                certainty: None,
                fix: None,
            }),
            Verdict::Violated { observed, fix } => Some(Finding {
                id: self.id,
                holds: false,
                level: self.level,
                observed,
                predicted_codes: self.codes,
                certainty: (!self.codes.is_empty()).then_some(self.certainty),
                fix: Some(fix),
            }),
        }
    }
}

#[cfg(test)]
mod tests;
