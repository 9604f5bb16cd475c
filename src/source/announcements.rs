//! Reads the announcements of signing nodes: a directory with one file per node.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{Arc, Mutex},
    time::Duration,
};

use super::Fetched;
use crate::{
    announcements::{AnnouncementFileError, AnnouncementFiles, MAX_FILES},
    blocking, clock,
    core::{
        jose::issuer::Issuer,
        ledger::merge::NodeStatement,
        signer::announcement::{NodeName, SignedAnnouncement},
        text::Hint,
    },
    files,
};

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
    synced_from: Option<String>,
    /// How long a key stays after its last token has expired, because clocks differ.
    margin: Duration,
    files: Arc<Mutex<AnnouncementFiles>>,
}

impl Announcements {
    #[must_use]
    pub fn new(name: String, directory: PathBuf, issuer: Option<Issuer>, margin: Duration) -> Self {
        let files = Arc::new(Mutex::new(AnnouncementFiles::new(directory.clone(), files::read)));
        Self { name, directory, issuer, own: None, synced_from: None, margin, files }
    }

    /// Sets the node that signs in this process.
    #[must_use]
    pub fn beside(self, own: NodeName) -> Self {
        Self { own: Some(own), ..self }
    }

    /// Sets the ledger beside whose `ConfigMap` the announcements are stored.
    #[must_use]
    pub fn synced_from(self, ledger: Option<String>) -> Self {
        Self { synced_from: ledger, ..self }
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
        let files = Arc::clone(&self.files);
        let read = move || read(&mut files.lock().expect("nobody panics with it"));
        let signed = blocking::at(&self.directory, read).await.unwrap_or_else(|hangs| {
            Err(AnnouncementFileError::Read { path: self.directory.clone(), source: hangs.into() }.into())
        });
        let signed = signed.map_err(|error| match (error, &self.synced_from) {
            (AnnouncementError::Nobody { .. }, Some(ledger)) => {
                AnnouncementError::NothingSynced { ledger: ledger.clone() }
            }
            (error, _) => error,
        })?;
        let now = clock::now();
        let (mut said, mut owners) = (Vec::new(), BTreeMap::new());
        let mut nodes: BTreeMap<NodeName, PathBuf> = BTreeMap::new();
        let mut notes = Vec::new();
        for (path, signed) in signed {
            let announcement = signed.announcement();
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
            said.push(NodeStatement { is_own, ..NodeStatement::new(signed, now, self.margin) });
        }
        let mut keys: Vec<_> = said.iter().flat_map(NodeStatement::keys).cloned().collect();
        keys.sort_by(|one, other| one.kid().cmp(other.kid()));
        keys.dedup();
        Ok(Fetched { keys, statements: Some(said), notes, ..Fetched::default() })
    }
}

fn read(files: &mut AnnouncementFiles) -> Result<BTreeMap<PathBuf, SignedAnnouncement>, AnnouncementError> {
    let directory = || files.directory().to_owned();
    match files.paths(usize::MAX)? {
        paths if paths.is_empty() => Err(AnnouncementError::Nobody { directory: directory() }),
        paths if paths.len() > MAX_FILES => {
            Err(AnnouncementFileError::TooMany { directory: directory() }.into())
        }
        paths => files.read(paths).into_iter().map(|(path, signed)| Ok((path, signed?))).collect(),
    }
}

#[derive(Debug, thiserror::Error)]
pub enum AnnouncementError {
    #[error("no node has announced its keys in `{directory}`", directory = directory.display())]
    Nobody { directory: PathBuf },
    #[error("no ConfigMap with an announcement next to `{ledger}` was read yet")]
    NothingSynced { ledger: String },
    #[error(transparent)]
    File(#[from] AnnouncementFileError),
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
            Self::NothingSynced { .. } => Some(
                "start the signers, which announce their keys; errors when reading the ConfigMaps are in this log"
                    .to_owned(),
            ),
            Self::File(error) if !error.is_content() => None,
            Self::File(_) => {
                Some("remove it: a running signer writes its own again; otherwise check who writes there".to_owned())
            }
            Self::OtherIssuer { .. } => Some("start the signer with this issuer".to_owned()),
            Self::Twice { node, .. } => Some(format!(
                "remove the copy: a node announces only in `{node}.json`; give two signers different names \
                 with `--node`"
            )),
        }
    }
}

#[cfg(test)]
mod tests;
