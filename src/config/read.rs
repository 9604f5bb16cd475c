//! Reads the tree into the structs, continues after a fault, and reports all of them with their place.
//!
//! `serde` stops at the first fault. Here it is reported, its value is set aside (or replaced by the example
//! of the schema, if it is required), and the struct is read again.

use std::{collections::HashSet, fmt};

use serde::{
    Deserializer,
    de::{
        DeserializeOwned, DeserializeSeed, EnumAccess, Error as _, MapAccess, SeqAccess, VariantAccess,
        Visitor, value::StrDeserializer,
    },
    forward_to_deserialize_any,
};
use serde_json::Value as Json;

use super::{
    document::{Node, Origin, Value},
    flags,
    problem::{Fault, Problems},
    schema, suggest,
};

/// Reads a value; `None` if nothing of it can be used. Unusable nodes are left as [`Value::Refused`].
pub(super) fn read<T: DeserializeOwned>(
    root: &mut Node,
    path: &[Step],
    problems: &mut Problems,
) -> Option<T> {
    let mut replaced = HashSet::new();
    loop {
        match T::deserialize(Reader(at(root, path)?)) {
            Ok(read) => return Some(read),
            Err(mut error) => {
                error.path.reverse();
                error.path.splice(0..0, path.iter().cloned());
                error.report(root, problems);
                let whole = error.path == path && error.is_of_the_value();
                if !error.set_aside(root, &mut replaced, problems) || whole {
                    return None;
                }
            }
        }
    }
}

/// Reads each item of a list in a file by itself, so that a fault reads only its own item again.
pub(super) fn read_items<T: DeserializeOwned>(root: &mut Node, list: &[Step], problems: &mut Problems) {
    let Some(Node { value: Value::List(items), place: Origin::File { .. } }) = at(root, list) else { return };
    for index in 0..items.len() {
        read::<T>(root, &[list, &[Step::Item(index)]].concat(), problems);
    }
}

/// A value without a fault; reports none.
pub(super) fn valid<T: DeserializeOwned>(root: &Node, path: &[Step]) -> Option<T> {
    T::deserialize(Reader(at(root, path)?)).ok()
}

/// One step from a value to a value in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Key(String),
    Item(usize),
}

fn at<'a>(root: &'a Node, path: &[Step]) -> Option<&'a Node> {
    path.iter().try_fold(root, |node, step| match (step, &node.value) {
        (Step::Key(key), _) => node.get(key),
        (Step::Item(index), Value::List(items)) => items.get(*index),
        (Step::Item(_), _) => None,
    })
}

fn at_mut<'a>(root: &'a mut Node, path: &[Step]) -> Option<&'a mut Node> {
    path.iter().try_fold(root, |node, step| match (step, &mut node.value) {
        (Step::Key(key), Value::Map(entries)) => {
            entries.iter_mut().find(|(name, _)| name == key).map(|(_, node)| node)
        }
        (Step::Item(index), Value::List(items)) => items.get_mut(*index),
        _ => None,
    })
}

fn written(path: &[Step]) -> String {
    path.iter().fold(String::new(), |mut text, step| {
        match step {
            Step::Key(key) if text.is_empty() => text.push_str(key),
            Step::Key(key) => text.push_str(&format!(".{key}")),
            Step::Item(index) => text.push_str(&format!("[{index}]")),
        }
        text
    })
}

/// A fault, and the path to it: while it is passed on, from the inside out.
#[derive(Debug)]
struct ReadError {
    path: Vec<Step>,
    cause: Cause,
}

#[derive(Debug)]
enum Cause {
    /// Another kind of value, or an empty text.
    WrongType,
    /// One unknown key or more.
    Unknown,
    Missing {
        key: &'static str,
    },
    NoKind {
        kinds: &'static [&'static str],
    },
    UnknownKind {
        kinds: &'static [&'static str],
    },
    Other(Fault),
}

impl ReadError {
    fn within(mut self, step: Step) -> Self {
        self.path.push(step);
        self
    }

    /// Whether the value itself is at fault, and not one of its keys.
    fn is_of_the_value(&self) -> bool {
        !matches!(self.cause, Cause::Unknown | Cause::Missing { .. })
    }

