//! Gets a token for a service of Azure: from the Azure CLI, from Entra for a workload or an application, or from
//! the managed identity of this machine.

use std::{
    io,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use serde_json::Value;
use tokio::{task::spawn_blocking, time::timeout};

use crate::{
    blocking,
    core::{
        entra::{ASSERTION_TYPE, Cloud, Refusal, TokenAnswer, errors::explain},
        jose::token::Token,
        text::{Hint, redaction::brief},
    },
    http_client::{self, ClientError, HttpClients, Trust, innermost},
    token_endpoint::{TokenEndpoint, TokenEndpointError},
};

/// Longest wait for the Azure CLI, which takes two seconds.
const AZURE_CLI: Duration = Duration::from_mins(1);
/// Largest token file, in bytes.
const MAX_TOKEN: u64 = 64 * 1024;
/// Where the managed identity of a virtual machine answers.
/// Source: learn.microsoft.com, "How to use managed identities for Azure resources on an Azure VM".
const METADATA: &str = "http://169.254.169.254/metadata/identity/oauth2/token";

/// How to sign in.
pub enum SignIn {
    /// As whoever has signed in to the Azure CLI.
    AzureCli { tenant: Option<String> },
    /// As an application or managed identity that trusts the service account of this pod.
    Workload { endpoint: String, client_id: String, token_file: PathBuf },
    /// As an application, with its secret.
    Secret { endpoint: String, client_id: String, secret: Token },
    /// As the managed identity of this virtual machine.
    ManagedIdentity { client_id: Option<String> },
    /// With an access token for Microsoft Graph that somebody else has got, in a file.
    GraphToken { file: PathBuf },
}

impl SignIn {
    /// A token for a scope.
    pub(super) async fn token(&self, scope: &str, trust: &Trust) -> Result<Token, SignInError> {
        match self {
            Self::AzureCli { tenant } => from_azure_cli(scope, tenant.clone()).await,
            Self::Workload { endpoint, client_id, token_file } => {
                let assertion = from_file(token_file).await?;
                let proof =
                    [("client_assertion_type", ASSERTION_TYPE), ("client_assertion", assertion.as_str())];
                from_entra(endpoint, client_id, scope, &proof, trust).await
            }
            Self::Secret { endpoint, client_id, secret } => {
                from_entra(endpoint, client_id, scope, &[("client_secret", secret.as_str())], trust).await
            }
            Self::ManagedIdentity { client_id } => from_metadata(scope, client_id.as_deref()).await,
            Self::GraphToken { .. } if Cloud::ALL.iter().all(|cloud| cloud.graph_scope() != scope) => {
                Err(SignInError::OnlyGraph)
            }
            Self::GraphToken { file } => from_file(file).await,
        }
    }
}

async fn from_file(path: &Path) -> Result<Token, SignInError> {
    let text = blocking::read(path, MAX_TOKEN).await;
    let text = text.map_err(|source| SignInError::TokenFile { path: path.to_owned(), source })?;
    let token = Token::new(String::from_utf8_lossy(&text).trim().to_owned());
    let is_one = !token.as_str().is_empty() && token.as_str().chars().all(|it| it.is_ascii_graphic());
    if is_one { Ok(token) } else { Err(SignInError::NotAToken { path: path.to_owned() }) }
}

async fn from_entra(
    endpoint: &str,
    client_id: &str,
    scope: &str,
    proof: &[(&str, &str)],
    trust: &Trust,
) -> Result<Token, SignInError> {
    let form = [("client_id", client_id), ("scope", scope), ("grant_type", "client_credentials")];
    let form: Vec<_> = form.iter().chain(proof).copied().collect();
    match TokenEndpoint::new(endpoint, trust.clone())?.ask(&form).await?.answer {
        TokenAnswer::Issued(issued) => Ok(issued.token),
        TokenAnswer::Refused(refusal) => Err(SignInError::Refused(refusal)),
    }
}

/// Source: `az account get-access-token --help`, Azure CLI 2.91.0.
async fn from_azure_cli(scope: &str, tenant: Option<String>) -> Result<Token, SignInError> {
    let mut command = Command::new("az");
    command.args(["account", "get-access-token", "--output", "json", "--scope", scope]);
    if let Some(tenant) = tenant {
        command.args(["--tenant", &tenant]);
    }
    let output = timeout(AZURE_CLI, spawn_blocking(move || command.output())).await;
    let output = output.map_err(|_| SignInError::AzureCli { said: "it does not end".to_owned() })?;
    let output = output.expect("running a program does not panic").map_err(SignInError::NoAzureCli)?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        let lines = || said.lines().map(str::trim).filter(|it| !it.is_empty());
        let line = lines().find(|it| it.starts_with("ERROR")).or_else(|| lines().next_back());
        return Err(SignInError::AzureCli { said: brief(line.unwrap_or("nothing")).into_owned() });
    }
    access_token(&output.stdout, "accessToken")
        .ok_or_else(|| SignInError::AzureCli { said: "no access token".to_owned() })
}

