//! A proxy that injects faults in front of a real component, and records its requests.
//!
//! A request that matches no [`Rule`] is forwarded unchanged, its `Host` included: request signatures cover
//! that. The proxy runs on a separate thread, so it serves tests without a runtime too.

use std::convert::Infallible;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING};
use http::{HeaderMap, Method, StatusCode};
use http_body_util::BodyExt as _;
use hyper::body::{Body, Frame, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use reqwest::{Certificate, Client, redirect};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use super::port::Port;

/// Longest wait for a component to abort a truncated request.
const NOTICED_WITHIN: Duration = Duration::from_secs(2);

pub(crate) enum Action {
    /// Answers itself; the component gets no request.
    Answer { status: u16, headers: Vec<(&'static str, &'static str)>, body: &'static str },
    /// Forwards after this time.
    Delay(Duration),
    /// Closes the connection; the component gets no request.
    Cut,
    /// Forwards, and closes the connection after this many bytes of the answer's body.
    CutAfter(usize),
    /// Forwards this many bytes of the request's body and closes both connections.
    CutRequest(usize),
    /// Forwards, and closes the connection instead of answering: the request took effect.
    LoseAnswer,
    /// Forwards; exempts requests of one kind from the rules that follow.
    Pass,
}

type Condition = Box<dyn Fn(&Seen) -> bool + Send>;

/// An action, the requests that it applies to, and how often.
pub(crate) struct Rule {
    action: Arc<Action>,
    conditions: Vec<Condition>,
    remaining: Option<usize>,
}

impl Rule {
    /// Applies to every request, always.
    pub(crate) fn new(action: Action) -> Self {
        Self { action: Arc::new(action), conditions: Vec::new(), remaining: None }
    }

    pub(crate) fn method(self, method: &'static str) -> Self {
        self.when(move |request| request.method == method)
    }

    pub(crate) fn path_contains(self, part: impl Into<String>) -> Self {
        let part = part.into();
        self.when(move |request| request.path.contains(&part))
    }

    pub(crate) fn when(mut self, condition: impl Fn(&Seen) -> bool + Send + 'static) -> Self {
        self.conditions.push(Box::new(condition));
        self
    }

    pub(crate) fn once(self) -> Self {
        self.times(1)
    }

    /// Expires after this many requests.
    pub(crate) fn times(mut self, times: usize) -> Self {
        self.remaining = Some(times);
        self
    }

    fn meets(&self, request: &Seen) -> bool {
        self.remaining != Some(0) && self.conditions.iter().all(|condition| condition(request))
    }
}

/// A request as it reached the proxy.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) method: Method,
    /// Without the query.
    pub(crate) path: String,
    pub(crate) query: Option<String>,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

pub(crate) struct FaultProxy {
    port: Port,
    upstream: String,
    ca_file: Option<PathBuf>,
    state: Arc<Mutex<State>>,
    listening: Option<Listening>,
}

struct Listening {
    stop: oneshot::Sender<Infallible>,
    thread: JoinHandle<()>,
}

#[derive(Default)]
struct State {
    script: Vec<Rule>,
    seen: Vec<Seen>,
}

impl FaultProxy {
    /// Forwards to `upstream`, such as `http://127.0.0.1:10000`; paths stay unchanged.
    pub(crate) fn start(upstream: &str) -> Self {
        Self::start_trusting(upstream, None)
    }

    /// As [`FaultProxy::start`], for an https upstream whose certificate comes from `ca_file`.
    pub(crate) fn start_trusting(upstream: &str, ca_file: Option<&Path>) -> Self {
        let mut proxy = Self {
            port: Port::free(),
            upstream: upstream.to_owned(),
            ca_file: ca_file.map(Path::to_owned),
            state: Arc::default(),
            listening: None,
        };
        proxy.restart();
        proxy
    }

    /// Closes all connections and refuses new ones; port and script stay for [`FaultProxy::restart`].
    pub(crate) fn stop(&mut self) {
        if let Some(Listening { stop, thread }) = self.listening.take() {
            drop(stop);
            // A panic is already reported, and a second one here would abort the tests.
            let _ = thread.join();
        }
    }

    pub(crate) fn restart(&mut self) {
        self.stop();
        let (stop, stopped) = oneshot::channel();
        let (listening, is_listening) = std::sync::mpsc::channel();
        // A separate client: pooled connections end with the runtime that drives them.
        let upstream = Upstream::new(&self.upstream, self.ca_file.clone());
        let (number, state) = (self.port.number(), Arc::clone(&self.state));
        let thread = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime").block_on(async {
                let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, number)).await;
                let listener = listener.expect("the port is free");
                listening.send(()).expect("the test waits");
                tokio::select! {
                    // The sender is never used, and dropped with the proxy.
                    _ = stopped => {}
                    () = accept(listener, upstream, state) => {}
                }
            });
        });
        is_listening.recv().expect("the proxy listens");
        self.listening = Some(Listening { stop, thread });
    }

    /// `http://127.0.0.1:PORT`, in place of the upstream's URL.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.port.address())
    }

    /// Replaces all rules; the first match decides. Without rules, everything is forwarded.
    pub(crate) fn script(&self, rules: impl IntoIterator<Item = Rule>) {
        self.lock().script = rules.into_iter().collect();
    }

    /// All requests since the start or the last [`FaultProxy::forget`], in order of arrival.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.lock().seen.clone()
    }

    /// How many requests had this method and a path that contains `part`.
    pub(crate) fn count(&self, method: &str, part: &str) -> usize {
        self.lock().seen.iter().filter(|seen| seen.method == method && seen.path.contains(part)).count()
    }

    pub(crate) fn forget(&self) {
        self.lock().seen.clear();
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().expect("no condition of a rule panicked")
    }
}

