//! What can be configured, as JSON Schema, as Markdown, and for messages: all from the structs.

use std::{fmt::Write as _, sync::LazyLock};

use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

use super::{Config, document::Node, flags, read::Step, suggest};

/// The schema of a file, with `x-expected`: what a message says was expected.
static SCHEMA: LazyLock<Value> = LazyLock::new(|| {
    let settings = SchemaSettings::draft2020_12().with(|settings| settings.inline_subschemas = true);
    let mut schema = settings.into_generator().into_root_schema_for::<Config>().to_value();
    tidy(&mut schema);
    schema
});

/// The mappings of a file, in its order.
static SECTIONS: LazyLock<Vec<Section>> = LazyLock::new(|| {
    let mut sections = Vec::new();
    add_sections(&SCHEMA, "", &mut sections);
    sections
});

/// The keys of one mapping.
pub(super) struct Section {
    /// The path of the mapping in the documentation.
    pub(super) path: String,
    pub(super) schema: &'static Value,
}

impl Section {
    pub(super) fn properties(&self) -> &'static Map<String, Value> {
        self.schema["properties"].as_object().expect("a mapping has properties")
    }
}

/// Adds a mapping and those in it.
fn add_sections(schema: &'static Value, path: &str, sections: &mut Vec<Section>) {
    // A previous issuer has targets of the same kind.
    if sections.iter().any(|known| known.schema == schema) {
        return;
    }
    let (kind, inner) = (&schema["properties"]["kind"]["const"], path);
    let path = match kind.as_str() {
        Some(kind) => format!("{path} of kind `{kind}`"),
        None if path.is_empty() => "the top level".to_owned(),
        None => path.to_owned(),
    };
    sections.push(Section { path, schema });
    for (key, property) in schema["properties"].as_object().into_iter().flatten() {
        let path = if inner.is_empty() { key.clone() } else { format!("{inner}.{key}") };
        let items = &property["items"];
        let kinds = items["oneOf"].as_array().into_iter().flatten();
        for items in kinds.chain([items]).filter(|items| items["properties"].is_object()) {
            add_sections(items, &format!("{path}[]"), sections);
        }
        if property["properties"].is_object() {
            add_sections(property, &path, sections);
        }
    }
}

/// Removes what only Rust's types say: `null` for what may be absent, empty texts, sets.
fn tidy(schema: &mut Value) {
    match schema {
        Value::Array(items) => items.iter_mut().for_each(tidy),
        Value::Object(object) => {
            if let Some(Value::Array(any)) = object.remove("anyOf")
                && let Some(Value::Object(other)) =
                    any.into_iter().find(|one| *one != json!({ "type": "null" }))
            {
                for (key, value) in other {
                    object.entry(key).or_insert(value);
                }
            }
            if let Some(Value::Array(types)) = object.get("type") {
                object["type"] = types[0].clone();
            }
            if let Some(Value::Array(words)) = object.get_mut("enum") {
                words.retain(|word| !word.is_null());
            }
            object.remove("uniqueItems");
            // A text that follows from other settings where it is left out.
            if object.get("default") == Some(&json!("")) {
                object.remove("default");
            }
            let bounds = object.remove("x-bounds");
            if let Some(Value::String(text)) = object.get_mut("description") {
                *text = text.replace('\n', " ") + bounds.as_ref().and_then(Value::as_str).unwrap_or_default();
            }
            if object.contains_key("properties") {
                object.insert("additionalProperties".to_owned(), json!(false));
            }
            if let Some(kind) = object.get("const").cloned() {
                object.insert("description".to_owned(), json!("What the source is."));
                object.insert("examples".to_owned(), json!([kind]));
            }
            object.values_mut().for_each(tidy);
        }
        _ => {}
    }
}

/// The JSON Schema (draft 2020-12) of a configuration file, for editors and `signpost config schema`.
///
/// It defines the values of each key; `signpost config check` checks the constraints between keys.
#[must_use]
pub fn json_schema() -> String {
    let mut schema = SCHEMA.clone();
    remove_extensions(&mut schema);
    schema["title"] = json!("Signpost configuration");
    format!("{schema:#}")
}

fn remove_extensions(schema: &mut Value) {
    match schema {
        Value::Array(items) => items.iter_mut().for_each(remove_extensions),
        Value::Object(object) => {
            object.retain(|key, _| !key.starts_with("x-"));
            object.values_mut().for_each(remove_extensions);
        }
        _ => {}
    }
}

