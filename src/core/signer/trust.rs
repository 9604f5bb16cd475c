//! The other nodes that a node trusts: its API server accepts their tokens.
//!
//! A trusted node is equivalent to cluster-admin, so nothing from the publisher, the ledger, a target or a
//! source counts here. The operator admits a node by hand, once; from then on its announcements are accepted
//! if a key that was trusted before has signed them, and so are the nodes that it has admitted itself.

use std::collections::{BTreeMap, BTreeSet};

use super::announcement::{MAX_KEYS_PER_NODE, NodeName, SignedAnnouncement};
use crate::core::{
    jose::{issuer::Issuer, kid::Kid},
    text::Hint,
};

/// The nodes that one node trusts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trust {
    /// The announcement of each node at the time when the operator admitted it here.
    pub admitted: BTreeMap<NodeName, SignedAnnouncement>,
    /// The latest accepted announcement of each node.
    pub known: BTreeMap<NodeName, SignedAnnouncement>,
}

/// Why a node rejects an announcement.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum Distrust {
    #[error("node `{node}` is not admitted here, nor by a trusted node")]
    NotAdmitted { node: NodeName },
    #[error("node `{node}` announces keys, but no trusted key signed the announcement")]
    Unproven { node: NodeName },
    /// It may belong to another node.
    #[error("node `{node}` announces key `{kid}`, which did not sign the announcement")]
    Unsigned { node: NodeName, kid: Kid },
    #[error("node `{node}` announces key `{kid}` of node `{owner}`")]
    Taken { node: NodeName, kid: Kid, owner: NodeName },
    #[error("node `{node}` announces keys of issuer `{found}`")]
    OtherIssuer { node: NodeName, found: Issuer },
    #[error("node `{node}` announces {count} keys, a node holds at most {MAX_KEYS_PER_NODE}")]
    TooMany { node: NodeName, count: usize },
}

impl Hint for Distrust {
    fn hint(&self) -> Option<String> {
        match self {
            Self::NotAdmitted { node } => Some(format!(
                "if it is yours: `signpost signer admit announcements/{node}.json`, here or on a node that is trusted"
            )),
            Self::Unproven { node } => Some(format!(
                "if its private keys were lost: `signpost signer expel {node}`, then admit it again"
            )),
            Self::Unsigned { .. } | Self::Taken { .. } | Self::TooMany { .. } => {
                Some("check who writes its announcement".to_owned())
            }
            Self::OtherIssuer { .. } => Some("start both signers with the same issuer".to_owned()),
        }
    }
}

/// The local node.
#[derive(Clone, Copy, Debug)]
pub struct LocalNode<'a> {
    pub node: &'a NodeName,
    pub issuer: &'a Issuer,
    /// The keys that belong to no other node: its own, and the previous ones.
    pub keys: &'a BTreeSet<Kid>,
    /// Keys that must no longer be trusted.
    pub revoked: &'a BTreeSet<Kid>,
}

impl Trust {
    /// The trust after announcements were read, with the reasons why some are rejected.
    #[must_use]
    pub fn update(&self, me: LocalNode<'_>, signed: &[SignedAnnouncement]) -> (Self, Vec<Distrust>) {
        let mut trust = self.clone();
        let admitted = self.admitted.values();
        let heard: Vec<&SignedAnnouncement> =
            signed.iter().chain(admitted).filter(|signed| signed.announcement().node() != me.node).collect();
        loop {
            let news = heard.iter().find(|signed| trust.judge(me, signed) == Ok(true));
            let Some(news) = news else { break };
            trust.known.insert(news.announcement().node().clone(), SignedAnnouncement::clone(news));
        }
        let reachable: BTreeSet<NodeName> = trust.reachable().into_iter().cloned().collect();
        trust.known.retain(|node, _| reachable.contains(node) && node != me.node);
        let distrusted = signed.iter().filter(|signed| signed.announcement().node() != me.node);
        let distrusted = distrusted.filter_map(|signed| trust.judge(me, signed).err()).collect();
        (trust, distrusted)
    }

