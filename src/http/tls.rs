//! TLS from two files, which are read again every five seconds and on SIGHUP.
//!
//! Polls rather than watches: kubelet replaces Secret volumes by swapping a symlink, which ends an inotify
//! watch (kubernetes#111947). A new pair is served if both files parse, belong together, and the certificate
//! is valid now. A certificate that is not valid now does not replace a valid one (most likely an old
//! backup), but is served at the start: targets and the admin listener do not depend on it. Certificate and
//! key are written one after the other, so a failure is logged only if two checks find it. Open connections
//! keep the pair they began with.

use std::{path::PathBuf, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use jiff::Timestamp;
use openssl::ssl::Ssl;
use tokio::{pin, select, sync::Notify, time::sleep};
use tracing::{info, warn};

use crate::{
    blocking::{self, TimedOut},
    clock,
    core::text::redaction::error_line,
    telemetry::status::StatusStore,
};

mod pair;

use pair::Pair;
pub use pair::TlsError;

/// Interval between two checks of the files.
const EVERY: Duration = Duration::from_secs(5);

/// Paths of a certificate and its private key, as PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsPaths {
    /// The server's certificate, followed by its chain to a CA.
    pub certificate: PathBuf,
    pub private_key: PathBuf,
}

/// The served pair, and its files.
pub struct TlsFiles {
    paths: TlsPaths,
    served: ArcSwap<Pair>,
    asked: Notify,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reloaded {
    /// The files hold the served pair.
    Unchanged,
    /// Handshakes from now on use the new certificate.
    Replaced,
}

impl TlsFiles {
    /// Reads the pair.
    ///
    /// # Errors
    ///
    /// Fails when a file cannot be read or used, and when the two do not belong together. A certificate that
    /// is not valid now is served: there is no better one.
    pub async fn open(paths: TlsPaths) -> Result<Self, TlsError> {
        let files = paths.clone();
        let read = blocking::at(&paths.certificate, move || {
            Pair::read(&files).inspect(|_| pair::warn_of_readers(&files.private_key))
        });
        let pair = read.await.unwrap_or_else(|error| Err(hangs(&paths, error)))?;
        if let Err(error) = in_force(&pair, &paths) {
            warn!(%error, "relying parties will refuse the certificate");
        }
        Ok(Self { served: ArcSwap::from_pointee(pair), paths, asked: Notify::new() })
    }

    /// Reads the files again.
    ///
    /// # Errors
    ///
    /// As [`TlsFiles::open`], and when the certificate is not valid now while the served one is. The served
    /// pair stays.
    pub fn reload(&self) -> Result<Reloaded, TlsError> {
        let (found, served) = (Pair::read(&self.paths)?, self.served.load());
        if found.is_same(&served) {
            return Ok(Reloaded::Unchanged);
        }
        if served.is_valid(clock::now()) {
            in_force(&found, &self.paths)?;
        }
        pair::warn_of_readers(&self.paths.private_key);
        info!(not_after = %found.not_after, "certificate replaced");
        self.served.store(Arc::new(found));
        Ok(Reloaded::Replaced)
    }

    /// Makes [`TlsFiles::watch`] check the files now.
    pub fn look(&self) {
        self.asked.notify_one();
    }

    /// When the served certificate expires.
    #[must_use]
    pub fn not_after(&self) -> Timestamp {
        self.served.load().not_after
    }

    /// Reloads whenever the files change, until `stop` resolves, and reports it to `board`.
    pub async fn watch(self: Arc<Self>, status_store: StatusStore, stop: impl Future<Output = ()>) {
        pin!(stop);
        let mut trouble = Trouble::default();
        loop {
            let files = Arc::clone(&self);
            let reloaded = blocking::at(&self.paths.certificate, move || files.reload()).await;
            let reloaded = reloaded.unwrap_or_else(|error| Err(hangs(&self.paths, error)));
            let error = reloaded.err().map(|error| error_line(&error));
            status_store.tls(|status| {
                status.not_after = Some(self.not_after());
                status.failures += u64::from(error.is_some());
                status.error.clone_from(&error);
            });
            trouble.look(error);
            select! {
                () = &mut stop => return,
                () = self.asked.notified() => {}
                () = sleep(EVERY) => {}
            }
        }
    }

    /// A handshake with the currently served pair.
    pub(super) fn handshake(&self) -> Result<Ssl, openssl::error::ErrorStack> {
        Ssl::new(&self.served.load().context)
    }
}

/// Rejects a certificate that is not valid now.
fn in_force(pair: &Pair, paths: &TlsPaths) -> Result<(), TlsError> {
    if pair.is_valid(clock::now()) {
        return Ok(());
    }
    let (certificate, not_before, not_after) = (paths.certificate.clone(), pair.not_before, pair.not_after);
    Err(TlsError::NotNow { certificate, not_before, not_after })
}

fn hangs(paths: &TlsPaths, error: TimedOut) -> TlsError {
    TlsError::Read { path: paths.certificate.clone(), source: error.into() }
}

/// Logs when the files become unusable, the reason, and the recovery.
#[derive(Default)]
struct Trouble {
    seen: Option<String>,
    told: Option<String>,
}

impl Trouble {
    fn look(&mut self, error: Option<String>) {
        // Two files are not written at once: a fault of a single check may resolve itself.
        let lasts = error == self.seen;
        if let Some(error) = error.as_ref().filter(|_| lasts && error != self.told) {
            warn!(%error, "certificate not replaced");
            self.told = Some(error.clone());
        }
        if error.is_none() && self.told.take().is_some() {
            info!("certificate files are usable again");
        }
        self.seen = error;
    }
}
