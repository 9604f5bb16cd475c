//! A connection to one API server that reloads replaced credentials.

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use http::{
    HeaderMap, HeaderValue, Method, StatusCode,
    header::{AUTHORIZATION, CONTENT_TYPE, DATE, USER_AGENT},
};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use hyper::rt::Executor;
use hyper_util::rt::TokioExecutor;
use jiff::{Timestamp, fmt::rfc2822::DateTimeParser};
use kube::{
    Client, Config,
    client::{Body, ClientBuilder},
    config::KubeConfigOptions,
};
use serde::{Serialize, de::DeserializeOwned};
use tokio::{
    sync::{Mutex, Notify},
    time::{Instant, timeout},
};
use zeroize::Zeroizing;

use super::{KubernetesError, error::Plugin, kubeconfig};
use crate::{blocking, http_client};

/// Longest wait for a connection, including TLS. An API server is near; one that takes longer is down.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest wait for a complete answer, including the connection and a credential plugin: well below the 30 s
/// between two polls. A slow trickle of bytes does not extend it.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// Default limit of an answer, in bytes: a JWKS of a hundred RSA-4096 keys takes a tenth of it.
pub(super) const MAX_ANSWER: usize = 1024 * 1024;
/// Longest part of a foreign error message that is repeated, in characters.
const MAX_MESSAGE: usize = 400;
const JSON: &str = "application/json";
/// Largest token file, in bytes: an API server accepts headers of a megabyte.
const MAX_TOKEN: u64 = 1024 * 1024;
/// Path of a pod's own credential.
const POD_TOKEN: &str = "/var/run/secrets/kubernetes.io/serviceaccount/token";

/// How to reach an API server.
///
/// With neither kubeconfig nor context, it is the cluster that Signpost runs in; with only a context,
/// `KUBECONFIG` or the default kubeconfig is read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Access {
    pub kubeconfig: Option<PathBuf>,
    pub context: Option<String>,
    /// URL of one instance, in place of the cluster's URL.
    pub instance: Option<String>,
    /// The name that the server certificate must have, when it is not the host of the URL.
    pub tls_server_name: Option<String>,
}

impl Access {
    /// The cluster of a context in a kubeconfig.
    #[must_use]
    pub fn new(kubeconfig: Option<impl Into<PathBuf>>, context: Option<String>) -> Self {
        Self { kubeconfig: kubeconfig.map(Into::into), context, ..Self::default() }
    }

    /// The kubeconfig that error messages name.
    fn place(&self) -> &Path {
        self.kubeconfig.as_deref().unwrap_or(Path::new("the default kubeconfig"))
    }

    async fn config(&self) -> Result<Config, KubernetesError> {
        let (mut config, proxy) = match (&self.kubeconfig, &self.context) {
            (None, None) => {
                if !tokio::fs::try_exists(POD_TOKEN).await.unwrap_or(false) {
                    return Err(KubernetesError::NotInCluster);
                }
                (Config::incluster().map_err(KubernetesError::InCluster)?, None)
            }
            (path, context) => {
                let path = path.clone();
                let read = blocking::in_turn(self.place(), move || kubeconfig::read(path.as_deref())).await?;
                let proxy = kubeconfig::proxies(&read, context.as_deref());
                let options = KubeConfigOptions { context: context.clone(), ..KubeConfigOptions::default() };
                let config = Config::from_custom_kubeconfig(read, &options);
                (config.await.map_err(KubernetesError::kubeconfig)?, Some(proxy))
            }
        };
        if let Some(instance) = &self.instance {
            config.cluster_url = instance
                .parse()
                .map_err(|source| KubernetesError::Instance { url: instance.clone(), source })?;
        }
        if self.tls_server_name.is_some() {
            config.tls_server_name.clone_from(&self.tls_server_name);
        }
        config.proxy_url = proxy.map(|proxy| proxy.to(&config.cluster_url)).transpose()?.flatten();
        config.connect_timeout = Some(CONNECT_TIMEOUT);
        // The caller polls; a hidden retry would double the rate.
        config.default_retry = false;
        Ok(config)
    }
}

pub(crate) struct Request {
    pub(crate) method: Method,
    pub(crate) path: String,
    body: Vec<u8>,
    content_type: &'static str,
    /// Largest answer, in bytes.
    limit: usize,
}

impl Request {
    pub(crate) fn get(path: String) -> Self {
        Self { method: Method::GET, path, body: Vec::new(), content_type: JSON, limit: MAX_ANSWER }
    }

    pub(crate) fn post(path: String, object: &impl Serialize) -> Self {
        Self { method: Method::POST, path, body: json(object), content_type: JSON, limit: MAX_ANSWER }
    }

