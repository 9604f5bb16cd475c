//! Command lines that cannot be understood, in the endpoint of every other error.

use std::{error::Error as _, ffi::OsString};

use clap::{
    Command, Error,
    error::{ContextKind, ContextValue, ErrorKind},
};

use crate::telemetry::LogFormat;

/// What is wrong with the command line, and what to do; `None` when clap has something else to say:
/// help, the version, or an error that this has no words for.
///
/// `words` are those of the command line, without the program.
pub(super) fn explain(
    error: &Error,
    program: &Command,
    words: impl Iterator<Item = OsString>,
) -> Option<(String, String)> {
    // `help VERB` is about that verb.
    let words: Vec<OsString> =
        words.enumerate().filter(|(at, word)| *at > 0 || word != "help").map(|(_, word)| word).collect();
    let (command, path) = command(program, &words);
    let argument = text(error, ContextKind::InvalidArg);
    let value = text(error, ContextKind::InvalidValue);
    let message = match error.kind() {
        ErrorKind::InvalidSubcommand => {
            let verb = text(error, ContextKind::InvalidSubcommand)?;
            if verb == "version" {
                return Some((
                    "unknown verb `version`".to_owned(),
                    "`signpost --version` prints it".to_owned(),
                ));
            }
            format!("unknown verb `{verb}`{}", meant(error, ContextKind::SuggestedSubcommand, &verb))
        }
        ErrorKind::UnknownArgument => {
            let argument = argument?;
            let is_flag = argument.starts_with('-');
            if let Some(flag) = with_one_dash(command, &words).filter(|_| is_flag) {
                format!("unknown flag `{flag}`, did you mean `-{flag}`?")
            } else if let Some(flag) = taken_for_a_value(command, &words).filter(|_| !is_flag) {
                format!("unknown flag `{flag}`")
            } else {
                let kind = if is_flag { "unknown flag" } else { "unexpected argument" };
                format!("{kind} `{argument}`{}", meant(error, ContextKind::SuggestedArg, &argument))
            }
        }
        ErrorKind::MissingRequiredArgument => format!("`{}` is missing", argument?),
        ErrorKind::ArgumentConflict => match text(error, ContextKind::PriorArg) {
            Some(prior) if Some(&prior) != argument.as_ref() => {
                format!("`{}` cannot be used together with `{prior}`", argument?)
            }
            _ => format!("`{}` is given twice, expected once", argument?),
        },
        ErrorKind::ValueValidation => format!("`{}`: {}", argument?, error.source()?),

        ErrorKind::InvalidValue => match value.filter(|value| !value.is_empty()) {
            Some(value) => {
                let expected = all(error, ContextKind::ValidValue).join("`, `");
                format!("`{}`: unknown value `{value}`, expected one of `{expected}`", argument?)
            }
            None => format!("`{}` has no value, expected one", argument?),
        },
        _ => return None,
    };
    Some((message, format!("`{path} --help` lists its flags and arguments")))
}

/// How the log was to be written, as far as a command line that cannot be understood says.
#[expect(clippy::disallowed_methods, reason = "clap reads it where it understands the command line")]
pub(super) fn log_format(words: impl Iterator<Item = OsString>) -> LogFormat {
    let mut words = words.skip_while(|word| {
        !word.to_str().is_some_and(|word| word == "--log-format" || word.starts_with("--log-format="))
    });
    let named = words.next().and_then(|flag| match flag.to_str()?.split_once('=') {
        Some((_, format)) => Some(OsString::from(format)),
        None => words.next(),
    });
    match named.or_else(|| std::env::var_os("SIGNPOST_LOG_FORMAT")) {
        Some(format) if format == "json" => LogFormat::Json,
        _ => LogFormat::Text,
    }
}

fn text(error: &Error, kind: ContextKind) -> Option<String> {
    match error.get(kind)? {
        ContextValue::String(text) => Some(text.clone()),
        ContextValue::Strings(texts) => Some(texts.join("`, `")),
        _ => None,
    }
}

fn all(error: &Error, kind: ContextKind) -> Vec<String> {
    match error.get(kind) {
        Some(ContextValue::String(text)) => vec![text.clone()],
        Some(ContextValue::Strings(texts)) => texts.clone(),
        _ => Vec::new(),
    }
}

/// The likeliest of what was meant: what begins alike, else the best guess, which clap sorts last. Where what was typed
/// is the beginning of several, all of them: one may only look, and another one not.
fn meant(error: &Error, kind: ContextKind, typed: &str) -> String {
    let guesses = all(error, kind);
    let alike = |guess: &String| guess.chars().zip(typed.chars()).take_while(|(a, b)| a == b).count();
    let begun: Vec<_> = guesses.iter().filter(|guess| guess.starts_with(typed)).map(String::as_str).collect();
    let best = guesses.iter().max_by_key(|guess| alike(guess)).map(String::as_str);
    let named = if begun.len() > 1 { begun.join("` or `") } else { best.unwrap_or_default().to_owned() };
    if named.is_empty() { named } else { format!(", did you mean `{named}`?") }
}

/// A long flag that lacks a dash, which is read as short ones.
fn with_one_dash<'a>(command: &Command, words: &'a [OsString]) -> Option<&'a str> {
    let words = words.iter().filter_map(|word| word.to_str()).take_while(|word| *word != "--");
    let mut names = words.filter_map(|word| word.split('=').next());
    names.find(|word| {
        let name = word.strip_prefix('-').filter(|name| name.len() > 1);
        name.is_some_and(|name| command.get_arguments().any(|known| known.get_long() == Some(name)))
    })
}

/// What looks like a flag, and was taken for a kid: those may begin with `-`.
fn taken_for_a_value<'a>(command: &Command, words: &'a [OsString]) -> Option<&'a str> {
    let words = words.iter().filter_map(|word| word.to_str()).take_while(|word| *word != "--");
    let is_known = |flag: &str| {
        let name = flag.trim_start_matches("--").split('=').next();
        command.get_arguments().any(|known| known.get_long() == name)
    };
    words.filter(|word| word.starts_with("--")).find(|word| !is_known(word))
}

/// The verb that was named, and the words with which it is.
fn command<'a>(program: &'a Command, words: &[OsString]) -> (&'a Command, String) {
    let (mut command, mut path) = (program, program.get_name().to_owned());
    for word in words {
        let Some(verb) = command.find_subcommand(word) else { break };
        path = format!("{path} {}", verb.get_name());
        command = verb;
    }
    (command, path)
}
