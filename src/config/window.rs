//! The window in which keys are replaced because of their age.

use jiff::Timestamp;

use super::{
    issuer::IssuerConfig,
    problem::{Fault, Problems},
    section::Section,
    source::SourceConfig,
};

/// Checks that it occurs, and that it is not missed between two polls.
pub(super) fn check(config: &IssuerConfig, issuer: &Section<'_>, now: Timestamp, problems: &mut Problems) {
    let (Some(window), Some(at)) = (&config.rotate_within, issuer.section("rotate_within")) else { return };
    if problems.none_at(&at, &["opens"])
        && let Err(fault) = window.opens.check(now)
    {
        at.refuse_key("opens", fault, problems);
    }
    // The age of a key is checked at each statement of its node.
    let polls = config.sources.iter().filter_map(|source| match source {
        SourceConfig::Announcements(source) => Some(source.every),
        _ => None,
    });
    let longest = polls.max_by_key(|every| every.get());
    if let Some(every) = longest.filter(|every| window.open_for.get() <= every.get())
        && problems.none_at(&at, &["for"])
    {
        let fault = Fault::new(format!(
            "`{}` is too short, expected more than `{every}`, the time between two polls of `announcements`",
            window.open_for
        ));
        at.refuse_key("for", fault.hint("a window that lies between two polls is missed"), problems);
    }
}
