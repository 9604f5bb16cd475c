//! How an API server is started, and whether it fits its signer: it exits over most of what is wrong here, and
//! says so only in its log.
//!
//! Sources: `pkg/kubeapiserver/options/authentication.go`, `pkg/controlplane/apiserver/options/options.go` and
//! `pkg/features/kube_features.go` of Kubernetes.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    time::Duration,
};

use jiff::SignedDuration;
use serde::{Deserialize, Serialize};

use super::{issuer::Issuer, signing::SocketName};

const ENDPOINT: &str = "service-account-signing-endpoint";
const KEY_FILES: [&str; 2] = ["service-account-signing-key-file", "service-account-key-file"];
const ISSUER: &str = "service-account-issuer";
const LIFETIME: &str = "service-account-max-token-expiration";
const AUDIENCES: &str = "api-audiences";
const GATES: &str = "feature-gates";
const GATE: &str = "ExternalServiceAccountTokenSigner";

/// First minor version of Kubernetes 1 that speaks `v1` to its signer without a feature gate to be set.
const FIRST_MINOR: u32 = 34;

/// How an API server is started.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Launch {
    /// Every flag without its dashes, and its values in order.
    flags: BTreeMap<String, Vec<String>>,
    /// What is known of its pod; `None`: it is no pod.
    pod: Option<Pod>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Pod {
    /// The minor version of Kubernetes 1, if the image says it.
    minor: Option<u32>,
    host_network: bool,
    /// Where a path of the machine is seen.
    mounts: Vec<Mount>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Mount {
    inside: String,
    on_host: String,
}

/// The signer that the API server shall use.
#[derive(Clone, Debug)]
pub struct Signer<'a> {
    pub socket: &'a SocketName,
    pub issuer: &'a Issuer,
    pub api_audiences: &'a BTreeSet<String>,
    pub max_token_lifetime: Duration,
}

/// What one rule says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What was looked at.
    pub about: &'static str,
    pub fits: bool,
    pub observed: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fix: Option<String>,
}

impl Launch {
    /// Reads the manifest of a static pod, or else a command line, whose words may be apart by NUL as in
    /// `/proc/PID/cmdline`.
    ///
    /// # Errors
    ///
    /// Fails when no container of the pod is kube-apiserver, and when there are no flags at all.
    pub fn parse(text: &str) -> Result<Self, NoApiServer> {
        let launch = match serde_saphyr::from_str::<Manifest>(text) {
            Ok(manifest) => Self::of_pod(manifest)?,
            Err(_) => Self { flags: flags(text.split(|c: char| c.is_whitespace() || c == '\0')), pod: None },
        };
        if launch.flags.is_empty() { Err(NoApiServer::Flags) } else { Ok(launch) }
    }

