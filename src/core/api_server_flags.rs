//! Checks whether the flags of an API server fit its signer: it exits on most of these errors, and explains
//! them only in its log.
//!
//! Sources: `pkg/kubeapiserver/options/authentication.go`, `pkg/controlplane/apiserver/options/options.go`
//! and `pkg/features/kube_features.go` of Kubernetes.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    time::Duration,
};

use jiff::SignedDuration;
use serde::{Deserialize, Serialize};

use super::{jose::issuer::Issuer, signer::SocketName};
use crate::core::text::Hint;

const ENDPOINT: &str = "service-account-signing-endpoint";
const KEY_FILES: [&str; 2] = ["service-account-signing-key-file", "service-account-key-file"];
const ISSUER: &str = "service-account-issuer";
const LIFETIME: &str = "service-account-max-token-expiration";
const AUDIENCES: &str = "api-audiences";
const GATES: &str = "feature-gates";
const GATE: &str = "ExternalServiceAccountTokenSigner";

/// First minor version of Kubernetes 1 that supports an external signer, behind a feature gate (`v1alpha1`).
const FIRST_MINOR: u32 = 32;
/// First minor version in which that gate is enabled by default (`v1`).
const FIRST_OPEN: u32 = 34;

/// The configuration of an API server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ApiServerConfig {
    /// Every flag without its dashes, with its values in order.
    flags: BTreeMap<String, Vec<String>>,
    /// The relevant parts of its pod; `None`: it is not a pod.
    pod: Option<Pod>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Pod {
    /// The minor version of Kubernetes 1, if the image names it.
    minor: Option<u32>,
    host_network: bool,
    /// The mounted host paths.
    mounts: Vec<Mount>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Mount {
    inside: String,
    on_host: String,
}

/// The signer that the API server must use.
#[derive(Clone, Debug)]
pub struct Signer<'a> {
    pub socket: &'a SocketName,
    pub issuer: &'a Issuer,
    pub api_audiences: &'a BTreeSet<String>,
    pub max_token_lifetime: Duration,
    /// Whether the API server also verifies with a previous key from a file.
    pub has_additional_keys: bool,
    /// Whether a process accepts connections there now; `None`: unknown.
    pub listens: Option<bool>,
}

/// The finding of one rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The checked aspect.
    pub about: &'static str,
    pub fits: bool,
    pub observed: String,
    /// What to do. If `fits`, what to do under a condition that cannot be checked from here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fix: Option<String>,
}

impl ApiServerConfig {
    /// Parses the manifest of a static pod as kubelet does: its first document, and nothing after it. Or a
    /// command line that begins with the program or with a flag, whose words may be separated by NUL as in
    /// `/proc/PID/cmdline`, and whose lines may be comments.
    ///
    /// # Errors
    ///
    /// Fails if it is neither, if no container of the pod is kube-apiserver, and if there are no flags.
    pub fn parse(text: &str) -> Result<Self, NoApiServer> {
        let lines = text.lines().filter(|line| !line.trim_start().starts_with('#'));
        let words = lines.flat_map(|line| line.split(|c: char| c.is_whitespace() || c == '\0'));
        let mut words = words.filter(|word| !word.is_empty() && *word != "\\").peekable();
        let begins = *words.peek().ok_or(NoApiServer::Flags)?;
        let is_flag = begins.starts_with("--") && !begins.starts_with("---");
        let launch = if is_flag || is_kube_apiserver(begins) {
            Self { flags: flags(words), pod: None }
        } else {
            let mut bytes = text.as_bytes();
            let mut documents = serde_saphyr::read::<_, Manifest>(&mut bytes);
            match documents.next() {
                Some(Ok(manifest)) => Self::of_pod(manifest)?,
                Some(Err(error)) => {
                    let at = error.location();
                    let at = at.map(|at| format!(" at line {}, column {}", at.line(), at.column()));
                    return Err(NoApiServer::Neither { at: at.unwrap_or_default() });
                }
                None => return Err(NoApiServer::Flags),
            }
        };
        if launch.flags.is_empty() { Err(NoApiServer::Flags) } else { Ok(launch) }
    }

