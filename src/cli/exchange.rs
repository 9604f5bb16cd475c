//! `signpost exchange`.

use std::path::PathBuf;

use clap::{Args, Subcommand, builder::NonEmptyStringValueParser};
use url::Url;

use super::{
    Failure, Output, block_on, eprint,
    error_report::ExitStatus,
    print,
    verify::{DocumentFlags, read_identity, read_token},
};
use crate::{
    app::exchange::{self, Known, Tokens, Walk},
    core::{
        entra::{Cloud, Exchange, Flow, UserId},
        jose::token::Token,
        text::redaction::redact_tokens,
    },
};

pub mod json;
mod sts;
mod text;

use sts::{AwsFlags, GoogleFlags};

#[derive(Subcommand)]
#[command(after_help = "\
Examples:
  kubectl exec app-0 -- signpost exchange workload
  signpost exchange workload --token token --tenant $TENANT --client-id $CLIENT
  signpost exchange agent --token token --tenant $TENANT --client-id $BLUEPRINT --agent $AGENT
  signpost exchange aws --token token --role-arn arn:aws:iam::123456789012:role/app

Exit codes: 0 the token was issued; 1 it was refused; 2 there was no answer.")]
pub(super) enum ExchangeVerb {
    /// As the application or managed identity of a workload
    Workload(ExchangeFlags),
    /// As an agent blueprint, for one of its agent identities: T1
    Blueprint {
        #[command(flatten)]
        agent: AgentFlags,
        #[command(flatten)]
        flags: ExchangeFlags,
    },
    /// As an agent identity itself: T1, then T2
    Agent {
        #[command(flatten)]
        agent: AgentFlags,
        #[command(flatten)]
        flags: ExchangeFlags,
    },
    /// On behalf of a user, as an agent identity or as the application itself
    OnBehalfOf {
        /// Client id of the agent identity [default: the application asks itself]
        #[arg(long, value_name = "ID", value_parser = NonEmptyStringValueParser::new())]
        agent: Option<String>,
        /// File with the user's access token for the application or blueprint; `-` for standard input
        #[arg(long, value_name = "FILE")]
        user_token: PathBuf,
        /// Use the refresh token of the answer as well, once; it is never printed
        #[arg(long)]
        refresh: bool,
        #[command(flatten)]
        flags: ExchangeFlags,
    },
    /// As the agent user of an agent identity: T1, T2, then the user's token
    AgentUser {
        #[command(flatten)]
        agent: AgentFlags,
        #[command(flatten)]
        user: UserFlags,
        #[command(flatten)]
        flags: ExchangeFlags,
    },
    /// At AWS, for a role
    Aws(AwsFlags),
    /// At Google Cloud, with a workload identity pool provider
    Gcp(GoogleFlags),
}

#[derive(Args)]
pub(super) struct AgentFlags {
    /// Client id of the agent identity
    #[arg(long, value_name = "ID", value_parser = NonEmptyStringValueParser::new())]
    agent: String,
}

#[derive(Args)]
#[group(required = true, multiple = false)]
pub(super) struct UserFlags {
    /// User principal name of the agent user
    #[arg(long, value_name = "UPN", value_parser = NonEmptyStringValueParser::new())]
    username: Option<String>,

    /// Object id of the agent user
    #[arg(long, value_name = "ID", value_parser = NonEmptyStringValueParser::new())]
    user_id: Option<String>,
}

#[derive(Args)]
pub(super) struct ExchangeFlags {
    /// File with the service-account token, or `-` for standard input
    #[arg(long, value_name = "FILE", env = "AZURE_FEDERATED_TOKEN_FILE", hide_env_values = true)]
    token: PathBuf,

    /// Tenant: an id or a domain
    #[arg(long, value_name = "ID", env = "AZURE_TENANT_ID", hide_env_values = true)]
    #[arg(value_parser = NonEmptyStringValueParser::new())]
    tenant: String,

    /// Client id of the application, managed identity or blueprint that trusts the service account
    #[arg(long, value_name = "ID", env = "AZURE_CLIENT_ID", hide_env_values = true)]
    #[arg(value_parser = NonEmptyStringValueParser::new())]
    client_id: String,

