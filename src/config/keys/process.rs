//! Settings of the process: listeners, data, Events.

use super::{CONTEXT, ISSUER, KUBECONFIG, Key, Kind, Requirement, Section};

pub(in crate::config) static ROOT: Section = Section {
    path: "the top level",
    keys: &[
        Key {
            name: "listen",
            kind: Kind::Address,
            need: Requirement::Default("0.0.0.0:8080"),
            flag: Some("--listen"),
            doc: "Address that serves the documents to relying parties. The embedded default listens on \
                `127.0.0.1:8080`.",
            example: "0.0.0.0:8080",
        },
        Key {
            name: "admin_listen",
            kind: Kind::Address,
            need: Requirement::Default("127.0.0.1:9090"),
            flag: Some("--admin-listen"),
            doc: "Address that serves health, metrics and status to operators.",
            example: "127.0.0.1:9090",
        },
        Key {
            name: "tls",
            kind: Kind::Mapping(&TLS),
            need: Requirement::Optional,
            flag: None,
            doc: "Serve the documents over TLS (1.2 and 1.3), with a certificate from files. Without it, \
                plain HTTP, behind an ingress that terminates TLS.",
            example: "{certificate: /etc/signpost/tls/tls.crt, private_key: /etc/signpost/tls/tls.key}",
        },
        Key {
            name: "max_connections",
            kind: Kind::Count { least: 1, most: 1_000_000 },
            need: Requirement::Default("1000"),
            flag: None,
            doc: "Maximum number of concurrent connections of relying parties; more wait until one closes.",
            example: "1000",
        },
        Key {
            name: "data_dir",
            kind: Kind::Path,
            need: Requirement::Default("/var/lib/signpost"),
            flag: Some("--data-dir"),
            doc: "Directory of the ledger and the embedded keyring. Without a file it is `./signpost-data`.",
            example: "/var/lib/signpost",
        },
        Key {
            name: "events",
            kind: Kind::Mapping(&EVENTS),
            need: Requirement::Optional,
            flag: None,
            doc: "Report changes, failures and recoveries as Kubernetes Events. Off by default.",
            example: "{pod: signpost/signpost-0}",
        },
        Key {
            name: "issuers",
            kind: Kind::Mappings(&ISSUER),
            need: Requirement::Required,
            flag: None,
            doc: "The issuers, each independent of the others.",
            example: "[{issuer: https://oidc.example.com/kind, sources: […], targets: […]}]",
        },
    ],
};

pub(in crate::config) static TLS: Section = Section {
    path: "tls",
    keys: &[
        Key {
            name: "certificate",
            kind: Kind::Path,
            need: Requirement::Required,
            flag: Some("--tls-certificate"),
            doc: "The server's certificate and its chain, PEM. Reloaded when it changes.",
            example: "/etc/signpost/tls/tls.crt",
        },
        Key {
            name: "private_key",
            kind: Kind::Path,
            need: Requirement::Required,
            flag: Some("--tls-private-key"),
            doc: "The private key of the certificate, PEM without a passphrase. Reloaded when it changes.",
            example: "/etc/signpost/tls/tls.key",
        },
    ],
};

pub(in crate::config) static EVENTS: Section = Section {
    path: "events",
    keys: &[
        Key {
            name: "pod",
            kind: Kind::Text,
            need: Requirement::Required,
            flag: Some("--events-pod"),
            doc: "The pod that the Events are about, `NAMESPACE/NAME`: in a cluster Signpost's own.",
            example: "signpost/signpost-0",
        },
        Key {
            name: "pod_uid",
            kind: Kind::Text,
            need: Requirement::Optional,
            flag: Some("--events-pod-uid"),
            doc: "The UID of the pod: `kubectl describe pod` shows no Events without it.",
            example: "6f1c6f0c-6f6c-4b4e-8d43-0c3f3c9f5a4e",
        },
        KUBECONFIG,
        CONTEXT,
    ],
};
