//! Targets of publications: a container, a bucket, a directory, or a relying party that keeps the JWKS itself.
//!
//! [`crate::core::target_plan`] decides what a target should hold; this module carries it out. Every write is
//! conditional on a version that was read, so a concurrent change is never overwritten unseen, and every
//! write is read back. A provider of Google (`workload_identity`) has no conditions, and says what takes their place.

use std::path::PathBuf;

use base64ct::{Base64UrlUnpadded, Encoding as _};
use bytes::Bytes;
use sha2::{Digest as _, Sha256};
use url::Url;

use crate::{
    core::{
        freshness::CacheFields,
        jose::{
            issuer::{Issuer, path_below},
            publication::{Document, MEDIA_TYPE, Paths, Publication, is_json},
        },
        ledger::{Ledger, Lineage},
        location::Location,
        target_plan::{Headers, Stored, TargetContents},
    },
    http_client::Trust,
};

mod connections;
mod crypto;
mod directory;
mod error;
mod object;
mod public;
mod request_limits;
mod workload_identity;

use directory::Directory;
use error::{Cause, Failure};
use object::{Bucket, Service};
use public::PublicUrl;
use workload_identity::Provider;

pub use connections::Connections;
pub use error::{TargetError, WriteError};

/// Longest document. A JWKS of 100 RSA-4096 keys has 80 kB; anything longer is not ours, and must not exhaust
/// the memory.
const MAX_DOCUMENT_BYTES: u64 = 1024 * 1024;

#[derive(Debug)]
pub struct Target {
    name: String,
    backend: Backend,
    paths: Paths,
    /// The address of the store itself, where it permits anonymous reads.
    store: Option<PublicUrl>,
    /// Whether anonymous reads from the store are expected.
    is_read_at_store: bool,
    /// The additional public URL for relying parties.
    public: Option<PublicUrl>,
}

#[derive(Debug)]
enum Backend {
    Bucket(Bucket),
    Directory(Directory),
    Provider(Provider),
}

/// Where relying parties read a target, and so where it is read back besides the store.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PublicAddress {
    /// The issuer's URL, or that of a CDN in front.
    pub public_url: Option<String>,
    /// Whether the store permits anonymous reads at its own address. A directory has none.
    pub anonymous: bool,
    /// Certificate authorities trusted there in addition to those of the system.
    pub ca_file: Option<PathBuf>,
    /// Paths below each of these addresses and in the store.
    pub paths: Paths,
    /// The URL of a JWKS that another service serves.
    pub jwks_elsewhere: Option<String>,
}

/// What relying parties read at one public address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicCopy {
    pub jwks: Bytes,
    pub discovery: Bytes,
    /// The caching headers of the JWKS.
    pub cache: CacheFields,
    /// The documents with a media type other than JSON, with that type.
    pub mistyped: Vec<(Document, String)>,
}

/// The writer of a document, and the sequence of its ledger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    pub lineage: Lineage,
    /// `Ledger::sequence` at the time of the write.
    pub sequence: u64,
}

/// The version of a document. Equal versions mean that there was no write in between.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version(VersionOf);

#[derive(Clone, Debug, PartialEq, Eq)]
enum VersionOf {
    Object(object::ObjectVersion),
    File(directory::FileVersion),
    Provider(workload_identity::ProviderVersion),
}

/// The versions of both documents; `None` for a missing document.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Versions {
    pub jwks: Option<Version>,
    pub discovery: Option<Version>,
}

impl Versions {
    #[must_use]
    pub fn get(&self, document: Document) -> Option<&Version> {
        match document {
            Document::Jwks => self.jwks.as_ref(),
            Document::Discovery => self.discovery.as_ref(),
        }
    }
}

impl Versions {
    /// A short text that changes with every write.
    ///
    /// In a directory and on S3, where entity tags are those of the content, undoing a write restores the
    /// previous text.
    #[must_use]
    pub fn mark(&self) -> String {
        let mut hasher = Sha256::new();
        for version in [&self.jwks, &self.discovery] {
            let mark = version.as_ref().map(|Version(version)| match version {
                VersionOf::Object(version) => version.mark(),
                VersionOf::File(version) => version.mark(),
                VersionOf::Provider(version) => version.mark(),
            });
            hasher.update(format!("{mark:?}\n"));
        }
        Base64UrlUnpadded::encode_string(&hasher.finalize()[..12])
    }
}

