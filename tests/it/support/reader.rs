//! Libraries with which relying parties read a JWKS, each in a long-running process that keeps its cache.
//! Their programs are `tests/components/relying_parties/readers.*` and `tests/components/go-readers`.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use tempfile::TempDir;

use super::components;

/// The language of a library, which decides how to run it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Runtime {
    Python,
    Node,
    Go,
}

pub(crate) struct Reader {
    name: &'static str,
    runtime: Runtime,
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
    _folder: TempDir,
}

impl Reader {
    /// A reader with an empty cache, which trusts only the certificates in `ca_file`, and accepts tokens for
    /// `audience`.
    pub(crate) fn start(runtime: Runtime, name: &'static str, audience: &str, ca_file: &Path) -> Self {
        let folder = TempDir::new().expect("a temporary folder");
        let sources = components::sources().join("relying_parties");
        let mut command = match runtime {
            Runtime::Python => {
                let mut command = Command::new(components::path("python"));
                command.arg(sources.join("readers.py")).arg(name);
                command
            }
            Runtime::Node => {
                // Node resolves a module's imports next to the module.
                let program = folder.path().join("readers.mjs");
                fs::copy(sources.join("readers.mjs"), &program).expect("it can be copied");
                symlink(components::path("jose"), folder.path().join("node_modules")).expect("a new name");
                let mut command = Command::new(components::path("node"));
                command.arg(program).arg(name);
                command
            }
            Runtime::Go if name == "go-oidc" => Command::new(components::path("go_oidc")),
            Runtime::Go => {
                let mut command = Command::new(components::path("go_readers"));
                command.arg(name);
                command
            }
        };
        // Excludes the machine's proxies and added certificates.
        command.arg(audience).env_clear();
        for variable in ["SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "NODE_EXTRA_CA_CERTS"] {
            command.env(variable, ca_file);
        }
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{name} does not start: {error}"));
        let stdin = child.stdin.take().expect("stdin is piped");
        let stdout = BufReader::new(child.stdout.take().expect("stdout is piped"));
        Self { name, runtime, child, stdin, stdout, _folder: folder }
    }

    pub(crate) fn name(&self) -> &'static str {
        self.name
    }

    /// The reason to refuse a token of this issuer, if any.
    pub(crate) fn present(&mut self, issuer: &str, token: &str) -> Result<(), String> {
        let answer = self.ask(&format!("{issuer} {token}"));
        if let Some(why) = answer.strip_prefix("refused ") {
            return Err(why.to_owned());
        }
        assert_eq!(answer, "accepted", "{}", self.name);
        Ok(())
    }

    /// Whether its clock can be advanced: Go reads the time directly from the kernel.
    pub(crate) fn has_a_clock(&self) -> bool {
        self.runtime != Runtime::Go
    }

    /// Advances its clock.
    pub(crate) fn later(&mut self, seconds: u32) {
        assert_eq!(self.ask(&format!("+{seconds}")), "later");
    }

    fn ask(&mut self, line: &str) -> String {
        writeln!(self.stdin, "{line}").unwrap_or_else(|error| panic!("{} has ended: {error}", self.name));
        let mut answer = String::new();
        self.stdout.read_line(&mut answer).expect("it answers in UTF-8");
        assert!(answer.ends_with('\n'), "{} has ended", self.name);
        answer.trim_end().to_owned()
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
