//! One connection: its limits, and how it ends.
//!
//! A shutdown is announced for a second before idle connections are closed: a request may be in flight on
//! each.

use std::{
    convert::Infallible, error::Error, future::poll_fn, pin::Pin, sync::Arc, task::Poll, time::Duration,
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
    pin,
    time::timeout,
};
use tokio_openssl::SslStream;

use super::{
    idle_timeout::{Activity, CloseReason},
    tls::TlsFiles,
};

/// Time limit of a TLS handshake.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// How long a closing connection is still served, so that a request in flight is answered.
const CLOSE_GRACE: Duration = Duration::from_secs(1);
/// How long answers may take to reach a peer of a closing connection.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(8);
/// The same limit where another connection needs the room.
const EVICTION: Duration = Duration::from_secs(1);

/// Largest request header, in bytes; a relying party sends a few hundred.
const MAX_HEADER: u16 = 16 * 1024;
/// Most concurrent requests of one HTTP/2 connection. RFC 9113 section 6.5.2 advises no fewer.
const MAX_STREAMS: u32 = 100;
/// Most streams that a peer has opened and reset before they were processed (CVE-2023-44487).
const MAX_RESET_STREAMS: usize = 20;
/// Most bytes buffered per HTTP/2 stream: more than a JWKS of 100 keys.
const MAX_SEND_BUFFER: usize = 128 * 1024;
/// Request bodies are not read, so the window is the smallest that a peer may rely on (RFC 9113 section
/// 6.9.2).
const WINDOW: u32 = 65_535;

/// How long a browser must use only TLS (RFC 6797), in seconds: a year.
const STRICT_TRANSPORT_SECURITY: HeaderValue = HeaderValue::from_static("max-age=31536000");

/// The settings that all connections of a listener share.
pub(super) struct ConnectionConfig {
    protocol: Builder<TokioExecutor>,
    secure: bool,
}

impl ConnectionConfig {
    pub(super) fn new(secure: bool) -> Self {
        let mut protocol = Builder::new(TokioExecutor::new());
        // hyper's own time limit costs a timer and an allocation per request; see `idle_timeout`.
        protocol.http1().header_read_timeout(None).max_buf_size(MAX_HEADER.into()).half_close(true);
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

/// Serves a connection until it ends, or until it is closed and all requests are answered.
pub(super) async fn serve<S, B>(
    stream: TcpStream,
    tls: Option<Arc<TlsFiles>>,
    service: S,
    manners: Arc<ConnectionConfig>,
    pulse: Arc<Activity>,
) where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible> + Send + Sync,
    S::Future: Send + 'static,
    B: Body<Error: Into<Box<dyn Error + Send + Sync>>, Data: Send> + Send + 'static,
{
    // Answers are written whole: waiting for more data would only delay them.
    let _ = stream.set_nodelay(true);
    let Some(tls) = tls else {
        return answer(stream, service, &manners, &pulse).await;
    };
    let Ok(mut stream) = tls.handshake().and_then(|session| SslStream::new(session, stream)) else { return };
    if let Ok(Ok(())) = timeout(HANDSHAKE, Pin::new(&mut stream).accept()).await {
        answer(stream, service, &manners, &pulse).await;
    }
}

async fn answer<I, S, B>(io: I, service: S, manners: &ConnectionConfig, pulse: &Activity)
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible> + Send + Sync,
    S::Future: Send + 'static,
    B: Body<Error: Into<Box<dyn Error + Send + Sync>>, Data: Send> + Send + 'static,
{
    pulse.begin();
    let service = service_fn(|request: Request<Incoming>| {
        pulse.record();
        // HTTP/2 has a frame for it.
        let last = pulse.close_reason() == Some(CloseReason::Closing) && request.version() < Version::HTTP_2;
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
    let mut known = None;
    let word = poll_fn(|context| match connection.as_mut().poll(context) {
        // An error here concerns only the peer.
        Poll::Ready(_) => Poll::Ready(None),
        Poll::Pending => pulse.poll_close(&mut known, context).map(Some),
    });
    let farewell = match word.await {
        None => return,
        Some(CloseReason::Silent | CloseReason::Evicted) if pulse.requests() == 0 => return,
        Some(CloseReason::Silent) => FLUSH_TIMEOUT,
        Some(CloseReason::Evicted) => EVICTION,
        Some(CloseReason::Closing) => {
            if timeout(CLOSE_GRACE, connection.as_mut()).await.is_ok() {
                return;
            }
            FLUSH_TIMEOUT
        }
    };
    connection.as_mut().graceful_shutdown();
    let _ = timeout(farewell, connection).await;
}