/// Both documents of a target, as read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reading {
    pub found: TargetContents,
    pub versions: Versions,
    /// The owners according to the documents' metadata.
    pub owners: Vec<Owner>,
}

impl Reading {
    /// The sequence of this ledger that the target was written from, if it is later than that of `ledger`.
    #[must_use]
    pub fn newer_sequence(&self, ledger: &Ledger) -> Option<u64> {
        let ours = self.owners.iter().filter(|owner| owner.lineage == *ledger.lineage());
        ours.map(|owner| owner.sequence).filter(|sequence| ledger.is_behind_target(*sequence)).max()
    }

    fn new(jwks: Option<Entry>, discovery: Option<Entry>) -> Self {
        let mut owners = Vec::new();
        let mut split = |entry: Option<Entry>| {
            entry.map_or((None, None), |entry| {
                owners.extend(entry.owner());
                (Some(entry.stored), Some(entry.version))
            })
        };
        let (jwks, jwks_version) = split(jwks);
        let (discovery, discovery_version) = split(discovery);
        Self {
            found: TargetContents { jwks, discovery, ..TargetContents::default() },
            versions: Versions { jwks: jwks_version, discovery: discovery_version },
            owners,
        }
    }
}

/// One document as read.
#[derive(Clone, Debug)]
struct Entry {
    stored: Stored,
    sequence: Option<u64>,
    version: Version,
}

impl Entry {
    fn owner(&self) -> Option<Owner> {
        let lineage = self.stored.lineage.clone()?;
        Some(Owner { lineage, sequence: self.sequence? })
    }
}

impl Target {
    /// Constructs a target; sends no request yet.
    ///
    /// # Errors
    ///
    /// Fails when the address or the credentials of the environment are invalid.
    pub fn new(
        name: String,
        location: Location,
        public_address: &PublicAddress,
        connections: &Connections,
    ) -> Result<Self, TargetError> {
        let trust = public_address.ca_file.clone().map_or(Trust::System, Trust::Also);
        let connections = &connections.trusting(trust);
        let failed = |cause: Cause| TargetError::new(&name, "set up", None, cause);
        let bucket = |service, prefix: &str, endpoint: Option<Url>| {
            Bucket::new(service, prefix, &public_address.paths, endpoint.as_ref(), connections)
                .map(Backend::Bucket)
        };
        let place = match location {
            Location::Azure { account, container, prefix, endpoint } => {
                bucket(Service::Azure { account, container }, &prefix, endpoint)
            }
            Location::S3 { bucket: name, prefix, endpoint } => {
                let service = Service::S3 { bucket: name, prefix: prefix.trim_matches('/').to_owned() };
                bucket(service, &prefix, endpoint)
            }
            Location::Gcs { bucket: name, prefix, endpoint } => {
                bucket(Service::Gcs { bucket: name }, &prefix, endpoint)
            }
            Location::Directory(root) => {
                Ok(Backend::Directory(Directory::new(root, public_address.paths.clone())))
            }
            Location::WorkloadIdentityProvider { name, endpoint } => {
                Provider::new(name, endpoint.as_ref(), connections).map(Backend::Provider)
            }
        };
        let place = place.map_err(failed)?;
        let address = |base: &str, is_store| {
            let address = PublicUrl::new(base, is_store, connections)?;
            Ok(address.with_jwks(&public_address.paths, public_address.jwks_elsewhere.as_deref()))
        };
        let store = match &place {
            // Without readers there, an invalid address is harmless.
            Backend::Bucket(bucket) => {
                Some(address(bucket.address(), true)).filter(|it| it.is_ok() || public_address.anonymous)
            }
            Backend::Directory(_) | Backend::Provider(_) => None,
        };
        let public = public_address.public_url.as_deref().map(|url| address(url, false));
        let (store, public) = (store.transpose().map_err(failed)?, public.transpose().map_err(failed)?);
        let (is_read_at_store, paths) = (public_address.anonymous, public_address.paths.clone());
        Ok(Self { name, backend: place, paths, store, is_read_at_store, public })
    }

    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Reads the versions of both documents with one `HEAD` each.
    ///
    /// A container that does not exist looks empty here; [`Target::read`] distinguishes the two.
    ///
    /// # Errors
    ///
    /// Fails when a request fails.
    pub async fn versions(&self) -> Result<Versions, TargetError> {
        let version = async |document| {
            let version = match &self.backend {
                Backend::Bucket(bucket) => bucket.version(document).await,
                Backend::Directory(directory) => directory.version(document).await,
                Backend::Provider(provider) => provider.version(document).await,
            };
            version.map_err(|cause| self.error_of("read", document, cause))
        };
        // Awaits both: of two failures, the same one is always reported.
        let (jwks, discovery) = tokio::join!(version(Document::Jwks), version(Document::Discovery));
        Ok(Versions { jwks: jwks?, discovery: discovery? })
    }

