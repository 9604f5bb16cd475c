//! One binary for all integration tests.

mod cluster;
mod command_line;
mod image;
mod kind;
mod support;
mod target_conformance;
mod wrong_inputs;
