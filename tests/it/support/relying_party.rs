//! Relying parties that share no code with the product: they know only the issuer.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;
use tempfile::TempDir;

use super::components;

#[derive(Clone, Copy, Debug)]
pub(crate) enum RelyingParty {
    PyJwt,
    Jose,
    GoOidc,
}

impl RelyingParty {
    pub(crate) const ALL: [Self; 3] = [Self::PyJwt, Self::Jose, Self::GoOidc];

    /// The claims of a token that it accepts, or its reason to refuse it.
    ///
    /// `ca_file` has all the certificates it trusts; without one, the issuer is on plain http.
    pub(crate) fn verify(
        self,
        issuer: &str,
        audience: &str,
        ca_file: Option<&Path>,
        token: &str,
    ) -> Result<Value, String> {
        let folder = TempDir::new().expect("a temporary folder");
        let mut child = self
            .command(folder.path())
            .args([issuer, audience])
            .arg(ca_file.unwrap_or(Path::new("-")))
            // Excludes the machine's proxies and added certificates.
            .env_clear()
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{self:?} does not start: {error}"));
        // It may have ended because of its arguments; then its status says so.
        let _ = child.stdin.take().expect("stdin is piped").write_all(token.as_bytes());

        let output = child.wait_with_output().expect("the child is ours to wait for");
        if output.status.success() {
            Ok(serde_json::from_slice(&output.stdout).expect("it prints the claims as JSON"))
        } else {
            Err(String::from_utf8_lossy(&output.stderr).trim().to_owned())
        }
    }

    fn command(self, folder: &Path) -> Command {
        match self {
            Self::PyJwt => components::python("pyjwt_verify.py", "python"),
            Self::Jose => components::node("jose_verify.mjs", "jose", folder),
            Self::GoOidc => Command::new(components::path("go_oidc")),
        }
    }
}
