//! The window in which keys are replaced because of their age.

use jiff::{Timestamp, tz::TimeZone};

use super::{Reported, value};
use crate::{
    config::{
        SourceConfig,
        problem::{Fault, Problems},
        reader::Mapping,
        schedule::calendar,
    },
    core::rotation::Window,
};

pub(super) fn read(
    issuer: &Mapping<'_>,
    sources: &[SourceConfig],
    now: Timestamp,
    problems: &mut Problems,
) -> Result<Option<Window>, Reported> {
    if issuer.get("rotate_within").is_none() {
        return Ok(None);
    }
    let mapping = issuer.mapping("rotate_within", problems).ok_or(Reported)?;
    let opens = mapping.parsed("opens", problems, |text| calendar(text, "in `time_zone`", now));
    let open_for = mapping.duration("for", problems);
    let zone = mapping.parsed("time_zone", problems, time_zone);
    let open_for = open_for.ok_or(Reported)?;
    // The age of a key is checked at each statement of its node.
    let polls = sources.iter().filter_map(|source| match source {
        SourceConfig::Announcements { every, .. } => Some(*every),
        _ => None,
    });
    if let Some(every) = polls.max().filter(|every| open_for <= *every) {
        let (open_for, every) = (value::duration_text(open_for), value::duration_text(every));
        let fault = Fault::new(format!(
            "`{open_for}` is too short, expected more than `{every}`, the time between two polls of `announcements`"
        ));
        mapping.refuse("for", fault.hint("a window that lies between two polls is missed"), problems);
    }
    Ok(Some(Window::new(opens.ok_or(Reported)?, zone.ok_or(Reported)?, open_for)))
}

fn time_zone(name: &str) -> Result<TimeZone, Fault> {
    TimeZone::get(name).map_err(|_| {
        Fault::new(format!(
            "`{name}` is not a time zone of the IANA database, expected one such as `Europe/Amsterdam`"
        ))
        .hint("`UTC` is valid; abbreviations such as `CEST` and offsets are not")
    })
}
