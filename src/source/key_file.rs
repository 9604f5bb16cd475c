//! Reads public keys from files: PEM in its many forms, DER, and JWKS.
//!
//! Polls rather than watches: kubelet replaces Secret volumes by swapping a symlink, which ends an
//! inotify watch (kubernetes#111947).

pub mod content;
mod pem;

use std::{
    collections::HashMap,
    fs,
    io::{self, Read as _},
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

pub use self::{
    content::{InvalidContent, InvalidKey},
    pem::InvalidPem,
};
use super::{Fetched, foreign_kids};
use crate::{
    core::jwk_set::{InvalidJwkSet, JwkSet},
    files,
};

/// Largest file that is read, in bytes: room for a thousand keys.
const MAX_SIZE: u64 = 1024 * 1024;

/// Room for a file that does not say how large it is, as those of some file systems: for several keys.
const UNSIZED: u64 = 4096;

/// Files, directories and glob patterns.
#[derive(Debug)]
pub struct KeyFiles {
    name: String,
    patterns: Arc<[String]>,
    optional: bool,
    parsed: Arc<Mutex<Option<Parsed>>>,
}

/// What was made of the files when they were last read: parsing is most of a poll, and they rarely
/// change. They are read all the same, so no change can be missed.
#[derive(Debug)]
struct Parsed {
    digest: [u8; 32],
    fetched: Fetched,
}

impl KeyFiles {
    #[must_use]
    pub fn new(name: String, patterns: Vec<String>) -> Self {
        Self { name, patterns: patterns.into(), optional: false, parsed: Arc::default() }
    }

    /// A directory may be empty and a glob find nothing; both must exist, or the volume is not there yet.
    #[must_use]
    pub fn optional(self) -> Self {
        Self { optional: true, ..self }
    }

    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Reads every file anew.
    ///
    /// # Errors
    ///
    /// Fails when a pattern finds no file and that is not [`KeyFiles::optional`], and when any file cannot be read or holds no public key.
    pub async fn fetch(&self) -> Result<Fetched, KeyFileError> {
        let (patterns, parsed) = (Arc::clone(&self.patterns), Arc::clone(&self.parsed));
        let optional = self.optional;
        tokio::task::spawn_blocking(move || {
            let files = read(&patterns, optional)?;
            let digest = digest(&files);
            let mut parsed = parsed.lock().expect("nobody panics while holding it");
            if let Some(parsed) = parsed.as_ref().filter(|parsed| parsed.digest == digest) {
                return Ok(parsed.fetched.clone());
            }
            let fetched = parse(files)?;
            *parsed = Some(Parsed { digest, fetched: fetched.clone() });
            Ok(fetched)
        })
        .await
        .expect("reading does not panic and nobody aborts it")
    }
}

/// A file and its bytes, which are wiped when they are dropped: they may be a private key.
type Bytes = (PathBuf, Zeroizing<Vec<u8>>);

fn read(patterns: &[String], optional: bool) -> Result<Vec<Bytes>, KeyFileError> {
    let mut read = Vec::new();
    for pattern in patterns {
        let found = match files(pattern) {
            Err(KeyFileError::NoFile { pattern }) if optional => {
                must_exist(Path::new(&pattern))?;
                Vec::new()
            }
            found => found?,
        };
        for path in found {
            let bytes = read_file(&path)?;
            read.push((path, bytes));
        }
    }
    Ok(read)
}

/// Names and contents, each with its length before it.
fn digest(files: &[Bytes]) -> [u8; 32] {
    let mut hasher = Sha256::new();
    for part in files.iter().flat_map(|(path, bytes)| [path.as_os_str().as_bytes(), bytes]) {
        hasher.update((part.len() as u64).to_be_bytes());
        hasher.update(part);
    }
    hasher.finalize().into()
}

fn parse(files: Vec<Bytes>) -> Result<Fetched, KeyFileError> {
    let mut fetched = Fetched::default();
    let mut found_in = HashMap::new();
    for (path, bytes) in files {
        let content =
            content::parse(&bytes).map_err(|source| KeyFileError::Content { path: path.clone(), source })?;
        if content.keys.is_empty() {
            return Err(KeyFileError::NoKey { path, left_out: content.left_out });
        }
        let shown = path.display();
        fetched.notes.extend(content.left_out.iter().map(|note| format!("`{shown}`: {note}")));
        for key in content.keys {
            match found_in.get(&key) {
                None => {
                    found_in.insert(key.clone(), path.clone());
                    fetched.keys.push(key);
                }
                Some(first) => fetched.notes.push(format!(
                    "key `{}` of `{shown}` stands already in `{}`",
                    key.kid(),
                    first.display()
                )),
            }
        }
    }
    if !found_in.is_empty() {
        JwkSet::new(fetched.keys.iter().cloned()).map_err(KeyFileError::Set)?;
    }
    let foreign: Vec<_> = foreign_kids(&fetched.keys).collect();
    fetched.notes.extend(foreign);
    Ok(fetched)
}

/// Fails where there is not even the directory in which a pattern begins.
fn must_exist(pattern: &Path) -> Result<(), KeyFileError> {
    let is_glob = |path: &Path| path.as_os_str().as_bytes().iter().any(|byte| b"*?[".contains(byte));
    let begins = pattern.ancestors().find(|path| !is_glob(path) || path.is_dir()).unwrap_or(pattern);
    let found = fs::metadata(begins);
    found.map(drop).map_err(|source| KeyFileError::Read { path: begins.to_owned(), source })
}

/// The files that a pattern means, in the order of their names.
fn files(pattern: &str) -> Result<Vec<PathBuf>, KeyFileError> {
    let path = Path::new(pattern);
    match fs::metadata(path) {
        Ok(metadata) if metadata.is_dir() => files_in(path),
        Ok(_) => Ok(vec![path.to_owned()]),
        Err(_) if pattern.contains(['*', '?', '[']) => matches(pattern),
        Err(source) => Err(KeyFileError::Read { path: path.to_owned(), source }),
    }
}

/// Files of a directory that do not start with a dot: Secret volumes keep their generations in
/// directories that do.
fn files_in(directory: &Path) -> Result<Vec<PathBuf>, KeyFileError> {
    let unreadable = |source| KeyFileError::Read { path: directory.to_owned(), source };
    let mut files = Vec::new();
    for entry in fs::read_dir(directory).map_err(unreadable)? {
        let entry = entry.map_err(unreadable)?;
        let path = entry.path();
        if entry.file_name().as_encoded_bytes().starts_with(b".") || path.is_dir() {
            continue;
        }
        files.push(path);
    }
    if files.is_empty() {
        return Err(KeyFileError::NoFile { pattern: directory.display().to_string() });
    }
    files.sort();
    Ok(files)
}

fn matches(pattern: &str) -> Result<Vec<PathBuf>, KeyFileError> {
    let options = glob::MatchOptions { require_literal_leading_dot: true, ..glob::MatchOptions::default() };
    let found = glob::glob_with(pattern, options)
        .map_err(|source| KeyFileError::Pattern { pattern: pattern.to_owned(), source })?;
    let mut files = Vec::new();
    for path in found {
        let path =
            path.map_err(|error| KeyFileError::Read { path: error.path().to_owned(), source: error.into() })?;
        if !path.is_dir() {
            files.push(path);
        }
    }
    if files.is_empty() {
        return Err(KeyFileError::NoFile { pattern: pattern.to_owned() });
    }
    files.sort();
    Ok(files)
}

/// The bytes of a file, as long as it does not grow meanwhile.
fn read_file(path: &Path) -> Result<Zeroizing<Vec<u8>>, KeyFileError> {
    let unreadable = |source| KeyFileError::Read { path: path.to_owned(), source };
    let file = files::open_regular(path).map_err(unreadable)?;
    let size = file.metadata().map_err(unreadable)?.len();
    if size > MAX_SIZE {
        return Err(KeyFileError::TooLarge { path: path.to_owned() });
    }
    // With room for all of it from the start, growing leaves no copies behind. Wiping more room than is
    // needed would be most of a poll.
    let room = size.max(UNSIZED) + 1;
    let mut bytes = Zeroizing::new(Vec::with_capacity(usize::try_from(room).expect("a mebibyte fits")));
    file.take(room).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 == room {
        return Err(unreadable(io::Error::other("it grows while it is read")));
    }
    Ok(bytes)
}

/// Files could not be read, or not as public keys.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    #[error("cannot read `{path}`", path = path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("`{pattern}` is not a glob pattern")]
    Pattern { pattern: String, source: glob::PatternError },
    #[error("no file in `{pattern}`, expected at least one")]
    NoFile { pattern: String },
    #[error("`{path}` is too large, expected at most {MAX_SIZE} bytes", path = path.display())]
    TooLarge { path: PathBuf },
    #[error(
        "no public key in `{path}`, expected PEM or JWKS{left_out}",
        path = path.display(),
        left_out = in_brackets(left_out)
    )]
    NoKey { path: PathBuf, left_out: Vec<String> },
    #[error("cannot use `{path}`", path = path.display())]
    Content { path: PathBuf, source: InvalidContent },
    #[error("the keys of these files cannot be published together")]
    Set(#[source] InvalidJwkSet),
}

impl KeyFileError {
    /// What to do about it.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::NoKey { left_out, .. } if !left_out.is_empty() => {
                Some("name a key that kube-apiserver can sign with: RSA, P-256, P-384 or P-521".to_owned())
            }
            Self::Read { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
                Some("let this user read it; the public half is no secret".to_owned())
            }
            Self::NoKey { .. } | Self::NoFile { .. } | Self::Read { .. } | Self::TooLarge { .. } => Some(
                "name what `--service-account-key-file` of kube-apiserver names, on kubeadm \
                 `/etc/kubernetes/pki/sa.pub`"
                    .to_owned(),
            ),
            Self::Pattern { .. } => Some("write `[[]` for a `[` that stands for itself".to_owned()),
            Self::Content { source, .. } => Some(source.hint().to_owned()),
            Self::Set(_) => Some("leave one of the files out".to_owned()),
        }
    }
}

fn in_brackets(left_out: &[String]) -> String {
    if left_out.is_empty() { String::new() } else { format!(" ({})", left_out.join("; ")) }
}

#[cfg(test)]
mod tests;