/// The schema of a value of the tree.
pub(super) fn at(root: &Node, path: &[Step]) -> &'static Value {
    let mut node = Some(root);
    let mut schema = &*SCHEMA;
    for step in path {
        (schema, node) = match step {
            Step::Key(key) => (&schema["properties"][key], node.and_then(|node| node.get(key))),
            Step::Item(index) => (&schema["items"], node.and_then(|node| node.item(*index))),
        };
        if schema["oneOf"].is_array() {
            schema = variant(schema, node.and_then(|node| node.get("kind")).and_then(Node::as_text));
        }
    }
    schema
}

/// The schema of one kind, or of all if it is unknown.
fn variant<'a>(schema: &'a Value, kind: Option<&str>) -> &'a Value {
    let kinds = schema["oneOf"].as_array().into_iter().flatten();
    let mut found = kinds.filter(|of| of["properties"]["kind"]["const"].as_str() == kind);
    found.next().unwrap_or(schema)
}

/// The mapping where a key belongs that is written elsewhere.
pub(super) fn section_with(key: &str) -> Option<&'static str> {
    SECTIONS
        .iter()
        .find(|section| section.properties().contains_key(key))
        .map(|section| section.path.as_str())
}

/// What a message says was expected.
pub(super) fn expected(schema: &Value) -> String {
    if let Some(expected) = schema["x-expected"].as_str() {
        return expected.to_owned();
    }
    let required: Vec<_> =
        schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let text = match schema["type"].as_str() {
        _ if schema["enum"].is_array() => "a word",
        _ if schema["format"] == "uri" => "a URL",
        _ if schema["oneOf"].is_array() => "a mapping with `kind`",
        Some("object") if required.is_empty() => "a mapping",
        Some("object") => return format!("a mapping with {}", suggest::all_of(required)),
        Some("boolean") => "`true` or `false`",
        Some("array") if schema["items"]["type"] == "string" => "a list of texts",
        Some("array") => "a list of mappings",
        _ => "text",
    };
    text.to_owned()
}

/// A value that can be used.
pub(super) fn example_of(schema: &Value) -> &Value {
    &schema["examples"][0]
}

/// The example of a value as YAML on one line.
pub(super) fn example(schema: &Value) -> String {
    flow(example_of(schema))
}

fn flow(value: &Value) -> String {
    match value {
        Value::String(text) if is_plain(text) => text.clone(),
        Value::Array(items) => format!("[{}]", items.iter().map(flow).collect::<Vec<_>>().join(", ")),
        Value::Object(entries) => {
            let entries: Vec<_> =
                entries.iter().map(|(key, value)| format!("{key}: {}", flow(value))).collect();
            format!("{{{}}}", entries.join(", "))
        }
        other => other.to_string(),
    }
}

/// Whether YAML reads the text as a text without quotes.
fn is_plain(text: &str) -> bool {
    let first = |first: char| first.is_ascii_alphabetic() || "/@".contains(first);
    text.starts_with(first) && !text.contains(['[', ']', '{', '}', ',', '#', ' ']) || is_number_like(text)
}

/// Whether a text with digits first is no number to YAML: an address, a duration.
fn is_number_like(text: &str) -> bool {
    text.starts_with(|first: char| first.is_ascii_digit())
        && text.contains(|char: char| char.is_ascii_alphabetic() || char == ':')
        && !text.contains(' ')
}

/// The documentation as Markdown: one table per mapping.
#[must_use]
pub fn reference() -> String {
    let mut text = String::new();
    for section in SECTIONS.iter() {
        let _ = writeln!(text, "## {}\n", section.path);
        text.push_str("| key | default | flag | meaning | example |\n|---|---|---|---|---|\n");
        for (key, schema) in section.properties() {
            let _ = writeln!(text, "{}", reference_line(section, key, schema));
        }
        text.push('\n');
    }
    text.truncate(text.trim_end().len() + 1);
    text
}

fn reference_line(section: &Section, key: &str, schema: &Value) -> String {
    let required = section.schema["required"].as_array().is_some_and(|keys| keys.contains(&json!(key)));
    let default = match &schema["default"] {
        _ if required => "required".to_owned(),
        Value::Null => "none".to_owned(),
        Value::Array(items) if items.is_empty() => "none".to_owned(),
        Value::String(text) => format!("`{text}`"),
        other => format!("`{other}`"),
    };
    let flag = flags::of(&section.path, key).map_or_else(String::new, |flag| format!("`{flag}`"));
    let meaning = schema["description"].as_str().unwrap_or_default().replace('|', "\\|");
    format!("| `{key}` | {default} | {flag} | {meaning} | `{}` |", example(schema))
}

#[cfg(test)]
pub(super) fn sections() -> &'static [Section] {
    &SECTIONS
}
