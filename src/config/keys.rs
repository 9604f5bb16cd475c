//! The table of keys: what a configuration file may say.
//!
//! It drives the reader (unknown keys, types, bounds, defaults), `config schema` and the
//! documentation, so that none of them can know more than the others.

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

/// The kind of a source that is what nodes say, and its name unless it has another.
pub(super) const ANNOUNCEMENTS: &str = "announcements";
/// The kind of a source that is the embedded keyring, and its name.
pub(super) const EMBEDDED: &str = "embedded";
pub(super) const API_SERVER: &str = "api-server";
pub(super) const FILES: &str = "files";
pub(super) const URL: &str = "url";

/// The keys of one mapping.
pub(super) struct Section {
    /// Where the mapping stands, as documentation writes it.
    pub(super) path: &'static str,
    pub(super) keys: &'static [Key],
}

pub(super) struct Key {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    pub(super) need: Requirement,
    /// The flag that goes before it.
    pub(super) flag: Option<&'static str>,
    /// One sentence or two, for people.
    pub(super) doc: &'static str,
    /// A value as it is written in the file.
    pub(super) example: &'static str,
}

/// What a key holds.
pub(super) enum Kind {
    Text,
    Bool,
    /// Whole seconds, with bounds that belong to it.
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
    /// A whole number, with bounds that belong to it.
    Count {
        least: usize,
        most: usize,
    },
    Mapping(&'static Section),
    Mappings(&'static Section),
    /// A list of mappings, each of which says by its key `kind` what further keys it has.
    Kinds(&'static [(&'static str, &'static Section)]),
}

/// Whether a key must be there.
pub(super) enum Requirement {
    Required,
    Optional,
    /// What it is when it is not there.
    Default(&'static str),
}

impl Section {
    /// # Panics
    ///
    /// If the table has no such key: nothing is read that is not in it.
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
