//! Syncs one target with the publication: read, decide, write on condition, read again.

use std::{collections::BTreeSet, error::Error, path::PathBuf, sync::Arc};

use super::issuer::{IssuerReconciler, Observation};
use crate::{
    clock,
    core::{
        freshness::Freshness,
        jose::{
            issuer::is_readable_url,
            jwk::Jwk,
            jwk_set::{Profile, ReceivedJwks},
            kid::Kid,
            publication::{Document, Publication, Terms},
        },
        ledger::{Ledger, TargetObservation},
        target_plan::{
            Deviation, OtherJwks, TargetPlan, WriteRefused, decide, deviation, kids_shown, other_jwks,
        },
        text::{Hint, redaction::error_line},
        verification::DocumentEvidence,
    },
    relying_party::{Reach, RelyingParty},
    store::StoreError,
    target::{Owner, PublicCopy, Reading, Target, TargetError, Versions, WriteError},
};

/// Rounds after a lost race before the next sync: two writers that both retry settle in two rounds; more
/// means that somebody writes without a condition.
const ROUNDS: u32 = 5;

/// A target, and its last observed state.
pub struct TargetReconciler {
    target: Target,
    role: Role,
    terms: Terms,
    verified: Option<Verified>,
    /// The last read, until a plan uses it.
    last_reading: Option<Reading>,
}

/// The role of a target for its issuer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Role {
    /// The keys that it gets.
    pub profile: Profile,
    /// Whether it must show a key before the key may sign.
    pub required_for_rotation: bool,
    /// Take the target over from another lineage, by the operator's command.
    pub adopt: bool,
    /// The addresses that may be reached to read the JWKS that is taken over.
    pub reach: Reach,
    /// CA certificates that are trusted for that, besides those of the system.
    pub ca_file: Option<PathBuf>,
}

/// The bytes that were read, and their versions.
struct Verified {
    versions: Versions,
    plan: TargetPlan,
    /// The versions before the last write.
    found: Versions,
    /// How the target deviated before the last write.
    deviations: Vec<(Document, Deviation)>,
}

/// What has changed since the bytes were read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ChangedSince {
    Nothing,
    /// Another writer has changed the target.
    Edited,
    /// The publication has changed, or nothing was read yet.
    Wanted,
}

/// The result of syncing a target.
#[derive(Clone, Debug)]
pub struct SyncResult {
    /// The documents that were written.
    pub wrote: Vec<Document>,
    /// What relying parties find there.
    pub observation: TargetObservation,
    /// The unmanaged keys of this target.
    pub unmanaged_keys: Vec<Jwk>,
    /// The previous address of the JWKS, if it was moved.
    pub moved_from: Option<String>,
    /// The changes of another writer that were repaired.
    pub repaired: Vec<(Document, Deviation)>,
    pub public: PublicView,
    /// The longest time that relying parties may cache the JWKS from one of its public addresses.
    pub cache_lifetime: Option<Freshness>,
    /// The documents that are not served as JSON, with the media type of each.
    pub mistyped: Vec<(Document, String)>,
}

impl SyncResult {
    /// What is observed of the target with this name.
    #[must_use]
    pub fn observed<'a>(&'a self, target: &'a str) -> Observation<'a> {
        let Self { observation, unmanaged_keys, cache_lifetime, .. } = self;
        Observation::Target { target, observation, unmanaged_keys, cache_lifetime: *cache_lifetime }
    }
}

/// The view at all public addresses of a target.
struct PublicCopies {
    public: PublicView,
    view: BTreeSet<Kid>,
    kept: Option<Freshness>,
    mistyped: Vec<(Document, String)>,
}

/// What relying parties get at the public addresses of a target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PublicView {
    NotConfigured,
    /// The publication, byte for byte.
    InSync,
    /// An older publication of the same issuer: a cache in between.
    Stale,
}

