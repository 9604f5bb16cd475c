//! The JWKS that a provider of Google's workload identity federation keeps in its own configuration.
//!
//! Google then verifies tokens of an issuer that it cannot reach, and reads no other document. The provider has
//! neither a version nor room for an owner, and its API no conditional write. So a write rests on what was read just
//! before it, and is read back: another write is noticed unless it falls between that reading and our own write, where
//! it is lost. Nobody else should write there.
//! Sources: "projects.locations.workloadIdentityPools.providers" of the IAM API (`get`, `patch`, `operations.get`);
//! AIP-151 (operations); AIP-193 (errors).

use std::{fmt, time::Duration};

use reqwest::{Method, Response, StatusCode, header::CONTENT_TYPE, header::RETRY_AFTER};
use serde::Deserialize;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tokio::time::{Instant, sleep};
use url::Url;

use crate::{
    core::{
        jose::{json::is_same, publication::Document, publication::sha256_hex},
        target_plan::Stored,
        text::redaction::brief,
    },
    http_client::{REQUEST_TIMEOUT, SharedClient},
};

use super::{
    Change, Entry, Version, VersionOf,
    connections::{Connections, MAX_WAIT, checked},
    error::{Cause, Failure},
    object::GoogleAccount,
    public::{bounded, failed},
};

/// The field of a provider that has the JWKS.
pub(super) const FIELD: &str = "oidc.jwksJson";

/// How often a request to a busy service is sent again, as for the object stores.
const RETRIES: u32 = 3;
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// Longest wait for an operation: the next pass sees what became of it.
const OPERATION_TIMEOUT: Duration = REQUEST_TIMEOUT.saturating_mul(2);
/// How often the provider is read again while it still shows what was replaced: Google does not document that a read
/// shows a write that is done.
const STALE_READS: u32 = 4;

pub(super) struct Provider {
    /// From `projects/` on.
    name: String,
    /// The IAM API, without a trailing `/`.
    service: String,
    client: SharedClient,
    account: GoogleAccount,
}

impl fmt::Debug for Provider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Provider").field("name", &self.name).finish_non_exhaustive()
    }
}

/// SHA-256 over issuer and JWKS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ProviderVersion([u8; 32]);

impl ProviderVersion {
    pub(super) fn mark(&self) -> String {
        format!("{:?}", self.0)
    }
}

/// What a provider trusts.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Oidc {
    issuer_uri: String,
    #[serde(default)]
    jwks_json: String,
}

impl Oidc {
    /// `None` without a JWKS: Google reads that of the issuer.
    fn version(&self) -> Option<Version> {
        let Self { issuer_uri, jwks_json } = self;
        let mut hasher = Sha256::new();
        // The length separates issuer and JWKS.
        hasher.update((issuer_uri.len() as u64).to_be_bytes());
        hasher.update(issuer_uri);
        hasher.update(jwks_json);
        let version = Version(VersionOf::Provider(ProviderVersion(hasher.finalize().into())));
        (!jwks_json.is_empty()).then_some(version)
    }
}

impl Provider {
    pub(super) fn new(
        name: String,
        endpoint: Option<&Url>,
        connections: &Connections,
    ) -> Result<Self, Cause> {
        let service = match endpoint {
            Some(url) => checked(url)?.as_str().trim_end_matches('/'),
            None => "https://iam.googleapis.com",
        };
        let client = connections.to(service.split(':').next().unwrap_or_default());
        Ok(Self { name, service: service.to_owned(), client, account: GoogleAccount::new(connections)? })
    }

    pub(super) async fn version(&self, document: Document) -> Result<Option<Version>, Cause> {
        match document {
            Document::Jwks => Ok(self.get().await?.version()),
            Document::Discovery => Ok(None),
        }
    }

    /// The JWKS, and the issuer that is trusted with it.
    pub(super) async fn read(&self) -> Result<(Option<Entry>, String), Cause> {
        let oidc = self.get().await?;
        let entry = oidc.version().map(|version| Entry {
            stored: Stored { bytes: oidc.jwks_json.into_bytes(), lineage: None, headers: None },
            sequence: None,
            version,
        });
        Ok((entry, oidc.issuer_uri))
    }

