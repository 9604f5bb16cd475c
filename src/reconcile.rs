//! Reconciliation: observe through an adapter, let core decide, act through an adapter.
//!
//! [`issuer`] owns the state of an issuer, [`source_poll`] observes its sources, [`target_sync`] writes its
//! publication to the targets. [`sync`] does all of it once, [`source_loop`] and [`target_loop`] continuously; [`control_plane`]
//! finds the API servers of a cluster, [`signer_loop`] reconciles a signing node, [`probe`] checks that
//! relying parties accept tokens, [`exchange_probe`] asks Entra, and [`event_loop`] records Kubernetes Events.

pub mod announcement_sync;
pub mod concurrency;
pub mod control_plane;
pub mod document_read;
pub mod event_loop;
pub mod exchange_probe;
pub mod issuer;
pub mod probe;
pub mod signer_loop;
pub mod source_loop;
pub mod source_poll;
pub mod sync;
pub mod target_loop;
pub mod target_sync;

use self::{control_plane::ControlPlane, issuer::Endpoints, source_poll::SourcePoller};
use crate::core::jose::issuer::Issuer;

/// A configured source.
pub enum ConfiguredSource {
    One(SourcePoller),
    Found(ControlPlane),
}

impl ConfiguredSource {
    /// The endpoints of the source before the first poll.
    #[must_use]
    pub fn endpoints(&self) -> Endpoints {
        match self {
            Self::One(asked) => Endpoints { verify: asked.verifies(), ..Endpoints::one(asked.name()) },
            Self::Found(_) => Endpoints { verify: true, ..Endpoints::unknown() },
        }
    }

    /// The endpoints of the source and their pollers, for a single reconciliation.
    pub async fn found(self, issuer: &Issuer) -> (Endpoints, Vec<SourcePoller>) {
        match self {
            Self::One(asked) => (Endpoints::one(asked.name()), vec![asked]),
            Self::Found(plane) => plane.find(issuer).await,
        }
    }
}
