//! One binary for all integration tests.

mod cluster;
mod support;
mod target_conformance;
