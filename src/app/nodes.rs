//! The node that signs in this process, if an issuer has one.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::Arc,
};

use tokio::task::spawn_blocking;
use tracing::warn;

use crate::{
    clock,
    config::{IssuerConfig, SourceConfig},
    core::{
        announcement::NodeName,
        signing::{Orders, RsaSize, Surprise},
    },
    signer::{KeyringError, Node, NodeError, node::Settings},
};

/// What the node of the embedded keyring is called: it has no other one beside it.
const EMBEDDED_NODE: &str = "embedded";

/// Where the keyring of this machine is, below the data directory.
pub(super) const KEYRING: &str = "keys";

/// Where nodes announce their keys.
pub(super) fn announcements(data_dir: &Path) -> PathBuf {
    data_dir.join("announcements")
}

/// How an issuer signs itself; `None`: others sign.
pub(super) fn settings(issuer: &IssuerConfig, data_dir: &Path) -> Option<Settings> {
    issuer.sources.contains(&SourceConfig::Embedded).then(|| Settings {
        node: NodeName::parse(EMBEDDED_NODE).expect("a valid name"),
        issuer: issuer.issuer.clone(),
        keyring: data_dir.join(KEYRING),
        announcements: announcements(data_dir),
        api_audiences: BTreeSet::from([issuer.issuer.to_string()]),
        max_token_lifetime: issuer.max_token_lifetime,
        margin: issuer.margin,
        size: RsaSize::default(),
        legacy: Vec::new(),
    })
}

/// Opens a keyring and tells what is not as its journal says.
pub(super) async fn open(settings: Settings) -> Result<Arc<Node>, NodeError> {
    let opening = spawn_blocking(move || Node::open(settings, clock::now()));
    let (node, surprises) = opening.await.expect("opening a keyring does not panic")?;
    let Settings { node: name, issuer, .. } = node.settings();
    for surprise in surprises {
        match surprise {
            Surprise::Unrecorded { kid } => {
                warn!(%issuer, node = %name, %kid, "a private key of which nothing is recorded signs no more");
            }
            Surprise::Lost { kid } => warn!(%issuer, node = %name, %kid, "a private key is gone"),
        }
    }
    Ok(Arc::new(node))
}

/// Makes the keys of a node that has none, for a process that ends: a service that runs does so itself.
pub(super) async fn open_once(settings: Settings) -> Result<(), NodeError> {
    match open(settings).await {
        Err(NodeError::Keyring(KeyringError::Held { .. })) => Ok(()),
        Err(error) => Err(error),
        Ok(node) => {
            // What was ordered is on its disk; nothing is decided here.
            let tending = spawn_blocking(move || node.tend(&Orders::default(), clock::now()));
            tending.await.expect("tending does not panic").map(drop)
        }
    }
}
