//! Plans what a target should hold, based on what it holds now.
//!
//! The decision rests on bytes that were read, never on what this process believes it wrote. A target that
//! another lineage owns is not changed, and an unmanaged key stays in it. A target without an owner is taken
//! over with every key that its readers find there: also those of another JWKS to which its discovery
//! document points.

use std::collections::BTreeSet;

use url::Url;

use super::{
    jose::{
        discovery::{InvalidDiscovery, ReceivedDiscovery},
        issuer::Issuer,
        json,
        jwk::Jwk,
        jwk_set::{InvalidJwks, Profile, ReceivedJwks},
        kid::Kid,
        publication::{Document, MEDIA_TYPE, NothingToPublish, Publication, Terms},
    },
    ledger::{Ledger, Lineage},
    text::redaction::brief,
};

/// The contents of a target at its two paths.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TargetContents {
    pub jwks: Option<Stored>,
    pub discovery: Option<Stored>,
    /// The JWKS that [`other_jwks`] names.
    pub other: Option<OtherJwks>,
    /// The issuer whose tokens are verified with the JWKS, if a relying party keeps it itself. Such a target has no
    /// discovery document, and neither headers nor an owner.
    pub trusted_issuer: Option<String>,
}

/// The JWKS that the discovery document of a target points to, if that is not ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OtherJwks {
    pub uri: String,
    /// Its bytes, or why they cannot be read.
    pub bytes: Result<Vec<u8>, String>,
}

impl TargetContents {
    /// Whether there is any document, readable or not.
    #[must_use]
    pub fn has_documents(&self) -> bool {
        self.jwks.is_some() || self.discovery.is_some()
    }

    /// The documents that belong there, in the order in which they must be written.
    fn documents(&self) -> &'static [Document] {
        let documents = Document::IN_WRITE_ORDER.as_slice();
        if self.trusted_issuer.is_some() { &documents[..1] } else { documents }
    }

    /// The object at the path of one document.
    #[must_use]
    pub fn get(&self, document: Document) -> Option<&Stored> {
        match document {
            Document::Jwks => self.jwks.as_ref(),
            Document::Discovery => self.discovery.as_ref(),
        }
    }
}

/// An object as read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    pub bytes: Vec<u8>,
    /// The lineage that wrote it, if recorded.
    pub lineage: Option<Lineage>,
    /// `None` if the target cannot store headers, such as a directory.
    pub headers: Option<Headers>,
}

/// The headers that a store serves with an object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Headers {
    pub content_type: Option<String>,
    pub cache_control: Option<String>,
}

/// The desired contents of a target, and the writes that lead there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TargetPlan {
    pub publication: Publication,
    /// The unmanaged keys of this target; part of its publication.
    pub unmanaged_keys: Vec<Jwk>,
    /// The previous address of the JWKS, if it moves.
    pub moved_from: Option<String>,
    /// The documents that differ, in the order in which they must be written.
    pub writes: Vec<Document>,
}

/// The JWKS that must be read before [`decide`] is called: if the discovery document of a target points to
/// another one than ours, its keys would be lost.
#[must_use]
pub fn other_jwks(found: &TargetContents, ledger: &Ledger, terms: &Terms) -> Option<String> {
    // A discovery document that was edited beside our JWKS is repaired, not followed.
    if found.jwks.as_ref().is_some_and(|stored| is_ours(stored, ledger)) {
        return None;
    }
    let document = ReceivedDiscovery::parse(&found.discovery.as_ref()?.bytes).ok()?;
    let same = |one: &str, other: &str| one == other || Url::parse(one).ok() == Url::parse(other).ok();
    let is_other = document.issuer == terms.issuer.as_str() && !same(&document.jwks_uri, &terms.jwks_uri);
    is_other.then_some(document.jwks_uri)
}

/// The discovery document of a target that this ledger has not written yet.
fn takeover_discovery(
    found: &TargetContents,
    ledger: &Ledger,
) -> Option<Result<ReceivedDiscovery, InvalidDiscovery>> {
    if found.jwks.as_ref().is_some_and(|stored| is_ours(stored, ledger)) {
        return None;
    }
    let discovery = found.discovery.as_ref().filter(|stored| !is_ours(stored, ledger))?;
    Some(ReceivedDiscovery::parse(&discovery.bytes))
}

