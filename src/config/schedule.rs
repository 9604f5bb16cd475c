//! Schedules of loops: cron, five fields, UTC (`docs/decisions/0009`).

use std::{borrow::Cow, fmt};

use jiff::Timestamp;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

use super::{
    problem::Fault,
    value::{described, written_as_text},
};
use crate::core::calendar::Calendar;

const EXPECTED: &str = "five fields: minute hour day month weekday";

/// The fields of a schedule and their values.
const FIELDS: [(&str, &str); 5] = [
    ("minute", "0 to 59"),
    ("hour", "0 to 23"),
    ("day", "1 to 31"),
    ("month", "1 to 12 or JAN to DEC"),
    ("weekday", "0 to 7 or SUN to SAT"),
];

/// A cron schedule.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Schedule(String);

impl Schedule {
    fn parse(text: &str) -> Result<Self, Fault> {
        parse(text, "UTC").map(|calendar| Self(calendar.as_str().to_owned()))
    }

    /// Checks that it has a time after `now`.
    pub(super) fn check(&self, now: Timestamp) -> Result<(), Fault> {
        Calendar::parse(&self.0).map_or(Ok(()), |calendar| occurs(&calendar, now))
    }

    /// The five fields, separated by single spaces.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The same with a leading field of seconds, as `tokio-cron-scheduler` requires.
    #[must_use]
    pub fn as_six_fields(&self) -> String {
        format!("0 {}", self.0)
    }
}

/// Every five minutes.
impl Default for Schedule {
    fn default() -> Self {
        Self("*/5 * * * *".to_owned())
    }
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

described!([] Schedule, { "type": "string", "x-expected": EXPECTED });
written_as_text!([] Schedule, Self::parse);

/// When a maintenance window opens, in its time zone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct WindowOpening(Calendar);

impl WindowOpening {
    fn parse(text: &str) -> Result<Self, Fault> {
        parse(text, "in `time_zone`").map(Self)
    }

    /// Checks that it has a time after `now`.
    pub(super) fn check(&self, now: Timestamp) -> Result<(), Fault> {
        occurs(&self.0, now)
    }

    pub(super) fn calendar(&self) -> Calendar {
        self.0.clone()
    }
}

impl fmt::Display for WindowOpening {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.as_str())
    }
}

described!([] WindowOpening, { "type": "string", "x-expected": EXPECTED });
written_as_text!([] WindowOpening, Self::parse);

/// Parses five fields. `clocks` names the time zone in messages.
fn parse(text: &str, clocks: &str) -> Result<Calendar, Fault> {
    let expected = format!("expected {EXPECTED}, {clocks}");
    let example = "for example `*/5 * * * *`, every five minutes";
    if text.contains('@') {
        return Err(Fault::new(format!("`{text}` is a nickname, {expected}")).hint(example));
    }
    let fields: Vec<&str> = text.split_whitespace().collect();
    if fields.len() != FIELDS.len() {
        let count = match fields.len() {
            1 => "one field".to_owned(),
            count => format!("{count} fields"),
        };
        return Err(Fault::new(format!("`{text}` has {count}, {expected}")).hint(example));
    }
    Calendar::parse(&fields.join(" ")).ok_or_else(|| {
        let is_wrong = |(index, _): &(usize, _)| {
            let mut alone = ["*"; 5];
            alone[*index] = fields[*index];
            Calendar::parse(&alone.join(" ")).is_none()
        };
        match FIELDS.into_iter().enumerate().find(is_wrong) {
            Some((index, (name, range))) => {
                Fault::new(format!("`{text}` has {name} `{}`, expected {range}", fields[index]))
                    .hint("`*`, lists `1,2`, ranges `1-5` and steps `*/5` are known")
            }
            None => never_occurs(text),
        }
    })
}

fn occurs(calendar: &Calendar, now: Timestamp) -> Result<(), Fault> {
    calendar.first_after(now).map_or_else(|| Err(never_occurs(calendar.as_str())), |_| Ok(()))
}

fn never_occurs(text: &str) -> Fault {
    Fault::new(format!("`{text}` never occurs"))
        .hint("no month has that day; where day and weekday are given, both must match")
}
