//! A mapping of the tree, for the checks: which keys are written, and where a fault of one belongs.

use super::{
    document::{Node, Origin, Value},
    flags,
    problem::{Fault, Problems},
};

/// A mapping and its path from the root.
#[derive(Clone, Debug)]
pub(super) struct Section<'a> {
    node: &'a Node,
    path: String,
}

impl<'a> Section<'a> {
    pub(super) fn root(node: &'a Node) -> Self {
        Self { node, path: String::new() }
    }

    /// The path of a key from the root.
    pub(super) fn path_of(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    /// Whether a key is written.
    pub(super) fn has(&self, key: &str) -> bool {
        self.node.get(key).is_some()
    }

    /// Whether a key is written as `true`.
    pub(super) fn is_true(&self, key: &str) -> bool {
        self.node.get(key).is_some_and(|node| node.value == Value::Bool(true))
    }

    /// The mapping that a key holds, if it is written.
    pub(super) fn section(&self, key: &str) -> Option<Self> {
        Some(Self { node: self.node.get(key)?, path: self.path_of(key) })
    }

    /// Whether the value of a key was read, and every item of a list.
    pub(super) fn is_read(&self, key: &str) -> bool {
        match self.node.get(key).map(|node| &node.value) {
            Some(Value::Refused) => false,
            Some(Value::List(items)) => items.iter().all(|item| item.value != Value::Refused),
            _ => true,
        }
    }

    /// The usable items of a list, as many as were read.
    pub(super) fn items(&self, key: &str) -> Vec<Self> {
        let Some(Value::List(items)) = self.node.get(key).map(|node| &node.value) else { return Vec::new() };
        let usable = items.iter().enumerate().filter(|(_, node)| node.value != Value::Refused);
        usable.map(|(index, node)| Self { node, path: format!("{}[{index}]", self.path_of(key)) }).collect()
    }

    pub(super) fn refuse(&self, fault: Fault, problems: &mut Problems) {
        problems.add(self.node.place, &self.path, fault);
    }

    /// Reports that a key is invalid or missing.
    pub(super) fn refuse_key(&self, key: &str, fault: Fault, problems: &mut Problems) {
        let path = self.path_of(key);
        match self.node.get(key) {
            Some(node) => problems.add(node.place, &path, fault),
            None => {
                problems.add(self.node.place, flags::name_of(&path, self.node.place).unwrap_or(&path), fault);
            }
        }
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
}

impl Problems {
    /// Whether all these keys of a mapping are usable: what is compared with a value that is not would only
    /// confuse.
    pub(super) fn none_at(&self, section: &Section<'_>, keys: &[&str]) -> bool {
        self.all_usable() || keys.iter().all(|key| !self.has_unusable(&section.path_of(key)))
    }
}

/// The names in a list, each with its first holder.
#[derive(Default)]
pub(super) struct UniqueNames(Vec<(String, String)>);

impl UniqueNames {
    /// Rejects a name that is already used in the list.
    pub(super) fn check(&mut self, name: &str, at: &Section<'_>, problems: &mut Problems) {
        match self.0.iter().find(|(other, _)| other == name) {
            Some((_, first)) => at.refuse(at.taken("name", name, first), problems),
            None => self.0.push((name.to_owned(), at.name())),
        }
    }
}
