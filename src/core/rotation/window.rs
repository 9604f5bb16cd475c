//! The maintenance window: when a key may be replaced because of its age.

use std::time::Duration;

use jiff::{
    Timestamp,
    civil::DateTime,
    tz::{AmbiguousOffset, TimeZone},
};

use crate::core::calendar::Calendar;

/// Opens at calendar times, for a fixed duration.
///
/// A pure function of the time: nothing has to happen at the moment at which it opens, so a late or repeated
/// check gives the same result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Window {
    opens: Calendar,
    zone: TimeZone,
    open_for: Duration,
}

impl Window {
    /// `opens` is local time in `zone`. A local time that is skipped in spring maps to the moment of the
    /// change; one that is repeated in autumn to its first occurrence.
    #[must_use]
    pub fn new(opens: Calendar, zone: TimeZone, open_for: Duration) -> Self {
        Self { opens, zone, open_for }
    }

    /// The first moment from `time` on at which it is open: `time` itself if it is open then. `None`: never
    /// again.
    #[must_use]
    pub fn open_from(&self, time: Timestamp) -> Option<Timestamp> {
        // Whatever opened before this is closed again.
        let past = time.checked_sub(self.open_for).unwrap_or(Timestamp::MIN);
        let mut wall = as_utc(self.zone.to_datetime(past));
        loop {
            wall = self.opens.first_after(wall)?;
            let opening = self.moment(TimeZone::UTC.to_datetime(wall))?;
            // In the repeated hour of autumn, openings of the first pass are in the past.
            if opening > past {
                return Some(opening.max(time));
            }
        }
    }

    /// When local clocks show a time. Never earlier for a later one.
    fn moment(&self, wall: DateTime) -> Option<Timestamp> {
        let at = match self.zone.to_ambiguous_timestamp(wall).offset() {
            AmbiguousOffset::Unambiguous { offset } | AmbiguousOffset::Fold { before: offset, .. } => {
                offset.to_timestamp(wall)
            }
            AmbiguousOffset::Gap { after, .. } => {
                let before = after.to_timestamp(wall).ok()?;
                return self.zone.following(before).next().map(|moved| moved.timestamp());
            }
        };
        at.ok()
    }

    #[must_use]
    pub fn opens(&self) -> &Calendar {
        &self.opens
    }

    /// The IANA name of the zone.
    #[must_use]
    pub fn zone(&self) -> &str {
        self.zone.iana_name().unwrap_or("UTC")
    }

    #[must_use]
    pub fn open_for(&self) -> Duration {
        self.open_for
    }
}

/// Interprets a local time as UTC, which shows every time once.
fn as_utc(wall: DateTime) -> Timestamp {
    TimeZone::UTC.to_timestamp(wall).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests;
