//! What the sources answer, each for itself and merged.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use jiff::Timestamp;

use super::{AnnouncementRejection, KeyOwner};
use crate::core::{
    jose::{jwk::Jwk, kid::Kid, left_out::Unreadable},
    signer::announcement::{NodeName, SignedAnnouncement, StatementVersion},
    text::Hint,
};

/// The latest answer of one source, or of one API server of a control plane.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceReport {
    /// Name of the source or API server, unique within its issuer.
    pub source: String,
    pub answer: SourceAnswer,
}

/// The answer of a source. A failure is not an empty list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SourceAnswer {
    /// These keys and no others.
    Keys(Vec<Jwk>),
    /// These keys, and some that are unreadable.
    Partly { keys: Vec<Jwk>, unreadable: Unreadable },
    /// The statements of nodes about their keys.
    Announced(Vec<NodeStatement>),
    /// It was unreachable, or its answer was invalid.
    Failed,
    /// It has not been polled since this process started, or the list of endpoints to poll is not known yet.
    NotYetAsked,
}

/// What a node states about its keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeStatement {
    pub signed: SignedAnnouncement,
    /// Its keys that belong in the publication: all but those whose last token has expired.
    pub owed: BTreeSet<Kid>,
    /// The node signs in this process: it needs no proof of identity.
    pub is_own: bool,
}

impl NodeStatement {
    /// `margin` is the largest tolerated clock skew.
    #[must_use]
    pub fn new(signed: SignedAnnouncement, now: Timestamp, margin: Duration) -> Self {
        let owed = signed.announcement().listed(now, margin).map(|key| key.jwk.kid().clone()).collect();
        Self { signed, owed, is_own: false }
    }

    #[must_use]
    pub fn node(&self) -> &NodeName {
        self.signed.announcement().node()
    }

    pub(super) fn at(&self) -> Timestamp {
        self.signed.announcement().version().at
    }

    /// Its keys that belong in the publication.
    pub fn keys(&self) -> impl Iterator<Item = &Jwk> {
        let keys = self.signed.announcement().keys();
        keys.iter().filter(|(kid, _)| self.owed.contains(*kid)).map(|(_, key)| &key.jwk)
    }
}

impl SourceAnswer {
    /// An answer with these keys, and with the unreadable ones if there are any.
    #[must_use]
    pub fn of(keys: Vec<Jwk>, unreadable: Unreadable) -> Self {
        if unreadable.is_empty() { Self::Keys(keys) } else { Self::Partly { keys, unreadable } }
    }

    /// Number of listed keys.
    #[must_use]
    pub fn len(&self) -> usize {
        self.keys().map_or(0, |keys| keys.len())
    }

    /// Whether no key is listed, or the list is unknown.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The listed keys; `None` if the list is unknown.
    #[must_use]
    pub fn keys(&self) -> Option<Vec<&Jwk>> {
        match self {
            Self::Keys(keys) | Self::Partly { keys, .. } => Some(keys.iter().collect()),
            Self::Announced(said) => Some(said.iter().flat_map(NodeStatement::keys).collect()),
            Self::Failed | Self::NotYetAsked => None,
        }
    }
}

/// The merged answers of all sources.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Merged {
    /// The union of the accepted answers.
    pub listed: BTreeMap<Kid, Jwk>,
    /// Keys that may be listed but are unreadable.
    pub unreadable: Unreadable,
    /// The nodes whose announcements are accepted.
    pub nodes: BTreeMap<NodeName, StatementVersion>,
    /// What these nodes state about their keys.
    pub signers: BTreeMap<Kid, KeyOwner>,
    /// The announcements that are rejected, and why.
    pub rejected: Vec<AnnouncementRejection>,
    /// Whether every source answered and was accepted. Only then does a key that no source lists count as
    /// missing.
    pub complete: bool,
    /// Whether keys may be removed. The caller clears it until every target has been observed that could show
    /// that the ledger was restored from a backup.
    pub may_remove: bool,
    /// Whether no relying party can have read a JWKS of this issuer before. The caller sets it for an issuer
    /// that has no ledger and whose targets were all found empty.
    pub is_beginning: bool,
    /// The sources whose answers were rejected as a whole.
    pub conflicts: Vec<Conflict>,
}

/// A source uses a kid for another key than the canonical one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("kid `{kid}` names two different keys, one from source `{newcomer}`, one from {incumbent}")]
pub struct Conflict {
    pub kid: Kid,
    pub newcomer: String,
    /// Another source, or the ledger, in words.
    pub incumbent: String,
}

impl Hint for Conflict {
    fn hint(&self) -> Option<String> {
        Some("find out which of the two sources is wrong; its keys are ignored until it is fixed".to_owned())
    }
}
