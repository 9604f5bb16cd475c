//! The flags of `signpost federate`.

use std::path::PathBuf;

use clap::{Args, ValueEnum, builder::NonEmptyStringValueParser};
use url::Url;

use crate::{
    app::federate::{self, Azure, ClusterAccounts, FederateError, IdentityName, SignIn},
    cli::{Failure, verify::Context},
    core::{
        entra::{Cloud, is_guid},
        federation::ResourceId,
        jose::token::Token,
        service_account::{ServiceAccount, is_namespace},
        text::redaction::brief,
    },
};

#[derive(Args)]
#[command(next_help_heading = "Identity")]
#[group(multiple = false)]
pub(in crate::cli) struct IdentityFlags {
    /// Client id of the application, managed identity or agent blueprint; with `--cluster`, only this one
    #[arg(long, value_name = "ID", value_parser = NonEmptyStringValueParser::new())]
    client_id: Option<String>,

    /// Resource id of a managed identity, for those who may not read Microsoft Graph
    #[arg(long, value_name = "ID")]
    managed_identity: Option<ResourceId>,
}

#[derive(Args)]
#[command(next_help_heading = "Trust")]
pub(in crate::cli) struct TrustFlags {
    /// A service account to trust; repeatable
    #[arg(long, value_name = "NS/NAME", conflicts_with = "cluster")]
    pub(super) service_account: Vec<ServiceAccount>,

    /// Issuer of its tokens; with `--cluster` it is the cluster's own
    #[arg(long, value_name = "URL", env = "SIGNPOST_ISSUER", hide_env_values = true)]
    #[arg(value_parser = NonEmptyStringValueParser::new())]
    pub(super) issuer: Option<String>,

    /// Audience of its tokens [default: what the cloud recommends]
    #[arg(long, value_name = "A", value_parser = NonEmptyStringValueParser::new())]
    pub(super) audience: Option<String>,

    /// Name of the credential [default: made from issuer and service account]
    #[arg(long, value_name = "NAME", conflicts_with = "cluster")]
    pub(super) name: Option<String>,

    /// Trust at `--issuer` whatever the identity trusts at this issuer, which has moved
    #[arg(long, value_name = "URL", conflicts_with = "cluster")]
    pub(super) moved_from: Option<String>,
}

#[derive(Args)]
#[command(next_help_heading = "Service accounts of a cluster")]
pub(in crate::cli) struct ClusterFlags {
    /// The service accounts with the annotation `azure.workload.identity/client-id`
    #[arg(long, conflicts_with = "managed_identity")]
    pub(super) cluster: bool,

    /// Only those of this namespace
    #[arg(long, value_name = "NS", requires = "cluster", value_parser = namespace)]
    namespace: Option<String>,

    /// The cluster: `kubernetes` for the one this runs in, or `kubernetes:CONTEXT`
    #[arg(long, value_name = "SRC", default_value = "kubernetes", value_parser = crate::cli::verify::context)]
    source: Context,
}

#[derive(Args)]
#[command(next_help_heading = "Sign-in")]
pub(in crate::cli) struct SignInFlags {
    /// `azure-cli`; `workload-identity`, with `AZURE_CLIENT_ID`, `AZURE_TENANT_ID` and
    /// `AZURE_FEDERATED_TOKEN_FILE`; `secret`, with `AZURE_CLIENT_SECRET` instead; or `managed-identity`
    /// [default: what the environment has]
    #[arg(long, value_name = "METHOD", hide_possible_values = true)]
    sign_in: Option<Method>,

    /// File with an access token for Microsoft Graph, in place of signing in
    #[arg(long, value_name = "FILE", conflicts_with = "sign_in")]
    graph_token: Option<PathBuf>,

    /// Tenant: an id or a domain
    #[arg(long, value_name = "ID", env = "AZURE_TENANT_ID", hide_env_values = true)]
    #[arg(value_parser = NonEmptyStringValueParser::new())]
    tenant: Option<String>,

    /// Microsoft cloud: `public`, `usgov` or `china` [default: that of the authority]
    #[arg(long, value_name = "CLOUD", value_parser = cloud)]
    cloud: Option<Cloud>,

    /// Authority: Entra of the tenant's cloud
    #[arg(long, value_name = "URL", env = "AZURE_AUTHORITY_HOST", hide_env_values = true)]
    authority: Option<String>,

    #[arg(long, env = "AZURE_CLIENT_ID", hide = true)]
    sign_in_client_id: Option<String>,

    #[arg(long, env = "AZURE_FEDERATED_TOKEN_FILE", hide = true)]
    sign_in_token: Option<PathBuf>,

    #[arg(long, env = "AZURE_CLIENT_SECRET", hide = true, hide_env_values = true)]
    sign_in_secret: Option<String>,