    /// Whether an acceptable announcement is newer than the known one. A future one is accepted: a node whose
    /// clock was ahead dates each announcement later than the previous one.
    fn judge(&self, me: LocalNode<'_>, signed: &SignedAnnouncement) -> Result<bool, Distrust> {
        let announcement = signed.announcement();
        let (name, at) = (announcement.node(), announcement.version().at);
        let node = || name.clone();
        if !self.reachable().contains(name) {
            return Err(Distrust::NotAdmitted { node: node() });
        }
        if announcement.issuer() != me.issuer {
            return Err(Distrust::OtherIssuer { node: node(), found: announcement.issuer().clone() });
        }
        let known = self.known.get(name);
        if known.is_some_and(|known| at <= known.announcement().version().at) {
            return Ok(false);
        }
        let count = announcement.keys().len();
        if count > MAX_KEYS_PER_NODE {
            return Err(Distrust::TooMany { node: node(), count });
        }
        let mut trusted = self.kids(name);
        trusted.retain(|kid| !me.revoked.contains(kid));
        if !signed.is_signed_by_any(&trusted) {
            return Err(Distrust::Unproven { node: node() });
        }
        for kid in announcement.keys().keys() {
            let is_known = known.is_some_and(|known| known.announcement().keys().contains_key(kid));
            if !is_known && !signed.signed_by().contains(kid) {
                return Err(Distrust::Unsigned { node: node(), kid: kid.clone() });
            }
            let holds = |other: &&SignedAnnouncement| other.announcement().keys().contains_key(kid);
            let mut others = self.known.values().filter(|other| other.announcement().node() != name);
            let owner = others.find(holds).map(|other| other.announcement().node());
            if let Some(owner) = owner.or_else(|| me.keys.contains(kid).then_some(me.node)) {
                return Err(Distrust::Taken { node: node(), kid: kid.clone(), owner: owner.clone() });
            }
        }
        Ok(true)
    }

    /// The kids that identify a node: those of its latest accepted announcement, or of the one that the
    /// operator admitted since. A key that it has destroyed is not among them; it may be found in an old
    /// backup.
    fn kids(&self, node: &NodeName) -> BTreeSet<Kid> {
        let at = |signed: &&SignedAnnouncement| signed.announcement().version().at;
        let said = self.known.get(node).into_iter().chain(self.admitted.get(node)).max_by_key(at);
        let said = said.into_iter();
        let own = said.flat_map(|signed| signed.announcement().keys().keys());
        let vouched = self.known.values().filter_map(|known| known.announcement().admits().get(node));
        own.chain(vouched.flatten()).cloned().collect()
    }

    /// The nodes that were admitted here, or by an admitted node.
    fn reachable(&self) -> BTreeSet<&NodeName> {
        let mut reachable: BTreeSet<&NodeName> = self.admitted.keys().collect();
        loop {
            let vouching = self.known.iter().filter(|(node, _)| reachable.contains(node));
            let vouched = vouching.flat_map(|(_, known)| known.announcement().admits().keys());
            let more: BTreeSet<&NodeName> = reachable.iter().copied().chain(vouched).collect();
            if more.len() == reachable.len() {
                return reachable;
            }
            reachable = more;
        }
    }

    /// Every node that is admitted or known.
    #[must_use]
    pub fn nodes(&self) -> BTreeSet<NodeName> {
        self.admitted.keys().chain(self.known.keys()).cloned().collect()
    }

    /// The nodes that the operator has admitted here, with the latest kids of each.
    #[must_use]
    pub fn admits(&self) -> BTreeMap<NodeName, BTreeSet<Kid>> {
        let kids = |(node, admitted): (&NodeName, &SignedAnnouncement)| {
            let latest = self.known.get(node).unwrap_or(admitted);
            (node.clone(), latest.announcement().keys().keys().cloned().collect())
        };
        self.admitted.iter().map(kids).collect()
    }
}

#[cfg(test)]
mod tests;
