//! Errors of an API server, and their remedies.

use std::{error::Error, path::PathBuf, time::Duration};

use http::StatusCode;
use kube::{
    client::AuthError,
    config::{AuthInfo, InClusterError, KubeconfigError},
};

use crate::core::{service_account::ServiceAccount, text::Hint, tls_fault::TlsFault};

/// An API server could not be reached, or its answer is not the expected one.
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
    /// The text at this position is left out: it may be a credential.
    #[error("the kubeconfig is not YAML of the right shape, see line {line}, column {column}")]
    KubeconfigSyntax { line: u64, column: u64 },
    #[error("instance `{url}` is not a URL")]
    Instance { url: String, source: http::uri::InvalidUri },
    #[error("cannot read token file `{path}`", path = path.display())]
    TokenFile { path: PathBuf, source: std::io::Error },
    #[error("token file `{path}` has characters that are not valid in a token", path = path.display())]
    TokenFileContent { path: PathBuf },
    /// The output of the plugin is left out: it may be a token.
    #[error("credential plugin `{command}` failed with {status}")]
    Plugin { command: String, status: std::process::ExitStatus },
    #[error("cannot start credential plugin `{command}`")]
    NoPlugin { command: String, install: Option<String>, source: std::io::Error },
    #[error("credential plugin `{command}` did not print an `ExecCredential`")]
    PluginOutput { command: String },
    /// The URL is left out: it may hold a password.
    #[error("the proxy of the kubeconfig or of `HTTPS_PROXY` is not a URL")]
    Proxy { source: http::uri::InvalidUri },
    #[error("cannot make a client of the configuration")]
    Client(#[source] kube::Error),
    #[error("no answer from `{url}`{}", through(proxy.as_deref()))]
    NoAnswer { url: String, proxy: Option<String>, source: Box<dyn Error + Send + Sync> },
    #[error("no TLS connection to `{url}`{}: {fault}", through(proxy.as_deref()))]
    Tls { url: String, proxy: Option<String>, fault: TlsFault },
    #[error("`{request}` was not answered within {} s", limit.as_secs())]
    TimedOut { request: String, limit: Duration },
    #[error("the answer to `{request}` broke off")]
    Interrupted { request: String, source: Box<dyn Error + Send + Sync> },
    #[error("the answer to `{request}` has more than {limit} bytes")]
    TooLarge { request: String, limit: usize },
    /// The hint comes from the caller, who knows the purpose of the request.
    #[error("`{request}` was answered with status {status}{}", with_colon(message.as_deref()))]
    Status { request: String, status: StatusCode, message: Option<String>, hint: Option<String> },
    #[error("the answer to `{request}` is not the expected JSON, its content type is `{content_type}`")]
    NotJson { request: String, content_type: String },
    #[error("the answer to `{request}` lacks the requested data")]
    Incomplete { request: String },
}

impl KubernetesError {
    /// Removes the output and the input of a credential plugin from an error of the client.
    pub(super) fn client(error: kube::Error, plugin: &Plugin) -> Self {
        let command = || plugin.command.clone();
        match error {
            kube::Error::Auth(AuthError::AuthExecRun { out, .. }) => {
                Self::Plugin { command: command(), status: out.status }
            }
            kube::Error::Auth(AuthError::AuthExecStart(source)) => {
                Self::NoPlugin { command: command(), install: plugin.install.clone(), source }
            }
            kube::Error::Auth(AuthError::AuthExecParse(_) | AuthError::ExecPluginFailed) => {
                Self::PluginOutput { command: command() }
            }
            other => Self::Client(other),
        }
    }

    /// Removes the client's own wording around a failed request.
    pub(super) fn no_answer(url: &str, proxy: Option<&str>, error: kube::Error, plugin: &Plugin) -> Self {
        let source: Box<dyn Error + Send + Sync> = match error {
            kube::Error::Auth(_) => return Self::client(error, plugin),
            kube::Error::Service(source) => match source.downcast() {
                Ok(error) => return Self::client(kube::Error::Auth(*error), plugin),
                Err(source) => source,
            },
            kube::Error::HyperError(source) => source.into(),
            other => other.into(),
        };
        let (url, proxy) = (url.to_owned(), proxy.map(str::to_owned));
        match TlsFault::of(&*source) {
            Some(fault) => Self::Tls { url, proxy, fault },
            None => Self::NoAnswer { url, proxy, source },
        }
    }

    /// Removes quoted lines of the kubeconfig from an error of the client.
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
            KubeconfigError::ParseProxyUrl(source) => Self::Proxy { source },
            other => Self::Kubeconfig(other),
        }
    }

    /// Whether the request is forbidden or the resource does not exist: an early retry is useless.
    pub(crate) fn is_refusal(&self) -> bool {
        matches!(self, Self::Status { status: StatusCode::FORBIDDEN | StatusCode::NOT_FOUND, .. })
    }
}

impl Hint for KubernetesError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::NotInCluster => Some(
                "name a context (`kubernetes:CONTEXT`) or a kubeconfig, or run in the cluster".to_owned(),
            ),
            Self::Kubeconfig(KubeconfigError::LoadContext(_)) => {
                Some("`kubectl config get-contexts` lists the contexts there are".to_owned())
            }
            Self::Kubeconfig(KubeconfigError::ParseNoProxy(_)) => {
                Some("remove empty entries from `NO_PROXY`, and entries that are neither a host nor an \
                    address".to_owned())
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
            Self::NoAnswer { proxy: Some(proxy), .. } => Some(format!(
                "check that `{proxy}` leads there, or name the host in `NO_PROXY` (a `proxy-url` of the \
                 kubeconfig overrides that)"
            )),
            Self::NoAnswer { .. } | Self::TimedOut { .. } => Some(
                "check that it runs and can be reached from here: `kubectl get --raw /readyz` with the same kubeconfig"
                    .to_owned(),
            ),
            Self::Tls { fault, .. } => {
                Some(fault.fix("`certificate-authority` of the cluster in the kubeconfig"))
            }
            Self::Proxy { .. } => Some("write it as `http://HOST:PORT`".to_owned()),
            Self::NoPlugin { install: Some(install), .. } => Some(install.clone()),
            Self::NoPlugin { command, .. } => Some(format!(
                "install `{command}` where this process runs, with its directory in `PATH`"
            )),
            Self::Plugin { command, .. } | Self::PluginOutput { command } => Some(format!("run `{command}` \
                by hand and check its output")),
            Self::Status { hint, .. } => hint.clone(),
            _ => None,
        }
    }
}

/// A credential plugin as the kubeconfig names it, without its arguments and variables, which may be secrets.
#[derive(Clone, Debug)]
pub(super) struct Plugin {
    command: String,
    /// The plugin's own installation hint.
    install: Option<String>,
}

impl Plugin {
    pub(super) fn of(user: &AuthInfo) -> Self {
        let exec = user.exec.as_ref();
        let provider = || user.auth_provider.as_ref().map(|provider| provider.name.clone());
        let command = exec.and_then(|exec| exec.command.clone()).or_else(provider).unwrap_or_default();
        let install = exec.and_then(|exec| exec.install_hint.as_deref());
        let install = install.map(|hint| hint.split_whitespace().collect::<Vec<_>>().join(" "));
        Self { command, install: install.filter(|hint| !hint.is_empty()) }
    }
}

fn through(proxy: Option<&str>) -> String {
    proxy.map_or_else(String::new, |proxy| format!(" through proxy `{proxy}`"))
}

fn with_colon(message: Option<&str>) -> String {
    message.map(|message| format!(": {message}")).unwrap_or_default()
}

/// The remedy for a refused credential, whatever the request.
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
