//! What is published, why, and for how long. No I/O, no clock, no randomness, no async.
//!
//! Data flows one way: what the sources said is [`merge`]d, remembered in the [`ledger`], rendered
//! into a [`publication`] and compared with what each place holds ([`placement`]). Time, randomness
//! and the environment are arguments.

pub mod announcement;
pub mod api_server_flags;
pub mod calendar;
pub mod control_plane;
pub mod discovery;
pub mod event;
pub mod event_aggregator;
pub mod flags_in_use;
pub mod freshness;
pub mod issuer;
pub mod json;
pub mod jwk;
pub mod jwk_set;
pub mod kid;
pub mod ledger;
pub mod left_out;
pub mod merge;
pub mod open_files;
pub mod public_key;
pub mod publication;
pub mod redaction;
pub mod rotation;
pub mod service_account;
pub mod signing;
pub mod target_plan;
pub mod text;
pub mod time;
pub mod tls_fault;
pub mod token;
pub mod trust;
pub mod verification;
pub mod workload;

#[cfg(test)]
pub(crate) mod tests;
