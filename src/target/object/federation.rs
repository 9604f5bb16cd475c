//! Workload identity federation of Google Cloud: exchanges a token of another issuer for one of Google's.
//!
//! `object_store` supports service accounts, users and the metadata server. A cluster elsewhere has none of
//! them, only a projected token, and a file that describes where to exchange it.
//! Sources: AIP-4117 (the file); RFC 8693 and "Method: token" of the Security Token Service API;
//! `generateAccessToken` of the IAM Service Account Credentials API.

use std::{
    fmt,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::future::BoxFuture;
use object_store::{CredentialProvider, gcp::GcpCredential};
use reqwest::{RequestBuilder, StatusCode, header::CONTENT_TYPE};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Value, json};
use tokio::sync::Mutex;
use url::form_urlencoded;

use crate::{
    blocking,
    core::{
        sts::google::{self, ExternalAccount, TokenSource},
        tls_fault::TlsFault,
    },
    files,
    http_client::{SharedClient, innermost},
    target::connections::Connections,
};

/// Shortest remaining lifetime of a reused token, as for the other credentials.
const MIN_LIFE: Duration = Duration::from_mins(5);
/// Largest file, in bytes: a credential has some kilobytes.
const MAX_FILE: u64 = 1024 * 1024;
/// Default lifetime of an impersonated service account's token.
const IMPERSONATED: Duration = Duration::from_hours(1);

#[derive(Deserialize)]
struct Exchanged {
    access_token: String,
    expires_in: u64,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Impersonated {
    access_token: String,
}

/// Exchanges the token of a file, which is read again for every exchange.
pub(super) struct Federation {
    config: ExternalAccount,
    client: SharedClient,
    /// The last token, and until when it is reused.
    token: Mutex<Option<(Arc<GcpCredential>, Instant)>>,
}

/// Omits the token.
impl fmt::Debug for Federation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Federation").field("audience", &self.config.audience).finish_non_exhaustive()
    }
}

impl Federation {
    /// Reads the credential file; `None` when it is of another type, which `object_store` reads itself.
    ///
    /// The error describes the fault of the file.
    pub(super) fn of_file(path: &Path, connections: &Connections) -> Result<Option<Self>, String> {
        let unusable = |reason: String| format!("`{}` {reason}", path.display());
        let bytes =
            files::read(path, MAX_FILE).map_err(|error| unusable(format!("cannot be read: {error}")))?;
        let damaged = |error: serde_json::Error| unusable(format!("is not JSON: {error}"));
        let file: Value = serde_json::from_slice(&bytes).map_err(damaged)?;
        if file["type"] != "external_account" {
            return Ok(None);
        }
        let config = serde_json::from_value(file).map_err(|error| {
            unusable(format!("is of type `external_account` and cannot be used: {error}"))
        })?;
        let client = connections.to("https");
        Ok(Some(Self { config, client, token: Mutex::default() }))
    }

    async fn exchange(&self) -> Result<(Arc<GcpCredential>, Instant), NoToken> {
        let asked = Instant::now();
        let ExternalAccount { audience, subject_token_type, .. } = &self.config;
        let form = google::form(audience, subject_token_type, &self.subject_token().await?)
            .map(|(name, value)| (name, value.to_owned()));
        let form = form_urlencoded::Serializer::new(String::new()).extend_pairs(form).finish();
        let client =
            self.client.get().await.map_err(|error| NoToken(format!("{error}: {}", innermost(&error))))?;
        let url = &self.config.token_url;
        let request = client.post(url).header(CONTENT_TYPE, "application/x-www-form-urlencoded").body(form);
        let Exchanged { access_token, expires_in } = answered(url, request).await?;
        let Some(url) = &self.config.service_account_impersonation_url else {
            return Ok(credential(access_token, asked + Duration::from_secs(expires_in)));
        };
        let body =
            json!({"scope": [google::SCOPE], "lifetime": format!("{}s", IMPERSONATED.as_secs())}).to_string();
        let request = client.post(url).header(CONTENT_TYPE, "application/json").body(body);
        let Impersonated { access_token } = answered(url, request.bearer_auth(access_token)).await?;
        Ok(credential(access_token, asked + IMPERSONATED))
    }

    async fn subject_token(&self) -> Result<String, NoToken> {
        let TokenSource { file, format } = &self.config.credential_source;
        let unusable = |reason: &dyn fmt::Display| NoToken(format!("`{}` {reason}", file.display()));
        let text = blocking::read(file, MAX_FILE).await;
        let text = text.map_err(|error| unusable(&format_args!("cannot be read: {error}")))?;
        let text = str::from_utf8(&text).map_err(|_| unusable(&"is not UTF-8"))?;
        format.token_in(text).map_err(|name| unusable(&format_args!("has no text `{name}`")))
    }
}

fn credential(bearer: String, until: Instant) -> (Arc<GcpCredential>, Instant) {
    (Arc::new(GcpCredential { bearer }), until)
}

/// The answer of a token service; of a refusal only the code is reported.
async fn answered<T: DeserializeOwned>(url: &str, request: RequestBuilder) -> Result<T, NoToken> {
    let failed = |error: &reqwest::Error| {
        let reason = TlsFault::of(error).map_or_else(|| innermost(error), |fault| fault.to_string());
        NoToken(format!("`{url}` cannot be asked: {reason}"))
    };
    let response = request.send().await.map_err(|error| failed(&error))?;
    let status = response.status();
    let bytes = response.bytes().await.map_err(|error| failed(&error))?;
    if status == StatusCode::OK {
        // An answer that does not parse may hold a token.
        return serde_json::from_slice(&bytes)
            .map_err(|_| NoToken(format!("`{url}` answered without a token")));
    }
    let answer: Value = serde_json::from_slice(&bytes).unwrap_or_default();
    let code = [&answer["error"]["status"], &answer["error"]].into_iter().find_map(Value::as_str);
    let code = code.map_or_else(String::new, |code| format!(" (`{code}`)"));
    Err(NoToken(format!("`{url}` answered `{status}`{code}, expected `200 OK`")))
}

impl CredentialProvider for Federation {
    type Credential = GcpCredential;

    fn get_credential<'a, 'b>(&'a self) -> BoxFuture<'b, object_store::Result<Arc<GcpCredential>>>
    where
        'a: 'b,
    {
        Box::pin(async move {
            // Concurrent callers wait for the same token.
            let mut token = self.token.lock().await;
            match &*token {
                Some((credential, until)) if *until > Instant::now() + MIN_LIFE => Ok(Arc::clone(credential)),
                _ => {
                    let exchanged = self.exchange().await;
                    let (credential, _) = token.insert(exchanged.map_err(|error| {
                        object_store::Error::Generic { store: "Google Cloud Storage", source: error.into() }
                    })?);
                    Ok(Arc::clone(credential))
                }
            }
        })
    }
}

/// The cluster's token could not be exchanged.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct NoToken(pub(super) String);