    /// Reads both documents with their headers, owners and versions.
    ///
    /// # Errors
    ///
    /// Fails when one cannot be read; a missing document is no error.
    pub async fn read(&self) -> Result<Reading, TargetError> {
        let entry = async |document| {
            let entry = match &self.backend {
                Backend::Bucket(bucket) => bucket.read(document).await,
                Backend::Directory(directory) => directory.read(document).await,
                Backend::Provider(_) => return Ok(None),
            };
            entry.map_err(|cause| self.error_of("read", document, cause))
        };
        if let Backend::Provider(provider) = &self.backend {
            let read = provider.read().await;
            let (jwks, issuer) = read.map_err(|cause| self.error_of("read", Document::Jwks, cause))?;
            let mut reading = Reading::new(jwks, None);
            reading.found.trusted_issuer = Some(issuer);
            return Ok(reading);
        }
        let (jwks, discovery) = tokio::join!(entry(Document::Jwks), entry(Document::Discovery));
        Ok(Reading::new(jwks?, discovery?))
    }

    /// Reads the content at a URL that maps to this target, such as those of `issuer`, of its public
    /// addresses and of the store itself; `None` for any other URL, or without content.
    ///
    /// # Errors
    ///
    /// Fails when it cannot be read.
    pub async fn read_at(&self, url: &str, issuer: &Issuer) -> Result<Option<Vec<u8>>, TargetError> {
        let addresses = self.public.iter().chain(&self.store).map(PublicUrl::base);
        let mut bases = [issuer.as_str()].into_iter().chain(addresses);
        let Some(path) = bases.find_map(|base| path_below(base, url)) else { return Ok(None) };
        let read = match &self.backend {
            Backend::Bucket(bucket) => bucket.read_at(path).await,
            Backend::Directory(directory) => directory.read_at(path).await,
            Backend::Provider(_) => Ok(None),
        };
        read.map_err(|cause| self.error("read", path.to_owned(), cause))
    }

    /// Writes one document, and reads it back.
    ///
    /// `expected` is the version that the decision rests on: `None` if there was no document.
    ///
    /// # Errors
    ///
    /// Fails with [`WriteError::LostRace`] when the document no longer has that version. After any other
    /// failure it may or may not have been written: read again.
    pub async fn write(
        &self,
        document: Document,
        publication: &Publication,
        owner: &Owner,
        expected: Option<&Version>,
    ) -> Result<Version, WriteError> {
        let change = Change {
            document,
            bytes: publication.bytes(document).clone(),
            cache_control: publication.cache_control(),
            owner: owner.clone(),
        };
        let written = match &self.backend {
            Backend::Bucket(bucket) => bucket.write(&change, expected).await,
            Backend::Directory(directory) => directory.write(change, expected.cloned()).await,
            Backend::Provider(provider) => provider.write(&change, expected).await,
        };
        written.map_err(|failure| match failure {
            Failure::LostRace => {
                let path = self.path(document);
                WriteError::LostRace { target: self.name.clone(), path }
            }
            Failure::Cause(cause) => WriteError::Failed(self.error_of("write", document, cause)),
        })
    }

