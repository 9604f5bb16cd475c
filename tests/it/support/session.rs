//! A program around a library, which answers each line with a line.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

pub(crate) struct Session {
    name: &'static str,
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
}

impl Session {
    /// Starts `command`, which trusts only the certificates in `ca_file`.
    pub(crate) fn start(name: &'static str, mut command: Command, ca_file: &Path) -> Self {
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
        Self { name, child, stdin, stdout }
    }

    pub(crate) fn ask(&mut self, line: &str) -> String {
        writeln!(self.stdin, "{line}").unwrap_or_else(|error| panic!("{} has ended: {error}", self.name));
        self.next_line()
    }

    pub(crate) fn next_line(&mut self) -> String {
        let mut answer = String::new();
        self.stdout.read_line(&mut answer).expect("it answers in UTF-8");
        assert!(answer.ends_with('\n'), "{} has ended", self.name);
        answer.trim_end().to_owned()
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
