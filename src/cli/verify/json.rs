//! Reports as JSON. The schema is `docs/verify.schema.json`.

use serde::Serialize;

use super::{Answered, Judged};
use crate::core::{
    entra::errors::explain,
    verification::{Agreement, VerificationOutcome, VerificationReport},
};

#[derive(Serialize)]
struct Document<'a> {
    /// The worst outcome.
    outcome: VerificationOutcome,
    reports: Vec<Entry<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    answered: Option<AnsweredEntry>,
}

#[derive(Serialize)]
struct AnsweredEntry {
    answer: String,
    agreement: Agreement,
    #[serde(skip_serializing_if = "Option::is_none")]
    meaning: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    fix: Option<&'static str>,
}

impl From<Answered> for AnsweredEntry {
    fn from(Answered { answer, agreement }: Answered) -> Self {
        let row = answer.code().and_then(explain);
        let answer = answer.code().map_or("accepted".to_owned(), |code| format!("AADSTS{code}"));
        Self { answer, agreement, meaning: row.map(|row| row.meaning), fix: row.map(|row| row.fix) }
    }
}

#[derive(Serialize)]
struct Entry<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    service_account: Option<String>,
    #[serde(flatten)]
    report: &'a VerificationReport,
}

pub(super) fn json(judged: &[Judged], answered: Option<Answered>) -> String {
    let is_any = |outcome| judged.iter().any(|it| it.report.outcome == outcome);
    let outcome = [VerificationOutcome::Refused, VerificationOutcome::Unknown]
        .into_iter()
        .find(|outcome| is_any(*outcome));
    let entry = |it: &'_ Judged| it.account.as_ref().map(ToString::to_string);
    let reports = judged.iter().map(|it| Entry { service_account: entry(it), report: &it.report }).collect();
    let document = Document {
        outcome: outcome.unwrap_or(VerificationOutcome::Accepted),
        reports,
        answered: answered.map(Into::into),
    };
    serde_json::to_string_pretty(&document).expect("strings always serialise") + "\n"
}
