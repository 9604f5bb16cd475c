//! Gathers the evidence for a verdict from the sources that the operator names.

use std::{collections::BTreeSet, net::SocketAddr, path::PathBuf, time::Duration};

use tokio::time::sleep;

use crate::{
    clock,
    core::{
        entra::{Credential, Identity, TokenRequest},
        jose::{kid::Kid, token::UnverifiedToken},
        ledger::Ledger,
        service_account::ServiceAccount,
        text::Hint,
        verification::{ApiServerView, DocumentEvidence, Evidence, Expectation},
    },
    http_client::ClientError,
    kubernetes::{
        Access, KubernetesError,
        workloads::{WorkloadError, Workloads},
    },
    reconcile::document_read,
    relying_party::{Reach, RelyingParty},
    source::api_server::{ApiServer, ApiServerError},
};

/// Lifetime of a token made for verification: the shortest that Kubernetes allows.
pub(super) const LIFETIME: Duration = Duration::from_mins(10);
/// How often the keys of an API server are read while the key that just signed is missing: it renders them
/// again shortly after it receives a key, and a load balancer may reach another instance.
const JWKS_READ_ATTEMPTS: u32 = 3;
const NEXT_LOOK: Duration = Duration::from_secs(1);

/// Where the two documents come from.
#[derive(Clone, Debug)]
pub enum Documents {
    /// Files given by the operator.
    Given { discovery: DocumentEvidence, jwks: DocumentEvidence },
    /// Fetched from the issuer.
    Fetched { allow_private: bool, instead: Option<SocketAddr>, ca_file: Option<PathBuf> },
}

/// The service accounts that tokens are made for.
#[derive(Clone, Debug)]
pub enum TokenSubject {
    Account(ServiceAccount),
    Pod { namespace: String, name: String },
    Namespace(String),
}

/// The cluster that issues the token, and the workloads to check in it.
#[derive(Clone, Debug)]
pub struct InCluster {
    pub whose: TokenSubject,
    /// The `aud` claim of the token.
    pub audience: String,
    /// Kubeconfig context; without one, the cluster that Signpost runs in.
    pub context: Option<String>,
}

/// The inputs that the evidence is gathered from.
#[derive(Clone, Debug)]
pub struct Sources {
    pub token: Option<String>,
    /// Description of what surrounds the token in its file.
    pub token_file: Option<String>,
    pub cluster: Option<InCluster>,
    pub documents: Documents,
    pub identity: Option<Identity>,
    pub credentials: Option<Vec<Credential>>,
    pub request: Option<TokenRequest>,
    pub ledger: Option<Ledger>,
}

impl Sources {
    /// Whether the only evidence is what the operator states about an issuer.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.token.is_none()
            && self.cluster.is_none()
            && self.request.is_none()
            && matches!(self.documents, Documents::Fetched { .. })
    }
}

/// Gathers the evidence: one item, or one for each service account of a namespace.
///
/// # Errors
///
/// Fails when the cluster cannot be reached or refuses. An issuer that does not answer is evidence, not an
/// error.
pub async fn gather(
    sources: &Sources,
    expected: &Expectation,
) -> Result<Vec<(Option<ServiceAccount>, Evidence)>, EvidenceError> {
    let mut gathered = if let Some(cluster) = &sources.cluster {
        in_cluster(cluster).await?
    } else {
        let token = sources.token.as_deref().map(UnverifiedToken::parse);
        let token_file = sources.token_file.clone();
        vec![(None, Evidence { token, token_file, ..Evidence::none(clock::now()) })]
    };
    let mut read = None;
    for (_, evidence) in &mut gathered {
        evidence.identity.clone_from(&sources.identity);
        evidence.credentials.clone_from(&sources.credentials);
        evidence.request.clone_from(&sources.request);
        evidence.ledger.clone_from(&sources.ledger);
        match &sources.documents {
            Documents::Given { discovery, jwks } => {
                (evidence.discovery, evidence.jwks) = (discovery.clone(), jwks.clone());
            }
            Documents::Fetched { allow_private, instead, ca_file } => {
                let Some(issuer) = document_read::issuer(evidence, expected) else { continue };
                // All tokens of a cluster have the same issuer: read it once.
                match &read {
                    Some((known, discovery, jwks)) if *known == issuer => {
                        (evidence.discovery, evidence.jwks) =
                            (DocumentEvidence::clone(discovery), DocumentEvidence::clone(jwks));
                    }
                    _ => {
                        let reach = Reach::of(&issuer, *allow_private);
                        let unmanaged_key = RelyingParty::new(reach, *instead, ca_file.clone()).await?;
                        document_read::read(evidence, &issuer, &unmanaged_key).await;
                        read = Some((issuer, evidence.discovery.clone(), evidence.jwks.clone()));
                    }
                }
            }
        }
        // Set after all reads, so that a short delay does not look like a wrong clock.
        evidence.now = clock::now();
    }
    Ok(gathered)
}

