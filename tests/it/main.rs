//! One binary for all integration tests.

mod command_line;
mod support;
mod target_conformance;
mod wrong_inputs;
