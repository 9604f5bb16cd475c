//! Reads the announcements of signing nodes: a directory with one file per node.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::Duration,
};

use super::Fetched;
use crate::{
    blocking, clock,
    core::{
        jose::issuer::Issuer,
        ledger::merge::NodeStatement,
        signer::announcement::{InvalidSignedAnnouncement, NodeName, SignedAnnouncement},
        text::Hint,
    },
    files,
};

/// Most files that are read: a cluster has a handful of nodes.
const MAX_FILES: usize = 256;
/// Largest file that is read, in bytes: a node has a handful of keys.
const MAX_SIZE: u64 = 1024 * 1024;

/// The announcements of all nodes of an issuer.
#[derive(Debug)]
pub struct Announcements {
    name: String,
    directory: PathBuf,
    /// Announcements of other issuers are refused; `None`: all are accepted.
    issuer: Option<Issuer>,
    /// The node that signs in this process.
    own: Option<NodeName>,
    /// The ledger's `ConfigMap` beside which the synced announcements are stored; `None`: nodes write to the
    /// directory itself.
    carried_from: Option<String>,
    /// How long a key stays after its last token has expired, because clocks differ.
    margin: Duration,
    /// What the files held when they were last read: only what has changed is verified again.
    known: Arc<Mutex<BTreeMap<PathBuf, SignedAnnouncement>>>,
}

impl Announcements {
    #[must_use]
    pub fn new(name: String, directory: PathBuf, issuer: Option<Issuer>, margin: Duration) -> Self {
        Self { name, directory, issuer, own: None, carried_from: None, margin, known: Arc::default() }
    }

    /// Sets the node that signs in this process.
    #[must_use]
    pub fn beside(self, own: NodeName) -> Self {
        Self { own: Some(own), ..self }
    }

    /// Sets the ledger beside whose `ConfigMap` the announcements are stored.
    #[must_use]
    pub fn carried_from(self, ledger: Option<String>) -> Self {
        Self { carried_from: ledger, ..self }
    }

    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Reads every announcement.
    ///
    /// # Errors
    ///
    /// Fails as a whole when one of them cannot be read or is of another issuer, and when there is none.
    pub async fn fetch(&self) -> Result<Fetched, AnnouncementError> {
        let (directory, known) = (self.directory.clone(), Arc::clone(&self.known));
        let read = blocking::at(&self.directory, move || read(&directory, &known)).await;
        let posted = read.unwrap_or_else(|hangs| {
            Err(AnnouncementError::Io { path: self.directory.clone(), source: hangs.into() })
        });
        let posted = posted.map_err(|error| match (error, &self.carried_from) {
            (AnnouncementError::Nobody { .. }, Some(ledger)) => {
                AnnouncementError::NothingCarried { ledger: ledger.clone() }
            }
            (error, _) => error,
        })?;
        let now = clock::now();
        let (mut said, mut owners) = (Vec::new(), BTreeMap::new());
        let mut nodes: BTreeMap<NodeName, PathBuf> = BTreeMap::new();
        let mut notes = Vec::new();
        for (path, posted) in posted {
            let announcement = posted.announcement();
            if let Some(expected) = self.issuer.clone().filter(|issuer| issuer != announcement.issuer()) {
                let found = announcement.issuer().clone();
                return Err(AnnouncementError::OtherIssuer { path, found, expected });
            }
            let node = announcement.node();
            if let Some(first) = nodes.insert(node.clone(), path.clone()) {
                return Err(AnnouncementError::Twice { node: node.clone(), first, path });
            }
            for kid in announcement.keys().keys() {
                let first = owners.entry(kid.clone()).or_insert_with(|| node.clone());
                if first != node {
                    notes.push(format!("node `{node}` announces key `{kid}` of node `{first}`"));
                }
            }
            let is_own = self.own.as_ref() == Some(node);
            said.push(NodeStatement { is_own, ..NodeStatement::new(posted, now, self.margin) });
        }
        let mut keys: Vec<_> = said.iter().flat_map(NodeStatement::keys).cloned().collect();
        keys.sort_by(|one, other| one.kid().cmp(other.kid()));
        keys.dedup();
        Ok(Fetched { keys, statements: Some(said), notes, ..Fetched::default() })
    }
}

