//! The JSON reports match the documented schema, every member of it.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use super::{Stage, WITHIN};
use crate::support::cluster::ISSUER;

/// The mismatches of a value with the schema, and the members of the schema that occurred.
struct Validator<'a> {
    schema: &'a Value,
    faults: Vec<String>,
    met: BTreeSet<String>,
}

impl<'a> Validator<'a> {
    fn new(schema: &'a Value) -> Self {
        Self { schema, faults: Vec::new(), met: BTreeSet::new() }
    }

    /// Supports only the keywords that the schema uses.
    fn check(&mut self, rule: &'a Value, value: &Value, at: &str) {
        if let Some(reference) = rule["$ref"].as_str() {
            let target = reference.strip_prefix('#').expect("it stays in the document");
            return self.check(self.schema.pointer(target).expect("it leads somewhere"), value, at);
        }
        let fits = match rule["type"].as_str().expect("every rule has a type") {
            "object" => value.is_object(),
            "array" => value.is_array(),
            "string" => value.is_string(),
            "boolean" => value.is_boolean(),
            "integer" => value.is_u64(),
            other => panic!("the schema has another type, `{other}`"),
        };
        let is_listed = rule["enum"].as_array().is_none_or(|listed| listed.contains(value));
        if !fits || !is_listed {
            self.faults.push(format!("{at}: {value}"));
        }
        for item in value.as_array().into_iter().flatten() {
            self.check(&rule["items"], item, at);
        }
        for (name, member) in value.as_object().into_iter().flatten() {
            self.met.insert(name.clone());
            match rule["properties"].get(name) {
                Some(rule) => self.check(rule, member, &format!("{at}.{name}")),
                None => self.faults.push(format!("{at}.{name} is not documented")),
            }
        }
        let required = rule["required"].as_array().into_iter().flatten().filter_map(Value::as_str);
        let missing = required.filter(|name| value.get(name).is_none());
        self.faults.extend(missing.map(|name| format!("{at}.{name} is missing")));
    }
}

#[test]
fn every_report_for_programs_fits_its_schema() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/verify.schema.json");
    let schema: Value = serde_json::from_slice(&fs::read(file).expect("it is there")).expect("it is JSON");
    let stage = Stage::set();
    let config = stage.folder.path().join("kubeconfig");
    stage.cluster.server.admin_kubeconfig(&config);
    let mut validator = Validator::new(&schema);
    let slash = format!("{ISSUER}/");
    let output = ["--output", "json", "--source", "kubernetes:test"];
    for arguments in [
        &["--token", "-", "--for", "all"][..],
        &["--token", "-", "--issuer", &slash, "--got", "AADSTS700211"],
        &["--token", "-", "--for", "local"],
        &["--issuer", "https://oidc.corp"],
        &["--issuer", "https://oidc.corp", "--for", "gcp"],
        &["--service-account", "default/signpost"],
    ] {
        let verb = stage.verify(arguments.iter().chain(&output).copied()).env("KUBECONFIG", &config);
        let told = verb.stdin(stage.token()).finish(WITHIN);
        let document = serde_json::from_str(&told.stdout).expect(&told.stderr);
        validator.check(&schema, &document, "$");
    }
    assert!(validator.faults.is_empty(), "{:#?}", validator.faults);
    let definitions = schema["$defs"].as_object().expect("definitions").values().chain([&schema]);
    let documented =
        definitions.filter_map(|it| it["properties"].as_object()).flat_map(serde_json::Map::keys);
    let unmet: Vec<_> = documented.filter(|name| !validator.met.contains(*name)).collect();
    assert!(unmet.is_empty(), "no report has {unmet:?}");
    // The validator detects mismatches.
    let mut strict = Validator::new(&schema);
    strict.check(&schema, &json!({"outcome": "perhaps", "reports": [{"findings": 1, "other": 2}]}), "$");
    assert_eq!(strict.faults.len(), 6, "{:#?}", strict.faults);
}
