//! Kubernetes Events: which changes cause one, and which are sent.

pub mod aggregator;
pub mod event;