    /// Changes only the members that `change` has (RFC 7386).
    pub(crate) fn merge_patch(path: String, change: &impl Serialize) -> Self {
        let method = Method::PATCH;
        Self { method, content_type: "application/merge-patch+json", ..Self::post(path, change) }
    }

    /// Replaces an object, if it still has the `resourceVersion` of the new one.
    pub(crate) fn put(path: String, object: &impl Serialize) -> Self {
        Self { method: Method::PUT, ..Self::post(path, object) }
    }

    /// Accepts an answer of up to `limit` bytes.
    pub(crate) fn up_to(self, limit: usize) -> Self {
        Self { limit, ..self }
    }
}

fn json(object: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(object).expect("Kubernetes objects always serialise")
}

impl fmt::Display for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.method, self.path)
    }
}

/// The answer, whatever its status.
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) server_time: Option<Timestamp>,
    /// A warning about the connection.
    pub(crate) note: Option<String>,
    pub(crate) body: Bytes,
    content_type: Option<String>,
}

impl Answer {
    /// Parses an object. The error has no cause: it may repeat a part of a token.
    pub(crate) fn json<T: DeserializeOwned>(&self, request: &Request) -> Result<T, KubernetesError> {
        serde_json::from_slice(&self.body).map_err(|_| self.not_json(request))
    }

    pub(crate) fn not_json(&self, request: &Request) -> KubernetesError {
        KubernetesError::NotJson {
            request: request.to_string(),
            content_type: self.content_type.clone().unwrap_or_else(|| "none".to_owned()),
        }
    }

    /// The message of a refusal, when the body is a `Status`.
    pub(crate) fn message(&self) -> Option<String> {
        #[derive(serde::Deserialize)]
        struct Status {
            message: String,
        }
        let status: Status = serde_json::from_slice(&self.body).ok()?;
        let printable = status.message.chars().map(|c| if c.is_control() { ' ' } else { c });
        let message: String = printable.take(MAX_MESSAGE).collect();
        (self.status.canonical_reason() != Some(&message)).then_some(message)
    }
}

/// Runs the tasks of connections, and reports when one that lasted half a second ends: usually the API server
/// restarted, and may have another key (`docs/decisions/0004`).
#[derive(Clone, Debug, Default)]
struct Connections {
    lost: Arc<Notify>,
}

impl Connections {
    /// Shortest life of a connection whose end is reported. The client also runs small tasks here, after each
    /// answer.
    const MIN_LIFETIME: Duration = Duration::from_millis(500);
}

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for Connections {
    fn execute(&self, task: F) {
        let lost = Arc::clone(&self.lost);
        let start = Instant::now();
        TokioExecutor::new().execute(async move {
            task.await;
            if start.elapsed() >= Self::MIN_LIFETIME {
                lost.notify_one();
            }
        });
    }
}

/// A client, and the token file to use with it.
///
/// `kube` reads token files once a minute and does not trim them; here the file is read for every request, so
/// that a replaced token is used at once.
#[derive(Clone)]
struct Established {
    client: Client,
    token_file: Option<PathBuf>,
    url: String,
    /// The proxy in use, without its credentials.
    proxy: Option<String>,
    plugin: Plugin,
    note: Option<String>,
}

impl Established {
    async fn new(access: &Access, connections: Connections) -> Result<Self, KubernetesError> {
        let mut config = access.config().await?;
        let token_file = config.auth_info.token_file.take().map(PathBuf::from);
        if token_file.is_some() {
            // As in `kubectl`, the file takes precedence over the inline token.
            config.auth_info.token = None;
        }
        let url = config.cluster_url.to_string();
        let note = config.accept_invalid_certs.then(|| {
            format!("the certificate of `{url}` is not verified, as the kubeconfig asks for: any server may answer")
        });
        let proxy = config.proxy_url.as_ref().map(kubeconfig::shown);
        let plugin = Plugin::of(&config.auth_info);
        // A credential plugin is a program that blocks until it has answered.
        let builder =
            blocking::in_turn(access.place(), move || ClientBuilder::try_from((config, connections))).await;
        let client = builder.map_err(|error| KubernetesError::client(error, &plugin))?.build();
        Ok(Self { client, token_file, url, proxy, plugin, note })
    }

    /// Sends a request and waits for the header of its answer.
    async fn start(&self, request: &Request) -> Result<http::Response<Body>, KubernetesError> {
        let mut message = http::Request::builder()
            .method(&request.method)
            .uri(&request.path)
            .header(CONTENT_TYPE, request.content_type)
            .header(USER_AGENT, http_client::USER_AGENT)
            .body(Body::from(request.body.clone()))
            .expect("paths are made of checked names");
        if let Some(path) = self.token_file.clone() {
            message.headers_mut().insert(AUTHORIZATION, bearer(path).await?);
        }
        let answer = self.client.send(message).await;
        let (url, proxy) = (&self.url, self.proxy.as_deref());
        answer.map_err(|error| KubernetesError::no_answer(url, proxy, error, &self.plugin))
    }

