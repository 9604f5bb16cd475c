//! Libraries with which relying parties read a JWKS, each in a long-running process that keeps its cache.
//! Their programs are `tests/components/relying_parties/readers.*` and `tests/components/go-readers`.

use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

use super::components;
use super::session::Session;

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
    session: Session,
    _folder: TempDir,
}

impl Reader {
    /// A reader with an empty cache, which trusts only the certificates in `ca_file`, and accepts tokens for
    /// `audience`.
    pub(crate) fn start(runtime: Runtime, name: &'static str, audience: &str, ca_file: &Path) -> Self {
        let folder = TempDir::new().expect("a temporary folder");
        let mut command = match runtime {
            Runtime::Python => components::python("readers.py", "python"),
            Runtime::Node => components::node("readers.mjs", "jose", folder.path()),
            Runtime::Go if name == "go-oidc" => Command::new(components::path("go_oidc")),
            Runtime::Go => Command::new(components::path("go_readers")),
        };
        if name != "go-oidc" {
            command.arg(name);
        }
        // Excludes the machine's proxies and added certificates.
        command.arg(audience).env_clear();
        Self { name, runtime, session: Session::start(name, command, ca_file), _folder: folder }
    }

    pub(crate) fn name(&self) -> &'static str {
        self.name
    }

    /// The reason to refuse a token of this issuer, if any.
    pub(crate) fn present(&mut self, issuer: &str, token: &str) -> Result<(), String> {
        let answer = self.session.ask(&format!("{issuer} {token}"));
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
        assert_eq!(self.session.ask(&format!("+{seconds}")), "later");
    }
}
