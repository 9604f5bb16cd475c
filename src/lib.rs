//! Publishes, rotates and verifies the service-account issuer of any Kubernetes cluster.
//!
//! [`core`] decides, the edges ([`source`], [`target`], [`store`], [`events`], [`http`], [`signer`],
//! [`relying_party`], [`workloads`]) do, and
//! [`workflow`] goes between them. [`app`] is the only place that constructs edges. Who may import
//! whom stands in `docs/architecture.md` and is a test; why it is so, in `docs/decisions`.

pub mod app;
pub mod blocking;
pub mod cli;
pub mod clock;
pub mod config;
pub mod control;
pub mod core;
pub mod files;
pub mod http;
pub mod http_client;
pub mod kubernetes;
pub mod reconcile;
pub mod relying_party;
pub mod signer;
pub mod source;
pub mod store;
pub mod target;
pub mod telemetry;
