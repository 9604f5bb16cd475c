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
            doc: "The name in logs, metrics and the ledger: unique in its issuer. Unless it is given: the url.",
            example: "eu",
        },
        Key {
            name: "public_url",
            kind: Kind::Url,
            need: Requirement::Optional,
            flag: None,
            doc: "Where the world reads what is stored there: read back from there too.",
            example: "https://oidc.example.com/kind",
        },
        Key {
            name: "anonymous",
            kind: Kind::Bool,
            need: Requirement::Default("false"),
            flag: None,
            doc: "Whether the world reads straight from the store: read back without credentials too, at the \
                  address of the store itself, so that a private bucket is noticed.",
            example: "true",
        },
        Key {
            name: "gate",
            kind: Kind::Bool,
            need: Requirement::Default("true"),
            flag: None,
            doc: "Whether a new key must be shown here before it may sign. With `false` this target holds \
                  nothing up while it lags; its failures are told all the same.",
            example: "false",
        },
        Key {
            name: "endpoint",
            kind: Kind::Url,
            need: Requirement::Optional,
            flag: None,
            doc: "The service itself, unless it is the cloud's own: a private S3 server, an emulator.",
            example: "http://127.0.0.1:9000",
        },
        Key {
            name: "ca_file",
            kind: Kind::Path,
            need: Requirement::Optional,
            flag: None,
            doc: "PEM certificates of authorities that are trusted besides the system's, at `endpoint` and at \
                  `public_url`.",
            example: "/etc/signpost/store-ca.crt",
        },
        Key {
            name: "profile",
            kind: Kind::Choice(&["entra", "all"]),
            need: Requirement::Optional,
            flag: None,
            doc: "Which keys this target is given, unless they are those of the issuer's profile.",
            example: "all",
        },
    ],
};
