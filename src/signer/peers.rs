//! The other nodes: what they announce, and which of them are trusted.

use std::{
    collections::BTreeSet,
    io::ErrorKind,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard},
};

use super::trust::{TrustError, TrustStore};
use crate::{
    announcements::{AnnouncementFileError, AnnouncementFiles, MAX_FILES},
    core::signer::{
        announcement::{NodeName, SignedAnnouncement},
        trust::{Distrust, LocalNode, Trust},
    },
    files,
};

/// Most directory entries that are examined.
const MAX_NAMES: usize = 10_000;

pub(super) struct Peers {
    own: NodeName,
    /// Held while announcements are read, however long that takes.
    files: Mutex<AnnouncementFiles>,
    announcements: Mutex<PeerAnnouncements>,
    state: Mutex<PeerState>,
}

/// The announcements of other nodes, as last read.
#[derive(Default)]
struct PeerAnnouncements {
    signed: Arc<[SignedAnnouncement]>,
    unreadable: Option<Arc<AnnouncementFileError>>,
}

/// The result of judging the announcements of other nodes.
struct PeerState {
    trust_store: TrustStore,
    distrusted: Vec<Distrust>,
    trusted: BTreeSet<NodeName>,
}

impl Peers {
    pub(super) fn new(
        directory: &Path,
        own: &NodeName,
        trust_store: TrustStore,
        trusted: BTreeSet<NodeName>,
    ) -> Self {
        Self {
            own: own.clone(),
            files: Mutex::new(AnnouncementFiles::new(directory.to_owned(), files::read_no_follow)),
            announcements: Mutex::default(),
            state: Mutex::new(PeerState { trust_store, distrusted: Vec::new(), trusted }),
        }
    }

    /// Why announcements are rejected, as of the last update.
    pub(super) fn rejected(&self) -> Vec<Distrust> {
        lock(&self.state).distrusted.clone()
    }

    /// Why an announcement could not be read.
    pub(super) fn unreadable(&self) -> Option<Arc<AnnouncementFileError>> {
        lock(&self.announcements).unreadable.clone()
    }

    /// Reads the announcements, which may hold anything. Blocks as long as the file system does.
    pub(super) fn read(&self) {
        let trusted = lock(&self.state).trusted.clone();
        let read = self.read_files(&trusted);
        let mut announcements = lock(&self.announcements);
        match read {
            Ok((signed, unreadable)) => {
                let unreadable = unreadable.map(Arc::new);
                *announcements = PeerAnnouncements { signed: signed.into(), unreadable };
            }
            // Their previous announcements still count.
            Err(error) => announcements.unreadable = Some(Arc::new(error)),
        }
    }

    /// The readable announcements, and the first error.
    fn read_files(
        &self,
        trusted: &BTreeSet<NodeName>,
    ) -> Result<(Vec<SignedAnnouncement>, Option<AnnouncementFileError>), AnnouncementFileError> {
        let mut files = lock(&self.files);
        let path_of = |node: &NodeName| files.directory().join(format!("{node}.json"));
        // Those of trusted nodes are read, whatever else is there.
        let mut paths: Vec<PathBuf> = trusted.iter().map(path_of).collect();
        let others: BTreeSet<PathBuf> = files.paths(MAX_NAMES)?.into_iter().collect();
        let others = others.into_iter().filter(|path| !paths.contains(path)).collect::<Vec<_>>();
        paths.extend(others);
        let own = path_of(&self.own);
        paths.retain(|path| *path != own);
        let too_many = paths
            .get(MAX_FILES)
            .map(|_| AnnouncementFileError::TooMany { directory: files.directory().to_owned() });
        paths.truncate(MAX_FILES);
        let mut signed = Vec::new();
        let mut failed = None;
        for (_, read) in files.read(paths) {
            match read {
                Ok(announcement) => signed.push(announcement),
                // It was removed since the directory was listed.
                Err(AnnouncementFileError::Read { source, .. }) if source.kind() == ErrorKind::NotFound => {}
                Err(error) => drop(failed.get_or_insert(error)),
            }
        }
        Ok((signed, failed.or(too_many)))
    }

    /// Applies the announcements that were read, and the operator's admissions.
    pub(super) fn update(&self, me: LocalNode<'_>) -> Result<Trust, TrustError> {
        let signed = Arc::clone(&lock(&self.announcements).signed);
        let mut state = lock(&self.state);
        let before = state.trust_store.load()?;
        let (trust, distrusted) = before.update(me, &signed);
        (state.distrusted, state.trusted) = (distrusted, trust.nodes());
        state.trust_store.learnt(&before, &trust)?;
        Ok(trust)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("nobody panics while holding it")
}
