//! The table of keys: what a configuration file may say.
//!
//! It drives the reader (unknown keys, types, bounds, defaults), `config schema` and the
//! documentation, so that none of them can know more than the others.

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
    pub(super) need: Need,
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
pub(super) enum Need {
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
            Self::Schedule => "five fields: minute hour day month weekday, UTC",
            Self::Choice(_) => "a word",
            Self::Texts => "a list of texts",
            Self::Count { .. } => "a whole number",
            Self::Mapping(_) => "a mapping",
            Self::Mappings(_) | Self::Kinds(_) => "a list of mappings",
        }
    }
}

/// Every section, in the order of the documentation.
pub(super) static SECTIONS: [&Section; 14] = [
    &ROOT,
    &TLS,
    &EVENTS,
    &ISSUER,
    &SOURCE_API_SERVER,
    &INSTANCE,
    &SOURCE_FILES,
    &SOURCE_URL,
    &SOURCE_EMBEDDED,
    &TARGET,
    &LEDGER,
    &FORMER,
    &SIGNER,
    &LEGACY,
];

pub(super) static ROOT: Section = Section {
    path: "the top level",
    keys: &[
        Key {
            name: "listen",
            kind: Kind::Address,
            need: Need::Default("0.0.0.0:8080"),
            flag: Some("--listen"),
            doc: "Where relying parties read the documents. The embedded default listens on `127.0.0.1:8080`.",
            example: "0.0.0.0:8080",
        },
        Key {
            name: "admin_listen",
            kind: Kind::Address,
            need: Need::Default("127.0.0.1:9090"),
            flag: Some("--admin-listen"),
            doc: "Where operators read health, metrics and status.",
            example: "127.0.0.1:9090",
        },
        Key {
            name: "tls",
            kind: Kind::Mapping(&TLS),
            need: Need::Optional,
            flag: None,
            doc: "Serves the documents over TLS (1.2 and 1.3), with a certificate from files. Without it: in plain \
                  text, behind an ingress that speaks TLS.",
            example: "{certificate: /etc/signpost/tls/tls.crt, private_key: /etc/signpost/tls/tls.key}",
        },
        Key {
            name: "max_connections",
            kind: Kind::Count { least: 1, most: 1_000_000 },
            need: Need::Default("1000"),
            flag: None,
            doc: "Most connections of relying parties at once; more wait until one ends.",
            example: "1000",
        },
        Key {
            name: "data_dir",
            kind: Kind::Path,
            need: Need::Default("/var/lib/signpost"),
            flag: Some("--data-dir"),
            doc: "Where the ledger and the embedded keyring live. Without a file it is `./signpost-data`.",
            example: "/var/lib/signpost",
        },
        Key {
            name: "events",
            kind: Kind::Mapping(&EVENTS),
            need: Need::Optional,
            flag: None,
            doc: "Tells of changes, failures and recoveries as Kubernetes Events. Without it, or its flags: no Events.",
            example: "{pod: signpost/signpost-0}",
        },
        Key {
            name: "issuers",
            kind: Kind::Mappings(&ISSUER),
            need: Need::Required,
            flag: None,
            doc: "The issuers, each independent of the others.",
            example: "[{issuer: https://oidc.example.com/kind, sources: […], targets: […]}]",
        },
    ],
};

pub(super) static TLS: Section = Section {
    path: "tls",
    keys: &[
        Key {
            name: "certificate",
            kind: Kind::Path,
            need: Need::Required,
            flag: Some("--tls-certificate"),
            doc: "The server's certificate and then those that lead to its CA, as PEM. Read again when it changes.",
            example: "/etc/signpost/tls/tls.crt",
        },
        Key {
            name: "private_key",
            kind: Kind::Path,
            need: Need::Required,
            flag: Some("--tls-private-key"),
            doc: "The private key of the certificate, as PEM without a passphrase. Read again when it changes.",
            example: "/etc/signpost/tls/tls.key",
        },
    ],
};

pub(super) static EVENTS: Section = Section {
    path: "events",
    keys: &[
        Key {
            name: "pod",
            kind: Kind::Text,
            need: Need::Required,
            flag: Some("--events-pod"),
            doc: "The pod that the Events are about, `NAMESPACE/NAME`: in a cluster Signpost's own.",
            example: "signpost/signpost-0",
        },
        Key {
            name: "pod_uid",
            kind: Kind::Text,
            need: Need::Optional,
            flag: Some("--events-pod-uid"),
            doc: "The UID of the pod: `kubectl describe pod` shows no Events without it.",
            example: "6f1c6f0c-6f6c-4b4e-8d43-0c3f3c9f5a4e",
        },
        KUBECONFIG,
        CONTEXT,
    ],
};

