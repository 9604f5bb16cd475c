//! What is wrong with what an issuer is kept by: on the board, and in the log when it begins and when it is over.

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
    },
    reconcile::source_poll::in_one_line,
    store::StoreError,
    telemetry::as_typed,
};

/// What is wrong with what the sources said together; nothing of it takes the publication down.
#[derive(Clone, Debug, Default)]
pub struct Conditions {
    /// What is wrong with the ledger.
    pub ledger: Option<String>,
    pub conflicts: Vec<Conflict>,
    /// Announcements that do not count.
    pub mistrusted: Vec<AnnouncementRejection>,
    pub refused: BTreeMap<Kid, KeyRefusal>,
    /// Whom the publication breaks, for a profile that mixes types of keys.
    pub breaks: Option<&'static str>,
    pub nothing_to_publish: Option<NothingToPublish>,
}

impl IssuerReconciler {
    /// Logs that the ledger could not be stored, once for each reason.
    pub fn log_store_error(&self, error: &StoreError) {
        let issuer = &self.spec.terms.issuer;
        let (hint, error) = (error.hint().map(|hint| as_typed(&hint)), in_one_line(error));
        self.board.issuer(issuer, |status| status.ledger.error = Some(error.clone()));
        if self.store_trouble.lock().expect("nobody panics while holding it").is_news(&error) {
            error!(%issuer, error, hint, "ledger not stored, the publication is unchanged");
        }
    }

    /// Puts the rotation on the board; returns what is wrong with it.
    fn rotation_alarms(&self, heard: &SourceObservations) -> Vec<String> {
        let ledger = Arc::clone(&self.ledger.borrow());
        // Most issuers have no node that obeys.
        if ledger.entries().values().all(|entry| entry.signer.is_none()) {
            return Vec::new();
        }
        let (now, timing) = (clock::now(), &self.spec.timing);
        let seen = self.rotation_inputs(&ledger, heard, now);
        let nodes = rotation_status(&ledger, &seen, now, timing).nodes;
        self.board.issuer(&self.spec.terms.issuer, |status| status.nodes = nodes);
        alarms(&ledger, &seen, now, timing)
    }

    /// Puts what is wrong on the board, and logs when it begins and when it is over.
    pub(super) fn update_conditions(&self, heard: &mut SourceObservations, concerns: &Conditions) {
        let issuer = &self.spec.terms.issuer;
        let mut wrong = BTreeSet::new();
        let ledger = self.ledger.borrow().clone();
        wrong.extend(self.ledger.borrow().alarm(clock::now()));
        wrong.extend(concerns.conflicts.iter().map(ToString::to_string));
        // One that was overtaken on its way is over with the next look.
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
        self.board.issuer(issuer, |status| status.alarms = wrong.iter().cloned().collect());
        heard.alarms = wrong;
    }
}
