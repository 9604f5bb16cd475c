//! A container of Azure Blob Storage, or a bucket of S3 or Google Cloud Storage.
//!
//! Owner and headers are kept with each object; the service itself checks the version of a write. A
//! generation of Google (and its entity tag) stays when headers alone change, so a remembered version
//! includes headers and owner: both are in the answer to `HEAD`.

use std::{borrow::Cow, fmt};

use object_store::{
    Attribute, Attributes, GetOptions, GetResult, ObjectStore, ObjectStoreExt as _, PutMode, PutOptions,
    UpdateVersion, path::Path,
};
use url::Url;

use crate::{
    core::{
        jose::publication::{Document, Paths, sha256_hex},
        ledger::Lineage,
        target_plan::{Headers, Stored},
    },
    http_client::SharedClient,
};

use super::{
    Change, Entry, MAX_DOCUMENT_BYTES, Version, VersionOf,
    connections::Connections,
    error::{Cause, Failure},
};

mod answer;
mod federation;
mod opening;

pub(super) use answer::service_code;
pub(super) use opening::GoogleAccount;
use opening::Opened;

/// Metadata names of the owner. Azure requires identifiers of C#, and proxies drop headers with an
/// underscore.
const LINEAGE: Attribute = Attribute::Metadata(Cow::Borrowed("signpostlineage"));
const SEQUENCE: Attribute = Attribute::Metadata(Cow::Borrowed("signpostsequence"));

/// Content of the probe object for anonymous reads.
const PROBE: &str = "Signpost wrote this to check whether it is publicly readable. It can be removed.\n";

/// The objects of one publication.
pub(super) struct Bucket {
    store: Box<dyn ObjectStore>,
    client: SharedClient,
    service: Service,
    /// The common prefix of all object paths.
    prefix: String,
    jwks: Path,
    discovery: Path,
    /// The address for anonymous reads of the objects.
    address: String,
}

/// The service that keeps the objects, with its names for them.
#[derive(Debug)]
pub(super) enum Service {
    Azure { account: String, container: String },
    S3 { bucket: String, prefix: String },
    Gcs { bucket: String },
}

/// The version that `object_store` needs for a conditional write, with headers and owner: the entity tag of
/// S3 and the generation of Google Cloud Storage stay when those alone change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ObjectVersion {
    update: UpdateVersion,
    attributes: Attributes,
}

impl ObjectVersion {
    /// The store's own version identifier. Every write, even of headers alone, changes it on all but S3.
    pub(super) fn mark(&self) -> String {
        let UpdateVersion { e_tag, version } = &self.update;
        format!("{e_tag:?} {version:?}")
    }
}

/// Omits the store, which holds credentials.
impl fmt::Debug for Bucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bucket")
            .field("service", &self.service)
            .field("jwks", &self.jwks)
            .finish_non_exhaustive()
    }
}

impl Bucket {
    pub(super) fn new(
        service: Service,
        prefix: &str,
        paths: &Paths,
        endpoint: Option<&Url>,
        connections: &Connections,
    ) -> Result<Self, Cause> {
        let (jwks, discovery) =
            (path(prefix, paths.of(Document::Jwks))?, path(prefix, paths.of(Document::Discovery))?);
        let Opened { store, address } = service.open(endpoint, connections)?;
        let mut address = Url::parse(&address)
            .map_err(|error| Cause::Address { address, reason: format!("is not a URL: {error}") })?;
        if let Ok(mut segments) = address.path_segments_mut() {
            segments.pop_if_empty().extend(prefix.split('/').filter(|segment| !segment.is_empty()));
        }
        let client = connections.to(address.scheme());
        Ok(Self {
            store,
            client,
            service,
            prefix: prefix.to_owned(),
            jwks,
            discovery,
            address: address.into(),
        })
    }

    /// The URL below which the service itself serves the objects to anonymous readers, if permitted.
    pub(super) fn address(&self) -> &str {
        &self.address
    }

    /// The store, once its client exists: the store's own error about a missing client does not help.
    async fn store(&self) -> Result<&dyn ObjectStore, Cause> {
        self.client.get().await?;
        Ok(&*self.store)
    }

    fn path(&self, document: Document) -> &Path {
        match document {
            Document::Jwks => &self.jwks,
            Document::Discovery => &self.discovery,
        }
    }

    pub(super) async fn version(&self, document: Document) -> Result<Option<Version>, Cause> {
        let options = GetOptions { head: true, ..GetOptions::default() };
        match self.store().await?.get_opts(self.path(document), options).await {
            Ok(result) => Ok(Some(version_of(&result))),
            Err(error) => self.service.absent(&error).map(|()| None),
        }
    }

    pub(super) async fn read(&self, document: Document) -> Result<Option<Entry>, Cause> {
        let Some(result) = self.get(self.path(document)).await? else { return Ok(None) };
        let attribute = |name: &Attribute| result.attributes.get(name).map(|value| value.as_ref().to_owned());
        let headers = Headers {
            content_type: attribute(&Attribute::ContentType),
            cache_control: attribute(&Attribute::CacheControl),
        };
        let lineage = attribute(&LINEAGE).map(|text| Lineage::read(&text));
        let sequence = attribute(&SEQUENCE).and_then(|text| text.parse().ok());
        let version = version_of(&result);
        let bytes = self.bytes(result).await?;
        Ok(Some(Entry { stored: Stored { bytes, lineage, headers: Some(headers) }, sequence, version }))
    }

