//! Flags and their environment variables, as clap reads them.

use std::process::Command;

use clap::Parser;

use crate::config::Flags;

#[derive(Debug, Parser)]
struct Cli {
    #[command(flatten)]
    flags: Flags,
}

/// Distinguishes the child process from its parent.
const CHILD: &str = "SIGNPOST_TEST_IS_A_CHILD";

/// A test cannot safely set a variable of its own process, so it runs itself again.
#[test]
#[expect(clippy::disallowed_methods, reason = "only the environment tells the child from its parent")]
fn flags_go_before_the_environment() {
    if std::env::var_os(CHILD).is_some() {
        return flags_are_read_in_the_environment_of_the_child();
    }
    let test = std::env::current_exe().expect("a test is a program");
    let output = Command::new(test)
        .args(["--exact", "config::tests::environment::flags_go_before_the_environment"])
        .envs([
            (CHILD, "yes"),
            ("SIGNPOST_LISTEN", "127.0.0.1:1"),
            ("SIGNPOST_ADMIN_LISTEN", "127.0.0.1:2"),
            ("SIGNPOST_SOURCE", "kubernetes,/a"),
            ("SIGNPOST_TARGET", "/b"),
            ("SIGNPOST_CONFIG", "/c.yaml"),
        ])
        .output()
        .expect("runs");
    let shown = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && shown.contains("1 passed"), "{shown}");
}

fn flags_are_read_in_the_environment_of_the_child() {
    let Cli { flags } =
        Cli::parse_from(["signpost", "--listen", "127.0.0.1:9", "--target", "/x", "--target", "/y,/z"]);
    assert_eq!(Some("127.0.0.1:9"), flags.listen.as_deref(), "flag");
    assert_eq!(super::texts(&["/x", "/y", "/z"]), flags.targets, "flag");
    assert_eq!(Some("127.0.0.1:2"), flags.admin_listen.as_deref(), "environment");
    assert_eq!(super::texts(&["kubernetes", "/a"]), flags.keys.sources, "environment");
    assert_eq!(Some("/c.yaml".into()), flags.keys.config, "environment");
}

#[test]
fn every_flag_has_a_variable_of_its_name() {
    let command = <Cli as clap::CommandFactory>::command();
    command.clone().debug_assert();
    for argument in command.get_arguments().filter(|argument| argument.get_long() != Some("help")) {
        let flag = argument.get_long().expect("all are long");
        let variable = format!("SIGNPOST_{}", flag.replace('-', "_").to_uppercase());
        assert_eq!(Some(variable.as_ref()), argument.get_env(), "--{flag}");
    }
}
