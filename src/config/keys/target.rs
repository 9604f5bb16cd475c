//! Settings of targets.

use super::{Key, Kind, Requirement, Section};

pub(in crate::config) static TARGET: Section = Section {
    path: "issuers[].targets[]",
    keys: &[
        Key {
            name: "url",
            kind: Kind::Url,
            need: Requirement::Required,
            flag: Some("--target"),
            doc: "`az://ACCOUNT/CONTAINER/PREFIX`, `s3://BUCKET/PREFIX`, `gs://BUCKET/PREFIX` or \
                  `file:///DIRECTORY`. Credentials come from the environment, never from here.",
            example: "az://account/$web",
        },
        Key {
            name: "name",
            kind: Kind::Text,
            need: Requirement::Optional,
            flag: None,
            doc: "Name in logs, metrics and the ledger; unique in its issuer. By default: the url.",
            example: "eu",
        },
        Key {
            name: "public_url",
            kind: Kind::Url,
            need: Requirement::Optional,
            flag: None,
            doc: "Public URL of what is stored there: read back from there too.",
            example: "https://oidc.example.com/kind",
        },
        Key {
            name: "anonymous",
            kind: Kind::Bool,
            need: Requirement::Default("false"),
            flag: None,
            doc: "Whether relying parties read directly from the store: read back without credentials too, \
                at the address of the store itself, to detect a private bucket.",
            example: "true",
        },
        Key {
            name: "required_for_rotation",
            kind: Kind::Bool,
            need: Requirement::Default("true"),
            flag: None,
            doc: "Whether a new key must be shown here before it may sign. With `false`, rotation does not \
                wait for this target; its failures are still reported.",
            example: "false",
        },
        Key {
            name: "endpoint",
            kind: Kind::Url,
            need: Requirement::Optional,
            flag: None,
            doc: "Endpoint of the service, instead of the cloud's own: a private S3 server, an emulator.",
            example: "http://127.0.0.1:9000",
        },
        Key {
            name: "ca_file",
            kind: Kind::Path,
            need: Requirement::Optional,
            flag: None,
            doc: "PEM file of additional trusted certificate authorities, for `endpoint` and `public_url`.",
            example: "/etc/signpost/store-ca.crt",
        },
        Key {
            name: "profile",
            kind: Kind::Choice(&["entra", "all"]),
            need: Requirement::Optional,
            flag: None,
            doc: "Profile of this target; that of the issuer by default.",
            example: "all",
        },
    ],
};
