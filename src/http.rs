//! The two listeners: documents for the world, health and metrics for the operator.
//!
//! Nothing here asks anybody: what is answered was put here before ([`documents::Slot`]) or is handed in
//! as a function ([`admin::Views`]). No request ever causes one upstream.

use std::{io, net::SocketAddr};

use tokio::net::{TcpListener, TcpSocket};

pub mod admin;
mod connection;
pub mod documents;
mod holder;
mod idle_timeout;
mod server;
pub mod tls;

pub use server::{Server, WhenFull};

/// How many connections may wait to be accepted. The kernel may allow fewer (`net.core.somaxconn`).
const BACKLOG: u32 = 1024;

/// A bound socket that does not serve yet, so that a port in use is known before anything else happens.
pub struct Listener {
    socket: TcpListener,
    address: SocketAddr,
}

impl Listener {
    /// Binds an address. Wants to be called within a runtime.
    ///
    /// # Errors
    ///
    /// Fails when the address is in use or not ours.
    pub fn bind(address: SocketAddr) -> Result<Self, ListenError> {
        let bind = || {
            let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
            // Or the port could not be had for a minute after a restart.
            socket.set_reuseaddr(true)?;
            socket.bind(address)?;
            let socket = socket.listen(BACKLOG)?;
            let address = socket.local_addr()?;
            Ok(Self { socket, address })
        };
        bind().map_err(|source| ListenError::new(address, source))
    }

    /// Binds two addresses, of which both are named if neither can be had.
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

    /// The address with the port that was really bound.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

/// A listener could not be bound, or two.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}")]
pub struct ListenError {
    /// With the process that has it, if that can be seen.
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

    /// Whether somebody else listens there.
    #[must_use]
    pub fn is_taken(&self) -> bool {
        self.source.kind() == io::ErrorKind::AddrInUse
    }

    /// What the operator can do.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
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
