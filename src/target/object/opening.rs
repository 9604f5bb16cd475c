//! Opens a container or bucket, with the credentials of the environment (`docs/targets.md`).

use std::{fmt, path::Path, sync::Arc};

use object_store::{
    BackoffConfig, ClientConfigKey, ObjectStore, RetryConfig,
    aws::{AmazonS3Builder, AmazonS3ConfigKey, S3ConditionalPut},
    azure::{AzureConfigKey, MicrosoftAzureBuilder},
    gcp::{GcpCredentialProvider, GoogleCloudStorage, GoogleCloudStorageBuilder, GoogleConfigKey},
};
use url::Url;

use crate::{
    http_client::REQUEST_TIMEOUT,
    target::{
        connections::{Connections, checked},
        crypto::OpenSsl,
        error::Cause,
    },
};

use super::{Service, federation::Federation};

/// How often a failed request is retried at once. A service retries with its next pass and a command must not
/// hang over a misspelt name, so this covers short failures only.
const RETRIES: usize = 3;

fn retry() -> RetryConfig {
    let backoff = BackoffConfig::default();
    RetryConfig { backoff, max_retries: RETRIES, retry_timeout: REQUEST_TIMEOUT * 2 }
}

/// A store, and the address at which it would serve anonymous readers.
pub(super) struct Opened {
    pub(super) store: Box<dyn ObjectStore>,
    pub(super) address: String,
}

impl Service {
    /// Sends no request yet.
    pub(super) fn open(&self, endpoint: Option<&Url>, connections: &Connections) -> Result<Opened, Cause> {
        let endpoint = endpoint.map(Endpoint::new).transpose()?;
        match self {
            Self::Azure { account, container } => self.azure(account, container, endpoint, connections),
            Self::S3 { bucket, .. } => self.s3(bucket, endpoint, connections),
            Self::Gcs { bucket } => self.gcs(bucket, endpoint, connections),
        }
    }

    fn azure(
        &self,
        account: &str,
        container: &str,
        endpoint: Option<Endpoint>,
        connections: &Connections,
    ) -> Result<Opened, Cause> {
        let mut builder = MicrosoftAzureBuilder::from_env()
            .with_use_emulator(false)
            .with_account(account)
            .with_container_name(container)
            .with_crypto_provider(Arc::new(OpenSsl))
            .with_http_connector(connections.clone())
            .with_retry(retry());
        if let (None, Some(key)) = (builder.get_config_value(&AzureConfigKey::AccessKey), key_of_az()) {
            builder = builder.with_access_key(key);
        }
        if let Some(Endpoint { url, plain }) = endpoint {
            builder = builder.with_endpoint(url).with_allow_http(plain);
        }
        let service = builder.get_config_value(&AzureConfigKey::Endpoint);
        let service = service.unwrap_or_else(|| format!("https://{account}.blob.core.windows.net"));
        let store = builder.build().map_err(|error| self.not_built(&error))?;
        Ok(Opened { store: Box::new(store), address: below(&service, container) })
    }

    fn s3(
        &self,
        bucket: &str,
        endpoint: Option<Endpoint>,
        connections: &Connections,
    ) -> Result<Opened, Cause> {
        let mut builder = AmazonS3Builder::from_env()
            .with_bucket_name(bucket)
            .with_conditional_put(S3ConditionalPut::ETagMatch)
            .with_crypto_provider(Arc::new(OpenSsl))
            .with_http_connector(connections.clone())
            .with_retry(retry());
        if let Some(Endpoint { url, plain }) = endpoint {
            // This key and not `with_endpoint`, which `AWS_ENDPOINT_URL_S3` would override.
            builder = builder.with_config(AmazonS3ConfigKey::S3Endpoint, url).with_allow_http(plain);
        }
        let address = s3_address(bucket, |key| builder.get_config_value(&key));
        let store = builder.build().map_err(|error| self.not_built(&error))?;
        Ok(Opened { store: Box::new(store), address })
    }

    fn gcs(
        &self,
        bucket: &str,
        endpoint: Option<Endpoint>,
        connections: &Connections,
    ) -> Result<Opened, Cause> {
        let Endpoint { url, plain } = endpoint
            .unwrap_or_else(|| Endpoint { url: "https://storage.googleapis.com".to_owned(), plain: false });
        let store = self.google(bucket, &url, plain, connections)?;
        Ok(Opened { store: Box::new(store), address: below(&url, bucket) })
    }

