//! etcd on loopback, which several API servers may share.

use std::process::Command;

use tempfile::TempDir;

use super::components;
use super::http_client::Request;
use super::port::Port;
use super::process::Process;

pub(crate) struct Etcd {
    folder: TempDir,
    host: String,
    clients: Port,
    peers: Port,
    process: Option<Process>,
}

impl Etcd {
    pub(crate) fn start() -> Self {
        Self::start_at("127.0.0.1")
    }

    /// Listens for clients at an address of this network namespace.
    pub(crate) fn start_at(host: &str) -> Self {
        let mut etcd = Self {
            host: host.to_owned(),
            folder: TempDir::new().expect("a temporary folder"),
            clients: Port::free(),
            peers: Port::free(),
            process: None,
        };
        etcd.restart();
        etcd
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}:{}", self.host, self.clients.number())
    }

    /// Kills it; data and port stay for [`Etcd::restart`].
    pub(crate) fn stop(&mut self) {
        self.process = None;
    }

    pub(crate) fn restart(&mut self) {
        self.stop();
        let url = self.url();
        let mut command = Command::new(components::path("etcd"));
        command.arg("--data-dir").arg(self.folder.path().join("data")).args([
            &format!("--listen-client-urls={url}"),
            &format!("--advertise-client-urls={url}"),
            &format!("--listen-peer-urls=http://{}", self.peers.address()),
            "--log-level=warn",
            // The data need not survive a power failure.
            "--unsafe-no-fsync=true",
        ]);
        let mut process = Process::start("etcd", command, &self.folder.path().join("etcd.log"));
        process.wait_until_ready(|| Request::get(&format!("{url}/health")).send()?.is_ok());
        self.process = Some(process);
    }
}
