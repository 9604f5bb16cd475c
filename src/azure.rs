//! Microsoft Graph and Azure Resource Manager, as somebody who has signed in.
//!
//! A token goes to a host of the cloud that it is for, or to an address of this machine, and nowhere else.

use std::time::Duration;

use jiff::SignedDuration;
use reqwest::{
    Method as HttpMethod, Response, StatusCode,
    header::{ACCEPT, CONTENT_TYPE, RETRY_AFTER},
};
use serde_json::Value;
use tokio::{sync::Mutex, time::sleep};
use url::{Position, Url};

use crate::{
    core::{
        entra::{Cloud, Credential, credentials, is_guid},
        federation::{Holder, Method, NoHolder, ServiceAnswer, ServiceError, ServiceRequest, Write},
        jose::token::Token,
        text::{Hint, redaction::brief},
    },
    http_client::{self, BodyError, ClientError, HttpClients, SharedClient, Trust, innermost},
};

mod sign_in;

pub use sign_in::{SignIn, SignInError};

/// Largest answer, in bytes: a page of a hundred objects.
const MAX_ANSWER: u64 = 4 * 1024 * 1024;
/// Most pages of one list.
const MAX_PAGES: usize = 20;
/// Attempts to read what a busy service does not give at first.
const MAX_READS: u32 = 4;
/// Longest wait between them.
const MAX_PAUSE: Duration = Duration::from_secs(30);

/// Both services of one cloud.
pub struct Azure {
    client: SharedClient,
    sign_in: SignIn,
    trust: Trust,
    graph: Endpoint,
    resource_manager: Endpoint,
    /// Whether this cloud's Microsoft Graph has shown to know agent blueprints in its beta version only.
    wants_beta: Mutex<bool>,
}

/// A service, and the token for it once it has been got.
struct Endpoint {
    /// Scheme and host.
    url: String,
    scope: String,
    token: Mutex<Option<Token>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Service {
    Graph,
    ResourceManager,
}

impl Azure {
    /// The services of a cloud. An authority on this machine stands for both of them too.
    #[must_use]
    pub fn new(cloud: Cloud, sign_in: SignIn, local: Option<&str>, trust: Trust) -> Self {
        let endpoint = |host: &str| {
            let url = format!("https://{host}");
            Endpoint {
                scope: format!("{url}/.default"),
                url: local.map_or(url, |url| url.trim_end_matches('/').to_owned()),
                token: Mutex::default(),
            }
        };
        let scheme = if local.is_some_and(|url| url.starts_with("http:")) { "http" } else { "https" };
        Self {
            client: HttpClients::default().to(scheme, trust.clone()),
            sign_in,
            trust,
            graph: endpoint(cloud.graph_host()),
            resource_manager: endpoint(cloud.resource_manager_host()),
            wants_beta: Mutex::new(false),
        }
    }

    /// The identity of a client id.
    ///
    /// # Errors
    ///
    /// Fails when Microsoft Graph does not say, and when it holds no federated credentials.
    pub async fn holder(&self, client_id: &str) -> Result<Holder, AzureError> {
        let of_client = |error| AzureError::NoHolder { client_id: client_id.to_owned(), error };
        // It becomes a part of the path.
        if !is_guid(client_id) {
            return Err(of_client(NoHolder::NotAnId));
        }
        let application = self.optional(&format!("/applications(appId='{client_id}')")).await?;
        if let Some(holder) = application.as_ref().and_then(Holder::of_application) {
            return Ok(holder);
        }
        let principal = self.optional(&format!("/servicePrincipals(appId='{client_id}')")).await?;
        let principal = principal.ok_or_else(|| of_client(NoHolder::Missing))?;
        if !principal["id"].is_string() {
            return Err(AzureError::Strange { reason: "it is no service principal".to_owned() });
        }
        Holder::of_principal(&principal).map_err(of_client)
    }

    /// All federated credentials of an identity.
    ///
    /// # Errors
    ///
    /// Fails when the service does not list them.
    pub async fn credentials(&self, holder: &Holder) -> Result<Vec<Credential>, AzureError> {
        let pages = self.list(service_of(holder), &holder.list()).await?;
        let list = serde_json::to_vec(&pages).expect("JSON always serialises");
        credentials(&list).map_err(|error| AzureError::Strange { reason: error.to_string() })
    }

