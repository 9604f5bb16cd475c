//! Conditions of an issuer, and the alarms that they raise.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use tracing::{error, info};

use crate::core::{
    jose::{issuer::Issuer, kid::Kid, publication::NothingToPublish},
    ledger::{AnnouncementRejection, KeyRefusal, Ledger, merge::Conflict},
    text::Hint,
};

/// How long a problem of a rotation must last before it raises an alarm.
const ALARM_DELAY: Duration = Duration::from_secs(5);

/// Problems found in the merged observations; none of them removes the publication.
#[derive(Clone, Debug, Default)]
pub struct Conditions {
    /// The condition of the ledger.
    pub ledger: Option<String>,
    pub conflicts: Vec<Conflict>,
    /// The announcements that are rejected.
    pub mistrusted: Vec<AnnouncementRejection>,
    pub refused: BTreeMap<Kid, KeyRefusal>,
    /// Which relying parties cannot read the publication, if its profile mixes key types.
    pub breaks: Option<&'static str>,
    pub nothing_to_publish: Option<NothingToPublish>,
}

impl Conditions {
    /// The alarms that they raise with this ledger, in words.
    pub(super) fn alarms(&self, ledger: &Ledger) -> BTreeSet<String> {
        let mut alarms = BTreeSet::from_iter(self.ledger.clone());
        alarms.extend(self.conflicts.iter().map(ToString::to_string));
        // A rejection without a hint, such as of an outdated copy, ends with the next observation.
        let lasting = self.mistrusted.iter().filter(|rejection| rejection.hint().is_some());
        alarms.extend(lasting.map(ToString::to_string));
        alarms.extend(self.refused.iter().map(|(kid, refusal)| match refusal {
            KeyRefusal::Tombstone if ledger.revoked().any(|revoked| revoked == kid) => {
                format!("key `{kid}` was revoked, but a source still lists it: anyone with its private key \
                    can impersonate your workloads there; remove it from the API server and the node that have it")
            }
            KeyRefusal::Tombstone => {
                let argument = kid.as_argument();
                format!("key `{kid}` was removed, but a source lists it again; to publish it, run `signpost \
                    ledger adopt {argument}`")
            }
            KeyRefusal::TooMany => format!("key `{kid}` is not published: the maximum that relying parties \
                read is reached"),
        }));
        alarms.extend(self.nothing_to_publish.iter().map(ToString::to_string));
        alarms
    }
}

/// The raised alarms, each logged when it begins and when it ends.
#[derive(Default)]
pub(super) struct AlarmLog {
    raised: BTreeSet<String>,
    /// The problems of the rotation at the last check, and since when each exists.
    rotation: BTreeMap<String, Instant>,
}

impl AlarmLog {
    /// Returns the raised alarms: the given ones, and the problems of the rotation that have lasted for a
    /// while. During a switch many exist for a moment.
    pub(super) fn update(
        &mut self,
        issuer: &Issuer,
        mut alarms: BTreeSet<String>,
        rotation: Vec<String>,
    ) -> Vec<String> {
        let before = std::mem::take(&mut self.rotation);
        let since = |problem: String| (before.get(&problem).copied().unwrap_or_else(Instant::now), problem);
        self.rotation = rotation.into_iter().map(since).map(|(since, problem)| (problem, since)).collect();
        let lasting = self.rotation.iter().filter(|(_, since)| since.elapsed() >= ALARM_DELAY);
        alarms.extend(lasting.map(|(problem, _)| problem.clone()));
        for alarm in alarms.difference(&self.raised) {
            error!(%issuer, alarm, "alarm");
        }
        for over in self.raised.difference(&alarms) {
            info!(%issuer, alarm = over, "alarm is over");
        }
        self.raised = alarms;
        self.raised.iter().cloned().collect()
    }
}