    async fn send(self, request: &Request) -> Result<Answer, KubernetesError> {
        self.read(request, self.start(request).await?).await
    }

    async fn read(&self, request: &Request, answer: http::Response<Body>) -> Result<Answer, KubernetesError> {
        let (parts, body) = answer.into_parts();
        let body = Limited::new(body, request.limit).collect().await.map_err(|source| {
            if source.is::<LengthLimitError>() {
                KubernetesError::TooLarge { request: request.to_string(), limit: request.limit }
            } else {
                KubernetesError::Interrupted { request: request.to_string(), source }
            }
        })?;
        Ok(Answer {
            status: parts.status,
            server_time: server_time(&parts.headers),
            note: self.note.clone(),
            body: body.to_bytes(),
            content_type: parts
                .headers
                .get(CONTENT_TYPE)
                .map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned()),
        })
    }
}

/// The start of a streaming answer.
pub(super) enum Opened {
    Stream(Body),
    Refused(Answer),
}

/// The connection to one API server. It is rebuilt after every failure, so that a replaced kubeconfig,
/// certificate authority or client certificate is used.
pub(crate) struct Connection {
    access: Access,
    established: Mutex<Option<Established>>,
    connections: Connections,
}

impl Connection {
    pub(crate) fn new(access: Access) -> Self {
        Self { access, established: Mutex::new(None), connections: Connections::default() }
    }

    /// Resolves once a lasting connection is closed.
    pub(crate) async fn lost(&self) {
        self.connections.lost.notified().await;
    }

    /// Sends a request; repeats it once with a credential read again when the first is refused.
    pub(crate) async fn call(&self, request: &Request) -> Result<Answer, KubernetesError> {
        let answer = self.attempt(request).await?;
        if answer.status != StatusCode::UNAUTHORIZED {
            return Ok(answer);
        }
        self.reconnect().await;
        self.attempt(request).await
    }

    /// Rebuilds the connection for the next request.
    pub(crate) async fn reconnect(&self) {
        *self.established.lock().await = None;
    }

    /// Sends a request with a streaming answer, and waits until the answer begins.
    pub(super) async fn open(&self, request: &Request) -> Result<Opened, KubernetesError> {
        let begun = async {
            let established = self.established().await?;
            let answer = established.start(request).await?;
            if answer.status().is_success() {
                return Ok(Opened::Stream(answer.into_body()));
            }
            Ok(Opened::Refused(established.read(request, answer).await?))
        };
        self.in_time(request, begun).await
    }

    async fn attempt(&self, request: &Request) -> Result<Answer, KubernetesError> {
        self.in_time(request, async { self.established().await?.send(request).await }).await
    }

    async fn in_time<T>(
        &self,
        request: &Request,
        answer: impl Future<Output = Result<T, KubernetesError>>,
    ) -> Result<T, KubernetesError> {
        let outcome = timeout(ANSWER_TIMEOUT, answer).await.unwrap_or_else(|_| {
            Err(KubernetesError::TimedOut { request: request.to_string(), limit: ANSWER_TIMEOUT })
        });
        if outcome.is_err() {
            self.reconnect().await;
        }
        outcome
    }

    async fn established(&self) -> Result<Established, KubernetesError> {
        let mut established = self.established.lock().await;
        if let Some(ready) = &*established {
            return Ok(ready.clone());
        }
        let new = Established::new(&self.access, self.connections.clone()).await?;
        *established = Some(new.clone());
        Ok(new)
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Connection").field(&self.access).finish()
    }
}

/// The `Authorization` header from a token file. A trailing line break is common and ignored.
async fn bearer(path: PathBuf) -> Result<HeaderValue, KubernetesError> {
    let token = blocking::read(&path, MAX_TOKEN).await;
    let token = token.map_err(|source| KubernetesError::TokenFile { path: path.clone(), source })?;
    let unusable = || KubernetesError::TokenFileContent { path: path.clone() };
    let token = str::from_utf8(&token).map_err(|_| unusable())?;
    let header = Zeroizing::new(format!("Bearer {}", token.trim()));
    let mut value = HeaderValue::try_from(header.as_str()).map_err(|_| unusable())?;
    value.set_sensitive(true);
    Ok(value)
}

/// The `Date` header (RFC 9110 section 6.6.1).
fn server_time(headers: &HeaderMap) -> Option<Timestamp> {
    DateTimeParser::new().parse_timestamp(headers.get(DATE)?.as_bytes()).ok()
}

#[cfg(test)]
mod tests;