pub(super) static ISSUER: Section = Section {
    path: "issuers[]",
    keys: &[
        Key {
            name: "issuer",
            kind: Kind::Url,
            need: Need::Required,
            flag: Some("--issuer"),
            doc: "The issuer exactly as it stands in tokens as `iss`: an https URL (http on loopback alone).",
            example: "https://oidc.example.com/kind",
        },
        Key {
            name: "jwks_uri",
            kind: Kind::Url,
            need: Need::Optional,
            flag: None,
            doc: "Where relying parties read the JWKS. Follows from the issuer unless it is given.",
            example: "https://oidc.example.com/kind/openid/v1/jwks",
        },
        Key {
            name: "profile",
            kind: Kind::Choice(&["entra", "all"]),
            need: Need::Default("entra"),
            flag: Some("--profile"),
            doc: "Which keys are published: `entra`, RS256 keys alone in the form that Microsoft Entra reads, \
                  or `all`.",
            example: "entra",
        },
        Key {
            name: "jwks_max_age",
            kind: Kind::Duration { least: "1s", most: "1h" },
            need: Need::Default("5m"),
            flag: None,
            doc: "Longest that a relying party may keep a JWKS: the `max-age` of its `Cache-Control`.",
            example: "5m",
        },
        Key {
            name: "max_token_lifetime",
            kind: Kind::Duration { least: "1s", most: "8784h" },
            need: Need::Default("24h"),
            flag: None,
            doc: "Longest life of a token of this issuer: as long, and a margin, a key that vanished stays \
                  published. At least 10m, the shortest that Kubernetes gives, unless the source is `embedded`.",
            example: "24h",
        },
        Key {
            name: "margin",
            kind: Kind::Duration { least: "1s", most: "8784h" },
            need: Need::Default("1h"),
            flag: None,
            doc: "What is added to every wait, for clocks that disagree.",
            example: "1h",
        },
        Key {
            name: "propagation",
            kind: Kind::Duration { least: "2s", most: "8784h" },
            need: Need::Default("24h"),
            flag: None,
            doc: "How long every target shows a new key before it signs: longer than any relying party keeps a \
                  JWKS, and at least twice `jwks_max_age`. Microsoft does not say how long Entra keeps one.",
            example: "24h",
        },
        Key {
            name: "rotate_after",
            kind: Kind::Duration { least: "1s", most: "87840h" },
            need: Need::Default("720h"),
            flag: None,
            doc: "The age at which a signing key is replaced, where Signpost signs. Longer than `propagation` and \
                  `margin`: its successor is made when it begins to sign.",
            example: "720h",
        },
        Key {
            name: "allow_issuer_mismatch",
            kind: Kind::Bool,
            need: Need::Default("false"),
            flag: None,
            doc: "Publish although an API server says that it is another issuer.",
            example: "false",
        },
        Key {
            name: "sources",
            kind: Kind::Kinds(&[
                (API_SERVER, &SOURCE_API_SERVER),
                (FILES, &SOURCE_FILES),
                (URL, &SOURCE_URL),
                (EMBEDDED, &SOURCE_EMBEDDED),
            ]),
            need: Need::Required,
            flag: Some("--source"),
            doc: "Where the keys come from; the union of all is published.",
            example: "[{kind: api-server}]",
        },
        Key {
            name: "targets",
            kind: Kind::Mappings(&TARGET),
            need: Need::Optional,
            flag: Some("--target"),
            doc: "Where the documents are published, besides HTTP.",
            example: "[{url: \"az://account/$web\"}]",
        },
        Key {
            name: "schedule",
            kind: Kind::Schedule,
            need: Need::Default("*/5 * * * *"),
            flag: Some("--schedule"),
            doc: "When all targets are checked in full and repaired: cron, five fields, UTC. Where both day and \
                  weekday are given, both must match. A change of keys is published at once.",
            example: "\"*/5 * * * *\"",
        },
        Key {
            name: "ledger",
            kind: Kind::Mapping(&LEDGER),
            need: Need::Optional,
            flag: None,
            doc: "Where the ledger lives, unless it is a file in the data directory.",
            example: "{config_map: signpost/ledger}",
        },
        Key {
            name: "former",
            kind: Kind::Mappings(&FORMER),
            need: Need::Optional,
            flag: None,
            doc: "Issuers that were moved to this one: their documents stay published, with the same keys, until \
                  they are taken out of here.",
            example: "[{issuer: https://old.example.com/kind, targets: […]}]",
        },
        Key {
            name: "signer",
            kind: Kind::Mapping(&SIGNER),
            need: Need::Optional,
            flag: None,
            doc: "What `signpost signer` needs to know to sign for this issuer.",
            example: "{socket: /run/signpost/signer.sock}",
        },
    ],
};

