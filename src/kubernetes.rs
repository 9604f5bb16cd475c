//! Access to a Kubernetes API server: kubeconfig or pod, credentials, time limits, refusals.
//!
//! The callers define the requests and interpret the answers.

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
    watch::{Collection, Projection, WatchState},
};
