//! Durations within bounds, as a file writes them.

use std::{borrow::Cow, fmt, time::Duration};

use jiff::{
    SignedDuration,
    fmt::friendly::{Spacing, SpanParser, SpanPrinter},
};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

use super::{
    problem::Fault,
    value::{described, written_as_text},
};

/// A minute, an hour and a day in seconds, for the bounds of [`Seconds`].
pub(super) const MINUTE: u64 = 60;
pub(super) const HOUR: u64 = 60 * MINUTE;
pub(super) const DAY: u64 = 24 * HOUR;

/// A whole number of seconds within bounds, written as a duration: `1h30m`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Seconds<const LEAST: u64, const MOST: u64>(Duration);

impl<const LEAST: u64, const MOST: u64> Seconds<LEAST, MOST> {
    /// A default.
    #[must_use]
    pub const fn new(seconds: u64) -> Self {
        Self(Duration::from_secs(seconds))
    }

    #[must_use]
    pub const fn get(self) -> Duration {
        self.0
    }

    fn parse(text: &str) -> Result<Self, Fault> {
        static PARSER: SpanParser = SpanParser::new();
        let [least, most] = [LEAST, MOST].map(|seconds| duration_text(Duration::from_secs(seconds)));
        let refuse = |what: &str| Fault::new(format!("`{text}` {what}, expected `{least}` to `{most}`"));
        let Ok(duration): Result<SignedDuration, _> = PARSER.parse_duration(text) else {
            let fault = refuse("is not a duration such as `30s`, `5m` or `1h30m`");
            let days = text.strip_suffix('d').and_then(|days| days.trim().parse::<u32>().ok());
            return Err(match (text.parse::<u64>(), days) {
                (Ok(_), _) => fault.hint(format!("write `{text}s` for seconds")),
                (_, Some(days)) => fault.hint(format!("write `{}h`", u64::from(days) * 24)),
                _ => fault,
            });
        };
        let magnitude = duration.unsigned_abs();
        if duration.is_negative() {
            Err(refuse("is negative"))
        } else if magnitude < Duration::from_secs(LEAST) {
            Err(refuse("is too short"))
        } else if magnitude > Duration::from_secs(MOST) {
            Err(refuse("is too long"))
        } else if magnitude.subsec_nanos() != 0 {
            Err(refuse("is not a whole number of seconds"))
        } else {
            Ok(Self(magnitude))
        }
    }
}

impl<const LEAST: u64, const MOST: u64> fmt::Display for Seconds<LEAST, MOST> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&duration_text(self.0))
    }
}

impl<const LEAST: u64, const MOST: u64> fmt::Debug for Seconds<LEAST, MOST> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

described!([const LEAST: u64, const MOST: u64] Seconds<LEAST, MOST>, {
    "type": "string",
    "x-expected": "a duration such as `30s`, `5m` or `1h30m`",
    "x-bounds": format!(
        " A duration from `{}` to `{}`.",
        duration_text(Duration::from_secs(LEAST)),
        duration_text(Duration::from_secs(MOST))
    ),
});
written_as_text!([const LEAST: u64, const MOST: u64] Seconds<LEAST, MOST>, Self::parse);

/// A duration in the format of the file: `1h30m`.
pub(super) fn duration_text(duration: Duration) -> String {
    static PRINTER: SpanPrinter = SpanPrinter::new().spacing(Spacing::None);
    PRINTER.unsigned_duration_to_string(&duration)
}
