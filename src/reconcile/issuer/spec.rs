//! The specification of an issuer.

use std::collections::BTreeSet;

use crate::core::{
    jose::{
        issuer::Issuer,
        jwk_set::Profile,
        publication::{NothingToPublish, Publication, Terms},
    },
    ledger::{Ledger, Retention},
    rotation::Timing,
};

/// The name of the HTTP listener as a target in the ledger.
pub(super) const LISTENER_TARGET: &str = "http";

/// The specification of an issuer; constant while the process runs.
#[derive(Clone, Debug)]
pub struct IssuerSpec {
    pub terms: Terms,
    /// The previous issuers that were moved to this one.
    pub previous_issuers: Vec<Issuer>,
    /// The profile of the served documents.
    pub profile: Profile,
    pub retention: Retention,
    /// The names of all targets. Each is read once before a key is removed: it may carry a later ledger
    /// revision.
    pub targets: BTreeSet<String>,
    /// The targets that must show a key before it signs.
    pub required_targets: BTreeSet<String>,
    /// The waits of a rotation.
    pub timing: Timing,
    /// Whether this process serves the documents: then its listener is a target too.
    pub serves_documents: bool,
    /// Whether keys come from signing nodes: those of a new issuer need no propagation wait if nothing was
    /// published.
    pub has_signers: bool,
}

impl IssuerSpec {
    /// The targets that must show a key before it signs, the listener included.
    pub(super) fn all_required_targets(&self) -> BTreeSet<String> {
        let own = self.serves_documents.then(|| LISTENER_TARGET.to_owned());
        self.required_targets.iter().cloned().chain(own).collect()
    }

    pub(super) fn render(&self, ledger: &Ledger) -> Result<Publication, NothingToPublish> {
        Publication::render(&self.terms, self.profile, ledger.public_keys().cloned())
    }
}
