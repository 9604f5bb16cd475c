use std::path::Path;

use super::{Config, Flags, InvalidConfig, KeyFlags, KeysConfig};

mod accepted;
mod environment;
mod flags;
mod refused;
mod refused_signers;
mod refused_values;
mod schema;

const FILE: &str = "config.yaml";
const CWD: &str = "/home/ada";

/// The smallest file, which tests extend.
const MINIMAL: &str = "
issuers:
  - issuer: https://oidc.example.com/kind
    sources: [{kind: api-server}]
";

fn load(flags: &Flags, yaml: Option<&str>) -> Result<Config, InvalidConfig> {
    let now = "2026-11-21T00:00:00Z".parse().expect("a time");
    super::load(flags, yaml.map(|text| (Path::new(FILE), text)), Path::new(CWD), now)
}

fn load_for_keys(flags: &KeyFlags, yaml: Option<&str>) -> Result<KeysConfig, InvalidConfig> {
    let now = "2026-11-21T00:00:00Z".parse().expect("a time");
    super::load_for_keys(flags, yaml.map(|text| (Path::new(FILE), text)), Path::new(CWD), now)
}

#[track_caller]
fn accepted(yaml: &str) -> Config {
    load(&Flags::default(), Some(yaml)).unwrap_or_else(|invalid| panic!("{invalid}"))
}

#[track_caller]
fn refused(yaml: &str, expected: &str) {
    shows(load(&Flags::default(), Some(yaml)), expected);
}

#[track_caller]
fn shows(result: Result<Config, InvalidConfig>, expected: &str) {
    let shown = result.expect_err("refused").to_string();
    assert_eq!(expected.trim(), shown, "\n{shown}");
}

fn texts(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}
