//! Reads service accounts, their pods and their configuration, to verify them.
//!
//! Objects that may not be read are left out where the rest is still useful; a token is sent only to the API
//! server that issued it.

use std::collections::BTreeMap;

use http::StatusCode;
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec};
use serde::{Deserialize, de::DeserializeOwned};
use url::form_urlencoded;

use crate::{
    core::{
        jose::{issuer::DISCOVERY_PATH, token::Token},
        service_account::ServiceAccount,
        text::Hint,
        workload::{Metadata, Pod, Texts, Workload},
    },
    kubernetes::{Access, Answer, Connection, KubernetesError, Request, hint_for_credential, refused_user},
};

/// Largest list, in bytes: a namespace of a few thousand pods.
const MAX_LIST: usize = 32 * 1024 * 1024;
/// Objects of one page: pods of a few kilobytes each.
const PAGE: &str = "500";
/// The name of the webhook of azure-workload-identity.
/// Source: `manifest_staging/charts/workload-identity-webhook` of that project.
const WEBHOOK: &str = "azure-wi-webhook-mutating-webhook-configuration";

#[derive(Debug)]
pub struct Workloads {
    connection: Connection,
}

/// The service accounts and pods of a namespace.
pub struct Namespace {
    pub accounts: Vec<(ServiceAccount, Workload)>,
}

#[derive(Deserialize)]
struct Object {
    #[serde(default)]
    metadata: Metadata,
    #[serde(default)]
    data: Texts,
}

/// A service account, and who runs as it.
pub struct AccountInUse {
    pub account: ServiceAccount,
    pub annotations: Texts,
    pub pods: Vec<Pod>,
}

#[derive(Deserialize)]
struct Discovery {
    issuer: String,
}

#[derive(Deserialize)]
struct List<T> {
    #[serde(default)]
    metadata: ListMetadata,
    items: Vec<T>,
}

#[derive(Default, Deserialize)]
struct ListMetadata {
    /// What to ask for next; empty on the last page.
    #[serde(default, rename = "continue")]
    next: String,
}

impl Workloads {
    #[must_use]
    pub fn new(access: Access) -> Self {
        Self { connection: Connection::new(access) }
    }

    /// One service account and the pods that run as it, without finished ones.
    ///
    /// # Errors
    ///
    /// Fails when the API server cannot be reached, or refuses service accounts or pods; and when there is no
    /// such service account.
    pub async fn of_account(&self, account: &ServiceAccount) -> Result<Workload, WorkloadError> {
        let namespace = account.namespace();
        let annotations = self.annotations(account).await?;
        let pods = self.pods(namespace).await?;
        let pods = pods.into_iter().filter(|pod| pod.service_account() == account.name()).collect();
        Ok(self.completed(namespace, annotations, pods).await?)
    }

    /// One pod, finished or not, and the service account that it runs as.
    ///
    /// # Errors
    ///
    /// As [`Self::of_account`]; and when there is no such pod.
    pub async fn of_pod(
        &self,
        namespace: &str,
        name: &str,
    ) -> Result<(ServiceAccount, Workload), WorkloadError> {
        let pod: Pod = self.read(Request::get(format!("/api/v1/namespaces/{namespace}/pods/{name}"))).await?;
        let account = ServiceAccount::new(namespace, pod.service_account())
            .map_err(|_| KubernetesError::Incomplete { request: format!("GET pod `{namespace}/{name}`") })?;
        let annotations = self.annotations(&account).await?;
        Ok((account, self.completed(namespace, annotations, vec![pod]).await?))
    }

