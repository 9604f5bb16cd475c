//! Makes one target show the publication: look, decide, write on condition, look again.

use std::{collections::BTreeSet, error::Error, sync::Arc};

use super::keeper::Keeper;
use crate::{
    clock,
    core::{
        freshness::Freshness,
        jwk::Jwk,
        jwk_set::Profile,
        kid::Kid,
        ledger::{Ledger, Look},
        placement::{Placement, Refused, decide, kids_shown},
        publication::{Document, Publication, Terms},
    },
    store::StoreError,
    target::{Owner, Reading, Shown, Target, TargetError, Versions, WriteError},
};

/// How often a lost race is run again before the next pass gets its chance: two writers that both
/// retry settle in two rounds, more means that somebody writes without looking.
const ROUNDS: u32 = 5;

/// A target and what it was last seen to hold.
pub struct Placer {
    target: Target,
    role: Role,
    terms: Terms,
    verified: Option<Verified>,
    /// What a look found, until something is decided on it.
    looked: Option<Reading>,
}

/// What a target is to its issuer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Role {
    /// Which keys it is given.
    pub profile: Profile,
    /// Whether a key must be shown there before it may sign.
    pub gates: bool,
    /// Take over what another lineage owns: the operator's word.
    pub adopt: bool,
}

/// Bytes that were read, and the versions under which they were.
struct Verified {
    versions: Versions,
    placement: Placement,
    /// What stood there before.
    found: Versions,
}

/// What a look at a target came to.
#[derive(Clone, Debug)]
pub struct Placed {
    /// The documents that were written.
    pub wrote: Vec<Document>,
    /// What relying parties find there.
    pub look: Look,
    /// Keys that only this target knows.
    pub strangers: Vec<Jwk>,
    pub public: PublicView,
    /// The longest that relying parties may keep the JWKS that they get at a public address of it.
    pub kept: Option<Freshness>,
}

/// What relying parties see at the public addresses of a target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PublicView {
    NotConfigured,
    /// The publication, byte for byte.
    True,
    /// An older publication of the same issuer: a cache on the way.
    Behind,
}

impl Placer {
    #[must_use]
    pub fn new(target: Target, role: Role, terms: Terms) -> Self {
        Self { target, role, terms, verified: None, looked: None }
    }

    #[must_use]
    pub fn name(&self) -> &str {
        self.target.name()
    }

    /// Whether a key must be shown there before it may sign.
    #[must_use]
    pub fn gates(&self) -> bool {
        self.role.gates
    }

    /// What the target holds and what it says of who wrote it. What follows rests on this look.
    ///
    /// # Errors
    ///
    /// Fails when the target cannot be read.
    pub async fn look(&mut self) -> Result<Reading, TargetError> {
        let reading = self.target.read().await?;
        self.looked = Some(reading.clone());
        Ok(reading)
    }

    /// What would be written, and on what that rests.
    ///
    /// # Errors
    ///
    /// Fails when the target cannot be read or belongs to somebody else.
    pub async fn plan(&self, ledger: &Ledger) -> Result<(Reading, Placement), PlaceError> {
        let reading = match &self.looked {
            Some(reading) => reading.clone(),
            None => self.target.read().await?,
        };
        let placement = decide(&reading.found, ledger, &self.terms, self.role.profile, self.role.adopt)
            .map_err(|source| PlaceError::Refused { target: self.name().to_owned(), source })?;
        Ok((reading, placement))
    }

    /// Makes the target show what follows from the ledger; costs one `HEAD` per document when it does
    /// already.
    ///
    /// # Errors
    ///
    /// Fails when the target cannot be read or written, belongs to somebody else, or shows relying
    /// parties something else.
    pub async fn place(&mut self, ledger: &Ledger) -> Result<Placed, PlaceError> {
        let mut wrote = Vec::new();
        if !self.is_quiet(ledger).await? {
            self.verified = None;
            self.verified = Some(self.settle(ledger, &mut wrote).await?);
        }
        let verified = self.verified.as_ref().expect("settled or quiet");
        let (public, view, kept) = self.look_from_outside(&verified.placement.publication).await?;
        let found = if wrote.is_empty() { &verified.versions } else { &verified.found };
        let look = Look { view, found: Some(found.mark()), left: Some(verified.versions.mark()) };
        Ok(Placed { wrote, look, strangers: verified.placement.strangers.clone(), public, kept })
    }

    /// Whether nobody wrote since the bytes were read, and the same bytes are wanted.
    async fn is_quiet(&self, ledger: &Ledger) -> Result<bool, PlaceError> {
        let Some(verified) = &self.verified else { return Ok(false) };
        // One that is known by now, as it was adopted or revoked, is none any more.
        let mut strangers = verified.placement.strangers.iter();
        if strangers.any(|key| ledger.key(key.kid()).is_some()) {
            return Ok(false);
        }
        let keys = ledger.public_keys().chain(&verified.placement.strangers).cloned();
        let wanted = Publication::render(&self.terms, self.role.profile, keys);
        if wanted.as_ref() != Ok(&verified.placement.publication) {
            return Ok(false);
        }
        Ok(self.target.versions().await? == verified.versions)
    }

