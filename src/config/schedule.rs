//! Schedules of loops: cron, five fields, UTC (`docs/decisions/0009`).

use std::fmt;

use jiff::Timestamp;

use super::problem::Fault;
use crate::core::calendar::Calendar;

/// The fields of a schedule and their values.
const FIELDS: [(&str, &str); 5] = [
    ("minute", "0 to 59"),
    ("hour", "0 to 23"),
    ("day", "1 to 31"),
    ("month", "1 to 12 or JAN to DEC"),
    ("weekday", "0 to 7 or SUN to SAT"),
];

/// A cron schedule that has a next time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schedule(String);

impl Schedule {
    /// Checks a schedule of five fields, and that it has a time after `now`.
    pub(super) fn parse(text: &str, now: Timestamp) -> Result<Self, Fault> {
        calendar(text, "UTC", now).map(|calendar| Self(calendar.as_str().to_owned()))
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

/// Checks five fields, and that they have a time after `now`. `clocks` names the time zone in messages.
pub(super) fn calendar(text: &str, clocks: &str, now: Timestamp) -> Result<Calendar, Fault> {
    let expected = format!("expected five fields: minute hour day month weekday, {clocks}");
    let example = "for example `*/5 * * * *`, every five minutes";
    if text.contains('@') {
        return Err(Fault::new(format!("`{text}` is a nickname, {expected}")).hint(example));
    }
    let fields: Vec<&str> = text.split_whitespace().collect();
    let [minute, hour, day, month, weekday] = fields[..] else {
        let count = match fields.len() {
            1 => "one field".to_owned(),
            count => format!("{count} fields"),
        };
        return Err(Fault::new(format!("`{text}` has {count}, {expected}")).hint(example));
    };
    for (index, (name, range)) in FIELDS.into_iter().enumerate() {
        let mut alone = ["*"; 5];
        alone[index] = fields[index];
        if Calendar::parse(&alone.join(" ")).is_none() {
            let message = format!("`{text}` has {name} `{}`, expected {range}", fields[index]);
            return Err(Fault::new(message).hint("`*`, lists `1,2`, ranges `1-5` and steps `*/5` are known"));
        }
    }
    let parsed = Calendar::parse(&format!("{minute} {hour} {day} {month} {weekday}"));
    parsed.filter(|calendar| calendar.first_after(now).is_some()).ok_or_else(|| {
        Fault::new(format!("`{text}` never occurs"))
            .hint("no month has that day; where day and weekday are given, both must match")
    })
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