    /// Authority: Entra of the tenant's cloud
    #[arg(long, value_name = "URL", env = "AZURE_AUTHORITY_HOST", hide_env_values = true)]
    #[arg(default_value = "https://login.microsoftonline.com")]
    authority: String,

    /// Scope of the token [default: Microsoft Graph of the cloud, `/.default`]
    #[arg(long, value_name = "SCOPE", value_parser = NonEmptyStringValueParser::new())]
    scope: Option<String>,

    /// File with what Microsoft's tools print of the identity or of its credentials, for the prediction; repeatable
    #[arg(long, value_name = "FILE")]
    credentials: Vec<PathBuf>,

    /// Print the token of the last step, and nothing else, to standard output
    #[arg(long)]
    print_token: bool,

    /// Output format: `text` or `json`
    #[arg(long, value_name = "FORMAT", default_value = "text", hide_possible_values = true)]
    output: Output,

    #[command(flatten)]
    documents: DocumentFlags,
}

impl ExchangeVerb {
    fn parts(&self) -> (Flow, &ExchangeFlags, Option<&PathBuf>) {
        match self {
            Self::Aws(_) | Self::Gcp(_) => unreachable!("not at Entra"),
            Self::Workload(flags) => (Flow::Workload, flags, None),
            Self::Blueprint { agent, flags } => (Flow::Blueprint { agent: agent.agent.clone() }, flags, None),
            Self::Agent { agent, flags } => (Flow::Agent { agent: agent.agent.clone() }, flags, None),
            Self::OnBehalfOf { agent, user_token, refresh, flags } => {
                (Flow::OnBehalfOf { agent: agent.clone(), refresh: *refresh }, flags, Some(user_token))
            }
            Self::AgentUser { agent, user, flags } => {
                let user = match (&user.username, &user.user_id) {
                    (Some(name), _) => UserId::Name(name.clone()),
                    (None, id) => UserId::ObjectId(id.clone().expect("one of the two is required")),
                };
                (Flow::AgentUser { agent: agent.agent.clone(), user }, flags, None)
            }
        }
    }
}

pub(super) fn run(verb: &ExchangeVerb) -> Result<ExitStatus, Failure> {
    match verb {
        ExchangeVerb::Aws(flags) => return sts::aws(flags),
        ExchangeVerb::Gcp(flags) => return sts::google(flags),
        _ => {}
    }
    let (flow, flags, user_token) = verb.parts();
    let tokens = Tokens {
        service_account: Token::new(read_token(&flags.token, "--token")?.0),
        user: match user_token {
            Some(path) => Some(Token::new(read_token(path, "--user-token")?.0)),
            None => None,
        },
    };
    let (credentials, identity) = read_identity(&flags.credentials)?;
    let exchange = flags.exchange(flow);
    let documents = flags.documents.sources()?;
    let known = Known { credentials, identity };
    let walk =
        block_on(exchange::walk(&exchange, tokens, &known, &documents, flags.documents.ca_file.clone()))?;
    let told = match flags.output {
        Output::Text => text::text(&exchange, &walk),
        Output::Json => json::json(&exchange, &walk),
    };
    let told = redact_tokens(&told);
    match walk.token.as_ref().filter(|_| flags.print_token) {
        Some(token) => {
            eprint(told.trim_end());
            print(token.as_str());
        }
        None => print(&told),
    }
    Ok(exit(&walk))
}

fn exit(walk: &Walk) -> ExitStatus {
    if walk.token.is_some() { ExitStatus::Success } else { ExitStatus::Negative }
}

impl ExchangeFlags {
    fn exchange(&self, flow: Flow) -> Exchange {
        let host = Url::parse(&self.authority).ok().and_then(|url| Some(url.host_str()?.to_owned()));
        let cloud = host.and_then(|host| Cloud::of_host(&host)).unwrap_or_default();
        Exchange {
            cloud,
            authority: self.authority.trim_end_matches('/').to_owned(),
            tenant: self.tenant.clone(),
            client_id: self.client_id.clone(),
            scope: self.scope.clone().unwrap_or_else(|| cloud.graph_scope().to_owned()),
            flow,
        }
    }
}