    async fn settle(&mut self, ledger: &Ledger, wrote: &mut Vec<Document>) -> Result<Verified, PlaceError> {
        let owner = Owner { lineage: ledger.lineage().clone(), sequence: ledger.sequence() };
        let mut lost = None;
        for _ in 0..ROUNDS {
            let planned = self.plan(ledger).await;
            self.looked = None;
            let (reading, placement) = planned?;
            if let Some(sequence) = reading.later_than(ledger) {
                let (target, ledger) = (self.name().to_owned(), ledger.sequence());
                return Err(PlaceError::Ahead { target, sequence, ledger });
            }
            match self.write(&reading, &placement, &owner, wrote).await {
                Ok(versions) => return Ok(Verified { versions, placement, found: reading.versions }),
                Err(race @ WriteError::LostRace { .. }) => lost = Some(race),
                Err(WriteError::Failed(error)) => return Err(error.into()),
            }
        }
        Err(PlaceError::Race(lost.expect("every round lost one")))
    }

    async fn write(
        &self,
        reading: &Reading,
        placement: &Placement,
        owner: &Owner,
        wrote: &mut Vec<Document>,
    ) -> Result<Versions, WriteError> {
        let mut versions = reading.versions.clone();
        for document in placement.writes.iter().copied() {
            let expected = reading.versions.get(document);
            let version = self.target.write(document, &placement.publication, owner, expected).await?;
            wrote.push(document);
            match document {
                Document::Jwks => versions.jwks = Some(version),
                Document::Discovery => versions.discovery = Some(version),
            }
        }
        Ok(versions)
    }

    /// What all public addresses show: a key that one of them lacks is not public.
    async fn look_from_outside(
        &self,
        publication: &Publication,
    ) -> Result<(PublicView, BTreeSet<Kid>, Option<Freshness>), PlaceError> {
        let all = || publication.keys().kids().cloned().collect();
        let mut public = PublicView::NotConfigured;
        let mut view: Option<BTreeSet<Kid>> = None;
        let mut kept = None;
        for shown in self.target.read_public(publication).await? {
            let is_true = shown.jwks == publication.bytes(Document::Jwks)
                && shown.discovery == publication.bytes(Document::Discovery);
            let kids = if is_true { all() } else { self.older(&shown)? };
            public =
                if is_true && public != PublicView::Behind { PublicView::True } else { PublicView::Behind };
            view = Some(view.map_or_else(|| kids.clone(), |view| &view & &kids));
            kept = kept.into_iter().chain([shown.cache.longest(clock::now())]).max_by_key(|it| it.lifetime);
        }
        Ok((public, view.unwrap_or_else(all), kept))
    }

    /// The kids of an older publication of this issuer.
    fn older(&self, shown: &Shown) -> Result<BTreeSet<Kid>, PlaceError> {
        kids_shown(&shown.jwks, &shown.discovery, &self.terms.issuer).map_err(|wrong| PlaceError::Outside {
            target: self.name().to_owned(),
            document: wrong.document().path(),
            source: wrong.into(),
        })
    }
}

/// Makes a target show what follows from the stored ledger: a target that was written from a later change
/// than `ledger` is at is left alone until the ledger was read anew.
///
/// # Errors
///
/// As [`Placer::place`], and when the ledger cannot be read.
pub async fn place_current(
    placer: &mut Placer,
    keeper: &Keeper,
    ledger: &Arc<Ledger>,
) -> Result<Placed, PlaceError> {
    let mut ledger = Arc::clone(ledger);
    for _ in 1..ROUNDS {
        match placer.place(&ledger).await {
            Err(PlaceError::Ahead { target, sequence, .. }) => {
                let read = keeper.witnessed(&target, sequence).await;
                ledger = read.map_err(|source| PlaceError::Ledger { target, source: Box::new(source) })?;
            }
            placed => {
                if matches!(placed, Ok(_) | Err(PlaceError::Refused { .. })) {
                    keeper.looked_at(placer.name());
                }
                return placed;
            }
        }
    }
    placer.place(&ledger).await
}

/// A target does not show the publication.
#[derive(Debug, thiserror::Error)]
pub enum PlaceError {
    #[error(transparent)]
    Target(#[from] TargetError),
    /// It was written from a later change of the ledger: [`place_current`] reads that anew.
    #[error(
        "target `{target}` was written from change {sequence} of the ledger, which is at change {ledger}"
    )]
    Ahead { target: String, sequence: u64, ledger: u64 },
    #[error("target `{target}` was written from a later ledger, which cannot be read")]
    Ledger { target: String, source: Box<StoreError> },
    #[error("cannot publish to target `{target}`")]
    Refused { target: String, source: Refused },
    #[error("gave up after {ROUNDS} rounds")]
    Race(#[source] WriteError),
    #[error("relying parties get a wrong `{document}` from target `{target}`")]
    Outside { target: String, document: &'static str, source: Box<dyn Error + Send + Sync> },
}

impl PlaceError {
    /// What the operator can do.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Target(error) => error.hint(),
            Self::Ledger { source, .. } => source.hint(),
            Self::Refused { source: Refused::OtherLineage { .. }, .. } => Some(
                "use the data directory that published before; if its ledger is lost, run `signpost sync --adopt`; \
                 if somebody else publishes there, choose another place"
                    .to_owned(),
            ),
            Self::Refused { source: Refused::OtherIssuer { .. }, .. } => Some(
                "correct `issuer`, publish somewhere else, or take the place over with `signpost sync --adopt`"
                    .to_owned(),
            ),
            Self::Refused { source: Refused::Nothing(nothing), .. } => Some(nothing.hint().to_owned()),
            Self::Ahead { .. } | Self::Race(_) => Some("find out who else writes to this target, and stop it".to_owned()),
            Self::Outside { .. } => Some(
                "make `public_url`, or with `anonymous: true` the address of the store itself, lead to this very \
                 target"
                    .to_owned(),
            ),
        }
    }
}
