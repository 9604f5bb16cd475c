//! What a place should hold, decided on what it holds now.
//!
//! The decision rests on bytes that were read, never on what this process believes it wrote. A place
//! that another lineage owns is not touched, and a key that only the place knows stays there.

use std::collections::BTreeSet;

use super::{
    discovery::{InvalidDiscovery, ReceivedDiscovery},
    issuer::Issuer,
    jwk::Jwk,
    jwk_set::{InvalidJwks, Profile, ReceivedJwks},
    kid::Kid,
    ledger::{Ledger, Lineage},
    publication::{Document, MEDIA_TYPE, NothingToPublish, Publication, Terms},
};

/// What a place holds under the two paths.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    pub jwks: Option<Stored>,
    pub discovery: Option<Stored>,
}

impl Found {
    /// Whether there is any document, readable or not.
    #[must_use]
    pub fn is_something(&self) -> bool {
        self.jwks.is_some() || self.discovery.is_some()
    }

    /// What stands under the path of one document.
    #[must_use]
    pub fn get(&self, document: Document) -> Option<&Stored> {
        match document {
            Document::Jwks => self.jwks.as_ref(),
            Document::Discovery => self.discovery.as_ref(),
        }
    }
}

/// One object as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    pub bytes: Vec<u8>,
    /// Who wrote it, if it says.
    pub lineage: Option<Lineage>,
    /// `None` where the place cannot keep them, as a directory.
    pub headers: Option<Headers>,
}

/// The headers that a store sends along with an object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Headers {
    pub content_type: Option<String>,
    pub cache_control: Option<String>,
}

/// What the place should hold, and what has to be written for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placement {
    pub publication: Publication,
    /// Keys that only this place knows; part of its publication.
    pub strangers: Vec<Jwk>,
    /// What differs, in the order in which it must be written.
    pub writes: Vec<Document>,
}

/// Decides what a place should hold.
///
/// `terms` are those of the ledger's issuer or of a former one. `adopt` is the operator's word that the place
/// belongs to this ledger whatever it says.
///
/// # Errors
///
/// Fails when the place belongs to somebody else, or when nothing can be published there.
pub fn decide(
    found: &Found,
    ledger: &Ledger,
    terms: &Terms,
    profile: Profile,
    adopt: bool,
) -> Result<Placement, Refused> {
    if !adopt {
        refuse_strange_owner(found, ledger, &terms.issuer)?;
    }
    let strangers = strangers(found, ledger, profile);
    let keys = ledger.public_keys().chain(&strangers).cloned();
    let publication = Publication::render(terms, profile, keys)?;
    let writes = Document::IN_WRITE_ORDER
        .into_iter()
        .filter(|document| !is_true(found.get(*document), &publication, *document, ledger.lineage()))
        .collect();
    Ok(Placement { publication, strangers, writes })
}

fn refuse_strange_owner(found: &Found, ledger: &Ledger, issuer: &Issuer) -> Result<(), Refused> {
    for stored in Document::IN_WRITE_ORDER.into_iter().filter_map(|document| found.get(document)) {
        if let Some(owner) = stored.lineage.as_ref().filter(|owner| *owner != ledger.lineage()) {
            return Err(Refused::OtherLineage { owner: owner.clone(), ours: ledger.lineage().clone() });
        }
    }
    // Without an owner it was uploaded by hand: taken over when it is about the same issuer.
    let by_hand = found.discovery.as_ref().filter(|stored| stored.lineage.is_none());
    match by_hand.and_then(|stored| ReceivedDiscovery::parse(&stored.bytes).ok()) {
        Some(document) if document.issuer != issuer.as_str() => {
            Err(Refused::OtherIssuer { found: document.issuer, ours: issuer.clone() })
        }
        _ => Ok(()),
    }
}

/// The keys of a stored JWKS that this ledger has never heard of.
///
/// A JWKS that cannot be read has none: it is of no use to a relying party either.
fn strangers(found: &Found, ledger: &Ledger, profile: Profile) -> Vec<Jwk> {
    let received = found.jwks.as_ref().and_then(|stored| ReceivedJwks::parse(&stored.bytes).ok());
    let mut strangers = received.map_or_else(Vec::new, |received| received.keys);
    strangers.retain(|key| profile.includes(key) && ledger.key(key.kid()).is_none());
    strangers
}

/// The keys that whoever reads these documents can verify with. One whose algorithm the discovery document does not
/// name yet is none of them: some readers keep that list, and refuse what is not on it.
///
/// # Errors
///
/// Fails when one of them is not a document of this issuer.
pub fn kids_shown(jwks: &[u8], discovery: &[u8], issuer: &Issuer) -> Result<BTreeSet<Kid>, NotOurs> {
    let seen = ReceivedJwks::parse(jwks)?;
    let named = ReceivedDiscovery::parse(discovery)?;
    if named.issuer != issuer.as_str() {
        return Err(NotOurs::OtherIssuer { found: named.issuer, ours: issuer.clone() });
    }
    let algorithms = named.id_token_signing_alg_values_supported;
    let is_named = |key: &&Jwk| algorithms.iter().any(|named| named == key.algorithm().name());
    Ok(seen.keys.iter().filter(is_named).map(|key| key.kid().clone()).collect())
}

fn is_true(stored: Option<&Stored>, publication: &Publication, document: Document, ours: &Lineage) -> bool {
    stored.is_some_and(|stored| {
        let headers = stored.headers.as_ref().is_none_or(|headers| {
            headers.content_type.as_deref() == Some(MEDIA_TYPE)
                && headers.cache_control.as_deref() == Some(publication.cache_control().as_str())
        });
        stored.bytes == *publication.bytes(document) && stored.lineage.as_ref() == Some(ours) && headers
    })
}

/// Nothing may be written to the place.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum Refused {
    #[error("it belongs to lineage `{owner}`, this ledger is lineage `{ours}`")]
    OtherLineage { owner: Lineage, ours: Lineage },
    #[error("it holds the discovery document of issuer `{found}`, expected `{ours}`")]
    OtherIssuer { found: String, ours: Issuer },
    #[error(transparent)]
    Nothing(#[from] NothingToPublish),
}

/// What is shown are not the documents of this issuer.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum NotOurs {
    #[error(transparent)]
    Jwks(#[from] InvalidJwks),
    #[error(transparent)]
    Discovery(#[from] InvalidDiscovery),
    #[error("it names issuer `{found}`, expected `{ours}`")]
    OtherIssuer { found: String, ours: Issuer },
}

impl NotOurs {
    /// Which of the two it is.
    #[must_use]
    pub fn document(&self) -> Document {
        match self {
            Self::Jwks(_) => Document::Jwks,
            Self::Discovery(_) | Self::OtherIssuer { .. } => Document::Discovery,
        }
    }
}

#[cfg(test)]
mod tests;
