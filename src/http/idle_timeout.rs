//! Closes connections without requests.
//!
//! One rule, which counts requests and not bytes: a connection sends a complete request within ten seconds,
//! and then another at least every 75 s. It covers silent peers, slow headers and answers, and HTTP/2 without
//! streams. Load balancers that keep connections for 60 s never meet one that is being closed. A peer can
//! hold a connection with a request a minute; the limit of connections covers that.
//!
//! The listener checks all connections once a second, so a limit may apply that much later. A timer and a
//! channel per connection took up to a twentieth of the time of its requests.

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

/// Time limit for the first request.
const FIRST_REQUEST: Duration = Duration::from_secs(10);
/// Time limit between two requests: longer than the 60 s for which load balancers keep their connections, or
/// they would send a request into a connection that is being closed.
const IDLE: Duration = Duration::from_secs(75);

/// State shared between a connection and its listener.
#[derive(Debug, Default)]
pub(super) struct Activity {
    begun: AtomicBool,
    requests: AtomicU32,
    word: AtomicU8,
    waker: AtomicWaker,
}

/// Why a connection is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum CloseReason {
    /// No request within the limit.
    Silent = 1,
    /// Another connection needs the room.
    Evicted = 3,
    /// The listener stops.
    Closing = 2,
}

impl Activity {
    /// Starts the time limits, after the TLS handshake.
    pub(super) fn begin(&self) {
        self.begun.store(true, Ordering::Relaxed);
    }

    /// Counts a request; called only by the connection itself.
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

    /// Ready once the connection must close. `known` is the waker of the last call: it rarely changes, and
    /// registering it with the listener is the main cost here.
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

/// The activity of all connections of a listener.
#[derive(Default)]
pub(super) struct OpenConnections(Vec<Tracked>);

struct Tracked {
    pulse: Arc<Activity>,
    patience: Deadline,
    /// Time of the next check; `None` before the handshake is complete.
    due: Option<Instant>,
}

impl OpenConnections {
    /// The activity of a new connection, which keeps it while it is open.
    pub(super) fn open(&mut self) -> Arc<Activity> {
        let pulse = Arc::<Activity>::default();
        self.0.push(Tracked { pulse: Arc::clone(&pulse), patience: Deadline::default(), due: None });
        pulse
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Removes ended connections, and closes those without a request for too long.
    pub(super) fn check(&mut self, now: Instant) {
        self.0.retain_mut(|felt| {
            let is_open = Arc::strong_count(&felt.pulse) > 1;
            is_open && felt.goes_on(now)
        });
    }

    /// Closes the oldest connection without any request; otherwise the oldest.
    pub(super) fn evict(&mut self) {
        self.0.retain(|felt| Arc::strong_count(&felt.pulse) > 1);
        let useless = self.0.iter().position(|felt| felt.pulse.requests() == 0);
        if !self.0.is_empty() {
            self.0.remove(useless.unwrap_or(0)).pulse.tell(CloseReason::Evicted);
        }
    }

    /// Closes all connections because the listener stops.
    pub(super) fn close(self) {
        for felt in self.0 {
            felt.pulse.tell(CloseReason::Closing);
        }
    }
}

impl Tracked {
    /// Whether the connection stays open; otherwise it was told to close.
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
struct Deadline {
    seen: Option<u32>,
}

impl Deadline {
    /// Time until the next check after this many requests; `None` if there was none since the last check.
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
