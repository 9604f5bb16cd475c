//! One binary for all integration tests.

mod misbehaviour;
mod quiet_pass;
mod secrets;
mod serving;
mod support;
mod target_conformance;
mod targets;
mod two_signposts;
