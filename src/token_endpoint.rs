//! Asks the token endpoint of Microsoft Entra (`POST /TENANT/oauth2/v2.0/token`), or those of AWS and Google Cloud.

use std::time::{Duration, Instant};

use reqwest::{
    RequestBuilder, StatusCode,
    header::{ACCEPT, CONTENT_TYPE, RETRY_AFTER},
};
use url::{Url, form_urlencoded};
use zeroize::Zeroizing;

use crate::{
    core::{
        entra::{Cloud, TokenAnswer, is_on_this_machine, may_receive_tokens},
        jose::token::Token,
        sts::{aws, google},
        text::Hint,
    },
    http_client::{self, BodyError, ClientError, HttpClients, SharedClient, Trust, innermost},
};

/// Largest answer, in bytes: a token has a few thousand.
const MAX_ANSWER: u64 = 256 * 1024;

/// Who exchanges tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenService {
    Entra,
    Aws,
    Google,
}

impl TokenService {
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Entra => "Microsoft Entra",
            Self::Aws => "AWS",
            Self::Google => "Google Cloud",
        }
    }

    fn may_receive_tokens(self, url: &Url) -> bool {
        let is_host = match self {
            Self::Entra => return may_receive_tokens(url),
            Self::Aws => aws::is_host,
            Self::Google => google::is_host,
        };
        let is_its_own =
            url.scheme() == "https" && url.port().is_none() && url.host_str().is_some_and(is_host);
        let has_user = !url.username().is_empty() || url.password().is_some();
        !has_user && (is_its_own || is_on_this_machine(url))
    }

    fn endpoints(self) -> String {
        match self {
            Self::Entra => {
                let url = |cloud: &Cloud| format!("`https://{}`", cloud.login_hosts()[0]);
                Cloud::ALL.iter().map(url).collect::<Vec<_>>().join(", ")
            }
            Self::Aws => "`https://sts.amazonaws.com`, `https://sts.REGION.amazonaws.com`".to_owned(),
            Self::Google => "`https://sts.googleapis.com`".to_owned(),
        }
    }
}

/// The token endpoint of one tenant, or of another service.
#[derive(Clone, Debug)]
pub struct TokenEndpoint {
    service: TokenService,
    client: SharedClient,
    url: Url,
}

/// An answer that is not parsed yet.
#[derive(Debug)]
pub struct RawAnswer {
    pub status: StatusCode,
    pub body: Zeroizing<Vec<u8>>,
    pub took: Duration,
}

/// An answer, and how long it took.
#[derive(Debug)]
pub struct Timed {
    pub answer: TokenAnswer,
    pub took: Duration,
}

impl TokenEndpoint {
    /// The endpoint at this URL. Tokens are sent to it: it is one of Entra, or on this machine.
    ///
    /// # Errors
    ///
    /// Fails for any other host, and without https.
    pub fn new(url: &str, trust: Trust) -> Result<Self, TokenEndpointError> {
        Self::of(TokenService::Entra, url, trust)
    }

    /// The endpoint of any service at this URL, by the same rule.
    ///
    /// # Errors
    ///
    /// As [`TokenEndpoint::new`].
    pub fn of(service: TokenService, url: &str, trust: Trust) -> Result<Self, TokenEndpointError> {
        let foreign = || TokenEndpointError::Foreign { url: url.to_owned(), service };
        let url = Url::parse(url).map_err(|_| foreign())?;
        if !service.may_receive_tokens(&url) {
            return Err(foreign());
        }
        Ok(Self { service, client: HttpClients::default().to(url.scheme(), trust), url })
    }

    /// Sends a form, once.
    ///
    /// # Errors
    ///
    /// Fails when there is no answer of Entra.
    pub async fn ask(&self, form: &[(&str, &str)]) -> Result<Timed, TokenEndpointError> {
        let RawAnswer { status, body, took } = self.post(form).await?;
        let answer = TokenAnswer::parse(&body).ok_or(self.strange(status))?;
        Ok(Timed { answer, took })
    }

