//! Which announcements the publisher accepts.
//!
//! The keys of an accepted announcement are published, and every relying party trusts them. So a known node
//! must sign with one of its known keys, and a new node must be admitted by an accepted one. Only the first
//! nodes of an issuer are accepted without proof.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use super::{Ledger, source_answer::NodeStatement};
use crate::core::{jose::kid::Kid, signer::announcement::NodeName, text::Hint};

/// Why an announcement is rejected.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq, PartialOrd, Ord)]
pub enum AnnouncementRejection {
    /// An outdated copy.
    #[error("the statement of node `{node}` of {at} is outdated, the latest one is of {known}")]
    Outdated { node: NodeName, at: Timestamp, known: Timestamp },
    #[error("node `{node}` was forgotten at {gone}, but its earlier announcement is still there")]
    Forgotten { node: NodeName, gone: Timestamp },
    /// Its disk was lost, or it is impersonated.
    #[error("node `{node}` announces keys, but none of its known keys signed the announcement")]
    Unproven { node: NodeName },
    #[error("node `{node}` announces keys, but no node has admitted it")]
    NotAdmitted { node: NodeName },
}

impl AnnouncementRejection {
    /// Whether no key of the node is known, so that rejecting its announcement makes no key missing.
    #[must_use]
    pub fn is_of_unknown_node(&self) -> bool {
        matches!(self, Self::NotAdmitted { .. } | Self::Forgotten { .. })
    }
}

impl Hint for AnnouncementRejection {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Outdated { .. } => None,
            Self::Forgotten { .. } => Some("remove its announcement".to_owned()),
            Self::Unproven { node } => Some(format!(
                "if its private keys were lost: `signpost rotate forget {node}`, and admit it on another node"
            )),
            Self::NotAdmitted { node } => Some(format!(
                "on a node that signs already: `signpost signer admit announcements/{node}.json`"
            )),
        }
    }
}

impl Ledger {
    /// Accepts or rejects each announcement, in the given order.
    #[must_use]
    pub fn authorize(&self, said: &[&NodeStatement]) -> Vec<Result<(), AnnouncementRejection>> {
        let known = self.known_nodes();
        let mut verdicts: Vec<_> = said.iter().map(|said| self.authorize_one(said, &known)).collect();
        // An admitted node may have admitted others.
        loop {
            let accepted = || said.iter().zip(&verdicts).filter(|(_, verdict)| verdict.is_ok());
            let is_vouched_for = |candidate: &NodeStatement| {
                accepted().any(|(said, _)| {
                    let admits = said.signed.announcement().admits().get(candidate.node());
                    admits.is_some_and(|kids| candidate.signed.is_signed_by_any(kids))
                })
            };
            let admitted = said.iter().zip(&verdicts).position(|(candidate, verdict)| {
                matches!(verdict, Err(AnnouncementRejection::NotAdmitted { .. })) && is_vouched_for(candidate)
            });
            match admitted {
                Some(admitted) => verdicts[admitted] = Ok(()),
                None => return verdicts,
            }
        }
    }

    fn authorize_one(
        &self,
        said: &NodeStatement,
        known: &BTreeMap<&NodeName, BTreeSet<Kid>>,
    ) -> Result<(), AnnouncementRejection> {
        let (node, signed) = (said.node(), &said.signed);
        let at = signed.announcement().version().at;
        if let Some(word) = self.last_statements.get(node).filter(|word| at < word.at) {
            return Err(AnnouncementRejection::Outdated { node: node.clone(), at, known: word.at });
        }
        if let Some(gone) = self.forgotten.get(node).filter(|gone| at <= **gone)
            && signed.is_signed_by_any(&self.kids_of(node))
        {
            return Err(AnnouncementRejection::Forgotten { node: node.clone(), gone: *gone });
        }
        match known.get(node) {
            _ if said.is_own => Ok(()),
            Some(kids) if signed.is_signed_by_any(kids) => Ok(()),
            Some(_) => Err(AnnouncementRejection::Unproven { node: node.clone() }),
            None if known.is_empty() => Ok(()),
            None => Err(AnnouncementRejection::NotAdmitted { node: node.clone() }),
        }
    }

    /// The kids of each node that is not forgotten.
    fn known_nodes(&self) -> BTreeMap<&NodeName, BTreeSet<Kid>> {
        let signers = self.keys.values().filter(|entry| entry.is_public()).filter_map(|entry| {
            let node = &entry.signer.as_ref()?.node;
            (!self.forgotten.contains_key(node)).then_some(node)
        });
        let nodes: BTreeSet<&NodeName> = signers.collect();
        nodes.into_iter().map(|node| (node, self.kids_of(node))).collect()
    }

    /// The kids of the public keys of a node.
    fn kids_of(&self, node: &NodeName) -> BTreeSet<Kid> {
        self.keys_of(node).into_iter().map(|(kid, ..)| kid.clone()).collect()
    }
}

#[cfg(test)]
mod tests;
