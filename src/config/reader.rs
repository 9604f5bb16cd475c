//! Reads the tree by the table of keys; continues after a fault.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use super::{
    document::{Node, Origin, Value},
    keys::{Key, Kind, Requirement, SECTIONS, Section},
    problem::{Fault, Problems},
    suggest, value,
};

/// A value and its path from the root.
#[derive(Clone, Debug)]
pub(super) struct At<'a> {
    pub(super) node: &'a Node,
    pub(super) path: String,
}

impl<'a> At<'a> {
    pub(super) fn root(node: &'a Node) -> Self {
        Self { node, path: String::new() }
    }

    pub(super) fn refuse(&self, fault: Fault, problems: &mut Problems) {
        let path = if self.path.is_empty() { "the top level" } else { &self.path };
        problems.add(self.node.place, path, fault);
    }

    /// The path in messages about other values.
    pub(super) fn name(&self) -> String {
        match self.node.place {
            Origin::Flag(flag) => format!("`{flag}`"),
            Origin::BuiltIn | Origin::File { .. } => format!("`{}`", self.path),
        }
    }

    /// A fault: `what` (a name, a location) is already used at `first`.
    pub(super) fn taken(&self, what: &str, value: &str, first: &str) -> Fault {
        match self.node.place {
            Origin::Flag(_) => Fault::new(format!("`{value}` is given twice")),
            Origin::BuiltIn | Origin::File { .. } => {
                Fault::new(format!("`{value}` is the {what} of {first} too, expected another"))
            }
        }
    }

    fn unexpected(&self, expected: &str) -> Fault {
        let fault = Fault::new(format!("is {}, expected {expected}", self.node.describe()));
        match &self.node.value {
            Value::Number(number) if expected.starts_with("a duration") => {
                fault.hint(format!("write `{number}s`"))
            }
            Value::Number(number) if expected == "text" => fault.hint(format!("write `\"{number}\"`")),
            _ => fault,
        }
    }
}

/// A mapping whose keys are all in the table.
pub(super) struct Mapping<'a> {
    pub(super) at: At<'a>,
    section: &'static Section,
}

impl<'a> Mapping<'a> {
    /// Checks that the value is a mapping, and reports keys that are not in the section.
    pub(super) fn open(at: At<'a>, section: &'static Section, problems: &mut Problems) -> Option<Self> {
        let node = at.node;
        let Value::Map(entries) = &node.value else {
            let required = section.keys.iter().filter(|key| matches!(key.need, Requirement::Required));
            let expected = match suggest::all_of(required.map(|key| key.name)) {
                none if none.is_empty() => "a mapping".to_owned(),
                required => format!("a mapping with {required}"),
            };
            at.refuse(at.unexpected(&expected), problems);
            return None;
        };
        let mapping = Self { at, section };
        for (name, node) in entries {
            if section.names().all(|known| known != name) {
                mapping.child(name, node).refuse(unknown_key(name, section), problems);
            }
        }
        Some(mapping)
    }