impl TargetReconciler {
    #[must_use]
    pub fn new(target: Target, role: Role, terms: Terms) -> Self {
        Self { target, role, terms, verified: None, last_reading: None }
    }

    #[must_use]
    pub fn name(&self) -> &str {
        self.target.name()
    }

    /// Whether it must show a key before the key may sign.
    #[must_use]
    pub fn required_for_rotation(&self) -> bool {
        self.role.required_for_rotation
    }

    /// Reads the target with its ownership metadata. The next plan uses this reading.
    ///
    /// # Errors
    ///
    /// Fails if the target cannot be read.
    pub async fn read(&mut self) -> Result<Reading, TargetError> {
        let reading = self.target.read().await?;
        self.last_reading = Some(reading.clone());
        Ok(reading)
    }

    /// Plans what would be written; returns it with the reading that it is based on.
    ///
    /// # Errors
    ///
    /// Fails if the target cannot be read, or belongs to another owner.
    pub async fn plan(&self, ledger: &Ledger) -> Result<(Reading, TargetPlan), SyncError> {
        let mut reading = match &self.last_reading {
            Some(reading) => reading.clone(),
            None => self.target.read().await?,
        };
        if let Some(uri) = other_jwks(&reading.found, ledger, &self.terms) {
            let bytes = self.read_other(&uri).await;
            reading.found.other = Some(OtherJwks { uri, bytes });
        }
        let plan = decide(&reading.found, ledger, &self.terms, self.role.profile, self.role.adopt)
            .map_err(|source| SyncError::Refused { target: self.name().to_owned(), source })?;
        Ok((reading, plan))
    }

    /// Reads a JWKS at another address than ours: from the target itself if the address leads there, else as
    /// a relying party does.
    async fn read_other(&self, uri: &str) -> Result<Vec<u8>, String> {
        let at_target = match self.target.read_at(uri, &self.terms.issuer).await {
            Ok(Some(bytes)) => return Ok(bytes),
            Ok(None) => None,
            Err(error) => Some(error_line(&error)),
        };
        // An error of the target itself is more useful than that of its readers.
        self.fetch_other(uri).await.map_err(|reason| at_target.unwrap_or(reason))
    }

    async fn fetch_other(&self, uri: &str) -> Result<Vec<u8>, String> {
        if !is_readable_url(uri) {
            return Err("expected an https URL".to_owned());
        }
        let relying_party = RelyingParty::new(self.role.reach.clone(), None, self.role.ca_file.clone())
            .await
            .map_err(|error| error_line(&error))?;
        match relying_party.read(uri).await {
            DocumentEvidence::Answer(answer) if answer.status == 200 => Ok(answer.bytes),
            DocumentEvidence::Answer(answer) => Err(format!("status {}", answer.status)),
            DocumentEvidence::NoAnswer(none) => Err(none.why.to_string()),
            DocumentEvidence::NotSought | DocumentEvidence::File { .. } => Err("nobody asked".to_owned()),
        }
    }

    /// Syncs the target with the ledger; costs one `HEAD` per document if it is in sync.
    ///
    /// # Errors
    ///
    /// Fails if the target cannot be read or written, belongs to another owner, or shows relying parties
    /// something else.
    pub async fn sync(&mut self, ledger: &Ledger) -> Result<SyncResult, SyncError> {
        let mut wrote = Vec::new();
        let since = self.since(ledger).await?;
        if since != ChangedSince::Nothing {
            self.verified = None;
            self.verified = Some(self.write_until_settled(ledger, &mut wrote).await?);
        }
        let verified = self.verified.as_ref().expect("settled or quiet");
        let PublicCopies { public, view, kept, mistyped } =
            self.read_public_copies(&verified.plan.publication).await?;
        let found = if wrote.is_empty() { &verified.versions } else { &verified.found };
        let look = TargetObservation {
            view,
            revision_found: Some(found.mark()),
            revision_after: Some(verified.versions.mark()),
        };
        let repaired = match since {
            ChangedSince::Edited if !wrote.is_empty() => verified.deviations.clone(),
            _ => Vec::new(),
        };
        let moved_from = verified.plan.moved_from.clone().filter(|_| !wrote.is_empty());
        Ok(SyncResult {
            wrote,
            observation: look,
            unmanaged_keys: verified.plan.unmanaged_keys.clone(),
            moved_from,
            repaired,
            public,
            cache_lifetime: kept,
            mistyped,
        })
    }

