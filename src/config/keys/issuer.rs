//! The issuer, its ledger and its previous issuers.

use super::{
    ANNOUNCEMENTS, API_SERVER, CONTEXT, EMBEDDED, FILES, KUBECONFIG, Key, Kind, Requirement, SIGNER, Section,
    TARGET, URL, VERIFY,
    source::{SOURCE_ANNOUNCEMENTS, SOURCE_API_SERVER, SOURCE_EMBEDDED, SOURCE_FILES, SOURCE_URL},
};

const JWKS_SERVED_ELSEWHERE: Key = Key {
    name: "jwks_served_elsewhere",
    kind: Kind::Bool,
    need: Requirement::Default("false"),
    flag: None,
    doc: "Whether another server serves `jwks_uri`, with what Signpost publishes as `openid/v1/jwks`. If a \
        target has a public address, the JWKS is read back from `jwks_uri`.",
    example: "false",
};

pub(in crate::config) static ISSUER: Section = Section {
    path: "issuers[]",
    keys: &[
        Key {
            name: "issuer",
            kind: Kind::Url,
            need: Requirement::Required,
            flag: Some("--issuer"),
            doc: "The issuer, exactly as in the `iss` claim of tokens: an https URL (http only on loopback).",
            example: "https://oidc.example.com/kind",
        },
        Key {
            name: "jwks_uri",
            kind: Kind::Url,
            need: Requirement::Optional,
            flag: None,
            doc: "URL of the JWKS; derived from the issuer by default. Below the issuer, Signpost writes and \
                serves it; any other URL needs `jwks_served_elsewhere`.",
            example: "https://oidc.example.com/kind/keys.json",
        },
        JWKS_SERVED_ELSEWHERE,
        Key {
            name: "profile",
            kind: Kind::Choice(&["entra", "all"]),
            need: Requirement::Default("entra"),
            flag: Some("--profile"),
            doc: "Keys to publish: `entra` for RS256 keys only, in the form that Microsoft Entra reads, or `all`.",
            example: "entra",
        },
        Key {
            name: "jwks_max_age",
            kind: Kind::Duration { least: "1s", most: "1h" },
            need: Requirement::Default("5m"),
            flag: None,
            doc: "Longest time that a relying party may cache the JWKS: the `max-age` of its `Cache-Control`.",
            example: "5m",
        },
        Key {
            name: "max_token_lifetime",
            kind: Kind::Duration { least: "1s", most: "8784h" },
            need: Requirement::Default("24h"),
            flag: None,
            doc: "Longest lifetime of a token of this issuer. A key that no source lists any more stays \
                published for this long plus `margin`. At least 10m, the minimum of Kubernetes, unless the \
                source is `embedded`. Microsoft Entra refuses tokens with a lifetime of more than 25h.",
            example: "24h",
        },
        Key {
            name: "margin",
            kind: Kind::Duration { least: "1s", most: "8784h" },
            need: Requirement::Default("1h"),
            flag: None,
            doc: "Added to every wait, to allow for clock skew.",
            example: "1h",
        },
        Key {
            name: "propagation",
            kind: Kind::Duration { least: "2s", most: "8784h" },
            need: Requirement::Default("24h"),
            flag: None,
            doc: "How long every target shows a new key before it signs: longer than any relying party \
                caches a JWKS, and at least twice `jwks_max_age`. Microsoft does not document how long Entra \
                caches one.",
            example: "24h",
        },
        Key {
            name: "rotate_after",
            kind: Kind::Duration { least: "1s", most: "87840h" },
            need: Requirement::Default("720h"),
            flag: None,
            doc: "Age at which a signing key is replaced, if Signpost signs. Longer than `propagation` plus \
                `margin`: the next key is generated when this one starts to sign.",
            example: "720h",
        },
        Key {
            name: "rotate_within",
            kind: Kind::Mapping(&ROTATE_WITHIN),
            need: Requirement::Optional,
            flag: None,
            doc: "Window for scheduled rotations; any time by default. Rotations that an operator requests \
                do not wait for it.",
            example: "{opens: \"0 2 * * SUN\", for: 4h, time_zone: Europe/Amsterdam}",
        },
        Key {
            name: "allow_issuer_mismatch",
            kind: Kind::Bool,
            need: Requirement::Default("false"),
            flag: None,
            doc: "Publish even if an API server reports another issuer.",
            example: "false",
        },
        Key {
            name: "sources",
            kind: Kind::Kinds(&[
                (API_SERVER, &SOURCE_API_SERVER),
                (FILES, &SOURCE_FILES),
                (URL, &SOURCE_URL),
                (ANNOUNCEMENTS, &SOURCE_ANNOUNCEMENTS),
                (EMBEDDED, &SOURCE_EMBEDDED),
            ]),
            need: Requirement::Required,
            flag: Some("--source"),
            doc: "Sources of keys; the union of all is published.",
            example: "[{kind: api-server}]",
        },
        Key {
            name: "targets",
            kind: Kind::Mappings(&TARGET),
            need: Requirement::Optional,
            flag: Some("--target"),
            doc: "Where to publish the documents, in addition to HTTP.",
            example: "[{url: \"az://account/$web\"}]",
        },
        Key {
            name: "schedule",
            kind: Kind::Schedule,
            need: Requirement::Default("*/5 * * * *"),
            flag: Some("--schedule"),
            doc: "Schedule to check all targets in full and repair them: cron, five fields, UTC. If both day \
                and weekday are given, both must match. A change of keys is published at once.",
            example: "\"*/5 * * * *\"",
        },
        Key {
            name: "ledger",
            kind: Kind::Mapping(&LEDGER),
            need: Requirement::Optional,
            flag: None,
            doc: "Where to store the ledger, instead of a file in the data directory.",
            example: "{config_map: signpost/signpost-ledger}",
        },
        Key {
            name: "previous_issuers",
            kind: Kind::Mappings(&FORMER),
            need: Requirement::Optional,
            flag: None,
            doc: "Previous issuers: their documents stay published, with the same keys, until they are \
                removed here.",
            example: "[{issuer: https://old.example.com/kind, targets: […]}]",
        },
        Key {
            name: "signer",
            kind: Kind::Mapping(&SIGNER),
            need: Requirement::Optional,
            flag: None,
            doc: "The node that signs for this issuer: for `signpost signer`, and for the source `embedded`.",
            example: "{socket: /run/signpost/signer.sock}",
        },
        Key {
            name: "verify",
            kind: Kind::Mapping(&VERIFY),
            need: Requirement::Optional,
            flag: None,
            doc: "Verify a fresh token against the public documents, periodically: needs a source that \
                issues tokens, `api-server` or `embedded`. Off by default, except with the embedded default \
                issuer.",
            example: "{every: 10m}",
        },
    ],
};