async fn from_metadata(scope: &str, client_id: Option<&str>) -> Result<Token, SignInError> {
    let silent = |reason: String| SignInError::NoManagedIdentity { reason };
    let resource = scope.trim_end_matches("/.default");
    let mut query = vec![("api-version", "2018-02-01"), ("resource", resource)];
    query.extend(client_id.map(|id| ("client_id", id)));
    let query = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(query).finish();
    let request = HttpClients::default()
        .to("http", Trust::System)
        .get()
        .await?
        .get(format!("{METADATA}?{query}"))
        .header("Metadata", "true");
    let response = request.send().await.map_err(|error| silent(innermost(&error)))?;
    let status = response.status();
    let body =
        http_client::body(response, MAX_TOKEN).await.map_err(|_| silent("it breaks off".to_owned()))?;
    access_token(&body, "access_token").ok_or_else(|| silent(format!("status {}", status.as_u16())))
}

fn access_token(body: &[u8], member: &str) -> Option<Token> {
    match serde_json::from_slice::<Value>(body).ok()?.get_mut(member)?.take() {
        Value::String(token) if !token.is_empty() => Some(Token::new(token)),
        _ => None,
    }
}

#[derive(Debug, thiserror::Error)]
pub enum SignInError {
    #[error("the Azure CLI cannot be run")]
    NoAzureCli(#[source] io::Error),
    #[error("the Azure CLI gives no token: {said}")]
    AzureCli { said: String },
    #[error("cannot read the token in `{path}`", path = path.display())]
    TokenFile { path: PathBuf, source: io::Error },
    #[error("`{path}` does not hold one token and nothing else", path = path.display())]
    NotAToken { path: PathBuf },
    #[error("Microsoft Entra refuses the sign-in: AADSTS{}: {}", .0.code, .0.text)]
    Refused(Refusal),
    #[error("the token of `--graph-token` is for Microsoft Graph, and managed identities are elsewhere")]
    OnlyGraph,
    #[error("the token endpoint is busy")]
    Busy { retry_after: Option<u64> },
    #[error(transparent)]
    Endpoint(TokenEndpointError),
    #[error("this machine has no managed identity: {reason}")]
    NoManagedIdentity { reason: String },
    #[error(transparent)]
    Client(#[from] ClientError),
}

impl From<TokenEndpointError> for SignInError {
    fn from(error: TokenEndpointError) -> Self {
        match error {
            TokenEndpointError::Busy { retry_after, .. } => Self::Busy { retry_after },
            other => Self::Endpoint(other),
        }
    }
}

impl Hint for SignInError {
    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::NoAzureCli(_) => "install the Azure CLI and run `az login`; or set `AZURE_TENANT_ID`, \
                `AZURE_CLIENT_ID` and `AZURE_FEDERATED_TOKEN_FILE`"
                .to_owned(),
            Self::AzureCli { .. } => "run `az login`, and `az account show` to see as whom".to_owned(),
            Self::TokenFile { .. } | Self::NotAToken { .. } => {
                "name a file with the token: in `AZURE_FEDERATED_TOKEN_FILE`, or as `--graph-token`"
                    .to_owned()
            }
            // The table speaks to those who send a token.
            Self::Refused(refusal) if matches!(refusal.code, 7_000_215 | 7_000_222) => {
                "set a valid `AZURE_CLIENT_SECRET`".to_owned()
            }
            Self::Refused(refusal) => {
                let fix = explain(refusal.code).map(|row| row.fix);
                fix.unwrap_or("look the code up in docs/entra.md").to_owned()
            }
            Self::OnlyGraph => "leave it out, and sign in: `az login`".to_owned(),
            Self::Busy { retry_after: Some(seconds) } => format!("try again in {seconds} s"),
            Self::Busy { retry_after: None } => "try again in a minute".to_owned(),
            Self::Endpoint(error) => return error.hint(),
            Self::NoManagedIdentity { .. } => {
                "assign one to this virtual machine, or sign in otherwise: `--sign-in azure-cli`".to_owned()
            }
            Self::Client(error) => return error.hint(),
        })
    }
}
