//! How to reach an API server of Kubernetes: kubeconfig or pod, credentials, time limits, refusals.
//!
//! What is asked, and what an answer means, is for the edges that use it.

mod connection;
mod error;
pub mod events;
mod kubeconfig;
mod watch;
pub mod workloads;

pub use self::{connection::Access, error::KubernetesError};
pub(crate) use self::{
    connection::{Answer, Connection, Request},
    error::{hint_for_credential, refused_user},
    watch::{Collection, Kept, Sight},
};
