//! A file system that does not answer, like a network share whose server is gone: FUSE without a daemon.

use std::path::Path;
use std::process::Command;

/// Mounts, leaves a child that keeps the device open, and executes the given program.
const SCRIPT: &str = r#"
import ctypes, os, signal, sys
folder, program = sys.argv[1], sys.argv[2:]
device = os.open("/dev/fuse", os.O_RDWR)
options = f"fd={device},rootmode=40000,user_id={os.getuid()},group_id={os.getgid()}"
libc = ctypes.CDLL(None, use_errno=True)
if libc.mount(b"hung", folder.encode(), b"fuse", 0, options.encode()) != 0:
    sys.exit("cannot mount FUSE here: " + os.strerror(ctypes.get_errno()))
if os.fork() == 0:
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    while True:
        signal.pause()
os.execv(program[0], program)
"#;

/// A command for a program for which `folder` hangs; other processes are not affected.
pub(crate) fn hangs(folder: &Path) -> Command {
    let mut command = Command::new("unshare");
    command.arg("--mount");
    // An unprivileged user is root within its own user namespace.
    if !rustix::process::geteuid().is_root() {
        command.arg("--map-root-user");
    }
    command.args(["python3", "-c", SCRIPT]).arg(folder);
    command
}
