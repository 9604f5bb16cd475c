//! Runs the body of a test in a separate process, with a separate environment.

use std::env;
use std::process::Command;

use tempfile::TempDir;

use super::components::variable;

/// Runs `body` in a process with this environment: the process runs this very test again.
///
/// There, a file that exceeds the size limit is an error and does not end the process.
///
/// # Panics
///
/// Panics with the whole output when the body does, or when there is no such test.
#[track_caller]
pub(crate) fn with_environment(test: &str, environment: &[(&str, &str)], body: impl FnOnce()) {
    const CHILD: &str = "SIGNPOST_TEST_CHILD";
    const DONE: &str = "SIGNPOST_TEST_CHILD_DONE";
    if variable(CHILD).is_some_and(|child| child == *test) {
        body();
        std::fs::write(variable(DONE).expect("it is set"), "").expect("the folder can be written");
        return;
    }
    let folder = TempDir::new().expect("a temporary folder");
    let done = folder.path().join("done");
    let this = env::current_exe().expect("the path of this program");
    let child = Command::new("/bin/sh")
        .args(["-c", "trap '' XFSZ; exec \"$0\" \"$@\""])
        .arg(this)
        .args(["--exact", test, "--nocapture"])
        .envs(environment.iter().copied())
        .env(CHILD, test)
        .env(DONE, &done)
        .output()
        .expect("this program starts");
    let said = [child.stdout, child.stderr].map(|said| String::from_utf8_lossy(&said).into_owned());
    // An unknown test name would succeed too.
    assert!(child.status.success() && done.exists(), "{}", said.concat());
}
