//! The signing node: its socket, its keys, and what it reports to its API server.

use std::collections::BTreeSet;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{
    duration::{HOUR, Seconds},
    issuer::{IssuerConfig, SHORTEST_KUBERNETES_TOKEN},
    problem::{Fault, Problems},
    section::Section,
    source::SourceConfig,
    value::{AbsolutePath, ListenAddress, NumericId, SocketMode},
};
use crate::core::{
    jose::jwk_set::Profile,
    signer::{KeyType, SocketName, announcement::NodeName},
};

#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct SignerConfig {
    /// Socket for kube-apiserver, as in its `--service-account-signing-endpoint`: an absolute path, or `@NAME`.
    /// The flag `--socket` overrides it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(example = "/run/signpost/signer.sock")]
    pub socket: Option<SocketName>,
    /// Mode of the socket.
    #[schemars(example = "0660")]
    pub mode: SocketMode,
    /// Group of the socket, as a number: its members may connect.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(example = "65532")]
    pub group: Option<NumericId>,
    /// UIDs that may connect, in addition to root and the signer's own.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    #[schemars(example = ["65532"])]
    pub users: BTreeSet<NumericId>,
    /// Name of this node; the host name by default. The flag `--node` overrides it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(example = "control-plane-1")]
    pub node: Option<NodeName>,
    /// The `--api-audiences` of kube-apiserver; the issuer by default. Tokens for only these audiences may be
    /// signed with a key that is not ready.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    #[schemars(example = ["https://kubernetes.default.svc"])]
    pub api_audiences: BTreeSet<String>,
    /// How often kube-apiserver fetches the keys.
    #[schemars(example = "1m")]
    pub refresh_hint: Seconds<1, HOUR>,
    /// Type of new keys. Microsoft Entra refuses tokens of `es256`, so it needs the profile `all` wherever they
    /// are published.
    #[schemars(example = "rs256-3072")]
    pub key_type: KeyType,
    /// A PKCS#11 token that generates and holds the private keys. Needs a build with `--features pkcs11`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(example = json!({
        "module": "/usr/lib/softhsm/libsofthsm2.so",
        "token_label": "signpost",
        "pin_file": "/etc/signpost/pin",
    }))]
    pub pkcs11: Option<Pkcs11Config>,
    /// Address that serves health and metrics of `signpost signer`; off by default. A signer within
    /// `signpost run` shares the address of that process.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(example = "127.0.0.1:9091")]
    pub admin_listen: Option<ListenAddress>,
    /// Previous public keys that kube-apiserver still verifies with, until their last token has expired.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(example = [json!({ "file": "/etc/kubernetes/pki/sa.pub" })])]
    pub additional_verification_keys: Vec<VerificationKeyConfig>,
}

impl Default for SignerConfig {
    fn default() -> Self {
        Self {
            socket: None,
            mode: SocketMode(0o660),
            group: None,
            users: BTreeSet::new(),
            node: None,
            api_audiences: BTreeSet::new(),
            refresh_hint: Seconds::new(60),
            key_type: KeyType::default(),
            pkcs11: None,
            admin_listen: None,
            additional_verification_keys: Vec::new(),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Pkcs11Config {
    /// The library of the token's vendor.
    #[schemars(example = "/usr/lib/softhsm/libsofthsm2.so")]
    pub module: AbsolutePath,
    /// Label of the token; must be unique.
    #[schemars(example = &"signpost")]
    pub token_label: String,
    /// A file that only its owner may read, with the PIN of the token's user.
    #[schemars(example = "/etc/signpost/pin")]
    pub pin_file: AbsolutePath,
}

/// Previous public keys.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct VerificationKeyConfig {
    /// A file with public keys.
    #[schemars(example = "/etc/kubernetes/pki/sa.pub")]
    pub file: AbsolutePath,
    /// Whether kube-apiserver excludes them from its JWKS: for keys whose last tokens are only for itself.
    #[serde(default)]
    #[schemars(example = true)]
    pub exclude: bool,
}

/// Checks the node against its issuer.
pub(super) fn check(config: &IssuerConfig, issuer: &Section<'_>, problems: &mut Problems) {
    let Some(signer) = &config.signer else { return };
    let Some(at) = issuer.section("signer") else { return };
    if problems.none_at(issuer, &["max_token_lifetime"])
        && config.max_token_lifetime.get() < SHORTEST_KUBERNETES_TOKEN
    {
        let fault = Fault::new(format!(
            "`{}` is too short, expected at least `10m`: kube-apiserver rejects a signer that allows less",
            config.max_token_lifetime
        ));
        issuer.refuse_key("max_token_lifetime", fault, problems);
    }
    if signer.admin_listen.is_some() && config.sources.contains(&SourceConfig::Embedded) {
        let fault =
            Fault::new("has no effect with the source `embedded`, whose signer is a part of `signpost run`");
        let hint = "remove it: `admin_listen` of the file serves that signer too";
        at.refuse_key("admin_listen", fault.hint(hint), problems);
    }
    if problems.none_at(issuer, &["profile"]) && problems.none_at(&at, &["key_type"]) {
        check_profiles(config, signer.key_type, &at, problems);
    }
}

/// Rejects keys that a target leaves out although they wait for that target to serve them.
fn check_profiles(config: &IssuerConfig, key_type: KeyType, at: &Section<'_>, problems: &mut Problems) {
    let leaves_out = |profile: Profile| profile == Profile::Entra && !key_type.suits_entra();
    let own = leaves_out(config.profile).then(|| "the issuer".to_owned());
    // A target whose location is refused has no name.
    let named = config.targets.iter().filter(|target| !target.name.is_empty());
    let required = named.filter(|target| target.required_for_rotation);
    let required = required.filter(|target| leaves_out(target.profile()));
    let places: Vec<_> =
        own.into_iter().chain(required.map(|target| format!("target `{}`", target.name))).collect();
    if places.is_empty() {
        return;
    }
    let fault = Fault::new(format!(
        "`{}` keys are left out by profile `{}` of {}, so none would ever sign",
        key_type.name(),
        Profile::Entra.name(),
        places.join(", "),
    ));
    let hint = "Microsoft Entra needs RS256: remove `key_type`; for others, set `profile: all`";
    at.refuse_key("key_type", fault.hint(hint), problems);
}
