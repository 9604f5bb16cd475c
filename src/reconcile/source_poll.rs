//! Polls one source: whether it is the right issuer, which keys it lists, and which key it signs with.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::time::Instant;
use tracing::{error, info, warn};

use super::issuer::{IssuerReconciler, SourceObservation};
use crate::{
    clock,
    core::{
        jose::{issuer::Issuer, kid::Kid, left_out::Unreadable},
        ledger::merge::SourceAnswer,
        rotation::{SigningKey, SigningKeyChange, signing_key_changes},
        service_account::ServiceAccount,
        text::{Hint, redaction::error_line},
    },
    source::{FetchError, Fetched, Source, SourceError},
    telemetry::FailureLog,
};

/// How often a source that answers is checked for its issuer and its signing key.
const CHECK_EVERY: Duration = Duration::from_mins(1);
/// Waits after a failed probe. An API server that has just started denies requests for some seconds, until it
/// has loaded its roles; if it still does so after these waits, the denial is real.
const RETRY_PROBE: [Duration; 3] = [Duration::from_secs(2), Duration::from_secs(5), Duration::from_secs(10)];

/// A source of one issuer, with its checks.
pub struct SourcePoller {
    source: Source,
    every: Duration,
    checks: Checks,
    issuer_checked: Option<Instant>,
    /// The issuer that it names: the expected one, or a previous one.
    says: Option<Issuer>,
    /// The kids of its last answer.
    kids: BTreeSet<Kid>,
    /// When the next probe is due; `None`: now.
    probe_due: Option<Instant>,
    /// Number of failed probes in a row.
    unprobed: usize,
    account: Option<ServiceAccount>,
    trouble: FailureLog,
    /// The issuer in the last minted token.
    mints_as: Option<String>,
    /// The key that it signs with, and how far that was known.
    signing_key: Option<(Kid, SigningKey)>,
    notes: Vec<String>,
}

/// The checks of an API server besides its keys.
#[derive(Clone, Debug, Default)]
pub struct Checks {
    /// The issuer that its discovery document must name; `None` if the operator allows a mismatch.
    pub issuer: Option<Issuer>,
    /// Previous issuers that it may name too, while the issuer is being moved.
    pub previous_issuers: Vec<Issuer>,
    /// The service account whose token reveals the signing key; `None`: that of this process.
    pub probe: Option<ServiceAccount>,
    /// The last logged reason why the signing key is unknown. The API servers of one cluster share it, so
    /// that it is logged once.
    pub unseen: Arc<Mutex<Option<String>>>,
}

impl Checks {
    fn allow(&self, named: &str) -> bool {
        self.issuer.iter().chain(&self.previous_issuers).any(|issuer| issuer.as_str() == named)
    }
}

impl SourcePoller {
    #[must_use]
    pub fn new(source: Source, every: Duration, checks: Checks) -> Self {
        Self {
            account: checks.probe.clone(),
            source,
            every,
            checks,
            issuer_checked: None,
            says: None,
            kids: BTreeSet::new(),
            probe_due: None,
            unprobed: 0,
            trouble: FailureLog::default(),
            mints_as: None,
            signing_key: None,
            notes: Vec::new(),
        }
    }

    #[must_use]
    pub fn name(&self) -> &str {
        self.source.name()
    }

    /// Time between two polls while the source is healthy.
    #[must_use]
    pub fn every(&self) -> Duration {
        self.every
    }

    /// Whether the endpoint verifies tokens with the keys that it lists.
    #[must_use]
    pub fn verifies(&self) -> bool {
        matches!(self.source, Source::ApiServer(_))
    }

    /// Resolves once there is a reason to poll early. May never resolve.
    pub async fn connection_lost(&self) {
        self.source.connection_lost().await;
    }

    /// Closes open connections.
    pub async fn reconnect(&self) {
        self.source.reconnect().await;
    }

    /// Reads the keys once, after checking that they belong to the issuer.
    ///
    /// # Errors
    ///
    /// Fails if there is no usable answer, or if it belongs to another issuer.
    pub async fn fetch(&mut self) -> Result<Fetched, PollError> {
        if self.issuer_checked.is_none_or(|checked| checked.elapsed() >= CHECK_EVERY) {
            self.issuer_checked = None;
            self.says = check_issuer(&self.source, &self.checks).await?;
            self.issuer_checked = Some(Instant::now());
        }
        let mut fetched = self.source.fetch().await?;
        let previous = self.says.as_ref().filter(|says| Some(*says) != self.checks.issuer.as_ref());
        fetched.notes.extend(previous.map(|previous| {
            format!("it still names previous issuer `{previous}`, whose documents are published too")
        }));
        Ok(fetched)
    }

