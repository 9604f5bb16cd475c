//! One binary for all integration tests.

mod architecture;
mod cluster;
mod command_line;
mod docs;
mod events;
mod image;
mod kind;
mod misbehaviour;
mod quiet_pass;
mod secrets;
mod serving;
mod support;
mod target_conformance;
mod targets;
mod two_signposts;
mod wrong_inputs;
