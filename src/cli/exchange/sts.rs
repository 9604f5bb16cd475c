//! `signpost exchange aws` and `signpost exchange gcp`.

use std::path::{Path, PathBuf};

use clap::{Args, builder::NonEmptyStringValueParser};
use serde_json::{Value, json};

use crate::{
    app::sts::{self, GoogleRequest, StsExchange, StsStep},
    cli::{
        Failure, Output, block_on, eprint,
        error_report::ExitStatus,
        print, read_bytes, read_file,
        verify::{DocumentFlags, read_token},
    },
    core::{
        jose::token::Token,
        sts::{
            Refusal, StsAnswer,
            aws::{self, AssumeRole},
            google::{self, ExternalAccount},
        },
        text::redaction::{printable, redact_tokens},
        verification::VerificationOutcome,
    },
};

const INDENT: &str = "   ";

#[derive(Args)]
pub(in crate::cli) struct AwsFlags {
    /// File with the service-account token, or `-` for standard input
    #[arg(long, value_name = "FILE", env = "AWS_WEB_IDENTITY_TOKEN_FILE", hide_env_values = true)]
    token: PathBuf,

    /// Role that trusts the issuer
    #[arg(long, value_name = "ARN", env = "AWS_ROLE_ARN", hide_env_values = true)]
    #[arg(value_parser = NonEmptyStringValueParser::new())]
    role_arn: String,

    /// Name of the session, which AWS logs
    #[arg(long, value_name = "NAME", env = "AWS_ROLE_SESSION_NAME", hide_env_values = true)]
    #[arg(default_value = "signpost")]
    session_name: String,

    /// Region whose STS is asked [default: the global one]
    #[arg(long, value_name = "REGION", env = "AWS_REGION", hide_env_values = true)]
    region: Option<String>,

    /// STS to ask instead, of AWS or on this machine
    #[arg(long, value_name = "URL", env = "AWS_ENDPOINT_URL_STS", hide_env_values = true)]
    endpoint: Option<String>,

    #[command(flatten)]
    common: CommonFlags,
}

#[derive(Args)]
pub(in crate::cli) struct GoogleFlags {
    /// Credential file of type `external_account`, which names all that the next three do
    #[arg(long, value_name = "FILE", env = "GOOGLE_APPLICATION_CREDENTIALS", hide_env_values = true)]
    config: Option<PathBuf>,

    /// File with the service-account token, or `-` for standard input
    #[arg(long, value_name = "FILE", required_unless_present = "config")]
    token: Option<PathBuf>,

    /// Provider: `projects/NUMBER/locations/global/workloadIdentityPools/POOL/providers/PROVIDER`
    #[arg(long, value_name = "NAME", required_unless_present = "config")]
    #[arg(value_parser = NonEmptyStringValueParser::new())]
    provider: Option<String>,

    /// Service account to act as
    #[arg(long, value_name = "EMAIL", value_parser = NonEmptyStringValueParser::new())]
    service_account: Option<String>,

    /// Both services of Google, on this machine instead
    #[arg(long, value_name = "URL")]
    endpoint: Option<String>,

    #[command(flatten)]
    common: CommonFlags,
}

#[derive(Args)]
struct CommonFlags {
    /// Print the credentials, and nothing else, to standard output: an access token, or the JSON that
    /// `credential_process` of AWS expects
    #[arg(long)]
    print_token: bool,

    /// Output format: `text` or `json`
    #[arg(long, value_name = "FORMAT", default_value = "text", hide_possible_values = true)]
    output: Output,

    #[command(flatten)]
    documents: DocumentFlags,
}

pub(super) fn aws(flags: &AwsFlags) -> Result<ExitStatus, Failure> {
    let token = Token::new(read_token(&flags.token, "--token")?.0);
    let role = AssumeRole { role_arn: flags.role_arn.clone(), session_name: flags.session_name.clone() };
    let url = flags.endpoint.clone().unwrap_or_else(|| aws::endpoint(flags.region.as_deref()));
    let documents = flags.common.documents.sources()?;
    let ca_file = flags.common.documents.ca_file.clone();
    Ok(tell(&block_on(sts::at_aws(&role, &url, token, &documents, ca_file))?, &flags.common))
}

pub(super) fn google(flags: &GoogleFlags) -> Result<ExitStatus, Failure> {
    let (request, token) = flags.request()?;
    let documents = flags.common.documents.sources()?;
    let ca_file = flags.common.documents.ca_file.clone();
    Ok(tell(&block_on(sts::at_google(&request, token, &documents, ca_file))?, &flags.common))
}

impl GoogleFlags {
    fn request(&self) -> Result<(GoogleRequest, Token), Failure> {
        let config = match (&self.config, &self.token, &self.provider) {
            (Some(path), token, provider) if token.is_none() || provider.is_none() => {
                Some(external_account(path)?)
            }
            _ => None,
        };
        let token = match (&self.token, &config) {
            (Some(path), _) => read_token(path, "--token")?.0,
            (None, config) => token_of(config.as_ref().expect("without a token there is a file"))?,
        };
        let service = self.endpoint.as_deref().map(|url| url.trim_end_matches('/'));
        let of_file = config.as_ref();
        let provider = self.provider.as_deref().map(|name| {
            let name = name.trim_start_matches("https:").trim_start_matches("//iam.googleapis.com/");
            format!("//iam.googleapis.com/{name}")
        });
        let own = |account: &String| {
            google::impersonation_url(service.unwrap_or("https://iamcredentials.googleapis.com"), account)
        };
        let request = GoogleRequest {
            audience: provider
                .or(of_file.map(|file| file.audience.clone()))
                .expect("one of the two is required"),
            token_type: of_file.map_or(google::JWT, |file| &file.subject_token_type).to_owned(),
            url: match (service, of_file) {
                (Some(service), _) => format!("{service}/v1/token"),
                (None, Some(file)) => file.token_url.clone(),
                (None, None) => "https://sts.googleapis.com/v1/token".to_owned(),
            },
            impersonation_url: self
                .service_account
                .as_ref()
                .map(own)
                .or(of_file.and_then(|file| file.service_account_impersonation_url.clone())),
        };
        Ok((request, Token::new(token)))
    }
}

