//! A client for tests with and without a runtime, which shares no code with the product.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{LazyLock, Mutex, mpsc};
use std::time::Duration;

use reqwest::header::HeaderMap;
use reqwest::{Certificate, Client, Method, Url, redirect};
use serde_json::Value;
use tokio::runtime::{Builder, Runtime};

/// Where all requests of all tests run.
static RUNTIME: LazyLock<Runtime> =
    LazyLock::new(|| Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime"));

const TIMEOUT: Duration = Duration::from_secs(20);

pub(crate) struct Request {
    method: Method,
    url: Url,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    ca_file: Option<PathBuf>,
}

pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
}

impl Request {
    pub(crate) fn new(method: &str, url: &str) -> Self {
        let method = method.parse().expect("a method");
        let url = url.parse().unwrap_or_else(|error| panic!("`{url}` is no URL: {error}"));
        Self { method, url, headers: Vec::new(), body: Vec::new(), ca_file: None }
    }

    pub(crate) fn get(url: &str) -> Self {
        Self::new("GET", url)
    }

    pub(crate) fn header(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.to_owned(), value.into()));
        self
    }

    pub(crate) fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }

    pub(crate) fn json(self, body: &Value) -> Self {
        self.header("content-type", "application/json").body(body.to_string())
    }

    /// Trusts only the certificates in this file.
    pub(crate) fn ca_file(mut self, file: &Path) -> Self {
        self.ca_file = Some(file.to_owned());
        self
    }

    /// Returns the answer unchanged: redirects are not followed, and any status is an answer.
    ///
    /// # Errors
    ///
    /// Fails when there is no complete answer; the text has all causes.
    pub(crate) fn send(self) -> Result<Response, String> {
        // On a runtime of its own, because a runtime must not be entered from within another.
        let (answer, answered) = mpsc::channel();
        RUNTIME.spawn(async move { answer.send(self.exchange().await) });
        let answer = answered.recv().expect("the exchange does not panic");
        answer.map_err(|error| {
            let mut text = error.to_string();
            let mut cause = std::error::Error::source(&error);
            while let Some(error) = cause {
                text = format!("{text}: {error}");
                cause = error.source();
            }
            text
        })
    }

    /// As [`Request::send`]; panics without an answer.
    #[track_caller]
    pub(crate) fn answer(self) -> Response {
        let what = format!("{} {}", self.method, self.url);
        self.send().unwrap_or_else(|error| panic!("{what}: {error}"))
    }

    async fn exchange(self) -> reqwest::Result<Response> {
        let trusted = self.ca_file.map(|file| std::fs::read(file).expect("the CA file can be read"));
        let mut request = client(trusted)?.request(self.method, self.url);
        for (name, value) in self.headers {
            request = request.header(name, value);
        }
        let answer = request.body(self.body).send().await?;
        Ok(Response {
            status: answer.status().as_u16(),
            headers: answer.headers().clone(),
            body: answer.bytes().await?.to_vec(),
        })
    }
}

/// The client that trusts only these certificates. Every request has a connection of its own.
///
/// A new client would parse the certificates of the system, which takes longer than most requests.
fn client(trusted: Option<Vec<u8>>) -> reqwest::Result<Client> {
    static CLIENTS: LazyLock<Mutex<HashMap<Option<Vec<u8>>, Client>>> = LazyLock::new(Mutex::default);
    if let Some(client) = CLIENTS.lock().expect("no panic").get(&trusted) {
        return Ok(client.clone());
    }
    let certificates = trusted.as_deref().map(Certificate::from_pem_bundle).transpose()?.unwrap_or_default();
    let client = Client::builder().no_proxy().redirect(redirect::Policy::none()).timeout(TIMEOUT);
    let client = client.pool_max_idle_per_host(0).tls_certs_only(certificates).build()?;
    CLIENTS.lock().expect("no panic").insert(trusted, client.clone());
    Ok(client)
}

impl Response {
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("no JSON ({error}): {} {}", self.status, self.text()))
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    #[track_caller]
    pub(crate) fn expect_status(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{}", self.text());
        self
    }

    /// For polling: any status but 200 is an error.
    pub(crate) fn is_ok(&self) -> Result<(), String> {
        if self.status == 200 { Ok(()) } else { Err(format!("{}: {}", self.status, self.text())) }
    }
}