const KIND: Key = Key {
    name: "kind",
    kind: Kind::Text,
    need: Need::Required,
    flag: None,
    doc: "What the source is.",
    example: "api-server",
};

const SOURCE_NAME: Key = Key {
    name: "name",
    kind: Kind::Text,
    need: Need::Optional,
    flag: None,
    doc: "The name in logs, metrics and the ledger: unique in its issuer. Unless it is given: `kubernetes` or \
          `kubernetes:CONTEXT`.",
    example: "cluster-a",
};

const EVERY: Key = Key {
    name: "every",
    kind: Kind::Duration { least: "1s", most: "24h" },
    need: Need::Default("30s"),
    flag: None,
    doc: "Time between two polls of this source.",
    example: "30s",
};

const KUBECONFIG: Key = Key {
    name: "kubeconfig",
    kind: Kind::Path,
    need: Need::Optional,
    flag: None,
    doc: "The kubeconfig. With neither this nor a context: the cluster that Signpost runs in.",
    example: "/etc/signpost/kubeconfig",
};

const CONTEXT: Key = Key {
    name: "context",
    kind: Kind::Text,
    need: Need::Optional,
    flag: None,
    doc: "The context of `kubeconfig`, or of the user's own kubeconfig, unless it is the current one.",
    example: "kind-kind",
};

static SOURCE_API_SERVER: Section = Section {
    path: "issuers[].sources[] of kind `api-server`",
    keys: &[
        KIND,
        SOURCE_NAME,
        KUBECONFIG,
        CONTEXT,
        Key {
            name: "discover",
            kind: Kind::Bool,
            need: Need::Default("true"),
            flag: None,
            doc: "Find every API server of the control plane through the cluster, and ask each of them. Without \
                  the right to, or with `false`, whoever answers at the one URL is asked.",
            example: "false",
        },
        Key {
            name: "instances",
            kind: Kind::Mappings(&INSTANCE),
            need: Need::Optional,
            flag: None,
            doc: "The API servers of the control plane, where they cannot be found through the cluster, or not \
                  reached at the addresses that it lists.",
            example: "[{url: \"https://10.0.0.1:6443\"}]",
        },
        Key {
            name: "probe",
            kind: Kind::Text,
            need: Need::Optional,
            flag: None,
            doc: "The service account whose token shows which key signs now, unless it is Signpost's own.",
            example: "signpost/probe",
        },
        EVERY,
    ],
};

pub(super) static INSTANCE: Section = Section {
    path: "issuers[].sources[].instances[]",
    keys: &[
        Key {
            name: "url",
            kind: Kind::Url,
            need: Need::Required,
            flag: None,
            doc: "The URL of one API server.",
            example: "https://10.0.0.1:6443",
        },
        Key {
            name: "tls_server_name",
            kind: Kind::Text,
            need: Need::Optional,
            flag: None,
            doc: "The name its certificate is checked for, where the URL holds an address.",
            example: "kubernetes.default.svc",
        },
    ],
};

static SOURCE_FILES: Section = Section {
    path: "issuers[].sources[] of kind `files`",
    keys: &[
        Key { example: "files", ..KIND },
        Key {
            doc: "The name in logs, metrics and the ledger: unique in its issuer. Unless it is given: the paths.",
            example: "ahead",
            ..SOURCE_NAME
        },
        Key {
            name: "paths",
            kind: Kind::Texts,
            need: Need::Required,
            flag: None,
            doc: "Absolute paths of PEM or JWKS files, of directories of them, or globs.",
            example: "[/etc/kubernetes/pki/sa.pub]",
        },
        Key {
            name: "optional",
            kind: Kind::Bool,
            need: Need::Default("false"),
            flag: None,
            doc: "Let directories be empty and globs find nothing, as for keys that are published ahead of time. \
                  A path that does not exist is a fault all the same, and so is a glob in such a directory.",
            example: "true",
        },
        EVERY,
    ],
};

