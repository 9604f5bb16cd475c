//! The decisions of one signing node: which keys it holds, what it does next, and what it may sign.
//!
//! [`Journal`] is the journal of its keyring and holds public data only. [`Journal::next_step`] decides what
//! to do, [`Journal::after`] records that it was done, and [`Journal::decide`] chooses the key that may sign
//! a token. A step is recorded and announced before any signature relies on it (`docs/decisions/0028`).

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

pub mod announcement;
mod recovery;
mod signing_decision;
mod socket_name;
mod step;
pub mod trust;
mod verification_set;

pub use self::{
    announcement::MAX_KEYS_PER_NODE,
    recovery::RecoveryFinding,
    signing_decision::{Claims, SigningDecision, SigningRefusal, UnreadableClaims, latest_possible_exp},
    socket_name::{InvalidSocketName, SocketName},
    step::{Done, OutOfOrder, RefusedOrder, SignerStep},
    verification_set::VerificationKey,
};
use super::{
    jose::{
        issuer::Issuer,
        jwk::{Algorithm, Jwk},
        kid::Kid,
        stored::{self, InvalidDocument},
    },
    signer::{
        announcement::{AnnouncedKey, Announcement, NodeName, Stage, StatementVersion},
        trust::Trust,
    },
};

const JOURNAL: &str = "journal";
/// See [`stored::read`].
const NAMES_OF_VERSION_1: &[(&str, &str)] = &[
    ("heard", "observed_order"),
    ("said", "announced_at"),
    ("legacy", "additional_keys"),
    ("keys.*.outside", "external_audiences"),
    ("keys.*.horizon", "latest_exp_bound"),
    ("keys.*.internal_horizon", "latest_internal_exp_bound"),
    ("keys.*.withdrawn", "excluded_from_discovery"),
];

/// The publisher's desired state of one node. The node follows it or refuses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DesiredState {
    /// The key to sign with, for external audiences too.
    pub sign: Option<Kid>,
    /// When that was ordered: a node that has followed a later order does not go back.
    pub at: Timestamp,
    /// Keys that must no longer be trusted.
    pub revoked: BTreeSet<Kid>,
    /// When the operator stated that the node is gone: its earlier statements are rejected.
    pub forgotten: Option<Timestamp>,
    /// Time of the node's latest accepted announcement: earlier ones are rejected.
    pub announced: Option<Timestamp>,
}

/// The type of the keys that a node creates: the algorithm, and for RSA the length of the modulus.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum KeyType {
    /// The type that the tools of Kubernetes create.
    #[default]
    #[serde(rename = "rs256-2048")]
    Rsa2048,
    #[serde(rename = "rs256-3072")]
    Rsa3072,
    #[serde(rename = "rs256-4096")]
    Rsa4096,
    /// ECDSA on P-256. Microsoft Entra rejects its tokens.
    #[serde(rename = "es256")]
    P256,
}

impl KeyType {
    pub const ALL: [Self; 4] = [Self::Rsa2048, Self::Rsa3072, Self::Rsa4096, Self::P256];

    /// The signature algorithm of this type.
    #[must_use]
    pub fn algorithm(self) -> Algorithm {
        match self {
            Self::Rsa2048 | Self::Rsa3072 | Self::Rsa4096 => Algorithm::RS256,
            Self::P256 => Algorithm::ES256,
        }
    }

    /// Whether Microsoft Entra accepts tokens signed with a key of this type.
    #[must_use]
    pub fn suits_entra(self) -> bool {
        self.algorithm() == Algorithm::RS256
    }

    /// The name in the configuration.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Rsa2048 => "rs256-2048",
            Self::Rsa3072 => "rs256-3072",
            Self::Rsa4096 => "rs256-4096",
            Self::P256 => "es256",
        }
    }
}

/// A key of this node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JournalKey {
    pub jwk: Jwk,
    pub stage: Stage,
    /// It was ordered to sign: it may sign for external audiences.
    pub external_audiences: bool,
    /// Upper bound of `exp` over the tokens it signed for external audiences. `None`: it signed none.
    pub latest_exp_bound: Option<Timestamp>,
    /// The same bound for tokens for the API server only.
    pub latest_internal_exp_bound: Option<Timestamp>,
    /// No live token for external audiences needs it: the API server verifies with it, but does not show it
    /// in its JWKS.
    pub excluded_from_discovery: bool,
    /// Its private key is gone: it can sign no more.
    pub lost: bool,
}

/// A previous key, or one of another node: the API server verifies with it, this node does not sign with it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VerificationOnlyKey {
    pub jwk: Jwk,
    /// Only tokens for the API server need it.
    pub exclude: bool,
}

