//! Reports invalid command lines in the format of every other error.

use std::{error::Error as _, ffi::OsString};

use clap::{
    Command, Error,
    error::{ContextKind, ContextValue, ErrorKind},
};

use crate::telemetry::LogFormat;

/// The fault of the command line, and a hint; `None` where clap prints the text itself: help, the version, or
/// an error without a message here.
///
/// `words` are the command line without the program.
pub(super) fn explain(
    error: &Error,
    program: &Command,
    words: impl Iterator<Item = OsString>,
) -> Option<(String, String)> {
    // `help VERB` describes that command.
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

/// The requested log format, as far as an invalid command line tells.
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

/// The likely candidates: what begins alike, else the best match, which clap sorts last. All of them where
/// the input is a prefix of several: one may only read, and another one not.
fn meant(error: &Error, kind: ContextKind, typed: &str) -> String {
    let guesses = all(error, kind);
    let alike = |guess: &String| guess.chars().zip(typed.chars()).take_while(|(a, b)| a == b).count();
    let begun: Vec<_> = guesses.iter().filter(|guess| guess.starts_with(typed)).map(String::as_str).collect();
    let best = guesses.iter().max_by_key(|guess| alike(guess)).map(String::as_str);
    let named = if begun.len() > 1 { begun.join("` or `") } else { best.unwrap_or_default().to_owned() };
    if named.is_empty() { named } else { format!(", did you mean `{named}`?") }
}

/// A long flag with only one dash, which clap parses as short flags.
fn with_one_dash<'a>(command: &Command, words: &'a [OsString]) -> Option<&'a str> {
    let words = words.iter().filter_map(|word| word.to_str()).take_while(|word| *word != "--");
    let mut names = words.filter_map(|word| word.split('=').next());
    names.find(|word| {
        let name = word.strip_prefix('-').filter(|name| name.len() > 1);
        name.is_some_and(|name| command.get_arguments().any(|known| known.get_long() == Some(name)))
    })
}

/// An apparent flag that was parsed as a kid: those may begin with `-`.
fn taken_for_a_value<'a>(command: &Command, words: &'a [OsString]) -> Option<&'a str> {
    let words = words.iter().filter_map(|word| word.to_str()).take_while(|word| *word != "--");
    let is_known = |flag: &str| {
        let name = flag.trim_start_matches("--").split('=').next();
        command.get_arguments().any(|known| known.get_long() == name)
    };
    words.filter(|word| word.starts_with("--")).find(|word| !is_known(word))
}

/// The named command, and its path.
fn command<'a>(program: &'a Command, words: &[OsString]) -> (&'a Command, String) {
    let (mut command, mut path) = (program, program.get_name().to_owned());
    for word in words {
        let Some(verb) = command.find_subcommand(word) else { break };
        path = format!("{path} {}", verb.get_name());
        command = verb;
    }
    (command, path)
}
