//! A connection to the signer.
//!
//! It is closed after ten minutes without a request: an API server has one connection and fetches keys every
//! `refresh_hint`. At most 64 are open; beyond that, the one that was silent for longest is closed.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc, Weak,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::UnixStream,
    time::{Instant, Sleep, sleep},
};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::transport::server::{Connected, UdsConnectInfo};

/// Most open connections: an API server has one, and a second one while it is replaced.
const MAX_CONNECTIONS: usize = 64;

/// The open connections.
#[derive(Default)]
pub(super) struct ConnectionSlots {
    taken: Vec<Weak<Slot>>,
    /// Counts reads on all connections, so that the last active one is known.
    clock: Arc<AtomicU64>,
}

struct Slot {
    spoke: AtomicU64,
    end: CancellationToken,
}

impl ConnectionSlots {
    /// Adds a connection; if there are too many, closes the one that was silent for longest.
    pub(super) fn take(&mut self, stream: UnixStream, idle: Duration) -> Connection {
        self.taken.retain(|seat| seat.strong_count() > 0);
        if self.taken.len() >= MAX_CONNECTIONS {
            let seats = self.taken.iter().enumerate();
            let seated = seats.filter_map(|(place, seat)| Some((place, seat.upgrade()?)));
            if let Some((place, seat)) = seated.min_by_key(|(_, seat)| seat.spoke.load(Relaxed)) {
                seat.end.cancel();
                self.taken.swap_remove(place);
            }
        }
        let clock = Arc::clone(&self.clock);
        let seat = Slot { spoke: clock.fetch_add(1, Relaxed).into(), end: CancellationToken::new() };
        let ended = Box::pin(seat.end.clone().cancelled_owned());
        let seat = Arc::new(seat);
        self.taken.push(Arc::downgrade(&seat));
        Connection { stream, seat, clock, idle, silent: Box::pin(sleep(idle)), ended }
    }
}

pub(in crate::signer) struct Connection {
    stream: UnixStream,
    seat: Arc<Slot>,
    clock: Arc<AtomicU64>,
    idle: Duration,
    silent: Pin<Box<Sleep>>,
    ended: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl AsyncRead for Connection {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        match Pin::new(&mut this.stream).poll_read(cx, buffer) {
            // Report end of file to the reader.
            Poll::Pending
                if this.ended.as_mut().poll(cx).is_ready() || this.silent.as_mut().poll(cx).is_ready() =>
            {
                Poll::Ready(Ok(()))
            }
            Poll::Ready(Ok(())) if buffer.filled().len() > before => {
                this.seat.spoke.store(this.clock.fetch_add(1, Relaxed), Relaxed);
                this.silent.as_mut().reset(Instant::now() + this.idle);
                if this.ended.as_mut().poll(cx).is_ready() {
                    buffer.set_filled(before);
                }
                Poll::Ready(Ok(()))
            }
            polled => polled,
        }
    }
}

impl AsyncWrite for Connection {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}

impl Connected for Connection {
    type ConnectInfo = UdsConnectInfo;

    fn connect_info(&self) -> UdsConnectInfo {
        self.stream.connect_info()
    }
}
