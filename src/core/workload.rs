//! A workload that uses tokens: its service account, its pods and their configuration. Only the relevant
//! members are parsed.

use std::collections::BTreeMap;

use serde::{Deserialize, de::IgnoredAny};

/// Names and values: labels, annotations, data of a `ConfigMap`.
pub type Texts = BTreeMap<String, String>;

/// Everything found about one service account.
#[derive(Clone, Debug, Default)]
pub struct Workload {
    /// `metadata.annotations` of the service account.
    pub annotations: Texts,
    pub pods: Vec<Pod>,
    /// The data of the `ConfigMap`s that the pods take their environment from, by name.
    pub config_maps: BTreeMap<String, Texts>,
    /// Whether the webhook of azure-workload-identity is installed; `None`: unknown.
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
#[serde(rename_all = "camelCase")]
pub struct Metadata {
    #[serde(default)]
    pub name: String,
    #[serde(default)]
    pub namespace: String,
    /// It is being deleted.
    pub deletion_timestamp: Option<IgnoredAny>,
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
    /// The base of relative paths; without it, that of the image.
    pub working_dir: Option<String>,
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
    /// Kubernetes omits an empty value.
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
    /// One file or directory of the volume instead of all; the kubelet never updates it.
    pub sub_path: Option<String>,
    /// The same, with variables expanded.
    pub sub_path_expr: Option<String>,
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
    /// Files that cannot be read here.
    pub secret: Option<IgnoredAny>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ProjectedToken {
    /// Empty: the audience of the API server.
    #[serde(default)]
    pub audience: String,
    pub expiration_seconds: Option<i64>,
    pub path: String,
}

/// A projected token at the path at which a container reads it.
#[derive(Clone, Debug)]
pub struct MountedToken<'a> {
    pub path: String,
    pub token: &'a ProjectedToken,
    /// Whether the kubelet updates the file while the container runs: not if it is mounted by `subPath`.
    pub is_refreshed: bool,
}

impl Pod {
    /// The service account that it runs as.
    #[must_use]
    pub fn service_account(&self) -> &str {
        self.spec.service_account_name.as_deref().unwrap_or("default")
    }

    /// Whether none of its containers runs, or will run for long.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.metadata.deletion_timestamp.is_some()
            || matches!(self.status.phase.as_str(), "Succeeded" | "Failed")
    }

    /// All containers, init containers last.
    pub fn all_containers(&self) -> impl Iterator<Item = &Container> {
        self.spec.containers.iter().chain(&self.spec.init_containers)
    }

    /// The token that a container finds at a path.
    #[must_use]
    pub fn token_at<'a>(&'a self, container: &'a Container, path: &str) -> Option<MountedToken<'a>> {
        let path = container.absolute(path)?;
        let mount = container.mount_at(&path)?;
        self.tokens_of(mount).find(|token| token.path == path)
    }

    /// The tokens that are projected into a container, each with its path.
    pub fn tokens<'a>(&'a self, container: &'a Container) -> impl Iterator<Item = MountedToken<'a>> {
        container.volume_mounts.iter().flat_map(|mount| self.tokens_of(mount))
    }

    fn tokens_of<'a>(&'a self, mount: &'a Mount) -> impl Iterator<Item = MountedToken<'a>> {
        let sources =
            self.volumes_of(mount).filter_map(|volume| volume.projected.as_ref()).flat_map(|it| &it.sources);
        let tokens = sources.filter_map(|source| source.service_account_token.as_ref());
        tokens.filter_map(|token| {
            let is_refreshed = mount.part().is_empty();
            Some(MountedToken { path: mount.path_of(&token.path)?, token, is_refreshed })
        })
    }

    fn volumes_of(&self, mount: &Mount) -> impl Iterator<Item = &Volume> {
        self.spec.volumes.iter().filter(|volume| volume.name == mount.name)
    }

    /// Whether a container may have unknown contents at a path: of a Secret, of another kind of volume, or
    /// below a directory that only the image defines.
    #[must_use]
    pub fn is_unknown_at(&self, container: &Container, path: &str) -> bool {
        let Some(path) = container.absolute(path) else { return true };
        let has_unknown = |volume: &Volume| {
            let projected = volume.projected.as_ref();
            projected.is_none_or(|projected| projected.sources.iter().any(|source| source.secret.is_some()))
        };
        container
            .mount_at(&path)
            .is_some_and(|mount| mount.part().contains("$(") || self.volumes_of(mount).any(has_unknown))
    }
}

impl Mount {
    /// The file or directory of the volume that is mounted; empty for the whole volume.
    fn part(&self) -> &str {
        let given = [&self.sub_path, &self.sub_path_expr].into_iter().flatten();
        given.map(String::as_str).find(|part| !part.is_empty()).unwrap_or_default()
    }

    /// The path of a file of the volume; `None` if only another part of the volume is mounted.
    fn path_of(&self, file: &str) -> Option<String> {
        let sub_path = plain(self.part());
        let rest = plain(&format!("/{file}")).strip_prefix(sub_path.trim_end_matches('/'))?.to_owned();
        let is_part = rest.is_empty() || rest.starts_with('/');
        is_part.then(|| plain(&format!("{}{rest}", self.mount_path)))
    }
}

/// Normalises a path: `//`, `/./`, `/x/..`, a final `/`, and the link by which the kubelet swaps the files of
/// a volume.
/// Source: `dataDirName` in `kubernetes/pkg/volume/util/atomic_writer.go`.
fn plain(path: &str) -> String {
    let mut parts = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." | "..data" => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

impl Container {
    /// The absolute path; `None` if only the image defines its base.
    fn absolute(&self, path: &str) -> Option<String> {
        if path.starts_with('/') {
            return Some(plain(path));
        }
        let directory = self.working_dir.as_deref().filter(|directory| !directory.is_empty())?;
        Some(plain(&format!("{directory}/{path}")))
    }

    /// The innermost mount that covers a path.
    fn mount_at(&self, path: &str) -> Option<&Mount> {
        let covers = |mount: &&Mount| {
            let at = plain(&mount.mount_path);
            path.strip_prefix(&at).is_some_and(|rest| rest.is_empty() || rest.starts_with('/') || at == "/")
        };
        self.volume_mounts.iter().filter(covers).max_by_key(|mount| plain(&mount.mount_path).len())
    }

    /// The readable environment: `env` overrides `envFrom`, and a later entry an earlier one. A variable from
    /// a Secret, or one composed of other variables, has no value here.
    #[must_use]
    pub fn environment(&self, config_maps: &BTreeMap<String, Texts>) -> BTreeMap<String, Option<String>> {
        let mut environment: BTreeMap<String, Option<String>> = BTreeMap::new();
        for from in &self.env_from {
            let data = from.config_map_ref.as_ref().and_then(|named| config_maps.get(&named.name));
            if data.is_none() {
                // It may override any variable before it.
                let unknown =
                    environment.iter_mut().filter(|(name, _): &(&String, _)| name.starts_with(&from.prefix));
                unknown.for_each(|(_, value)| *value = None);
            }
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

    /// Whether it may have unreadable variables: of a Secret, or of a `ConfigMap` that was not found.
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
