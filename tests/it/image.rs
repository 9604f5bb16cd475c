//! Checks the Dockerfile against the rest of the project. `tests/image/check` runs its result.

use std::{fs, path::Path};

#[test]
fn the_image_is_built_by_the_compiler_that_the_checks_use() {
    let (dockerfile, toolchain) = (read("Dockerfile"), read("rust-toolchain.toml"));
    let version = value(&dockerfile, "ARG RUST_VERSION=");
    assert_eq!(value(&toolchain, "channel = "), format!("\"{version}\""));
    let oldest = value(&read("Cargo.toml"), "rust-version = ").trim_matches('"').to_owned();
    assert!(version.starts_with(&oldest), "{version} is not {oldest}");
}

#[test]
fn both_stages_of_the_image_are_of_one_debian() {
    let dockerfile = read("Dockerfile");
    let stages: Vec<_> = dockerfile.lines().filter_map(|line| line.strip_prefix("FROM ")).collect();
    let [build, last] = stages[..] else { panic!("{stages:?}") };
    assert!(build.ends_with("-trixie AS build") && last.ends_with("-debian13"), "{stages:?}");
}

#[test]
fn only_what_the_image_is_built_from_reaches_the_builder() {
    let (dockerfile, ignored) = (read("Dockerfile"), read(".dockerignore"));
    let mut let_in: Vec<_> = ignored.lines().filter_map(|line| line.strip_prefix('!')).collect();
    let_in.sort_unstable();
    assert_eq!(ignored.lines().find(|line| !line.starts_with('#')), Some("*"));
    let copies = dockerfile.lines().filter_map(|line| line.strip_prefix("COPY "));
    let mut copied: Vec<_> = copies
        .filter(|copy| !copy.starts_with("--from="))
        .flat_map(|copy| copy.rsplit_once(' ').expect("a source and a place").0.split(' '))
        .collect();
    copied.sort_unstable();
    assert_eq!(copied, let_in);
    for path in copied {
        assert!(top().join(path).exists(), "there is no {path} to copy");
    }
}

#[test]
fn the_image_runs_as_a_number_that_is_not_root_and_starts_no_shell() {
    let dockerfile = read("Dockerfile");
    let (user, group) = value(&dockerfile, "USER ").split_once(':').expect("a user and a group");
    for id in [user, group] {
        assert!(id.parse::<u32>().is_ok_and(|id| id > 0), "{id}");
    }
    assert!(dockerfile.contains(&format!("--chown={user}:{group} ")));
    assert_eq!(value(&dockerfile, "ENTRYPOINT "), r#"["/usr/bin/signpost"]"#);
    assert_eq!(value(&dockerfile, "CMD "), r#"["run"]"#);
    assert!(dockerfile.contains("cargo build --release --locked --bin signpost"));
}

/// The rest of the one line that begins with `key`.
#[track_caller]
fn value<'a>(text: &'a str, key: &str) -> &'a str {
    let mut values = text.lines().filter_map(|line| line.strip_prefix(key));
    let value = values.next().unwrap_or_else(|| panic!("no line begins with `{key}`"));
    assert_eq!(values.next(), None, "`{key}` is there twice");
    value
}

fn read(name: &str) -> String {
    fs::read_to_string(top().join(name)).unwrap_or_else(|error| panic!("cannot read {name}: {error}"))
}

fn top() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}