    fn child(&self, name: &str, node: &'a Node) -> At<'a> {
        let path = if self.at.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.at.path) };
        At { node, path }
    }

    /// The value of a key of the table, if present.
    pub(super) fn get(&self, name: &str) -> Option<At<'a>> {
        let key = self.section.key(name);
        self.at.node.get(key.name).map(|node| self.child(name, node))
    }

    /// Reports that a key is invalid or missing.
    pub(super) fn refuse(&self, name: &str, fault: Fault, problems: &mut Problems) {
        let key = self.section.key(name);
        match (self.get(name), self.at.node.place, key.flag) {
            (Some(at), ..) => at.refuse(fault, problems),
            // Without a file, the user knows only flags.
            (None, Origin::BuiltIn | Origin::Flag(_), Some(flag)) => {
                problems.add(self.at.node.place, flag, fault);
            }
            (None, ..) => {
                At { node: self.at.node, path: self.child(name, self.at.node).path }.refuse(fault, problems);
            }
        }
    }

    fn missing(&self, key: &Key, problems: &mut Problems) {
        let fault = match (self.at.node.place, key.flag) {
            (Origin::BuiltIn | Origin::Flag(_), Some(flag)) => {
                Fault::new("is missing").hint(format!("for example {}", flag_example(flag, key.example)))
            }
            _ => Fault::new(format!("is missing, expected {}", key.kind.expected()))
                .hint(format!("for example `{}: {}`", key.name, key.example)),
        };
        self.refuse(key.name, fault, problems);
    }

    /// Parses a text value, or the default; `None` if it is absent or invalid.
    pub(super) fn parsed<T>(
        &self,
        name: &str,
        problems: &mut Problems,
        parse: impl FnOnce(&str) -> Result<T, Fault>,
    ) -> Option<T> {
        let key = self.section.key(name);
        let Some(at) = self.get(name) else {
            return match key.need {
                Requirement::Default(text) => {
                    Some(parse(text).unwrap_or_else(|fault| panic!("default of {name}: {fault:?}")))
                }
                Requirement::Optional => None,
                Requirement::Required => {
                    self.missing(key, problems);
                    None
                }
            };
        };
        let parsed = match &at.node.value {
            Value::Text(text) if text.trim().is_empty() => {
                Err(Fault::new(format!("is empty, expected {}", key.kind.expected())))
            }
            // Control characters would end up in log lines, headers or paths.
            Value::Text(text) if text.contains(char::is_control) => {
                Err(Fault::new(format!("`{text}` has a control character, expected none")))
            }
            Value::Text(text) => parse(text),
            _ => Err(at.unexpected(key.kind.expected())),
        };
        parsed.map_err(|fault| at.refuse(fault, problems)).ok()
    }

    pub(super) fn text(&self, name: &str, problems: &mut Problems) -> Option<String> {
        self.parsed(name, problems, |text| Ok(text.to_owned()))
    }

    pub(super) fn path(&self, name: &str, problems: &mut Problems) -> Option<PathBuf> {
        self.parsed(name, problems, value::absolute_path)
    }

    pub(super) fn address(&self, name: &str, problems: &mut Problems) -> Option<SocketAddr> {
        self.parsed(name, problems, |text| value::address(text, name))
    }

    /// # Panics
    ///
    /// If the key does not hold a duration.
    pub(super) fn duration(&self, name: &str, problems: &mut Problems) -> Option<Duration> {
        let Kind::Duration { least, most } = self.section.key(name).kind else {
            panic!("`{name}` is not a duration");
        };
        self.parsed(name, problems, |text| value::duration(text, least, most))
    }

    /// The variant for one of the keywords of the table.
    pub(super) fn choice<T: Copy>(
        &self,
        name: &str,
        problems: &mut Problems,
        values: &[T],
        name_of: impl Fn(T) -> &'static str,
    ) -> Option<T> {
        self.parsed(name, problems, |text| {
            let known = values.iter().map(|value| name_of(*value));
            let found = values.iter().copied().find(|value| name_of(*value) == text);
            found.ok_or_else(|| {
                Fault::new(format!("unknown value `{text}`, {}", suggest::or_all(text, known)))
            })
        })
    }

    pub(super) fn bool(&self, name: &str, problems: &mut Problems) -> Option<bool> {
        let key = self.section.key(name);
        let Some(at) = self.get(name) else { return Some(matches!(key.need, Requirement::Default("true"))) };
        if let Value::Bool(value) = at.node.value {
            return Some(value);
        }
        at.refuse(at.unexpected(key.kind.expected()), problems);
        None
    }

    /// # Panics
    ///
    /// If the key does not hold a count with a default.
    pub(super) fn count(&self, name: &str, problems: &mut Problems) -> Option<usize> {
        let key = self.section.key(name);
        let (&Kind::Count { least, most }, &Requirement::Default(default)) = (&key.kind, &key.need) else {
            panic!("`{name}` is not a count with a default");
        };
        let (written, at) = match self.get(name) {
            None => return Some(default.parse().expect("defaults in the table are whole numbers")),
            Some(at) => (&at.node.value, at),
        };
        let fault = match written {
            Value::Number(number) => match number.parse() {
                Ok(count) if (least..=most).contains(&count) => return Some(count),
                _ => Fault::new(format!("is `{number}`, expected a whole number from {least} to {most}")),
            },
            _ => at.unexpected(&format!("a whole number from {least} to {most}")),
        };
        at.refuse(fault, problems);
        None
    }

    /// Opens the mapping that a key holds, if present.
    ///
    /// # Panics
    ///
    /// If the key does not hold a mapping.
    pub(super) fn mapping(&self, name: &str, problems: &mut Problems) -> Option<Mapping<'a>> {
        let Kind::Mapping(section) = self.section.key(name).kind else {
            panic!("`{name}` does not hold a mapping");
        };
        Self::open(self.get(name)?, section, problems)
    }

    /// The items of a list; empty if it is optional and absent.
    pub(super) fn items(&self, name: &str, problems: &mut Problems) -> Option<Vec<At<'a>>> {
        let key = self.section.key(name);
        let required = matches!(key.need, Requirement::Required);
        let Some(at) = self.get(name) else {
            if required {
                self.missing(key, problems);
                return None;
            }
            return Some(Vec::new());
        };
        match &at.node.value {
            Value::List(items) if items.is_empty() && required => {
                at.refuse(Fault::new("is an empty list, expected at least one item"), problems);
                None
            }
            Value::List(items) => {
                let item = |(index, node)| At { node, path: format!("{}[{index}]", at.path) };
                let usable = |(_, node): &(usize, &Node)| node.value != Value::Refused;
                Some(items.iter().enumerate().filter(usable).map(item).collect())
            }
            _ => {
                at.refuse(at.unexpected(key.kind.expected()), problems);
                None
            }
        }
    }

    pub(super) fn texts(&self, name: &str, problems: &mut Problems) -> Option<Vec<(At<'a>, &'a str)>> {
        let mut texts = Vec::new();
        for at in self.items(name, problems)? {
            match &at.node.value {
                Value::Text(text) if !text.contains(char::is_control) => texts.push((at, text.as_str())),
                Value::Text(_) => at.refuse(at.unexpected("text without control characters"), problems),
                _ => at.refuse(at.unexpected("text"), problems),
            }
        }
        Some(texts)
    }

    /// Opens each mapping of a list; other values are reported and skipped.
    ///
    /// # Panics
    ///
    /// If the key does not hold mappings.
    pub(super) fn mappings(&self, name: &str, problems: &mut Problems) -> Option<Vec<Mapping<'a>>> {
        let Kind::Mappings(section) = self.section.key(name).kind else {
            panic!("`{name}` does not hold mappings");
        };
        let items = self.items(name, problems)?;
        Some(items.into_iter().filter_map(|at| Self::open(at, section, problems)).collect())
    }

    /// Opens each mapping of a list by its `kind`, and returns it with the kind.
    ///
    /// # Panics
    ///
    /// If the key does not hold mappings of several kinds.
    pub(super) fn kinds(
        &self,
        name: &str,
        problems: &mut Problems,
    ) -> Option<Vec<(&'static str, Mapping<'a>)>> {
        let Kind::Kinds(kinds) = self.section.key(name).kind else {
            panic!("`{name}` does not hold mappings of several kinds");
        };
        let items = self.items(name, problems)?;
        Some(items.into_iter().filter_map(|at| open_kind(at, kinds, problems)).collect())
    }
}

