//! Accepts, limits and closes the connections of a listener.
//!
//! Does not use a server library's accept loop: with HTTP/2 beside HTTP/1.1 that waits without end for a
//! silent peer, and hyper's header timeout costs a timer and an allocation per request. Over the limit the
//! public listener stops accepting: clients wait in the kernel's backlog, because to accept and answer 503
//! would cost what the limit saves. The admin listener closes a connection instead, since a failed liveness
//! probe ends the process: the oldest without any request, else the oldest.

use std::{
    convert::Infallible,
    error::Error,
    io,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures_util::FutureExt as _;
use hyper::{
    Request, Response,
    body::{Body, Incoming},
    service::Service,
};
use tokio::{pin, select, task::JoinSet, time};
use tracing::{error, warn};

use super::{
    Listener,
    connection::{self, ConnectionConfig},
    idle_timeout::OpenConnections,
    tls::TlsFiles,
};

/// Pause after a resource is exhausted: a connection that ends makes room for the next.
const EXHAUSTED: Duration = Duration::from_millis(100);
/// Time without such a failure after which the next one is logged again: at the limit, one connection that
/// ends lets one more in, many times a second.
const RECOVERED: Duration = Duration::from_mins(1);
/// Interval between two checks of the connections.
const LOOK: Duration = Duration::from_secs(1);

/// What happens to a connection over the limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhenFull {
    /// It waits until another ends: it is not accepted.
    Wait,
    /// The least useful connection is closed, so that no peer can keep others out by holding connections.
    /// While those close there may be twice as many.
    Evict,
}

/// The settings of a listener's server.
pub struct Server {
    pub listener: Listener,
    /// Most concurrent connections; at least 1.
    pub max_connections: usize,
    pub when_full: WhenFull,
    /// The certificate for TLS; without it, plain text.
    pub tls: Option<Arc<TlsFiles>>,
    /// The number of open connections.
    pub open: Arc<AtomicUsize>,
}

impl Server {
    /// For probes, scrapes and operators: plain text, and no peer can keep a probe out.
    #[must_use]
    pub fn of_the_operator(listener: Listener, max_connections: usize) -> Self {
        Self { listener, max_connections, when_full: WhenFull::Evict, tls: None, open: Arc::default() }
    }

    /// Serves until `stop` resolves, then closes every connection gracefully: a request that has arrived is
    /// answered, and all connections end within ten seconds.
    pub async fn serve<S, B>(self, service: S, stop: impl Future<Output = ()>)
    where
        S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible>
            + Clone
            + Send
            + Sync
            + 'static,
        S::Future: Send + 'static,
        B: Body<Error: Into<Box<dyn Error + Send + Sync>>, Data: Send> + Send + 'static,
    {
        let Self { listener: Listener { socket, address }, max_connections, when_full, tls, open } = self;
        let most = match when_full {
            WhenFull::Wait => max_connections,
            WhenFull::Evict => 2 * max_connections,
        };
        let manners = Arc::new(ConnectionConfig::new(tls.is_some()));
        let (mut connections, mut pulses) = (JoinSet::new(), OpenConnections::default());
        let converse = |stream, pulse| {
            let (tls, service, manners) = (tls.clone(), service.clone(), Arc::clone(&manners));
            connection::serve(stream, tls, service, manners, pulse)
        };
        let mut looks = time::interval(LOOK);
        looks.set_missed_tick_behavior(time::MissedTickBehavior::Delay);
        let mut exhausted: Option<time::Instant> = None;
        pin!(stop);
        loop {
            open.store(connections.len(), Ordering::Relaxed);
            select! {
                () = &mut stop => break,
                Some(ended) = connections.join_next() => report(ended),
                now = looks.tick(), if !pulses.is_empty() => pulses.check(now),
                accepted = socket.accept(), if connections.len() < most => match accepted {
                    Ok((stream, _)) => {
                        if connections.len() >= max_connections {
                            pulses.evict();
                        }
                        connections.spawn(converse(stream, pulses.open()));
                    }
                    Err(error) if is_of_the_peer(&error) => {}
                    Err(error) => {
                        let now = time::Instant::now();
                        if exhausted.is_none_or(|last| now - last > RECOVERED) {
                            warn!(%address, %error, "cannot accept connections");
                        }
                        exhausted = Some(now);
                        time::sleep(EXHAUSTED).await;
                    }
                },
            }
        }
        // Connections in the backlog arrived before the stop, maybe with a request.
        while let Some(Ok((stream, _))) = socket.accept().now_or_never() {
            connections.spawn(converse(stream, pulses.open()));
        }
        pulses.close();
        drop(socket);
        while let Some(ended) = connections.join_next().await {
            report(ended);
        }
    }
}

/// Whether only one connection failed before it was accepted; the next may succeed (accept(2)).
fn is_of_the_peer(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}

fn report(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended {
        error!(%error, "connection handler failed");
    }
}
