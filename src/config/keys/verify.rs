//! Settings of the periodic check whether tokens would be accepted.

use super::{Key, Kind, Requirement, Section};

pub(in crate::config) static VERIFY: Section = Section {
    path: "issuers[].verify",
    keys: &[
        Key {
            name: "every",
            kind: Kind::Duration { least: "1s", most: "24h" },
            need: Requirement::Default("10m"),
            flag: None,
            doc: "Time between two verifications; at most a minute while tokens would not be accepted.",
            example: "10m",
        },
        Key {
            name: "for",
            kind: Kind::Choice(&["entra", "aws", "gcp", "kubernetes", "local"]),
            need: Requirement::Optional,
            flag: None,
            doc: "Relying party whose rules apply; by default `entra`, or `local` for an issuer on this machine.",
            example: "aws",
        },
        Key {
            name: "cloud",
            kind: Kind::Choice(&["public", "usgov", "china"]),
            need: Requirement::Default("public"),
            flag: None,
            doc: "Microsoft cloud.",
            example: "usgov",
        },
        Key {
            name: "audience",
            kind: Kind::Text,
            need: Requirement::Optional,
            flag: None,
            doc: "Audience of the token. By default: what Entra recommends, or `sts.amazonaws.com`; Google \
                and `kubernetes` have no default.",
            example: "api://AzureADTokenExchange",
        },
        Key {
            name: "service_account",
            kind: Kind::Text,
            need: Requirement::Optional,
            flag: None,
            doc: "Service account of the token. By default: the `probe` of the source, else this process's \
                own, and `signpost/signpost` if a node in this process signs.",
            example: "signpost/signpost",
        },
        Key {
            name: "allow_private",
            kind: Kind::Bool,
            need: Requirement::Default("false"),
            flag: None,
            doc: "Allow addresses that are not reachable from the internet, for test clusters.",
            example: "false",
        },
        Key {
            name: "ca_file",
            kind: Kind::Path,
            need: Requirement::Optional,
            flag: None,
            doc: "PEM file of additional trusted certificate authorities, for test clusters.",
            example: "/etc/signpost/ca.crt",
        },
    ],
};