    /// Trust the certificate authorities of this PEM file too
    #[arg(long, value_name = "FILE")]
    ca_file: Option<PathBuf>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Method {
    AzureCli,
    WorkloadIdentity,
    Secret,
    ManagedIdentity,
}

impl IdentityFlags {
    pub(super) fn required(&self) -> Result<IdentityName, Failure> {
        if let Some(client_id) = &self.client_id {
            return Ok(IdentityName::ClientId(id(client_id)?.to_ascii_lowercase()));
        }
        self.managed_identity.clone().map(IdentityName::ManagedIdentity).ok_or_else(|| {
            Failure::plain(
                "no identity is named",
                "pass `--client-id ID`, or `--cluster` for those that service accounts name",
            )
        })
    }
}

impl IdentityFlags {
    /// The client id, if one is given.
    pub(super) fn client_id(&self) -> Result<Option<String>, Failure> {
        self.client_id.as_deref().map(|it| Ok(id(it)?.to_ascii_lowercase())).transpose()
    }
}

impl TrustFlags {
    pub(super) fn audience(&self, cloud: Cloud) -> String {
        self.audience.clone().unwrap_or_else(|| cloud.audience().to_owned())
    }
}

impl ClusterFlags {
    pub(super) async fn read(&self) -> Result<ClusterAccounts, FederateError> {
        federate::in_cluster(self.source.0.clone(), self.namespace.as_deref()).await
    }
}

impl SignInFlags {
    pub(super) fn cloud(&self) -> Cloud {
        let of_authority = || {
            let host = Url::parse(self.authority.as_deref()?).ok()?.host_str()?.to_owned();
            Cloud::of_host(&host)
        };
        self.cloud.or_else(of_authority).unwrap_or_default()
    }

    pub(super) fn connect(&self) -> Result<Azure, Failure> {
        let cloud = self.cloud();
        let usual = format!("https://{}", cloud.login_hosts()[0]);
        let authority = self.authority.as_deref().unwrap_or(&usual).trim_end_matches('/');
        Ok(federate::connect(cloud, self.method(authority)?, authority, self.ca_file.clone()))
    }

    fn method(&self, authority: &str) -> Result<SignIn, Failure> {
        if let Some(file) = &self.graph_token {
            return Ok(SignIn::GraphToken { file: file.clone() });
        }
        // A webhook or a shell may set an empty value.
        let set = |value: &Option<String>| value.clone().filter(|it| !it.is_empty());
        let token_file = self.sign_in_token.clone().filter(|it| !it.as_os_str().is_empty());
        let (client_id, secret) = (set(&self.sign_in_client_id), set(&self.sign_in_secret));
        let method = self.sign_in.unwrap_or(match (&token_file, &secret) {
            (Some(_), _) => Method::WorkloadIdentity,
            (None, Some(_)) => Method::Secret,
            (None, None) => Method::AzureCli,
        });
        let tenant = || self.tenant.clone().ok_or_else(|| missing("AZURE_TENANT_ID"));
        let endpoint = || Ok::<_, Failure>(format!("{authority}/{}/oauth2/v2.0/token", tenant()?));
        let needed_client_id = || client_id.clone().ok_or_else(|| missing("AZURE_CLIENT_ID"));
        Ok(match method {
            Method::AzureCli => SignIn::AzureCli { tenant: self.tenant.clone() },
            Method::WorkloadIdentity => SignIn::Workload {
                endpoint: endpoint()?,
                client_id: needed_client_id()?,
                token_file: token_file.ok_or_else(|| missing("AZURE_FEDERATED_TOKEN_FILE"))?,
            },
            Method::Secret => SignIn::Secret {
                endpoint: endpoint()?,
                client_id: needed_client_id()?,
                secret: Token::new(secret.ok_or_else(|| missing("AZURE_CLIENT_SECRET"))?),
            },
            Method::ManagedIdentity => SignIn::ManagedIdentity { client_id },
        })
    }
}

fn missing(name: &str) -> Failure {
    Failure::plain(
        &format!("cannot sign in: `{name}` is not set"),
        "set it, or sign in with the Azure CLI: `az login`, and `--sign-in azure-cli`",
    )
}

/// A client id or an object id.
pub(super) fn id(text: &str) -> Result<&str, Failure> {
    if is_guid(text) {
        return Ok(text);
    }
    Err(Failure::plain(
        &format!("`{}` is no id, expected a GUID", brief(text)),
        "`az identity show --query clientId` or `az ad app show --query appId` prints a client id",
    ))
}

fn cloud(text: &str) -> Result<Cloud, String> {
    let found = Cloud::ALL.into_iter().find(|cloud| cloud.word() == text);
    found.ok_or_else(|| format!("unknown cloud `{text}`, expected `public`, `usgov` or `china`"))
}

fn namespace(text: &str) -> Result<String, String> {
    if is_namespace(text) { Ok(text.to_owned()) } else { Err(format!("`{text}` is no namespace")) }
}