    /// What has changed since the bytes were read: the publication, the target, or nothing.
    async fn since(&self, ledger: &Ledger) -> Result<ChangedSince, SyncError> {
        let Some(verified) = &self.verified else { return Ok(ChangedSince::Wanted) };
        // A key that was adopted or revoked since is no longer unmanaged.
        let mut unmanaged_keys = verified.plan.unmanaged_keys.iter();
        if unmanaged_keys.any(|key| ledger.key(key.kid()).is_some()) {
            return Ok(ChangedSince::Wanted);
        }
        let keys = ledger.public_keys().chain(&verified.plan.unmanaged_keys).cloned();
        let wanted = Publication::render(&self.terms, self.role.profile, keys);
        if wanted.as_ref() != Ok(&verified.plan.publication) {
            return Ok(ChangedSince::Wanted);
        }
        let is_same = self.target.versions().await? == verified.versions;
        Ok(if is_same { ChangedSince::Nothing } else { ChangedSince::Edited })
    }

    async fn write_until_settled(
        &mut self,
        ledger: &Ledger,
        wrote: &mut Vec<Document>,
    ) -> Result<Verified, SyncError> {
        let owner = Owner { lineage: ledger.lineage().clone(), sequence: ledger.sequence() };
        let mut lost = None;
        for _ in 0..ROUNDS {
            let planned = self.plan(ledger).await;
            self.last_reading = None;
            let (reading, plan) = planned?;
            if let Some(sequence) = reading.newer_sequence(ledger) {
                let (target, ledger) = (self.name().to_owned(), ledger.sequence());
                return Err(SyncError::Ahead { target, sequence, ledger });
            }
            let is_public = self.keep_public(&reading, &plan).await?;
            match self.write(&reading, &plan, &owner, is_public, wrote).await {
                Ok(versions) => {
                    let differs = |document: &Document| {
                        let lineage = ledger.lineage();
                        Some((*document, deviation(&reading.found, &plan.publication, *document, lineage)?))
                    };
                    let deviations = plan.writes.iter().filter_map(differs).collect();
                    return Ok(Verified { versions, plan, found: reading.versions, deviations });
                }
                Err(SyncError::Race(race)) => lost = Some(race),
                Err(error) => return Err(error),
            }
        }
        Err(SyncError::Race(lost.expect("every round lost one")))
    }

    /// Refuses a write that would make a publicly readable document unreadable: an access right set on the
    /// object itself is lost when it is replaced. Returns whether readers use a document there that Signpost
    /// has not written.
    async fn keep_public(&mut self, reading: &Reading, plan: &TargetPlan) -> Result<bool, SyncError> {
        let mut is_made_by_hand = false;
        for document in plan.writes.iter().copied() {
            let Some(stored) = reading.found.get(document) else { continue };
            // If the check is not permitted, assume that relying parties do not read there.
            if !self.target.has_public_object_acl(document).await.unwrap_or_default() {
                continue;
            }
            self.target.expect_readers_at_store();
            // An object written by Signpost has no access right of its own, unless one was set since: its
            // loss is noticed at once.
            if stored.lineage.is_none() && !self.role.adopt {
                is_made_by_hand = true;
                if !self.target.is_public_beside(document).await? {
                    return Err(self.hidden(document));
                }
            }
        }
        Ok(is_made_by_hand)
    }

    fn path(&self, document: Document) -> String {
        self.terms.paths().of(document).to_owned()
    }

