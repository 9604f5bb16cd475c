//! One binary for all integration tests.

mod architecture;
mod docs;
mod support;
mod target_conformance;