    pub(super) async fn write(
        &self,
        change: &Change,
        expected: Option<&Version>,
    ) -> Result<Version, Failure> {
        let Oidc { issuer_uri, .. } = self.unchanged(expected).await?;
        let jwks_json = String::from_utf8_lossy(&change.bytes);
        let provider = json!({"oidc": {"issuerUri": issuer_uri, "jwksJson": jwks_json}});
        let path = format!("{}?updateMask={FIELD}", self.name);
        let operation = self.ask(Method::PATCH, &path, Some(&provider)).await.map_err(not_written)?;
        self.finish(operation).await.map_err(not_written)?;
        let mut back = self.get().await?;
        for attempt in 0..STALE_READS {
            if back.version().as_ref() != expected || is_same(back.jwks_json.as_bytes(), &change.bytes) {
                break;
            }
            sleep(pause(attempt)).await;
            back = self.get().await?;
        }
        match back.version() {
            Some(version) if is_same(back.jwks_json.as_bytes(), &change.bytes) => Ok(version),
            version if version.as_ref() != expected => Err(Failure::LostRace),
            _ => {
                let (actual, expected) = (sha256_hex(back.jwks_json.as_bytes()), sha256_hex(&change.bytes));
                Err(Cause::NotKept { what: "SHA-256", actual, expected }.into())
            }
        }
    }

    async fn unchanged(&self, expected: Option<&Version>) -> Result<Oidc, Failure> {
        let oidc = self.get().await?;
        if oidc.version().as_ref() == expected { Ok(oidc) } else { Err(Failure::LostRace) }
    }

    async fn get(&self) -> Result<Oidc, Cause> {
        let mut provider = self.ask(Method::GET, &self.name, None).await?;
        if provider["state"] == "DELETED" {
            return Err(ProviderFault::Deleted.into());
        }
        match provider["oidc"].take() {
            Value::Null => Err(ProviderFault::NotOidc.into()),
            oidc => serde_json::from_value(oidc)
                .map_err(|error| Cause::Other(format!("the provider has an odd `oidc`: {error}"))),
        }
    }

