//! Gathers the evidence that a relying party has, for core to judge.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::{
    core::{
        jose::{
            issuer::{Issuer, is_readable_url},
            token::UnverifiedToken,
        },
        verification::{Evidence, Expectation, VerificationOutcome, VerificationReport},
    },
    relying_party::RelyingParty,
};

/// Time between two attempts: Entra requires at least this.
const AGAIN: Duration = Duration::from_secs(15);

/// The issuer whose documents are read: the expected one, else the one that the token names.
#[must_use]
pub fn issuer(evidence: &Evidence, expected: &Expectation) -> Option<Issuer> {
    let named = || evidence.token.as_ref()?.as_ref().ok().and_then(UnverifiedToken::issuer);
    Issuer::parse(expected.issuer.as_deref().or_else(named)?).ok()
}

/// Reads the documents from the issuer, as every relying party does: discovery first, then the JWKS that it
/// names; then both once more. The repeated reads are sequential: a second connection would take longer to
/// open than the wait.
pub async fn read(evidence: &mut Evidence, issuer: &Issuer, relying_party: &RelyingParty) {
    evidence.discovery = relying_party.read(&issuer.discovery_url()).await;
    if let Some(uri) = evidence.jwks_uri().filter(|uri| is_readable_url(uri)) {
        evidence.jwks = relying_party.read(&uri).await;
    }
    relying_party.read_again(&mut evidence.discovery).await;
    relying_party.read_again(&mut evidence.jwks).await;
}

/// Retries until everything is accepted, a problem is permanent, or `patience` is over.
///
/// `reports` returns the verification reports of an attempt; `waiting` is called with the attempt and the
/// remaining time.
///
/// # Errors
///
/// Any error of an attempt.
pub async fn until_accepted<T, E>(
    patience: Duration,
    mut attempt: impl AsyncFnMut() -> Result<Vec<T>, E>,
    reports: impl Fn(&[T]) -> Vec<&VerificationReport>,
    mut waiting: impl FnMut(&[T], Duration),
) -> Result<Vec<T>, E> {
    let end = Instant::now() + patience;
    loop {
        let judged = attempt().await?;
        let reports = reports(&judged);
        let is_over = reports.iter().all(|report| report.outcome == VerificationOutcome::Accepted)
            || !reports.iter().all(|report| report.is_retryable())
            || Instant::now() + AGAIN > end;
        if is_over {
            return Ok(judged);
        }
        waiting(&judged, end.saturating_duration_since(Instant::now()));
        sleep(AGAIN).await;
    }
}