    fn report(&self, root: &Node, problems: &mut Problems) {
        let Some(node) = at(root, &self.path) else { return };
        let path = written(&self.path);
        let below = |key: &str| written(&[&self.path[..], &[Step::Key(key.to_owned())]].concat());
        let found = schema::at(root, &self.path);
        match &self.cause {
            Cause::Unknown => {
                for (key, place) in unknown_keys(node, found) {
                    let fault = if let Some(home) = schema::section_with(key) {
                        Fault::new(format!("unknown key here, it belongs to {home}"))
                    } else {
                        let known = found["properties"].as_object().into_iter().flatten();
                        let known = known.map(|(key, _)| key.as_str());
                        Fault::new(format!("unknown key, {}", suggest::or_all(key, known)))
                    };
                    problems.add(place, &below(key), fault);
                }
            }
            Cause::Missing { key } if problems.has_unusable(&below(key)) => {}
            Cause::Missing { key } => {
                let property = &found["properties"][key];
                let example = schema::example(property);
                if let Some(flag) = flags::name_of(&below(key), node.place) {
                    let hint = format!("for example {}", flags::example(flag, &example));
                    problems.add(node.place, flag, Fault::new("is missing").hint(hint));
                } else {
                    let fault = Fault::new(format!("is missing, expected {}", schema::expected(property)));
                    problems.add(
                        node.place,
                        &below(key),
                        fault.hint(format!("for example `{key}: {example}`")),
                    );
                }
            }
            Cause::WrongType => problems.add(node.place, &path, unexpected(node, &schema::expected(found))),
            Cause::NoKind { kinds } => {
                let expected = suggest::one_of(kinds.iter().copied());
                problems.add(node.place, &path, Fault::new(format!("has no `kind`, expected {expected}")));
            }
            Cause::UnknownKind { kinds } => {
                let Some(node) = node.get("kind") else { return };
                let fault = match &node.value {
                    Value::Text(kind) => Fault::new(format!(
                        "unknown kind `{kind}`, {}",
                        suggest::or_all(kind, kinds.iter().copied())
                    )),
                    _ => unexpected(node, &suggest::one_of(kinds.iter().copied())),
                };
                problems.add(node.place, &below("kind"), fault);
            }
            // A list is empty because its items were refused.
            Cause::Other(_) if has_refused_items(node) => {}
            Cause::Other(fault) => problems.add(node.place, &path, fault.clone()),
        }
    }

    /// Makes the fault disappear; `false` if that is not possible.
    fn set_aside(&self, root: &mut Node, replaced: &mut HashSet<String>, problems: &mut Problems) -> bool {
        let schema = schema::at(root, &self.path);
        let Some(node) = at_mut(root, &self.path) else { return false };
        match &self.cause {
            Cause::Unknown => {
                let unknown = unknown_keys(node, schema).map(|(key, place)| (key.to_owned(), place));
                for (key, place) in unknown.collect::<Vec<_>>() {
                    node.set(&key, Node { value: Value::Refused, place });
                }
            }
            Cause::Missing { key } => {
                let path = written(&[&self.path[..], &[Step::Key((*key).to_owned())]].concat());
                let place = node.get(key).map_or(node.place, |node| node.place);
                node.set(key, Node::of_json(schema::example_of(&schema["properties"][key]), place));
                problems.set_unusable(path.clone());
                return replaced.insert(path);
            }
            _ => {
                node.value = Value::Refused;
                problems.set_unusable(written(&self.path));
            }
        }
        true
    }
}

/// The keys of a mapping that its schema does not have, and their origins.
fn unknown_keys<'a>(node: &'a Node, schema: &'a Json) -> impl Iterator<Item = (&'a str, Origin)> {
    let entries = if let Value::Map(entries) = &node.value { &entries[..] } else { &[] };
    let unread = entries.iter().filter(|(_, node)| node.value != Value::Refused);
    let unknown = unread.filter(|(key, _)| schema["properties"].get(key).is_none());
    unknown.map(|(key, node)| (key.as_str(), node.place))
}

fn has_refused_items(node: &Node) -> bool {
    matches!(&node.value, Value::List(items) if items.iter().any(|item| item.value == Value::Refused))
}

/// A fault: another kind of value than expected.
fn unexpected(node: &Node, expected: &str) -> Fault {
    let fault = Fault::new(format!("is {}, expected {expected}", node.describe()));
    match &node.value {
        Value::Number(number) if expected.starts_with("a duration") => {
            fault.hint(format!("write `{number}s`"))
        }
        Value::Number(number) if expected == "text" => fault.hint(format!("write `\"{number}\"`")),
        _ => fault,
    }
}

impl From<Cause> for ReadError {
    fn from(cause: Cause) -> Self {
        Self { path: Vec::new(), cause }
    }
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}

impl std::error::Error for ReadError {}

impl serde::de::Error for ReadError {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Cause::Other(Fault::parse(&message.to_string())).into()
    }

    fn unknown_variant(word: &str, known: &'static [&'static str]) -> Self {
        let known = suggest::or_all(word, known.iter().copied());
        Cause::Other(Fault::new(format!("unknown value `{word}`, {known}"))).into()
    }

    fn unknown_field(_: &str, _: &'static [&'static str]) -> Self {
        Cause::Unknown.into()
    }

    fn missing_field(key: &'static str) -> Self {
        Cause::Missing { key }.into()
    }
}

#[derive(Clone, Copy)]
struct Reader<'a>(&'a Node);

impl Reader<'_> {
    fn text(&self) -> Result<&str, ReadError> {
        match &self.0.value {
            Value::Text(text) if text.trim().is_empty() => Err(Cause::WrongType.into()),
            // Control characters would end up in log lines, headers or paths.
            Value::Text(text) if text.contains(char::is_control) => {
                Err(Cause::Other(Fault::new(format!("`{text}` has a control character, expected none")))
                    .into())
            }
            Value::Text(text) => Ok(text),
            _ => Err(Cause::WrongType.into()),
        }
    }
}