    fn of_pod(Manifest { kind, spec }: Manifest) -> Result<Self, NoApiServer> {
        match kind.as_deref() {
            Some("Pod") => {}
            Some("ClusterConfiguration") => return Err(NoApiServer::ClusterConfiguration),
            kind => return Err(NoApiServer::Kind { kind: kind.unwrap_or_default().to_owned() }),
        }
        let spec = spec.unwrap_or_default();
        let is_api_server = |container: &&Container| container.words().any(is_kube_apiserver);
        let container = spec.containers.iter().find(is_api_server).ok_or(NoApiServer::Container)?;
        let hosts: BTreeMap<&str, &str> = spec
            .volumes
            .iter()
            .filter_map(|volume| Some((volume.name.as_str(), volume.host_path.as_ref()?.path.as_str())))
            .collect();
        let mounts = container.volume_mounts.iter().filter_map(|mount| {
            let on_host = (*hosts.get(mount.name.as_str())?).to_owned();
            Some(Mount { inside: mount.mount_path.clone(), on_host })
        });
        let tag = container.image.rsplit_once(":v1.").map(|(_, rest)| rest.split(['.', '-', '@']).next());
        let minor = tag.flatten().and_then(|minor| minor.parse().ok());
        let pod = Pod { minor, host_network: spec.host_network, mounts: mounts.collect() };
        Ok(Self { flags: flags(container.words()), pod: Some(pod) })
    }

    fn values(&self, flag: &str) -> &[String] {
        self.flags.get(flag).map_or(&[], Vec::as_slice)
    }

    /// The effective value of a flag: the last one.
    fn last(&self, flag: &str) -> Option<&str> {
        self.values(flag).last().map(String::as_str)
    }
}

fn is_kube_apiserver(word: &str) -> bool {
    Path::new(word).file_name().is_some_and(|name| name == "kube-apiserver")
}

fn flags<'a>(words: impl Iterator<Item = &'a str>) -> BTreeMap<String, Vec<String>> {
    let mut flags: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut words = words.filter(|word| !word.is_empty()).peekable();
    while let Some(word) = words.next() {
        let Some(flag) = word.strip_prefix("--") else { continue };
        let (name, value) = match flag.split_once('=') {
            Some((name, value)) => (name, value),
            None => (flag, words.next_if(|next| !next.starts_with("--")).unwrap_or_default()),
        };
        flags.entry(name.to_owned()).or_default().push(value.to_owned());
    }
    flags
}

/// Compares an API server with its signer.
#[must_use]
pub fn check(launch: &ApiServerConfig, signer: &Signer<'_>) -> Vec<Finding> {
    let always = [endpoint, key_files, issuer, lifetime, audiences, secrets].map(|rule| rule(launch, signer));
    let sometimes = [reachable, version].into_iter().filter_map(|rule| rule(launch, signer));
    always.into_iter().chain(sometimes).collect()
}

fn fits(about: &'static str, observed: impl Into<String>) -> Finding {
    Finding { about, fits: true, observed: observed.into(), fix: None }
}

fn wrong(about: &'static str, observed: impl Into<String>, fix: impl Into<String>) -> Finding {
    Finding { about, fits: false, observed: observed.into(), fix: Some(fix.into()) }
}

/// A finding that fits as far as known; `otherwise` tells what to do if it does not.
fn fits_unless(about: &'static str, observed: impl Into<String>, otherwise: impl Into<String>) -> Finding {
    Finding { about, fits: true, observed: observed.into(), fix: Some(otherwise.into()) }
}

fn endpoint(launch: &ApiServerConfig, signer: &Signer<'_>) -> Finding {
    let wanted = signer.socket.to_string();
    let fix = format!("set --{ENDPOINT}={wanted}");
    match launch.last(ENDPOINT) {
        None => wrong("endpoint", format!("--{ENDPOINT} is missing"), fix),
        Some(given) if given.starts_with("unix:") => wrong(
            "endpoint",
            format!("`{given}` has a scheme, which would be read as a part of the path"),
            fix,
        ),
        // The path in a pod may differ from the path on the host.
        Some(given) if given == wanted || launch.pod.is_some() && !given.starts_with('@') => {
            if signer.listens == Some(false) {
                let observed = format!("`{given}`, where nothing listens yet");
                return fits_unless(
                    "endpoint",
                    observed,
                    "start `signpost signer` first: kube-apiserver exits without it",
                );
            }
            fits("endpoint", format!("`{given}`"))
        }
        Some(given) => wrong("endpoint", format!("`{given}`, the signer listens at `{wanted}`"), fix),
    }
}

fn key_files(launch: &ApiServerConfig, _: &Signer<'_>) -> Finding {
    let given: Vec<String> = KEY_FILES
        .iter()
        .filter(|flag| !launch.values(flag).is_empty())
        .map(|flag| format!("--{flag}"))
        .collect();
    if given.is_empty() {
        return fits("key files", "no key file next to the signer");
    }
    let observed =
        format!("{} is set: kube-apiserver exits when the signing endpoint is set too", given.join(" and "));
    wrong(
        "key files",
        observed,
        "import the private key first (`signpost signer import`) or add the public one to \
         `signer.additional_verification_keys`, to keep old tokens valid; then remove the flags, which \
         kubeadm writes again unless it has a patch (docs/rotation.md)",
    )
}

