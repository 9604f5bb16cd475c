//! Ends connections that bring no requests.
//!
//! One rule, which looks at requests and not at bytes: a connection brings a whole request within ten seconds, and then
//! another at least every 75 s. It covers silent peers, headers and answers that trickle, and HTTP/2 without streams.
//! Balancers that keep connections for 60 s never meet one that is being closed. Holding a connection with a request a
//! minute is possible; that is what the limit of connections is for.
//!
//! The listener looks at all connections once a second, so a limit may be met that much later. A timer and a channel per
//! connection took up to a twentieth of the time of its requests.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering},
    },
    task::{Context, Poll, Waker},
    time::Duration,
};

use futures_util::task::AtomicWaker;
use tokio::time::Instant;

/// How long the first request may take to arrive.
const FIRST_REQUEST: Duration = Duration::from_secs(10);
/// How long a connection may bring no request: longer than the 60 s for which load balancers keep theirs,
/// or they would send a request into a connection that is being closed.
const IDLE: Duration = Duration::from_secs(75);

/// What a connection shows its listener, and is told by it.
#[derive(Debug, Default)]
pub(super) struct Activity {
    begun: AtomicBool,
    requests: AtomicU32,
    word: AtomicU8,
    waker: AtomicWaker,
}

/// Why a connection shall end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum CloseReason {
    /// It brought no request for too long.
    Silent = 1,
    /// Another one needs its room.
    Evicted = 3,
    /// The listener ends.
    Closing = 2,
}

impl Activity {
    /// From now on requests are expected: TLS has been agreed upon.
    pub(super) fn begin(&self) {
        self.begun.store(true, Ordering::Relaxed);
    }

    /// Counts a request; only the connection itself does.
    pub(super) fn record(&self) {
        let requests = self.requests.load(Ordering::Relaxed);
        self.requests.store(requests.wrapping_add(1), Ordering::Relaxed);
    }

    pub(super) fn requests(&self) -> u32 {
        self.requests.load(Ordering::Relaxed)
    }

    pub(super) fn close_reason(&self) -> Option<CloseReason> {
        match self.word.load(Ordering::Acquire) {
            0 => None,
            1 => Some(CloseReason::Silent),
            3 => Some(CloseReason::Evicted),
            _ => Some(CloseReason::Closing),
        }
    }

    /// Ready once the connection shall end. `known` is the waker of the last call: the task of a connection
    /// hardly ever changes it, and to leave it with the listener costs more than all else here.
    pub(super) fn poll_close(&self, known: &mut Option<Waker>, context: &Context) -> Poll<CloseReason> {
        if !known.as_ref().is_some_and(|known| known.will_wake(context.waker())) {
            self.waker.register(context.waker());
            *known = Some(context.waker().clone());
        }
        self.close_reason().map_or(Poll::Pending, Poll::Ready)
    }

    fn tell(&self, word: CloseReason) {
        self.word.store(word as u8, Ordering::Release);
        self.waker.wake();
    }
}

/// The pulses of all connections of a listener.
#[derive(Default)]
pub(super) struct OpenConnections(Vec<Felt>);

struct Felt {
    pulse: Arc<Activity>,
    patience: Patience,
    /// When it is looked at again; `None` before it has begun.
    due: Option<Instant>,
}

impl OpenConnections {
    /// The pulse of a new connection, which shows that it is open by keeping it.
    pub(super) fn open(&mut self) -> Arc<Activity> {
        let pulse = Arc::<Activity>::default();
        self.0.push(Felt { pulse: Arc::clone(&pulse), patience: Patience::default(), due: None });
        pulse
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Forgets connections that are over, and ends those that brought no request for too long.
    pub(super) fn feel(&mut self, now: Instant) {
        self.0.retain_mut(|felt| {
            let is_open = Arc::strong_count(&felt.pulse) > 1;
            is_open && felt.goes_on(now)
        });
    }

    /// Ends the oldest connection that has brought no request yet; where all have, the oldest.
    pub(super) fn evict(&mut self) {
        self.0.retain(|felt| Arc::strong_count(&felt.pulse) > 1);
        let useless = self.0.iter().position(|felt| felt.pulse.requests() == 0);
        if !self.0.is_empty() {
            self.0.remove(useless.unwrap_or(0)).pulse.tell(CloseReason::Evicted);
        }
    }

    /// Tells all that the listener ends.
    pub(super) fn close(self) {
        for felt in self.0 {
            felt.pulse.tell(CloseReason::Closing);
        }
    }
}

impl Felt {
    /// Whether the connection is to be looked at again; if not, it has been told to end.
    fn goes_on(&mut self, now: Instant) -> bool {
        if !self.pulse.begun.load(Ordering::Relaxed) || self.due.is_some_and(|due| now < due) {
            return true;
        }
        let wait = self.patience.wait(self.pulse.requests());
        self.due = wait.map(|wait| now + wait);
        if wait.is_none() {
            self.pulse.tell(CloseReason::Silent);
        }
        wait.is_some()
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
