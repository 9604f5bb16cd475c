//! Starts the real components that the tests run against.
//!
//! Every type starts its component in `start`, returns once the component answers, and kills it on drop. The
//! only misbehaviour comes from [`fault_proxy`], a proxy in front of a real component.
//! `tests/components/install` puts the programs where [`components`] finds them. A service that is not
//! available as a program runs [`in_process`], and names the documents that it follows.

pub(crate) mod api_server;
pub(crate) mod azure_client;
pub(crate) mod azurite;
pub(crate) mod child;
pub(crate) mod clock;
pub(crate) mod cluster;
pub(crate) mod components;
pub(crate) mod config_map;
pub(crate) mod connection;
pub(crate) mod control_plane;
pub(crate) mod dice;
pub(crate) mod entra_twin;
pub(crate) mod etcd;
pub(crate) mod eventually;
pub(crate) mod external_signer;
pub(crate) mod fault_proxy;
pub(crate) mod gcs;
pub(crate) mod google_twin;
pub(crate) mod http_client;
pub(crate) mod hung_mount;
pub(crate) mod in_process;
pub(crate) mod installation;
pub(crate) mod kubectl;
pub(crate) mod nginx;
pub(crate) mod pki;
pub(crate) mod pod;
pub(crate) mod port;
pub(crate) mod process;
pub(crate) mod reader;
pub(crate) mod relying_cluster;
pub(crate) mod relying_party;
pub(crate) mod s3;
pub(crate) mod scripted;
pub(crate) mod secrets;
mod selftest;
pub(crate) mod session;
pub(crate) mod signpost;
#[cfg(feature = "pkcs11")]
pub(crate) mod softhsm;
pub(crate) mod sts_twin;
pub(crate) mod tunnel;
pub(crate) mod user;