    /// Sends a form, once.
    ///
    /// # Errors
    ///
    /// Fails when there is no answer.
    pub async fn post(&self, form: &[(&str, &str)]) -> Result<RawAnswer, TokenEndpointError> {
        let body = form_urlencoded::Serializer::new(String::new()).extend_pairs(form).finish();
        let request = self.client.get().await?.post(self.url.clone());
        self.send(request.header(CONTENT_TYPE, "application/x-www-form-urlencoded").body(body)).await
    }

    /// Sends JSON as the holder of a token, once.
    ///
    /// # Errors
    ///
    /// Fails when there is no answer.
    pub async fn post_json(&self, bearer: &Token, body: String) -> Result<RawAnswer, TokenEndpointError> {
        let request = self.client.get().await?.post(self.url.clone()).bearer_auth(bearer.as_str());
        self.send(request.header(CONTENT_TYPE, "application/json").body(body)).await
    }

    /// The error for an answer that is none of the service.
    #[must_use]
    pub fn strange(&self, status: StatusCode) -> TokenEndpointError {
        TokenEndpointError::Strange { status, service: self.service }
    }

    async fn send(&self, request: RequestBuilder) -> Result<RawAnswer, TokenEndpointError> {
        let silent = |error: &reqwest::Error| TokenEndpointError::NoAnswer {
            host: self.url.host_str().unwrap_or_default().to_owned(),
            reason: innermost(error),
        };
        let begun = Instant::now();
        // AWS answers XML, unless it is asked for JSON, which it does not document.
        let request = match self.service {
            TokenService::Aws => request,
            TokenService::Entra | TokenService::Google => request.header(ACCEPT, "application/json"),
        };
        let response = request.send().await.map_err(|error| silent(&error))?;
        let status = response.status();
        let retry_after = response.headers().get(RETRY_AFTER).and_then(|it| it.to_str().ok()?.parse().ok());
        let body = http_client::body(response, MAX_ANSWER).await;
        let took = begun.elapsed();
        if status == StatusCode::TOO_MANY_REQUESTS || status.is_server_error() {
            return Err(TokenEndpointError::Busy { status, retry_after });
        }
        let body = body.map_err(|error| match error {
            BodyError::Failed(error) => silent(&error),
            BodyError::TooLong | BodyError::Encoded { .. } => self.strange(status),
        })?;
        // It may hold a token.
        Ok(RawAnswer { status, body: Zeroizing::new(body.into()), took })
    }
}

#[derive(Debug, thiserror::Error)]
pub enum TokenEndpointError {
    #[error("`{url}` is no token endpoint of {}", service.name())]
    Foreign { url: String, service: TokenService },
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error("`{host}` does not answer: {reason}")]
    NoAnswer { host: String, reason: String },
    #[error("the token endpoint is busy: status {}", status.as_u16())]
    Busy { status: StatusCode, retry_after: Option<u64> },
    #[error("the answer is not one of {}: status {}", service.name(), status.as_u16())]
    Strange { status: StatusCode, service: TokenService },
}

impl Hint for TokenEndpointError {
    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Foreign { service, .. } => {
                format!("the service-account token is sent there: pass one of {}", service.endpoints())
            }
            Self::Client(error) => return error.hint(),
            Self::NoAnswer { .. } => {
                "check the network: a proxy is taken from `HTTPS_PROXY`, a private authority from `--ca-file`"
                    .to_owned()
            }
            Self::Busy { retry_after: Some(seconds), .. } => format!("try again in {seconds} s"),
            Self::Busy { retry_after: None, .. } => "try again in a minute".to_owned(),
            Self::Strange { .. } => {
                "a proxy or gateway has answered: ask from another network, or let it pass".to_owned()
            }
        })
    }
}
