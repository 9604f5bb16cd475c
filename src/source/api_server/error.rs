//! Errors of an API server as a source of keys, and their remedies.

use http::StatusCode;

use crate::{
    core::{
        jose::{discovery::InvalidDiscovery, jwk_set::InvalidJwks, token::NotAToken},
        service_account::ServiceAccount,
        text::Hint,
    },
    kubernetes::{KubernetesError, hint_for_credential, refused_user},
};

/// The built-in role of Kubernetes for reading both documents.
const DISCOVERY_ROLE: &str = "system:service-account-issuer-discovery";

/// Hint for an API server that does not issue tokens.
const SIGNER: &str = "where kube-apiserver has `--service-account-signing-endpoint`, see whether the signer behind \
                      it runs: an API server whose signer is away answers everything but this. Else check that it \
                      can be reached: `kubectl get --raw /readyz` with the same kubeconfig";

/// An API server gave no usable answer.
#[derive(Debug, thiserror::Error)]
pub enum ApiServerError {
    #[error(transparent)]
    Call(#[from] KubernetesError),
    #[error("cannot use its JWKS")]
    Jwks(#[source] InvalidJwks),
    #[error("cannot use its discovery document")]
    Discovery(#[from] InvalidDiscovery),
    #[error("cannot use the token that it made")]
    Token(#[from] NotAToken),
}

impl Hint for ApiServerError {
    fn hint(&self) -> Option<String> {
        match self {
            // Other requests succeed: the API server waits for its external signer.
            Self::Call(KubernetesError::TimedOut { request, .. }) if is_for_a_token(request) => {
                Some(SIGNER.to_owned())
            }
            Self::Call(error) => error.hint(),
            Self::Jwks(InvalidJwks::Empty) => {
                Some("give `kube-apiserver` at least one `--service-account-key-file`".to_owned())
            }
            Self::Jwks(_) | Self::Discovery(_) | Self::Token(_) => None,
        }
    }
}

/// Whether the text of a request names a token request.
fn is_for_a_token(request: &str) -> bool {
    request.starts_with("POST ") && request.ends_with("/token")
}

/// `account` is the subject of a token request; without it, the request was for a document or for our own
/// identity.
pub(super) fn hint_for_status(
    status: StatusCode,
    reads_document: bool,
    account: Option<&ServiceAccount>,
    message: Option<&str>,
) -> Option<String> {
    if let Some(hint) = hint_for_credential(status, message) {
        return Some(hint.to_owned());
    }
    match (status, account) {
        (StatusCode::FORBIDDEN, None) if reads_document => Some(format!(
            "bind ClusterRole `{DISCOVERY_ROLE}` to it: `kubectl create clusterrolebinding signpost-discovery \
             --clusterrole={DISCOVERY_ROLE} {}`",
            refused_user(message)
        )),
        (StatusCode::NOT_FOUND, None) if reads_document => Some(
            "the API server serves no such document: check that its `--service-account-issuer` is an https URL \
             without query and fragment"
                .into(),
        ),
        (StatusCode::FORBIDDEN, Some(account)) => {
            let (namespace, name) = (account.namespace(), account.name());
            Some(format!(
                "let it make tokens: `kubectl create role signpost-token --namespace={namespace} --verb=create \
                 --resource=serviceaccounts/token --resource-name={name} && kubectl create rolebinding \
                 signpost-token --namespace={namespace} --role=signpost-token {}`",
                refused_user(message)
            ))
        }
        (StatusCode::NOT_FOUND, Some(account)) => Some(format!(
            "create it: `kubectl create serviceaccount {} --namespace={}`",
            account.name(),
            account.namespace()
        )),
        (status, Some(_)) if status.is_server_error() => Some(SIGNER.to_owned()),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