    fn of_pod(Manifest { spec }: Manifest) -> Result<Self, NoApiServer> {
        let is_api_server = |container: &&Container| {
            container
                .words()
                .any(|word| Path::new(word).file_name().is_some_and(|name| name == "kube-apiserver"))
        };
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

    /// The one that counts when a flag is given several times.
    fn last(&self, flag: &str) -> Option<&str> {
        self.values(flag).last().map(String::as_str)
    }
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
pub fn check(launch: &Launch, signer: &Signer<'_>) -> Vec<Finding> {
    let always = [endpoint, key_files, issuer, lifetime, audiences].map(|rule| rule(launch, signer));
    let sometimes = [reachable, version].into_iter().filter_map(|rule| rule(launch, signer));
    always.into_iter().chain(sometimes).collect()
}

fn fits(about: &'static str, observed: impl Into<String>) -> Finding {
    Finding { about, fits: true, observed: observed.into(), fix: None }
}

fn wrong(about: &'static str, observed: impl Into<String>, fix: impl Into<String>) -> Finding {
    Finding { about, fits: false, observed: observed.into(), fix: Some(fix.into()) }
}

fn endpoint(launch: &Launch, signer: &Signer<'_>) -> Finding {
    let wanted = signer.socket.to_string();
    let fix = format!("set --{ENDPOINT}={wanted}");
    match launch.last(ENDPOINT) {
        None => wrong("endpoint", format!("--{ENDPOINT} is missing"), fix),
        Some(given) if given.starts_with("unix:") => wrong(
            "endpoint",
            format!("`{given}` has a scheme, which would be taken for a part of the path"),
            fix,
        ),
        // A path of a pod may be another one on the machine.
        Some(given) if given == wanted || launch.pod.is_some() && !given.starts_with('@') => {
            fits("endpoint", format!("`{given}`"))
        }
        Some(given) => wrong("endpoint", format!("`{given}`, the signer listens at `{wanted}`"), fix),
    }
}

fn key_files(launch: &Launch, _: &Signer<'_>) -> Finding {
    let given: Vec<String> = KEY_FILES
        .iter()
        .filter(|flag| !launch.values(flag).is_empty())
        .map(|flag| format!("--{flag}"))
        .collect();
    if given.is_empty() {
        return fits("key files", "no key file beside the signer");
    }
    let observed = format!("{} beside --{ENDPOINT}: kube-apiserver exits", given.join(" and "));
    wrong(
        "key files",
        observed,
        "remove them, and name the public key in `signer.legacy`, so that old tokens go on",
    )
}

fn issuer(launch: &Launch, signer: &Signer<'_>) -> Finding {
    let fix = format!("set --{ISSUER}={} before any other", signer.issuer);
    match launch.values(ISSUER).first() {
        None => wrong("issuer", format!("--{ISSUER} is missing"), fix),
        Some(first) if first == signer.issuer.as_str() => fits("issuer", format!("`{first}`")),
        Some(first) => {
            wrong("issuer", format!("tokens say `{first}`, keys are published for `{}`", signer.issuer), fix)
        }
    }
}

fn lifetime(launch: &Launch, signer: &Signer<'_>) -> Finding {
    let ours = signer.max_token_lifetime;
    let Some(text) = launch.last(LIFETIME) else {
        return fits("lifetime", format!("that of the signer, {} s", ours.as_secs()));
    };
    let about = "lifetime";
    let Some(given) = text.parse::<SignedDuration>().ok().and_then(|given| Duration::try_from(given).ok())
    else {
        return wrong(about, format!("--{LIFETIME}=`{text}` is no duration"), "write it as `24h`");
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

fn audiences(launch: &Launch, signer: &Signer<'_>) -> Finding {
    let split =
        |flag: &str| launch.values(flag).iter().flat_map(|text| text.split(',')).map(str::to_owned).collect();
    let given: BTreeSet<String> = split(AUDIENCES);
    let accepted: BTreeSet<String> =
        if given.is_empty() { launch.values(ISSUER).iter().cloned().collect() } else { given };
    let list =
        |texts: Vec<&String>| texts.iter().map(|text| format!("`{text}`")).collect::<Vec<_>>().join(", ");
    let more = list(signer.api_audiences.difference(&accepted).collect());
    if !more.is_empty() {
        let observed = format!("{more} is not of the API server: its tokens would not wait for a ready key");
        return wrong("audiences", observed, "take it out of `signer.api_audiences`");
    }
    let fewer = list(accepted.difference(signer.api_audiences).collect());
    if !fewer.is_empty() {
        let observed = format!("{fewer} is unknown to the signer: a first start waits for a ready key");
        return wrong("audiences", observed, "add it to `signer.api_audiences`");
    }
    fits("audiences", list(accepted.iter().collect()))
}

/// Whether the API server can get at the socket from inside its pod.
fn reachable(launch: &Launch, signer: &Signer<'_>) -> Option<Finding> {
    let pod = launch.pod.as_ref()?;
    Some(match signer.socket {
        SocketName::File(socket) => mounted(pod, Path::new(launch.last(ENDPOINT)?), socket),
        SocketName::Abstract(_) if pod.host_network => {
            fits("socket", "the pod has the network of the machine")
        }
        SocketName::Abstract(_) => {
            let observed = "the pod has a network of its own, where the name means nothing";
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
        let observed = format!("`{shown}` is mounted by itself, and would be another one after a restart");
        return wrong(about, observed, fix);
    }
    let found = Path::new(&mount.on_host).join(rest);
    if found == *socket {
        return fits(about, format!("in the volume at `{}`", mount.inside));
    }
    let (found, socket) = (found.display(), socket.display());
    wrong(about, format!("the pod finds `{found}` there, the signer listens at `{socket}`"), fix)
}

fn version(launch: &Launch, _: &Signer<'_>) -> Option<Finding> {
    let mut gates = launch.values(GATES).iter().flat_map(|text| text.split(','));
    if gates.rfind(|gate| gate.starts_with(GATE)).is_some_and(|gate| gate.ends_with("=false")) {
        let fix = format!("take it out of --{GATES}");
        return Some(wrong("version", format!("the feature gate {GATE} is off"), fix));
    }
    let minor = launch.pod.as_ref()?.minor?;
    Some(if minor < FIRST_MINOR {
        let observed = format!("Kubernetes 1.{minor} asks no signer for `v1`");
        wrong("version", observed, format!("upgrade to Kubernetes 1.{FIRST_MINOR} or later"))
    } else {
        fits("version", format!("Kubernetes 1.{minor}"))
    })
}

/// There is no API server in the text.
#[derive(Clone, Copy, Debug, thiserror::Error, PartialEq, Eq)]
pub enum NoApiServer {
    #[error("no container of the pod runs `kube-apiserver`")]
    Container,
    #[error("there is no flag in it")]
    Flags,
}

/// What of a pod is looked at.
#[derive(Deserialize)]
struct Manifest {
    spec: Spec,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Spec {
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
