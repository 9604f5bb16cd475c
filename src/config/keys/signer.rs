//! Settings of a signing node.

use super::{Key, Kind, Requirement, Section};

pub(in crate::config) static SIGNER: Section = Section {
    path: "issuers[].signer",
    keys: &[
        Key {
            name: "socket",
            kind: Kind::Text,
            need: Requirement::Optional,
            flag: None,
            doc: "Socket for kube-apiserver, as in its `--service-account-signing-endpoint`: an absolute \
                path, or `@NAME`. The flag `--socket` overrides it.",
            example: "/run/signpost/signer.sock",
        },
        Key {
            name: "mode",
            kind: Kind::Text,
            need: Requirement::Default("0660"),
            flag: None,
            doc: "Mode of the socket.",
            example: "\"0660\"",
        },
        Key {
            name: "group",
            kind: Kind::Text,
            need: Requirement::Optional,
            flag: None,
            doc: "Group of the socket, as a number: its members may connect.",
            example: "\"65532\"",
        },
        Key {
            name: "users",
            kind: Kind::Texts,
            need: Requirement::Optional,
            flag: None,
            doc: "UIDs that may connect, in addition to root and the signer's own.",
            example: "[\"65532\"]",
        },
        Key {
            name: "node",
            kind: Kind::Text,
            need: Requirement::Optional,
            flag: None,
            doc: "Name of this node; the host name by default. The flag `--node` overrides it.",
            example: "control-plane-1",
        },
        Key {
            name: "api_audiences",
            kind: Kind::Texts,
            need: Requirement::Optional,
            flag: None,
            doc: "The `--api-audiences` of kube-apiserver; the issuer by default. Tokens for only these \
                audiences may be signed with a key that is not ready.",
            example: "[\"https://kubernetes.default.svc\"]",
        },
        Key {
            name: "refresh_hint",
            kind: Kind::Duration { least: "1s", most: "1h" },
            need: Requirement::Default("1m"),
            flag: None,
            doc: "How often kube-apiserver fetches the keys.",
            example: "1m",
        },
        Key {
            name: "key_type",
            kind: Kind::Choice(&["rs256-2048", "rs256-3072", "rs256-4096", "es256"]),
            need: Requirement::Default("rs256-2048"),
            flag: None,
            doc: "Type of new keys. Microsoft Entra refuses tokens of `es256`, so it needs the profile \
                  `all` wherever they are published.",
            example: "rs256-3072",
        },
        Key {
            name: "pkcs11",
            kind: Kind::Mapping(&PKCS11),
            need: Requirement::Optional,
            flag: None,
            doc: "A PKCS#11 token that generates and holds the private keys. Needs a build with `--features \
                pkcs11`.",
            example: "{module: /usr/lib/softhsm/libsofthsm2.so, token_label: signpost, pin_file: /etc/signpost/pin}",
        },
        Key {
            name: "admin_listen",
            kind: Kind::Address,
            need: Requirement::Optional,
            flag: None,
            doc: "Address that serves health and metrics of `signpost signer`; off by default. A signer \
                within `signpost run` shares the address of that process.",
            example: "127.0.0.1:9091",
        },
        Key {
            name: "additional_verification_keys",
            kind: Kind::Mappings(&LEGACY),
            need: Requirement::Optional,
            flag: None,
            doc: "Previous public keys that kube-apiserver still verifies with, until their last token has \
                expired.",
            example: "[{file: /etc/kubernetes/pki/sa.pub}]",
        },
    ],
};

pub(in crate::config) static PKCS11: Section = Section {
    path: "issuers[].signer.pkcs11",
    keys: &[
        Key {
            name: "module",
            kind: Kind::Path,
            need: Requirement::Required,
            flag: None,
            doc: "The library of the token's vendor.",
            example: "/usr/lib/softhsm/libsofthsm2.so",
        },
        Key {
            name: "token_label",
            kind: Kind::Text,
            need: Requirement::Required,
            flag: None,
            doc: "Label of the token; must be unique.",
            example: "signpost",
        },
        Key {
            name: "pin_file",
            kind: Kind::Path,
            need: Requirement::Required,
            flag: None,
            doc: "A file that only its owner may read, with the PIN of the token's user.",
            example: "/etc/signpost/pin",
        },
    ],
};

pub(in crate::config) static LEGACY: Section = Section {
    path: "issuers[].signer.additional_verification_keys[]",
    keys: &[
        Key {
            name: "file",
            kind: Kind::Path,
            need: Requirement::Required,
            flag: None,
            doc: "A file with public keys.",
            example: "/etc/kubernetes/pki/sa.pub",
        },
        Key {
            name: "exclude",
            kind: Kind::Bool,
            need: Requirement::Default("false"),
            flag: None,
            doc: "Whether kube-apiserver excludes them from its JWKS: for keys whose last tokens are only \
                for itself.",
            example: "true",
        },
    ],
};