/// The journal of a keyring.
///
/// Invariant: each key is stored under its kid; the signing key is active, and its private key exists.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Journal {
    version: u32,
    node: NodeName,
    issuer: Issuer,
    /// The key that signs. Another one may still be active until it is stopped.
    signing: Option<Kid>,
    /// The time of the latest order that was processed: followed, or refused permanently.
    observed_order: Option<Timestamp>,
    /// When the announcement last changed; increases with every change.
    announced_at: Timestamp,
    keys: BTreeMap<Kid, JournalKey>,
    additional_keys: Vec<VerificationOnlyKey>,
    /// The keys of the nodes that this one trusts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    trusted: Vec<VerificationOnlyKey>,
    /// The nodes that the operator has admitted here, and the kids that identify them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    admits: BTreeMap<NodeName, BTreeSet<Kid>>,
    /// When the verification set last changed; increases with every change.
    changed: Timestamp,
}

impl Journal {
    /// The journal of a node that has no key yet.
    #[must_use]
    pub fn new(node: NodeName, issuer: Issuer, now: Timestamp) -> Self {
        Self {
            version: stored::VERSION,
            node,
            issuer,
            signing: None,
            observed_order: None,
            announced_at: now,
            keys: BTreeMap::new(),
            additional_keys: Vec::new(),
            trusted: Vec::new(),
            admits: BTreeMap::new(),
            changed: now,
        }
    }

    /// Reads a stored journal.
    ///
    /// # Errors
    ///
    /// Fails if a newer version wrote it or if it is damaged.
    pub fn parse(bytes: &[u8]) -> Result<Self, InvalidDocument> {
        let journal: Self = stored::read(JOURNAL, bytes, NAMES_OF_VERSION_1)?;
        stored::check_kids(JOURNAL, journal.keys.iter().map(|(kid, held)| (kid, &held.jwk)))?;
        match &journal.signing {
            Some(kid) if !journal.can_sign(kid) => {
                let reason = format!("key `{kid}` signs, but is not active");
                Err(InvalidDocument::damaged(JOURNAL, &reason))
            }
            _ => Ok(journal),
        }
    }

    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        stored::to_json(self)
    }

    #[must_use]
    pub fn node(&self) -> &NodeName {
        &self.node
    }

    #[must_use]
    pub fn issuer(&self) -> &Issuer {
        &self.issuer
    }

    /// The key that signs.
    #[must_use]
    pub fn signing(&self) -> Option<&Kid> {
        self.signing.as_ref()
    }

    /// The time of the latest order that was processed.
    #[must_use]
    pub fn observed_order(&self) -> Option<Timestamp> {
        self.observed_order
    }

    #[must_use]
    pub fn keys(&self) -> &BTreeMap<Kid, JournalKey> {
        &self.keys
    }

    /// When the verification set last changed.
    #[must_use]
    pub fn changed(&self) -> Timestamp {
        self.changed
    }

    /// The announcement of this node.
    #[must_use]
    pub fn announcement(&self) -> Announcement {
        let Self { node, issuer, observed_order: heard, announced_at: said, .. } = self.clone();
        let announced = |held: &JournalKey| {
            let JournalKey { jwk, stage, excluded_from_discovery: withdrawn, .. } = held.clone();
            AnnouncedKey { jwk, stage, excluded_from_discovery: withdrawn }
        };
        let keys = self.keys.values().map(announced);
        Announcement::new(node, issuer, StatementVersion { at: said, observed_order: heard }, keys)
            .admitting(self.admits.clone())
    }

    /// This journal with other previous keys.
    #[must_use]
    pub fn with_additional_keys(&self, legacy: Vec<VerificationOnlyKey>, now: Timestamp) -> Self {
        let mut next = self.clone();
        next.additional_keys = legacy;
        next.dated(self, now)
    }

    /// This journal with the keys of the nodes in `trust`.
    #[must_use]
    pub fn with_trust(&self, trust: &Trust, now: Timestamp) -> Self {
        let mut next = self.clone();
        let keys = trust.known.values().flat_map(|known| known.announcement().keys().values());
        let verified = |key: &AnnouncedKey| VerificationOnlyKey {
            jwk: key.jwk.clone(),
            exclude: key.excluded_from_discovery,
        };
        (next.trusted, next.admits) = (keys.map(verified).collect(), trust.admits());
        next.dated(self, now)
    }

    /// The kids of the keys that belong to no other node: its own, and the previous ones.
    #[must_use]
    pub fn own_kids(&self) -> BTreeSet<Kid> {
        let legacy = self.additional_keys.iter().map(|legacy| legacy.jwk.kid());
        self.keys.keys().chain(legacy).cloned().collect()
    }

    fn can_sign(&self, kid: &Kid) -> bool {
        self.keys.get(kid).is_some_and(|held| matches!(held.stage, Stage::Active { .. }) && !held.lost)
    }

    /// Updates the times of the verification set and of the announcement if, and only if, those changed.
    fn dated(mut self, before: &Self, now: Timestamp) -> Self {
        if !self.announcement().content_eq(&before.announcement()) {
            self.announced_at = now.max(before.announced_at + step::MIN_STATEMENT_INTERVAL);
        }
        let nobody = BTreeSet::new();
        if self.verification_set(&nobody) != before.verification_set(&nobody) {
            // Keeps two changes within a second apart, and those after a clock was set back.
            self.changed = now.max(before.changed + Duration::from_millis(1));
        }
        self
    }
}

#[cfg(test)]
mod tests;
