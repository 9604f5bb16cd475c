//! Gathers what a relying party would have before it, for core to judge.

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

/// Time between two tries of a wait: Entra asks for no less.
const AGAIN: Duration = Duration::from_secs(15);

/// Where the documents are to be looked for: at the issuer that is expected, else the one that the token
/// names.
#[must_use]
pub fn issuer(evidence: &Evidence, expected: &Expectation) -> Option<Issuer> {
    let named = || evidence.token.as_ref()?.as_ref().ok().and_then(UnverifiedToken::issuer);
    Issuer::parse(expected.issuer.as_deref().or_else(named)?).ok()
}

/// Reads the documents from the issuer, as every relying party does: discovery first, the JWKS where
/// that says it is; then both once more, one after the other: together they would need a second connection,
/// and to open that takes longer than to wait.
pub async fn read(evidence: &mut Evidence, issuer: &Issuer, relying_party: &RelyingParty) {
    evidence.discovery = relying_party.read(&issuer.discovery_url()).await;
    if let Some(uri) = evidence.jwks_uri().filter(|uri| is_readable_url(uri)) {
        evidence.jwks = relying_party.read(&uri).await;
    }
    relying_party.read_again(&mut evidence.discovery).await;
    relying_party.read_again(&mut evidence.jwks).await;
}

/// Tries until all is accepted, something is wrong that time does not cure, or the patience is over.
///
/// `reports` finds what was judged in what a try came to; `waiting` is told what is waited for, and for how
/// long yet.
///
/// # Errors
///
/// Whatever a try fails with.
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
