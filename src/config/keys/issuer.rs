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
    doc: "Whether somebody else serves `jwks_uri`, with what Signpost publishes as `openid/v1/jwks`. Where a target has \
          a public address, the JWKS is read back from `jwks_uri`.",
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
            doc: "The issuer exactly as it stands in tokens as `iss`: an https URL (http on loopback alone).",
            example: "https://oidc.example.com/kind",
        },
        Key {
            name: "jwks_uri",
            kind: Kind::Url,
            need: Requirement::Optional,
            flag: None,
            doc: "Where relying parties read the JWKS. Follows from the issuer unless it is given. Below the issuer, \
                  where it is written and served; anywhere else only with `jwks_served_elsewhere`.",
            example: "https://oidc.example.com/kind/keys.json",
        },
        JWKS_SERVED_ELSEWHERE,
        Key {
            name: "profile",
            kind: Kind::Choice(&["entra", "all"]),
            need: Requirement::Default("entra"),
            flag: Some("--profile"),
            doc: "Which keys are published: `entra`, RS256 keys alone in the form that Microsoft Entra reads, \
                  or `all`.",
            example: "entra",
        },
        Key {
            name: "jwks_max_age",
            kind: Kind::Duration { least: "1s", most: "1h" },
            need: Requirement::Default("5m"),
            flag: None,
            doc: "Longest that a relying party may keep a JWKS: the `max-age` of its `Cache-Control`.",
            example: "5m",
        },
        Key {
            name: "max_token_lifetime",
            kind: Kind::Duration { least: "1s", most: "8784h" },
            need: Requirement::Default("24h"),
            flag: None,
            doc: "Longest life of a token of this issuer: as long, and a margin, a key that vanished stays \
                  published. At least 10m, the shortest that Kubernetes gives, unless the source is `embedded`. Microsoft \
                  Entra refuses tokens that live for more than 25h.",
            example: "24h",
        },
        Key {
            name: "margin",
            kind: Kind::Duration { least: "1s", most: "8784h" },
            need: Requirement::Default("1h"),
            flag: None,
            doc: "What is added to every wait, for clocks that disagree.",
            example: "1h",
        },
        Key {
            name: "propagation",
            kind: Kind::Duration { least: "2s", most: "8784h" },
            need: Requirement::Default("24h"),
            flag: None,
            doc: "How long every target shows a new key before it signs: longer than any relying party keeps a \
                  JWKS, and at least twice `jwks_max_age`. Microsoft does not say how long Entra keeps one.",
            example: "24h",
        },
        Key {
            name: "rotate_after",
            kind: Kind::Duration { least: "1s", most: "87840h" },
            need: Requirement::Default("720h"),
            flag: None,
            doc: "The age at which a signing key is replaced, where Signpost signs. Longer than `propagation` and \
                  `margin`: its successor is made when it begins to sign.",
            example: "720h",
        },
        Key {
            name: "rotate_within",
            kind: Kind::Mapping(&ROTATE_WITHIN),
            need: Requirement::Optional,
            flag: None,
            doc: "The window in which a key that is of age is replaced: at any time unless it is given. What is asked \
                  for by hand does not wait for it.",
            example: "{opens: \"0 2 * * SUN\", for: 4h, time_zone: Europe/Amsterdam}",
        },
        Key {
            name: "allow_issuer_mismatch",
            kind: Kind::Bool,
            need: Requirement::Default("false"),
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
                (ANNOUNCEMENTS, &SOURCE_ANNOUNCEMENTS),
                (EMBEDDED, &SOURCE_EMBEDDED),
            ]),
            need: Requirement::Required,
            flag: Some("--source"),
            doc: "Where the keys come from; the union of all is published.",
            example: "[{kind: api-server}]",
        },
        Key {
            name: "targets",
            kind: Kind::Mappings(&TARGET),
            need: Requirement::Optional,
            flag: Some("--target"),
            doc: "Where the documents are published, besides HTTP.",
            example: "[{url: \"az://account/$web\"}]",
        },
        Key {
            name: "schedule",
            kind: Kind::Schedule,
            need: Requirement::Default("*/5 * * * *"),
            flag: Some("--schedule"),
            doc: "When all targets are checked in full and repaired: cron, five fields, UTC. Where both day and \
                  weekday are given, both must match. A change of keys is published at once.",
            example: "\"*/5 * * * *\"",
        },
        Key {
            name: "ledger",
            kind: Kind::Mapping(&LEDGER),
            need: Requirement::Optional,
            flag: None,
            doc: "Where the ledger lives, unless it is a file in the data directory.",
            example: "{config_map: signpost/signpost-ledger}",
        },
        Key {
            name: "previous_issuers",
            kind: Kind::Mappings(&FORMER),
            need: Requirement::Optional,
            flag: None,
            doc: "Issuers that were moved to this one: their documents stay published, with the same keys, until \
                  they are taken out of here.",
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
            doc: "Judge a fresh token against the public documents, again and again: needs a source that gives tokens, \
                  `api-server` or `embedded`. Not done unless it is given; the embedded default does it.",
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
            doc: "When the window opens: cron, five fields, in `time_zone`. Where both day and weekday are given, both \
                  must match. A time that clocks leave out in spring is the moment at which they are moved; of one \
                  that they show twice in autumn the first counts.",
            example: "\"0 2 * * SUN\"",
        },
        Key {
            name: "for",
            kind: Kind::Duration { least: "1m", most: "168h" },
            need: Requirement::Required,
            flag: None,
            doc: "How long it stays open. Longer than the time between two polls of the source that says what nodes do.",
            example: "4h",
        },
        Key {
            name: "time_zone",
            kind: Kind::Text,
            need: Requirement::Default("UTC"),
            flag: None,
            doc: "Whose clocks `opens` is read on: a name of the IANA time zone database.",
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
            doc: "The ConfigMap, `NAMESPACE/NAME`; each issuer has its own. It is made unless it exists. The data \
                  directory keeps a copy.",
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
            doc: "The issuer as it stands in tokens that still live.",
            example: "https://old.example.com/kind",
        },
        Key {
            name: "jwks_uri",
            kind: Kind::Url,
            need: Requirement::Optional,
            flag: None,
            doc: "Where relying parties of the former issuer read the JWKS. Follows from it unless it is given. Below \
                  it, or with `jwks_served_elsewhere` anywhere else.",
            example: "https://old.example.com/kind/keys.json",
        },
        JWKS_SERVED_ELSEWHERE,
        Key {
            name: "targets",
            kind: Kind::Mappings(&TARGET),
            need: Requirement::Optional,
            flag: None,
            doc: "Where its documents are published, besides HTTP: most often the targets that it had.",
            example: "[{url: \"az://account/$web\"}]",
        },
    ],
};