/// Whether there is only a JWKS, of another writer: its readers use its URL directly.
fn is_bare(found: &TargetContents, ledger: &Ledger) -> bool {
    found.discovery.is_none() && found.jwks.as_ref().is_some_and(|stored| !is_ours(stored, ledger))
}

fn is_ours(stored: &Stored, ledger: &Ledger) -> bool {
    stored.lineage.as_ref() == Some(ledger.lineage())
}

/// Decides what a target should hold.
///
/// `terms` are those of the ledger's issuer or of a previous one. With `adopt`, the operator states that the
/// target belongs to this ledger, whatever its metadata says.
///
/// # Errors
///
/// Fails if the target belongs to another owner, if its readers would lose keys, or if nothing can be
/// published there.
pub fn decide(
    found: &TargetContents,
    ledger: &Ledger,
    terms: &Terms,
    profile: Profile,
    adopt: bool,
) -> Result<TargetPlan, WriteRefused> {
    if let Some(trusted) = found.trusted_issuer.as_ref().filter(|it| *it != terms.issuer.as_str()) {
        return Err(WriteRefused::TrustsOtherIssuer { found: trusted.clone(), ours: terms.issuer.clone() });
    }
    if !adopt {
        refuse_foreign_owner(found, ledger, &terms.issuer)?;
        refuse_unreadable(found, ledger, terms)?;
    }
    let unmanaged_keys = unmanaged_keys(found, ledger, profile);
    let keys = ledger.public_keys().chain(&unmanaged_keys).cloned();
    let publication = Publication::render(terms, profile, keys)?;
    if !adopt {
        refuse_losses(found, ledger, &publication)?;
    }
    let writes = found
        .documents()
        .iter()
        .copied()
        .filter(|document| deviation(found, &publication, *document, ledger.lineage()).is_some())
        .collect();
    let moved_from = found.other.as_ref().map(|other| other.uri.clone());
    Ok(TargetPlan { publication, unmanaged_keys, moved_from, writes })
}

fn refuse_foreign_owner(
    found: &TargetContents,
    ledger: &Ledger,
    issuer: &Issuer,
) -> Result<(), WriteRefused> {
    for stored in Document::IN_WRITE_ORDER.into_iter().filter_map(|document| found.get(document)) {
        if let Some(owner) = stored.lineage.as_ref().filter(|owner| *owner != ledger.lineage()) {
            return Err(WriteRefused::OtherLineage { owner: owner.clone(), ours: ledger.lineage().clone() });
        }
    }
    // A document without an owner was uploaded by hand: it is taken over if it names the same issuer.
    let by_hand = found.discovery.as_ref().filter(|stored| stored.lineage.is_none());
    match by_hand.and_then(|stored| ReceivedDiscovery::parse(&stored.bytes).ok()) {
        Some(document) if document.issuer != issuer.as_str() => {
            Err(WriteRefused::OtherIssuer { found: document.issuer, ours: issuer.clone() })
        }
        _ => Ok(()),
    }
}

/// Refuses to take over a document that cannot be parsed here: its readers may be more lenient.
fn refuse_unreadable(found: &TargetContents, ledger: &Ledger, terms: &Terms) -> Result<(), WriteRefused> {
    let unreadable = |what: String, reason: String| WriteRefused::Unreadable { what, reason };
    if found.trusted_issuer.is_some() {
        return match found.jwks.as_ref().map(|stored| ReceivedJwks::parse(&stored.bytes)) {
            None | Some(Ok(_) | Err(InvalidJwks::Empty)) => Ok(()),
            Some(Err(source)) => Err(WriteRefused::UnreadableTrust(source)),
        };
    }
    match takeover_discovery(found, ledger) {
        // A JWKS that no discovery document points to is of no use to a reader either.
        None => return Ok(()),
        Some(Err(error)) => {
            return Err(unreadable(terms.paths().of(Document::Discovery).to_owned(), error.to_string()));
        }
        Some(Ok(_)) => {}
    }
    let (what, read) = match (&found.other, &found.jwks) {
        (Some(_), Some(stored))
            if ReceivedJwks::parse(&stored.bytes).is_err() && !is_ours(stored, ledger) =>
        {
            (terms.paths().of(Document::Jwks).to_owned(), Ok(stored.bytes.as_slice()))
        }
        (Some(other), _) => (brief(&other.uri).into_owned(), other.bytes.as_deref().map_err(Clone::clone)),
        (None, Some(stored)) => (terms.paths().of(Document::Jwks).to_owned(), Ok(stored.bytes.as_slice())),
        // Readers find nothing there today.
        (None, None) => return Ok(()),
    };
    let read = read.and_then(|bytes| ReceivedJwks::parse(bytes).map_err(|error| error.to_string()));
    read.map(drop).map_err(|reason| unreadable(what, reason))
}