    /// Every service account of a namespace, with its pods.
    ///
    /// # Errors
    ///
    /// As [`Self::of_account`].
    pub async fn of_namespace(&self, namespace: &str) -> Result<Namespace, KubernetesError> {
        let path = format!("/api/v1/namespaces/{namespace}/serviceaccounts");
        let found: List<Object> = self.read(Request::get(path).up_to(MAX_LIST)).await?;
        let pods = self.pods(namespace).await?;
        let mut accounts = Vec::new();
        for Object { metadata, .. } in found.items {
            let Ok(account) = ServiceAccount::new(namespace, &metadata.name) else { continue };
            let own = pods.iter().filter(|pod| pod.service_account() == account.name()).cloned().collect();
            let workload = self.completed(namespace, metadata.annotations, own).await?;
            accounts.push((account, workload));
        }
        Ok(Namespace { accounts })
    }

    /// The issuer of the cluster's tokens.
    ///
    /// # Errors
    ///
    /// Fails when the API server cannot be reached, or does not say.
    pub async fn issuer(&self) -> Result<String, KubernetesError> {
        let discovery: Discovery = self.read(Request::get(format!("/{DISCOVERY_PATH}"))).await?;
        Ok(discovery.issuer)
    }

    /// Every service account of a namespace or of the whole cluster, with its pods that have not finished.
    ///
    /// # Errors
    ///
    /// Fails when the API server cannot be reached, or refuses service accounts or pods.
    pub async fn accounts(&self, namespace: Option<&str>) -> Result<Vec<AccountInUse>, KubernetesError> {
        let within = namespace.map_or_else(String::new, |namespace| format!("/namespaces/{namespace}"));
        let found: Vec<Object> = self.pages(&format!("/api/v1{within}/serviceaccounts")).await?;
        let mut pods: BTreeMap<(String, String), Vec<Pod>> = BTreeMap::new();
        for pod in self.pages::<Pod>(&format!("/api/v1{within}/pods")).await? {
            if !pod.is_finished() {
                let whose = (pod.metadata.namespace.clone(), pod.service_account().to_owned());
                pods.entry(whose).or_default().push(pod);
            }
        }
        let accounts = found.into_iter().filter_map(|Object { metadata, .. }| {
            let account = ServiceAccount::new(&metadata.namespace, &metadata.name).ok()?;
            let pods = pods.remove(&(metadata.namespace, metadata.name)).unwrap_or_default();
            Some(AccountInUse { account, annotations: metadata.annotations, pods })
        });
        Ok(accounts.collect())
    }

    /// A list of any length, in pages.
    async fn pages<T: DeserializeOwned>(&self, path: &str) -> Result<Vec<T>, KubernetesError> {
        let (mut found, mut next) = (Vec::new(), String::new());
        loop {
            let query = form_urlencoded::Serializer::new(String::new())
                .append_pair("limit", PAGE)
                .append_pair("continue", &next)
                .finish();
            let page: List<T> = self.read(Request::get(format!("{path}?{query}")).up_to(MAX_LIST)).await?;
            found.extend(page.items);
            next = page.metadata.next;
            if next.is_empty() {
                return Ok(found);
            }
        }
    }

    /// Whether the API server accepts for itself a token that it has just issued for another audience; `None`
    /// without the permission to ask.
    ///
    /// # Errors
    ///
    /// Fails when the API server cannot be reached.
    pub async fn accepts_as_own_audience(&self, token: &Token) -> Result<Option<bool>, KubernetesError> {
        let spec = TokenReviewSpec { token: token.as_str().to_owned(), audiences: None };
        let path = "/apis/authentication.k8s.io/v1/tokenreviews".to_owned();
        let request = Request::post(path, &TokenReview { spec, ..TokenReview::default() });
        let answer = self.connection.call(&request).await?;
        if !answer.status.is_success() {
            return Ok(None);
        }
        let review: TokenReview = answer.json(&request)?;
        Ok(review.status.map(|status| status.authenticated.unwrap_or(false)))
    }

    async fn annotations(&self, account: &ServiceAccount) -> Result<Texts, WorkloadError> {
        let (namespace, name) = (account.namespace(), account.name());
        let path = format!("/api/v1/namespaces/{namespace}/serviceaccounts/{name}");
        let found: Option<Object> = self.optional(Request::get(path)).await?;
        let found = found.ok_or_else(|| WorkloadError::NoAccount { account: account.clone() })?;
        Ok(found.metadata.annotations)
    }

