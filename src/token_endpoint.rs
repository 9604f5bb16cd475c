//! Asks the token endpoint of Microsoft Entra (`POST /TENANT/oauth2/v2.0/token`).

use std::time::{Duration, Instant};

use reqwest::{
    StatusCode,
    header::{ACCEPT, CONTENT_TYPE, RETRY_AFTER},
};
use url::{Url, form_urlencoded};
use zeroize::Zeroize as _;

use crate::{
    core::{
        entra::{Cloud, TokenAnswer, may_receive_tokens},
        text::Hint,
    },
    http_client::{self, BodyError, ClientError, HttpClients, SharedClient, Trust, innermost},
};

/// Largest answer, in bytes: a token has a few thousand.
const MAX_ANSWER: u64 = 256 * 1024;

/// The token endpoint of one tenant.
#[derive(Clone, Debug)]
pub struct TokenEndpoint {
    client: SharedClient,
    url: Url,
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
        let foreign = || TokenEndpointError::Foreign { url: url.to_owned() };
        let url = Url::parse(url).map_err(|_| foreign())?;
        if !may_receive_tokens(&url) {
            return Err(foreign());
        }
        Ok(Self { client: HttpClients::default().to(url.scheme(), trust), url })
    }

    /// Sends a form, once.
    ///
    /// # Errors
    ///
    /// Fails when there is no answer of Entra.
    pub async fn ask(&self, form: &[(&str, &str)]) -> Result<Timed, TokenEndpointError> {
        let silent = |error: &reqwest::Error| TokenEndpointError::NoAnswer {
            host: self.url.host_str().unwrap_or_default().to_owned(),
            reason: innermost(error),
        };
        let client = self.client.get().await?;
        let begun = Instant::now();
        let body = form_urlencoded::Serializer::new(String::new()).extend_pairs(form).finish();
        let request = client
            .post(self.url.clone())
            .header(ACCEPT, "application/json")
            .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body(body);
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
            BodyError::TooLong | BodyError::Encoded { .. } => TokenEndpointError::Strange { status },
        })?;
        let answer = TokenAnswer::parse(&body);
        // It holds a token.
        if let Ok(mut body) = body.try_into_mut() {
            body.zeroize();
        }
        Ok(Timed { answer: answer.ok_or(TokenEndpointError::Strange { status })?, took })
    }
}

#[derive(Debug, thiserror::Error)]
pub enum TokenEndpointError {
    #[error("`{url}` is no token endpoint of Microsoft Entra")]
    Foreign { url: String },
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error("`{host}` does not answer: {reason}")]
    NoAnswer { host: String, reason: String },
    #[error("the token endpoint is busy: status {}", status.as_u16())]
    Busy { status: StatusCode, retry_after: Option<u64> },
    #[error("the answer is not one of Microsoft Entra: status {}", status.as_u16())]
    Strange { status: StatusCode },
}

impl Hint for TokenEndpointError {
    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Foreign { .. } => {
                let hosts: Vec<_> =
                    Cloud::ALL.iter().map(|cloud| format!("`https://{}`", cloud.login_hosts()[0])).collect();
                format!("the service-account token is sent there: pass one of {}", hosts.join(", "))
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
