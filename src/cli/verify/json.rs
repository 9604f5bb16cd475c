//! Reports as JSON. The schema is `docs/verify.schema.json`.

use serde::Serialize;

use super::Judged;
use crate::core::verification::{VerificationOutcome, VerificationReport};

#[derive(Serialize)]
struct Document<'a> {
    /// The worst outcome.
    outcome: VerificationOutcome,
    reports: Vec<Entry<'a>>,
}

#[derive(Serialize)]
struct Entry<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    service_account: Option<String>,
    #[serde(flatten)]
    report: &'a VerificationReport,
}

pub(super) fn json(judged: &[Judged]) -> String {
    let is_any = |outcome| judged.iter().any(|it| it.report.outcome == outcome);
    let outcome = [VerificationOutcome::Refused, VerificationOutcome::Unknown]
        .into_iter()
        .find(|outcome| is_any(*outcome));
    let entry = |it: &'_ Judged| it.account.as_ref().map(ToString::to_string);
    let reports = judged.iter().map(|it| Entry { service_account: entry(it), report: &it.report }).collect();
    let document = Document { outcome: outcome.unwrap_or(VerificationOutcome::Accepted), reports };
    serde_json::to_string_pretty(&document).expect("strings always serialise") + "\n"
}