impl Drop for FaultProxy {
    fn drop(&mut self) {
        self.stop();
    }
}

async fn accept(listener: TcpListener, upstream: Upstream, state: Arc<Mutex<State>>) {
    let mut connections = JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await.expect("connections can be accepted");
        let (upstream, state) = (upstream.clone(), Arc::clone(&state));
        connections.spawn(async move {
            let service = service_fn(|request| serve(request, upstream.clone(), Arc::clone(&state)));
            // An error is requested by the script, or caused by the client.
            let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

/// An error makes hyper close the connection without an answer.
async fn serve(
    request: http::Request<Incoming>,
    upstream: Upstream,
    state: Arc<Mutex<State>>,
) -> Result<http::Response<Answer>, Closed> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.map_err(|_| Closed)?.to_bytes();
    let seen = Seen {
        method: head.method,
        path: head.uri.path().to_owned(),
        query: head.uri.query().map(str::to_owned),
        headers: head.headers,
        body,
    };
    let action = {
        let mut state = state.lock().expect("no condition of a rule panicked");
        state.seen.push(seen.clone());
        state.script.iter_mut().find(|rule| rule.meets(&seen)).map(|rule| {
            rule.remaining = rule.remaining.map(|times| times - 1);
            Arc::clone(&rule.action)
        })
    };
    match action.as_deref().unwrap_or(&Action::Pass) {
        Action::Pass => upstream.forward(&seen).await,
        Action::Delay(time) => {
            tokio::time::sleep(*time).await;
            upstream.forward(&seen).await
        }
        Action::Answer { status, headers, body } => {
            let mut answer = http::Response::new(Answer::whole(Bytes::from_static(body.as_bytes())));
            *answer.status_mut() = StatusCode::from_u16(*status).expect("a status");
            for (name, value) in headers {
                answer.headers_mut().append(*name, value.parse().expect("a header's value"));
            }
            Ok(answer)
        }
        Action::Cut => Err(Closed),
        Action::CutAfter(bytes) => {
            let mut answer = upstream.forward(&seen).await?;
            answer.body_mut().cut_after(*bytes);
            Ok(answer)
        }
        Action::CutRequest(bytes) => {
            upstream.begin(&seen, *bytes).await.map_err(|_| Closed)?;
            Err(Closed)
        }
        Action::LoseAnswer => {
            upstream.forward(&seen).await?;
            Err(Closed)
        }
    }
}

#[derive(Clone)]
struct Upstream {
    url: String,
    client: Client,
}

impl Upstream {
    fn new(url: &str, ca_file: Option<PathBuf>) -> Self {
        // Forwards the proxy's `Host`, which an HTTP/2 server would reject.
        let mut client = Client::builder().no_proxy().http1_only().redirect(redirect::Policy::none());
        if let Some(file) = ca_file {
            let pem = std::fs::read(file).expect("the CA file can be read");
            let bundle = Certificate::from_pem_bundle(&pem).expect("the CA file is PEM");
            client = client.tls_certs_only(bundle);
        }
        Self { url: url.trim_end_matches('/').to_owned(), client: client.build().expect("a client") }
    }

    async fn forward(&self, request: &Seen) -> Result<http::Response<Answer>, Closed> {
        let query = request.query.as_ref().map(|query| format!("?{query}")).unwrap_or_default();
        let mut headers = request.headers.clone();
        // These belong to the connection, and the client below sets its own.
        for name in [CONNECTION, TRANSFER_ENCODING, CONTENT_LENGTH] {
            headers.remove(name);
        }
        let answer = self
            .client
            .request(request.method.clone(), format!("{}{}{query}", self.url, request.path))
            .headers(headers)
            .body(request.body.clone())
            .send()
            .await
            .map_err(|_| Closed)?;
        let (status, mut headers) = (answer.status(), answer.headers().clone());
        for name in [CONNECTION, TRANSFER_ENCODING] {
            headers.remove(name);
        }
        let body = if query.contains("watch=") {
            Answer::endless(reqwest::Body::from(answer))
        } else {
            Answer::whole(answer.bytes().await.map_err(|_| Closed)?)
        };
        let mut forwarded = http::Response::new(body);
        *forwarded.status_mut() = status;
        *forwarded.headers_mut() = headers;
        Ok(forwarded)
    }
}

impl Upstream {
    /// Sends a request that announces its whole body and ends after `count` bytes of it.
    async fn begin(&self, request: &Seen, count: usize) -> std::io::Result<()> {
        let address = self.url.strip_prefix("http://").expect("only without TLS");
        let address = address.split('/').next().expect("a host");
        let query = request.query.as_ref().map(|query| format!("?{query}")).unwrap_or_default();
        let mut head = format!("{} {}{query} HTTP/1.1\r\n", request.method, request.path);
        for (name, value) in request.headers.iter().filter(|(name, _)| **name != CONTENT_LENGTH) {
            head += &format!("{name}: {}\r\n", value.to_str().expect("it is text"));
        }
        head += &format!("content-length: {}\r\n\r\n", request.body.len());
        let mut stream = TcpStream::connect(address).await?;
        stream.write_all(head.as_bytes()).await?;
        stream.write_all(&request.body[..count.min(request.body.len())]).await?;
        stream.shutdown().await?;
        // Waits until the component has processed the truncated request.
        let mut answer = Vec::new();
        let noticed = tokio::time::timeout(NOTICED_WITHIN, stream.read_to_end(&mut answer)).await;
        noticed.map_or(Ok(()), |read| read.map(drop))
    }
}

/// A body that is sent whole, or in part before the connection is closed, or as it arrives.
struct Answer {
    bytes: Option<Bytes>,
    promised: usize,
    cut: bool,
    flushed: bool,
    endless: Option<reqwest::Body>,
}

impl Answer {
    fn whole(bytes: Bytes) -> Self {
        Self { promised: bytes.len(), bytes: Some(bytes), cut: false, flushed: false, endless: None }
    }

    /// A watch of Kubernetes ends only when one side closes it.
    fn endless(body: reqwest::Body) -> Self {
        Self { endless: Some(body), ..Self::whole(Bytes::new()) }
    }

    fn cut_after(&mut self, count: usize) {
        self.bytes.as_mut().expect("it has not been sent").truncate(count);
        self.cut = true;
    }
}

impl Body for Answer {
    type Data = Bytes;
    type Error = Closed;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context,
    ) -> Poll<Option<Result<Frame<Bytes>, Closed>>> {
        if let Some(endless) = &mut self.endless {
            return Pin::new(endless).poll_frame(context).map_err(|_| Closed);
        }
        if let Some(bytes) = self.bytes.take().filter(|bytes| !bytes.is_empty()) {
            return Poll::Ready(Some(Ok(Frame::data(bytes))));
        }
        if !self.cut {
            return Poll::Ready(None);
        }
        if !self.flushed {
            // hyper sends its buffer while it waits, and drops it when the body fails.
            self.flushed = true;
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        Poll::Ready(Some(Err(Closed)))
    }

    fn size_hint(&self) -> hyper::body::SizeHint {
        match &self.endless {
            Some(endless) => endless.size_hint(),
            None => hyper::body::SizeHint::with_exact(self.promised as u64),
        }
    }
}

#[derive(Debug)]
struct Closed;

impl std::fmt::Display for Closed {
    fn fmt(&self, formatter: &mut std::fmt::Formatter) -> std::fmt::Result {
        formatter.write_str("the script closes the connection")
    }
}

impl std::error::Error for Closed {}
