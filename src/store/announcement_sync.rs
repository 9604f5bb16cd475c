//! Syncs announcements between a directory and one `ConfigMap` per node, beside that of the ledger.
//!
//! A node posts its own file; every process copies the announcements of the others. The files stay, whatever
//! happens to the API server: a node announces its first key before the API server starts that needs it, what
//! was read counts after a restart, and the operator admits a node by its file. Nothing is trusted here:
//! readers verify each announcement themselves, so write access to these objects permits holding one back and
//! no more. Requires permission to list `ConfigMaps` in the namespace, and for a node to create them and to
//! update its own.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
};

use http::{Method, StatusCode};
use k8s_openapi::{List, api::core::v1::ConfigMap, apimachinery::pkg::apis::meta::v1::ObjectMeta};

use crate::{
    announcements::MAX_SIZE,
    blocking,
    core::{
        signer::announcement::{NodeName, SignedAnnouncement},
        text::Hint,
    },
    files,
    kubernetes::{Access, Answer, Connection, KubernetesError, Request, hint_for_credential, refused_user},
};

/// The data key of an announcement.
const ANNOUNCEMENT: &str = "announcement.json";
/// The label that selects the announcements of a ledger; its value is the name of the ledger's `ConfigMap`.
const LABEL: &str = "signpost/announces-for";
/// Largest list, in bytes: some kilobytes for each node.
const MAX_LIST: usize = 16 * 1024 * 1024;

/// Syncs one directory with the announcement objects of one ledger.
pub struct AnnouncementSync {
    namespace: String,
    ledger: String,
    connection: Connection,
    directory: PathBuf,
    /// The node whose file is posted.
    own: Option<NodeName>,
}

impl AnnouncementSync {
    /// Sends no request before the first call. `ledger` is the name of the ledger's `ConfigMap`.
    #[must_use]
    pub fn new(
        namespace: String,
        ledger: String,
        access: Access,
        directory: PathBuf,
        own: Option<NodeName>,
    ) -> Self {
        Self { namespace, ledger, connection: Connection::new(access), directory, own }
    }

    /// Posts new local announcements, and copies new remote ones.
    ///
    /// # Errors
    ///
    /// Fails at the first error; earlier changes stay.
    pub async fn sync(&self) -> Result<(), AnnouncementSyncError> {
        let request = Request::get(format!("{}?labelSelector={LABEL}%3D{}", self.collection(), self.ledger));
        let request = request.up_to(MAX_LIST);
        let answer = self.call(&request).await?;
        if answer.status != StatusCode::OK {
            return Err(self.refused(&request, &answer));
        }
        let list: List<ConfigMap> = answer.json(&request).map_err(|source| self.failed(source))?;
        let (mut present, mut theirs) = (None, BTreeMap::new());
        for object in list.items {
            let Some(node) = object.metadata.name.as_deref().and_then(|name| self.node_of(name)) else {
                continue;
            };
            // The own object is compared and written, never copied here.
            if self.own.as_ref() == Some(&node) {
                present = Some(object);
            } else if let Some(text) = object.data.unwrap_or_default().remove(ANNOUNCEMENT) {
                theirs.insert(node, text);
            }
        }
        let directory = self.directory.clone();
        let taken = blocking::at(&self.directory, move || take_over(&directory, &theirs)).await;
        let took = taken.unwrap_or_else(|hangs| {
            Err(AnnouncementSyncError::Io {
                action: "reach",
                path: self.directory.clone(),
                source: hangs.into(),
            })
        });
        if let Some(own) = &self.own {
            self.post(own, present).await?;
        }
        took
    }