pub(in crate::config) static ROTATE_WITHIN: Section = Section {
    path: "issuers[].rotate_within",
    keys: &[
        Key {
            name: "opens",
            kind: Kind::Schedule,
            need: Requirement::Required,
            flag: None,
            doc: "When the window opens: cron, five fields, in `time_zone`. If both day and weekday are \
                given, both must match. A time that is skipped when clocks change is the moment of the \
                change; of a time that occurs twice, the first counts.",
            example: "\"0 2 * * SUN\"",
        },
        Key {
            name: "for",
            kind: Kind::Duration { least: "1m", most: "168h" },
            need: Requirement::Required,
            flag: None,
            doc: "How long it stays open. Longer than the poll interval of the source that observes the nodes.",
            example: "4h",
        },
        Key {
            name: "time_zone",
            kind: Kind::Text,
            need: Requirement::Default("UTC"),
            flag: None,
            doc: "Time zone of `opens`: a name of the IANA time zone database.",
            example: "Europe/Amsterdam",
        },
    ],
};

pub(in crate::config) static LEDGER: Section = Section {
    path: "issuers[].ledger",
    keys: &[
        Key {
            name: "config_map",
            kind: Kind::Text,
            need: Requirement::Required,
            flag: None,
            doc: "The ConfigMap, `NAMESPACE/NAME`; each issuer has its own. Created if it does not exist. \
                The data directory keeps a copy.",
            example: "signpost/signpost-ledger",
        },
        KUBECONFIG,
        CONTEXT,
    ],
};

pub(in crate::config) static FORMER: Section = Section {
    path: "issuers[].previous_issuers[]",
    keys: &[
        Key {
            name: "issuer",
            kind: Kind::Url,
            need: Requirement::Required,
            flag: None,
            doc: "The previous issuer, as in tokens that have not expired.",
            example: "https://old.example.com/kind",
        },
        Key {
            name: "jwks_uri",
            kind: Kind::Url,
            need: Requirement::Optional,
            flag: None,
            doc: "URL of the JWKS of the previous issuer; derived from it by default. Below it, or anywhere \
                else with `jwks_served_elsewhere`.",
            example: "https://old.example.com/kind/keys.json",
        },
        JWKS_SERVED_ELSEWHERE,
        Key {
            name: "targets",
            kind: Kind::Mappings(&TARGET),
            need: Requirement::Optional,
            flag: None,
            doc: "Where to publish its documents, in addition to HTTP: usually the targets that it had.",
            example: "[{url: \"az://account/$web\"}]",
        },
    ],
};
