//! Reports the end of a run: the error with its causes and hint, and the exit code.

use std::{
    error::Error,
    fmt::Write as _,
    process::{ExitCode, Termination},
};

use crate::core::text::redaction::{causes, printable, redact};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExitStatus {
    /// Done, or the answer is yes. Exit code 0.
    Success,
    /// Checked, and the answer is no: `verify` found a fault, `sync --dry-run` a difference. Exit code 1.
    Negative,
    /// Failed: usage, configuration, I/O. Exit code 2, as clap uses.
    Failure,
}

impl ExitStatus {
    #[must_use]
    pub fn code(self) -> u8 {
        match self {
            Self::Success => 0,
            Self::Negative => 1,
            Self::Failure => 2,
        }
    }
}

impl Termination for ExitStatus {
    fn report(self) -> ExitCode {
        ExitCode::from(self.code())
    }
}

/// Whether the report is coloured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Style {
    /// Only text: a file, a pipe, or `NO_COLOR` is set.
    #[default]
    Plain,
    Coloured,
}

/// Renders an error and its causes, outermost first, one line each, and the hint.
///
/// The queries and users of URLs are omitted, because they may hold a signature or a password. The text ends
/// without a line break.
#[must_use]
pub fn render(error: &(dyn Error + 'static), hint: Option<&str>, style: Style) -> String {
    let mut text = match style {
        Style::Plain => "error: ".to_owned(),
        Style::Coloured => "\u{1b}[1;31merror\u{1b}[0m: ".to_owned(),
    };
    for (number, cause) in causes(error).iter().enumerate() {
        push(&mut text, if number == 0 { "" } else { "\n  cause: " }, cause);
    }
    if let Some(hint) = hint {
        push(&mut text, "\n  hint: ", hint);
    }
    text
}

/// Appends a paragraph whose further lines are indented by two columns after its label, so that they cannot
/// be mistaken for lines of the report itself.
fn push(text: &mut String, label: &str, paragraph: &str) {
    let indent = if label.is_empty() { "  " } else { "    " };
    let shown = redact(paragraph.trim_end());
    let mut lines = shown.lines();
    text.push_str(label);
    text.push_str(&printable(lines.next().unwrap_or_default()));
    for line in lines.filter(|line| !line.trim().is_empty()) {
        let _ = write!(text, "\n{indent}{}", printable(line));
    }
}

#[cfg(test)]
mod tests;
