//! The maintenance window: when a key may be replaced because of its age.

use std::time::Duration;

use jiff::{
    Timestamp,
    civil::DateTime,
    tz::{AmbiguousOffset, TimeZone},
};

use crate::core::calendar::Calendar;

/// Opens at times of a calendar, for a while.
///
/// A pure function of the time: nothing has to happen at the moment at which it opens, so a look that comes late or
/// twice is as good as any.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Window {
    opens: Calendar,
    zone: TimeZone,
    open_for: Duration,
}

impl Window {
    /// `opens` is read on the wall clocks of `zone`. A time that they leave out in spring is the moment at which they
    /// are moved; one that they show twice in autumn is the first of both.
    #[must_use]
    pub fn new(opens: Calendar, zone: TimeZone, open_for: Duration) -> Self {
        Self { opens, zone, open_for }
    }

    /// The first moment at which it is open, from `time` on: `time` itself if it is open then. `None`: never again.
    #[must_use]
    pub fn open_from(&self, time: Timestamp) -> Option<Timestamp> {
        // Whatever opened before this is closed again.
        let past = time.checked_sub(self.open_for).unwrap_or(Timestamp::MIN);
        let mut wall = as_utc(self.zone.to_datetime(past));
        loop {
            wall = self.opens.first_after(wall)?;
            let opening = self.moment(TimeZone::UTC.to_datetime(wall))?;
            // In the hour that wall clocks show a second time, openings of the first are behind us.
            if opening > past {
                return Some(opening.max(time));
            }
        }
    }

    /// When wall clocks show a time. Never earlier for a later one.
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

/// A time without a zone as if its clock were that of UTC, which shows every time once.
fn as_utc(wall: DateTime) -> Timestamp {
    TimeZone::UTC.to_timestamp(wall).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests;
