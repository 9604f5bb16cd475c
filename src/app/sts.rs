//! Exchanges a service-account token at AWS or Google Cloud, and sets the answer beside its prediction.

use std::{path::PathBuf, time::Duration};

use super::{
    evidence::Documents,
    exchange::{ExchangeError, Known, Tokens, evidence_of},
};
use crate::{
    clock,
    core::{
        entra::Cloud,
        jose::token::Token,
        sts::{
            StsAnswer, agreement,
            aws::{self, AssumeRole},
            google,
        },
        verification::{Expectation, Party, Question, VerificationReport, judge},
    },
    http_client::Trust,
    token_endpoint::{RawAnswer, TokenEndpoint, TokenService},
};

/// An exchange as far as it went.
pub struct StsExchange {
    pub service: TokenService,
    /// What was asked, one after the other.
    pub steps: Vec<StsStep>,
    /// Of the first step.
    pub prediction: VerificationReport,
    pub agreement: &'static str,
}

pub struct StsStep {
    /// What for: a role, a provider, a service account.
    pub asked_for: String,
    pub took: Duration,
    pub answer: StsAnswer,
}

impl StsExchange {
    /// The credentials, if all steps succeeded.
    #[must_use]
    pub fn credentials(&self) -> Option<&Token> {
        match self.steps.last().map(|step| &step.answer) {
            Some(StsAnswer::Issued(issued)) => Some(&issued.credentials),
            _ => None,
        }
    }
}

/// What Google is asked for.
pub struct GoogleRequest {
    /// The provider, by its full resource name.
    pub audience: String,
    pub token_type: String,
    pub url: String,
    /// A service account to act as, by the URL where its token is asked for.
    pub impersonation_url: Option<String>,
}

/// Assumes a role of AWS.
///
/// # Errors
///
/// Fails when the service or the documents of the issuer cannot be asked at all.
pub async fn at_aws(
    role: &AssumeRole,
    url: &str,
    token: Token,
    documents: &Documents,
    ca_file: Option<PathBuf>,
) -> Result<StsExchange, ExchangeError> {
    let endpoint = TokenEndpoint::of(TokenService::Aws, url, trust(ca_file))?;
    let tokens = Tokens { service_account: token, user: None };
    let prediction = predicted(Party::Aws, &tokens, documents).await?;
    let RawAnswer { status, body, took } = endpoint.post(&role.form(tokens.service_account.as_str())).await?;
    let answer = aws::parse(&body).ok_or(endpoint.strange(status))?;
    let agreement = agreement(&prediction, &answer);
    let steps = vec![StsStep { asked_for: role.role_arn.clone(), took, answer }];
    Ok(StsExchange { service: TokenService::Aws, steps, prediction, agreement })
}

/// Exchanges a token at Google Cloud, and that for the token of a service account.
///
/// # Errors
///
/// Fails when a service or the documents of the issuer cannot be asked at all.
pub async fn at_google(
    request: &GoogleRequest,
    token: Token,
    documents: &Documents,
    ca_file: Option<PathBuf>,
) -> Result<StsExchange, ExchangeError> {
    let trust = trust(ca_file);
    let endpoint = TokenEndpoint::of(TokenService::Google, &request.url, trust.clone())?;
    let accounts = match &request.impersonation_url {
        Some(url) => Some((url, TokenEndpoint::of(TokenService::Google, url, trust)?)),
        None => None,
    };
    let tokens = Tokens { service_account: token, user: None };
    let prediction = predicted(Party::Gcp, &tokens, documents).await?;
    let form = google::form(&request.audience, &request.token_type, tokens.service_account.as_str());
    let RawAnswer { status, body, took } = endpoint.post(&form).await?;
    let answer = google::parse(&body, clock::now()).ok_or(endpoint.strange(status))?;
    let agreement = agreement(&prediction, &answer);
    let mut steps = vec![StsStep { asked_for: request.audience.clone(), took, answer }];
    if let (Some((url, endpoint)), StsAnswer::Issued(issued)) = (accounts, &steps[0].answer) {
        let asked = endpoint.post_json(&issued.credentials, google::impersonation().to_string()).await?;
        let RawAnswer { status, body, took } = asked;
        let answer = google::parse_impersonation(&body).ok_or(endpoint.strange(status))?;
        let account = url.rsplit('/').next().unwrap_or_default().replace(":generateAccessToken", "");
        steps.push(StsStep { asked_for: account, took, answer });
    }
    Ok(StsExchange { service: TokenService::Google, steps, prediction, agreement })
}

fn trust(ca_file: Option<PathBuf>) -> Trust {
    ca_file.map_or(Trust::System, Trust::Also)
}

async fn predicted(
    party: Party,
    tokens: &Tokens,
    documents: &Documents,
) -> Result<VerificationReport, ExchangeError> {
    let evidence = evidence_of(tokens, &Known::default(), documents).await?;
    let question = Question { party, cloud: Cloud::default(), expected: Expectation::default() };
    Ok(judge(&evidence, &question))
}
