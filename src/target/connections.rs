//! The HTTP clients that all targets share.
//!
//! One TLS set-up and one pool serve thousands of targets. `object_store` would make a client of its
//! own for each of them, with its own copy of the system's certificates.

use std::{sync::Arc, time::Duration};

use futures_util::future::BoxFuture;
use object_store::{
    ClientConfigKey, ClientOptions,
    client::{HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpService},
};
use reqwest::{Client, StatusCode, header::RETRY_AFTER, redirect::Policy};
use tokio::{sync::OnceCell, task::spawn_blocking};
use url::Url;

use super::{error::Cause, lanes::Lanes};

/// Longest that one request may take, its body included. The documents are small: a service that
/// needs longer is ill, and the next pass asks again.
pub(super) const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest that a connection may take to open, TLS included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest wait for a busy service within one pass; the next pass asks again.
const MAX_WAIT: Duration = Duration::from_secs(5);

/// The connections that all targets share.
///
/// Each is made for the first request that needs it, on a thread of its own: loading the certificates of
/// the system takes longer than all else that a start takes, and directories need none.
#[derive(Clone, Debug, Default)]
pub struct Connections {
    clients: Arc<Clients>,
    lanes: Lanes,
}

#[derive(Debug, Default)]
struct Clients {
    encrypted: OnceCell<Client>,
    plain: OnceCell<Client>,
}

/// The client for one kind of address, made when it is first needed.
#[derive(Clone, Debug)]
pub(super) struct SharedClient {
    clients: Arc<Clients>,
    plain: bool,
}

impl Connections {
    /// The client for an address; without encryption only where the address says `http`.
    pub(super) fn to(&self, scheme: &str) -> SharedClient {
        SharedClient { clients: Arc::clone(&self.clients), plain: scheme == "http" }
    }
}

impl SharedClient {
    /// # Errors
    ///
    /// Fails when the certificates of the system cannot be loaded; the next request tries again.
    pub(super) async fn get(&self) -> Result<&Client, CannotConnect> {
        let plain = self.plain;
        let client = if plain { &self.clients.plain } else { &self.clients.encrypted };
        let make =
            async || spawn_blocking(move || new_client(plain)).await.expect("making a client does not panic");
        client.get_or_try_init(make).await.map_err(CannotConnect)
    }
}

fn new_client(plain: bool) -> reqwest::Result<Client> {
    let client = Client::builder()
        .user_agent(concat!(env!("CARGO_PKG_NAME"), "/", env!("CARGO_PKG_VERSION")))
        // Credentials must not travel on, and relying parties do not follow redirects either.
        .redirect(Policy::none())
        .connect_timeout(CONNECT_TIMEOUT)
        .timeout(REQUEST_TIMEOUT);
    // What answers without encryption is near; a proxy would only read the credentials that the metadata
    // service hands out.
    if plain { client.no_proxy() } else { client.https_only(true) }.build()
}

/// Heeds nothing of the options but whether `http` is allowed: time limits are those of
/// [`Connections`], proxies and certificates those of the environment.
impl HttpConnector for Connections {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        let plain = options.get_config_value(&ClientConfigKey::AllowHttp).as_deref() == Some("true");
        let client = self.to(if plain { "http" } else { "https" });
        Ok(self.lanes.over(HttpClient::new(Patient(client))))
    }
}

/// Gives a busy service the time that it asks for: `object_store` asks again after a time of its own,
/// which starts when it has the answer.
#[derive(Debug)]
struct Patient(SharedClient);

impl HttpService for Patient {
    fn call<'a, 'b>(&'a self, request: HttpRequest) -> BoxFuture<'b, Result<HttpResponse, HttpError>>
    where
        'a: 'b,
    {
        Box::pin(async move {
            let client = self.0.get().await.map_err(|error| HttpError::new(HttpErrorKind::Connect, error))?;
            let response = client.call(request).await?;
            if let Some(wait) = asked_to_wait(&response) {
                tokio::time::sleep(wait.min(MAX_WAIT)).await;
            }
            Ok(response)
        })
    }
}

fn asked_to_wait(response: &HttpResponse) -> Option<Duration> {
    let is_busy = [StatusCode::TOO_MANY_REQUESTS, StatusCode::SERVICE_UNAVAILABLE];
    let header = response.headers().get(RETRY_AFTER).filter(|_| is_busy.contains(&response.status()))?;
    header.to_str().ok()?.parse().ok().map(Duration::from_secs)
}

/// The HTTP clients cannot be made.
#[derive(Debug, thiserror::Error)]
#[error("cannot prepare HTTPS connections")]
pub(super) struct CannotConnect(#[source] reqwest::Error);

/// The innermost text of a failed connection; the layers around it only say that it failed.
pub(super) fn innermost(error: &(dyn std::error::Error + 'static)) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}

/// Lets an address through that HTTP can reach and that holds no credential.
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
    // No more is shown: the rest may be a credential.
    let address = format!("{}://{}", url.scheme(), url.host_str().unwrap_or_default());
    Err(Cause::Address { address, reason })
}

#[cfg(test)]
mod tests;
