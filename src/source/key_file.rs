//! Reads public keys from files: PEM in its many forms, DER, and JWKS.
//!
//! Polls rather than watches: kubelet replaces Secret volumes by swapping a symlink, which ends an inotify
//! watch (kubernetes#111947).

mod certificates;
pub mod content;
mod pem;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    fs,
    io::{self, Read as _},
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use self::{certificates::Certificates, content::Content};
pub use self::{
    content::{InvalidContent, InvalidKey},
    pem::InvalidPem,
};
use super::{Fetched, foreign_kids};
use crate::{
    blocking,
    core::{
        jose::{
            jwk::Jwk,
            jwk_set::{InvalidJwkSet, JwkSet},
            kid::Kid,
            left_out::{LeftOut, Unreadable},
        },
        text::{Hint, redaction::error_line},
    },
    files,
};

/// Largest file, in bytes: room for a thousand keys.
const MAX_SIZE: u64 = 1024 * 1024;
/// Most files that a pattern may match: more are never keys, and cyclic links match without end.
const MAX_FILES: usize = 10_000;

/// Initial buffer for a file of unknown size, as on some file systems: room for several keys.
const UNSIZED: u64 = 4096;

/// Files, directories and glob patterns.
#[derive(Debug)]
pub struct KeyFiles {
    name: String,
    patterns: Arc<[String]>,
    optional: bool,
    parsed: Arc<Mutex<Option<Parsed>>>,
}

/// The result of parsing the files last time: parsing is most of a poll, and files rarely change. They are
/// still read every time, so no change is missed.
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

    /// Permits an empty directory and a glob without matches; the directories must exist, or the volume is
    /// not mounted yet.
    #[must_use]
    pub fn optional(self) -> Self {
        Self { optional: true, ..self }
    }

    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Reads every file again.
    ///
    /// From a directory or glob, certificates are skipped, and so are keys that belong to a certificate
    /// beside them; an explicitly named file is used whatever it is.
    ///
    /// # Errors
    ///
    /// Fails when a pattern matches no file and that is not [`KeyFiles::optional`], when an explicitly named
    /// file cannot be read or holds no usable key, and when there is no key at all.
    pub async fn fetch(&self) -> Result<Fetched, KeyFileError> {
        let (patterns, parsed) = (Arc::clone(&self.patterns), Arc::clone(&self.parsed));
        let optional = self.optional;
        let place = PathBuf::from(self.patterns.join(" "));
        let done = blocking::at(&place, move || {
            let read = read(&patterns, optional)?;
            let digest = read.digest;
            let mut parsed = parsed.lock().expect("nobody panics while holding it");
            if let Some(parsed) = parsed.as_ref().filter(|parsed| parsed.digest == digest) {
                return Ok(parsed.fetched.clone());
            }
            let fetched = parse(read, optional)?;
            *parsed = Some(Parsed { digest, fetched: fetched.clone() });
            Ok(fetched)
        });
        done.await.unwrap_or_else(|error| Err(KeyFileError::Read { path: place, source: error.into() }))
    }
}

/// Reads the keys of one explicitly named file, all of which must be usable.
///
/// # Errors
///
/// Fails when the file cannot be read, holds no public key, or one that cannot be used.
pub async fn keys_of(path: PathBuf) -> Result<Vec<Jwk>, KeyFileError> {
    let read = tokio::task::spawn_blocking(move || {
        let bytes = read_file(&path);
        parse(Read { files: vec![KeyFile { path, is_named: true, bytes }], ..Read::default() }, false)
    });
    let fetched = read.await.expect("reading does not panic and nobody aborts it")?;
    match fetched.left_out.into_iter().find(|left_out| !left_out.may_be.is_empty()) {
        Some(LeftOut { what, .. }) => Err(KeyFileError::LeftOut { what }),
        None => Ok(fetched.keys),
    }
}

/// Wiped on drop: the bytes may be a private key.
type Bytes = Zeroizing<Vec<u8>>;

/// The contents of all files.
#[derive(Default)]
struct Read {
    files: Vec<KeyFile>,
    /// The certificates in the same directories.
    certificates: Certificates,
    /// Digest of everything that was read.
    digest: [u8; 32],
}

