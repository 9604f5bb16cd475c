//! What Kubernetes says of a workload that wants tokens: its service account, its pods and their
//! configuration. Only the members that matter; whatever else is there is left out.

use std::collections::BTreeMap;

use serde::{Deserialize, de::IgnoredAny};

/// Names and texts: labels, annotations, data of a `ConfigMap`.
pub type Texts = BTreeMap<String, String>;

/// All that was found about one service account.
#[derive(Clone, Debug, Default)]
pub struct Workload {
    /// What `metadata.annotations` of the service account says.
    pub annotations: Texts,
    pub pods: Vec<Pod>,
    /// The data of the `ConfigMap`s that the pods take their environment from, by name.
    pub config_maps: BTreeMap<String, Texts>,
    /// Whether the webhook of azure-workload-identity is installed; `None`: nobody could look.
    pub webhook: Option<bool>,
}

/// A `v1` `Pod`.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Pod {
    #[serde(default)]
    pub metadata: Metadata,
    #[serde(default)]
    pub spec: PodSpec,
    #[serde(default)]
    pub status: PodStatus,
}

#[derive(Clone, Debug, Default, Deserialize)]
pub struct Metadata {
    #[serde(default)]
    pub name: String,
    #[serde(default)]
    pub labels: Texts,
    #[serde(default)]
    pub annotations: Texts,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PodSpec {
    pub service_account_name: Option<String>,
    #[serde(default)]
    pub init_containers: Vec<Container>,
    #[serde(default)]
    pub containers: Vec<Container>,
    #[serde(default)]
    pub volumes: Vec<Volume>,
}

#[derive(Clone, Debug, Default, Deserialize)]
pub struct PodStatus {
    #[serde(default)]
    pub phase: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Container {
    #[serde(default)]
    pub name: String,
    #[serde(default)]
    pub image: String,
    #[serde(default)]
    pub env: Vec<Variable>,
    #[serde(default)]
    pub env_from: Vec<Environment>,
    #[serde(default)]
    pub volume_mounts: Vec<Mount>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Variable {
    pub name: String,
    /// Kubernetes leaves an empty one out.
    #[serde(default)]
    pub value: String,
    /// It comes from elsewhere, such as a Secret.
    pub value_from: Option<IgnoredAny>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Environment {
    #[serde(default)]
    pub prefix: String,
    pub config_map_ref: Option<Named>,
    pub secret_ref: Option<IgnoredAny>,
}

#[derive(Clone, Debug, Default, Deserialize)]
pub struct Named {
    #[serde(default)]
    pub name: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Mount {
    pub name: String,
    pub mount_path: String,
    /// One file or folder of the volume in place of all; the kubelet never writes it anew.
    pub sub_path: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
pub struct Volume {
    pub name: String,
    pub projected: Option<Projected>,
}

#[derive(Clone, Debug, Default, Deserialize)]
pub struct Projected {
    #[serde(default)]
    pub sources: Vec<ProjectedSource>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ProjectedSource {
    pub service_account_token: Option<ProjectedToken>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ProjectedToken {
    /// For whom; without one, for the API server.
    #[serde(default)]
    pub audience: String,
    pub expiration_seconds: Option<i64>,
    pub path: String,
}

/// A projected token where a container finds it.
#[derive(Clone, Debug)]
pub struct MountedToken<'a> {
    pub path: String,
    pub token: &'a ProjectedToken,
    /// Whether the kubelet replaces the file while the container runs: not what is mounted by `subPath`.
    pub is_refreshed: bool,
}

impl Pod {
    /// The service account that it runs as.
    #[must_use]
    pub fn service_account(&self) -> &str {
        self.spec.service_account_name.as_deref().unwrap_or("default")
    }

    /// Whether none of its containers runs, or will run again.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        matches!(self.status.phase.as_str(), "Succeeded" | "Failed")
    }

    /// All its containers, those that begin before the others last.
    pub fn all_containers(&self) -> impl Iterator<Item = &Container> {
        self.spec.containers.iter().chain(&self.spec.init_containers)
    }

    /// The token that a container finds at a path.
    #[must_use]
    pub fn token_at<'a>(&'a self, container: &'a Container, path: &str) -> Option<MountedToken<'a>> {
        let path = plain(path);
        self.tokens(container).find(|token| token.path == path)
    }

    /// The tokens that are projected for a container, and where it finds each.
    pub fn tokens<'a>(&'a self, container: &'a Container) -> impl Iterator<Item = MountedToken<'a>> {
        container.volume_mounts.iter().flat_map(|mount| {
            let volumes = self.spec.volumes.iter().filter(|volume| volume.name == mount.name);
            let sources = volumes.filter_map(|volume| volume.projected.as_ref()).flat_map(|it| &it.sources);
            let tokens = sources.filter_map(|source| source.service_account_token.as_ref());
            tokens.filter_map(|token| {
                let is_refreshed = mount.sub_path.as_deref().is_none_or(str::is_empty);
                Some(MountedToken { path: mount.path_of(&token.path)?, token, is_refreshed })
            })
        })
    }

    /// Whether a container has something at a path that is not known here: what another kind of volume holds.
    #[must_use]
    pub fn is_unknown_at(&self, container: &Container, path: &str) -> bool {
        let path = plain(path);
        let is_of_another_kind = |mount: &Mount| {
            self.spec.volumes.iter().any(|volume| volume.name == mount.name && volume.projected.is_none())
        };
        let covers = |mount: &&Mount| {
            let at = plain(&mount.mount_path);
            path.strip_prefix(&at).is_some_and(|rest| rest.is_empty() || rest.starts_with('/') || at == "/")
        };
        // Of mounts within each other the innermost counts.
        let innermost =
            container.volume_mounts.iter().filter(covers).max_by_key(|mount| plain(&mount.mount_path).len());
        innermost.is_some_and(is_of_another_kind)
    }
}

impl Mount {
    /// Where a file of the volume is found; `None` where only another part of the volume is mounted.
    fn path_of(&self, file: &str) -> Option<String> {
        let sub_path = plain(self.sub_path.as_deref().unwrap_or_default());
        let rest = plain(&format!("/{file}")).strip_prefix(sub_path.trim_end_matches('/'))?.to_owned();
        let is_part = rest.is_empty() || rest.starts_with('/');
        is_part.then(|| plain(&format!("{}{rest}", self.mount_path)))
    }
}

/// A path without what changes nothing: `//`, `/./` and a final `/`.
fn plain(path: &str) -> String {
    let parts = path.split('/').filter(|part| !part.is_empty() && *part != ".");
    format!("/{}", parts.collect::<Vec<_>>().join("/"))
}

impl Container {
    /// Its environment as far as it can be read: `env` wins over `envFrom`, and a later entry over an
    /// earlier one. What comes from a Secret or is put together from other variables is there without its value.
    #[must_use]
    pub fn environment(&self, config_maps: &BTreeMap<String, Texts>) -> BTreeMap<String, Option<String>> {
        let mut environment = BTreeMap::new();
        for from in &self.env_from {
            let data = from.config_map_ref.as_ref().and_then(|named| config_maps.get(&named.name));
            for (name, value) in data.into_iter().flatten() {
                environment.insert(format!("{}{name}", from.prefix), Some(value.clone()));
            }
        }
        for variable in &self.env {
            let is_plain = variable.value_from.is_none() && !variable.value.contains("$(");
            environment.insert(variable.name.clone(), is_plain.then(|| variable.value.clone()));
        }
        environment
    }

    /// Whether it may have variables that cannot be read: of a Secret, or of a `ConfigMap` that was not found.
    #[must_use]
    pub fn has_unknown_variables(&self, config_maps: &BTreeMap<String, Texts>) -> bool {
        self.env_from.iter().any(|from| {
            let named = from.config_map_ref.as_ref();
            from.secret_ref.is_some() || named.is_some_and(|named| !config_maps.contains_key(&named.name))
        })
    }
}

#[cfg(test)]
mod tests;
