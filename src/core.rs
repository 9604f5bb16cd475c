//! Decides what is published, why, and for how long. No I/O, no clock, no randomness, no async.
//!
//! Data flows one way: the keys that the sources list are merged, recorded in the [`ledger`], rendered into a
//! [`publication`](jose::publication) and compared with the contents of each target ([`target_plan`]). Time,
//! randomness and the environment are arguments.

pub mod api_server_flags;
pub mod calendar;
pub mod control_plane;
pub mod entra;
pub mod events;
pub mod federation;
pub mod freshness;
pub mod jose;
pub mod ledger;
pub mod location;
pub mod open_files;
pub mod rotation;
pub mod service_account;
pub mod signer;
pub mod sts;
pub mod target_plan;
pub mod text;
pub mod time;
pub mod tls_fault;
pub mod verification;
pub mod workload;

#[cfg(test)]
pub(crate) mod tests;