    fn hidden(&self, document: Document) -> SyncError {
        let (target, document) = (self.name().to_owned(), self.path(document));
        SyncError::Hidden { target, document, publicity: self.target.public_access_hint() }
    }

    /// If `is_public`, fails before the discovery document would name a JWKS that nobody can read.
    async fn write(
        &self,
        reading: &Reading,
        plan: &TargetPlan,
        owner: &Owner,
        is_public: bool,
        wrote: &mut Vec<Document>,
    ) -> Result<Versions, SyncError> {
        let mut versions = reading.versions.clone();
        for document in plan.writes.iter().copied() {
            let sends = is_public && document == Document::Discovery;
            if sends && !self.target.has_public_object_acl(Document::Jwks).await? {
                return Err(self.hidden(Document::Jwks));
            }
            let expected = reading.versions.get(document);
            let written = self.target.write(document, &plan.publication, owner, expected).await;
            let version = written.map_err(|error| match error {
                WriteError::Failed(error) => SyncError::Target(error),
                race @ WriteError::LostRace { .. } => SyncError::Race(race),
            })?;
            wrote.push(document);
            match document {
                Document::Jwks => versions.jwks = Some(version),
                Document::Discovery => versions.discovery = Some(version),
            }
        }
        Ok(versions)
    }

    /// Reads all public addresses: a key that one of them lacks is not public.
    async fn read_public_copies(&self, publication: &Publication) -> Result<PublicCopies, SyncError> {
        let all = || publication.keys().kids().cloned().collect();
        let mut public = PublicView::NotConfigured;
        let mut view: Option<BTreeSet<Kid>> = None;
        let mut kept = None;
        let mut mistyped = Vec::new();
        for shown in self.target.read_public(publication).await? {
            let jwks_is_true = shown.jwks == publication.bytes(Document::Jwks)
                || self.terms.jwks_elsewhere().is_some() && holds_all(&shown.jwks, publication);
            let is_true = jwks_is_true && shown.discovery == publication.bytes(Document::Discovery);
            let kids = if is_true { all() } else { self.older(&shown)? };
            public =
                if is_true && public != PublicView::Stale { PublicView::InSync } else { PublicView::Stale };
            view = Some(view.map_or_else(|| kids.clone(), |view| &view & &kids));
            kept = kept.into_iter().chain([shown.cache.longest(clock::now())]).max_by_key(|it| it.lifetime);
            mistyped.extend(shown.mistyped);
        }
        Ok(PublicCopies { public, view: view.unwrap_or_else(all), kept, mistyped })
    }

    /// The kids of an older publication of this issuer.
    fn older(&self, shown: &PublicCopy) -> Result<BTreeSet<Kid>, SyncError> {
        kids_shown(&shown.jwks, &shown.discovery, &self.terms.issuer).map_err(|wrong| SyncError::Outside {
            target: self.name().to_owned(),
            document: self.path(wrong.document()),
            source: wrong.into(),
        })
    }
}

/// Whether a JWKS has every key, in any serialization: another writer may have made it.
fn holds_all(jwks: &[u8], publication: &Publication) -> bool {
    ReceivedJwks::parse(jwks).is_ok_and(|jwks| publication.keys().iter().all(|key| jwks.keys.contains(key)))
}

/// Syncs a target with the stored ledger. If the target was written from a later change than that of
/// `ledger`, the ledger is read again first.
///
/// # Errors
///
/// As [`TargetReconciler::sync`], and if the ledger cannot be read.
pub async fn sync_current(
    target_reconciler: &mut TargetReconciler,
    reconciler: &IssuerReconciler,
    ledger: &Arc<Ledger>,
) -> Result<SyncResult, SyncError> {
    let mut ledger = Arc::clone(ledger);
    for _ in 1..ROUNDS {
        match target_reconciler.sync(&ledger).await {
            Err(SyncError::Ahead { target, sequence, .. }) => {
                let read = reconciler.observe(Observation::LaterRevision { target: &target, sequence }).await;
                read.map_err(|source| SyncError::Ledger { target, source: Box::new(source) })?;
                ledger = reconciler.ledger().borrow().clone();
            }
            synced => {
                if matches!(synced, Ok(_) | Err(SyncError::Refused { .. })) {
                    reconciler.target_read(target_reconciler.name());
                }
                return synced;
            }
        }
    }
    target_reconciler.sync(&ledger).await
}