    fn google(
        &self,
        bucket: &str,
        url: &str,
        plain: bool,
        connections: &Connections,
    ) -> Result<GoogleCloudStorage, Cause> {
        // Unless forbidden, this builder sends its tokens unencrypted.
        let allow_http = GoogleConfigKey::Client(ClientConfigKey::AllowHttp);
        let mut builder = GoogleCloudStorageBuilder::from_env()
            .with_bucket_name(bucket)
            .with_base_url(url)
            .with_config(allow_http, plain.to_string())
            .with_crypto_provider(Arc::new(OpenSsl))
            .with_http_connector(connections.clone())
            .with_retry(retry());
        let unusable = |reason| Cause::Environment { reason, variables: self.credentials() };
        if let Some(federation) = federation(&builder, connections).map_err(unusable)? {
            builder = builder.with_credentials(Arc::new(federation));
        }
        builder.build().map_err(|error| self.not_built(&error))
    }
}

/// The credentials of the environment at Google, for another service than Cloud Storage. Their scope is that of all
/// services of Google Cloud.
pub(in crate::target) struct GoogleAccount(GcpCredentialProvider);

/// Omits the credentials.
impl fmt::Debug for GoogleAccount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GoogleAccount").finish_non_exhaustive()
    }
}

impl GoogleAccount {
    /// Its errors name credentials, never the bucket.
    const SERVICE: Service = Service::Gcs { bucket: String::new() };

    /// Sends no request yet.
    pub(in crate::target) fn new(connections: &Connections) -> Result<Self, Cause> {
        // A store opens the credentials; no request is sent for its bucket.
        let store = Self::SERVICE.google("none", "https://storage.googleapis.com", false, connections)?;
        Ok(Self(Arc::clone(store.credentials())))
    }

    /// An access token.
    pub(in crate::target) async fn bearer(&self) -> Result<String, Cause> {
        let credential = self.0.get_credential().await.map_err(|error| Self::SERVICE.cause(&error))?;
        Ok(credential.bearer.clone())
    }

    pub(in crate::target) fn hint(cause: &Cause) -> Option<String> {
        Self::SERVICE.hint(cause)
    }

    /// The variables that the credentials come from.
    pub(in crate::target) fn variables() -> &'static str {
        Self::SERVICE.credentials()
    }
}

/// The account key under the variable name that `az storage` reads.
#[expect(clippy::disallowed_methods, reason = "credentials come from the environment alone, and stay here")]
fn key_of_az() -> Option<String> {
    std::env::var("AZURE_STORAGE_KEY").ok().filter(|key| !key.is_empty())
}

/// The one kind of application default credentials that the builder cannot read, unless other credentials
/// take precedence.
fn federation(
    builder: &GoogleCloudStorageBuilder,
    connections: &Connections,
) -> Result<Option<Federation>, String> {
    use GoogleConfigKey::{ApplicationCredentials, BearerToken, ServiceAccount, ServiceAccountKey};
    let before = [BearerToken, ServiceAccount, ServiceAccountKey];
    let is_free = before.iter().all(|key| builder.get_config_value(key).is_none());
    match builder.get_config_value(&ApplicationCredentials).filter(|_| is_free) {
        Some(file) => Federation::of_file(Path::new(&file), connections),
        None => Ok(None),
    }
}

/// Omits the store, which holds credentials.
impl fmt::Debug for Opened {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Opened").field("address", &self.address).finish_non_exhaustive()
    }
}

/// A service other than the cloud's own.
struct Endpoint {
    /// Without a trailing `/`.
    url: String,
    /// Whether connections are unencrypted.
    plain: bool,
}

impl Endpoint {
    fn new(url: &Url) -> Result<Self, Cause> {
        let plain = checked(url)?.scheme() == "http";
        Ok(Self { url: url.as_str().trim_end_matches('/').to_owned(), plain })
    }
}

/// Source: "Virtual hosting of buckets" in the user guide of Amazon S3.
fn s3_address(bucket: &str, setting: impl Fn(AmazonS3ConfigKey) -> Option<String>) -> String {
    use AmazonS3ConfigKey::{Endpoint, Region, S3Endpoint, VirtualHostedStyleRequest};
    let endpoint = setting(S3Endpoint).or_else(|| setting(Endpoint));
    let region = setting(Region).unwrap_or_else(|| "us-east-1".to_owned());
    match endpoint {
        Some(endpoint) if setting(VirtualHostedStyleRequest).as_deref() == Some("true") => endpoint,
        Some(endpoint) => below(&endpoint, bucket),
        // The certificate of S3 covers only one label before `.s3`.
        None if bucket.contains('.') => below(&format!("https://s3.{region}.amazonaws.com"), bucket),
        None => format!("https://{bucket}.s3.{region}.amazonaws.com"),
    }
}

fn below(address: &str, name: &str) -> String {
    format!("{}/{name}", address.trim_end_matches('/'))
}

#[cfg(test)]
mod tests;
