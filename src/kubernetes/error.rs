//! What can go wrong with an API server, and what to do about it.

use std::{error::Error, path::PathBuf, time::Duration};

use http::StatusCode;
use kube::{
    client::AuthError,
    config::{InClusterError, KubeconfigError},
};

use crate::core::service_account::ServiceAccount;

/// An API server could not be asked, or its answer is not what was asked for.
#[derive(Debug, thiserror::Error)]
pub enum KubernetesError {
    #[error("neither a kubeconfig nor a context is named, and this is not a pod with a service account")]
    NotInCluster,
    #[error("cannot use the service account of this pod")]
    InCluster(#[source] InClusterError),
    #[error("cannot use the kubeconfig")]
    Kubeconfig(#[source] KubeconfigError),
    #[error("cannot read kubeconfig `{path}`", path = path.display())]
    KubeconfigFile { path: PathBuf, source: std::io::Error },
    /// What stands at that place is left out, for it may be a credential.
    #[error("the kubeconfig is not YAML of the right shape, see line {line}, column {column}")]
    KubeconfigSyntax { line: u64, column: u64 },
    #[error("instance `{url}` is not a URL")]
    Instance { url: String, source: http::uri::InvalidUri },
    #[error("cannot read token file `{path}`", path = path.display())]
    TokenFile { path: PathBuf, source: std::io::Error },
    #[error("token file `{path}` holds characters that no token has", path = path.display())]
    TokenFileContent { path: PathBuf },
    /// What the plugin printed is left out, for it may be a token.
    #[error("credential plugin `{command}` failed with {status}")]
    Plugin { command: String, status: std::process::ExitStatus },
    #[error("the credential plugin did not print an `ExecCredential`")]
    PluginOutput,
    #[error("cannot make a client of the configuration")]
    Client(#[source] kube::Error),
    #[error("no answer from `{url}`")]
    NoAnswer { url: String, source: Box<dyn Error + Send + Sync> },
    #[error("`{request}` was not answered within {} s", limit.as_secs())]
    TimedOut { request: String, limit: Duration },
    #[error("the answer to `{request}` broke off")]
    Interrupted { request: String, source: Box<dyn Error + Send + Sync> },
    #[error("the answer to `{request}` has more than {limit} bytes")]
    TooLarge { request: String, limit: usize },
    /// The hint is of whoever knows what the request was for.
    #[error("`{request}` was answered with status {status}{}", with_colon(message.as_deref()))]
    Status { request: String, status: StatusCode, message: Option<String>, hint: Option<String> },
    #[error("the answer to `{request}` is not the expected JSON, its content type is `{content_type}`")]
    NotJson { request: String, content_type: String },
    #[error("the answer to `{request}` lacks what was asked for")]
    Incomplete { request: String },
}

impl KubernetesError {
    /// Takes what a credential plugin printed out of an error of the client.
    pub(super) fn client(error: kube::Error) -> Self {
        match error {
            kube::Error::Auth(AuthError::AuthExecRun { cmd, out }) => {
                Self::Plugin { command: cmd, status: out.status }
            }
            kube::Error::Auth(AuthError::AuthExecParse(_)) => Self::PluginOutput,
            other => Self::Client(other),
        }
    }

    /// Takes the words of the client around a failed request away.
    pub(super) fn no_answer(url: String, error: kube::Error) -> Self {
        match error {
            kube::Error::Auth(_) => Self::client(error),
            kube::Error::Service(source) => match source.downcast() {
                Ok(error) => Self::client(kube::Error::Auth(*error)),
                Err(source) => Self::NoAnswer { url, source },
            },
            kube::Error::HyperError(source) => Self::NoAnswer { url, source: source.into() },
            other => Self::NoAnswer { url, source: other.into() },
        }
    }

    /// Takes the lines that it quotes out of an error of the client.
    pub(super) fn kubeconfig(error: KubeconfigError) -> Self {
        match error {
            KubeconfigError::Parse(error) => {
                let location = error.location();
                Self::KubeconfigSyntax {
                    line: location.map_or(0, |location| location.line()),
                    column: location.map_or(0, |location| location.column()),
                }
            }
            KubeconfigError::ReadConfig(source, path) => Self::KubeconfigFile { path, source },
            other => Self::Kubeconfig(other),
        }
    }

    /// Whether the answer was that this may not be asked, or that there is no such thing: to ask again soon
    /// is no use.
    pub(crate) fn is_refusal(&self) -> bool {
        matches!(self, Self::Status { status: StatusCode::FORBIDDEN | StatusCode::NOT_FOUND, .. })
    }

    /// What to do about it.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::NotInCluster => Some(
                "name a context (`kubernetes:CONTEXT`) or a kubeconfig, or run in the cluster".to_owned(),
            ),
            Self::Kubeconfig(KubeconfigError::LoadContext(_)) => {
                Some("`kubectl config get-contexts` lists the contexts there are".to_owned())
            }
            Self::KubeconfigFile { .. } => {
                Some("name a readable file in `KUBECONFIG`, or as `kubeconfig` in the configuration".to_owned())
            }
            Self::KubeconfigSyntax { .. } => {
                Some("`kubectl config view` with the same file shows what kubectl makes of it".to_owned())
            }
            Self::Kubeconfig(_) | Self::Client(_) => Some(
                "`kubectl cluster-info` with the same kubeconfig shows whether kubectl can use it".to_owned(),
            ),
            Self::NoAnswer { .. } | Self::TimedOut { .. } => Some(
                "check that it runs and can be reached from here: `kubectl get --raw /readyz` with the same kubeconfig"
                    .to_owned(),
            ),
            Self::Plugin { command, .. } => Some(format!("run `{command}` by hand and see what it says")),
            Self::Status { hint, .. } => hint.clone(),
            _ => None,
        }
    }
}

fn with_colon(message: Option<&str>) -> String {
    message.map(|message| format!(": {message}")).unwrap_or_default()
}

/// What to do about a refusal whatever was asked: show who we are.
pub(crate) fn hint_for_credential(status: StatusCode, message: Option<&str>) -> Option<&'static str> {
    let anonymous = message.is_some_and(|message| message.contains("\"system:anonymous\""));
    match status {
        StatusCode::FORBIDDEN if anonymous => {
            Some("the request carried no credential: give the kubeconfig one")
        }
        StatusCode::UNAUTHORIZED => {
            Some("renew the credential; `kubectl auth whoami` with the same one shows whether it is known")
        }
        _ => None,
    }
}

/// The subject flag of `kubectl create …binding` for the user that a `Status` names as refused.
pub(crate) fn refused_user(message: Option<&str>) -> String {
    let user = message
        .and_then(|message| message.split_once("User \""))
        .and_then(|(_, rest)| rest.split_once('"'))
        .map(|(user, _)| user);
    match (user, user.and_then(ServiceAccount::of_subject)) {
        (_, Some(account)) => format!("--serviceaccount={}:{}", account.namespace(), account.name()),
        (Some(user), None) if !user.contains(['\'', '`', '\\', '$']) => format!("--user='{user}'"),
        _ => "--serviceaccount=NAMESPACE:NAME".to_owned(),
    }
}
