//! The two listeners: documents for the world, health and metrics for the operator.
//!
//! Nothing here asks anybody: what is answered was put here before ([`documents::Slot`]) or is handed in
//! as a function ([`admin::Views`]). No request ever causes one upstream.

use std::{net::SocketAddr, time::Duration};

use axum::Router;
use axum_server::Handle;
use hyper_util::rt::TokioTimer;

pub mod admin;
pub mod documents;

/// How long a client may take to send its request header: a slow one must not hold a connection.
const HEADER_READ_TIMEOUT: Duration = Duration::from_secs(10);
/// Largest request header, in bytes; a relying party sends a few hundred.
const MAX_HEADER: usize = 16 * 1024;
/// How long open requests may take to finish once the process is told to end.
const DRAIN: Duration = Duration::from_secs(10);

/// A bound socket that does not serve yet, so that a port in use is known before anything else happens.
pub struct Listener {
    socket: std::net::TcpListener,
    address: SocketAddr,
}

impl Listener {
    /// Binds an address.
    ///
    /// # Errors
    ///
    /// Fails when the address is in use or not ours.
    pub fn bind(address: SocketAddr) -> Result<Self, ListenError> {
        let bind = || {
            let socket = std::net::TcpListener::bind(address)?;
            socket.set_nonblocking(true)?;
            let address = socket.local_addr()?;
            Ok(Self { socket, address })
        };
        bind().map_err(|source| ListenError { address, source })
    }

    /// The address with the port that was really bound.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `stop` resolves, then lets open requests finish.
    ///
    /// # Errors
    ///
    /// Fails when the socket does.
    pub async fn serve(
        self,
        router: Router,
        stop: impl Future<Output = ()> + Send,
    ) -> Result<(), ListenError> {
        let failed = |source| ListenError { address: self.address, source };
        let handle = Handle::new();
        let mut server = axum_server::from_tcp(self.socket).map_err(failed)?.http1_only();
        server
            .http_builder()
            .http1()
            .timer(TokioTimer::new())
            .header_read_timeout(HEADER_READ_TIMEOUT)
            .max_buf_size(MAX_HEADER);
        let drain = async {
            stop.await;
            handle.graceful_shutdown(Some(DRAIN));
            std::future::pending().await
        };
        tokio::select! {
            served = server.handle(handle.clone()).serve(router.into_make_service()) => served.map_err(failed),
            never = drain => never,
        }
    }
}

/// A listener could not be bound or broke down.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on `{address}`")]
pub struct ListenError {
    address: SocketAddr,
    source: std::io::Error,
}

impl ListenError {
    /// What the operator can do.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        let hint = match self.source.kind() {
            std::io::ErrorKind::AddrInUse => {
                "stop what listens there, or pass another `--listen` or `--admin-listen`"
            }
            std::io::ErrorKind::AddrNotAvailable => "pass an address of this machine, or `0.0.0.0` for all",
            std::io::ErrorKind::PermissionDenied => "pass a port of 1024 or above",
            _ => return None,
        };
        Some(hint.to_owned())
    }
}