async fn in_cluster(cluster: &InCluster) -> Result<Vec<(Option<ServiceAccount>, Evidence)>, EvidenceError> {
    let access = Access { context: cluster.context.clone(), ..Access::default() };
    let (workloads, server) =
        (Workloads::new(access.clone()), ApiServer::new("kubernetes".to_owned(), access));
    let found = match &cluster.whose {
        TokenSubject::Account(account) => vec![(account.clone(), workloads.of_account(account).await?)],
        TokenSubject::Pod { namespace, name } => vec![workloads.of_pod(namespace, name).await?],
        TokenSubject::Namespace(namespace) => workloads.of_namespace(namespace).await?.accounts,
    };
    let mut gathered = Vec::new();
    for (account, workload) in found {
        let token = server.mint(&account, std::slice::from_ref(&cluster.audience), Some(LIFETIME)).await?;
        let takes_for_its_own = workloads.accepts_as_own_audience(&token).await?;
        let view = ApiServerView { minted: true, takes_for_its_own, ..ApiServerView::default() };
        let evidence = Evidence {
            token: Some(UnverifiedToken::parse(token.as_str())),
            workload: Some(workload),
            api_server: Some(view),
            ..Evidence::none(clock::now())
        };
        gathered.push((Some(account), evidence));
    }
    let tokens = gathered.iter().filter_map(|(_, evidence)| evidence.token.as_ref()?.as_ref().ok());
    let kids = shown_keys(&server, &tokens.collect::<Vec<_>>()).await.map_err(EvidenceError::Keys)?;
    for view in gathered.iter_mut().filter_map(|(_, evidence)| evidence.api_server.as_mut()) {
        view.kids.clone_from(&kids);
    }
    Ok(gathered)
}

/// The keys that an API server lists, read after it signed these tokens: it may have rotated its key just
/// before. Several instances behind one URL rotate one after the other, so another one may answer here.
pub(super) async fn shown_keys(
    server: &ApiServer,
    tokens: &[&UnverifiedToken],
) -> Result<Vec<Kid>, ApiServerError> {
    let mut shown = BTreeSet::new();
    for look in 1..=JWKS_READ_ATTEMPTS {
        shown.extend(server.fetch().await?.keys.iter().map(|key| key.kid().clone()));
        if look == JWKS_READ_ATTEMPTS || tokens.iter().all(|token| is_of(token, &shown)) {
            break;
        }
        server.reconnect().await;
        sleep(NEXT_LOOK).await;
    }
    Ok(shown.into_iter().collect())
}

fn is_of(token: &UnverifiedToken, keys: &BTreeSet<Kid>) -> bool {
    token.header().kid.as_ref().is_none_or(|kid| keys.contains(kid))
}

#[derive(Debug, thiserror::Error)]
pub enum EvidenceError {
    #[error(transparent)]
    NoAccount(WorkloadError),
    #[error("cannot read from the cluster")]
    Cluster(#[source] WorkloadError),
    #[error("the cluster did not issue a token")]
    Token(#[from] ApiServerError),
    #[error("the cluster issued a token, but serves no keys to verify it with")]
    Keys(#[source] ApiServerError),
    #[error(transparent)]
    Client(#[from] ClientError),
}

impl From<KubernetesError> for EvidenceError {
    fn from(error: KubernetesError) -> Self {
        Self::Cluster(error.into())
    }
}

impl From<WorkloadError> for EvidenceError {
    fn from(error: WorkloadError) -> Self {
        match error {
            WorkloadError::NoAccount { .. } => Self::NoAccount(error),
            WorkloadError::Call(_) => Self::Cluster(error),
        }
    }
}

impl Hint for EvidenceError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::NoAccount(error) | Self::Cluster(error) => error.hint(),
            Self::Token(error) | Self::Keys(error) => error.hint(),
            Self::Client(error) => error.hint(),
        }
    }
}