fn open_kind<'a>(
    at: At<'a>,
    kinds: &[(&'static str, &'static Section)],
    problems: &mut Problems,
) -> Option<(&'static str, Mapping<'a>)> {
    let names = kinds.iter().map(|(name, _)| *name);
    let expected = suggest::one_of(names.clone());
    match (&at.node.value, at.node.get("kind")) {
        (Value::Map(_), Some(node)) => {
            let kind = At { node, path: format!("{}.kind", at.path) };
            let Value::Text(text) = &node.value else {
                kind.refuse(kind.unexpected(&expected), problems);
                return None;
            };
            let Some((name, section)) = kinds.iter().find(|(name, _)| name == text) else {
                kind.refuse(
                    Fault::new(format!("unknown kind `{text}`, {}", suggest::or_all(text, names))),
                    problems,
                );
                return None;
            };
            Mapping::open(at, section, problems).map(|mapping| (*name, mapping))
        }
        (Value::Map(_), None) => {
            at.refuse(Fault::new(format!("has no `kind`, expected {expected}")), problems);
            None
        }
        _ => {
            at.refuse(at.unexpected("a mapping with `kind`"), problems);
            None
        }
    }
}

/// Reports an unknown key, with its correct section or a spelling suggestion.
fn unknown_key(name: &str, section: &Section) -> Fault {
    let elsewhere = SECTIONS.iter().find(|other| other.names().any(|known| known == name));
    match elsewhere {
        Some(home) => Fault::new(format!("unknown key here, it belongs to {}", home.path)),
        None => Fault::new(format!("unknown key, {}", suggest::or_all(name, section.names()))),
    }
}

fn flag_example(flag: &str, value: &str) -> String {
    match flag {
        "--source" => {
            "`--source kubernetes`, `--source /etc/kubernetes/pki/sa.pub` or `--source embedded`".to_owned()
        }
        _ => format!("`{flag} {value}`"),
    }
}
