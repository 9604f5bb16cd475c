//! Which keys the sources list, when some are silent, lag behind or contradict each other.
//!
//! Why the union, and who is right in a conflict: `docs/decisions/0004`, `docs/decisions/0006`.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use jiff::Timestamp;

use super::{AnnouncementRejection, KeyOwner, Ledger};
use crate::core::{
    jose::{jwk::Jwk, kid::Kid, left_out::Unreadable},
    signer::announcement::{NodeName, SignedAnnouncement, StatementVersion},
};

/// What one source, or one API server of a control plane, said when it was last asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceReport {
    /// The name of the source or API server, unique within its issuer.
    pub source: String,
    pub answer: SourceAnswer,
}

/// The answer of a source. That it failed is not the same as that it has no keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SourceAnswer {
    /// These keys and no others.
    Keys(Vec<Jwk>),
    /// These keys, and some that cannot be read.
    Partly { keys: Vec<Jwk>, unreadable: Unreadable },
    /// What nodes say of their keys.
    Announced(Vec<NodeStatement>),
    /// It could not be reached, or what it said made no sense.
    Failed,
    /// It has not been asked since this process started; or it is not known who else is to be asked.
    NotYetAsked,
}

/// What a node says of its keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeStatement {
    pub posted: SignedAnnouncement,
    /// Its keys that are to be public: all but those whose last token is dead.
    pub owed: BTreeSet<Kid>,
    /// The node signs in this process: it need not prove who it is.
    pub is_own: bool,
}

impl NodeStatement {
    /// `margin` is how far two clocks may be apart.
    #[must_use]
    pub fn new(posted: SignedAnnouncement, now: Timestamp, margin: Duration) -> Self {
        let owed = posted.announcement().listed(now, margin).map(|key| key.jwk.kid().clone()).collect();
        Self { posted, owed, is_own: false }
    }

    #[must_use]
    pub fn node(&self) -> &NodeName {
        self.posted.announcement().node()
    }

    fn at(&self) -> Timestamp {
        self.posted.announcement().version().at
    }

    /// Its keys that are to be public.
    pub fn keys(&self) -> impl Iterator<Item = &Jwk> {
        let keys = self.posted.announcement().keys();
        keys.iter().filter(|(kid, _)| self.owed.contains(*kid)).map(|(_, key)| &key.jwk)
    }
}

impl SourceAnswer {
    /// These keys; and those that cannot be read, if there are any.
    #[must_use]
    pub fn of(keys: Vec<Jwk>, unreadable: Unreadable) -> Self {
        if unreadable.is_empty() { Self::Keys(keys) } else { Self::Partly { keys, unreadable } }
    }

    /// How many keys are listed.
    #[must_use]
    pub fn len(&self) -> usize {
        self.keys().map_or(0, |keys| keys.len())
    }

    /// Whether no key is listed, or nobody knows.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The keys that are listed; `None` where nobody knows.
    #[must_use]
    pub fn keys(&self) -> Option<Vec<&Jwk>> {
        match self {
            Self::Keys(keys) | Self::Partly { keys, .. } => Some(keys.iter().collect()),
            Self::Announced(said) => Some(said.iter().flat_map(NodeStatement::keys).collect()),
            Self::Failed | Self::NotYetAsked => None,
        }
    }
}

/// What the sources say together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Merged {
    /// The union of the accepted answers.
    pub listed: BTreeMap<Kid, Jwk>,
    /// The keys that may be listed and cannot be read.
    pub unreadable: Unreadable,
    /// The nodes that say what they have.
    pub nodes: BTreeMap<NodeName, StatementVersion>,
    /// What they say of their keys.
    pub signers: BTreeMap<Kid, KeyOwner>,
    /// Why announcements do not count.
    pub rejected: Vec<AnnouncementRejection>,
    /// Whether every source answered and was accepted. Only then does a key that nobody lists count as
    /// missing.
    pub complete: bool,
    /// Whether keys may be removed. The caller says no as long as a witness of the ledger, who might tell that
    /// it came from a backup, has not been heard.
    pub may_remove: bool,
    /// Whether nobody can have read a JWKS of this issuer before. The caller says so of an issuer that has no
    /// ledger and whose places were all found empty.
    pub is_beginning: bool,
    /// The sources whose answers were rejected as a whole.
    pub conflicts: Vec<Conflict>,
}

/// A source gave a kid to another key than the rightful one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("kid `{kid}` names two different keys, one from source `{newcomer}`, one from {incumbent}")]
pub struct Conflict {
    pub kid: Kid,
    pub newcomer: String,
    /// In words: another source, or the ledger.
    pub incumbent: String,
}

/// Unites the answers of all sources of one issuer.
///
/// When two different keys claim one kid, the key from which Kubernetes derives that kid is the rightful
/// one; without such a key it is the one in the ledger, then that of the source named first. The answer
/// of the other source is rejected as a whole: its sender cannot be trusted about its other keys either.
/// What the ledger holds of that source stays, because the result is then not complete.
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
    let believed = merged.accept(ledger, reports.clone());
    let mut listed_by: BTreeMap<Kid, &str> = BTreeMap::new();
    for report in reports {
        let keys = match &report.answer {
            SourceAnswer::Announced(said) => {
                let counts = said.iter().filter(|said| believed.get(said.node()) == Some(&said.at()));
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
            for said in said.iter().filter(|said| believed.get(said.node()) == Some(&said.at())) {
                merged.apply(&said.posted);
            }
        }
    }
    merged
}

/// The nodes whose announcements were read, and why some of those do not count.
#[must_use]
pub fn statements<'a>(
    ledger: &Ledger,
    reports: impl IntoIterator<Item = &'a SourceReport>,
) -> BTreeMap<NodeName, Result<(), AnnouncementRejection>> {
    let said = latest(reports);
    said.iter().map(|said| said.node().clone()).zip(ledger.authorize(&said)).collect()
}

/// The last that each node has said: two sources may have copies of different age.
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
    /// The nodes whose announcements count, and of when the one is that does.
    fn accept<'a>(
        &mut self,
        ledger: &Ledger,
        reports: impl Iterator<Item = &'a SourceReport>,
    ) -> BTreeMap<&'a NodeName, Timestamp> {
        let said = latest(reports);
        let mut believed = BTreeMap::new();
        for (said, verdict) in said.iter().zip(ledger.authorize(&said)) {
            match verdict {
                Ok(()) => drop(believed.insert(said.node(), said.at())),
                Err(mistrust) => {
                    // What it would have said nobody knows.
                    self.complete &= mistrust.is_of_unknown_node();
                    self.rejected.push(mistrust);
                }
            }
        }
        believed
    }

    /// The first to claim a key has it: a node speaks of its own keys alone.
    fn apply(&mut self, posted: &SignedAnnouncement) {
        let announcement = posted.announcement();
        let node = announcement.node();
        self.nodes.insert(node.clone(), announcement.version());
        for (kid, key) in announcement.keys() {
            let signer = || KeyOwner { node: node.clone(), stage: key.stage };
            self.signers.entry(kid.clone()).or_insert_with(signer);
        }
    }
}

/// The keys that stand under the kid which Kubernetes derives from them, and a source of each.
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