/// A file that should hold keys.
struct KeyFile {
    path: PathBuf,
    /// Whether the file is named explicitly, not found in a directory or by a pattern.
    is_named: bool,
    bytes: Result<Bytes, KeyFileError>,
}

fn read(patterns: &[String], optional: bool) -> Result<Read, KeyFileError> {
    let (mut named, mut found) = (Vec::new(), Vec::new());
    for pattern in patterns {
        match files(pattern) {
            Ok(Files::Named(path)) => named.push(path),
            Ok(Files::Found(paths)) => found.extend(paths),
            Err(KeyFileError::NoFile { pattern }) if optional => must_exist(Path::new(&pattern))?,
            Err(error) => return Err(error),
        }
    }
    found.retain(|path| !named.contains(path));
    let found: BTreeSet<PathBuf> = found.into_iter().collect();
    let around: BTreeSet<PathBuf> = found.iter().flat_map(|path| directories(path)).collect();
    let mut beside: BTreeSet<PathBuf> = around.into_iter().flat_map(neighbours).collect();
    beside.retain(|path| !found.contains(path));
    let mut read = Read::default();
    let mut hasher = Sha256::new();
    // These may be many, and are not kept: each is read only to check whether it is a certificate.
    for path in beside {
        let bytes = read_file(&path);
        digest(&mut hasher, &path, &bytes);
        read.certificates.look(&path, bytes.as_ref().ok().map(|bytes| bytes.as_slice()));
    }
    let all = named.into_iter().map(|path| (path, true)).chain(found.into_iter().map(|path| (path, false)));
    for (path, is_named) in all {
        let bytes = read_file(&path);
        digest(&mut hasher, &path, &bytes);
        if is_named {
            read.files.push(KeyFile { path, is_named, bytes: Ok(bytes?) });
        } else {
            read.certificates.look(&path, bytes.as_ref().ok().map(|bytes| bytes.as_slice()));
            read.files.push(KeyFile { path, is_named, bytes });
        }
    }
    read.digest = hasher.finalize().into();
    Ok(read)
}

/// The directories of a file and of the file it links to: the certificate may be in either.
fn directories(path: &Path) -> impl Iterator<Item = PathBuf> {
    let end = fs::canonicalize(path).ok();
    let parents = [Some(path), end.as_deref()].map(|path| path.and_then(Path::parent).map(Path::to_owned));
    parents.into_iter().flatten()
}

/// All files of a directory, including hidden ones. Empty when it cannot be listed: the key file itself was
/// still found.
fn neighbours(directory: PathBuf) -> impl Iterator<Item = PathBuf> {
    // The parent of a bare file name is empty.
    let listed = if directory.as_os_str().is_empty() { Path::new(".") } else { &directory };
    let entries = fs::read_dir(listed).into_iter().flatten();
    entries
        .filter_map(move |entry| Some(directory.join(entry.ok()?.file_name())))
        .filter(|path| !path.is_dir())
}

/// Adds path and content, or the error, each prefixed with its length.
fn digest(hasher: &mut Sha256, path: &Path, bytes: &Result<Bytes, KeyFileError>) {
    let failed = bytes.as_ref().err().map(|error| error_line(error)).unwrap_or_default();
    let content = bytes.as_ref().map_or(&[][..], |bytes| bytes.as_slice());
    for part in [path.as_os_str().as_bytes(), content, failed.as_bytes()] {
        hasher.update((part.len() as u64).to_be_bytes());
        hasher.update(part);
    }
}