fn issuer(launch: &ApiServerConfig, signer: &Signer<'_>) -> Finding {
    let fix = format!("set --{ISSUER}={} before any other", signer.issuer);
    match launch.values(ISSUER).first() {
        None => wrong("issuer", format!("--{ISSUER} is missing"), fix),
        Some(first) if first == signer.issuer.as_str() => fits("issuer", format!("`{first}`")),
        Some(first) => {
            let seen = format!("tokens have issuer `{first}`, keys are published for `{}`", signer.issuer);
            wrong("issuer", seen, fix)
        }
    }
}

fn lifetime(launch: &ApiServerConfig, signer: &Signer<'_>) -> Finding {
    let ours = signer.max_token_lifetime;
    let Some(text) = launch.last(LIFETIME) else {
        let observed = format!("that of the signer, {} s", ours.as_secs());
        let otherwise = "if tokens with a longer lifetime were issued before: import their key (`signer \
            import`) while `max_token_lifetime` is as long as the longest of them, or its public key is \
            removed too early";
        return fits_unless("lifetime", observed, otherwise);
    };
    let about = "lifetime";
    let Some(given) = text.parse::<SignedDuration>().ok().and_then(|given| Duration::try_from(given).ok())
    else {
        return wrong(about, format!("--{LIFETIME}=`{text}` is not a duration"), "write it as `24h`");
    };
    if given.is_zero() {
        fits(about, format!("that of the signer, {} s", ours.as_secs()))
    } else if given < Duration::from_hours(1) {
        let observed = format!("--{LIFETIME}={text} is less than 1h: kube-apiserver exits");
        wrong(about, observed, "set it to 1h at least, or remove it")
    } else if given > ours {
        let observed = format!(
            "--{LIFETIME}={text} is more than the {} s of the signer: kube-apiserver exits",
            ours.as_secs()
        );
        wrong(about, observed, "lower it, or raise `max_token_lifetime`")
    } else {
        fits(about, format!("--{LIFETIME}={text}"))
    }
}

fn audiences(launch: &ApiServerConfig, signer: &Signer<'_>) -> Finding {
    let split =
        |flag: &str| launch.values(flag).iter().flat_map(|text| text.split(',')).map(str::to_owned).collect();
    let given: BTreeSet<String> = split(AUDIENCES);
    let accepted: BTreeSet<String> =
        if given.is_empty() { launch.values(ISSUER).iter().cloned().collect() } else { given };
    let list =
        |texts: Vec<&String>| texts.iter().map(|text| format!("`{text}`")).collect::<Vec<_>>().join(", ");
    let set = format!("set `signer.api_audiences: [{}]`", list(accepted.iter().collect()).replace('`', "\""));
    let more = list(signer.api_audiences.difference(&accepted).collect());
    if !more.is_empty() {
        let observed = format!(
            "{more} is not an audience of the API server: its tokens would not wait for a \
            ready key"
        );
        return wrong("audiences", observed, set);
    }
    let fewer = list(accepted.difference(signer.api_audiences).collect());
    if !fewer.is_empty() {
        let observed = format!("{fewer} is unknown to the signer: a first start waits for a ready key");
        return wrong("audiences", observed, set);
    }
    fits("audiences", list(accepted.iter().collect()))
}

/// Token Secrets, which kube-controller-manager signs with its own key, without the signer.
fn secrets(_: &ApiServerConfig, signer: &Signer<'_>) -> Finding {
    let about = "secrets";
    if signer.has_additional_keys {
        return fits(
            about,
            "`signer.additional_verification_keys` has a previous key, which may be that of token Secrets",
        );
    }
    let observed = "tokens in Secrets are refused, unless the key of kube-controller-manager was imported";
    let otherwise = "if there are any: `signer.additional_verification_keys: [{file: /etc/kubernetes/pki/sa.pub, exclude: true}]`, which is the \
                     public half of its --service-account-private-key-file";
    fits_unless(about, observed, otherwise)
}

/// Whether the API server can reach the socket from inside its pod.
fn reachable(launch: &ApiServerConfig, signer: &Signer<'_>) -> Option<Finding> {
    let pod = launch.pod.as_ref()?;
    Some(match signer.socket {
        SocketName::File(socket) => mounted(pod, Path::new(launch.last(ENDPOINT)?), socket),
        SocketName::Abstract(_) if pod.host_network => {
            fits("socket", "the pod has the network of the machine")
        }
        SocketName::Abstract(_) => {
            let observed = "the pod has its own network, where the name does not exist";
            wrong("socket", observed, "set `hostNetwork: true`")
        }
    })
}