    /// Polls, updates status and log, and returns the observation for the reconciler.
    ///
    /// # Errors
    ///
    /// As [`SourcePoller::fetch`]; status and log are updated already.
    pub async fn poll(&mut self, reconciler: &IssuerReconciler) -> Result<SourceObservation, PollError> {
        let fetched = self.fetch().await;
        let now = clock::now();
        let issuer = &reconciler.spec().terms.issuer;
        let matches = self.says.as_ref().and_then(|_| self.mints_as_it_should());
        reconciler.status().source(issuer, self.source.name(), |status| {
            status.up = fetched.is_ok();
            match &fetched {
                Ok(fetched) => {
                    status.last_success = Some(now);
                    status.error = None;
                    status.answers += 1;
                    status.keys = fetched.keys.len();
                    status.left_out = fetched.left_out.len();
                    status.issuer_matches = matches;
                }
                Err(error) => {
                    status.error = Some(error_line(error));
                    status.failures += 1;
                    if matches!(error, PollError::OtherIssuer { .. }) {
                        status.issuer_matches = Some(false);
                    }
                }
            }
        });
        match fetched {
            Ok(fetched) => {
                self.recovered(issuer);
                let notes: Vec<String> = fetched.warnings().collect();
                self.note(issuer, notes.clone());
                let kids = fetched.keys.iter().map(|key| key.kid().clone()).collect();
                let before = std::mem::replace(&mut self.kids, kids);
                if before != self.kids {
                    // A source that lists other keys may sign with another one.
                    self.probe_due = None;
                }
                let server_time = fetched.server_time;
                Ok(SourceObservation { answer: answer(fetched), server_time, notes })
            }
            Err(error) => {
                self.failed(issuer, &error);
                Err(error)
            }
        }
    }

    /// Once a minute, observes which key signs and whether relying parties can know it.
    pub async fn probe(&mut self, reconciler: &IssuerReconciler) {
        let Source::ApiServer(server) = &self.source else { return };
        if self.probe_due.is_some_and(|due| Instant::now() < due) {
            return;
        }
        if self.account.is_none() {
            // An error and a human user both mean that there is no service account to mint a token for.
            self.account = server.service_account().await.unwrap_or_default();
        }
        let Some(account) = &self.account else {
            self.probe_due = Some(Instant::now() + CHECK_EVERY);
            return;
        };
        let issuer = &reconciler.spec().terms.issuer;
        let probed = server.probe(account).await;
        let wait = if probed.is_ok() {
            CHECK_EVERY
        } else {
            *RETRY_PROBE.get(self.unprobed).unwrap_or(&CHECK_EVERY)
        };
        self.probe_due = Some(Instant::now() + wait);
        let kid = match probed {
            Ok(probe) => {
                self.unprobed = 0;
                self.check_minted_issuer(issuer, probe.issuer);
                probe.kid
            }
            Err(error) => {
                self.unprobed += 1;
                if self.unprobed == RETRY_PROBE.len() {
                    let (hint, error) = (error.hint(), error_line(&error));
                    let mut unseen = self.checks.unseen.lock().expect("nobody panics while holding it");
                    if unseen.as_ref() != Some(&error) {
                        warn!(%issuer, source = self.source.name(), error, hint, "cannot determine the \
                            signing key");
                        *unseen = Some(error);
                    }
                }
                return;
            }
        };
        let Some(kid) = kid else { return };
        let found = reconciler.signing_key(&kid);
        reconciler.status().source(issuer, self.source.name(), |status| {
            status.signs_with = Some(kid.as_str().to_owned());
            status.signing_key_public = Some(found.is_public());
            status.signing_key_ready = Some(found.is_ready());
            status.signing_key_ready_at = found.ready_at();
        });
        self.record_signing_key(issuer, (kid, found));
    }