fn parse(read: Read, optional: bool) -> Result<Fetched, KeyFileError> {
    let Read { files, certificates, .. } = read;
    let mut fetched = Fetched::default();
    let mut found_in: HashMap<Jwk, PathBuf> = HashMap::new();
    let mut for_tls: BTreeMap<PathBuf, BTreeSet<String>> = BTreeMap::new();
    let mut odd = None;
    for KeyFile { path, is_named, bytes } in files {
        let shown = path.display();
        let taken = match (bytes.and_then(|bytes| content(&path, &bytes)), is_named) {
            (Err(error), true) => return Err(error),
            (content, true) => content.map(Some),
            (content, false) => certificates.leave(&path, content),
        };
        let content = match taken {
            Ok(Some(content)) => content,
            Ok(None) => {
                let name = path.file_name().map(|name| name.to_string_lossy().into_owned());
                let directory = path.parent().unwrap_or(&path).to_owned();
                for_tls.entry(directory).or_default().extend(name);
                continue;
            }
            Err(error) => {
                let what = format!("left out: {}", error_line(&error));
                fetched.left_out.push(LeftOut { what, may_be: error.may_be() });
                odd = odd.or(Some(error));
                continue;
            }
        };
        fetched.notes.extend(content.notes.iter().map(|note| format!("`{shown}`: {note}")));
        let left_out = content.left_out.into_iter();
        fetched.left_out.extend(
            left_out.map(|it| LeftOut { what: format!("`{shown}`: {}", it.what), may_be: it.may_be }),
        );
        for key in content.keys {
            match found_in.get(&key) {
                None => {
                    let same = fetched.keys.iter().find(|other| other.kid() == key.kid());
                    if let Some(first) =
                        same.and_then(|other| found_in.get(other)).filter(|first| **first != path)
                    {
                        let (kid, first) = (key.kid().clone(), first.clone());
                        return Err(KeyFileError::SameKid { kid, first, second: path });
                    }
                    found_in.insert(key.clone(), path.clone());
                    fetched.keys.push(key);
                }
                Some(first) => fetched.notes.push(format!(
                    "key `{}` of `{shown}` is already in `{}`",
                    key.kid(),
                    first.display()
                )),
            }
        }
    }
    fetched.notes.extend(for_tls.iter().map(|(directory, names)| {
        let names: Vec<_> = names.iter().map(|name| format!("`{name}`")).collect();
        format!(
            "certificates and keys of certificates are skipped in `{}`: {}; name a file explicitly if it \
             signs tokens",
            directory.display(),
            names.join(", ")
        )
    }));
    if fetched.keys.is_empty() {
        return match odd {
            Some(error) => Err(error),
            None if optional || for_tls.is_empty() => Ok(fetched),
            None => Err(KeyFileError::NothingLeft { why: fetched.notes }),
        };
    }
    JwkSet::new(fetched.keys.iter().cloned()).map_err(KeyFileError::Set)?;
    let foreign: Vec<_> = foreign_kids(&fetched.keys).collect();
    fetched.notes.extend(foreign);
    Ok(fetched)
}

/// Parses a file that must hold at least one key.
fn content(path: &Path, bytes: &[u8]) -> Result<Content, KeyFileError> {
    let content =
        content::parse(bytes).map_err(|source| KeyFileError::Content { path: path.to_owned(), source })?;
    if content.keys.is_empty() {
        let left_out = content.left_out.iter().map(ToString::to_string).chain(content.notes).collect();
        return Err(KeyFileError::NoKey { path: path.to_owned(), left_out });
    }
    Ok(content)
}

/// Fails where there is not even the directory in which a pattern begins.
fn must_exist(pattern: &Path) -> Result<(), KeyFileError> {
    let is_glob = |path: &Path| path.as_os_str().as_bytes().iter().any(|byte| b"*?[".contains(byte));
    let begins = pattern.ancestors().find(|path| !is_glob(path) || path.is_dir()).unwrap_or(pattern);
    let found = fs::metadata(begins);
    found.map(drop).map_err(|source| KeyFileError::Read { path: begins.to_owned(), source })
}

/// The files of a pattern.
enum Files {
    Named(PathBuf),
    /// Sorted by name.
    Found(Vec<PathBuf>),
}

fn files(pattern: &str) -> Result<Files, KeyFileError> {
    let path = Path::new(pattern);
    match fs::metadata(path) {
        Ok(metadata) if metadata.is_dir() => files_in(path).map(Files::Found),
        Ok(_) => Ok(Files::Named(path.to_owned())),
        Err(_) if pattern.contains(['*', '?', '[']) => matches(pattern).map(Files::Found),
        Err(source) => Err(KeyFileError::Read { path: path.to_owned(), source }),
    }
}

