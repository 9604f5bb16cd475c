//! The address of a target.

use std::{
    fmt,
    path::{Path, PathBuf},
};

use url::Url;

/// Where a target stores what is published.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Location {
    /// `az://ACCOUNT/CONTAINER/PREFIX`; the container `$web` is a static website. Credentials come from the `AZURE_…`
    /// variables or the managed identity of the machine.
    Azure {
        account: String,
        container: String,
        /// Without a `/` at either end; empty for the whole container.
        prefix: String,
        /// The blob service, unless it is Azure's own.
        endpoint: Option<Url>,
    },
    /// `s3://BUCKET/PREFIX`. Credentials and region come from the `AWS_…` variables, the pod or the machine.
    S3 {
        bucket: String,
        /// Without a `/` at either end; empty for the whole bucket.
        prefix: String,
        /// The service, unless it is Amazon's own.
        endpoint: Option<Url>,
    },
    /// `gs://BUCKET/PREFIX`. Credentials come from the `GOOGLE_…` variables, the files of `gcloud` or the metadata
    /// server.
    Gcs {
        bucket: String,
        /// Without a `/` at either end; empty for the whole bucket.
        prefix: String,
        /// The service, unless it is Google's own.
        endpoint: Option<Url>,
    },
    /// `gcp-wif://projects/PROJECT/locations/global/workloadIdentityPools/POOL/providers/PROVIDER`: the JWKS that a
    /// provider of Google's workload identity federation keeps. Credentials as for Google Cloud Storage.
    WorkloadIdentityProvider {
        /// The resource name of the provider, from `projects/` on.
        name: String,
        /// The IAM API, unless it is Google's own.
        endpoint: Option<Url>,
    },
    /// `file:///DIRECTORY`, absolute: something else serves it.
    Directory(PathBuf),
}

impl Location {
    /// The service, where one is named.
    #[must_use]
    pub fn endpoint(&self) -> Option<&Url> {
        match self {
            Self::Azure { endpoint, .. }
            | Self::S3 { endpoint, .. }
            | Self::Gcs { endpoint, .. }
            | Self::WorkloadIdentityProvider { endpoint, .. } => endpoint.as_ref(),
            Self::Directory(_) => None,
        }
    }

    /// The path of a directory.
    #[must_use]
    pub fn as_directory(&self) -> Option<&Path> {
        match self {
            Self::Directory(path) => Some(path),
            Self::Azure { .. }
            | Self::S3 { .. }
            | Self::Gcs { .. }
            | Self::WorkloadIdentityProvider { .. } => None,
        }
    }

    /// Whether the relying party itself keeps what is published there, and nobody else reads it.
    #[must_use]
    pub fn is_relying_party(&self) -> bool {
        matches!(self, Self::WorkloadIdentityProvider { .. })
    }
}

/// The URL; the endpoint is not part of it.
impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let prefix = match self {
            Self::Azure { account, container, prefix, .. } => {
                write!(f, "az://{account}/{container}")?;
                prefix
            }
            Self::S3 { bucket, prefix, .. } => {
                write!(f, "s3://{bucket}")?;
                prefix
            }
            Self::Gcs { bucket, prefix, .. } => {
                write!(f, "gs://{bucket}")?;
                prefix
            }
            Self::WorkloadIdentityProvider { name, .. } => return write!(f, "gcp-wif://{name}"),
            Self::Directory(path) => return write!(f, "file://{}", path.display()),
        };
        if prefix.is_empty() { Ok(()) } else { write!(f, "/{prefix}") }
    }
}
