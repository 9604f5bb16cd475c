//! What Kubernetes says of a workload that wants tokens: its service account, its pods and their
//! configuration. Only the members that matter; whatever else is there is left out.

use std::collections::BTreeMap;

use serde::{Deserialize, de::IgnoredAny};

/// Names and texts: labels, annotations, data of a `ConfigMap`.
pub type Texts = BTreeMap<String, String>;

/// All that was found about one service account.
#[derive(Clone, Debug, Default)]
pub struct Workload {
    /// What `metadata.annotations` of the service account says; `None`: it does not exist.
    pub annotations: Option<Texts>,
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
    pub containers: Vec<Container>,
    #[serde(default)]
    pub volumes: Vec<Volume>,
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

impl Pod {
    /// The service account that it runs as.
    #[must_use]
    pub fn service_account(&self) -> &str {
        self.spec.service_account_name.as_deref().unwrap_or("default")
    }

    /// The token that a container finds at a path.
    #[must_use]
    pub fn token_at<'a>(&'a self, container: &'a Container, path: &str) -> Option<&'a ProjectedToken> {
        self.tokens(container).find(|(at, _)| at == path).map(|(_, token)| token)
    }

    /// The tokens that are projected for a container, and where it finds each.
    pub fn tokens<'a>(
        &'a self,
        container: &'a Container,
    ) -> impl Iterator<Item = (String, &'a ProjectedToken)> {
        container.volume_mounts.iter().flat_map(|mount| {
            let volumes = self.spec.volumes.iter().filter(|volume| volume.name == mount.name);
            let sources = volumes.filter_map(|volume| volume.projected.as_ref()).flat_map(|it| &it.sources);
            sources
                .filter_map(|source| source.service_account_token.as_ref())
                .map(|token| (format!("{}/{}", mount.mount_path.trim_end_matches('/'), token.path), token))
        })
    }
}

impl Container {
    /// Its environment as far as it can be read: `env` wins over `envFrom`, and a later entry over an
    /// earlier one. What comes from a Secret is there without its value.
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
            let value = variable.value_from.is_none().then(|| variable.value.clone());
            environment.insert(variable.name.clone(), value);
        }
        environment
    }
}
