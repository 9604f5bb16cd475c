//! Reports as text: the verdict first, then the reasons, the most useful first.

use std::time::Duration;

use super::{Answered, Judged};
use crate::{
    cli::table::table,
    core::{
        entra::errors::explain,
        text::redaction::printable,
        verification::{Agreement, Finding, Level, Party, VerificationOutcome, VerificationReport},
    },
};

/// Indent below the id of a finding.
const INDENT: &str = "         ";

pub(super) fn text(judged: &[Judged]) -> String {
    match judged {
        [one] => whole(one),
        many => {
            let reasons =
                many.iter().filter(|it| it.report.outcome != VerificationOutcome::Accepted).map(whole);
            let reasons: Vec<_> = reasons.collect();
            let parties = many.iter().any(|it| it.report.party != many[0].report.party);
            let overview = table(&many.iter().map(|it| line(it, parties)).collect::<Vec<_>>());
            [vec![overview], reasons].concat().join("\n")
        }
    }
}

/// One line: the verdict, the service account, the party if there are several, and the most likely answer
/// first.
fn line(Judged { account, report }: &Judged, parties: bool) -> [String; 4] {
    let party = report.party.name();
    let first = report.findings.iter().find(|finding| finding.level != Level::Note);
    [
        word(report.outcome).to_owned(),
        match account {
            Some(account) if parties => format!("{account}, {party}"),
            Some(account) => account.to_string(),
            None => party.to_owned(),
        },
        first.map(|finding| finding.id.to_owned()).unwrap_or_default(),
        first.map(|finding| printable(&finding.seen).into_owned()).unwrap_or_default(),
    ]
}

fn whole(Judged { account, report }: &Judged) -> String {
    let is_named =
        |id| report.holds.iter().any(|rule| rule.id == id) || report.findings.iter().any(|it| it.id == id);
    let what = match account {
        Some(account) => format!("the token of `{account}`"),
        None if is_named("TOK-JWS") => "the token".to_owned(),
        None => "the issuer".to_owned(),
    };
    let is_of_a_token = account.is_some() || is_named("TOK-JWS");
    let rest = if report.outcome == VerificationOutcome::Accepted && !is_of_a_token {
        "; no token was judged"
    } else {
        ""
    };
    let mut text = format!("{}: {}{rest}\n", word(report.outcome), verdict(report, &what));
    for finding in &report.findings {
        text += "\n";
        text += &told(finding, report.party);
    }
    if !report.holds.is_empty() {
        let ids: Vec<_> = report.holds.iter().map(|rule| rule.id).collect();
        text += &format!("\n{}", wrapped("holds    ", &ids));
    }
    text
}

/// What Entra answered, explained and compared with the prediction.
pub(super) fn answered(Answered { answer, agreement }: Answered) -> String {
    let Some(code) = answer.code() else {
        return format!("\nEntra accepted it: {}\n", agreement.in_words());
    };
    let mut text = format!("\nEntra answered AADSTS{code}: {}\n", agreement.in_words());
    match explain(code) {
        Some(row) => {
            let refined = if row.code == code { String::new() } else { format!(", as AADSTS{}", row.code) };
            text += &format!("{INDENT}means: {}{refined} ({})\n", row.meaning, row.certainty.name());
            text += &format!("{INDENT}fix: {}\n", row.fix);
        }
        None => text += &format!("{INDENT}no report of this code is known\n"),
    }
    if agreement > Agreement::Listed {
        text += &format!(
            "{INDENT}`--report FILE` describes it without names: send it in, and predictions get better\n"
        );
    }
    text
}

fn word(outcome: VerificationOutcome) -> &'static str {
    match outcome {
        VerificationOutcome::Accepted => "accepted",
        VerificationOutcome::Refused => "refused",
        VerificationOutcome::Unknown => "unknown",
    }
}

fn verdict(report: &VerificationReport, what: &str) -> String {
    let party = report.party.name();
    let likely = report.likely_first().map(|finding| (finding.level, finding.predicted_codes));
    let unless = report.findings.iter().find_map(|finding| finding.unless.as_deref());
    match (report.outcome, likely) {
        (VerificationOutcome::Accepted, Some((_, [code, ..]))) => {
            format!("{party} would accept {what}; if not, its answer is AADSTS{code}")
        }
        (VerificationOutcome::Accepted, _) => format!("{party} would accept {what}"),
        (VerificationOutcome::Refused, Some((_, [code, ..]))) => {
            format!("{party} would answer AADSTS{code} to {what}")
        }
        // The token is not even sent, or any caller would be accepted.
        (VerificationOutcome::Refused, None) => {
            format!("{what} is unsafe with {party} in this configuration")
        }
        (VerificationOutcome::Refused, Some(_)) => format!("{party} would refuse {what}"),
        (VerificationOutcome::Unknown, _) if unless.is_some() => {
            format!("{party} would refuse {what}, unless {}", unless.unwrap_or_default())
        }
        (VerificationOutcome::Unknown, _) => {
            format!("{party} may or may not accept {what}")
        }
    }
}

fn told(finding: &Finding, party: Party) -> String {
    let level = match finding.level {
        Level::Error => "error",
        Level::Warning => "warning",
        Level::Note => "note",
    };
    let mut text = format!("{level:7}  {}  {}\n", finding.id, printable(&finding.seen));
    match &finding.difference {
        Some(difference) => {
            let [seen, expected, mark] = difference.lines();
            text += &format!("{INDENT}  seen      {seen}\n");
            text += &format!("{INDENT}  expected  {expected}\n");
            text += &format!("{INDENT}            {mark}\n");
        }
        None => text += &format!("{INDENT}expected: {}\n", printable(&finding.expected)),
    }
    if let Some(unless) = &finding.unless {
        text += &format!("{INDENT}unless: {}\n", printable(unless));
    }
    if party == Party::Entra && !finding.predicted_codes.is_empty() {
        let likely = if finding.likely_first { "likely first: " } else { "" };
        let codes: Vec<_> = finding.predicted_codes.iter().map(|code| format!("AADSTS{code}")).collect();
        text += &format!(
            "{INDENT}{likely}{} ({}: {})\n",
            codes.join(" or "),
            finding.certainty.name(),
            finding.source
        );
    }
    text + &format!("{INDENT}fix: {}\n", printable(&finding.fix))
}

/// Words in lines of at most 100 characters, the first with a head, the others indented.
fn wrapped(head: &str, words: &[&str]) -> String {
    let mut text = String::new();
    let mut line = head.to_owned();
    for (index, word) in words.iter().enumerate() {
        if line.len() + word.len() > 98 {
            text += &format!("{}\n", line.trim_end());
            line = " ".repeat(head.len());
        }
        line += word;
        line += if index + 1 < words.len() { ", " } else { "" };
    }
    text + &format!("{}\n", line.trim_end())
}

/// The remaining wait, in a useful precision.
pub(super) fn patience(left: Duration) -> String {
    match left.as_secs() {
        seconds if seconds < 60 => format!("{seconds} s"),
        seconds => format!("{} min", seconds.div_ceil(60)),
    }
}

/// The reasons to wait, in one line.
pub(super) fn waited_for(judged: &[Judged]) -> String {
    let mut waiting = judged.iter().filter(|it| it.report.outcome != VerificationOutcome::Accepted);
    let first = waiting.find_map(|it| it.report.findings.first());
    first.map_or_else(
        || "a verdict".to_owned(),
        |finding| format!("{} {}", finding.id, printable(&finding.seen)),
    )
}
