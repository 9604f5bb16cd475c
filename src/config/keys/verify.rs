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
            doc: "Time between two looks. While tokens would not be accepted, it is a minute at most.",
            example: "10m",
        },
        Key {
            name: "for",
            kind: Kind::Choice(&["entra", "aws", "gcp", "kubernetes", "local"]),
            need: Requirement::Optional,
            flag: None,
            doc: "By whose rules. `entra` unless it is given, and `local` for an issuer of this machine.",
            example: "aws",
        },
        Key {
            name: "cloud",
            kind: Kind::Choice(&["public", "usgov", "china"]),
            need: Requirement::Default("public"),
            flag: None,
            doc: "Which cloud of Microsoft.",
            example: "usgov",
        },
        Key {
            name: "audience",
            kind: Kind::Text,
            need: Requirement::Optional,
            flag: None,
            doc: "For whom the token is. Unless it is given: what Entra recommends, or `sts.amazonaws.com`. Google \
                  and `kubernetes` have no usual one.",
            example: "api://AzureADTokenExchange",
        },
        Key {
            name: "service_account",
            kind: Kind::Text,
            need: Requirement::Optional,
            flag: None,
            doc: "Whose token it is. Unless it is given: the `probe` of the source, else this process's own, and \
                  `signpost/signpost` where a node in this process signs.",
            example: "signpost/signpost",
        },
        Key {
            name: "allow_private",
            kind: Kind::Bool,
            need: Requirement::Default("false"),
            flag: None,
            doc: "Ask addresses too that cannot be reached from the internet, as test clusters have them.",
            example: "false",
        },
        Key {
            name: "ca_file",
            kind: Kind::Path,
            need: Requirement::Optional,
            flag: None,
            doc: "PEM certificates of authorities that are trusted besides the system's, as test clusters have them.",
            example: "/etc/signpost/ca.crt",
        },
    ],
};
