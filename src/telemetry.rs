//! What the operator sees of a running process: log lines, metrics, the status.
//!
//! Workflows write onto the [`board`]; the admin listener shows it. Log messages are constants with
//! fields, one line per change and none per quiet pass.

use std::sync::OnceLock;

use tracing_subscriber::EnvFilter;

use crate::{clock, core::text::flags_in_use::FlagsInUse};

pub mod event_source;
pub mod log;
mod metrics;
pub mod signer_metrics;
pub mod status;
mod trouble;

pub use trouble::Trouble;

static IN_USE: OnceLock<FlagsInUse> = OnceLock::new();

/// Notes with which flags this process was started; the first call counts.
pub fn started_with(flags: FlagsInUse) {
    let _ = IN_USE.set(flags);
}

/// A hint whose commands can be typed as they stand there.
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

/// An error that ends the process, as a log line for machines.
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

/// Sends log lines to standard error. A process that `stays` never waits for whoever reads them.
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
