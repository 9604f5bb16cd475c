//! Recurring local times: cron with five fields, without a time zone.

use chrono::{DateTime, Utc};
use croner::{
    Cron,
    parser::{CronParser, Seconds},
};
use jiff::Timestamp;

/// Five fields: minute, hour, day, month, weekday. If day and weekday are both given, both must match.
#[derive(Clone, Debug, PartialEq)]
pub struct Calendar {
    fields: String,
    cron: Cron,
}

// Patterns are sets of integers: each is equal to itself.
impl Eq for Calendar {}

impl Calendar {
    /// Parses five fields exactly as `tokio-cron-scheduler` parses six.
    #[must_use]
    pub fn parse(fields: &str) -> Option<Self> {
        let parser = CronParser::builder().seconds(Seconds::Required).dom_and_dow(true).build();
        let cron = parser.parse(&format!("0 {fields}")).ok()?;
        Some(Self { fields: fields.to_owned(), cron })
    }

    /// The first match after `time`, both in UTC; `None` if there is none.
    #[must_use]
    pub fn first_after(&self, time: Timestamp) -> Option<Timestamp> {
        let time: DateTime<Utc> = DateTime::from_timestamp(time.as_second(), 0)?;
        let next = self.cron.find_next_occurrence(&time, false).ok()?;
        Timestamp::from_second(next.timestamp()).ok()
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.fields
    }
}
