//! The table of Entra's answers as documentation.

use signpost::core::{
    entra::errors::{Certainty, ERRORS, EntraError, Subject},
    verification,
};

use crate::ground_truth;

/// The answers, with a table for each subject.
pub(super) fn tables() -> String {
    let witnesses = ground_truth::witnesses();
    let table = |subject: Subject| {
        let mut text = format!("### {}\n\n", heading(subject));
        text += "| answer | means | fix | checks | certainty |\n|---|---|---|---|---|\n";
        for row in ERRORS.iter().filter(|row| row.subject == subject) {
            let certainty = match (row.certainty, witnesses.get(&row.code)) {
                (Certainty::Observed, Some(count)) => format!("observed ({count})"),
                (certainty, _) => certainty.name().to_owned(),
            };
            text += &format!(
                "| AADSTS{}{} | {} | {} | {} | {certainty} |\n",
                row.code,
                legs(row),
                row.meaning,
                row.fix,
                checks(row.code)
            );
        }
        text
    };
    Subject::ALL.map(table).join("\n")
}

fn heading(subject: Subject) -> &'static str {
    match subject {
        Subject::Request => "The request",
        Subject::Identity => "The identity",
        Subject::Token => "The token itself",
        Subject::Credential => "The federated credential",
        Subject::EntraToken => "A token of Entra itself",
        Subject::Documents => "The documents and the key",
        Subject::Agent => "Agents",
        Subject::User => "Users and consent",
        Subject::Policy => "What a tenant forbids",
    }
}

fn legs(row: &EntraError) -> String {
    let words: Vec<_> = row.legs.iter().map(|leg| leg.word()).collect();
    if words.is_empty() { String::new() } else { format!(" ({})", words.join(", ")) }
}

/// The checks that predict this code, those that name it first before the others.
fn checks(code: u32) -> String {
    let mut checks: Vec<_> = verification::checks().filter(|check| check.codes.contains(&code)).collect();
    checks.sort_by_key(|check| (check.codes.first() != Some(&code), std::cmp::Reverse(check.level)));
    checks.iter().map(|check| format!("`{}`", check.id)).collect::<Vec<_>>().join(", ")
}