impl<'de> Deserializer<'de> for Reader<'_> {
    type Error = ReadError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadError> {
        visitor.visit_str(self.text()?)
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadError> {
        match self.0.value {
            Value::Bool(value) => visitor.visit_bool(value),
            _ => Err(Cause::WrongType.into()),
        }
    }

    fn deserialize_u64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadError> {
        match &self.0.value {
            Value::Number(number) => match number.parse() {
                Ok(number) => visitor.visit_u64(number),
                Err(_) => Err(Cause::WrongType.into()),
            },
            _ => Err(Cause::WrongType.into()),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadError> {
        visitor.visit_some(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadError> {
        match &self.0.value {
            Value::List(items) => visitor.visit_seq(Items { items, next: 0 }),
            _ => Err(Cause::WrongType.into()),
        }
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadError> {
        match &self.0.value {
            Value::Map(entries) => visitor.visit_map(Entries { rest: entries, without: None, value: None }),
            _ => Err(Cause::WrongType.into()),
        }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, ReadError> {
        self.deserialize_map(visitor)
    }

    /// One of several words, or a mapping whose key `kind` selects its further keys.
    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        kinds: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, ReadError> {
        if name != "SourceConfig" {
            return visitor.visit_enum(StrDeserializer::new(self.text()?));
        }
        let Value::Map(_) = &self.0.value else { return Err(Cause::WrongType.into()) };
        match self.0.get("kind").map(|node| &node.value) {
            None => Err(Cause::NoKind { kinds }.into()),
            Some(Value::Text(kind)) if kinds.contains(&kind.as_str()) => {
                visitor.visit_enum(Kind(self.0, kind))
            }
            Some(_) => Err(Cause::UnknownKind { kinds }.into()),
        }
    }

    forward_to_deserialize_any! {
        i8 i16 i32 i64 i128 u128 f32 f64 char str string bytes byte_buf unit unit_struct tuple tuple_struct
        identifier ignored_any
    }

    fn deserialize_u8<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadError> {
        self.deserialize_u64(visitor)
    }

    fn deserialize_u16<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadError> {
        self.deserialize_u64(visitor)
    }

    fn deserialize_u32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadError> {
        self.deserialize_u64(visitor)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, ReadError> {
        visitor.visit_newtype_struct(self)
    }
}

struct Items<'a> {
    items: &'a [Node],
    next: usize,
}

impl<'de> SeqAccess<'de> for Items<'_> {
    type Error = ReadError;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, ReadError> {
        while let Some(node) = self.items.get(self.next) {
            self.next += 1;
            if node.value != Value::Refused {
                let item = Step::Item(self.next - 1);
                return seed.deserialize(Reader(node)).map(Some).map_err(|error| error.within(item));
            }
        }
        Ok(None)
    }
}

struct Entries<'a> {
    rest: &'a [(String, Node)],
    /// A key that is already read.
    without: Option<&'static str>,
    value: Option<&'a (String, Node)>,
}

impl<'de> MapAccess<'de> for Entries<'_> {
    type Error = ReadError;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, ReadError> {
        while let Some((entry, rest)) = self.rest.split_first() {
            self.rest = rest;
            if entry.1.value != Value::Refused && Some(entry.0.as_str()) != self.without {
                self.value = Some(entry);
                return seed.deserialize(StrDeserializer::new(&entry.0)).map(Some);
            }
        }
        Ok(None)
    }

    fn next_value_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<T::Value, ReadError> {
        let (key, node) = self.value.expect("a value follows its key");
        seed.deserialize(Reader(node)).map_err(|error| error.within(Step::Key(key.clone())))
    }
}

/// A mapping with its kind.
struct Kind<'a>(&'a Node, &'a str);

impl<'de> EnumAccess<'de> for Kind<'_> {
    type Error = ReadError;
    type Variant = Self;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Self), ReadError> {
        Ok((seed.deserialize(StrDeserializer::<ReadError>::new(self.1))?, self))
    }
}

impl Kind<'_> {
    fn entries(&self) -> Entries<'_> {
        let Value::Map(entries) = &self.0.value else { unreachable!("only a mapping has a kind") };
        Entries { rest: entries, without: Some("kind"), value: None }
    }
}

impl<'de> VariantAccess<'de> for Kind<'_> {
    type Error = ReadError;

    fn unit_variant(self) -> Result<(), ReadError> {
        let Value::Map(entries) = &self.0.value else { return Ok(()) };
        let further = entries.iter().find(|(key, node)| key != "kind" && node.value != Value::Refused);
        further.map_or(Ok(()), |_| Err(Cause::Unknown.into()))
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, ReadError> {
        seed.deserialize(serde::de::value::MapAccessDeserializer::new(self.entries()))
    }

    fn tuple_variant<V: Visitor<'de>>(self, _: usize, _: V) -> Result<V::Value, ReadError> {
        Err(ReadError::custom("is not a mapping"))
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, ReadError> {
        visitor.visit_map(self.entries())
    }
}
