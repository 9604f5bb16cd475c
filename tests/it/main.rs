//! One binary for all integration tests.

mod support;
mod target_conformance;
mod wrong_inputs;
