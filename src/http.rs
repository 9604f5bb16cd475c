//! The two listeners: public documents, and health and metrics for the operator.
//!
//! Handlers send no requests: they serve content stored before ([`documents::Slot`]) or returned by a
//! function ([`admin::Views`]). No request ever causes one upstream.

use std::{io, net::SocketAddr};

use crate::core::text::Hint;
use tokio::net::{TcpListener, TcpSocket};

pub mod admin;
mod connection;
pub mod documents;
mod holder;
mod idle_timeout;
mod server;
pub mod tls;

pub use server::{Server, WhenFull};

/// Longest queue of connections to accept. The kernel may allow fewer (`net.core.somaxconn`).
const BACKLOG: u32 = 1024;

/// A bound socket that does not serve yet, so that a port in use is detected first.
pub struct Listener {
    socket: TcpListener,
    address: SocketAddr,
}

impl Listener {
    /// Binds an address. Must be called within a runtime.
    ///
    /// # Errors
    ///
    /// Fails when the address is in use or not local.
    pub fn bind(address: SocketAddr) -> Result<Self, ListenError> {
        let bind = || {
            let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
            // Otherwise the port stays unavailable for a minute after a restart.
            socket.set_reuseaddr(true)?;
            socket.bind(address)?;
            let socket = socket.listen(BACKLOG)?;
            let address = socket.local_addr()?;
            Ok(Self { socket, address })
        };
        bind().map_err(|source| ListenError::new(address, source))
    }

    /// Binds two addresses; the error names both if neither is available.
    ///
    /// # Errors
    ///
    /// As [`Listener::bind`].
    pub fn bind_both(one: SocketAddr, other: SocketAddr) -> Result<(Self, Self), ListenError> {
        match (Self::bind(one), Self::bind(other)) {
            (Ok(one), Ok(other)) => Ok((one, other)),
            (Err(one), Err(other)) => {
                Err(ListenError { address: format!("{} and {}", one.address, other.address), ..one })
            }
            (Err(error), Ok(_)) | (Ok(_), Err(error)) => Err(error),
        }
    }

    /// The address with the actual port.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

/// One or both listeners could not be bound.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}")]
pub struct ListenError {
    /// With the process that uses it, if visible.
    address: String,
    source: io::Error,
}

impl ListenError {
    fn new(address: SocketAddr, source: io::Error) -> Self {
        let is_taken = source.kind() == io::ErrorKind::AddrInUse;
        let holder = if is_taken { holder::holder(address) } else { None };
        let holder = holder.map(|holder| format!(" ({holder})")).unwrap_or_default();
        Self { address: format!("`{address}`{holder}"), source }
    }

    /// Whether another process listens there.
    #[must_use]
    pub fn is_taken(&self) -> bool {
        self.source.kind() == io::ErrorKind::AddrInUse
    }
}

impl Hint for ListenError {
    fn hint(&self) -> Option<String> {
        let hint = match self.source.kind() {
            io::ErrorKind::AddrInUse => {
                "stop what listens there, or pass another `--listen` or `--admin-listen`"
            }
            io::ErrorKind::AddrNotAvailable => "pass an address of this machine, or `0.0.0.0` for all",
            io::ErrorKind::PermissionDenied => "pass a port of 1024 or above",
            _ => return None,
        };
        Some(hint.to_owned())
    }
}
