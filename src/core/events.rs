//! Kubernetes Events: what is worth one, and which are sent.

pub mod aggregator;
pub mod event;