/// Refuses to take over a target whose readers would lose keys.
fn refuse_losses(
    found: &TargetContents,
    ledger: &Ledger,
    publication: &Publication,
) -> Result<(), WriteRefused> {
    if takeover_discovery(found, ledger).is_none() && !is_bare(found, ledger) {
        return Ok(());
    }
    // Without an owner, a key that the ledger knows is the only evidence of what is ours.
    let is_trust = found.trusted_issuer.is_some();
    let stays = |key: &Jwk| {
        // A key that this ledger has removed or revoked must not return.
        publication.keys().get(key.kid()) == Some(key)
            || ledger
                .entries()
                .get(key.kid())
                .is_some_and(|entry| (is_trust || !entry.is_public()) && entry.jwk == *key)
    };
    let is_published = |key: &Jwk| publication.keys().iter().any(|it| it.public_key() == key.public_key());
    let mut keys = Vec::new();
    for member in shown_jwks(found).filter_map(|bytes| json::parse(bytes).ok()).flat_map(members) {
        let lost = match Jwk::from_json(&member) {
            Ok(key) => !stays(&key),
            // The same key again under an unusable kid; many issuers publish that beside the first one.
            Err(_) => !Jwk::from_json(&without_kid(member.clone())).is_ok_and(|key| is_published(&key)),
        };
        let kid = member.get("kid").and_then(serde_json::Value::as_str).unwrap_or_default();
        let kind = ["alg", "crv", "kty"].iter().find_map(|name| member.get(name)?.as_str());
        let key = format!("`{}` ({})", brief(kid), brief(kind.unwrap_or("no `kty`")));
        if lost && !keys.contains(&key) {
            keys.push(key);
        }
    }
    match keys.join(", ") {
        keys if keys.is_empty() => Ok(()),
        keys if is_trust => Err(WriteRefused::TrustLost { keys }),
        keys => Err(WriteRefused::Losses { keys }),
    }
}

fn members(jwks: serde_json::Value) -> Vec<serde_json::Value> {
    match jwks {
        serde_json::Value::Object(mut jwks) => match jwks.remove("keys") {
            Some(serde_json::Value::Array(members)) => members,
            _ => Vec::new(),
        },
        _ => Vec::new(),
    }
}

fn without_kid(mut member: serde_json::Value) -> serde_json::Value {
    if let Some(members) = member.as_object_mut() {
        members.remove("kid");
    }
    member
}

/// The JWKS that readers find now: the one that discovery points to, and the one at our own path.
fn shown_jwks(found: &TargetContents) -> impl Iterator<Item = &[u8]> {
    let other = found.other.iter().filter_map(|other| other.bytes.as_deref().ok());
    other.chain(found.jwks.iter().map(|stored| stored.bytes.as_slice()))
}

/// The kids that readers of a target find now.
#[must_use]
pub fn shown_kids(found: &TargetContents) -> BTreeSet<Kid> {
    let sets = shown_jwks(found).filter_map(|bytes| ReceivedJwks::parse(bytes).ok());
    sets.flat_map(|set| set.keys).map(|key| key.kid().clone()).collect()
}

