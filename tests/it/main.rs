//! One binary for all integration tests.

mod kind;
mod support;
mod target_conformance;