/// Files of a directory that do not start with a dot: Secret volumes keep their generations in directories
/// that do.
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
        if files.len() > MAX_FILES {
            return Err(KeyFileError::TooMany { pattern: pattern.to_owned() });
        }
    }
    if files.is_empty() {
        return Err(KeyFileError::NoFile { pattern: pattern.to_owned() });
    }
    files.sort();
    // A cyclic link finds the same file repeatedly.
    let mut ends = HashSet::new();
    files.retain(|path| fs::canonicalize(path).map_or(true, |end| ends.insert(end)));
    Ok(files)
}

/// Reads a file; fails when it grows during the read.
fn read_file(path: &Path) -> Result<Bytes, KeyFileError> {
    let unreadable = |source| KeyFileError::Read { path: path.to_owned(), source };
    let file = files::open_regular(path).map_err(unreadable)?;
    let size = file.metadata().map_err(unreadable)?.len();
    if size > MAX_SIZE {
        return Err(KeyFileError::TooLarge { path: path.to_owned() });
    }
    // Reserves the whole size at once, because growing would leave copies behind. Wiping a larger buffer
    // would dominate a poll.
    let room = size.max(UNSIZED) + 1;
    let mut bytes = Zeroizing::new(Vec::with_capacity(usize::try_from(room).expect("a mebibyte fits")));
    file.take(room).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 == room {
        return Err(unreadable(io::Error::other("it changed while it was read")));
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
    #[error(
        "kid `{kid}` names one key in `{first}` and another one in `{second}`",
        first = first.display(),
        second = second.display()
    )]
    SameKid { kid: Kid, first: PathBuf, second: PathBuf },
    #[error("`{pattern}` finds more than {MAX_FILES} files")]
    TooMany { pattern: String },
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
    #[error("no usable public key in these files{left_out}", left_out = in_brackets(why))]
    NothingLeft { why: Vec<String> },
    #[error("{what}")]
    LeftOut { what: String },
    #[error("`{path}` may be, or belong to, a certificate that cannot be read", path = path.display())]
    Doubtful { path: PathBuf, may_be: Unreadable },
    #[error("the keys of these files cannot be published together")]
    Set(#[source] InvalidJwkSet),
}

impl Hint for KeyFileError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Read { path, source } if source.kind() == io::ErrorKind::TimedOut => {
                Some(format!("check what `{}` is mounted from", path.display()))
            }
            Self::NoKey { left_out, .. } if !left_out.is_empty() => {
                Some("name a key that kube-apiserver can sign with: RSA, P-256, P-384 or P-521".to_owned())
            }
            Self::Read { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
                Some("let this user read it; a public key is no secret".to_owned())
            }
            Self::SameKid { .. } => Some(
                "remove one of the files, or omit its `kid` to use the one that Kubernetes derives"
                    .to_owned(),
            ),
            Self::TooMany { .. } => Some(
                "name the directory of the keys; a symbolic link may lead back to where it is".to_owned(),
            ),
            Self::NoKey { .. } | Self::NoFile { .. } | Self::Read { .. } | Self::TooLarge { .. } => Some(
                "name what `--service-account-key-file` of kube-apiserver names, on kubeadm \
                 `/etc/kubernetes/pki/sa.pub`"
                    .to_owned(),
            ),
            Self::Pattern { .. } => Some("write `[[]` for a `[` that stands for itself".to_owned()),
            Self::Content { source, .. } => source.hint(),
            Self::NothingLeft { .. } => Some(
                "name the files of the keys that sign tokens explicitly, on kubeadm \
                 `/etc/kubernetes/pki/sa.pub`"
                    .to_owned(),
            ),
            Self::Doubtful { .. } => Some(
                "correct the certificate next to it, or name the file explicitly if it signs tokens"
                    .to_owned(),
            ),
            Self::LeftOut { .. } => Some("pass a file in which all public keys are usable".to_owned()),
            Self::Set(_) => Some("remove one of the files".to_owned()),
        }
    }
}

impl KeyFileError {
    /// The keys that an unreadable file may hold.
    fn may_be(&self) -> Unreadable {
        match self {
            Self::Doubtful { may_be, .. } => may_be.clone(),
            _ => Unreadable::anything(),
        }
    }
}

fn in_brackets(left_out: &[String]) -> String {
    if left_out.is_empty() { String::new() } else { format!(" ({})", left_out.join("; ")) }
}

#[cfg(test)]
mod tests;
