//! A certificate and its private key, read and checked.

use std::{
    io::{self, Read as _},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use jiff::Timestamp;
use openssl::{
    asn1::{Asn1Time, Asn1TimeRef},
    error::ErrorStack,
    pkey::{PKey, Private},
    sha::Sha256,
    ssl::select_next_proto,
    ssl::{AlpnError, SslAcceptor, SslContext, SslMethod, SslMode, SslOptions, SslSessionCacheMode},
    x509::X509,
};
use tracing::warn;
use zeroize::Zeroizing;

use super::TlsPaths;
use crate::{
    core::text::{Hint, in_utf8},
    files,
};

/// Largest file, in bytes: a chain of four RSA-4096 certificates takes a tenth of it.
const MAX_SIZE: usize = 128 * 1024;
/// The permission bits that must be unset, those of others: kubelet mounts Secrets for a group.
const EVERYBODY: u32 = 0o007;
/// The ALPN protocols in order of preference, each prefixed with its length (RFC 7301 section 3.1).
const PROTOCOLS: &[u8] = b"\x02h2\x08http/1.1";

/// A usable pair. Holds the private key only within OpenSSL, which wipes it.
pub(super) struct Pair {
    pub(super) context: SslContext,
    pub(super) not_before: Timestamp,
    pub(super) not_after: Timestamp,
    /// Digest of both files, to detect a change.
    digest: [u8; 32],
}

impl Pair {
    pub(super) fn read(paths: &TlsPaths) -> Result<Self, TlsError> {
        let (certificate, private_key) = (&paths.certificate, &paths.private_key);
        let chain_pem = read(certificate)?;
        let key_pem = read(private_key)?;
        let chain = chain(certificate, &chain_pem)?;
        let key = key(private_key, &key_pem)?;
        let leaf = &chain[0];
        let unusable = |source| TlsError::Unusable { certificate: certificate.clone(), source };
        if !leaf.public_key().map_err(unusable)?.public_eq(&key) {
            return Err(TlsError::Mismatch {
                certificate: certificate.clone(),
                private_key: private_key.clone(),
            });
        }
        let mut digest = Sha256::new();
        digest.update(&chain_pem);
        digest.update(&key_pem);
        Ok(Self {
            context: context(&chain, &key).map_err(unusable)?,
            not_before: timestamp(leaf.not_before()).map_err(unusable)?,
            not_after: timestamp(leaf.not_after()).map_err(unusable)?,
            digest: digest.finish(),
        })
    }

    pub(super) fn is_same(&self, other: &Self) -> bool {
        self.digest == other.digest
    }

    pub(super) fn is_valid(&self, now: Timestamp) -> bool {
        (self.not_before..=self.not_after).contains(&now)
    }
}

/// Mozilla's intermediate recommendation, version 5: TLS 1.2 and 1.3.
fn context(chain: &[X509], key: &PKey<Private>) -> Result<SslContext, ErrorStack> {
    let mut context = SslAcceptor::mozilla_intermediate_v5(SslMethod::tls_server())?;
    context.set_options(SslOptions::NO_RENEGOTIATION);
    // Clients resume by ticket; unauthenticated clients could fill a session cache.
    context.set_session_cache_mode(SslSessionCacheMode::OFF);
    // An idle connection keeps no buffers.
    context.set_mode(SslMode::RELEASE_BUFFERS);
    context.set_alpn_select_callback(|_, offered| {
        select_next_proto(PROTOCOLS, offered).ok_or(AlpnError::ALERT_FATAL)
    });
    context.set_private_key(key)?;
    context.set_certificate(&chain[0])?;
    for above in &chain[1..] {
        context.add_extra_chain_cert(above.clone())?;
    }
    Ok(context.build().into_context())
}

/// Reads a file into a buffer that is wiped: either file may hold a private key.
fn read(path: &Path) -> Result<Zeroizing<Vec<u8>>, TlsError> {
    let unreadable = |source| TlsError::Read { path: path.to_owned(), source };
    let file = files::open_regular(path).map_err(unreadable)?;
    // Reserves the maximum size, because growing would leave copies behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(MAX_SIZE + 1));
    file.take(MAX_SIZE as u64 + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() > MAX_SIZE {
        return Err(TlsError::TooLarge { path: path.to_owned() });
    }
    Ok(bytes)
}

fn chain(path: &Path, pem: &[u8]) -> Result<Vec<X509>, TlsError> {
    let chain = X509::stack_from_pem(&in_utf8(pem)).map_err(|source| TlsError::Malformed {
        path: path.to_owned(),
        what: "a certificate",
        source,
    })?;
    if chain.is_empty() {
        return Err(TlsError::Absent { path: path.to_owned(), what: "certificate" });
    }
    Ok(chain)
}

fn key(path: &Path, pem: &[u8]) -> Result<PKey<Private>, TlsError> {
    let pem = &Zeroizing::new(in_utf8(pem).into_owned());
    let holds = |text: &[u8]| pem.windows(text.len()).any(|window| window == text);
    if !holds(b"PRIVATE KEY-----") {
        return Err(TlsError::Absent { path: path.to_owned(), what: "private key" });
    }
    if holds(b"ENCRYPTED") {
        return Err(TlsError::Encrypted { path: path.to_owned() });
    }
    // Without a callback OpenSSL would ask for a passphrase at the terminal.
    PKey::private_key_from_pem_callback(pem, |_| Ok(0)).map_err(|source| TlsError::Malformed {
        path: path.to_owned(),
        what: "a private key",
        source,
    })
}

/// Warns when every user of the machine could read the private key. Only a warning: the modes of a volume may
/// be fixed.
pub(super) fn warn_of_readers(path: &Path) {
    if let Ok(metadata) = path.metadata()
        && metadata.mode() & EVERYBODY != 0
    {
        let mode = format!("{:04o}", metadata.mode() & 0o7777);
        warn!(path = %path.display(), mode, "private key is world-readable");
    }
}

fn timestamp(time: &Asn1TimeRef) -> Result<Timestamp, ErrorStack> {
    let since = Asn1Time::from_unix(0)?.diff(time)?;
    let seconds = i64::from(since.days) * 24 * 60 * 60 + i64::from(since.secs);
    // A certificate may use the year 9999 for "no expiry".
    Ok(Timestamp::from_second(seconds).unwrap_or(Timestamp::MAX))
}

/// Certificate and private key cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("cannot read `{}`", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("`{}` is too large, expected at most {MAX_SIZE} bytes", path.display())]
    TooLarge { path: PathBuf },
    #[error("no {what} in `{}`, expected PEM", path.display())]
    Absent { path: PathBuf, what: &'static str },
    #[error("cannot use {what} in `{}`", path.display())]
    Malformed { path: PathBuf, what: &'static str, source: ErrorStack },
    #[error("the private key in `{}` is encrypted, expected one without a passphrase", path.display())]
    Encrypted { path: PathBuf },
    #[error(
        "the private key in `{}` does not belong to the first certificate in `{}`",
        private_key.display(),
        certificate.display()
    )]
    Mismatch { certificate: PathBuf, private_key: PathBuf },
    #[error("cannot serve with the certificate in `{}`", certificate.display())]
    Unusable { certificate: PathBuf, source: ErrorStack },
    #[error("the certificate in `{}` is valid from {not_before} to {not_after}, expected now", certificate.display())]
    NotNow { certificate: PathBuf, not_before: Timestamp, not_after: Timestamp },
}

impl Hint for TlsError {
    fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Read { source, .. } => match source.kind() {
                io::ErrorKind::PermissionDenied => "let the user that runs Signpost read it",
                _ => {
                    "name files that can be read, in `tls` or with `--tls-certificate` and `--tls-private-key`"
                }
            },
            Self::TooLarge { .. } => "name a file with one certificate and its chain, or one private key",
            Self::Absent { what: "certificate", .. } => {
                "name the certificate, not its key; `openssl x509 -inform der` makes PEM of DER"
            }
            Self::Absent { .. } => {
                "name the private key, not its certificate; `openssl pkey -inform der` makes PEM of DER"
            }
            Self::Malformed { .. } => "restore the file: it is damaged",
            Self::Encrypted { .. } => "decrypt it with `openssl pkey`, and protect it by its mode",
            Self::Mismatch { .. } => {
                "name the key that the certificate was made for; the server's certificate comes first in its file"
            }
            Self::Unusable { .. } => "use an RSA key of at least 2048 bits, or P-256",
            Self::NotNow { .. } => "renew the certificate, or correct the clock",
        };
        Some(hint.to_owned())
    }
}
