//! The faults of a configuration, reported all at once.

use std::{collections::BTreeSet, fmt, path::Path};

use super::document::Origin;
use crate::core::text::redaction::{at_most, redact};

/// Longest message, path or hint, in characters: some list all values of a kind, and a file that is not a
/// configuration may be a single text.
const MAX_TEXT: usize = 500;

/// The origin of problems that are only in the flags.
pub const IN_FLAGS: &str = "the flags";

/// One fault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The path of the key (`issuers[0].targets[1].url`), the flag, or the line.
    pub path: String,
    pub message: String,
    /// The suggested remedy.
    pub hint: Option<String>,
}

/// An unusable value; the reader adds its path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fault {
    message: String,
    hint: Option<String>,
}

impl Fault {
    pub(super) fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), hint: None }
    }

    pub(super) fn hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }

    /// The fault that was displayed: `serde` carries only text.
    pub(super) fn parse(text: &str) -> Self {
        match text.split_once(HINT) {
            Some((message, hint)) => Self::new(message).hint(hint),
            None => Self::new(text),
        }
    }
}

/// Separates the hint. No message has a new line: texts with control characters are refused unread.
const HINT: &str = "\n  hint: ";

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        self.hint.iter().try_for_each(|hint| write!(f, "{HINT}{hint}"))
    }
}

/// Collects faults, the origins that order them, and the paths of unusable values.
#[derive(Default)]
pub(super) struct Problems {
    found: Vec<(Origin, Problem)>,
    unusable: BTreeSet<String>,
}

impl Problems {
    /// Adds a fault. Messages omit the query and the user of URLs, which may be secrets.
    pub(super) fn add(&mut self, place: Origin, path: &str, fault: Fault) {
        let path = match place {
            Origin::Flag(flag) => flag,
            Origin::BuiltIn | Origin::File { .. } if path.is_empty() => "the top level",
            Origin::BuiltIn | Origin::File { .. } => path,
        };
        let hint = fault.hint.map(|hint| shown(&hint));
        self.found.push((place, Problem { path: shown(path), message: shown(&fault.message), hint }));
    }

    /// Adds the fault of a file that is not YAML.
    pub(super) fn add_unreadable(&mut self, problem: Problem) {
        self.found.push((Origin::File { line: 0, column: 0 }, problem));
    }

    pub(super) fn is_empty(&self) -> bool {
        self.found.is_empty()
    }

    pub(super) fn set_unusable(&mut self, path: String) {
        self.unusable.insert(path);
    }

    /// Whether the value at a path, one above it or one in it is unusable.
    pub(super) fn has_unusable(&self, path: &str) -> bool {
        let ends = path.match_indices(['.', '[']).map(|(end, _)| end).chain([path.len()]);
        let within = |other: &String| other[path.len()..].starts_with(['.', '[']);
        ends.into_iter().any(|end| self.unusable.contains(&path[..end]))
            || self.unusable.range(path.to_owned()..).take_while(|other| other.starts_with(path)).any(within)
    }

    /// Whether every value is usable.
    pub(super) fn all_usable(&self) -> bool {
        self.unusable.is_empty()
    }

    /// The error to report; `file` is the configuration file.
    pub(super) fn into_error(mut self, file: Option<&Path>) -> InvalidConfig {
        // Stable sort: faults of one value keep their order.
        self.found.sort_by_key(|(place, _)| match place {
            Origin::Flag(_) | Origin::BuiltIn => (0, 0),
            Origin::File { line, column } => (*line, *column),
        });
        let in_file = self.found.iter().any(|(place, _)| matches!(place, Origin::File { .. }));
        let in_flags = self.found.iter().any(|(place, _)| !matches!(place, Origin::File { .. }));
        let origin = match file {
            Some(file) if in_file && in_flags => format!("the flags and `{}`", file.display()),
            Some(file) if in_file => format!("`{}`", file.display()),
            _ => IN_FLAGS.to_owned(),
        };
        InvalidConfig { origin, problems: self.found.into_iter().map(|(_, problem)| problem).collect() }
    }
}

/// The text without secrets, with control characters escaped: they could control a terminal.
fn shown(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for character in at_most(MAX_TEXT, &redact(text)).chars() {
        if character.is_control() {
            shown.extend(character.escape_default());
        } else {
            shown.push(character);
        }
    }
    shown
}

/// The flags or the file cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidConfig {
    /// Describes the origin of the problems: the file, or the flags (with their environment variables).
    pub origin: String,
    /// At least one; those of flags first, then in the order of the file.
    pub problems: Vec<Problem>,
}

impl fmt::Display for InvalidConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.problems.len() {
            1 => write!(f, "1 problem in {}", self.origin)?,
            count => write!(f, "{count} problems in {}", self.origin)?,
        }
        for Problem { path, message, hint } in &self.problems {
            write!(f, "\n{path}: {message}")?;
            if let Some(hint) = hint {
                write!(f, "\n  hint: {hint}")?;
            }
        }
        Ok(())
    }
}

impl std::error::Error for InvalidConfig {}