fn mounted(pod: &Pod, given: &Path, socket: &Path) -> Finding {
    let (about, shown) = ("socket", given.display());
    let directory = socket.parent().unwrap_or(socket).display();
    let fix = format!(
        "mount the directory `{directory}` of the machine (hostPath, type Directory) at the same path"
    );
    let around = pod.mounts.iter().filter_map(|mount| Some((mount, given.strip_prefix(&mount.inside).ok()?)));
    let Some((mount, rest)) = around.max_by_key(|(mount, _)| mount.inside.len()) else {
        return wrong(about, format!("`{shown}` is in no hostPath volume of the pod"), fix);
    };
    if rest.as_os_str().is_empty() {
        let observed = format!("`{shown}` is mounted as a file, which a restart of the signer replaces");
        return wrong(about, observed, fix);
    }
    let found = Path::new(&mount.on_host).join(rest);
    if found == *socket {
        return fits(about, format!("in the volume at `{}`", mount.inside));
    }
    let (found, socket) = (found.display(), socket.display());
    wrong(about, format!("the pod finds `{found}` there, the signer listens at `{socket}`"), fix)
}

fn version(launch: &ApiServerConfig, _: &Signer<'_>) -> Option<Finding> {
    let required_targets = launch.values(GATES).iter().flat_map(|text| text.split(','));
    let mut required_targets = required_targets.filter_map(|gate| gate.split_once('='));
    let gate = required_targets.rfind(|(gate, _)| *gate == GATE).map(|(_, value)| value);
    if gate.is_some_and(|value| value == "false") {
        let fix = format!("remove it from --{GATES}");
        return Some(wrong("version", format!("the feature gate {GATE} is off"), fix));
    }
    let minor = launch.pod.as_ref()?.minor?;
    Some(if minor < FIRST_MINOR {
        let observed = format!("Kubernetes 1.{minor} does not support external signers");
        let fix = format!("upgrade to Kubernetes 1.{FIRST_OPEN} or later, or keep the key files");
        wrong("version", observed, fix)
    } else if minor < FIRST_OPEN && gate.is_none() {
        let observed =
            format!("Kubernetes 1.{minor} uses an external signer only with the feature gate {GATE}");
        wrong(
            "version",
            observed,
            format!("add --{GATES}={GATE}=true, or upgrade to Kubernetes 1.{FIRST_OPEN}"),
        )
    } else {
        fits("version", format!("Kubernetes 1.{minor}"))
    })
}

/// Why the text contains no API server.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum NoApiServer {
    #[error("no container of the pod runs `kube-apiserver`")]
    Container,
    #[error("there is no flag in it")]
    Flags,
    #[error(
        "it is neither a command line, which begins with `kube-apiserver` or a flag, nor the manifest of a pod in YAML: \
         that cannot be read{at}"
    )]
    Neither { at: String },
    #[error("it is of kind `{kind}`, expected `Pod`")]
    Kind { kind: String },
    #[error(
        "a ClusterConfiguration cannot express a signer: kubeadm always adds the flags of both key files"
    )]
    ClusterConfiguration,
}

impl Hint for NoApiServer {
    /// What to pass instead.
    fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::ClusterConfiguration => {
                "give kubeadm the patch of docs/rotation.md, and check the manifest that it writes: \
                 /etc/kubernetes/manifests/kube-apiserver.yaml"
            }
            _ => {
                "pass the manifest of kube-apiserver, or a file with its command line, such as `/proc/PID/cmdline`"
            }
        };
        Some(hint.to_owned())
    }
}

/// The relevant members of a pod.
#[derive(Deserialize)]
struct Manifest {
    kind: Option<String>,
    spec: Option<Spec>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Spec {
    #[serde(default)]
    containers: Vec<Container>,
    #[serde(default)]
    volumes: Vec<Volume>,
    #[serde(default)]
    host_network: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Container {
    #[serde(default)]
    image: String,
    #[serde(default)]
    command: Vec<String>,
    #[serde(default)]
    args: Vec<String>,
    #[serde(default)]
    volume_mounts: Vec<VolumeMount>,
}

impl Container {
    fn words(&self) -> impl Iterator<Item = &str> {
        self.command.iter().chain(&self.args).map(String::as_str)
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct VolumeMount {
    name: String,
    mount_path: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Volume {
    name: String,
    host_path: Option<HostPath>,
}

#[derive(Deserialize)]
struct HostPath {
    path: String,
}

#[cfg(test)]
mod tests;
