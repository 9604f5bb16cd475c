//! Conditions of an issuer: shown in its status, and logged when they begin and when they end.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use tracing::{error, info};

use super::{IssuerReconciler, SourceObservations};
use crate::{
    clock,
    core::{
        jose::{kid::Kid, publication::NothingToPublish},
        ledger::{AnnouncementRejection, KeyRefusal, merge::Conflict},
        rotation::{alarms, rotation_status},
        text::redaction::error_line,
    },
    store::StoreError,
    telemetry::as_typed,
};

/// Problems found in the merged observations; none of them removes the publication.
#[derive(Clone, Debug, Default)]
pub struct Conditions {
    /// The condition of the ledger.
    pub ledger: Option<String>,
    pub conflicts: Vec<Conflict>,
    /// The announcements that are rejected.
    pub mistrusted: Vec<AnnouncementRejection>,
    pub refused: BTreeMap<Kid, KeyRefusal>,
    /// Which relying parties the publication breaks, for a profile that mixes key types.
    pub breaks: Option<&'static str>,
    pub nothing_to_publish: Option<NothingToPublish>,
}

impl IssuerReconciler {
    /// Logs that the ledger could not be stored, once for each reason.
    pub fn log_store_error(&self, error: &StoreError) {
        let issuer = &self.spec.terms.issuer;
        let (hint, error) = (error.hint().map(|hint| as_typed(&hint)), error_line(error));
        self.status.issuer(issuer, |status| status.ledger.error = Some(error.clone()));
        if self.store_trouble.lock().expect("nobody panics while holding it").record_failure(&error) {
            error!(%issuer, error, hint, "ledger not stored, the publication is unchanged");
        }
    }

    /// Updates the rotation status; returns the alarms of the rotation.
    fn rotation_alarms(&self, heard: &SourceObservations) -> Vec<String> {
        let ledger = Arc::clone(&self.ledger.borrow());
        // Most issuers have no signing node.
        if ledger.entries().values().all(|entry| entry.signer.is_none()) {
            return Vec::new();
        }
        let (now, timing) = (clock::now(), &self.spec.timing);
        let seen = self.rotation_inputs(&ledger, heard, now);
        let nodes = rotation_status(&ledger, &seen, now, timing).nodes;
        self.status.issuer(&self.spec.terms.issuer, |status| status.nodes = nodes);
        alarms(&ledger, &seen, now, timing)
    }

    /// Updates the alarms in the status, and logs when they begin and when they end.
    pub(super) fn update_conditions(&self, heard: &mut SourceObservations, concerns: &Conditions) {
        let issuer = &self.spec.terms.issuer;
        let mut wrong = BTreeSet::new();
        let ledger = self.ledger.borrow().clone();
        wrong.extend(self.ledger.borrow().alarm(clock::now()));
        wrong.extend(concerns.conflicts.iter().map(ToString::to_string));
        // A rejection without a hint, such as of an outdated copy, ends with the next observation.
        let lasting = concerns.mistrusted.iter().filter(|mistrust| mistrust.hint().is_some());
        wrong.extend(lasting.map(ToString::to_string));
        wrong.extend(concerns.refused.iter().map(|(kid, refusal)| match refusal {
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
        wrong.extend(concerns.nothing_to_publish.iter().map(ToString::to_string));
        let rotation = self.rotation_alarms(heard);
        wrong.extend(heard.lasting_alarms(rotation));
        let disagreeing = heard.disagreeing(clock::now(), self.spec.retention.margin);
        wrong.extend(
            disagreeing.map(|name| format!("the clocks of this machine and of source `{name}` disagree")),
        );
        for alarm in wrong.difference(&heard.alarms) {
            error!(%issuer, alarm, "alarm");
        }
        for over in heard.alarms.difference(&wrong) {
            info!(%issuer, alarm = over, "alarm is over");
        }
        self.status.issuer(issuer, |status| status.alarms = wrong.iter().cloned().collect());
        heard.alarms = wrong;
    }
}
