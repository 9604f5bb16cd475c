//! Sources: where keys come from.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize, Serializer};

use super::{
    duration::{DAY, Seconds},
    problem::{Fault, Problems},
    section::{Section, UniqueNames},
    value::{AbsolutePath, DnsName, PathPattern, WebUrl},
};
use crate::core::service_account::ServiceAccount;

/// The time between two polls.
pub type PollInterval = Seconds<1, DAY>;

const fn every_30_seconds() -> PollInterval {
    Seconds::new(30)
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(tag = "kind")]
pub enum SourceConfig {
    ApiServer(ApiServerConfig),
    Files(FilesConfig),
    Url(UrlConfig),
    /// The announcements of signing nodes.
    Announcements(AnnouncementsConfig),
    /// The keyring in the data directory. Without a signer, the only source of its issuer.
    Embedded,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ApiServerConfig {
    /// Name in logs, metrics and the ledger; unique in its issuer. By default: `kubernetes` or
    /// `kubernetes:CONTEXT`.
    #[serde(default)]
    #[schemars(example = "cluster-a")]
    pub name: String,
    /// The kubeconfig. With neither this nor a context: the cluster that Signpost runs in.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(example = "/etc/signpost/kubeconfig")]
    pub kubeconfig: Option<AbsolutePath>,
    /// The context of `kubeconfig`, or of the user's own kubeconfig, the current one by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(example = "kind-kind")]
    pub context: Option<String>,
    /// Discover every API server of the control plane through the cluster, and poll each of them. Without
    /// permission, or with `false`, only the one URL is polled.
    #[serde(default = "super::yes")]
    #[schemars(example = false)]
    pub discover: bool,
    /// The API servers of the control plane, if they cannot be discovered through the cluster, or not be
    /// reached at the addresses that it lists.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(example = [serde_json::json!({ "url": "https://10.0.0.1:6443" })])]
    pub instances: Vec<Instance>,
    /// The service account whose token shows which key signs now; Signpost's own by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(example = "signpost/probe")]
    pub probe: Option<ServiceAccount>,
    /// Time between two polls of this source.
    #[serde(default = "every_30_seconds")]
    #[schemars(example = "30s")]
    pub every: PollInterval,
}

/// One API server of a control plane.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Instance {
    /// The URL of one API server.
    #[schemars(example = "https://10.0.0.1:6443")]
    pub url: WebUrl,
    /// Name to verify its certificate for, if the URL has an address.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(example = "kubernetes.default.svc")]
    pub tls_server_name: Option<DnsName>,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FilesConfig {
    /// Name in logs, metrics and the ledger; unique in its issuer. By default: the paths.
    #[serde(default)]
    #[schemars(example = &"ahead")]
    pub name: String,
    /// Absolute paths of PEM or JWKS files, of directories of them, or globs. Certificates in a directory or
    /// glob are skipped, and so are the keys that they belong to.
    #[serde(deserialize_with = "super::at_least_one")]
    #[schemars(length(min = 1), example = ["/etc/kubernetes/pki/sa.pub"])]
    pub paths: Vec<PathPattern>,
    /// Allow empty directories and globs without matches, as for keys that are published ahead of time. A path
    /// that does not exist is still an error, and so is a glob in such a directory.
    #[serde(default)]
    #[schemars(example = true)]
    pub optional: bool,
    /// Time between two polls of this source.
    #[serde(default = "every_30_seconds")]
    #[schemars(example = "30s")]
    pub every: PollInterval,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct UrlConfig {
    /// Name in logs, metrics and the ledger; unique in its issuer. By default: the url.
    #[serde(default)]
    #[schemars(example = &"edge")]
    pub name: String,
    /// The https URL of a JWKS, most often that of another cluster's API server. If it ends with
    /// `/openid/v1/jwks`, the discovery document next to it must name this issuer.
    #[schemars(example = "https://10.0.0.1:6443/openid/v1/jwks")]
    pub url: WebUrl,
    /// File with the bearer token. Read for every request.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(example = "/var/run/secrets/edge/token")]
    pub bearer_token_file: Option<AbsolutePath>,
    /// PEM file of the trusted certificate authorities, instead of the system's.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(example = "/etc/signpost/edge-ca.crt")]
    pub ca_file: Option<AbsolutePath>,
    /// Time between two polls of this source.
    #[serde(default = "every_30_seconds")]
    #[schemars(example = "30s")]
    pub every: PollInterval,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AnnouncementsConfig {
    /// Name in logs, metrics and the ledger; unique in its issuer. By default: the kind.
    #[serde(default = "announcements")]
    #[schemars(example = &"signers")]
    pub name: String,
    /// Directory of the announcements of `signpost signer`: `announcements` in its data directory, which has to
    /// be that of the publisher, so that the signer reads its ledger. Not needed if the ledger is in a
    /// `ConfigMap`: nodes announce in `ConfigMaps` next to it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(example = "/var/lib/signpost/announcements")]
    pub directory: Option<AbsolutePath>,
    /// Time between two polls of this source.
    #[serde(default = "every_30_seconds")]
    #[schemars(example = "30s")]
    pub every: PollInterval,
}

fn announcements() -> String {
    "announcements".to_owned()
}

impl SourceConfig {
    /// The name in logs, metrics and the ledger; unique in its issuer.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::ApiServer(source) => &source.name,
            Self::Files(source) => &source.name,
            Self::Url(source) => &source.name,
            Self::Announcements(source) => &source.name,
            Self::Embedded => "embedded",
        }
    }

    /// Derives what the file leaves out.
    fn complete(&mut self) {
        match self {
            Self::ApiServer(source) => {
                source.discover &= source.instances.is_empty();
                if source.name.is_empty() {
                    source.name = match &source.context {
                        Some(context) => format!("kubernetes:{context}"),
                        None => "kubernetes".to_owned(),
                    };
                }
            }
            Self::Files(source) if source.name.is_empty() => {
                source.name = source.paths.iter().map(|path| &**path).collect::<Vec<_>>().join(",");
            }
            Self::Url(source) if source.name.is_empty() => source.name = source.url.to_string(),
            Self::Files(_) | Self::Url(_) | Self::Announcements(_) | Self::Embedded => {}
        }
    }
}

/// The variant is the key `kind`, as in the file.
impl Serialize for SourceConfig {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        #[serde(tag = "kind", rename_all = "kebab-case")]
        enum Tagged<'a> {
            ApiServer(&'a ApiServerConfig),
            Files(&'a FilesConfig),
            Url(&'a UrlConfig),
            Announcements(&'a AnnouncementsConfig),
            Embedded,
        }
        match self {
            Self::ApiServer(source) => Tagged::ApiServer(source),
            Self::Files(source) => Tagged::Files(source),
            Self::Url(source) => Tagged::Url(source),
            Self::Announcements(source) => Tagged::Announcements(source),
            Self::Embedded => Tagged::Embedded,
        }
        .serialize(serializer)
    }
}

/// Derives names and checks the sources of an issuer against each other.
pub(super) fn check(sources: &mut [SourceConfig], issuer: &Section<'_>, problems: &mut Problems) {
    let count = sources.len();
    let mut names = UniqueNames::default();
    for (source, at) in sources.iter_mut().zip(issuer.items("sources")) {
        source.complete();
        match source {
            SourceConfig::ApiServer(source) => check_instances(source, &at, problems),
            SourceConfig::Announcements(source)
                if source.directory.is_none()
                    && !issuer.has("ledger")
                    && problems.none_at(&at, &["directory"]) =>
            {
                let fault = Fault::new("has no `directory`, and the issuer has no `ledger` in a ConfigMap");
                at.refuse(fault.hint("name the `announcements` directory of the signer"), problems);
            }
            // API servers that use this signer list the keys it has signed with.
            SourceConfig::Embedded if count > 1 && !issuer.has("signer") => {
                let fault = Fault::new("`embedded` is not the only source, expected no other");
                let hint = "if kube-apiserver uses this process as its signer, add `signer`";
                at.refuse(fault.hint(hint), problems);
                continue;
            }
            _ => {}
        }
        // By default, a name follows from one of the others.
        let name: &[_] = if at.has("name") { &["name"] } else { &["url", "paths", "context"] };
        if problems.none_at(&at, name) {
            names.check(source.name(), &at, problems);
        }
    }
}

fn check_instances(source: &ApiServerConfig, at: &Section<'_>, problems: &mut Problems) {
    if at.is_true("discover") && at.has("instances") {
        let fault = Fault::new("is `true` together with `instances`, expected one of the two");
        at.refuse_key("discover", fault.hint("remove `instances` to discover the API servers"), problems);
    }
    let instances = at.items("instances");
    for (index, (instance, at)) in source.instances.iter().zip(&instances).enumerate() {
        let earlier = source.instances.iter().zip(&instances).take(index);
        let is_same = |(other, at): (&Instance, &Section<'_>)| {
            other.url == instance.url && problems.none_at(at, &["url"])
        };
        if problems.none_at(at, &["url"]) && earlier.into_iter().any(is_same) {
            let fault =
                Fault::new(format!("`{}` is listed twice, expected each API server once", instance.url));
            at.refuse_key("url", fault, problems);
        }
    }
}
