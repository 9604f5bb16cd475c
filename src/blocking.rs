//! Blocking file operations with a time limit.
//!
//! A system call cannot be cancelled: a file system that does not answer, such as a hung NFS mount, blocks
//! the calling thread. So waiting has a deadline, and a hung path blocks no more than eight threads, however
//! often it is retried.

use std::{
    collections::BTreeMap,
    fs::{File, TryLockError},
    future::pending,
    io::{self, ErrorKind},
    panic,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, Weak},
    thread,
    time::{Duration, Instant},
};

use tokio::{sync::Semaphore, task::spawn_blocking, time::timeout};
use zeroize::Zeroizing;

use crate::files;

/// Longest wait for files: a disk answers within milliseconds, and a poll loop must go on.
pub const TIMEOUT: Duration = Duration::from_secs(10);
/// Most concurrent threads per path: as many as have a session with a PKCS#11 token.
const AT_ONCE: usize = 8;
/// Interval between two attempts to lock a file; locks are held for a few milliseconds.
const LOCK_POLL: Duration = Duration::from_millis(5);

/// The paths that threads use or wait for.
static PLACES: Mutex<BTreeMap<PathBuf, Weak<Semaphore>>> = Mutex::new(BTreeMap::new());

/// Runs blocking work on the files of a path.
///
/// # Errors
///
/// Fails when it is not done within [`TIMEOUT`]. It may still complete later.
pub async fn at<T: Send + 'static>(
    place: &Path,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, TimedOut> {
    within(TIMEOUT, place, work).await
}

/// As [`at`], for work that takes longer than a few reads and writes.
///
/// # Errors
///
/// Fails when it is not done in time. It may still complete later.
pub async fn within<T: Send + 'static>(
    patience: Duration,
    place: &Path,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, TimedOut> {
    timeout(patience, in_turn(place, work)).await.map_err(|_| TimedOut { patience })
}

/// As [`at`], for callers with their own deadline.
pub async fn in_turn<T: Send + 'static>(place: &Path, work: impl FnOnce() -> T + Send + 'static) -> T {
    let turn = turns(place).acquire_owned().await.expect("nobody closes it");
    let done = spawn_blocking(move || {
        let done = work();
        drop(turn);
        done
    });
    match done.await {
        Ok(done) => done,
        Err(error) if error.is_panic() => panic::resume_unwind(error.into_panic()),
        // The runtime shuts down: no task awaits the result.
        Err(_) => pending().await,
    }
}

/// Reads a file that others replace, such as a token. Its bytes are wiped.
///
/// # Errors
///
/// Fails when it cannot be read in time, is not a regular file, or has more than `limit` bytes.
pub async fn read(path: &Path, limit: u64) -> io::Result<Zeroizing<Vec<u8>>> {
    let file = path.to_owned();
    at(path, move || files::read(&file, limit).map(Zeroizing::new)).await?
}

/// The paths that threads currently use.
#[must_use]
pub fn places() -> Vec<PathBuf> {
    let places = locked();
    let in_use = places.iter().filter(|(_, turns)| turns.strong_count() > 0);
    in_use.map(|(place, _)| place.clone()).collect()
}

fn turns(place: &Path) -> Arc<Semaphore> {
    let mut places = locked();
    if let Some(turns) = places.get(place).and_then(Weak::upgrade) {
        return turns;
    }
    places.retain(|_, turns| turns.strong_count() > 0);
    let turns = Arc::new(Semaphore::new(AT_ONCE));
    places.insert(place.to_owned(), Arc::downgrade(&turns));
    turns
}

fn locked() -> MutexGuard<'static, BTreeMap<PathBuf, Weak<Semaphore>>> {
    PLACES.lock().expect("nobody panics while holding it")
}

/// Locks a file against other processes until it is dropped. The file is created when it is missing.
///
/// # Errors
///
/// Fails when another process holds it for longer than `wait`, and when the path is not a regular file:
/// opening a pipe or a device could block, and a link could create a file anywhere.
pub fn lock(path: &Path, mode: u32, wait: Duration) -> io::Result<File> {
    let file = files::open_lock(path, mode)?;
    let start = Instant::now();
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::Error(error)) => return Err(error),
            Err(TryLockError::WouldBlock) if start.elapsed() < wait => thread::sleep(LOCK_POLL),
            Err(TryLockError::WouldBlock) => {
                let text = format!("locked by another process for {wait:?}");
                return Err(io::Error::new(ErrorKind::WouldBlock, text));
            }
        }
    }
}

/// Files were not read or written in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the file system did not answer within {} s", patience.as_secs())]
pub struct TimedOut {
    patience: Duration,
}

impl From<TimedOut> for io::Error {
    fn from(error: TimedOut) -> Self {
        Self::new(ErrorKind::TimedOut, error)
    }
}

#[cfg(test)]
mod tests;
