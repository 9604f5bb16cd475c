//! The table of configuration keys.
//!
//! It drives the reader (unknown keys, types, bounds, defaults), `config schema` and the documentation, so
//! that they always agree.

mod issuer;
mod process;
mod signer;
mod source;
mod target;
mod verify;

use self::source::{
    INSTANCE, SOURCE_ANNOUNCEMENTS, SOURCE_API_SERVER, SOURCE_EMBEDDED, SOURCE_FILES, SOURCE_URL,
};
pub(super) use self::{
    issuer::{FORMER, ISSUER, LEDGER, ROTATE_WITHIN},
    process::{EVENTS, ROOT, TLS},
    signer::{LEGACY, PKCS11, SIGNER},
    target::TARGET,
    verify::VERIFY,
};

/// The kind and default name of a source that reads announcements.
pub(super) const ANNOUNCEMENTS: &str = "announcements";
/// The kind and name of the source that reads the embedded keyring.
pub(super) const EMBEDDED: &str = "embedded";
pub(super) const API_SERVER: &str = "api-server";
pub(super) const FILES: &str = "files";
pub(super) const URL: &str = "url";

/// The keys of one mapping.
pub(super) struct Section {
    /// The path of the mapping in the documentation.
    pub(super) path: &'static str,
    pub(super) keys: &'static [Key],
}

pub(super) struct Key {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    pub(super) need: Requirement,
    /// The flag that takes precedence over it.
    pub(super) flag: Option<&'static str>,
    /// One or two sentences of documentation.
    pub(super) doc: &'static str,
    /// An example value in the file.
    pub(super) example: &'static str,
}

pub(super) enum Kind {
    Text,
    Bool,
    /// Whole seconds within these bounds.
    Duration {
        least: &'static str,
        most: &'static str,
    },
    Address,
    Url,
    Path,
    Schedule,
    Choice(&'static [&'static str]),
    Texts,
    /// A whole number within these bounds.
    Count {
        least: usize,
        most: usize,
    },
    Mapping(&'static Section),
    Mappings(&'static Section),
    /// A list of mappings; the key `kind` of each selects its further keys.
    Kinds(&'static [(&'static str, &'static Section)]),
}

pub(super) enum Requirement {
    Required,
    Optional,
    /// The value when it is absent.
    Default(&'static str),
}

impl Section {
    /// # Panics
    ///
    /// If the table has no such key: only keys in the table are read.
    pub(super) fn key(&self, name: &str) -> &'static Key {
        let key = self.keys.iter().find(|key| key.name == name);
        key.unwrap_or_else(|| panic!("`{name}` is not in the table of {}", self.path))
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &'static str> + Clone + use<> {
        self.keys.iter().map(|key| key.name)
    }
}

impl Kind {
    /// What a message says was expected.
    pub(super) fn expected(&self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Bool => "`true` or `false`",
            Self::Duration { .. } => "a duration such as `30s`, `5m` or `1h30m`",
            Self::Address => "an address and port such as `127.0.0.1:8080`",
            Self::Url => "a URL",
            Self::Path => "an absolute path",
            Self::Schedule => "five fields: minute hour day month weekday",
            Self::Choice(_) => "a word",
            Self::Texts => "a list of texts",
            Self::Count { .. } => "a whole number",
            Self::Mapping(_) => "a mapping",
            Self::Mappings(_) | Self::Kinds(_) => "a list of mappings",
        }
    }
}

/// Every section, in the order of the documentation.
pub(super) static SECTIONS: [&Section; 18] = [
    &ROOT,
    &TLS,
    &EVENTS,
    &ISSUER,
    &ROTATE_WITHIN,
    &SOURCE_API_SERVER,
    &INSTANCE,
    &SOURCE_FILES,
    &SOURCE_URL,
    &SOURCE_ANNOUNCEMENTS,
    &SOURCE_EMBEDDED,
    &TARGET,
    &LEDGER,
    &FORMER,
    &SIGNER,
    &PKCS11,
    &LEGACY,
    &VERIFY,
];

const KUBECONFIG: Key = Key {
    name: "kubeconfig",
    kind: Kind::Path,
    need: Requirement::Optional,
    flag: None,
    doc: "The kubeconfig. With neither this nor a context: the cluster that Signpost runs in.",
    example: "/etc/signpost/kubeconfig",
};

const CONTEXT: Key = Key {
    name: "context",
    kind: Kind::Text,
    need: Requirement::Optional,
    flag: None,
    doc: "The context of `kubeconfig`, or of the user's own kubeconfig, the current one by default.",
    example: "kind-kind",
};
