//! One connection: what it may ask for, and for how long it may last.
//!
//! The one rule of time does not look at bytes: a connection brings a whole request soon after it began,
//! and another every now and then, or it is ended. So it holds for a peer that says nothing, for one that
//! sends a header or reads an answer byte by byte, for HTTP/1.1 and HTTP/2.

use std::{
    convert::Infallible,
    error::Error,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use http::{HeaderValue, Version, header};
use hyper::{
    Request, Response,
    body::{Body, Incoming},
    service::{Service, service_fn},
};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto::Builder,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    pin, select,
    sync::watch,
    time::{sleep, timeout},
};
use tokio_openssl::SslStream;

use super::tls::TlsFiles;

/// How long a TLS handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// How long the first request may take to arrive.
const FIRST_REQUEST: Duration = Duration::from_secs(10);
/// How long a connection may bring no request: longer than the 60 s for which load balancers keep theirs,
/// or they would send a request into a connection that is being closed.
const IDLE: Duration = Duration::from_secs(75);
/// How long a connection that is told to end is served on, so that a request on its way is answered.
const LINGER: Duration = Duration::from_secs(1);
/// How long answers may take to arrive at a peer that is told that the connection ends.
const FAREWELL: Duration = Duration::from_secs(8);

/// Largest request header, in bytes; a relying party sends a few hundred.
const MAX_HEADER: u16 = 16 * 1024;
/// Most requests of one HTTP/2 connection at once. RFC 9113 section 6.5.2 advises no fewer.
const MAX_STREAMS: u32 = 100;
/// Most streams that a peer has opened and reset and that were not looked at yet (CVE-2023-44487).
const MAX_RESET_STREAMS: usize = 20;
/// Most bytes of answers that wait in one HTTP/2 stream: more than a JWKS of 100 keys.
const MAX_SEND_BUFFER: usize = 128 * 1024;
/// Requests have no body that is read, so a peer may send no more than the least window that it may
/// rely on (RFC 9113 section 6.9.2).
const WINDOW: u32 = 65_535;

/// Seconds for which a browser shall come back with TLS alone (RFC 6797): a year.
const STRICT_TRANSPORT_SECURITY: HeaderValue = HeaderValue::from_static("max-age=31536000");

/// What is the same for every connection of a listener.
pub(super) struct Manners {
    protocol: Builder<TokioExecutor>,
    secure: bool,
}

impl Manners {
    pub(super) fn new(secure: bool) -> Self {
        let mut protocol = Builder::new(TokioExecutor::new());
        // Its own time limit would be a timer and an allocation per request; see `out_of_patience`.
        protocol.http1().header_read_timeout(None).max_buf_size(MAX_HEADER.into());
        protocol
            .http2()
            .timer(TokioTimer::new())
            .max_concurrent_streams(MAX_STREAMS)
            .max_header_list_size(MAX_HEADER.into())
            .max_pending_accept_reset_streams(MAX_RESET_STREAMS)
            .max_send_buf_size(MAX_SEND_BUFFER)
            .initial_stream_window_size(WINDOW)
            .initial_connection_window_size(WINDOW);
        Self { protocol, secure }
    }
}

/// Serves a connection until it ends, or `told_to_stop` and has been answered.
pub(super) async fn converse<S, B>(
    stream: TcpStream,
    tls: Option<Arc<TlsFiles>>,
    service: S,
    manners: Arc<Manners>,
    told_to_stop: watch::Receiver<()>,
) where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible> + Send + Sync,
    S::Future: Send + 'static,
    B: Body<Error: Into<Box<dyn Error + Send + Sync>>, Data: Send> + Send + 'static,
{
    // Answers are written whole: waiting for more to send would only delay them.
    let _ = stream.set_nodelay(true);
    let Some(tls) = tls else {
        return answer(stream, service, &manners, told_to_stop).await;
    };
    let Ok(mut stream) = tls.handshake().and_then(|session| SslStream::new(session, stream)) else { return };
    if let Ok(Ok(())) = timeout(HANDSHAKE, Pin::new(&mut stream).accept()).await {
        answer(stream, service, &manners, told_to_stop).await;
    }
}

async fn answer<I, S, B>(io: I, service: S, manners: &Manners, mut told_to_stop: watch::Receiver<()>)
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible> + Send + Sync,
    S::Future: Send + 'static,
    B: Body<Error: Into<Box<dyn Error + Send + Sync>>, Data: Send> + Send + 'static,
{
    let requests = AtomicU32::new(0);
    let stopping = told_to_stop.clone();
    let service = service_fn(|request: Request<Incoming>| {
        requests.fetch_add(1, Ordering::Relaxed);
        // HTTP/2 has a frame for it.
        let last = stopping.has_changed().is_err() && request.version() < Version::HTTP_2;
        let secure = manners.secure;
        let response = service.call(request);
        async move {
            let mut response = response.await?;
            if secure {
                response.headers_mut().insert(header::STRICT_TRANSPORT_SECURITY, STRICT_TRANSPORT_SECURITY);
            }
            if last {
                response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
            }
            Ok::<_, Infallible>(response)
        }
    });
    let connection = manners.protocol.serve_connection(TokioIo::new(io), service);
    pin!(connection);
    select! {
        // How it ended is the peer's affair.
        _ = connection.as_mut() => return,
        () = out_of_patience(&requests) => if requests.load(Ordering::Relaxed) == 0 { return },
        _ = told_to_stop.changed() => {
            if timeout(LINGER, connection.as_mut()).await.is_ok() {
                return;
            }
        }
    }
    connection.as_mut().graceful_shutdown();
    let _ = timeout(FAREWELL, connection).await;
}

/// Resolves when the connection brought no request for too long.
async fn out_of_patience(requests: &AtomicU32) {
    let mut patience = Patience::default();
    while let Some(wait) = patience.wait(requests.load(Ordering::Relaxed)) {
        sleep(wait).await;
    }
}

#[derive(Default)]
struct Patience {
    seen: Option<u32>,
}

impl Patience {
    /// When to ask again, now that there were so many requests; `None` if there was none since the last time.
    fn wait(&mut self, requests: u32) -> Option<Duration> {
        match self.seen.replace(requests) {
            None => Some(FIRST_REQUEST),
            Some(seen) if seen == requests => None,
            Some(_) => Some(IDLE),
        }
    }
}

#[cfg(test)]
mod tests;
