//! The table of checks as documentation.

use super::{Check, Level, Party, checks};

/// All checks as a page of Markdown.
#[must_use]
pub fn reference() -> String {
    let mut text = String::from(
        "| id | level | for | Entra answers | certainty | rests on | rule |\n|---|---|---|---|---|---|---|\n",
    );
    for check in checks() {
        text += &format!(
            "| `{}` | {} | {} | {} | {} | {} | {} |\n",
            check.id,
            level(check.level),
            parties(check),
            codes(check),
            check.basis.certainty.name(),
            check.basis.source,
            check.rule
        );
    }
    text
}

fn level(level: Level) -> &'static str {
    match level {
        Level::Note => "note",
        Level::Warning => "warning",
        Level::Error => "error",
    }
}

fn parties(check: &Check) -> String {
    if check.parties.len() == Party::ALL.len() {
        return "all".to_owned();
    }
    check.parties.iter().map(|party| party.word()).collect::<Vec<_>>().join(", ")
}

fn codes(check: &Check) -> String {
    check.codes.iter().map(|code| format!("AADSTS{code}")).collect::<Vec<_>>().join(", ")
}
