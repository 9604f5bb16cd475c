//! One binary for all integration tests.

mod cluster;
mod image;
mod kind;
mod support;
mod target_conformance;
