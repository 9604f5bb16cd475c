//! The nodes that the operator trusts.

use super::{SignerError, host_name, trust_directory};
use crate::{
    config::NodeConfig,
    core::signer::announcement::{NodeName, SignedAnnouncement},
    signer::trust::TrustStore,
};

/// Checks whether a node can be admitted by its announcement.
///
/// # Errors
///
/// Fails when it is this node or one of another issuer, or when none of its keys has signed the announcement.
pub fn may_admit(config: &NodeConfig, signed: &SignedAnnouncement) -> Result<(), SignerError> {
    let announcement = signed.announcement();
    let own = config.signer.node.clone().map_or_else(host_name, Ok)?;
    if *announcement.node() == own {
        return Err(SignerError::OwnNode { node: own });
    }
    if *announcement.issuer() != config.issuer.issuer {
        let (found, expected) = (announcement.issuer().clone(), config.issuer.issuer.clone());
        return Err(SignerError::OtherIssuer { found, expected });
    }
    let mut kids = announcement.keys().keys();
    match kids.find(|kid| !signed.signed_by().contains(*kid)) {
        Some(kid) => Err(SignerError::Unsigned { node: announcement.node().clone(), kid: kid.clone() }),
        None if announcement.keys().is_empty() => {
            Err(SignerError::NoKeys { node: announcement.node().clone() })
        }
        None => Ok(()),
    }
}

/// Records that the operator trusts a node.
///
/// # Errors
///
/// Fails when the record cannot be written.
pub fn admit(config: &NodeConfig, signed: &SignedAnnouncement) -> Result<(), SignerError> {
    Ok(TrustStore::new(trust_directory(&config.data_dir)).admit(signed)?)
}

/// Removes the operator's trust in a node; returns whether there was any.
///
/// # Errors
///
/// Fails when the change cannot be written.
pub fn expel(config: &NodeConfig, node: &NodeName) -> Result<bool, SignerError> {
    Ok(TrustStore::new(trust_directory(&config.data_dir)).expel(node)?)
}
