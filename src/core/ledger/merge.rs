//! Merges the keys that the sources list, when some are silent, lag behind or contradict each other.
//!
//! Why the union, and who is right in a conflict: `docs/decisions/0004`, `docs/decisions/0006`.

use std::collections::BTreeMap;

use jiff::Timestamp;

pub use super::source_answer::{Conflict, Merged, NodeStatement, SourceAnswer, SourceReport};
use super::{AnnouncementRejection, KeyOwner, Ledger};
use crate::core::{
    jose::{jwk::Jwk, kid::Kid, left_out::Unreadable},
    signer::announcement::{NodeName, SignedAnnouncement},
};

/// Merges the answers of all sources of one issuer.
///
/// If two different keys claim one kid, the canonical key is the one from which Kubernetes derives that kid;
/// if there is none, the one in the ledger; otherwise that of the source named first. The answer of the other
/// source is rejected as a whole: its other keys cannot be trusted either. What the ledger holds of that
/// source stays, because the result is then not complete.
#[must_use]
pub fn merge<'a>(
    ledger: &Ledger,
    reports: impl IntoIterator<Item = &'a SourceReport, IntoIter: Clone>,
) -> Merged {
    let reports = reports.into_iter();
    let mut merged = Merged {
        listed: BTreeMap::new(),
        unreadable: Unreadable::default(),
        nodes: BTreeMap::new(),
        signers: BTreeMap::new(),
        rejected: Vec::new(),
        complete: true,
        may_remove: true,
        is_beginning: false,
        conflicts: Vec::new(),
    };
    let rightful = canonical(reports.clone());
    let accepted = merged.accept(ledger, reports.clone());
    let mut listed_by: BTreeMap<Kid, &str> = BTreeMap::new();
    for report in reports {
        let keys = match &report.answer {
            SourceAnswer::Announced(said) => {
                let counts = said.iter().filter(|said| accepted.get(said.node()) == Some(&said.at()));
                Some(counts.flat_map(NodeStatement::keys).collect())
            }
            answer => answer.keys(),
        };
        let Some(keys): Option<Vec<&Jwk>> = keys else {
            merged.complete = false;
            continue;
        };
        let conflict = keys.iter().copied().find_map(|key| {
            let kid = key.kid();
            let (known, incumbent) = if let Some((source, rightful)) = rightful.get(kid) {
                (*rightful, format!("source `{source}`"))
            } else if let Some(recorded) = ledger.key(kid) {
                (recorded, "the ledger".to_owned())
            } else {
                (merged.listed.get(kid)?, format!("source `{}`", listed_by[kid]))
            };
            let conflict = Conflict { kid: kid.clone(), newcomer: report.source.clone(), incumbent };
            (known != key).then_some(conflict)
        });
        if let Some(conflict) = conflict {
            merged.complete = false;
            merged.conflicts.push(conflict);
            continue;
        }
        if let SourceAnswer::Partly { unreadable, .. } = &report.answer {
            merged.unreadable.extend(unreadable);
        }
        for key in keys {
            listed_by.entry(key.kid().clone()).or_insert(&report.source);
            merged.listed.insert(key.kid().clone(), key.clone());
        }
        if let SourceAnswer::Announced(said) = &report.answer {
            for said in said.iter().filter(|said| accepted.get(said.node()) == Some(&said.at())) {
                merged.apply(&said.signed);
            }
        }
    }
    merged
}

/// The nodes whose announcements were read, each with its acceptance or rejection.
#[must_use]
pub fn statements<'a>(
    ledger: &Ledger,
    reports: impl IntoIterator<Item = &'a SourceReport>,
) -> BTreeMap<NodeName, Result<(), AnnouncementRejection>> {
    let said = latest(reports);
    said.iter().map(|said| said.node().clone()).zip(ledger.authorize(&said)).collect()
}

/// The latest statement of each node: two sources may have copies of different age.
fn latest<'a>(reports: impl IntoIterator<Item = &'a SourceReport>) -> Vec<&'a NodeStatement> {
    let said = reports.into_iter().flat_map(|report| match &report.answer {
        SourceAnswer::Announced(said) => said.as_slice(),
        _ => &[],
    });
    let mut latest: BTreeMap<&NodeName, &NodeStatement> = BTreeMap::new();
    for said in said {
        let known = latest.entry(said.node()).or_insert(said);
        if known.at() < said.at() {
            *known = said;
        }
    }
    latest.into_values().collect()
}

impl Merged {
    /// The nodes whose announcements are accepted, with the time of the accepted one.
    fn accept<'a>(
        &mut self,
        ledger: &Ledger,
        reports: impl Iterator<Item = &'a SourceReport>,
    ) -> BTreeMap<&'a NodeName, Timestamp> {
        let said = latest(reports);
        let mut accepted = BTreeMap::new();
        for (said, verdict) in said.iter().zip(ledger.authorize(&said)) {
            match verdict {
                Ok(()) => drop(accepted.insert(said.node(), said.at())),
                Err(mistrust) => {
                    // The keys that a rejected announcement would list are unknown.
                    self.complete &= mistrust.is_of_unknown_node();
                    self.rejected.push(mistrust);
                }
            }
        }
        accepted
    }

    /// Applies an announcement. The first to claim a key owns it: a node can only speak for its own keys.
    fn apply(&mut self, signed: &SignedAnnouncement) {
        let announcement = signed.announcement();
        let node = announcement.node();
        self.nodes.insert(node.clone(), announcement.version());
        for (kid, key) in announcement.keys() {
            let signer = || KeyOwner { node: node.clone(), stage: key.stage };
            self.signers.entry(kid.clone()).or_insert_with(signer);
        }
    }
}

/// The keys stored under the kid that Kubernetes derives from them, each with a source.
fn canonical<'a>(reports: impl Iterator<Item = &'a SourceReport>) -> BTreeMap<&'a Kid, (&'a str, &'a Jwk)> {
    let mut rightful = BTreeMap::new();
    for report in reports {
        let keys = report.answer.keys().unwrap_or_default().into_iter();
        for key in keys.filter(|key| key.has_derived_kid()) {
            rightful.entry(key.kid()).or_insert((report.source.as_str(), key));
        }
    }
    rightful
}

#[cfg(test)]
mod tests;