static SOURCE_URL: Section = Section {
    path: "issuers[].sources[] of kind `url`",
    keys: &[
        Key { example: "url", ..KIND },
        Key {
            doc: "The name in logs, metrics and the ledger: unique in its issuer. Unless it is given: the url.",
            example: "edge",
            ..SOURCE_NAME
        },
        Key {
            name: "url",
            kind: Kind::Url,
            need: Need::Required,
            flag: None,
            doc: "The https URL of a JWKS, most often that of another cluster's API server. Where it ends with \
                  `/openid/v1/jwks`, the discovery document beside it must name this issuer.",
            example: "https://10.0.0.1:6443/openid/v1/jwks",
        },
        Key {
            name: "bearer_token_file",
            kind: Kind::Path,
            need: Need::Optional,
            flag: None,
            doc: "A file with the token that is shown there. Read for every request.",
            example: "/var/run/secrets/edge/token",
        },
        Key {
            name: "ca_file",
            kind: Kind::Path,
            need: Need::Optional,
            flag: None,
            doc: "PEM certificates of the authorities that are trusted there, in place of the system's.",
            example: "/etc/signpost/edge-ca.crt",
        },
        EVERY,
    ],
};

static SOURCE_EMBEDDED: Section =
    Section { path: "issuers[].sources[] of kind `embedded`", keys: &[Key { example: "embedded", ..KIND }] };

pub(super) static LEDGER: Section = Section {
    path: "issuers[].ledger",
    keys: &[
        Key {
            name: "config_map",
            kind: Kind::Text,
            need: Need::Required,
            flag: None,
            doc: "The ConfigMap, `NAMESPACE/NAME`; each issuer has its own. It is made unless it exists. The data \
                  directory keeps a copy.",
            example: "signpost/ledger",
        },
        Key {
            name: "kubeconfig",
            kind: Kind::Path,
            need: Need::Optional,
            flag: None,
            doc: "The kubeconfig. With neither this nor a context: the cluster that Signpost runs in.",
            example: "/etc/signpost/kubeconfig",
        },
        Key {
            name: "context",
            kind: Kind::Text,
            need: Need::Optional,
            flag: None,
            doc: "The context of `kubeconfig`, or of the user's own kubeconfig, unless it is the current one.",
            example: "kind-kind",
        },
    ],
};

pub(super) static FORMER: Section = Section {
    path: "issuers[].former[]",
    keys: &[
        Key {
            name: "issuer",
            kind: Kind::Url,
            need: Need::Required,
            flag: None,
            doc: "The issuer as it stands in tokens that still live.",
            example: "https://old.example.com/kind",
        },
        Key {
            name: "jwks_uri",
            kind: Kind::Url,
            need: Need::Optional,
            flag: None,
            doc: "Where relying parties of the former issuer read the JWKS. Follows from it unless it is given.",
            example: "https://old.example.com/kind/openid/v1/jwks",
        },
        Key {
            name: "targets",
            kind: Kind::Mappings(&TARGET),
            need: Need::Optional,
            flag: None,
            doc: "Where its documents are published, besides HTTP: most often the targets that it had.",
            example: "[{url: \"az://account/$web\"}]",
        },
    ],
};

