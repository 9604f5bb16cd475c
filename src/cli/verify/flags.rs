//! The flags of `signpost verify`.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use clap::{Args, ValueEnum, builder::NonEmptyStringValueParser};

use crate::{
    cli::{Output, token::lifetime},
    core::{
        service_account::{ServiceAccount, is_namespace},
        verification::situation::Answer,
    },
};

#[derive(Args)]
#[command(
    override_usage = "signpost verify (--token FILE | --issuer URL | …) [OPTIONS]",
    after_help = "\
Examples:
  kubectl create token default --audience api://AzureADTokenExchange |
    signpost verify --token -
  signpost verify --issuer https://oidc.example.com/c1 --for all
  signpost verify --service-account team/app --source kubernetes:prod \\
    --issuer https://oidc.example.com/c1
  signpost verify --token token.jwt --jwks jwks.json --output json

Exit codes: 0 it would be accepted; 1 it would be refused; 2 unknown: there was no answer, or
a file cannot be read."
)]
pub(in crate::cli) struct VerifyFlags {
    /// File with the token, or `-` for standard input
    #[arg(long, value_name = "FILE")]
    pub(super) token: Option<PathBuf>,

    /// Relying party: `entra`, `aws`, `gcp`, `all` of them, `kubernetes` for another cluster that trusts
    /// the issuer, or `local` [default: entra; local for an issuer on this machine]
    #[arg(long = "for", value_name = "PARTY", hide_possible_values = true)]
    pub(super) parties: Option<Parties>,

    /// Microsoft cloud: `public`, `usgov` or `china` [default: the one that `--request` asks; else public]
    #[arg(long, value_name = "CLOUD", hide_possible_values = true)]
    pub(super) cloud: Option<CloudName>,

    /// Output format: `text` or `json`
    #[arg(long, value_name = "FORMAT", default_value = "text", hide_possible_values = true)]
    pub(super) output: Output,

    /// Retry for this long, such as `30m`, while waiting may be enough
    #[arg(long, value_name = "D", value_parser = patience, conflicts_with = "jwks")]
    pub(super) wait: Option<Duration>,

    #[command(flatten)]
    pub(super) expected: ExpectedFlags,

    #[command(flatten)]
    pub(super) documents: DocumentFlags,

    #[command(flatten)]
    pub(super) cluster: ClusterFlags,

    #[command(flatten)]
    pub(super) answer: AnswerFlags,
}

#[derive(Args)]
#[command(next_help_heading = "Federated credential")]
pub(super) struct ExpectedFlags {
    /// Its issuer [default: the one that the token names]
    #[arg(long, value_name = "URL", value_parser = NonEmptyStringValueParser::new())]
    pub(super) issuer: Option<String>,

    /// Its subject
    #[arg(long, value_name = "S", value_parser = NonEmptyStringValueParser::new())]
    pub(super) subject: Option<String>,

    /// Its audience [default: what the cloud recommends]
    #[arg(long, value_name = "A", value_parser = NonEmptyStringValueParser::new())]
    pub(super) audience: Option<String>,

    /// File with what Microsoft's tools print of the identity; repeatable: all its credentials, as from
    /// `az identity federated-credential list`, or itself, as from `az identity show` or `az ad app show`
    #[arg(long, value_name = "FILE")]
    pub(super) credentials: Vec<PathBuf>,

    /// File with the request for a token as it was sent: a line with its URL, one for each field, as
    /// `client_id=…`; `-` for standard input
    #[arg(long, value_name = "FILE")]
    pub(super) request: Option<PathBuf>,
}

#[derive(Args)]
#[command(next_help_heading = "What Entra answered")]
pub(super) struct AnswerFlags {
    /// The answer, such as `AADSTS700213`, or `accepted`: it is explained, and compared with the prediction
    #[arg(long, value_name = "CODE", value_parser = answer)]
    pub(super) got: Option<Answer>,

    /// Write the situation into this new file, without names, ids and keys, to be looked at and sent in
    #[arg(long, value_name = "FILE", requires = "got")]
    pub(super) report: Option<PathBuf>,
}

#[derive(Args)]
#[command(next_help_heading = "Documents")]
pub(in crate::cli) struct DocumentFlags {
    /// Read the discovery document from this file instead of the issuer
    #[arg(long, value_name = "FILE", requires = "jwks")]
    pub(super) discovery: Option<PathBuf>,

