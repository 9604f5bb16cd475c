//! One binary for all integration tests.

mod architecture;
mod cluster;
mod command_line;
mod config_map;
mod credentials;
mod damaged_ledgers;
mod docs;
mod events;
mod former_issuers;
mod image;
mod kind;
mod listener;
mod many_issuers;
mod misbehaviour;
mod outside;
mod quiet_pass;
mod reload;
mod secrets;
mod serving;
mod support;
mod target_conformance;
mod targets;
mod tls;
mod two_signposts;
mod wrong_inputs;
