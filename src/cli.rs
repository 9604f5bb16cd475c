//! The command line: one file per command, from flags to a workflow to its output.
//!
//! Data goes to standard output, everything else to standard error. Exit codes: 0 done or yes, 1 checked and
//! the answer is no, 2 failed.

use std::{
    error::Error,
    io::{self, IsTerminal as _, Write as _},
    path::{Path, PathBuf},
    time::Duration,
};

use clap::{CommandFactory as _, FromArgMatches as _, Parser, Subcommand};
use tracing::warn;

use crate::{
    blocking,
    config::{self, Config, Flags, IN_FLAGS, InvalidConfig},
    core::text::{Hint, flags_in_use::FlagsInUse, in_utf8, redaction::error_line},
    files,
    telemetry::{self, LogFormat, log},
};

mod config_verb;
mod confirm;
pub mod error_report;
pub mod exchange;
mod federate;
mod jwks;
mod kid_prefix;
mod ledger;
mod rotate;
mod run;
mod signer;
mod sync;
mod table;
mod token;
mod usage;
mod verify;

use error_report::{ExitStatus, Style, render};

/// The default log filter of a service: changes, without the internals of libraries. `kube` logs every failed
/// request as an error; ours are logged once, when they begin.
const USUAL: &str = "info,tokio_cron_scheduler=warn,object_store=warn,kube_client=off";

/// Longest wait of an ending process for unfinished file writes.
const UNFINISHED: Duration = Duration::from_secs(2);

const EXAMPLES: &str = "\
Examples:
  signpost run                                      run a local issuer, without a cluster
  signpost jwks --source kubernetes:kind-kind       print the keys of a cluster
  signpost token | signpost verify --token -        check whether a token would be accepted

Exit codes: 0 success; 1 checked, and the answer is no; 2 error.";

const RUN_EXAMPLES: &str = "\
Examples:
  signpost run
  signpost run --issuer https://oidc.example.com \\
    --source kubernetes:kind-kind --target ./public
  signpost run --issuer https://oidc.example.com \\
    --source /etc/kubernetes/pki/sa.pub --target 'az://account/$web'
  signpost run --config /etc/signpost/signpost.yaml";

/// Publishes the service-account issuer of a cluster so that clouds can trust its tokens.
///
/// Reads the cluster's public keys, publishes its OIDC discovery document and JWKS where Microsoft
/// Entra, AWS and Google can read them, keeps them current, and checks whether a token would be accepted.
#[derive(Parser)]
#[command(version, max_term_width = 100, arg_required_else_help = true, after_help = EXAMPLES)]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,

    /// Log filter, such as `debug` or `signpost=debug,kube=warn`; logs go to standard error
    #[arg(
        long,
        value_name = "FILTER",
        env = "SIGNPOST_LOG",
        hide_env_values = true,
        global = true,
        help_heading = "Logging"
    )]
    log: Option<String>,

    /// Log format: `text`, or `json` with one object per line
    #[arg(
        long,
        value_name = "FORMAT",
        env = "SIGNPOST_LOG_FORMAT",
        hide_env_values = true,
        default_value = "text",
        hide_possible_values = true,
        global = true,
        help_heading = "Logging"
    )]
    log_format: LogFormat,
}

#[derive(Subcommand)]
enum Verb {
    /// Publish and serve continuously; without flags, run a local issuer that needs no cluster
    #[command(after_help = RUN_EXAMPLES)]
    Run(Flags),
    /// Publish once: fetch the keys, merge them, write what differs, read it back
    Sync(sync::SyncFlags),
    /// Print the JWKS of a cluster or of key files
    Jwks(jwks::JwksFlags),
    /// Get a test token from the embedded issuer or a cluster
    Token(token::TokenFlags),
    /// Check whether a relying party would accept a token, and how Microsoft Entra would answer
    Verify(verify::VerifyFlags),
    /// Exchange a token at Microsoft Entra, AWS or Google Cloud, and explain each answer
    #[command(subcommand)]
    Exchange(exchange::ExchangeVerb),
    /// Put trust in place: federated credentials of Microsoft Entra
    #[command(subcommand)]
    Federate(federate::FederateVerb),
    /// Show every known key, and adopt unmanaged keys
    #[command(subcommand)]
    Ledger(ledger::LedgerVerb),
    /// Show and control the rotation of signing keys
    #[command(subcommand)]
    Rotate(rotate::RotateVerb),
    /// Sign the tokens of a cluster as the external signer of kube-apiserver, on a unix socket
    Signer(signer::SignerArguments),
    /// Check, show and document the configuration
    #[command(subcommand)]
    Config(config_verb::ConfigVerb),
}

