//! The product as an operator runs it: a process with arguments, an environment and outputs.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal};
use tempfile::TempDir;

use super::components::variable;
use super::http_client::Request;
use super::port::Port;
use super::process::{Process, append};

const KILLED_WITHIN: Duration = Duration::from_secs(30);

/// A command line that has not been started.
pub(crate) struct Signpost {
    command: Command,
    folder: TempDir,
}

/// Flags and variables with a service's listen addresses, or with a file that contains them.
const ADDRESSES: [[&str; 2]; 2] =
    [["--listen", "SIGNPOST_LISTEN"], ["--admin-listen", "SIGNPOST_ADMIN_LISTEN"]];
const CONFIGURATION: [&str; 2] = ["--config", "SIGNPOST_CONFIG"];

/// The result of an ended command.
#[derive(Debug)]
pub(crate) struct Finished {
    /// `None` when a signal ended it.
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

pub(crate) struct Running {
    process: Process,
    folder: TempDir,
    _ports: Vec<Port>,
}

const PROGRAM: &str = env!("CARGO_BIN_EXE_signpost");

impl Signpost {
    /// The environment has only `PATH` and an empty `HOME`, which is also the working directory.
    pub(crate) fn new<A: AsRef<OsStr>>(arguments: impl IntoIterator<Item = A>) -> Self {
        Self::started_by(Command::new(PROGRAM), arguments)
    }

    /// The same through another program, which gets this one and its arguments as its last arguments.
    pub(crate) fn within<A: AsRef<OsStr>>(
        mut command: Command,
        arguments: impl IntoIterator<Item = A>,
    ) -> Self {
        command.arg(PROGRAM);
        Self::started_by(command, arguments)
    }

    fn started_by<A: AsRef<OsStr>>(mut command: Command, arguments: impl IntoIterator<Item = A>) -> Self {
        let folder = TempDir::new().expect("a temporary folder");
        let home = folder.path().join("home");
        fs::create_dir(&home).expect("the folder can be written");
        command.args(arguments).env_clear().env("HOME", &home).current_dir(&home);
        command.stdin(Stdio::null());
        if let Some(path) = variable("PATH") {
            command.env("PATH", path);
        }
        Self { command, folder }
    }

    pub(crate) fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    pub(crate) fn current_dir(mut self, folder: &Path) -> Self {
        self.command.current_dir(folder);
        self
    }

    /// Standard input; empty by default.
    pub(crate) fn stdin(mut self, input: impl AsRef<[u8]>) -> Self {
        let file = self.folder.path().join("stdin");
        fs::write(&file, input).expect("the folder can be written");
        self.command.stdin(File::open(&file).expect("it was just written"));
        self
    }

    /// Replaces the default ports of a service, which may be in use.
    fn choose_ports(&mut self) -> Vec<Port> {
        let says = |command: &Command, [flag, variable]: [&str; 2]| {
            command.get_args().any(|argument| argument == flag)
                || command.get_envs().any(|(name, value)| name == variable && value.is_some())
        };
        let runs = self.command.get_args().any(|argument| argument == "run");
        if !runs || says(&self.command, CONFIGURATION) {
            return Vec::new();
        }
        let unsaid = ADDRESSES.into_iter().filter(|address| !says(&self.command, *address));
        let chosen: Vec<_> = unsaid.map(|[_, variable]| (variable, Port::free())).collect();
        self.command.envs(chosen.iter().map(|(variable, port)| (variable, port.address())));
        chosen.into_iter().map(|(_, port)| port).collect()
    }

    pub(crate) fn start(mut self) -> Running {
        let ports = self.choose_ports();
        let output = |name| append(&self.folder.path().join(name));
        self.command.stdout(output(STDOUT)).stderr(output(STDERR));
        let log = self.folder.path().join(STDERR);
        let process = Process::start_as_set_up("signpost", self.command, &log);
        Running { process, folder: self.folder, _ports: ports }
    }

    /// Runs it to its end.
    ///
    /// # Panics
    ///
    /// Panics when it takes longer than `within`.
    #[track_caller]
    pub(crate) fn finish(self, within: Duration) -> Finished {
        self.start().finish(within)
    }
}

impl Running {
    /// Waits until a GET of `url` is answered with 200.
    pub(crate) fn wait_for(&mut self, url: &str) {
        self.process.wait_until_ready(|| Request::get(url).send()?.is_ok());
    }

    /// Waits until stdout or stderr contains `text`.
    pub(crate) fn wait_for_output(&mut self, text: &str) {
        let files = [self.file(STDOUT), self.file(STDERR)];
        self.process.wait_until_ready(|| {
            let said = files.iter().any(|file| read(file).contains(text));
            if said { Ok(()) } else { Err(format!("it has not said `{text}`")) }
        });
    }

    /// Sends SIGTERM, as Kubernetes does.
    pub(crate) fn terminate(&mut self) {
        self.process.signal(Signal::TERM);
    }

    pub(crate) fn kill(&mut self) {
        self.process.signal(Signal::KILL);
        // It holds its locks until it is gone.
        self.process.wait_for_exit(KILLED_WITHIN);
    }

    pub(crate) fn signal(&mut self, signal: Signal) {
        self.process.signal(signal);
    }

    pub(crate) fn pid(&self) -> Pid {
        self.process.pid()
    }

    pub(crate) fn id(&self) -> u32 {
        self.process.id()
    }

    pub(crate) fn is_running(&mut self) -> bool {
        self.process.exit_status().is_none()
    }

    pub(crate) fn stdout(&self) -> String {
        read(&self.file(STDOUT))
    }

    pub(crate) fn stderr(&self) -> String {
        read(&self.file(STDERR))
    }

    /// # Panics
    ///
    /// Panics when it has not ended `within` the time.
    #[track_caller]
    pub(crate) fn finish(mut self, within: Duration) -> Finished {
        let status = self.process.wait_for_exit(within);
        Finished { code: status.code(), stdout: self.stdout(), stderr: self.stderr() }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

impl Finished {
    #[track_caller]
    pub(crate) fn expect_code(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "stdout: {}\nstderr: {}", self.stdout, self.stderr);
        self
    }
}

const STDOUT: &str = "stdout";
const STDERR: &str = "stderr";

fn read(file: &Path) -> String {
    String::from_utf8_lossy(&fs::read(file).unwrap_or_default()).into_owned()
}
