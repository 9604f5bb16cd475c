//! Keeps a ledger in a `ConfigMap`, by compare-and-swap on its `resourceVersion`.
//!
//! Requires permission to get and update this one `ConfigMap`, and to create it unless it exists, which may
//! be empty. Never lists and never watches. Why not a custom resource: `docs/decisions/0018`.

use std::{collections::BTreeMap, fmt, sync::Arc};

use http::{Method, StatusCode};
use k8s_openapi::{
    api::core::v1::ConfigMap,
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, Status},
};

use super::{LedgerLocation, Revision, StoreError, Stored, is_worth_keeping};
use crate::{
    core::{
        jose::{issuer::Issuer, stored::InvalidDocument},
        ledger::{Ledger, StoredLedger},
        signer::announcement::NodeName,
    },
    kubernetes::{Access, Answer, Connection, KubernetesError, Request, hint_for_credential, refused_user},
};

/// The data key of the ledger.
pub(super) const LEDGER: &str = "ledger.json";
/// The data key of the previous version.
const PREVIOUS: &str = "ledger.previous.json";
/// Largest sum of all values, in bytes.
/// Source: `MaxSecretSize` in `kubernetes/pkg/apis/core/types.go`, which `ValidateConfigMap` uses too.
const MAX_DATA: usize = 1024 * 1024;
/// Largest answer, in bytes: quotes and line breaks of the values are escaped.
const MAX_ANSWER: usize = 4 * MAX_DATA;

/// The object that holds a ledger.
pub(super) type Object = ConfigMap;

pub struct ConfigMapStore {
    namespace: String,
    name: String,
    connection: Connection,
    /// The node that reads its desired state here, where nothing is written.
    reader: Option<NodeName>,
}

impl fmt::Debug for ConfigMapStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ConfigMapStore({}/{})", self.namespace, self.name)
    }
}

impl ConfigMapStore {
    /// Sends no request before the first call. Both names are DNS names.
    #[must_use]
    pub fn new(namespace: String, name: String, access: Access) -> Self {
        Self { namespace, name, connection: Connection::new(access), reader: None }
    }

    /// Makes the store read-only for a node, which needs no write permission.
    #[must_use]
    pub fn read_by(self, node: NodeName) -> Self {
        Self { reader: Some(node), ..self }
    }

    pub(super) fn at(&self) -> LedgerLocation {
        LedgerLocation::ConfigMap { namespace: self.namespace.clone(), name: self.name.clone() }
    }

    pub(super) async fn read(&self) -> Result<Stored, StoreError> {
        let request = Request::get(format!("{}/{}", self.collection(), self.name)).up_to(MAX_ANSWER);
        let answer = self.ask(&request, "read").await?;
        match answer.status {
            StatusCode::OK => self.found(self.object(&request, &answer)?),
            StatusCode::NOT_FOUND if says_not_found(&answer) => {
                Ok(Stored { found: StoredLedger::Nothing, revision: None })
            }
            _ => Err(self.refused("read", &request, &answer)),
        }
    }

    /// The ledger in an object, if one could be written to it.
    fn found(&self, object: ConfigMap) -> Result<Stored, StoreError> {
        let at = self.at();
        if object.immutable == Some(true) {
            return Err(StoreError::Immutable { at });
        }
        if object.binary_data.iter().flatten().any(|(key, _)| key == LEDGER) {
            return Err(StoreError::Binary { at });
        }
        let data = object.data.clone().unwrap_or_default();
        let parsed = |key: &str| data.get(key).map(|text| Ledger::parse(text.as_bytes()));
        let found = match (parsed(LEDGER), parsed(PREVIOUS)) {
            (Some(Ok(ledger)), _) => StoredLedger::Ledger(Arc::new(ledger)),
            (Some(Err(source @ InvalidDocument::Newer { .. })), _) => {
                return Err(StoreError::Invalid { at, source });
            }
            (_, Some(Ok(previous))) => StoredLedger::Previous(Arc::new(previous)),
            (Some(Err(damaged)), _) => StoredLedger::Damaged(damaged),
            (None, _) => {
                let others = data.keys().chain(object.binary_data.iter().flat_map(BTreeMap::keys));
                let keys: Vec<String> = others.filter(|key| *key != PREVIOUS).cloned().collect();
                if !keys.is_empty() {
                    return Err(StoreError::NoLedger { at, keys });
                }
                StoredLedger::Nothing
            }
        };
        Ok(Stored { found, revision: Some(Revision::ConfigMap(Box::new(object))) })
    }

    /// Writes the ledger unless it was written after `before` was read; `None`: unless one exists.
    pub(super) async fn write(
        &self,
        issuer: &Issuer,
        json: Vec<u8>,
        before: Option<ConfigMap>,
    ) -> Result<(), StoreError> {
        let ledger = String::from_utf8(json).expect("JSON is UTF-8");
        let request = match before {
            Some(before) => {
                let object = self.filled(before, ledger, issuer)?;
                Request::put(format!("{}/{}", self.collection(), self.name), &object)
            }
            None => Request::post(self.collection(), &self.filled(ConfigMap::default(), ledger, issuer)?),
        };
        let request = request.up_to(MAX_ANSWER);
        let answer = self.ask(&request, "write").await?;
        let is_update = request.method == Method::PUT;
        match answer.status {
            StatusCode::OK | StatusCode::CREATED => Ok(()),
            // The version has changed, or the object now exists.
            StatusCode::CONFLICT => Err(StoreError::Changed { at: self.at() }),
            // Deleted since it was read.
            StatusCode::NOT_FOUND if is_update && says_not_found(&answer) => {
                Err(StoreError::Changed { at: self.at() })
            }
            _ => Err(self.refused("write", &request, &answer)),
        }
    }