    /// Writes once; whatever comes back is an answer.
    pub async fn write(&self, holder: &Holder, write: &Write) -> ServiceAnswer {
        match self.call(service_of(holder), &holder.write(write)).await {
            Ok(_) => ServiceAnswer::Done,
            Err(error) => error.answer(),
        }
    }

    /// A list of Microsoft Graph, all pages.
    ///
    /// # Errors
    ///
    /// Fails when the service does not answer with one.
    pub async fn graph_list(&self, path: &str) -> Result<Vec<Value>, AzureError> {
        self.list(Service::Graph, &get(path)).await
    }

    /// An object of Microsoft Graph; `None` if there is none.
    ///
    /// # Errors
    ///
    /// Fails when Microsoft Graph does not say.
    pub async fn optional(&self, path: &str) -> Result<Option<Value>, AzureError> {
        match self.call(Service::Graph, &get(path)).await {
            Ok(object) => Ok(Some(object)),
            // Without a code it is not Microsoft Graph that has answered.
            Err(AzureError::Service(error)) if error.status == 404 && !error.code.is_empty() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// A request to Microsoft Graph.
    ///
    /// # Errors
    ///
    /// Fails when it refuses or does not answer.
    pub async fn graph(&self, request: &ServiceRequest) -> Result<Value, AzureError> {
        self.call(Service::Graph, request).await
    }

    async fn list(&self, service: Service, request: &ServiceRequest) -> Result<Vec<Value>, AzureError> {
        let mut found = Vec::new();
        let mut page = self.call(service, request).await?;
        for _ in 0..MAX_PAGES {
            let Some(Value::Array(items)) = page.get_mut("value").map(Value::take) else {
                return Err(AzureError::Strange { reason: "it is no list".to_owned() });
            };
            found.extend(items);
            let next = page.get("@odata.nextLink").or_else(|| page.get("nextLink")).and_then(Value::as_str);
            let Some(next) = next.filter(|it| !it.is_empty()) else { return Ok(found) };
            // The token is for this service: it goes to no other.
            let Some(path) = path_at(&self.endpoint(service).url, next) else {
                return Err(AzureError::Strange { reason: "its next page is somewhere else".to_owned() });
            };
            page = self.send(service, HttpMethod::GET, &path, None).await?;
        }
        Err(AzureError::Strange { reason: "its pages have no end".to_owned() })
    }

    /// Sends a request; a refused version of Microsoft Graph is replaced by the next one.
    async fn call(&self, service: Service, request: &ServiceRequest) -> Result<Value, AzureError> {
        let send = async |version: &str| {
            let path = format!("{version}{}", request.path);
            self.send(service, method(request.method), &path, request.body.as_ref()).await
        };
        if service == Service::ResourceManager {
            return send("").await;
        }
        let mut wants_beta = self.wants_beta.lock().await;
        match send(if *wants_beta { "/beta" } else { "/v1.0" }).await {
            Err(AzureError::Service(error)) if !*wants_beta && error.wants_beta() => {
                *wants_beta = true;
                send("/beta").await
            }
            answer => answer,
        }
    }

    /// Sends a request; reading is tried again while the service is busy, and a token that has expired is replaced.
    async fn send(
        &self,
        service: Service,
        method: HttpMethod,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Value, AzureError> {
        let (mut reads, mut has_renewed) = (1, false);
        loop {
            let answer = self.attempt(service, method.clone(), path, body).await;
            let Err(AzureError::Service(error)) = &answer else { return answer };
            let is_busy = matches!(error.answer(), ServiceAnswer::Busy { .. });
            if error.status == 401 && !has_renewed {
                has_renewed = true;
                *self.endpoint(service).token.lock().await = None;
            } else if is_busy && method == HttpMethod::GET && reads < MAX_READS {
                let usual = Duration::from_secs(1 << reads);
                let wait =
                    error.retry_after.map_or(usual, |it| it.unsigned_abs().max(Duration::from_secs(1)));
                if wait > MAX_PAUSE {
                    return answer;
                }
                reads += 1;
                sleep(wait).await;
            } else {
                return answer;
            }
        }
    }

    async fn attempt(
        &self,
        service: Service,
        method: HttpMethod,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Value, AzureError> {
        let endpoint = self.endpoint(service);
        let silent = |error: &reqwest::Error| AzureError::NoAnswer {
            host: endpoint.url.trim_start_matches("https://").to_owned(),
            reason: innermost(error),
        };
        let mut token = endpoint.token.lock().await;
        if token.is_none() {
            *token = Some(self.sign_in.token(&endpoint.scope, &self.trust).await?);
        }
        let bearer = token.as_ref().expect("it was just got").as_str();
        let request = self.client.get().await?.request(method, format!("{}{path}", endpoint.url));
        let request = request.bearer_auth(bearer).header(ACCEPT, "application/json");
        let request = match body {
            Some(body) => request.header(CONTENT_TYPE, "application/json").body(body.to_string()),
            None => request,
        };
        let response = request.send().await.map_err(|error| silent(&error))?;
        let (status, retry_after) = (response.status(), retry_after(&response));
        let body = http_client::body(response, MAX_ANSWER).await.map_err(|error| match error {
            BodyError::Failed(error) => silent(&error),
            BodyError::TooLong => AzureError::Strange { reason: "it is too long".to_owned() },
            BodyError::Encoded { coding } => AzureError::Strange { reason: format!("it is in `{coding}`") },
        })?;
        if !status.is_success() {
            return Err(AzureError::Service(ServiceError::of(status.as_u16(), retry_after, &body)));
        }
        if body.is_empty() || status == StatusCode::NO_CONTENT {
            return Ok(Value::Null);
        }
        serde_json::from_slice(&body).map_err(|_| AzureError::Strange { reason: "it is no JSON".to_owned() })
    }

    fn endpoint(&self, service: Service) -> &Endpoint {
        match service {
            Service::Graph => &self.graph,
            Service::ResourceManager => &self.resource_manager,
        }
    }
}

/// The path and the query of a URL, if it is at the same origin.
fn path_at(base: &str, url: &str) -> Option<String> {
    let (base, url) = (Url::parse(base).ok()?, Url::parse(url).ok()?);
    let is_plain = url.username().is_empty() && url.password().is_none();
    (is_plain && url.origin() == base.origin())
        .then(|| url[Position::BeforePath..Position::AfterQuery].to_owned())
}

fn service_of(holder: &Holder) -> Service {
    match holder {
        Holder::Application { .. } => Service::Graph,
        Holder::ManagedIdentity(_) => Service::ResourceManager,
    }
}

fn get(path: &str) -> ServiceRequest {
    ServiceRequest { method: Method::Get, path: path.to_owned(), body: None }
}

fn method(method: Method) -> HttpMethod {
    match method {
        Method::Get => HttpMethod::GET,
        Method::Post => HttpMethod::POST,
        Method::Put => HttpMethod::PUT,
        Method::Patch => HttpMethod::PATCH,
        Method::Delete => HttpMethod::DELETE,
    }
}

/// In seconds; the other form, a date, is used by neither service.
fn retry_after(response: &Response) -> Option<u64> {
    response.headers().get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()
}

#[derive(Debug, thiserror::Error)]
pub enum AzureError {
    #[error(transparent)]
    SignIn(#[from] SignInError),
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error("`{host}` does not answer: {reason}")]
    NoAnswer { host: String, reason: String },
    #[error("the answer cannot be read: {reason}")]
    Strange { reason: String },
    #[error("{}", .0.in_words())]
    Service(ServiceError),
    #[error("client id `{}`: {error}", brief(client_id))]
    NoHolder { client_id: String, error: NoHolder },
}

impl AzureError {
    /// What it means for a write or a list.
    #[must_use]
    pub fn answer(&self) -> ServiceAnswer {
        match self {
            Self::Service(error) => error.answer(),
            Self::NoAnswer { .. } | Self::Strange { .. } => {
                ServiceAnswer::NoAnswer { reason: self.to_string() }
            }
            Self::SignIn(SignInError::Busy { retry_after }) => ServiceAnswer::Busy {
                message: self.to_string(),
                retry_after: retry_after.and_then(|it| Some(SignedDuration::from_secs(it.try_into().ok()?))),
            },
            Self::SignIn(_) | Self::Client(_) | Self::NoHolder { .. } => {
                ServiceAnswer::Refused { message: self.to_string(), hint: self.hint() }
            }
        }
    }
}

impl Hint for AzureError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::SignIn(error) => error.hint(),
            Self::Client(error) => error.hint(),
            Self::NoAnswer { .. } => Some(
                "check the network: a proxy is taken from `HTTPS_PROXY`, a private authority from `--ca-file`"
                    .to_owned(),
            ),
            Self::Strange { .. } => {
                Some("a proxy or gateway has answered: ask from another network, or let it pass".to_owned())
            }
            Self::Service(error) => error.hint(),
            Self::NoHolder { error, .. } => Some(error.hint()),
        }
    }
}
