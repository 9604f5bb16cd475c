//! Repeatedly verifies a fresh token against the documents at the issuer's own URL.
//!
//! The tripwire compares the signing key with what Signpost considers public. The probe finds what that
//! cannot see: a CDN that keeps an old JWKS, a bucket that was made private, an expired certificate. It never
//! affects readiness: a replica that stops serving makes it worse. A problem is reported after a second
//! check, because documents are written one after the other; its end at once. Without a token there is no
//! verdict: the last one stays. An unknown outcome counts as not accepted in the metric. Every replica runs
//! the probe, because each may see another edge of a CDN.

use std::{path::PathBuf, sync::Arc, time::Duration};

use futures_util::future::BoxFuture;
use tokio::{select, time::sleep};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{concurrency::Permit, document_read, issuer::IssuerReconciler, source_loop::jittered};
use crate::{
    clock,
    core::{
        jose::token::{Token, UnverifiedToken},
        ledger::Ledger,
        text::ErrorReport,
        verification::{ApiServerView, Evidence, Question, Verdict, judge},
    },
    relying_party::{Reach, RelyingParty},
};

/// Time until a problem is checked again, before it is reported: a publication may be on its way, and an API
/// server that has just started denies requests for some seconds.
const CONFIRM: Duration = Duration::from_secs(15);
/// Most confirming checks: one problem may have been repaired in between and another have appeared.
const CONFIRMATIONS: usize = 2;
/// Longest time between two checks while there is a problem.
const RECHECK: Duration = Duration::from_mins(1);

/// A token and its origin.
pub struct ProbeToken {
    pub token: Token,
    /// `None` if no API server minted it.
    pub api_server: Option<ApiServerView>,
}

/// Mints a token for each check, or reports why there is none.
pub type Tokens = Box<dyn Fn() -> BoxFuture<'static, Result<ProbeToken, ErrorReport>> + Send + Sync>;

/// The probe of one issuer.
pub struct Prober {
    pub tokens: Tokens,
    pub question: Question,
    pub reach: Reach,
    /// CA certificates that are trusted besides those of the system.
    pub ca_file: Option<PathBuf>,
    pub every: Duration,
}

/// Probes until `stop`, once there is a publication.
pub async fn run_probe(
    prober: Prober,
    reconciler: Arc<IssuerReconciler>,
    mut pass: Permit,
    stop: CancellationToken,
) {
    let turn = async {
        let mut publication = reconciler.publication();
        let _ = publication.wait_for(Option::is_some).await;
        let mut known = LastVerdict::default();
        loop {
            let mut last_reading = prober.look_through(&mut pass, &reconciler).await;
            for _ in 0..CONFIRMATIONS {
                if !known.is_new_trouble(&last_reading) {
                    break;
                }
                sleep(CONFIRM.min(prober.every)).await;
                let again = prober.look_through(&mut pass, &reconciler).await;
                let is_same = matches!((&last_reading, &again), (Ok(one), Ok(other)) if !other.is_news_after(Some(one)));
                last_reading = again;
                if is_same {
                    break;
                }
            }
            let is_well = matches!(&last_reading, Ok(judgement) if judgement.is_accepted());
            known.take(last_reading, &reconciler);
            sleep(jittered(if is_well { prober.every } else { RECHECK.min(prober.every) })).await;
        }
    };
    select! {
        () = stop.cancelled() => {}
        () = turn => {}
    }
}

impl Prober {
    /// Checks once, and requests a read of every target if there is a problem: a deleted or edited document
    /// is repaired before the problem is reported.
    async fn look_through(
        &self,
        pass: &mut Permit,
        reconciler: &IssuerReconciler,
    ) -> Result<Verdict, ErrorReport> {
        let last_reading = pass.run(Box::pin(self.look(reconciler))).await;
        if matches!(&last_reading, Ok(judgement) if !judgement.is_accepted()) {
            reconciler.request_recheck();
        }
        last_reading
    }

    async fn look(&self, reconciler: &IssuerReconciler) -> Result<Verdict, ErrorReport> {
        let ProbeToken { token, api_server } = (self.tokens)().await?;
        let mut evidence = Evidence {
            token: Some(UnverifiedToken::parse(token.as_str())),
            api_server,
            ledger: Some(Ledger::clone(&reconciler.ledger().borrow())),
            max_token_lifetime: Some(reconciler.spec().retention.max_token_lifetime),
            ..Evidence::none(clock::now())
        };
        // A new client each time, without cached addresses or open connections.
        let relying_party = RelyingParty::new(self.reach.clone(), None, self.ca_file.clone()).await?;
        document_read::read(&mut evidence, &reconciler.spec().terms.issuer, &relying_party).await;
        evidence.now = clock::now();
        Ok(judge(&evidence, &self.question).into())
    }
}

#[derive(Default)]
struct LastVerdict {
    judgement: Option<Verdict>,
    error: Option<String>,
}

impl LastVerdict {
    fn is_new_trouble(&self, last_reading: &Result<Verdict, ErrorReport>) -> bool {
        match last_reading {
            Ok(judgement) => !judgement.is_accepted() && judgement.is_news_after(self.judgement.as_ref()),
            Err(nothing) => self.error.as_ref() != Some(&nothing.error),
        }
    }

    /// Updates status and metrics, and logs what is new.
    fn take(&mut self, last_reading: Result<Verdict, ErrorReport>, reconciler: &IssuerReconciler) {
        let issuer = &reconciler.spec().terms.issuer;
        match last_reading {
            Ok(judgement) => {
                if self.error.take().is_some() {
                    info!(%issuer, "tokens are verified again");
                }
                if judgement.is_news_after(self.judgement.as_ref()) {
                    log(&judgement, issuer.as_str());
                }
                reconciler.status().verified(issuer, clock::now(), judgement.clone());
                self.judgement = Some(judgement);
            }
            Err(ErrorReport { error, hint }) => {
                reconciler.status().unverified(issuer, &error);
                if self.error.as_ref() != Some(&error) {
                    warn!(%issuer, error, hint, "cannot verify, no token available");
                    self.error = Some(error);
                }
            }
        }
    }
}

fn log(judgement: &Verdict, issuer: &str) {
    let (party, code) = (judgement.party.name(), judgement.likely_code);
    match judgement.decisive() {
        _ if judgement.is_accepted() => info!(issuer, party, "tokens would be accepted again"),
        Some(finding) => warn!(
            issuer,
            party,
            outcome = judgement.outcome.name(),
            finding = finding.id,
            code,
            seen = finding.seen,
            fix = finding.fix,
            "tokens would not be accepted"
        ),
        None => warn!(issuer, party, outcome = judgement.outcome.name(), "tokens would not be accepted"),
    }
}

#[cfg(test)]
mod tests;
