//! One binary for all integration tests.

mod architecture;
mod cluster;
mod command_line;
mod docs;
mod image;
mod kind;
mod support;
mod target_conformance;
mod wrong_inputs;