    /// Posts the file of the own node unless the object is up to date.
    async fn post(&self, own: &NodeName, present: Option<ConfigMap>) -> Result<(), AnnouncementSyncError> {
        let path = self.directory.join(format!("{own}.json"));
        let reading = blocking::at(&self.directory, {
            let path = path.clone();
            move || files::read_no_follow(&path, MAX_SIZE)
        });
        let text = match reading.await.unwrap_or_else(|hangs| Err(hangs.into())) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            read => read.and_then(|bytes| String::from_utf8(bytes).map_err(io::Error::other)),
        };
        let text = text.map_err(|source| AnnouncementSyncError::Io { action: "read", path, source })?;
        let data = BTreeMap::from([(ANNOUNCEMENT.to_owned(), text)]);
        let request = match present {
            Some(object) if object.data.as_ref() == Some(&data) => return Ok(()),
            Some(object) => {
                let object = ConfigMap { data: Some(data), ..object };
                Request::put(format!("{}/{}", self.collection(), self.name_of(own)), &object)
            }
            None => {
                let labels = [
                    ("app.kubernetes.io/name", "signpost"),
                    ("app.kubernetes.io/component", "announcement"),
                    (LABEL, &self.ledger),
                ];
                let labels = labels.map(|(name, value)| (name.to_owned(), value.to_owned()));
                let metadata = ObjectMeta {
                    name: Some(self.name_of(own)),
                    namespace: Some(self.namespace.clone()),
                    labels: Some(labels.into()),
                    ..ObjectMeta::default()
                };
                let object = ConfigMap { metadata, data: Some(data), ..ConfigMap::default() };
                Request::post(self.collection(), &object)
            }
        };
        let answer = self.call(&request).await?;
        let is_update = request.method == Method::PUT;
        match answer.status {
            StatusCode::OK | StatusCode::CREATED => Ok(()),
            // A concurrent write: the next round decides again.
            StatusCode::CONFLICT | StatusCode::NOT_FOUND if is_update => Ok(()),
            _ => Err(self.refused(&request, &answer)),
        }
    }

    fn collection(&self) -> String {
        format!("/api/v1/namespaces/{}/configmaps", self.namespace)
    }

    /// Both parts are DNS subdomains, and so is the result.
    fn name_of(&self, node: &NodeName) -> String {
        format!("{}.{node}", self.ledger)
    }

    /// The node whose object has this name.
    fn node_of(&self, name: &str) -> Option<NodeName> {
        NodeName::parse(name.strip_prefix(&self.ledger)?.strip_prefix('.')?).ok()
    }

    async fn call(&self, request: &Request) -> Result<Answer, AnnouncementSyncError> {
        self.connection.call(request).await.map_err(|source| self.failed(source))
    }

    fn failed(&self, source: KubernetesError) -> AnnouncementSyncError {
        AnnouncementSyncError::Kubernetes { namespace: self.namespace.clone(), source: Box::new(source) }
    }

    fn refused(&self, request: &Request, answer: &Answer) -> AnnouncementSyncError {
        let message = answer.message();
        let hint = hint_for_credential(answer.status, message.as_deref()).map(str::to_owned);
        let hint = hint.or_else(|| self.hint(&request.method, answer.status, message.as_deref()));
        let (request, status) = (request.to_string(), answer.status);
        self.failed(KubernetesError::Status { request, status, hint, message })
    }

    fn hint(&self, method: &Method, status: StatusCode, message: Option<&str>) -> Option<String> {
        let Self { namespace, ledger, own, .. } = self;
        let object = own.as_ref().map(|own| self.name_of(own));
        match (status, method, object) {
            (StatusCode::CONFLICT, &Method::POST, Some(object)) => Some(format!(
                "label the one that is there, so that it is found: `kubectl label configmap {object} \
                 --namespace={namespace} {LABEL}={ledger}`"
            )),
            (StatusCode::NOT_FOUND, &Method::POST, _) => {
                Some(format!("make the namespace: `kubectl create namespace {namespace}`"))
            }
            (StatusCode::FORBIDDEN, method, object) => {
                let (goal, role, rights) = match (own, object) {
                    (Some(own), Some(object)) if *method == Method::PUT => (
                        "update its announcement",
                        format!("signpost-signer-{own}"),
                        format!("--verb=update --resource=configmaps --resource-name={object}"),
                    ),
                    (Some(own), _) => (
                        "sync announcements",
                        format!("signpost-signer-{own}-announcements"),
                        "--verb=list,create --resource=configmaps".to_owned(),
                    ),
                    (None, _) => (
                        "hear the nodes",
                        "signpost-announcements".to_owned(),
                        "--verb=list --resource=configmaps".to_owned(),
                    ),
                };
                Some(format!(
                    "let it {goal}: `kubectl create role {role} --namespace={namespace} {rights} && kubectl create \
                     rolebinding {role} --namespace={namespace} --role={role} {}`",
                    refused_user(message)
                ))
            }
            _ => None,
        }
    }
}

/// Writes the files that are missing or differ. Objects that are not an announcement of their node are
/// skipped: one malformed file would fail the whole directory.
fn take_over(directory: &Path, theirs: &BTreeMap<NodeName, String>) -> Result<(), AnnouncementSyncError> {
    for (node, text) in theirs {
        let path = directory.join(format!("{node}.json"));
        if files::read_no_follow(&path, MAX_SIZE).is_ok_and(|present| present == text.as_bytes())
            || !SignedAnnouncement::read(text.as_bytes())
                .is_ok_and(|signed| signed.announcement().node() == node)
        {
            continue;
        }
        files::create_directory(directory, files::PUBLIC_DIRECTORY)
            .and_then(|()| files::replace(&path, text.as_bytes(), files::PUBLIC_FILE))
            .map_err(|source| AnnouncementSyncError::Io { action: "write", path, source })?;
    }
    Ok(())
}

#[derive(Debug, thiserror::Error)]
pub enum AnnouncementSyncError {
    #[error("cannot sync announcements in namespace `{namespace}`")]
    Kubernetes { namespace: String, source: Box<KubernetesError> },
    #[error("cannot {action} `{path}`", path = path.display())]
    Io { action: &'static str, path: PathBuf, source: io::Error },
}

impl AnnouncementSyncError {
    /// Whether the API server denies the permission.
    #[must_use]
    pub fn is_refusal(&self) -> bool {
        matches!(self, Self::Kubernetes { source, .. } if source.is_refusal())
    }
}

impl Hint for AnnouncementSyncError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Kubernetes { source, .. } => source.hint(),
            Self::Io { .. } => None,
        }
    }
}

#[cfg(test)]
mod tests;