fn read(
    directory: &Path,
    known: &Mutex<BTreeMap<PathBuf, SignedAnnouncement>>,
) -> Result<BTreeMap<PathBuf, SignedAnnouncement>, AnnouncementError> {
    let cannot = |path: &Path| {
        let path = path.to_owned();
        move |source| AnnouncementError::Io { path, source }
    };
    let mut paths = Vec::new();
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(AnnouncementError::Nobody { directory: directory.to_owned() });
        }
        entries => entries.map_err(cannot(directory))?,
    };
    for entry in entries {
        let path = entry.map_err(cannot(directory))?.path();
        // A leading dot marks a file that is being written.
        let is_hidden = path.file_name().is_none_or(|name| name.as_encoded_bytes().starts_with(b"."));
        if !is_hidden && path.extension().is_some_and(|extension| extension == "json") {
            paths.push(path);
        }
    }
    if paths.is_empty() {
        return Err(AnnouncementError::Nobody { directory: directory.to_owned() });
    }
    if paths.len() > MAX_FILES {
        return Err(AnnouncementError::TooMany { directory: directory.to_owned() });
    }
    let mut before = std::mem::take(&mut *known.lock().expect("nobody panics with it"));
    let mut read = |path: PathBuf| {
        // The files of a ConfigMap or Secret volume are symlinks.
        let bytes = files::read(&path, MAX_SIZE).map_err(cannot(&path))?;
        match SignedAnnouncement::read_again(&bytes, before.remove(&path)) {
            Ok(posted) => Ok((path, posted)),
            Err(source) => Err(AnnouncementError::Invalid { path, source }),
        }
    };
    let announcements = paths.into_iter().map(&mut read).collect::<Result<BTreeMap<_, _>, _>>()?;
    known.lock().expect("nobody panics with it").clone_from(&announcements);
    Ok(announcements)
}

#[derive(Debug, thiserror::Error)]
pub enum AnnouncementError {
    #[error("no node has announced its keys in `{directory}`", directory = directory.display())]
    Nobody { directory: PathBuf },
    #[error("no ConfigMap with an announcement next to `{ledger}` was read yet")]
    NothingCarried { ledger: String },
    #[error("more than {MAX_FILES} announcements in `{directory}`", directory = directory.display())]
    TooMany { directory: PathBuf },
    #[error("cannot read `{path}`", path = path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error("cannot use `{path}`", path = path.display())]
    Invalid { path: PathBuf, source: InvalidSignedAnnouncement },
    #[error("`{path}` is of issuer `{found}`, expected `{expected}`", path = path.display())]
    OtherIssuer { path: PathBuf, found: Issuer, expected: Issuer },
    #[error(
        "node `{node}` is announced twice, in `{first}` and in `{path}`",
        first = first.display(),
        path = path.display()
    )]
    Twice { node: NodeName, first: PathBuf, path: PathBuf },
}

impl Hint for AnnouncementError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Nobody { .. } => Some("start the signer, which announces its keys".to_owned()),
            Self::NothingCarried { .. } => Some(
                "start the signers, which announce their keys; errors when reading the ConfigMaps are in this log"
                    .to_owned(),
            ),
            Self::Invalid { .. } | Self::TooMany { .. } => {
                Some("remove it: a running signer writes its own again; otherwise check who writes there".to_owned())
            }
            Self::OtherIssuer { .. } => Some("start the signer with this issuer".to_owned()),
            Self::Twice { node, .. } => Some(format!(
                "remove the copy: a node announces only in `{node}.json`; give two signers different names \
                 with `--node`"
            )),
            Self::Io { source, .. } if source.kind() == io::ErrorKind::FileTooLarge => {
                Some("remove it: a running signer writes its own again; otherwise check who writes \
                    there".to_owned())
            }
            Self::Io { .. } => None,
        }
    }
}

#[cfg(test)]
mod tests;
