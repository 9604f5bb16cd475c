//! Publishes, rotates and verifies the service-account issuer of any Kubernetes cluster.
//!
//! [`core`] decides; [`source`], [`target`], [`store`], [`kubernetes`], [`http`], [`signer`],
//! [`relying_party`] and [`token_endpoint`] do the I/O; [`reconcile`] connects the two. [`app`] is the only module that constructs
//! components. `docs/architecture.md` defines which module may import which, and a test enforces it;
//! `docs/decisions` has the reasons.

pub mod announcements;
pub mod app;
pub mod azure;
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
pub mod token_endpoint;
