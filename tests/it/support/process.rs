//! A component's process: started with a log file, watched until it is ready, killed on drop.

use std::fs::{self, File};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};

// Components answer in 5 s on an idle machine; the tests share it with builds.
const READY_WITHIN: Duration = Duration::from_secs(90);
const POLL_EVERY: Duration = Duration::from_millis(25);
const LOG_TAIL_LINES: usize = 40;

pub(crate) struct Process {
    name: String,
    log: PathBuf,
    child: Child,
    guard: Child,
}

impl Process {
    /// Starts `command` with stdout and stderr appended to `log`.
    pub(crate) fn start(name: &str, mut command: Command, log: &Path) -> Self {
        let output = append(log);
        command
            .stdin(Stdio::null())
            .stdout(output.try_clone().expect("a file handle can be copied"))
            .stderr(output);
        Self::start_as_set_up(name, command, log)
    }

    /// Starts `command` with its own outputs; a panic quotes `log`.
    pub(crate) fn start_as_set_up(name: &str, mut command: Command, log: &Path) -> Self {
        let child =
            command.process_group(0).spawn().unwrap_or_else(|error| panic!("cannot start {name}: {error}"));
        let guard = guard(child.id());
        Self { name: name.to_owned(), log: log.to_owned(), child, guard }
    }

    /// Polls `check` until it succeeds.
    ///
    /// # Panics
    ///
    /// Panics with the end of the log when the process ends first or takes too long.
    pub(crate) fn wait_until_ready(&mut self, mut check: impl FnMut() -> Result<(), String>) {
        let started = Instant::now();
        loop {
            let Err(reason) = check() else { return };
            if let Some(status) = self.exit_status() {
                panic!("{} ended ({status}) before it was ready\n{}", self.name, self.log_tail());
            }
            if started.elapsed() > READY_WITHIN {
                let name = &self.name;
                panic!("{name} is not ready after {READY_WITHIN:?}: {reason}\n{}", self.log_tail());
            }
            thread::sleep(POLL_EVERY);
        }
    }

    pub(crate) fn exit_status(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("the child is ours to wait for")
    }

    /// # Panics
    ///
    /// Panics with the end of the log when the process has not ended `within` the time.
    pub(crate) fn wait_for_exit(&mut self, within: Duration) -> ExitStatus {
        let started = Instant::now();
        loop {
            if let Some(status) = self.exit_status() {
                return status;
            }
            let name = &self.name;
            assert!(started.elapsed() < within, "{name} still runs after {within:?}\n{}", self.log_tail());
            thread::sleep(POLL_EVERY);
        }
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends `signal` to the process and its children.
    pub(crate) fn signal(&mut self, signal: Signal) {
        // After a wait, its ID may belong to another process.
        if self.exit_status().is_none() {
            kill_process_group(group_of(&self.child), signal).expect("the process group is ours");
        }
    }

    pub(crate) fn pid(&self) -> Pid {
        group_of(&self.child)
    }

    pub(crate) fn log_tail(&self) -> String {
        let log = fs::read(&self.log).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let lines = log.lines().collect::<Vec<_>>();
        let tail = &lines[lines.len().saturating_sub(LOG_TAIL_LINES)..];
        format!("--- end of {}\n{}\n---", self.log.display(), tail.join("\n"))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // The group outlives its leader if the leader left children, so it is always killed, and before the
        // wait below releases the ID of the group.
        let _ = kill_process_group(group_of(&self.child), Signal::KILL);
        let _ = self.child.wait();
        let _ = self.guard.kill();
        let _ = self.guard.wait();
    }
}

/// Opens `log` for appending, so that a restart keeps the earlier lines.
pub(crate) fn append(log: &Path) -> File {
    File::options().create(true).append(true).open(log).expect("the log can be written")
}

/// Kills the group when the test process ends without dropping: by a signal, or in a static.
fn guard(group: u32) -> Child {
    Command::new("/bin/sh")
        .args(["-c", "read -r _; kill -s KILL -- \"-$0\"", &group.to_string()])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        // A separate group, or Ctrl-C would end it first.
        .process_group(0)
        .spawn()
        .expect("/bin/sh starts")
}

fn group_of(child: &Child) -> Pid {
    i32::try_from(child.id()).ok().and_then(Pid::from_raw).expect("a child has a process number")
}
