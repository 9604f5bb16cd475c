//! A twin of a service that exchanges tokens: a program in Python with what it knows, which tests can change.

use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;

use super::components;
use super::http_client::Request;
use super::port::Port;
use super::process::Process;

pub(crate) struct StsTwin {
    port: Port,
    _process: Process,
    _folder: TempDir,
}

impl StsTwin {
    /// Starts a program of `tests/components/relying_parties`.
    pub(crate) fn start(program: &str, world: &Value) -> Self {
        let folder = TempDir::new().expect("a temporary folder");
        let port = Port::free();
        let file = folder.path().join("world.json");
        std::fs::write(&file, world.to_string()).expect("the folder can be written");
        let path = components::sources().join("relying_parties").join(program);
        let mut command = Command::new(components::path("python"));
        // Excludes the machine's proxies and added certificates.
        command.env_clear().env("PYTHONDONTWRITEBYTECODE", "1");
        command.arg(path).arg(port.number().to_string()).arg(file);
        let mut process = Process::start(program, command, &folder.path().join("log"));
        let url = format!("http://{}/world", port.address());
        process.wait_until_ready(|| Request::get(&url).send()?.is_ok());
        Self { port, _process: process, _folder: folder }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.port.address())
    }

    pub(crate) fn world(&self) -> Value {
        Request::get(&format!("{}/world", self.url())).answer().expect_status(200).json()
    }

    /// Changes what the twin knows.
    pub(crate) fn change(&self, change: impl FnOnce(&mut Value)) {
        let mut world = self.world();
        change(&mut world);
        let url = format!("{}/world", self.url());
        Request::new("PUT", &url).body(world.to_string()).answer().expect_status(200);
    }
}
