//! Exchanges a service-account token at Entra, step by step, and sets each answer beside its prediction.

use std::{path::PathBuf, time::Duration};

use jiff::Timestamp;

use super::evidence::{Documents, EvidenceError, Sources, gather};
use crate::{
    clock,
    core::{
        entra::{
            Asked, ClaimInWords, Credential, Exchange, Identity, IdentityKind, Issued, RefreshToken, Refusal,
            Step, TokenAnswer, TokenOf, claims_in_words,
        },
        jose::token::{Token, UnverifiedToken},
        text::Hint,
        verification::{
            Agreement, Evidence, Expectation, Party, Question, VerificationReport, judge, situation::Answer,
        },
    },
    http_client::Trust,
    token_endpoint::{TokenEndpoint, TokenEndpointError},
};

/// The tokens that an exchange begins with.
pub struct Tokens {
    pub service_account: Token,
    pub user: Option<Token>,
}

/// What is known besides, for the prediction.
#[derive(Clone, Debug, Default)]
pub struct Known {
    pub credentials: Option<Vec<Credential>>,
    pub identity: Option<Identity>,
}

/// An exchange as far as it went.
pub struct Walk {
    pub steps: Vec<WalkedStep>,
    /// The token of the last step, if all succeeded.
    pub token: Option<Token>,
}

/// A step that was asked.
pub struct WalkedStep {
    pub step: Step,
    pub took: Duration,
    pub outcome: StepOutcome,
    pub prediction: VerificationReport,
    pub agreement: Agreement,
}

pub enum StepOutcome {
    Issued {
        expires_at: Option<Timestamp>,
        /// Empty if the token is only for its resource to read.
        claims: Vec<ClaimInWords>,
    },
    Refused(Refusal),
}

/// Walks the steps until one is refused.
///
/// # Errors
///
/// Fails when the token endpoint or the documents of the issuer cannot be asked at all.
pub async fn walk(
    exchange: &Exchange,
    tokens: Tokens,
    known: &Known,
    documents: &Documents,
    ca_file: Option<PathBuf>,
) -> Result<Walk, ExchangeError> {
    let trust = ca_file.map_or(Trust::System, Trust::Also);
    let endpoint = TokenEndpoint::new(&exchange.endpoint(), trust)?;
    let user = tokens.user.as_ref().map_or("", Token::as_str);
    let own = evidence_of(&tokens, known, documents).await?;
    let mut got: Vec<Issued> = Vec::new();
    let mut walked = Vec::new();
    for step in exchange.steps() {
        let text = |of| match of {
            TokenOf::ServiceAccount => tokens.service_account.as_str(),
            TokenOf::User => user,
            TokenOf::Step(number) => got[number].token.as_str(),
            TokenOf::RefreshOf(number) => got[number].refresh_token.as_ref().map_or("", RefreshToken::as_str),
        };
        let form = step.form(text);
        if form.contains(&("refresh_token", "")) {
            return Err(ExchangeError::NothingToRefresh);
        }
        let prediction = predicted(exchange, &step, user, text(step.assertion()), &own);
        let timed = endpoint.ask(&form).await?;
        let (outcome, answer, issued) = match timed.answer {
            TokenAnswer::Issued(issued) => {
                let now = clock::now();
                let expires_at = issued.expires_in.and_then(|seconds| {
                    now.checked_add(jiff::SignedDuration::from_secs(i64::try_from(seconds).ok()?)).ok()
                });
                let claims = UnverifiedToken::parse(issued.token.as_str())
                    .map_or_else(|_| Vec::new(), |token| claims_in_words(&token, &asked(exchange, &step)));
                (StepOutcome::Issued { expires_at, claims }, Answer::Accepted, Some(issued))
            }
            TokenAnswer::Refused(refusal) => {
                let answer = Answer::Code(refusal.code);
                (StepOutcome::Refused(refusal), answer, None)
            }
        };
        let agreement = Agreement::of(&prediction, answer, &[]);
        walked.push(WalkedStep { step, took: timed.took, outcome, prediction, agreement });
        let Some(issued) = issued else { return Ok(Walk { steps: walked, token: None }) };
        got.push(issued);
    }
    Ok(Walk { steps: walked, token: got.pop().map(|last| last.token) })
}

/// The evidence about the service account's token, with the documents of its issuer.
pub(super) async fn evidence_of(
    tokens: &Tokens,
    known: &Known,
    documents: &Documents,
) -> Result<Evidence, ExchangeError> {
    let sources = Sources {
        token: Some(tokens.service_account.as_str().to_owned()),
        token_file: None,
        cluster: None,
        documents: documents.clone(),
        identity: known.identity.clone(),
        credentials: known.credentials.clone(),
        request: None,
        ledger: None,
    };
    let gathered = gather(&sources, &Expectation::default()).await?;
    Ok(gathered.into_iter().next().expect("one token is one item").1)
}

/// What Entra is predicted to answer to a step: the first is about the service account's token, later ones about
/// tokens of Entra itself.
fn predicted(
    exchange: &Exchange,
    step: &Step,
    user: &str,
    assertion: &str,
    own: &Evidence,
) -> VerificationReport {
    let evidence = Evidence {
        token: Some(UnverifiedToken::parse(assertion)),
        request: Some(exchange.request(step, user)),
        ..Evidence::none(clock::now())
    };
    let evidence = if step.assertion() == TokenOf::ServiceAccount {
        let is_blueprint = exchange.agent().is_some();
        let assumed = is_blueprint.then(|| Identity::of_kind(IdentityKind::Blueprint, &step.client_id));
        Evidence {
            discovery: own.discovery.clone(),
            jwks: own.jwks.clone(),
            identity: own.identity.clone().or(assumed),
            credentials: own.credentials.clone(),
            ..evidence
        }
    } else {
        let agent = Identity {
            blueprint: Some(exchange.client_id.clone()),
            tenant: Some(exchange.tenant.clone()),
            ..Identity::of_kind(IdentityKind::AgentIdentity, &step.client_id)
        };
        Evidence { identity: Some(agent), ..evidence }
    };
    judge(
        &evidence,
        &Question { party: Party::Entra, cloud: exchange.cloud, expected: Expectation::default() },
    )
}

fn asked<'a>(exchange: &'a Exchange, step: &'a Step) -> Asked<'a> {
    Asked {
        leg: step.leg,
        client_id: &step.client_id,
        tenant: &exchange.tenant,
        blueprint: &exchange.client_id,
        agent: exchange.agent(),
    }
}

#[derive(Debug, thiserror::Error)]
pub enum ExchangeError {
    #[error(transparent)]
    Endpoint(#[from] TokenEndpointError),
    #[error(transparent)]
    Evidence(#[from] EvidenceError),
    #[error("Entra issued no refresh token")]
    NothingToRefresh,
}

impl Hint for ExchangeError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Endpoint(error) => error.hint(),
            Self::Evidence(error) => error.hint(),
            Self::NothingToRefresh => Some(
                "have an administrator grant `offline_access` to the client, or leave out `--refresh`"
                    .to_owned(),
            ),
        }
    }
}
