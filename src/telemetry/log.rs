//! Writes log lines to standard error, without secrets, and without waiting for the reader.
//!
//! A reader that stops reading fills its pipe, which blocks the writer. So the lines of a service wait in a
//! queue for a writer thread; lines over the limit are dropped and counted. Secrets are redacted here,
//! because libraries may log them.

use std::{
    collections::VecDeque,
    io::{self, Write},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use tracing::warn;
use tracing_subscriber::fmt::MakeWriter;

use super::LogFormat;
use crate::core::text::redaction::{redact, redact_json};

/// Most bytes in the queue: some thousand lines.
const ROOM: usize = 1024 * 1024;
/// Longest wait for queued lines when the process ends.
const FAREWELL: Duration = Duration::from_secs(1);

/// The queue of a service; a command has none.
static QUEUE: OnceLock<Arc<Queue>> = OnceLock::new();

#[derive(Default)]
struct Queue {
    lines: Mutex<Lines>,
    changed: Condvar,
    dropped: AtomicU64,
}

#[derive(Default)]
struct Lines {
    waiting: VecDeque<Vec<u8>>,
    bytes: usize,
    /// Whether a line is being written.
    writing: bool,
}

/// Prints a message on the terminal, after all lines logged before.
pub fn say(text: &str) {
    write(format!("{text}\n").into_bytes());
    flush();
}

/// Waits a short time until all lines are written.
pub fn flush() {
    if let Some(queue) = QUEUE.get() {
        let pending = |lines: &mut Lines| lines.writing || !lines.waiting.is_empty();
        drop(queue.changed.wait_timeout_while(queue.lines(), FAREWELL, pending));
    }
}

/// Lines dropped since the start.
#[must_use]
pub(super) fn dropped() -> u64 {
    QUEUE.get().map_or(0, |queue| queue.dropped.load(Ordering::Relaxed))
}

/// Queues lines for a writer thread from now on.
pub(super) fn start_queue() {
    let queue = Arc::<Queue>::default();
    if QUEUE.set(Arc::clone(&queue)).is_ok() {
        let writer = thread::Builder::new().name("log".to_owned());
        writer.spawn(move || queue.write_all(&mut io::stderr())).expect("threads are to be had");
    }
}

fn write(line: Vec<u8>) {
    match QUEUE.get() {
        Some(queue) => queue.push(line),
        // A command may block on its reader; a failed write is lost.
        None => drop(io::stderr().write_all(&line)),
    }
}

impl Queue {
    fn push(&self, line: Vec<u8>) {
        let mut lines = self.lines();
        if lines.bytes + line.len() > ROOM {
            self.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        lines.bytes += line.len();
        lines.waiting.push_back(line);
        self.changed.notify_all();
    }

    fn write_all(&self, to: &mut impl Write) {
        let mut told = 0;
        loop {
            let line = self.next();
            let written = to.write_all(&line);
            self.done();
            let dropped = self.dropped.load(Ordering::Relaxed);
            match written {
                Err(_) => drop(self.dropped.fetch_add(1, Ordering::Relaxed)),
                Ok(()) if dropped > told => {
                    warn!(lines = dropped - told, "log lines were dropped, standard error was not read");
                    told = dropped;
                }
                Ok(()) => {}
            }
        }
    }

    fn next(&self) -> Vec<u8> {
        let is_empty = |lines: &mut Lines| lines.waiting.is_empty();
        let mut lines = self.changed.wait_while(self.lines(), is_empty).expect(UNPOISONED);
        let line = lines.waiting.pop_front().expect("there is one");
        lines.bytes -= line.len();
        lines.writing = true;
        line
    }

    fn done(&self) {
        self.lines().writing = false;
        self.changed.notify_all();
    }

    fn lines(&self) -> MutexGuard<'_, Lines> {
        self.lines.lock().expect(UNPOISONED)
    }
}

const UNPOISONED: &str = "nobody panics while holding it";

/// Creates a writer for every line.
pub(super) struct Sink(pub(super) LogFormat);

impl<'a> MakeWriter<'a> for Sink {
    type Writer = Line;

    fn make_writer(&'a self) -> Line {
        Line(self.0)
    }
}

/// Receives one line, which is written at once.
pub(super) struct Line(LogFormat);

impl Write for Line {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(line);
        let text = match self.0 {
            LogFormat::Text => redact(&text),
            LogFormat::Json => redact_json(&text),
        };
        write(text.into_owned().into_bytes());
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests;
