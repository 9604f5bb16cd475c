//! One binary for all integration tests.

mod image;
mod kind;
mod support;
mod target_conformance;
