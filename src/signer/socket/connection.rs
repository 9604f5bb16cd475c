//! A connection to the signer.
//!
//! It is closed after ten minutes without a request: an API server has one connection and fetches keys every
//! `refresh_hint`. At most 64 are open; beyond that, one on which nothing was ever sent is closed, or else the one
//! that was silent for longest.

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
    accepted: u64,
    /// Counts reads on all connections, so that the last active one is known.
    clock: Arc<AtomicU64>,
}

struct Slot {
    /// Position among the accepted connections.
    accepted: u64,
    /// When it last sent, by `clock`; 0 if it never did.
    spoke: AtomicU64,
    end: CancellationToken,
}

impl ConnectionSlots {
    /// Adds a connection; if there are too many, closes one.
    ///
    /// The first to go is the oldest of those that never sent: an API server sends as soon as it has connected,
    /// and is then idle for as long as nobody asks for a token.
    pub(super) fn take(&mut self, stream: UnixStream, idle: Duration) -> Connection {
        self.taken.retain(|seat| seat.strong_count() > 0);
        if self.taken.len() >= MAX_CONNECTIONS {
            let seats = self.taken.iter().enumerate();
            let seated = seats.filter_map(|(place, seat)| Some((place, seat.upgrade()?)));
            if let Some((place, seat)) =
                seated.min_by_key(|(_, seat)| (seat.spoke.load(Relaxed), seat.accepted))
            {
                seat.end.cancel();
                self.taken.swap_remove(place);
            }
        }
        self.accepted += 1;
        let clock = Arc::clone(&self.clock);
        let seat = Slot { accepted: self.accepted, spoke: AtomicU64::new(0), end: CancellationToken::new() };
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
                this.seat.spoke.store(1 + this.clock.fetch_add(1, Relaxed), Relaxed);
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

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    const IDLE: Duration = Duration::from_mins(10);

    fn connected(slots: &mut ConnectionSlots) -> (UnixStream, Connection) {
        let (client, server) = UnixStream::pair().expect("sockets");
        (client, slots.take(server, IDLE))
    }

    async fn is_closed(connection: &mut Connection) -> bool {
        // A closed connection answers at once, with the end of the stream.
        tokio::select! {
            biased;
            read = connection.read_u8() => read.is_err(),
            () = std::future::ready(()) => false,
        }
    }

    #[tokio::test]
    async fn who_has_sent_keeps_its_place_however_many_connect_and_say_nothing() {
        let mut slots = ConnectionSlots::default();
        let (mut api_server, mut served) = connected(&mut slots);
        api_server.write_u8(7).await.expect("it is open");
        assert_eq!(served.read_u8().await.expect("it is open"), 7);
        let mut silent: Vec<_> = (0..300).map(|_| connected(&mut slots)).collect();
        assert!(!is_closed(&mut served).await);
        let mut open = 0;
        for (place, (_, connection)) in silent.iter_mut().enumerate() {
            let closed = is_closed(connection).await;
            assert_eq!(closed, place < 300 - (MAX_CONNECTIONS - 1), "{place}");
            open += usize::from(!closed);
        }
        assert_eq!(open + 1, MAX_CONNECTIONS);
    }

    #[tokio::test]
    async fn of_those_that_all_sent_the_one_silent_for_longest_is_closed() {
        let mut slots = ConnectionSlots::default();
        let mut all = Vec::new();
        for _ in 0..MAX_CONNECTIONS {
            let (mut client, mut served) = connected(&mut slots);
            client.write_u8(7).await.expect("it is open");
            served.read_u8().await.expect("it is open");
            all.push((client, served));
        }
        let (client, served) = &mut all[0];
        client.write_u8(8).await.expect("it is open");
        served.read_u8().await.expect("it is open");
        let _last = connected(&mut slots);
        assert!(!is_closed(&mut all[0].1).await);
        assert!(is_closed(&mut all[1].1).await);
        assert!(!is_closed(&mut all[2].1).await);
    }
}