    /// The pods that run or are pending; finished ones are irrelevant.
    async fn pods(&self, namespace: &str) -> Result<Vec<Pod>, KubernetesError> {
        let request = Request::get(format!("/api/v1/namespaces/{namespace}/pods")).up_to(MAX_LIST);
        let pods = self.read::<List<Pod>>(request).await?.items;
        Ok(pods.into_iter().filter(|pod| !pod.is_finished()).collect())
    }

    /// Adds the sources of the pods' environment, and whether the webhook is installed.
    async fn completed(
        &self,
        namespace: &str,
        annotations: Texts,
        pods: Vec<Pod>,
    ) -> Result<Workload, KubernetesError> {
        let mut workload =
            Workload { annotations, pods, webhook: self.has_webhook().await?, ..Workload::default() };
        let containers = workload.pods.iter().flat_map(Pod::all_containers);
        let references = containers.flat_map(|it| &it.env_from).filter_map(|it| it.config_map_ref.as_ref());
        let names: std::collections::BTreeSet<_> = references.map(|it| it.name.clone()).collect();
        for name in names {
            let path = format!("/api/v1/namespaces/{namespace}/configmaps/{name}");
            match self.optional::<Object>(Request::get(path)).await {
                Ok(Some(object)) => drop(workload.config_maps.insert(name, object.data)),
                // Without it fewer checks run, and none fails wrongly.
                Ok(None) => {}
                Err(error) if error.is_refusal() => {}
                Err(error) => return Err(error),
            }
        }
        Ok(workload)
    }

    async fn has_webhook(&self) -> Result<Option<bool>, KubernetesError> {
        let path = format!("/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/{WEBHOOK}");
        match self.optional::<Object>(Request::get(path)).await {
            Ok(found) => Ok(Some(found.is_some())),
            Err(error) if error.is_refusal() => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn read<T: DeserializeOwned>(&self, request: Request) -> Result<T, KubernetesError> {
        let answer = self.connection.call(&request).await?;
        if answer.status.is_success() { answer.json(&request) } else { Err(refused(&request, &answer)) }
    }

    /// As [`Self::read`]; `None` when there is no such object.
    async fn optional<T: DeserializeOwned>(&self, request: Request) -> Result<Option<T>, KubernetesError> {
        match self.read(request).await {
            Ok(found) => Ok(Some(found)),
            Err(KubernetesError::Status { status: StatusCode::NOT_FOUND, .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// The workload does not exist or cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum WorkloadError {
    #[error("service account `{account}` does not exist in this cluster")]
    NoAccount { account: ServiceAccount },
    #[error(transparent)]
    Call(#[from] KubernetesError),
}

impl Hint for WorkloadError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::NoAccount { account } => Some(format!(
                "`kubectl get serviceaccounts --namespace={}` lists the existing ones; a federated \
                 credential for one that does not exist trusts anyone who creates it",
                account.namespace()
            )),
            Self::Call(error) => error.hint(),
        }
    }
}

fn refused(request: &Request, answer: &Answer) -> KubernetesError {
    let message = answer.message();
    let hint = match (hint_for_credential(answer.status, message.as_deref()), answer.status) {
        (Some(hint), _) => Some(hint.to_owned()),
        (None, StatusCode::FORBIDDEN) => Some(format!(
            "let it read: `kubectl create rolebinding signpost-verify --namespace={} --clusterrole=view {}`",
            namespace_of(request),
            refused_user(message.as_deref())
        )),
        (None, _) => None,
    };
    KubernetesError::Status { request: request.to_string(), status: answer.status, message, hint }
}

fn namespace_of(request: &Request) -> &str {
    request.path.split('/').skip_while(|part| *part != "namespaces").nth(1).unwrap_or("NAMESPACE")
}
