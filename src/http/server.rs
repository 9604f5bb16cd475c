//! The accept loop of a listener.

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
use tokio::{pin, select, sync::watch, task::JoinSet, time};
use tracing::{error, warn};

use super::{
    Listener,
    connection::{self, Manners},
    tls::TlsFiles,
};

/// Pause after the process has run out of something: one that ends makes room for the next.
const EXHAUSTED: Duration = Duration::from_millis(100);

/// How a listener is served.
pub struct Server {
    pub listener: Listener,
    /// Most connections at once; at least 1. The next one waits until another ends: it is not accepted.
    pub max_connections: usize,
    /// Speaks TLS with this certificate; without, plain text.
    pub tls: Option<Arc<TlsFiles>>,
    /// Shows how many connections are open.
    pub open: Arc<AtomicUsize>,
}

impl Server {
    /// For probes, scrapes and people: plain text, and as many connections as those need.
    #[must_use]
    pub fn of_the_operator(listener: Listener) -> Self {
        Self { listener, max_connections: 64, tls: None, open: Arc::default() }
    }

    /// Answers until `stop` resolves, then ends every connection politely: a request that has arrived is
    /// answered, and no connection outlives the end by ten seconds.
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
        let Self { listener: Listener { socket, address }, max_connections, tls, open } = self;
        let manners = Arc::new(Manners::new(tls.is_some()));
        let (stopping, told_to_stop) = watch::channel(());
        let mut connections = JoinSet::new();
        let converse = |stream| {
            let (tls, service, manners) = (tls.clone(), service.clone(), Arc::clone(&manners));
            connection::converse(stream, tls, service, manners, told_to_stop.clone())
        };
        let mut exhausted = false;
        pin!(stop);
        loop {
            open.store(connections.len(), Ordering::Relaxed);
            select! {
                () = &mut stop => break,
                Some(ended) = connections.join_next() => report(ended),
                accepted = socket.accept(), if connections.len() < max_connections => match accepted {
                    Ok((stream, _)) => {
                        exhausted = false;
                        connections.spawn(converse(stream));
                    }
                    Err(error) if is_of_the_peer(&error) => {}
                    Err(error) => {
                        if !exhausted {
                            warn!(%address, %error, "cannot accept connections");
                        }
                        exhausted = true;
                        time::sleep(EXHAUSTED).await;
                    }
                },
            }
        }
        // Those that wait in the backlog have come before the end, with a request maybe.
        while let Some(Ok((stream, _))) = socket.accept().now_or_never() {
            connections.spawn(converse(stream));
        }
        drop((stopping, socket));
        while let Some(ended) = connections.join_next().await {
            report(ended);
        }
    }
}

/// Whether one connection failed before it was accepted, which says nothing of the next (accept(2)).
fn is_of_the_peer(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}

fn report(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended {
        error!(%error, "a connection broke down");
    }
}
