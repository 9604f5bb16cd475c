//! Renders the table of keys as JSON Schema and as Markdown.

use std::fmt::Write as _;

use serde_json::{Map, Value, json};

use super::keys::{Key, Kind, ROOT, Requirement, SECTIONS, Section};

/// The JSON Schema (draft 2020-12) of a configuration file, for editors and `signpost config schema`.
///
/// It defines the values of each key; `signpost config check` checks the constraints between keys.
#[must_use]
pub fn json_schema() -> String {
    let mut schema = section(&ROOT, None);
    schema["$schema"] = json!("https://json-schema.org/draft/2020-12/schema");
    schema["title"] = json!("Signpost configuration");
    format!("{schema:#}")
}

fn section(section: &Section, kind: Option<&str>) -> Value {
    let mut properties: Map<String, Value> =
        section.keys.iter().map(|key| (key.name.to_owned(), property(key))).collect();
    if let Some(kind) = kind {
        properties["kind"]["const"] = json!(kind);
    }
    let required: Vec<_> = section
        .keys
        .iter()
        .filter(|key| matches!(key.need, Requirement::Required))
        .map(|key| key.name)
        .collect();
    json!({ "type": "object", "additionalProperties": false, "required": required, "properties": properties })
}

fn property(key: &Key) -> Value {
    let mut schema = match &key.kind {
        Kind::Text | Kind::Duration { .. } | Kind::Address | Kind::Schedule => json!({ "type": "string" }),
        Kind::Url => json!({ "type": "string", "format": "uri" }),
        Kind::Path => json!({ "type": "string", "pattern": "^/" }),
        Kind::Bool => json!({ "type": "boolean" }),
        Kind::Choice(words) => json!({ "enum": words }),
        Kind::Count { least, most } => json!({ "type": "integer", "minimum": least, "maximum": most }),
        Kind::Mapping(of) => section(of, None),
        Kind::Texts => json!({ "type": "array", "items": { "type": "string" } }),
        Kind::Mappings(of) => json!({ "type": "array", "items": section(of, None) }),
        Kind::Kinds(kinds) => {
            let kinds: Vec<_> = kinds.iter().map(|(kind, of)| section(of, Some(kind))).collect();
            json!({ "type": "array", "items": { "oneOf": kinds } })
        }
    };
    schema["description"] = json!(format!("{}{}", key.doc, bounds(key)));
    match key.need {
        Requirement::Default(text) if matches!(key.kind, Kind::Bool) => {
            schema["default"] = json!(text == "true");
        }
        Requirement::Default(text) if matches!(key.kind, Kind::Count { .. }) => {
            schema["default"] =
                json!(text.parse::<usize>().expect("defaults in the table are whole numbers"));
        }
        Requirement::Default(text) => schema["default"] = json!(text),
        Requirement::Required if schema["type"] == "array" => schema["minItems"] = json!(1),
        Requirement::Required | Requirement::Optional => {}
    }
    schema
}

fn bounds(key: &Key) -> String {
    match key.kind {
        Kind::Duration { least, most } => format!(" A duration from `{least}` to `{most}`."),
        Kind::Count { least, most } => format!(" From {least} to {most}."),
        _ => String::new(),
    }
}

/// The documentation as Markdown: one table per mapping.
#[must_use]
pub fn reference() -> String {
    let mut text = String::new();
    for section in SECTIONS {
        let _ = writeln!(text, "## {}\n", section.path);
        text.push_str("| key | default | flag | meaning | example |\n|---|---|---|---|---|\n");
        for key in section.keys {
            let default = match key.need {
                Requirement::Required => "required".to_owned(),
                Requirement::Optional => "none".to_owned(),
                Requirement::Default(text) => format!("`{text}`"),
            };
            let flag = key.flag.map_or_else(String::new, |flag| format!("`{flag}`"));
            let _ = writeln!(
                text,
                "| `{}` | {default} | {flag} | {}{} | `{}` |",
                key.name,
                key.doc.replace('|', "\\|"),
                bounds(key),
                key.example
            );
        }
        text.push('\n');
    }
    text.truncate(text.trim_end().len() + 1);
    text
}