    /// Waits until a write has taken effect.
    async fn finish(&self, mut operation: Value) -> Result<(), Cause> {
        let started = Instant::now();
        for attempt in 0.. {
            if operation["done"] == true {
                let error = &operation["error"];
                let code = error["code"].as_i64().map(|code| format!("operation failed with code {code}"));
                return code.map_or(Ok(()), |code| Err(refused(code, error)));
            }
            if started.elapsed() > OPERATION_TIMEOUT {
                return Err(ProviderFault::Unfinished.into());
            }
            sleep(pause(attempt)).await;
            let name = operation["name"].as_str().unwrap_or_default();
            // The name becomes part of a URL to which the access token is sent.
            let id = name.strip_prefix(&format!("{}/operations/", self.name)).unwrap_or_default();
            if id.is_empty() || !id.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-') {
                return Err(ProviderFault::OddOperation { name: brief(name).into_owned() }.into());
            }
            operation = self.ask(Method::GET, name, None).await?;
        }
        unreachable!("the time limit ends it")
    }

    /// Sends a request, and sends it again while the service is busy.
    async fn ask(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Value, Cause> {
        let client = self.client.get().await?;
        let url = format!("{}/v1/{path}", self.service);
        for attempt in 0.. {
            let mut request = client.request(method.clone(), &url).bearer_auth(self.account.bearer().await?);
            if let Some(body) = body {
                request = request.header(CONTENT_TYPE, "application/json").body(body.to_string());
            }
            let wait = match answered(request.send().await).await {
                Ok((StatusCode::OK, _, bytes)) => {
                    return serde_json::from_slice(&bytes)
                        .map_err(|_| Cause::Other("the answer is not JSON".to_owned()));
                }
                Ok((status, wait, _)) if attempt < RETRIES && is_busy(status) => wait,
                Ok((status, _, bytes)) => return Err(self.cause(status, &bytes)),
                // A write may have taken effect.
                Err(Cause::TimedOut) => return Err(Cause::TimedOut),
                Err(_) if attempt < RETRIES && method == Method::GET => None,
                Err(cause) => return Err(cause),
            };
            sleep(wait.unwrap_or_else(|| pause(attempt)).min(MAX_WAIT)).await;
        }
        unreachable!("the number of retries ends it")
    }

    fn cause(&self, status: StatusCode, body: &[u8]) -> Cause {
        let mut answer: Value = serde_json::from_slice(body).unwrap_or_default();
        let error = answer["error"].take();
        let code = error["status"].as_str().map(|code| brief(code).into_owned());
        match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Cause::AccessDenied { code },
            StatusCode::NOT_FOUND => {
                Cause::NoContainer { kind: "workload identity pool provider", name: self.name.clone() }
            }
            StatusCode::BAD_REQUEST => refused(code.unwrap_or_else(|| status.to_string()), &error),
            _ => Cause::Answer { code: code.unwrap_or_else(|| status.to_string()) },
        }
    }

    pub(super) fn hint(&self, cause: &Cause) -> Option<String> {
        match cause {
            Cause::AccessDenied { code: Some(code) } if code == "UNAUTHENTICATED" => {
                Some(format!("check {}", GoogleAccount::variables()))
            }
            Cause::AccessDenied { .. } => Some(format!(
                "give the writer `iam.workloadIdentityPoolProviders.get` and \
                 `iam.workloadIdentityPoolProviders.update` in project `{}`",
                self.name.split('/').nth(1).unwrap_or_default()
            )),
            Cause::NoContainer { .. } => {
                let ids: Vec<_> = self.name.split('/').collect();
                Some(format!(
                    "create it: `gcloud iam workload-identity-pools providers create-oidc {} --project={} \
                     --location=global --workload-identity-pool={} --issuer-uri=ISSUER \
                     --attribute-mapping=google.subject=assertion.sub`",
                    ids[7], ids[1], ids[5]
                ))
            }
            cause => GoogleAccount::hint(cause),
        }
    }
}

/// The status, how long to wait before the next request, and the body.
async fn answered(
    response: Result<Response, reqwest::Error>,
) -> Result<(StatusCode, Option<Duration>, bytes::Bytes), Cause> {
    let response = response.map_err(|error| failed(&error))?;
    let status = response.status();
    let wait = response.headers().get(RETRY_AFTER).and_then(|it| it.to_str().ok()?.parse().ok());
    Ok((status, wait.map(Duration::from_secs), bounded(response).await?))
}

fn is_busy(status: StatusCode) -> bool {
    status == StatusCode::TOO_MANY_REQUESTS || status.is_server_error()
}

fn pause(attempt: u32) -> Duration {
    FIRST_PAUSE * 2_u32.pow(attempt.min(4))
}

fn refused(code: String, error: &Value) -> Cause {
    Cause::Refused { code, message: brief(error["message"].as_str().unwrap_or("no message")).into_owned() }
}

/// Google aborts one of two writes at once.
fn not_written(cause: Cause) -> Failure {
    match cause {
        Cause::Answer { code } if code == "ABORTED" => Failure::LostRace,
        cause => Failure::Cause(cause),
    }
}

/// The provider cannot keep a JWKS.
#[derive(Debug, thiserror::Error)]
pub(super) enum ProviderFault {
    #[error("it has no `oidc`, so it is a provider of another kind")]
    NotOidc,
    #[error("it is deleted")]
    Deleted,
    #[error("the operation has not ended within {} s", OPERATION_TIMEOUT.as_secs())]
    Unfinished,
    #[error("the operation has the odd name `{name}`")]
    OddOperation { name: String },
}

impl ProviderFault {
    pub(super) fn hint(&self) -> String {
        match self {
            Self::NotOidc => "name a provider that was made with `create-oidc`",
            Self::Deleted => "restore it: `gcloud iam workload-identity-pools providers undelete`",
            Self::Unfinished => "nothing needs to be done: the next pass reads what became of it",
            Self::OddOperation { .. } => "check `endpoint`: the answer is not one of Google's IAM API",
        }
        .to_owned()
    }
}
