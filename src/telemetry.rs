//! Log lines, metrics and status of a running process.
//!
//! Reconcilers write to the [`status`]; the admin listener serves it. Log messages are constants with fields,
//! one line per change and none per quiet pass.

use std::sync::OnceLock;

use tracing_subscriber::EnvFilter;

use crate::{clock, core::text::flags_in_use::FlagsInUse};

pub mod event_source;
mod failure_log;
pub mod issuer_status;
pub mod log;
mod metrics;
pub mod signer_metrics;
pub mod status;

pub use failure_log::FailureLog;

static IN_USE: OnceLock<FlagsInUse> = OnceLock::new();

/// Records the flags that this process was started with; later calls have no effect.
pub fn started_with(flags: FlagsInUse) {
    let _ = IN_USE.set(flags);
}

/// A hint with commands that can be run as shown.
#[must_use]
pub fn as_typed(hint: &str) -> String {
    IN_USE.get().map_or_else(|| hint.to_owned(), |flags| flags.complete(hint))
}

/// How log lines are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object per line.
    Json,
}

/// A fatal error as a JSON log line.
#[must_use]
pub fn fatal(error: &str, hint: Option<&str>) -> String {
    let line = serde_json::json!({
        "timestamp": clock::now(),
        "level": "ERROR",
        "message": "fatal",
        "error": error,
        "hint": hint,
    });
    line.to_string()
}

/// Sends log lines to standard error. A process that `stays` never waits for the reader of its log.
///
/// # Errors
///
/// Fails when the filter is malformed; the message says where.
pub fn init(
    filter: &str,
    format: LogFormat,
    colours: bool,
    stays: bool,
) -> Result<(), tracing_subscriber::filter::ParseError> {
    let builder = tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::try_new(filter)?)
        .with_writer(log::Sink(format))
        .with_target(false)
        .with_ansi(colours);
    if stays {
        log::start_queue();
    }
    match format {
        LogFormat::Text => builder.compact().init(),
        LogFormat::Json => builder.json().flatten_event(true).init(),
    }
    Ok(())
}
