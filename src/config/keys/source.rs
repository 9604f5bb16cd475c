//! Settings of sources.

use super::{CONTEXT, KUBECONFIG, Key, Kind, Requirement, Section};

const KIND: Key = Key {
    name: "kind",
    kind: Kind::Text,
    need: Requirement::Required,
    flag: None,
    doc: "What the source is.",
    example: "api-server",
};

const SOURCE_NAME: Key = Key {
    name: "name",
    kind: Kind::Text,
    need: Requirement::Optional,
    flag: None,
    doc: "Name in logs, metrics and the ledger; unique in its issuer. By default: `kubernetes` or \
          `kubernetes:CONTEXT`.",
    example: "cluster-a",
};

const EVERY: Key = Key {
    name: "every",
    kind: Kind::Duration { least: "1s", most: "24h" },
    need: Requirement::Default("30s"),
    flag: None,
    doc: "Time between two polls of this source.",
    example: "30s",
};

pub(in crate::config) static SOURCE_API_SERVER: Section = Section {
    path: "issuers[].sources[] of kind `api-server`",
    keys: &[
        KIND,
        SOURCE_NAME,
        KUBECONFIG,
        CONTEXT,
        Key {
            name: "discover",
            kind: Kind::Bool,
            need: Requirement::Default("true"),
            flag: None,
            doc: "Discover every API server of the control plane through the cluster, and poll each of them. \
                Without permission, or with `false`, only the one URL is polled.",
            example: "false",
        },
        Key {
            name: "instances",
            kind: Kind::Mappings(&INSTANCE),
            need: Requirement::Optional,
            flag: None,
            doc: "The API servers of the control plane, if they cannot be discovered through the cluster, or \
                not be reached at the addresses that it lists.",
            example: "[{url: \"https://10.0.0.1:6443\"}]",
        },
        Key {
            name: "probe",
            kind: Kind::Text,
            need: Requirement::Optional,
            flag: None,
            doc: "The service account whose token shows which key signs now; Signpost's own by default.",
            example: "signpost/probe",
        },
        EVERY,
    ],
};

pub(in crate::config) static INSTANCE: Section = Section {
    path: "issuers[].sources[].instances[]",
    keys: &[
        Key {
            name: "url",
            kind: Kind::Url,
            need: Requirement::Required,
            flag: None,
            doc: "The URL of one API server.",
            example: "https://10.0.0.1:6443",
        },
        Key {
            name: "tls_server_name",
            kind: Kind::Text,
            need: Requirement::Optional,
            flag: None,
            doc: "Name to verify its certificate for, if the URL has an address.",
            example: "kubernetes.default.svc",
        },
    ],
};

pub(in crate::config) static SOURCE_FILES: Section = Section {
    path: "issuers[].sources[] of kind `files`",
    keys: &[
        Key { example: "files", ..KIND },
        Key {
            doc: "Name in logs, metrics and the ledger; unique in its issuer. By default: the paths.",
            example: "ahead",
            ..SOURCE_NAME
        },
        Key {
            name: "paths",
            kind: Kind::Texts,
            need: Requirement::Required,
            flag: None,
            doc: "Absolute paths of PEM or JWKS files, of directories of them, or globs. Certificates in a \
                directory or glob are skipped, and so are the keys that they belong to.",
            example: "[/etc/kubernetes/pki/sa.pub]",
        },
        Key {
            name: "optional",
            kind: Kind::Bool,
            need: Requirement::Default("false"),
            flag: None,
            doc: "Allow empty directories and globs without matches, as for keys that are published ahead of \
                time. A path that does not exist is still an error, and so is a glob in such a directory.",
            example: "true",
        },
        EVERY,
    ],
};

pub(in crate::config) static SOURCE_URL: Section = Section {
    path: "issuers[].sources[] of kind `url`",
    keys: &[
        Key { example: "url", ..KIND },
        Key {
            doc: "Name in logs, metrics and the ledger; unique in its issuer. By default: the url.",
            example: "edge",
            ..SOURCE_NAME
        },
        Key {
            name: "url",
            kind: Kind::Url,
            need: Requirement::Required,
            flag: None,
            doc: "The https URL of a JWKS, most often that of another cluster's API server. If it ends with \
                `/openid/v1/jwks`, the discovery document next to it must name this issuer.",
            example: "https://10.0.0.1:6443/openid/v1/jwks",
        },
        Key {
            name: "bearer_token_file",
            kind: Kind::Path,
            need: Requirement::Optional,
            flag: None,
            doc: "File with the bearer token. Read for every request.",
            example: "/var/run/secrets/edge/token",
        },
        Key {
            name: "ca_file",
            kind: Kind::Path,
            need: Requirement::Optional,
            flag: None,
            doc: "PEM file of the trusted certificate authorities, instead of the system's.",
            example: "/etc/signpost/edge-ca.crt",
        },
        EVERY,
    ],
};

pub(in crate::config) static SOURCE_ANNOUNCEMENTS: Section = Section {
    path: "issuers[].sources[] of kind `announcements`",
    keys: &[
        Key { example: "announcements", ..KIND },
        Key {
            doc: "Name in logs, metrics and the ledger; unique in its issuer. By default: the kind.",
            example: "signers",
            ..SOURCE_NAME
        },
        Key {
            name: "directory",
            kind: Kind::Path,
            need: Requirement::Optional,
            flag: None,
            doc: "Directory of the announcements of `signpost signer`: `announcements` in its data \
                directory, which has to be that of the publisher, so that the signer reads its ledger. Not \
                needed if the ledger is in a ConfigMap: nodes announce in ConfigMaps next to it.",
            example: "/var/lib/signpost/announcements",
        },
        EVERY,
    ],
};

pub(in crate::config) static SOURCE_EMBEDDED: Section =
    Section { path: "issuers[].sources[] of kind `embedded`", keys: &[Key { example: "embedded", ..KIND }] };
