//! The announcement of a signing node: its keys and their stages.
//!
//! A node announces a key as active before it signs with it, and as retired only after it has stopped. So
//! after any crash, an announcement never lists fewer keys than are needed (`docs/decisions/0027`).

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    str::FromStr,
    time::Duration,
};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

mod signed;

pub use self::signed::{AnnouncementSigner, InvalidSignedAnnouncement, SignedAnnouncement};
use crate::core::{
    jose::{
        issuer::Issuer,
        jwk::Jwk,
        kid::Kid,
        stored::{self, InvalidDocument},
    },
    text::redaction::brief,
    time::later,
};

const ANNOUNCEMENT: &str = "announcement";
/// See [`stored::read`].
const NAMES_OF_VERSION_1: &[(&str, &str)] = &[
    ("word", "statement"),
    ("statement.heard", "observed_order"),
    ("keys.*.withdrawn", "excluded_from_discovery"),
];
/// Most keys that a node holds at once. Whoever can write orders can make a node retire key after key; a JWKS
/// for Microsoft Entra has room for 100 keys of all nodes.
pub const MAX_KEYS_PER_NODE: usize = 32;
/// Longest name of a node: that of a DNS subdomain (RFC 1123), as Kubernetes names nodes, less the room for
/// `.json` in file names of 255 bytes.
const MAX_NAME: usize = 250;

/// The name of a signing machine, unique within its issuer: the Kubernetes name of the node, if it has one.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String")]
pub struct NodeName(String);

impl NodeName {
    /// Parses a name that a Kubernetes node could have.
    ///
    /// # Errors
    ///
    /// Fails if it is not a DNS subdomain (RFC 1123): lower-case letters, digits, `-` and `.`, at most 250.
    pub fn parse(text: &str) -> Result<Self, InvalidNodeName> {
        let is_label = |label: &str| {
            !label.is_empty()
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        };
        if text.len() <= MAX_NAME && text.split('.').all(is_label) {
            Ok(Self(text.to_owned()))
        } else {
            Err(InvalidNodeName { name: brief(text).into_owned() })
        }
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for NodeName {
    type Err = InvalidNodeName;

    fn from_str(text: &str) -> Result<Self, InvalidNodeName> {
        Self::parse(text)
    }
}

impl TryFrom<String> for NodeName {
    type Error = InvalidNodeName;

    fn try_from(text: String) -> Result<Self, InvalidNodeName> {
        Self::parse(&text)
    }
}

impl fmt::Display for NodeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The text is not the name of a node.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
#[error("`{name}` is not a node name, expected lower-case letters, digits, `-` and `.`")]
pub struct InvalidNodeName {
    name: String,
}

/// The stage of a key, by the statement of its node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Stage {
    /// It was created and has signed nothing.
    Standby { since: Timestamp },
    /// It may sign; announced just before its first signature.
    Active { since: Timestamp },
    /// It signs no more. It still could: the private key exists.
    Retired {
        since: Timestamp,
        /// The latest `exp` of a token that it signed for external audiences; `None` if there is none.
        latest_exp: Option<Timestamp>,
    },
}

impl Stage {
    /// When the stage began.
    #[must_use]
    pub fn since(self) -> Timestamp {
        match self {
            Self::Standby { since } | Self::Active { since } | Self::Retired { since, .. } => since,
        }
    }

    /// The name of the stage, for metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Standby { .. } => "standby",
            Self::Active { .. } => "active",
            Self::Retired { .. } => "retired",
        }
    }

    /// When no live token needs the key in public any more, if known.
    #[must_use]
    pub fn unneeded_after(self, margin: Duration) -> Option<Timestamp> {
        match self {
            Self::Standby { .. } | Self::Active { .. } => None,
            Self::Retired { since, latest_exp } => {
                Some(later(latest_exp.unwrap_or(since).max(since), margin))
            }
        }
    }
}

/// A public key of a node, and its stage.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AnnouncedKey {
    pub jwk: Jwk,
    pub stage: Stage,
    /// Only tokens for API servers need it: they verify with it, and exclude it from their JWKS.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub excluded_from_discovery: bool,
}

/// The version of a node's statement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StatementVersion {
    /// When the node made it: later than all its earlier announcements.
    pub at: Timestamp,
    /// The time of the latest order that the node has processed: it has followed it, or never will.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_order: Option<Timestamp>,
}

/// What a node states about its keys. It holds public keys only.
///
/// Invariant: each key is stored under its kid.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Announcement {
    version: u32,
    node: NodeName,
    issuer: Issuer,
    statement: StatementVersion,
    /// The nodes that the operator has admitted on this one, and the kids that identify them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    admits: BTreeMap<NodeName, BTreeSet<Kid>>,
    keys: BTreeMap<Kid, AnnouncedKey>,
}

impl Announcement {
    #[must_use]
    pub fn new(
        node: NodeName,
        issuer: Issuer,
        word: StatementVersion,
        keys: impl IntoIterator<Item = AnnouncedKey>,
    ) -> Self {
        let keys = keys.into_iter().map(|key| (key.jwk.kid().clone(), key)).collect();
        Self { version: stored::VERSION, node, issuer, statement: word, admits: BTreeMap::new(), keys }
    }

    /// This announcement, with the nodes that this one admits.
    #[must_use]
    pub fn admitting(self, admits: BTreeMap<NodeName, BTreeSet<Kid>>) -> Self {
        Self { admits, ..self }
    }

    /// Reads a stored announcement.
    ///
    /// # Errors
    ///
    /// Fails if a newer version wrote it or if it is damaged.
    pub fn parse(bytes: &[u8]) -> Result<Self, InvalidDocument> {
        let announcement: Self = stored::read(ANNOUNCEMENT, bytes, NAMES_OF_VERSION_1)?;
        stored::check_kids(ANNOUNCEMENT, announcement.keys.iter().map(|(kid, key)| (kid, &key.jwk)))?;
        Ok(announcement)
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

    #[must_use]
    pub fn version(&self) -> StatementVersion {
        self.statement
    }

    #[must_use]
    pub fn keys(&self) -> &BTreeMap<Kid, AnnouncedKey> {
        &self.keys
    }

    /// The nodes that the operator has admitted on this one, and the kids that identify them.
    #[must_use]
    pub fn admits(&self) -> &BTreeMap<NodeName, BTreeSet<Kid>> {
        &self.admits
    }

    /// Whether both are equal apart from their time.
    #[must_use]
    pub fn content_eq(&self, other: &Self) -> bool {
        let word = StatementVersion { at: other.statement.at, ..self.statement };
        Self { statement: word, ..self.clone() } == *other
    }

    /// The keys that belong in the publication: all but those whose last token has expired.
    pub fn listed(&self, now: Timestamp, margin: Duration) -> impl Iterator<Item = &AnnouncedKey> {
        let is_owed =
            move |key: &&AnnouncedKey| key.stage.unneeded_after(margin).is_none_or(|dead| now < dead);
        self.keys.values().filter(is_owed)
    }
}

#[cfg(test)]
mod tests;