/// The command line definition, for tests that compare documentation with it.
#[must_use]
pub fn command() -> clap::Command {
    // Flags that only a service needs: `sync` accepts them too, so that both can have the same flags and
    // environment.
    let of_a_service =
        ["admin_listen", "tls_certificate", "tls_private_key", "events_pod", "events_pod_uid", "schedule"];
    Arguments::command().mut_subcommand("sync", |sync| {
        of_a_service.into_iter().fold(sync, |sync, flag| sync.mut_arg(flag, |flag| flag.hide(true)))
    })
}

#[must_use]
pub fn run() -> ExitStatus {
    let parsed = command().try_get_matches().and_then(|matches| Arguments::from_arg_matches(&matches));
    let arguments = match parsed {
        Ok(arguments) => arguments,
        Err(error) => {
            let Some((message, hint)) = usage::explain(&error, &command(), std::env::args_os().skip(1))
            else {
                error.exit()
            };
            Failure::plain(&message, &hint).tell(usage::log_format(std::env::args_os()));
            return ExitStatus::Failure;
        }
    };
    let in_use = std::env::args_os().skip(1).map(|argument| argument.to_string_lossy().into_owned());
    telemetry::started_with(FlagsInUse::of(in_use));
    let format = arguments.log_format;
    let outcome = arguments.run().unwrap_or_else(|failure| {
        failure.tell(format);
        ExitStatus::Failure
    });
    log::flush();
    outcome
}

impl Arguments {
    fn run(self) -> Result<ExitStatus, Failure> {
        // A command that ends prints its result; a service logs.
        let stays = match &self.verb {
            Verb::Run(_) => true,
            Verb::Signer(arguments) => arguments.is_service(),
            _ => false,
        };
        let usual = if stays { USUAL } else { "off" };
        let filter = self.log.as_deref().unwrap_or(usual);
        telemetry::init(filter, self.log_format, style() == Style::Coloured, stays).map_err(|source| {
            let error = InvalidFilter { filter: filter.to_owned(), source };
            Failure::new(&error, Some("pass a level such as `debug`, or `signpost=debug,kube=warn`"))
        })?;
        match self.verb {
            Verb::Run(flags) => run::run(&flags),
            Verb::Sync(flags) => sync::run(&flags),
            Verb::Jwks(flags) => jwks::run(&flags),
            Verb::Token(flags) => token::run(&flags),
            Verb::Verify(flags) => verify::run(&flags),
            Verb::Exchange(verb) => exchange::run(&verb),
            Verb::Federate(verb) => federate::run(verb),
            Verb::Ledger(verb) => ledger::run(verb),
            Verb::Rotate(verb) => rotate::run(verb),
            Verb::Signer(arguments) => signer::run(&arguments),
            Verb::Config(verb) => config_verb::run(verb),
        }
    }
}

/// How a verb prints what it found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
enum Output {
    /// For people.
    #[default]
    Text,
    /// For programs.
    Json,
}

/// An error for the terminal or for a log.
struct Failure {
    text: String,
    error: String,
    hint: Option<String>,
}

impl Failure {
    fn new(error: &(dyn Error + 'static), hint: Option<&str>) -> Self {
        let hint = hint.map(telemetry::as_typed);
        let text = render(error, hint.as_deref(), style());
        Self { text, error: error_line(error), hint }
    }

    fn tell(self, format: LogFormat) {
        match format {
            LogFormat::Text => eprint(&self.text),
            LogFormat::Json => eprint(&telemetry::fatal(&self.error, self.hint.as_deref())),
        }
    }

    fn plain(text: &str, hint: &str) -> Self {
        Self::new(&*Box::<dyn Error>::from(text), Some(hint))
    }
}

impl<E: Hint> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::new(&error, error.hint().as_deref())
    }
}

