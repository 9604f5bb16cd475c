//! `kubectl` of the same version as the API server.

use std::ffi::OsStr;
use std::fs::File;
use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;

use super::api_server::ApiServer;
use super::components;
use super::signpost::Finished;

/// `kubectl` as the administrator of one cluster.
pub(crate) struct Kubectl {
    folder: TempDir,
}

impl Kubectl {
    pub(crate) fn of(server: &ApiServer) -> Self {
        let folder = TempDir::new().expect("a temporary folder");
        server.admin_kubeconfig(&folder.path().join("kubeconfig"));
        Self { folder }
    }

    pub(crate) fn run<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Finished {
        self.feed(arguments, "")
    }

    /// As [`Kubectl::run`], with standard input: `-f -`.
    pub(crate) fn feed<A: AsRef<OsStr>>(
        &self,
        arguments: impl IntoIterator<Item = A>,
        input: &str,
    ) -> Finished {
        let stdin = self.path("stdin");
        std::fs::write(&stdin, input).expect("the folder can be written");
        let ran = Command::new(components::path("kubectl"))
            .args(arguments)
            .env_clear()
            // It caches API discovery below its home.
            .env("HOME", self.folder.path())
            .env("KUBECONFIG", self.path("kubeconfig"))
            .stdin(File::open(&stdin).expect("it was just written"))
            .output()
            .expect("kubectl starts");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Finished { code: ran.status.code(), stdout: text(&ran.stdout), stderr: text(&ran.stderr) }
    }

    /// The objects that a command prints with `-o json`, and its other output.
    #[track_caller]
    pub(crate) fn objects<A: AsRef<OsStr>>(
        &self,
        arguments: impl IntoIterator<Item = A>,
    ) -> (Vec<Value>, String) {
        let done = self.run(arguments).expect_code(0);
        let mut list: Value = serde_json::from_str(&done.stdout).expect("JSON");
        let items = match list["items"].take() {
            Value::Array(items) => items,
            _ => vec![list],
        };
        (items, done.stderr)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}