    /// Reads what relying parties read at each public address; empty when the target has none.
    ///
    /// `expected` is the correct publication: while it is served, documents are not transferred again.
    ///
    /// # Errors
    ///
    /// Fails when a relying party would not get a document; redirects are not followed either.
    pub async fn read_public(&self, expected: &Publication) -> Result<Vec<PublicCopy>, TargetError> {
        let mut shown = Vec::new();
        for address in self.store.iter().filter(|_| self.is_read_at_store).chain(&self.public) {
            let read = async |document| {
                let read = address.read(document, expected.bytes(document)).await;
                read.map_err(|cause| self.error("read", address.of(document), cause))
            };
            let (jwks, discovery) = tokio::join!(read(Document::Jwks), read(Document::Discovery));
            let (jwks, discovery) = (jwks?, discovery?);
            let mistyped = [(Document::Jwks, &jwks), (Document::Discovery, &discovery)]
                .into_iter()
                .filter(|(_, got)| !is_json(got.content_type.as_deref()))
                .map(|(document, got)| {
                    (document, got.content_type.clone().unwrap_or_else(|| "nothing".to_owned()))
                })
                .collect();
            let (cache, jwks, discovery) = (jwks.cache, jwks.bytes, discovery.bytes);
            shown.push(PublicCopy { jwks, discovery, cache, mistyped });
        }
        Ok(shown)
    }

    /// Whether anonymous reads at the store's own address are expected.
    #[must_use]
    pub fn is_read_at_store(&self) -> bool {
        self.is_read_at_store
    }

    /// Expects anonymous reads there: [`Target::read_public`] checks that address from now on.
    pub fn expect_readers_at_store(&mut self) {
        self.is_read_at_store = true;
    }

    /// Whether anonymous reads of a document at the store's own address are permitted, possibly by a
    /// permission of the object that is lost when it is replaced. `false` where access is set for the whole
    /// container.
    ///
    /// # Errors
    ///
    /// Fails when there is no answer.
    pub async fn has_public_object_acl(&self, document: Document) -> Result<bool, TargetError> {
        match (&self.backend, &self.store) {
            (Backend::Bucket(bucket), Some(store)) if bucket.has_rights_of_objects() => {
                let url = store.of(document);
                store.is_readable(&url).await.map_err(|cause| self.error("read", url, cause))
            }
            _ => Ok(false),
        }
    }

    /// Whether anonymous reads of objects beside a document are permitted: writes a probe object, reads it,
    /// and removes it.
    ///
    /// # Errors
    ///
    /// Fails when the probe cannot be written or there is no answer.
    pub async fn is_public_beside(&self, document: Document) -> Result<bool, TargetError> {
        let (Backend::Bucket(bucket), Some(store)) = (&self.backend, &self.store) else { return Ok(true) };
        let path = beside(self.paths.of(document));
        let failed = |task, cause| self.error(task, path.clone(), cause);
        bucket.write_probe(&path).await.map_err(|cause| failed("write", cause))?;
        let is_readable = store.is_readable(&format!("{}/{path}", store.base())).await;
        bucket.remove_probe(&path).await;
        is_readable.map_err(|cause| failed("read", cause))
    }

    /// How to permit anonymous reads, if the store controls them.
    #[must_use]
    pub fn public_access_hint(&self) -> Option<String> {
        match &self.backend {
            Backend::Bucket(bucket) => Some(bucket.publicity()),
            Backend::Directory(_) | Backend::Provider(_) => None,
        }
    }

    fn path(&self, document: Document) -> String {
        match &self.backend {
            Backend::Provider(_) => workload_identity::FIELD.to_owned(),
            Backend::Bucket(_) | Backend::Directory(_) => self.paths.of(document).to_owned(),
        }
    }

    fn error_of(&self, task: &'static str, document: Document, cause: Cause) -> TargetError {
        self.error(task, self.path(document), cause)
    }

    fn error(&self, task: &'static str, path: String, cause: Cause) -> TargetError {
        let error = TargetError::new(&self.name, task, Some(path), cause);
        error.or_hint(|cause| match &self.backend {
            Backend::Bucket(bucket) => bucket.hint(cause),
            Backend::Directory(_) => directory::hint(cause),
            Backend::Provider(provider) => provider.hint(cause),
        })
    }
}

/// A name in the same directory as a document.
fn beside(document: &str) -> String {
    let directory = document.rsplit_once('/').map_or(String::new(), |(directory, _)| format!("{directory}/"));
    format!("{directory}signpost-probe")
}

/// The desired content of one document.
#[derive(Clone, Debug)]
struct Change {
    document: Document,
    bytes: Bytes,
    cache_control: String,
    owner: Owner,
}

impl Change {
    fn headers(&self) -> Headers {
        Headers { content_type: Some(MEDIA_TYPE.to_owned()), cache_control: Some(self.cache_control.clone()) }
    }
}

#[cfg(test)]
mod tests;