/// The target could not be synced.
#[derive(Debug, thiserror::Error)]
pub enum SyncError {
    #[error(transparent)]
    Target(#[from] TargetError),
    /// It was written from a later change of the ledger: [`sync_current`] reads the ledger again.
    #[error(
        "target `{target}` was written from revision {sequence} of the ledger, which is at revision {ledger}"
    )]
    Ahead { target: String, sequence: u64, ledger: u64 },
    #[error("target `{target}` was written from a later ledger, which cannot be read")]
    Ledger { target: String, source: Box<StoreError> },
    #[error("cannot publish to target `{target}`")]
    Refused { target: String, source: WriteRefused },
    #[error(
        "target `{target}` is read publicly from the store, and `{document}` would no longer be public once \
         it is replaced"
    )]
    Hidden { target: String, document: String, publicity: Option<String> },
    #[error("gave up after {ROUNDS} rounds")]
    Race(#[source] WriteError),
    #[error("relying parties get a wrong `{document}` from target `{target}`")]
    Outside { target: String, document: String, source: Box<dyn Error + Send + Sync> },
}

impl Hint for SyncError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Target(error) => error.hint(),
            Self::Ledger { source, .. } => source.hint(),
            Self::Refused { source: WriteRefused::OtherLineage { .. }, .. } => Some(
                "use the data directory that published before; if its ledger is lost, run `signpost sync \
                 --adopt`; if another publisher writes there, choose another target"
                    .to_owned(),
            ),
            Self::Refused { source: WriteRefused::OtherIssuer { .. }, .. } => Some(
                "correct `issuer`, publish to another target, or take this one over with `signpost sync --adopt`"
                    .to_owned(),
            ),
            Self::Refused { source: WriteRefused::Unreadable { what, .. }, .. } => Some(format!(
                "make `{what}` readable, so that its keys stay public; if they are no longer needed, take \
                 the target over without them: `signpost sync --adopt`"
            )),
            Self::Refused { source: WriteRefused::TrustsOtherIssuer { .. }, .. } => {
                Some("correct `issuer`, or name the provider that trusts this issuer".to_owned())
            }
            Self::Refused { source: WriteRefused::UnreadableTrust(_), .. } => {
                Some("correct it there, or replace it: `signpost sync --adopt`".to_owned())
            }
            Self::Refused { source: WriteRefused::Losses { .. } | WriteRefused::TrustLost { .. }, .. } => Some(
                "keys of other kinds than RS256 are published with `profile: all`; for keys that are not \
                 RSA, P-256, P-384 or P-521, and for another key under a kid of yours, wait until their last \
                 tokens have expired; `signpost sync --adopt` continues without them"
                    .to_owned(),
            ),
            Self::Refused { source: WriteRefused::Nothing(nothing), .. } => nothing.hint(),
            Self::Hidden { publicity, .. } => publicity.as_ref().map(|publicity| {
                format!(
                    "{publicity}: the permissions of an object are lost when it is replaced; if the policy \
                     of the bucket names these objects, take the target over with `signpost sync --adopt`"
                )
            }),
            Self::Ahead { .. } | Self::Race(_) => Some("find out who else writes to this target, and stop it".to_owned()),
            Self::Outside { .. } => Some(
                "make `public_url`, or with `anonymous: true` the address of the store itself, lead to this target"
                    .to_owned(),
            ),
        }
    }
}