pub(super) static TARGET: Section = Section {
    path: "issuers[].targets[]",
    keys: &[
        Key {
            name: "url",
            kind: Kind::Url,
            need: Need::Required,
            flag: Some("--target"),
            doc: "`az://ACCOUNT/CONTAINER/PREFIX`, `s3://BUCKET/PREFIX`, `gs://BUCKET/PREFIX` or \
                  `file:///DIRECTORY`. Credentials come from the environment, never from here.",
            example: "az://account/$web",
        },
        Key {
            name: "name",
            kind: Kind::Text,
            need: Need::Optional,
            flag: None,
            doc: "The name in logs, metrics and the ledger: unique in its issuer. Unless it is given: the url.",
            example: "eu",
        },
        Key {
            name: "public_url",
            kind: Kind::Url,
            need: Need::Optional,
            flag: None,
            doc: "Where the world reads what is stored there: read back from there too.",
            example: "https://oidc.example.com/kind",
        },
        Key {
            name: "anonymous",
            kind: Kind::Bool,
            need: Need::Default("false"),
            flag: None,
            doc: "Whether the world reads straight from the store: read back without credentials too, at the \
                  address of the store itself, so that a private bucket is noticed.",
            example: "true",
        },
        Key {
            name: "gate",
            kind: Kind::Bool,
            need: Need::Default("true"),
            flag: None,
            doc: "Whether a new key must be shown here before it may sign. With `false` this target holds \
                  nothing up while it lags; its failures are told all the same.",
            example: "false",
        },
        Key {
            name: "endpoint",
            kind: Kind::Url,
            need: Need::Optional,
            flag: None,
            doc: "The service itself, unless it is the cloud's own: a private S3 server, an emulator.",
            example: "http://127.0.0.1:9000",
        },
        Key {
            name: "profile",
            kind: Kind::Choice(&["entra", "all"]),
            need: Need::Optional,
            flag: None,
            doc: "Which keys this target is given, unless they are those of the issuer's profile.",
            example: "all",
        },
    ],
};

pub(super) static SIGNER: Section = Section {
    path: "issuers[].signer",
    keys: &[
        Key {
            name: "socket",
            kind: Kind::Text,
            need: Need::Optional,
            flag: None,
            doc: "Where kube-apiserver finds the signer, as in its `--service-account-signing-endpoint`: an absolute \
                  path, or `@NAME`. The flag `--socket` goes before it.",
            example: "/run/signpost/signer.sock",
        },
        Key {
            name: "mode",
            kind: Kind::Text,
            need: Need::Default("0660"),
            flag: None,
            doc: "Mode of the socket.",
            example: "\"0660\"",
        },
        Key {
            name: "group",
            kind: Kind::Text,
            need: Need::Optional,
            flag: None,
            doc: "Group of the socket, as a number: a process of that group may connect.",
            example: "\"65532\"",
        },
        Key {
            name: "users",
            kind: Kind::Texts,
            need: Need::Optional,
            flag: None,
            doc: "Users who may connect, as numbers, besides root and the signer's own.",
            example: "[\"65532\"]",
        },
        Key {
            name: "node",
            kind: Kind::Text,
            need: Need::Optional,
            flag: None,
            doc: "Name of this machine among those that sign. The host name unless it is given; the flag `--node` \
                  goes before it.",
            example: "control-plane-1",
        },
        Key {
            name: "api_audiences",
            kind: Kind::Texts,
            need: Need::Optional,
            flag: None,
            doc: "The `--api-audiences` of kube-apiserver; the issuer unless they are given. A token for these alone \
                  may be signed with a key that is not ready.",
            example: "[\"https://kubernetes.default.svc\"]",
        },
        Key {
            name: "refresh_hint",
            kind: Kind::Duration { least: "1s", most: "1h" },
            need: Need::Default("1m"),
            flag: None,
            doc: "How often kube-apiserver asks for the keys.",
            example: "1m",
        },
        Key {
            name: "key",
            kind: Kind::Choice(&["rs256-2048", "rs256-3072", "rs256-4096"]),
            need: Need::Default("rs256-2048"),
            flag: None,
            doc: "Which keys are made from now on.",
            example: "rs256-3072",
        },
        Key {
            name: "legacy",
            kind: Kind::Mappings(&LEGACY),
            need: Need::Optional,
            flag: None,
            doc: "Public keys of before, as long as tokens of theirs are alive: kube-apiserver verifies with them.",
            example: "[{file: /etc/kubernetes/pki/sa.pub}]",
        },
    ],
};

pub(super) static LEGACY: Section = Section {
    path: "issuers[].signer.legacy[]",
    keys: &[
        Key {
            name: "file",
            kind: Kind::Path,
            need: Need::Required,
            flag: None,
            doc: "A file with public keys.",
            example: "/etc/kubernetes/pki/sa.pub",
        },
        Key {
            name: "exclude",
            kind: Kind::Bool,
            need: Need::Default("false"),
            flag: None,
            doc: "Whether kube-apiserver leaves them out of its JWKS: when only tokens for itself are alive.",
            example: "true",
        },
    ],
};