    /// The content at a path other than those of the documents.
    pub(super) async fn read_at(&self, below: &str) -> Result<Option<Vec<u8>>, Cause> {
        match self.get(&path(&self.prefix, below)?).await? {
            Some(result) => self.bytes(result).await.map(Some),
            None => Ok(None),
        }
    }

    async fn get(&self, path: &Path) -> Result<Option<GetResult>, Cause> {
        match self.store().await?.get_opts(path, GetOptions::default()).await {
            Ok(result) if result.meta.size > MAX_DOCUMENT_BYTES => Err(Cause::TooLong),
            Ok(result) => Ok(Some(result)),
            Err(error) => self.service.absent(&error).map(|()| None),
        }
    }

    async fn bytes(&self, result: GetResult) -> Result<Vec<u8>, Cause> {
        Ok(result.bytes().await.map_err(|error| self.service.cause(&error))?.to_vec())
    }

    pub(super) async fn write(
        &self,
        change: &Change,
        expected: Option<&Version>,
    ) -> Result<Version, Failure> {
        let mode = match expected {
            None => PutMode::Create,
            Some(Version(VersionOf::Object(version))) => PutMode::Update(version.update.clone()),
            // The version of another kind of target matches no object.
            Some(_) => return Err(Failure::LostRace),
        };
        let options = PutOptions { mode, attributes: attributes(change), ..PutOptions::default() };
        let store = self.store().await?;
        let put = store.put_opts(self.path(change.document), change.bytes.clone().into(), options);
        let put = put.await.map_err(|error| self.service.not_written(&error))?;

        let Some(back) = self.read(change.document).await? else { return Err(Failure::LostRace) };
        match kept(change, &back.stored) {
            Ok(()) => Ok(back.version),
            Err(_) if e_tag(&back.version) != put.e_tag.as_deref() => Err(Failure::LostRace),
            Err(cause) => Err(cause.into()),
        }
    }

    /// Whether an object may have its own read permission, which is lost when it is replaced. Azure has none:
    /// there the container permits anonymous reads.
    pub(super) fn has_rights_of_objects(&self) -> bool {
        matches!(self.service, Service::S3 { .. } | Service::Gcs { .. })
    }

    /// Writes a probe object with the same permissions as a document.
    pub(super) async fn write_probe(&self, below: &str) -> Result<(), Cause> {
        let attributes = [(Attribute::ContentType, "text/plain"), (Attribute::CacheControl, "no-store")];
        let options = PutOptions { attributes: attributes.into_iter().collect(), ..PutOptions::default() };
        let put = self.store().await?.put_opts(&path(&self.prefix, below)?, PROBE.into(), options).await;
        put.map(drop).map_err(|error| self.service.cause(&error))
    }

    /// Without the permission to delete, a few bytes stay.
    pub(super) async fn remove_probe(&self, below: &str) {
        if let (Ok(path), Ok(store)) = (path(&self.prefix, below), self.store().await) {
            let _ = store.delete(&path).await;
        }
    }

    pub(super) fn publicity(&self) -> String {
        self.service.publicity(None)
    }

    pub(super) fn hint(&self, cause: &Cause) -> Option<String> {
        self.service.hint(cause)
    }
}

fn path(prefix: &str, below: &str) -> Result<Path, Cause> {
    Path::parse(format!("{}/{below}", prefix.trim_matches('/'))).map_err(|error| Cause::Address {
        address: prefix.to_owned(),
        reason: format!("cannot be a prefix: {error}"),
    })
}

fn version_of(result: &GetResult) -> Version {
    let update = UpdateVersion { e_tag: result.meta.e_tag.clone(), version: result.meta.version.clone() };
    let attributes = result.attributes.clone();
    Version(VersionOf::Object(ObjectVersion { update, attributes }))
}

fn e_tag(version: &Version) -> Option<&str> {
    match version {
        Version(VersionOf::Object(version)) => version.update.e_tag.as_deref(),
        Version(VersionOf::File(_) | VersionOf::Provider(_)) => None,
    }
}

fn attributes(change: &Change) -> Attributes {
    let Headers { content_type, cache_control } = change.headers();
    [
        (Attribute::ContentType, content_type),
        (Attribute::CacheControl, cache_control),
        (LINEAGE, Some(change.owner.lineage.as_str().to_owned())),
        (SEQUENCE, Some(change.owner.sequence.to_string())),
    ]
    .into_iter()
    .filter_map(|(name, value)| Some((name, value?)))
    .collect()
}

/// Checks that the store kept everything that was written: one that drops headers or owner would be written
/// again in every pass.
fn kept(change: &Change, back: &Stored) -> Result<(), Cause> {
    let same = |what, actual: Option<&str>, expected: Option<&str>| {
        let text = |value: Option<&str>| value.unwrap_or("nothing").to_owned();
        if actual == expected {
            Ok(())
        } else {
            Err(Cause::NotKept { what, actual: text(actual), expected: text(expected) })
        }
    };
    let (actual, expected) = (back.headers.clone().unwrap_or_default(), change.headers());
    same("SHA-256", Some(&sha256_hex(&back.bytes)), Some(&sha256_hex(&change.bytes)))?;
    same("content type", actual.content_type.as_deref(), expected.content_type.as_deref())?;
    same("cache control", actual.cache_control.as_deref(), expected.cache_control.as_deref())?;
    same("lineage", back.lineage.as_ref().map(Lineage::as_str), Some(change.owner.lineage.as_str()))
}
