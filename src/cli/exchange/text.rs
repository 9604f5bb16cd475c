//! An exchange as text: each step, its claims or its error, and what was predicted.

use jiff::Timestamp;

use crate::{
    app::exchange::{StepOutcome, Walk, WalkedStep},
    clock,
    core::{
        entra::{ClaimInWords, Exchange, Refusal, errors::explain},
        text::redaction::printable,
        verification::{Agreement, VerificationOutcome, VerificationReport},
    },
};

const INDENT: &str = "   ";

pub(super) fn text(exchange: &Exchange, walk: &Walk) -> String {
    let verdict = match walk.steps.last().map(|last| &last.outcome) {
        Some(StepOutcome::Refused(refusal)) => {
            format!("refused: Microsoft Entra answered AADSTS{} to step {}", refusal.code, walk.steps.len())
        }
        _ => "accepted: Microsoft Entra issued the token".to_owned(),
    };
    let steps = walk.steps.iter().enumerate().map(|(number, it)| step(exchange, number + 1, it));
    format!("{verdict}\n{}", steps.collect::<String>())
}

fn step(exchange: &Exchange, number: usize, it: &WalkedStep) -> String {
    let head = format!(
        "{number}  {}: `{}` asks tenant `{}` for `{}`",
        it.step.word(),
        it.step.client_id,
        exchange.tenant,
        it.step.scope
    );
    let took = format!("{:.2} s", it.took.as_secs_f64());
    let body = match &it.outcome {
        StepOutcome::Issued { expires_at, claims } => issued(&took, *expires_at, claims),
        StepOutcome::Refused(refusal) => refused(&took, refusal),
    };
    format!("\n{}\n{body}{INDENT}predicted: {}\n", printable(&head), predicted(&it.prediction, it.agreement))
}

fn issued(took: &str, expires_at: Option<Timestamp>, claims: &[ClaimInWords]) -> String {
    let life = expires_at.map_or_else(String::new, |at| {
        format!(
            ", valid for {:#}",
            at.duration_since(clock::now()).round(jiff::Unit::Minute).unwrap_or_default()
        )
    });
    let mut text = format!("{INDENT}a token in {took}{life}\n");
    for claim in claims {
        text += &format!(
            "{INDENT}{:15}  {}  {}\n",
            claim.name,
            printable(&claim.value),
            printable(&claim.meaning)
        );
        if let Some(expected) = &claim.expected {
            text += &format!("{INDENT}{:15}  expected: {}\n", "", printable(expected));
        }
    }
    text
}

fn refused(took: &str, refusal: &Refusal) -> String {
    let mut text = format!("{INDENT}AADSTS{} in {took}: {}\n", refusal.code, refusal.text);
    if let Some(row) = explain(refusal.code) {
        text += &format!("{INDENT}means: {} ({})\n", row.meaning, row.certainty.name());
        text += &format!("{INDENT}fix: {}\n", row.fix);
    }
    let ids =
        [("trace", &refusal.trace_id), ("correlation", &refusal.correlation_id), ("at", &refusal.timestamp)];
    let ids: Vec<_> =
        ids.iter().filter(|(_, id)| !id.is_empty()).map(|(name, id)| format!("{name} {id}")).collect();
    text + &format!("{INDENT}for Microsoft's support: {}\n", ids.join(", "))
}

fn predicted(report: &VerificationReport, agreement: Agreement) -> String {
    if report.outcome == VerificationOutcome::Unknown && report.likely_first().is_none() {
        return "nothing, for want of evidence about this step".to_owned();
    }
    let first = report.likely_first().filter(|_| report.outcome != VerificationOutcome::Accepted);
    let code = first
        .and_then(|it| it.predicted_codes.first())
        .map_or_else(String::new, |code| format!(" AADSTS{code}"));
    let check = first.map_or_else(String::new, |it| format!(" ({}: {})", it.id, printable(&it.seen)));
    format!("{}{code}{check}; {}", report.outcome.name(), agreement.in_words())
}