    /// Read the JWKS from this file instead of the issuer
    #[arg(long, value_name = "FILE")]
    pub(super) jwks: Option<PathBuf>,

    /// File with the ledger of a running Signpost, for how long each key has been public
    #[arg(long, value_name = "FILE")]
    pub(in crate::cli) ledger: Option<PathBuf>,

    /// Allow private addresses, for a test cluster
    #[arg(long, conflicts_with = "jwks")]
    pub(super) allow_private: bool,

    /// Connect to this address, such as `192.0.2.1:443`, instead of asking the DNS: before it points there
    #[arg(long, value_name = "ADDRESS", conflicts_with = "jwks", value_parser = address)]
    pub(super) connect_to: Option<SocketAddr>,

    /// Trust the certificate authorities of this PEM file too, for a test cluster
    #[arg(long, value_name = "FILE", conflicts_with = "jwks")]
    pub(in crate::cli) ca_file: Option<PathBuf>,
}

#[derive(Args)]
#[command(next_help_heading = "Workloads of a cluster")]
pub(super) struct ClusterFlags {
    /// A service account, and all its pods
    #[arg(long, value_name = "NS/NAME", conflicts_with_all = ["token", "pod", "namespace"])]
    pub(super) service_account: Option<ServiceAccount>,

    /// A pod, and its service account
    #[arg(long, value_name = "NS/NAME", conflicts_with_all = ["token", "namespace"], value_parser = pod)]
    pub(super) pod: Option<(String, String)>,

    /// This namespace, with `--all`
    #[arg(long, value_name = "NS", requires = "all", conflicts_with = "token")]
    #[arg(value_parser = namespace)]
    pub(super) namespace: Option<String>,

    /// Every service account of the namespace
    #[arg(long, requires = "namespace")]
    pub(super) all: bool,

    /// The cluster: `kubernetes` for the one this runs in, or `kubernetes:CONTEXT`
    #[arg(long, value_name = "SRC", default_value = "kubernetes", value_parser = context)]
    pub(super) source: Context,
}

#[derive(Clone, Copy, ValueEnum)]
pub(super) enum Parties {
    Entra,
    Aws,
    Gcp,
    Kubernetes,
    All,
    Local,
}

#[derive(Clone, Copy, ValueEnum)]
pub(super) enum CloudName {
    Public,
    Usgov,
    China,
}

#[derive(Clone)]
pub(in crate::cli) struct Context(pub(in crate::cli) Option<String>);

pub(in crate::cli) fn context(text: &str) -> Result<Context, String> {
    match text.split_once(':') {
        None if text == "kubernetes" => Ok(Context(None)),
        Some(("kubernetes", context)) if !context.is_empty() => Ok(Context(Some(context.to_owned()))),
        _ => Err(format!("unknown source `{text}`, expected `kubernetes` or `kubernetes:CONTEXT`")),
    }
}

fn patience(text: &str) -> Result<Duration, String> {
    lifetime(text).map_err(|_| format!("`{text}` is not a duration, expected one such as `30m`"))
}

fn answer(text: &str) -> Result<Answer, String> {
    if text.eq_ignore_ascii_case("accepted") {
        return Ok(Answer::Accepted);
    }
    let digits =
        text.get(..6).filter(|start| start.eq_ignore_ascii_case("AADSTS")).map_or(text, |_| &text[6..]);
    let end = digits.find(|it: char| !it.is_ascii_digit()).unwrap_or(digits.len());
    let code = digits[..end].parse();
    code.map(Answer::Code)
        .map_err(|_| format!("`{text}` is no answer, expected one such as `AADSTS700213`, or `accepted`"))
}

fn address(text: &str) -> Result<SocketAddr, String> {
    let wrong = |_| format!("`{text}` is not an address and port, expected one such as `192.0.2.1:443`");
    text.parse().map_err(wrong)
}

/// Pods are named as service accounts are.
fn namespace(text: &str) -> Result<String, String> {
    let named = is_namespace(text).then(|| text.to_owned());
    named.ok_or_else(|| {
        format!("`{text}` is not a namespace, expected lower-case letters, digits and hyphens")
    })
}

fn pod(text: &str) -> Result<(String, String), String> {
    let named: ServiceAccount =
        text.parse().map_err(|_| format!("`{text}` is not a pod, expected `NAMESPACE/NAME`"))?;
    Ok((named.namespace().to_owned(), named.name().to_owned()))
}