impl From<InvalidConfig> for Failure {
    fn from(error: InvalidConfig) -> Self {
        let hint = if error.origin == IN_FLAGS {
            "`--help` documents every flag"
        } else {
            "`signpost config schema` documents every key of the file, `--help` every flag"
        };
        Self::new(&error, Some(hint))
    }
}

/// A configuration file that cannot be read.
impl From<CannotRead> for Failure {
    fn from(error: CannotRead) -> Self {
        let hint = match error.source.kind() {
            io::ErrorKind::InvalidData => "save the file as UTF-8",
            _ => "name a readable file in `--config`",
        };
        Self::new(&error, Some(hint))
    }
}

/// Colours are only for terminals without `NO_COLOR` (<https://no-color.org>).
#[expect(clippy::disallowed_methods, reason = "it is about the terminal, not about what Signpost does")]
fn style() -> Style {
    let unwanted = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    if io::stderr().is_terminal() && !unwanted { Style::Coloured } else { Style::Plain }
}

/// Prints data. A reader that stops early is no error.
fn print(text: &str) {
    let _ = io::stdout().write_all(text.as_bytes()).and_then(|()| io::stdout().flush());
}

/// Largest file, in bytes: a configuration of ten thousand issuers takes a tenth of it.
const MAX_FILE: u64 = 64 * 1024 * 1024;

fn eprint(text: &str) {
    log::say(text);
}

fn load(flags: &Flags) -> Result<Config, Failure> {
    let text = read_config(flags.keys.config.as_deref())?;
    Ok(checked(flags, text.as_ref(), &working_directory()?)?)
}

fn checked(flags: &Flags, text: Option<&(PathBuf, String)>, cwd: &Path) -> Result<Config, InvalidConfig> {
    let file = text.map(|(path, text)| (path.as_path(), text.as_str()));
    config::load(flags, file, cwd, crate::clock::now())
}

fn read_config(path: Option<&Path>) -> Result<Option<(PathBuf, String)>, CannotRead> {
    let Some(path) = path else { return Ok(None) };
    let read = files::read_stream(path, MAX_FILE).and_then(|bytes| {
        String::from_utf8(in_utf8(&bytes).into_owned())
            .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "it is neither UTF-8 nor UTF-16"))
    });
    match read {
        Ok(text) => Ok(Some((path.to_owned(), text))),
        Err(source) => Err(CannotRead { path: path.to_owned(), source }),
    }
}

/// Reads an operator's file; text must be UTF-8.
fn read_file(path: &Path, hint: &str) -> Result<Vec<u8>, Failure> {
    Ok(in_utf8(&read_bytes(path, hint)?).into_owned())
}

fn read_bytes(path: &Path, hint: &str) -> Result<Vec<u8>, Failure> {
    let read = files::read_stream(path, MAX_FILE);
    read.map_err(|source| Failure::new(&CannotRead { path: path.to_owned(), source }, Some(hint)))
}

fn working_directory() -> Result<PathBuf, Failure> {
    std::env::current_dir().map_err(|error| Failure::new(&error, Some("change to a directory that exists")))
}

/// Runs the asynchronous part of a command, without waiting for hung file systems at the end.
fn block_on<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.expect("threads and sockets are to be had");
    let done = runtime.block_on(work);
    runtime.shutdown_timeout(UNFINISHED);
    let left = blocking::places();
    if !left.is_empty() {
        warn!(places = ?left, "some file system operations did not finish");
    }
    done
}

#[derive(Debug, thiserror::Error)]
#[error("`--log`: `{filter}` is not a log filter")]
struct InvalidFilter {
    filter: String,
    source: tracing_subscriber::filter::ParseError,
}

#[derive(Debug, thiserror::Error)]
#[error("cannot read `{}`", path.display())]
struct CannotRead {
    path: PathBuf,
    source: io::Error,
}
