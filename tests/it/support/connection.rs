//! One client connection with a given protocol, which shows the server's certificate.

use std::path::Path;
use std::pin::Pin;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Empty};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use openssl::ssl::{SslConnector, SslMethod};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_openssl::SslStream;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    Http1,
    Http2,
}

/// The certificates that a client trusts.
#[derive(Clone)]
pub(crate) struct Trust(SslConnector);

impl Trust {
    /// Trusts only the certificates in these files.
    pub(crate) fn in_files(files: &[&Path]) -> Self {
        let mut connector = SslConnector::builder(SslMethod::tls_client()).expect("OpenSSL works");
        for file in files {
            connector.set_ca_file(file).expect("it has a certificate");
        }
        Self(connector.build())
    }
}

pub(crate) struct Connection {
    sender: Sender,
    address: String,
    /// DER of the server's certificate; only with TLS.
    pub(crate) certificate: Option<Vec<u8>>,
    /// Drives the connection while it lives.
    _driver: JoinSet<()>,
}

enum Sender {
    Http1(http1::SendRequest<Empty<Bytes>>),
    Http2(http2::SendRequest<Empty<Bytes>>),
}

impl Connection {
    /// Uses `protocol`: with TLS it must be negotiated, in plain text it is assumed.
    pub(crate) async fn open(
        address: &str,
        protocol: Protocol,
        trust: Option<&Trust>,
    ) -> Result<Self, String> {
        let stream = TcpStream::connect(address).await.map_err(|error| format!("connect: {error}"))?;
        let Some(Trust(connector)) = trust else {
            return Self::over(stream, address, protocol, None).await;
        };
        let (agreed, offered): (_, &[u8]) = match protocol {
            Protocol::Http1 => ("http/1.1", b"\x08http/1.1"),
            Protocol::Http2 => ("h2", b"\x02h2\x08http/1.1"),
        };
        let host = address.split(':').next().expect("it has a host");
        let mut session = connector.configure().and_then(|it| it.into_ssl(host)).expect("OpenSSL works");
        session.set_alpn_protos(offered).expect("they are well-formed");
        let mut stream = SslStream::new(session, stream).expect("OpenSSL works");
        Pin::new(&mut stream).connect().await.map_err(|error| format!("handshake: {error}"))?;
        let session = stream.ssl();
        assert_eq!(session.selected_alpn_protocol(), Some(agreed.as_bytes()));
        let shown = session.peer_certificate().expect("a server shows one").to_der().expect("it has DER");
        Self::over(stream, address, protocol, Some(shown)).await
    }

    async fn over<I>(
        io: I,
        address: &str,
        protocol: Protocol,
        certificate: Option<Vec<u8>>,
    ) -> Result<Self, String>
    where
        I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let mut driver = JoinSet::new();
        let io = TokioIo::new(io);
        let failed = |error| format!("begin: {error}");
        let sender = match protocol {
            Protocol::Http1 => {
                let (sender, connection) = http1::handshake(io).await.map_err(failed)?;
                driver.spawn(async { drop(connection.await) });
                Sender::Http1(sender)
            }
            Protocol::Http2 => {
                let executor = TokioExecutor::new();
                let (sender, connection) = http2::handshake(executor, io).await.map_err(failed)?;
                driver.spawn(async { drop(connection.await) });
                Sender::Http2(sender)
            }
        };
        Ok(Self { sender, address: address.to_owned(), certificate, _driver: driver })
    }

    /// Whether the server accepts no more requests on this connection.
    pub(crate) async fn is_over(&mut self) -> bool {
        match &mut self.sender {
            Sender::Http1(sender) => sender.ready().await.is_err(),
            Sender::Http2(sender) => sender.ready().await.is_err(),
        }
    }

    pub(crate) async fn get(&mut self, path: &str) -> Result<Response<Bytes>, hyper::Error> {
        self.request("GET", path).await
    }

    pub(crate) async fn request(
        &mut self,
        method: &str,
        path: &str,
    ) -> Result<Response<Bytes>, hyper::Error> {
        let request = Request::builder().method(method);
        let response = match &mut self.sender {
            Sender::Http1(sender) => {
                let request = request.uri(path).header("host", &self.address);
                // The end of the body may arrive before the connection accepts the next request.
                sender.ready().await?;
                sender.send_request(request.body(Empty::new()).expect("well-formed")).await?
            }
            Sender::Http2(sender) => {
                let scheme = if self.certificate.is_some() { "https" } else { "http" };
                let request = request.uri(format!("{scheme}://{}{path}", self.address));
                sender.send_request(request.body(Empty::new()).expect("well-formed")).await?
            }
        };
        let (head, body) = response.into_parts();
        Ok(Response::from_parts(head, body.collect().await?.to_bytes()))
    }
}
