//! Repeatedly exchanges a fresh token at Microsoft Entra, as a workload does.
//!
//! What Entra answers decides nothing: neither readiness nor rotation depends on it. A refusal is an answer; that
//! nobody answers, or that Entra is busy, is none, and the last answer stays. The token that Entra issues is wiped
//! unread. Every replica asks, because each may be answered by another part of Entra.

use std::{sync::Arc, time::Duration};

use tokio::{select, time::sleep};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{concurrency::Permit, issuer::IssuerReconciler, probe::Tokens, source_loop::jittered};
use crate::{
    clock,
    core::{
        entra::{Cloud, Exchange, ExchangeAnswer, Refusal, TokenAnswer, errors::explain},
        jose::token::UnverifiedToken,
        ledger::Ledger,
        text::ErrorReport,
        verification::{Evidence, Expectation, Finding, Party, Question, judge},
    },
    token_endpoint::{TokenEndpoint, TokenEndpointError},
};

/// Shortest time between two requests to Entra, which takes more for an attack (AADSTS50196).
const LEAST_WAIT: Duration = Duration::from_mins(1);
/// Longest wait that an answer can ask for.
const MOST_WAIT: Duration = Duration::from_hours(1);
/// The checks of a key that Entra may not have read yet.
const NEW_KEY: &str = "CACHE-";

/// The exchange of one issuer: a flow of one step.
pub struct ExchangeProber {
    pub tokens: Tokens,
    pub exchange: Exchange,
    pub endpoint: TokenEndpoint,
    pub every: Duration,
}

/// Why there is no answer, and how long to wait at least.
struct NoAnswer {
    report: ErrorReport,
    retry_after: Duration,
}

/// Exchanges until `stop`, once there is a publication.
pub async fn run_exchange_probe(
    prober: ExchangeProber,
    reconciler: Arc<IssuerReconciler>,
    mut pass: Permit,
    stop: CancellationToken,
) {
    let turn = async {
        let mut publication = reconciler.publication();
        let _ = publication.wait_for(Option::is_some).await;
        let mut log = Log::default();
        loop {
            let answer = pass.run(Box::pin(prober.ask(&reconciler))).await;
            let wait = prober.wait_after(&answer, jittered(prober.every));
            log.take(answer, &reconciler);
            sleep(wait).await;
        }
    };
    select! {
        () = stop.cancelled() => {}
        () = turn => {}
    }
}

impl ExchangeProber {
    fn wait_after(&self, answer: &Result<ExchangeAnswer, NoAnswer>, every: Duration) -> Duration {
        let least = if self.exchange.is_at_entra() { LEAST_WAIT } else { Duration::ZERO };
        let retry_after = answer.as_ref().err().map_or(Duration::ZERO, |it| it.retry_after.min(MOST_WAIT));
        every.max(least).max(retry_after)
    }

    async fn ask(&self, reconciler: &IssuerReconciler) -> Result<ExchangeAnswer, NoAnswer> {
        let token = (self.tokens)().await?.token;
        let steps = self.exchange.steps();
        let [step] = &steps[..] else { unreachable!("a workload asks once") };
        let timed = self.endpoint.ask(&step.form(|_| token.as_str())).await?;
        Ok(match timed.answer {
            TokenAnswer::Issued(_) => ExchangeAnswer::Accepted,
            TokenAnswer::Refused(refusal) => {
                let ledger = Ledger::clone(&reconciler.ledger().borrow());
                let wait = may_pass(&refusal, token.as_str(), ledger, self.exchange.cloud);
                ExchangeAnswer::Refused { refusal: Box::new(refusal.into()), wait }
            }
        })
    }
}

/// Why a refusal may pass without a change: the ledger says that the key is younger than what Entra may have read,
/// and the code is one that this leads to.
fn may_pass(refusal: &Refusal, token: &str, ledger: Ledger, cloud: Cloud) -> Option<String> {
    let evidence = Evidence {
        token: Some(UnverifiedToken::parse(token)),
        ledger: Some(ledger),
        ..Evidence::none(clock::now())
    };
    let question = Question { party: Party::Entra, cloud, expected: Expectation::default() };
    let report = judge(&evidence, &question);
    let code = explain(refusal.code)?.code;
    let is_cause = |it: &&Finding| it.id.starts_with(NEW_KEY) && it.predicted_codes.contains(&code);
    report.findings.iter().find(is_cause).map(|finding| format!("{}; {}", finding.fix, finding.seen))
}

impl From<ErrorReport> for NoAnswer {
    fn from(report: ErrorReport) -> Self {
        Self { report, retry_after: Duration::ZERO }
    }
}

impl From<TokenEndpointError> for NoAnswer {
    fn from(error: TokenEndpointError) -> Self {
        let retry_after = match error {
            TokenEndpointError::Busy { retry_after, .. } => retry_after.unwrap_or_default(),
            _ => 0,
        };
        Self { report: error.into(), retry_after: Duration::from_secs(retry_after) }
    }
}

/// Updates status and metrics, and logs what is new.
#[derive(Default)]
struct Log {
    answer: Option<ExchangeAnswer>,
    error: Option<String>,
}

impl Log {
    fn take(&mut self, answer: Result<ExchangeAnswer, NoAnswer>, reconciler: &IssuerReconciler) {
        let issuer = &reconciler.spec().terms.issuer;
        match answer {
            Ok(answer) => {
                if self.error.take().is_some() {
                    info!(%issuer, "Microsoft Entra answers again");
                }
                if answer.is_news_after(self.answer.as_ref()) {
                    match &answer {
                        ExchangeAnswer::Accepted => info!(%issuer, "tokens are exchanged again"),
                        ExchangeAnswer::Refused { refusal, wait } => warn!(
                            %issuer,
                            code = refusal.code,
                            text = refusal.text,
                            fix = wait.as_deref().or(refusal.fix),
                            trace_id = refusal.trace_id,
                            "Microsoft Entra refuses tokens"
                        ),
                    }
                }
                reconciler.status().exchanged(issuer, clock::now(), answer.clone());
                self.answer = Some(answer);
            }
            Err(NoAnswer { report: ErrorReport { error, hint }, .. }) => {
                reconciler.status().not_exchanged(issuer, &error);
                if self.error.as_ref() != Some(&error) {
                    warn!(%issuer, error, hint, "Microsoft Entra has not answered");
                    self.error = Some(error);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
