//! One binary for all integration tests.

mod architecture;
mod cluster;
mod command_line;
mod config_map;
mod control_plane;
mod credentials;
mod damaged_ledgers;
mod deploy;
mod docs;
mod events;
mod external_signer;
mod former_issuers;
mod generated;
mod image;
mod key_types;
mod kind;
mod listener;
mod many_issuers;
mod misbehaviour;
mod old_kubernetes;
mod outside;
#[cfg(feature = "pkcs11")]
mod pkcs11;
mod quiet_pass;
mod reload;
mod remote_jwks;
mod rotation;
mod secrets;
mod serving;
mod support;
mod target_conformance;
mod targets;
mod tls;
mod two_signposts;
mod wrong_inputs;