    /// Logs changes in how far the signing key is known.
    fn record_signing_key(&mut self, issuer: &Issuer, found: (Kid, SigningKey)) {
        let (source, kid) = (self.source.name(), &found.0);
        for change in signing_key_changes(self.signing_key.as_ref(), &found) {
            match change {
                SigningKeyChange::Published => {
                    info!(%issuer, source, %kid, "the signing key is published");
                }
                SigningKeyChange::Ready => info!(%issuer, source, %kid, "the signing key is ready"),
                SigningKeyChange::NotPublic => {
                    error!(%issuer, source, %kid, "an API server signs with a key that is not published");
                }
                SigningKeyChange::NotReady { waits_for } => {
                    let why = waits_for.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
                    warn!(%issuer, source, %kid, why, "an API server signs with a key that is not ready");
                }
            }
        }
        self.signing_key = Some(found);
    }

    /// Whether the last minted token named the issuer; `None` if the operator allows another one.
    fn mints_as_it_should(&self) -> Option<bool> {
        self.checks.issuer.as_ref()?;
        Some(self.mints_as.as_deref().is_none_or(|named| self.checks.allow(named)))
    }

    /// Checks the issuer of a minted token, which is stronger evidence than a discovery document.
    fn check_minted_issuer(&mut self, issuer: &Issuer, minted: Option<String>) {
        let before = std::mem::replace(&mut self.mints_as, minted);
        if before != self.mints_as && self.mints_as_it_should() == Some(false) {
            let found = self.mints_as.as_deref();
            error!(%issuer, source = self.source.name(), found, "an API server issues tokens of another issuer");
        }
    }

    fn failed(&mut self, issuer: &Issuer, error: &PollError) {
        // A source that was away may come back with another key, or as another issuer.
        self.probe_due = None;
        self.unprobed = 0;
        self.issuer_checked = None;
        let text = error_line(error);
        if self.trouble.record_failure(&text) {
            let hint = error.hint();
            warn!(%issuer, source = self.source.name(), error = text, hint, "source failed, keeping its last \
                good keys");
        }
    }

    fn recovered(&mut self, issuer: &Issuer) {
        if let Some(failures) = self.trouble.record_success() {
            info!(%issuer, source = self.source.name(), failures, "source answers again");
        }
    }

    fn note(&mut self, issuer: &Issuer, notes: Vec<String>) {
        for note in notes.iter().filter(|note| !self.notes.contains(note)) {
            warn!(%issuer, source = self.source.name(), note, "source warning");
        }
        self.notes = notes;
    }
}

fn answer(Fetched { keys, left_out, statements: said, .. }: Fetched) -> SourceAnswer {
    said.map_or_else(|| SourceAnswer::of(keys, Unreadable::of(&left_out)), SourceAnswer::Announced)
}

/// Returns the issuer that the source names, if any.
async fn check_issuer(source: &Source, checks: &Checks) -> Result<Option<Issuer>, PollError> {
    let Some(expected) = &checks.issuer else { return Ok(None) };
    let name = || source.name().to_owned();
    let found = source.issuer().await.map_err(|source| PollError::Issuer { name: name(), source })?;
    let Some(found) = found else { return Ok(None) };
    let accepted =
        [expected].into_iter().chain(&checks.previous_issuers).find(|issuer| found == issuer.as_str());
    match accepted {
        Some(issuer) => Ok(Some(issuer.clone())),
        None => Err(PollError::OtherIssuer { name: name(), found, expected: expected.clone() }),
    }
}

/// Why a source gave no usable keys.
#[derive(Debug, thiserror::Error)]
pub enum PollError {
    #[error(transparent)]
    Fetch(#[from] FetchError),
    #[error("cannot read the issuer of source `{name}`")]
    Issuer { name: String, source: SourceError },
    #[error("source `{name}` has issuer `{found}`, expected `{expected}`")]
    OtherIssuer { name: String, found: String, expected: Issuer },
}

impl Hint for PollError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Fetch(error) => error.hint(),
            Self::Issuer { source, .. } => source.hint(),
            Self::OtherIssuer { expected, .. } => Some(format!(
                "correct `issuer`, or give kube-apiserver `--service-account-issuer={expected}` as the first, and \
                 keep the old one as the second: it issues for the first and accepts both. Relying parties \
                 compare every byte, a final `/` too"
            )),
        }
    }
}
