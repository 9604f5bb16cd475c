//! Reads from one API server which keys verify its tokens, which issuer it writes, and which key signs now.
//!
//! One value is one instance. During a rollout the instances of a control plane may have different keys, so
//! the caller creates one value per instance and merges the results.

mod error;

use std::time::Duration;

use http::Method;
use k8s_openapi::api::authentication::v1::{SelfSubjectReview, TokenRequest, TokenRequestSpec};

pub use self::error::ApiServerError;
use self::error::hint_for_status;
use super::{Fetched, foreign_kids};
use crate::{
    core::{
        jose::{
            discovery::ReceivedDiscovery,
            issuer::{DISCOVERY_PATH, JWKS_PATH},
            jwk_set::{InvalidJwks, ReceivedJwks},
            kid::Kid,
            token::{Token, UnverifiedToken},
        },
        service_account::ServiceAccount,
    },
    kubernetes::{Access, Answer, Connection, KubernetesError, Request},
};

/// Audience of a probe token: no service accepts it, so the token is worthless.
const PROBE_AUDIENCE: &str = "signpost-probe";
/// Shortest lifetime that Kubernetes gives a token.
/// Source: `minExpirationSeconds` in `kubernetes/pkg/apis/authentication/validation/validation.go`.
const PROBE_LIFETIME: Duration = Duration::from_mins(10);

#[derive(Debug)]
pub struct ApiServer {
    name: String,
    connection: Connection,
}

/// The key that signs now, and the issuer it signs for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probe {
    pub kid: Option<Kid>,
    pub issuer: Option<String>,
}

impl ApiServer {
    /// Sends no request before the first call: a kubeconfig that is missing for now fails a fetch, not the
    /// start.
    #[must_use]
    pub fn new(name: String, access: Access) -> Self {
        Self { name, connection: Connection::new(access) }
    }

    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Resolves once an open connection is closed: most often the API server restarted.
    pub async fn lost(&self) {
        self.connection.lost().await;
    }

    /// Closes the open connection.
    pub async fn reconnect(&self) {
        self.connection.reconnect().await;
    }

    /// Reads the JWKS, with one request unless the credential is refused.
    ///
    /// # Errors
    ///
    /// Fails when there is no answer in time, or one that is not a JWKS with at least one key.
    pub async fn fetch(&self) -> Result<Fetched, ApiServerError> {
        let request = Request::get(format!("/{JWKS_PATH}"));
        let answer = self.ask(&request, None).await?;
        let received = ReceivedJwks::parse(&answer.body).map_err(|source| match source {
            InvalidJwks::NotJson(_) => answer.not_json(&request).into(),
            source => ApiServerError::Jwks(source),
        })?;
        let ReceivedJwks { keys, left_out } = received;
        let notes = foreign_kids(&keys).chain(answer.note).collect();
        Ok(Fetched { keys, left_out, notes, server_time: answer.server_time, ..Fetched::default() })
    }

    /// Reads the issuer that this API server writes into tokens, from its discovery document.
    ///
    /// # Errors
    ///
    /// Fails when there is no answer in time, or one that is not a discovery document.
    pub async fn issuer(&self) -> Result<String, ApiServerError> {
        let request = Request::get(format!("/{DISCOVERY_PATH}"));
        let answer = self.ask(&request, None).await?;
        if serde_json::from_slice::<serde::de::IgnoredAny>(&answer.body).is_err() {
            return Err(answer.not_json(&request).into());
        }
        Ok(ReceivedDiscovery::parse(&answer.body)?.issuer)
    }

    /// Reads our own identity; `None` when it is not a service account.
    ///
    /// # Errors
    ///
    /// Fails when there is no answer in time, or one that is not a `SelfSubjectReview`.
    pub async fn service_account(&self) -> Result<Option<ServiceAccount>, ApiServerError> {
        let path = "/apis/authentication.k8s.io/v1/selfsubjectreviews".to_owned();
        let request = Request::post(path, &SelfSubjectReview::default());
        let answer = self.ask(&request, None).await?;
        let review: SelfSubjectReview = answer.json(&request)?;
        let user = review.status.and_then(|status| status.user_info).and_then(|info| info.username);
        Ok(user.as_deref().and_then(ServiceAccount::of_subject))
    }

    /// Requests a token of a service account. Without `audiences` it is for the API server itself; without
    /// `lifetime` the API server chooses the lifetime.
    ///
    /// # Errors
    ///
    /// Fails when there is no answer in time, or one that is not a token.
    pub async fn mint(
        &self,
        account: &ServiceAccount,
        audiences: &[String],
        lifetime: Option<Duration>,
    ) -> Result<Token, ApiServerError> {
        let spec = TokenRequestSpec {
            audiences: Some(audiences.to_vec()),
            expiration_seconds: lifetime
                .map(|lifetime| i64::try_from(lifetime.as_secs()).unwrap_or(i64::MAX)),
            ..TokenRequestSpec::default()
        };
        let path =
            format!("/api/v1/namespaces/{}/serviceaccounts/{}/token", account.namespace(), account.name());
        let request = Request::post(path, &TokenRequest { spec: Some(spec), ..TokenRequest::default() });
        let answer = self.ask(&request, Some(account)).await?;
        let granted: TokenRequest = answer.json(&request)?;
        let token = granted.status.and_then(|status| status.token);
        token
            .map(Token::new)
            .ok_or_else(|| KubernetesError::Incomplete { request: request.to_string() }.into())
    }

    /// Requests a token that no service accepts, to see which key signs: a JWKS does not say.
    ///
    /// # Errors
    ///
    /// As [`Self::mint`], and when the token is not a JWT.
    pub async fn probe(&self, account: &ServiceAccount) -> Result<Probe, ApiServerError> {
        let token = self.mint(account, &[PROBE_AUDIENCE.to_owned()], Some(PROBE_LIFETIME)).await?;
        let token = UnverifiedToken::parse(token.as_str())?;
        Ok(Probe { kid: token.header().kid.clone(), issuer: token.issuer().map(str::to_owned) })
    }

    /// Sends a request; any status but success is an error.
    async fn ask(
        &self,
        request: &Request,
        account: Option<&ServiceAccount>,
    ) -> Result<Answer, ApiServerError> {
        let answer = self.connection.call(request).await?;
        if answer.status.is_success() {
            return Ok(answer);
        }
        let message = answer.message();
        let status = KubernetesError::Status {
            request: request.to_string(),
            status: answer.status,
            hint: hint_for_status(answer.status, request.method == Method::GET, account, message.as_deref()),
            message,
        };
        Err(status.into())
    }
}

#[cfg(test)]
mod tests;
