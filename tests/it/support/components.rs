//! Finds the programs that `tests/components/install` left in its cache.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

use serde_json::Value;

/// The absolute path of a component, by its name in `components.json`.
///
/// # Panics
///
/// Panics when the component is missing: a test that cannot run has not passed.
pub(crate) fn path(name: &str) -> PathBuf {
    let index = &*INDEX;
    let Some(path) = index[name]["path"].as_str().map(PathBuf::from) else {
        panic!("there is no component `{name}`: run `make components`");
    };
    assert!(path.exists(), "component `{name}` is gone: run `make components`");
    path
}

/// The folder of the project's own component sources, such as the relying parties.
pub(crate) fn sources() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/components")
}

/// Runs a program of `relying_parties/` on Node, with the modules of this component.
pub(crate) fn node(program: &str, modules: &str, folder: &Path) -> Command {
    // Node resolves a module's imports next to the module.
    let copy = folder.join(program);
    fs::copy(sources().join("relying_parties").join(program), &copy).expect("it can be copied");
    symlink(path(modules), folder.join("node_modules")).expect("a new name");
    let mut command = Command::new(path("node"));
    command.arg(copy);
    command
}

/// Runs a program of `relying_parties/` with the interpreter of this component.
pub(crate) fn python(program: &str, interpreter: &str) -> Command {
    let mut command = Command::new(path(interpreter));
    command.arg(sources().join("relying_parties").join(program));
    command
}

/// The folder that `tests/components/install` fills.
pub(crate) fn cache() -> PathBuf {
    let set = |name| variable(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let fallback = || set("HOME").expect("HOME is set").join(".cache");
    set("SIGNPOST_TEST_CACHE")
        .unwrap_or_else(|| set("XDG_CACHE_HOME").unwrap_or_else(fallback).join("signpost-tests"))
}

#[expect(clippy::disallowed_methods, reason = "the tests have no `config` that could read it")]
pub(crate) fn variable(name: &str) -> Option<OsString> {
    std::env::var_os(name)
}

static INDEX: LazyLock<Value> = LazyLock::new(|| {
    let file = cache().join("components.json");
    let text = fs::read(&file)
        .unwrap_or_else(|error| panic!("cannot read {}: {error}: run `make components`", file.display()));
    serde_json::from_slice(&text).expect("tests/components/install writes JSON")
});