/// The keys that a target shows and this ledger does not know.
///
/// An unreadable JWKS has none: it is of no use to a relying party either.
fn unmanaged_keys(found: &TargetContents, ledger: &Ledger, profile: Profile) -> Vec<Jwk> {
    let mut unmanaged_keys: Vec<Jwk> = Vec::new();
    for key in shown_jwks(found).filter_map(|bytes| ReceivedJwks::parse(bytes).ok()).flat_map(|it| it.keys) {
        let is_known =
            ledger.key(key.kid()).is_some() || unmanaged_keys.iter().any(|it| it.kid() == key.kid());
        if profile.includes(&key) && !is_known {
            unmanaged_keys.push(key);
        }
    }
    unmanaged_keys
}

/// The keys that a reader of these documents can verify with. A key whose algorithm is missing in the
/// discovery document is excluded: some relying parties cache that list, and reject other algorithms.
///
/// # Errors
///
/// Fails if one of them is not a document of this issuer.
pub fn kids_shown(jwks: &[u8], discovery: &[u8], issuer: &Issuer) -> Result<BTreeSet<Kid>, ForeignDocuments> {
    let seen = ReceivedJwks::parse(jwks)?;
    let named = ReceivedDiscovery::parse(discovery)?;
    if named.issuer != issuer.as_str() {
        return Err(ForeignDocuments::OtherIssuer { found: named.issuer, ours: issuer.clone() });
    }
    let algorithms = named.id_token_signing_alg_values_supported;
    let is_named = |key: &&Jwk| algorithms.iter().any(|named| named == key.algorithm().name());
    Ok(seen.keys.iter().filter(is_named).map(|key| key.kid().clone()).collect())
}

/// How a document deviates from the desired one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deviation {
    Missing,
    Content,
    Headers,
    Owner,
}

impl Deviation {
    /// The deviation in words, for the log.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Missing => "deleted",
            Self::Content => "edited",
            Self::Headers => "with other headers",
            Self::Owner => "without its owner",
        }
    }
}

/// How a stored document deviates from the desired one, if it does.
#[must_use]
pub fn deviation(
    found: &TargetContents,
    publication: &Publication,
    document: Document,
    ours: &Lineage,
) -> Option<Deviation> {
    let Some(stored) = found.get(document) else { return Some(Deviation::Missing) };
    if found.trusted_issuer.is_some() {
        return (!json::is_same(&stored.bytes, publication.bytes(document))).then_some(Deviation::Content);
    }
    let headers = stored.headers.as_ref().is_none_or(|headers| {
        headers.content_type.as_deref() == Some(MEDIA_TYPE)
            && headers.cache_control.as_deref() == Some(publication.cache_control().as_str())
    });
    if stored.bytes != *publication.bytes(document) {
        Some(Deviation::Content)
    } else if stored.lineage.as_ref() != Some(ours) {
        Some(Deviation::Owner)
    } else {
        (!headers).then_some(Deviation::Headers)
    }
}

/// Why the target must not be written.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum WriteRefused {
    #[error("it belongs to lineage `{owner}`, this ledger has lineage `{ours}`")]
    OtherLineage { owner: Lineage, ours: Lineage },
    #[error("it holds the discovery document of issuer `{found}`, expected `{ours}`")]
    OtherIssuer { found: String, ours: Issuer },
    /// The operator cannot override this: no token of ours is accepted there.
    #[error("it trusts issuer `{found}`, expected `{ours}`")]
    TrustsOtherIssuer { found: String, ours: Issuer },
    #[error("the JWKS that it trusts cannot be read: {0}")]
    UnreadableTrust(InvalidJwks),
    #[error("it would no longer trust {keys}")]
    TrustLost { keys: String },
    #[error("Signpost has not published there yet, and `{what}` cannot be read: {reason}")]
    Unreadable { what: String, reason: String },
    #[error("Signpost has not published there yet, and its readers would lose {keys}")]
    Losses { keys: String },
    #[error(transparent)]
    Nothing(#[from] NothingToPublish),
}

/// The documents at a public address are not those of this issuer.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ForeignDocuments {
    #[error(transparent)]
    Jwks(#[from] InvalidJwks),
    #[error(transparent)]
    Discovery(#[from] InvalidDiscovery),
    #[error("it names issuer `{found}`, expected `{ours}`")]
    OtherIssuer { found: String, ours: Issuer },
}

impl ForeignDocuments {
    /// Which document is wrong.
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