    /// The new object; data keys of others are kept.
    fn filled(
        &self,
        mut object: ConfigMap,
        ledger: String,
        issuer: &Issuer,
    ) -> Result<ConfigMap, StoreError> {
        let metadata = std::mem::take(&mut object.metadata);
        let mut labels = metadata.labels.unwrap_or_default();
        labels.insert("app.kubernetes.io/name".to_owned(), "signpost".to_owned());
        labels.insert("app.kubernetes.io/component".to_owned(), "ledger".to_owned());
        let mut annotations = metadata.annotations.unwrap_or_default();
        annotations.insert("signpost/issuer".to_owned(), issuer.to_string());
        annotations.insert(
            "kubernetes.io/description".to_owned(),
            "Every key of this issuer that was ever seen, public keys only. Written by signpost: see \
             `signpost ledger show`, and do not edit it."
                .to_owned(),
        );
        object.metadata = ObjectMeta {
            namespace: Some(self.namespace.clone()),
            name: Some(self.name.clone()),
            labels: Some(labels),
            annotations: Some(annotations),
            // The API server maintains these fields.
            managed_fields: None,
            ..metadata
        };
        let mut data = object.data.take().unwrap_or_default();
        if let Some(before) =
            data.remove(LEDGER).filter(|before| is_worth_keeping(before.as_bytes(), ledger.as_bytes()))
        {
            data.insert(PREVIOUS.to_owned(), before);
        }
        data.insert(LEDGER.to_owned(), ledger);
        let binary: usize = object.binary_data.iter().flatten().map(|(_, value)| value.0.len()).sum();
        let bytes = |data: &BTreeMap<String, String>| data.values().map(String::len).sum::<usize>() + binary;
        if bytes(&data) > MAX_DATA {
            data.remove(PREVIOUS);
        }
        if bytes(&data) > MAX_DATA {
            return Err(StoreError::TooLarge { at: self.at(), bytes: bytes(&data), limit: MAX_DATA });
        }
        object.data = Some(data);
        Ok(object)
    }

    fn collection(&self) -> String {
        format!("/api/v1/namespaces/{}/configmaps", self.namespace)
    }

    async fn ask(&self, request: &Request, action: &'static str) -> Result<Answer, StoreError> {
        let answer = self.connection.call(request).await;
        answer.map_err(|source| self.failed(action, source))
    }

    fn object(&self, request: &Request, answer: &Answer) -> Result<ConfigMap, StoreError> {
        answer.json(request).map_err(|source| self.failed("read", source))
    }

    fn failed(&self, action: &'static str, source: KubernetesError) -> StoreError {
        StoreError::Kubernetes { action, at: self.at(), source: Box::new(source) }
    }

    fn refused(&self, action: &'static str, request: &Request, answer: &Answer) -> StoreError {
        let message = answer.message();
        let hint = hint_for_credential(answer.status, message.as_deref()).map(str::to_owned);
        let source = KubernetesError::Status {
            request: request.to_string(),
            status: answer.status,
            hint: hint.or_else(|| self.hint(&request.method, answer.status, message.as_deref())),
            message,
        };
        self.failed(action, source)
    }

    fn hint(&self, method: &Method, status: StatusCode, message: Option<&str>) -> Option<String> {
        let Self { namespace, name, .. } = self;
        match (status, method) {
            (StatusCode::FORBIDDEN, &Method::POST) => {
                Some(format!("make it, empty: `kubectl create configmap {name} --namespace={namespace}`"))
            }
            (StatusCode::FORBIDDEN, _) => {
                let (goal, role, verbs) = match &self.reader {
                    None => ("keep its ledger", "signpost-ledger".to_owned(), "get,update"),
                    Some(node) => ("read its orders", format!("signpost-signer-{node}-orders"), "get"),
                };
                Some(format!(
                    "let it {goal}: `kubectl create role {role} --namespace={namespace} --verb={verbs} \
                     --resource=configmaps --resource-name={name} && kubectl create rolebinding {role} \
                     --namespace={namespace} --role={role} {}`",
                    refused_user(message)
                ))
            }
            (StatusCode::NOT_FOUND, &Method::POST) => {
                Some(format!("make the namespace: `kubectl create namespace {namespace}`"))
            }
            _ => None,
        }
    }
}

/// Whether the API server itself reports that there is no such object. An answer of a proxy, or of another
/// server at the address, must not make a ledger look lost.
fn says_not_found(answer: &Answer) -> bool {
    let status: Option<Status> = serde_json::from_slice(&answer.body).ok();
    status.is_some_and(|status| status.reason.as_deref() == Some("NotFound"))
}

#[cfg(test)]
mod tests;
