//! Connections to all stores and public URLs: shared clients, limited per server, with retries for busy
//! services.
//!
//! `object_store` would create a separate client for each target, each with its own copy of the system's
//! certificates.

use std::time::Duration;

use futures_util::future::BoxFuture;
use http::Uri;
use object_store::{
    ClientConfigKey, ClientOptions,
    client::{HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpService},
};
use reqwest::{Client, StatusCode, header::RETRY_AFTER};
use tokio::time::timeout;
use url::Url;

use super::{error::Cause, request_limits::RequestLimits};
use crate::http_client::{HttpClients, SharedClient, Trust, innermost};

/// Longest wait for a busy service within one pass; the next pass retries.
pub(super) const MAX_WAIT: Duration = Duration::from_secs(5);
/// Longest wait for a metadata service: it is on this machine, or there is none.
const METADATA_TIMEOUT: Duration = Duration::from_secs(2);
/// Metadata services of the clouds, which provide machine credentials; used when the environment has none.
const METADATA_SERVICES: [&str; 3] = ["169.254.169.254", "169.254.170.2", "metadata.google.internal"];
/// Paths of metadata requests, at whatever address the environment configures.
const METADATA_PATHS: [&str; 4] =
    ["/latest/api/token", "/latest/meta-data/", "/metadata/identity/oauth2/token", "/computeMetadata/"];

#[derive(Clone, Debug, Default)]
pub struct Connections {
    clients: HttpClients,
    trust: Trust,
    limits: RequestLimits,
}

impl Connections {
    #[must_use]
    pub fn new(clients: HttpClients) -> Self {
        Self { clients, ..Self::default() }
    }

    /// The same connections with other certificate authorities.
    pub(super) fn trusting(&self, trust: Trust) -> Self {
        Self { trust, ..self.clone() }
    }

    /// The client for an address; unencrypted only for `http`.
    pub(super) fn to(&self, scheme: &str) -> SharedClient {
        self.clients.to(scheme, self.trust.clone())
    }
}

/// Ignores all options except whether `http` is allowed: time limits are those of [`Connections`], proxies
/// and certificates those of the environment.
impl HttpConnector for Connections {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        let plain = options.get_config_value(&ClientConfigKey::AllowHttp).as_deref() == Some("true");
        let client = self.to(if plain { "http" } else { "https" });
        Ok(self.limits.over(HttpClient::new(RetryAfter(client))))
    }
}

/// Honours the retry delay that a busy service requests: `object_store` retries after a delay of its own,
/// which starts with the answer.
#[derive(Debug)]
struct RetryAfter(SharedClient);

impl HttpService for RetryAfter {
    fn call<'a, 'b>(&'a self, request: HttpRequest) -> BoxFuture<'b, Result<HttpResponse, HttpError>>
    where
        'a: 'b,
    {
        Box::pin(async move {
            let client = self.0.get().await.map_err(|error| HttpError::new(HttpErrorKind::Connect, error))?;
            if let Some(service) = metadata_service(request.uri()) {
                return credentials_of_the_machine(&client, request, service).await;
            }
            let response = client.call(request).await?;
            if let Some(wait) = asked_to_wait(&response) {
                tokio::time::sleep(wait.min(MAX_WAIT)).await;
            }
            Ok(response)
        })
    }
}

fn metadata_service(uri: &Uri) -> Option<String> {
    let host = uri.host()?;
    let is_one =
        METADATA_SERVICES.contains(&host) || METADATA_PATHS.iter().any(|path| uri.path().starts_with(path));
    is_one.then(|| host.to_owned())
}

/// Requests credentials from a metadata service. Without an answer, `object_store` reports no address, which
/// hides the reason: no credentials are configured.
async fn credentials_of_the_machine(
    client: &Client,
    request: HttpRequest,
    service: String,
) -> Result<HttpResponse, HttpError> {
    let failed = |kind, reason| HttpError::new(kind, NoMetadata { service: service.clone(), reason });
    // Only then `object_store` requests credentials of the first version, if the operator permits that.
    let falls_back = (request.uri().path() == METADATA_PATHS[0]).then_some(StatusCode::FORBIDDEN);
    match timeout(METADATA_TIMEOUT, client.call(request)).await {
        Err(_) => Err(failed(HttpErrorKind::Connect, "no answer".to_owned())),
        Ok(Err(error)) => Err(failed(error.kind(), innermost(&error))),
        Ok(Ok(response)) if is_refusal(response.status()) && falls_back != Some(response.status()) => {
            Err(failed(HttpErrorKind::Unknown, format!("it answered `{}`", response.status())))
        }
        Ok(Ok(response)) => Ok(response),
    }
}

/// Whether a retry is useless.
fn is_refusal(status: StatusCode) -> bool {
    status.is_client_error() && status != StatusCode::TOO_MANY_REQUESTS
}

/// The machine has no credentials.
#[derive(Clone, Debug, thiserror::Error)]
#[error("`{service}`: {reason}")]
pub(super) struct NoMetadata {
    pub(super) service: String,
    pub(super) reason: String,
}

fn asked_to_wait(response: &HttpResponse) -> Option<Duration> {
    let is_busy = [StatusCode::TOO_MANY_REQUESTS, StatusCode::SERVICE_UNAVAILABLE];
    let header = response.headers().get(RETRY_AFTER).filter(|_| is_busy.contains(&response.status()))?;
    header.to_str().ok()?.parse().ok().map(Duration::from_secs)
}

/// Accepts an HTTP address without credentials.
pub(super) fn checked(url: &Url) -> Result<&Url, Cause> {
    let reason = if !matches!(url.scheme(), "https" | "http") {
        format!("has scheme `{}`, expected `https`", url.scheme())
    } else if !url.username().is_empty() || url.password().is_some() {
        "has a user name or password, expected none".to_owned()
    } else if url.query().is_some() || url.fragment().is_some() {
        "has a query or a fragment, expected none".to_owned()
    } else {
        return Ok(url);
    };
    // The rest of the URL may be a credential.
    let address = format!("{}://{}", url.scheme(), url.host_str().unwrap_or_default());
    Err(Cause::Address { address, reason })
}

#[cfg(test)]
mod tests;
