//! The configuration as a tree: the file's YAML, before the keys are checked.

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, SeqAccess, Visitor},
};
use serde_saphyr::{Error, Spanned, budget::BudgetBreach};

use super::problem::Problem;

/// Longest text that a message repeats, in characters: a file that is not a configuration may be a single
/// text, and a private key.
const MAX_SHOWN: usize = 64;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Node {
    pub(super) value: Value,
    pub(super) place: Origin,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Value {
    Null,
    Bool(bool),
    /// The number approximately as written: only used in messages.
    Number(String),
    Text(String),
    List(Vec<Node>),
    Map(Vec<(String, Node)>),
    /// Unusable: its problem is already reported.
    Refused,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// A built-in default without a file.
    BuiltIn,
    /// A flag, or its environment variable.
    Flag(&'static str),
    File {
        line: u64,
        column: u64,
    },
}

impl Node {
    pub(super) fn text(text: impl Into<String>, place: Origin) -> Self {
        Self { value: Value::Text(text.into()), place }
    }

    pub(super) fn list(items: Vec<Self>, place: Origin) -> Self {
        Self { value: Value::List(items), place }
    }

    pub(super) fn map(entries: impl IntoIterator<Item = (&'static str, Self)>, place: Origin) -> Self {
        let entries = entries.into_iter().map(|(key, node)| (key.to_owned(), node)).collect();
        Self { value: Value::Map(entries), place }
    }

    pub(super) fn get(&self, key: &str) -> Option<&Self> {
        let Value::Map(entries) = &self.value else { return None };
        entries.iter().find(|(name, _)| name == key).map(|(_, node)| node)
    }

    /// Sets a value in a mapping, replacing an older one; no effect on other kinds of value, which the reader
    /// rejects.
    pub(super) fn set(&mut self, key: &str, node: Self) {
        let Value::Map(entries) = &mut self.value else { return };
        match entries.iter_mut().find(|(name, _)| name == key) {
            Some((_, old)) => *old = node,
            None => entries.push((key.to_owned(), node)),
        }
    }

    /// The value without an origin of its own.
    pub(super) fn of_json(json: &serde_json::Value, place: Origin) -> Self {
        let value = match json {
            serde_json::Value::Null => Value::Null,
            serde_json::Value::Bool(value) => Value::Bool(*value),
            serde_json::Value::Number(number) => Value::Number(number.to_string()),
            serde_json::Value::String(text) => Value::Text(text.clone()),
            serde_json::Value::Array(items) => {
                Value::List(items.iter().map(|item| Self::of_json(item, place)).collect())
            }
            serde_json::Value::Object(entries) => Value::Map(
                entries.iter().map(|(key, value)| (key.clone(), Self::of_json(value, place))).collect(),
            ),
        };
        Self { value, place }
    }

    pub(super) fn item(&self, index: usize) -> Option<&Self> {
        let Value::List(items) = &self.value else { return None };
        items.get(index)
    }

    pub(super) fn as_text(&self) -> Option<&str> {
        let Value::Text(text) = &self.value else { return None };
        Some(text)
    }

    /// Describes the value in a message, after "is".
    pub(super) fn describe(&self) -> String {
        match &self.value {
            Value::Null => "empty".to_owned(),
            Value::Text(text) if text.trim().is_empty() => "empty".to_owned(),
            Value::Bool(value) => format!("`{value}`"),
            Value::Number(number) => format!("the number `{number}`"),
            Value::Text(text) if text.chars().count() > MAX_SHOWN => {
                format!("a text of {} characters", text.chars().count())
            }
            Value::Text(text) => format!("the text `{text}`"),
            Value::List(_) => "a list".to_owned(),
            Value::Map(_) => "a mapping".to_owned(),
            Value::Refused => "refused".to_owned(),
        }
    }
}

/// Most values of a file, including keys: enough for tens of thousands of issuers. The default of 250,000 is
/// reached at ten thousand small ones.
const MAX_NODES: usize = 5_000_000;

/// Deepest nesting: twice that of any key. The default of 2,000 overflows the stack; an unoptimised build
/// already does at 64.
const MAX_DEPTH: usize = 16;

/// Parses YAML; duplicate keys are rejected.
pub(super) fn parse(text: &str) -> Result<Node, Problem> {
    let options = serde_saphyr::options! {
        strict_booleans: true,
        with_snippet: false,
        budget: serde_saphyr::budget! { max_nodes: MAX_NODES, max_events: 2 * MAX_NODES, max_depth: MAX_DEPTH },
    };
    serde_saphyr::from_str_with_options(text, options).map_err(|error| {
        let path = error.location().map_or_else(
            || "the file".to_owned(),
            |location| format!("line {}, column {}", location.line(), location.column()),
        );
        let (message, hint) = explain(&error);
        // The message already starts with the position.
        let message = message.trim_end_matches(&format!(" at {path}")).to_owned();
        Problem { path, message, hint: hint.map(str::to_owned) }
    })
}

/// The fault, and a hint where the YAML error does not explain it.
fn explain(error: &Error) -> (String, Option<&'static str>) {
    let message = error.render_with_formatter(&serde_saphyr::UserMessageFormatter);
    match error.without_snippet() {
        Error::DuplicateMappingKey { key: Some(key), .. } => {
            (format!("key `{key}` is written twice, expected once"), None)
        }
        Error::Budget { breach: BudgetBreach::Depth { .. }, .. } => {
            (format!("values are nested too deeply, expected at most {MAX_DEPTH} levels"), None)
        }
        Error::UnknownAnchor { .. } => (
            "a text that begins with `*` is not in quotes".to_owned(),
            Some("write it in quotes: `\"*/5 * * * *\"`"),
        ),
        _ if message.starts_with("tabs") => (message, Some("indent with spaces")),
        _ => (message, None),
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let spanned = Spanned::<Value>::deserialize(deserializer)?;
        let place = Origin::File { line: spanned.referenced.line(), column: spanned.referenced.column() };
        Ok(Self { value: spanned.value, place })
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AnyValue)
    }
}

struct AnyValue;

impl<'de> Visitor<'de> for AnyValue {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        Value::deserialize(deserializer)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Number(value.to_string()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Number(value.to_string()))
    }

    fn visit_i128<E>(self, value: i128) -> Result<Value, E> {
        Ok(Value::Number(value.to_string()))
    }

    fn visit_u128<E>(self, value: u128) -> Result<Value, E> {
        Ok(Value::Number(value.to_string()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Value::Number(value.to_string()))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::Text(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = sequence.next_element()? {
            items.push(item);
        }
        Ok(Value::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut mapping: A) -> Result<Value, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = mapping.next_entry()? {
            entries.push(entry);
        }
        Ok(Value::Map(entries))
    }
}