fn external_account(path: &Path) -> Result<ExternalAccount, Failure> {
    let hint = "write one with `gcloud iam workload-identity-pools create-cred-config --credential-source-file`, or \
                pass `--token` and `--provider`";
    let bytes = read_file(path, hint)?;
    let file: Value = serde_json::from_slice(&bytes).unwrap_or_default();
    let kind = file["type"].as_str().unwrap_or("none").to_owned();
    serde_json::from_value(file).ok().filter(|_| kind == "external_account").ok_or_else(|| {
        let text = format!(
            "`{}` is of type `{}`, expected `external_account` with a file as its source",
            path.display(),
            printable(&kind)
        );
        Failure::plain(&text, hint)
    })
}

fn token_of(config: &ExternalAccount) -> Result<String, Failure> {
    let source = &config.credential_source;
    let hint = "run this where the file of the credential source is, or pass `--token`";
    let bytes = read_bytes(&source.file, hint)?;
    let text = String::from_utf8_lossy(&bytes);
    source.format.token_in(&text).map_err(|name| {
        Failure::plain(&format!("`{}` has no text `{}`", source.file.display(), printable(name)), hint)
    })
}

fn tell(exchange: &StsExchange, flags: &CommonFlags) -> ExitStatus {
    let told = match flags.output {
        Output::Text => text(exchange),
        Output::Json => {
            serde_json::to_string_pretty(&json_of(exchange)).expect("strings always serialise") + "\n"
        }
    };
    let told = redact_tokens(&told);
    match exchange.credentials().filter(|_| flags.print_token) {
        Some(credentials) => {
            eprint(told.trim_end());
            print(credentials.as_str());
        }
        None => print(&told),
    }
    if exchange.credentials().is_some() { ExitStatus::Success } else { ExitStatus::Negative }
}

fn text(exchange: &StsExchange) -> String {
    let service = exchange.service.name();
    let verdict = match exchange.steps.last().map(|step| &step.answer) {
        Some(StsAnswer::Refused(refusal)) => format!("refused: {service} answered {}", refusal.code),
        _ => format!("accepted: {service} issued credentials"),
    };
    let steps = exchange.steps.iter().map(step);
    format!("{verdict}\n{}{INDENT}predicted: {}\n", steps.collect::<String>(), prediction(exchange))
}

fn step(step: &StsStep) -> String {
    let mut text = format!("\n{} ({:.2} s)\n", printable(&step.asked_for), step.took.as_secs_f64());
    match &step.answer {
        StsAnswer::Issued(issued) => {
            for (name, value) in &issued.facts {
                text += &format!("{INDENT}{name:10} {}\n", printable(value));
            }
            if let Some(at) = issued.expires_at {
                text += &format!("{INDENT}{:10} {at}\n", "expires");
            }
        }
        StsAnswer::Refused(Refusal { code, text: said, request_id, explained }) => {
            text += &format!("{INDENT}{}: {}\n", printable(code), printable(said));
            if let Some(row) = explained {
                text += &format!("{INDENT}means: {} ({})\n", row.meaning, row.certainty.name());
                text += &format!("{INDENT}fix: {}\n", row.fix);
            }
            if !request_id.is_empty() {
                text += &format!("{INDENT}for support: request {}\n", printable(request_id));
            }
        }
    }
    text
}

fn prediction(exchange: &StsExchange) -> String {
    let report = &exchange.prediction;
    let first = report.likely_first().filter(|_| report.outcome != VerificationOutcome::Accepted);
    let check = first.map_or_else(String::new, |it| format!(" ({}: {})", it.id, printable(&it.seen)));
    format!("{}{check}; {}", report.outcome.name(), exchange.agreement)
}

fn json_of(exchange: &StsExchange) -> Value {
    let steps = exchange.steps.iter().map(|step| {
        let mut value = json!({"asked_for": step.asked_for, "seconds": step.took.as_secs_f64()});
        match &step.answer {
            StsAnswer::Issued(issued) => {
                value["expires_at"] = json!(issued.expires_at);
                value["facts"] =
                    issued.facts.iter().map(|(name, it)| ((*name).to_owned(), json!(it))).collect();
            }
            StsAnswer::Refused(refusal) => {
                let row = refusal.explained;
                value["error"] = json!({
                    "code": refusal.code, "text": refusal.text, "request_id": refusal.request_id,
                    "meaning": row.map(|row| row.meaning), "fix": row.map(|row| row.fix),
                    "certainty": row.map(|row| row.certainty),
                });
            }
        }
        value
    });
    json!({
        "outcome": if exchange.credentials().is_some() { "accepted" } else { "refused" },
        "service": exchange.service.name(),
        "steps": steps.collect::<Vec<_>>(),
        "prediction": exchange.prediction,
        "agreement": exchange.agreement,
    })
}
