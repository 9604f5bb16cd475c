//! Keeps what is known of one issuer: hears its sources, stores the ledger, then shows the publication.
//!
//! The ledger is stored before anything that follows from it can be seen, so a process that dies in
//! between has promised nothing.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use jiff::{SignedDuration, Timestamp};
use tokio::sync::{Mutex, watch};
use tracing::{error, info, warn};

use crate::{
    clock,
    core::{
        jwk::Jwk,
        jwk_set::Profile,
        kid::Kid,
        ledger::{Ledger, Refusal, Retention},
        merge::{Answer, Conflict, Report, merge},
        publication::{NothingToPublish, Publication, Terms},
    },
    store::{LedgerStore, StoreError},
    telemetry::board::Board,
};

/// The name under which the HTTP listener stands in the ledger.
const SERVED: &str = "http";

/// What is the same for an issuer as long as the process runs.
#[derive(Clone, Debug)]
pub struct Charter {
    pub terms: Terms,
    /// The profile of the documents that are served.
    pub profile: Profile,
    pub retention: Retention,
    /// Whether this process serves the documents: then it is one of the places that show them.
    pub serves: bool,
}

/// The keeper of one issuer.
pub struct Keeper {
    charter: Charter,
    store: LedgerStore,
    board: Board,
    heard: Mutex<Heard>,
    ledger: watch::Sender<Arc<Ledger>>,
    publication: watch::Sender<Option<Arc<Publication>>>,
}

/// What the sources said last, and what was said about it in the log.
struct Heard {
    reports: Vec<Report>,
    clocks: Vec<Option<SignedDuration>>,
    alarms: BTreeSet<String>,
}

/// What one source said.
pub struct Hearing {
    pub answer: Answer,
    /// What the source takes for the present.
    pub server_time: Option<Timestamp>,
}

/// What is wrong with what the sources said together; nothing of it takes the publication down.
#[derive(Clone, Debug, Default)]
pub struct Concerns {
    pub conflicts: Vec<Conflict>,
    pub refused: BTreeMap<Kid, Refusal>,
    pub nothing_to_publish: Option<NothingToPublish>,
}

impl Keeper {
    /// Reads the ledger and shows what it says, before any source is asked.
    ///
    /// # Errors
    ///
    /// Fails when there is a ledger and it cannot be used.
    pub async fn open(
        charter: Charter,
        sources: impl IntoIterator<Item = String>,
        store: LedgerStore,
        board: Board,
    ) -> Result<Self, StoreError> {
        let stored = store.read().await?;
        if let Some(note) = stored.note {
            warn!(issuer = %charter.terms.issuer, note, "ledger restored");
        }
        let reports: Vec<Report> =
            sources.into_iter().map(|source| Report { source, answer: Answer::NotYetAsked }).collect();
        let heard = Heard { clocks: vec![None; reports.len()], reports, alarms: BTreeSet::new() };
        let keeper = Self {
            ledger: watch::Sender::new(Arc::clone(&stored.ledger)),
            publication: watch::Sender::new(None),
            heard: Mutex::new(heard),
            charter,
            store,
            board,
        };
        // An empty ledger is no concern yet: nobody has been asked.
        let _ = keeper.show(stored.ledger);
        Ok(keeper)
    }

    #[must_use]
    pub fn charter(&self) -> &Charter {
        &self.charter
    }

    #[must_use]
    pub fn board(&self) -> &Board {
        &self.board
    }

    /// The ledger as it is stored; changes of what is public wake the receiver.
    #[must_use]
    pub fn ledger(&self) -> watch::Receiver<Arc<Ledger>> {
        self.ledger.subscribe()
    }

    /// What is to be served; `None` until something is known.
    #[must_use]
    pub fn publication(&self) -> watch::Receiver<Option<Arc<Publication>>> {
        self.publication.subscribe()
    }

    /// Takes in what a source said, stores what follows, and shows it.
    ///
    /// # Errors
    ///
    /// Fails when the ledger cannot be stored; what is shown stays.
    pub async fn hear(&self, source: usize, hearing: Hearing) -> Result<Concerns, StoreError> {
        let now = clock::now();
        let mut heard = self.heard.lock().await;
        heard.reports[source].answer = hearing.answer;
        heard.clocks[source] = hearing.server_time.map(|theirs| theirs.duration_since(now));
        let mut concerns = Concerns::default();
        let stored = self
            .store
            .update(|ledger| {
                let (observed, noted) = self.decide(ledger, &heard, now);
                concerns = noted;
                observed
            })
            .await?;
        let nothing = self.show(stored.ledger);
        concerns.nothing_to_publish = concerns.nothing_to_publish.or(nothing);
        self.raise(&mut heard, &concerns);
        Ok(concerns)
    }

    /// What the ledger would be, without storing it: for a dry run.
    ///
    /// # Errors
    ///
    /// Fails when the ledger cannot be read.
    pub async fn preview(&self, hearings: Vec<Hearing>) -> Result<(Ledger, Concerns), StoreError> {
        let now = clock::now();
        let mut heard = self.heard.lock().await;
        for (source, hearing) in hearings.into_iter().enumerate() {
            heard.reports[source].answer = hearing.answer;
        }
        Ok(self.decide(&self.store.read().await?.ledger, &heard, now))
    }

    /// Reads the ledger anew and shows it: another process may have written it, and what that removed must
    /// not come back from our memory.
    ///
    /// # Errors
    ///
    /// Fails when the ledger cannot be read; what is shown stays.
    pub async fn refresh(&self) -> Result<Arc<Ledger>, StoreError> {
        let _serialised = self.heard.lock().await;
        let _ = self.show(self.store.read().await?.ledger);
        Ok(Arc::clone(&self.ledger.borrow()))
    }

    /// Records what a place was seen to show, and the keys that only it knows.
    ///
    /// # Errors
    ///
    /// Fails when the ledger cannot be stored.
    pub async fn saw(&self, place: &str, view: &BTreeSet<Kid>, strangers: &[Jwk]) -> Result<(), StoreError> {
        let now = clock::now();
        self.change(|ledger| ledger.met_strangers(place, strangers, now).shown(place, view, now)).await
    }

    /// Takes the operator's word that these strangers belong to this issuer.
    ///
    /// # Errors
    ///
    /// Fails when the ledger cannot be stored.
    pub async fn adopt(&self, place: &str, strangers: &[Jwk]) -> Result<(), StoreError> {
        let now = clock::now();
        self.change(|ledger| {
            let met = ledger.met_strangers(place, strangers, now);
            strangers.iter().fold(met, |ledger, stranger| {
                // One that is public by now needs no adoption.
                ledger.adopt(stranger.kid(), now).unwrap_or(ledger)
            })
        })
        .await
    }

    async fn change(&self, decide: impl FnMut(&Ledger) -> Ledger) -> Result<(), StoreError> {
        let _serialised = self.heard.lock().await;
        let stored = self.store.update(decide).await?;
        let _ = self.show(stored.ledger);
        Ok(())
    }

    fn decide(&self, before: &Ledger, heard: &Heard, now: Timestamp) -> (Ledger, Concerns) {
        let mut merged = merge(before, &heard.reports);
        // A clock that disagrees with everybody else's must not end a retention.
        let margin = self.charter.retention.margin;
        merged.complete &= heard.clocks.iter().flatten().all(|off| off.unsigned_abs() <= margin);
        let observed = before.observe(&merged, now, &self.charter.retention);
        let ledger = if self.charter.serves {
            observed.ledger.shown(SERVED, &self.kids_served(&observed.ledger), now)
        } else {
            observed.ledger
        };
        let mut concerns =
            Concerns { conflicts: merged.conflicts, refused: observed.refused, nothing_to_publish: None };
        // A ledger begins with the first key that some place may be given.
        if before.sequence() == 0 && !self.is_worth_publishing(&ledger) {
            let known = !ledger.entries().is_empty();
            concerns.nothing_to_publish = self.render(&ledger).err().filter(|_| known);
            return (before.clone(), concerns);
        }
        (ledger, concerns)
    }

    fn kids_served(&self, ledger: &Ledger) -> BTreeSet<Kid> {
        let served = ledger.public_keys().filter(|key| self.charter.profile.includes(key));
        served.map(|key| key.kid().clone()).collect()
    }

    fn is_worth_publishing(&self, ledger: &Ledger) -> bool {
        let profiles = &self.charter.retention.profiles;
        ledger.public_keys().any(|key| profiles.iter().any(|profile| profile.includes(key)))
    }

    fn render(&self, ledger: &Ledger) -> Result<Publication, NothingToPublish> {
        Publication::render(&self.charter.terms, self.charter.profile, ledger.public_keys().cloned())
    }

    /// Shows a stored ledger; returns why nothing can be published, if that is so.
    fn show(&self, ledger: Arc<Ledger>) -> Option<NothingToPublish> {
        self.board.ledger(Arc::clone(&ledger), self.charter.profile);
        // Before any key was heard of, the failures of the sources say why.
        let known = !ledger.entries().is_empty();
        let rendered = self.render(&ledger);
        let nothing = rendered.as_ref().err().cloned();
        if let Ok(publication) = rendered {
            self.publication.send_if_modified(|shown| {
                let changed = shown.as_deref() != Some(&publication);
                if changed {
                    *shown = Some(Arc::new(publication));
                }
                changed
            });
        }
        let ready = self.publication.borrow().is_some();
        self.board.issuer(&self.charter.terms.issuer, |status| status.ready = ready);
        self.ledger.send_if_modified(|shown| {
            let before = std::mem::replace(shown, ledger);
            for change in shown.changes().iter().filter(|change| !before.changes().contains(change)) {
                info!(issuer = %shown.issuer(), kid = %change.kid, event = change.event.name(), "key");
            }
            !before.public_keys().eq(shown.public_keys())
        });
        nothing.filter(|_| known && !ready)
    }

    /// Puts what is wrong on the board, and logs when it begins and when it is over.
    fn raise(&self, heard: &mut Heard, concerns: &Concerns) {
        let issuer = &self.charter.terms.issuer;
        let mut alarms = BTreeSet::new();
        alarms.extend(concerns.conflicts.iter().map(ToString::to_string));
        alarms.extend(concerns.refused.iter().map(|(kid, refusal)| match refusal {
            Refusal::Tombstone => {
                format!("key `{kid}` was removed and a source lists it again; `signpost ledger adopt -- {kid}` brings it back")
            }
            Refusal::TooMany => format!("key `{kid}` is not published: there are as many as relying parties read"),
        }));
        alarms.extend(concerns.nothing_to_publish.iter().map(ToString::to_string));
        let margin = self.charter.retention.margin;
        for (report, off) in heard.reports.iter().zip(&heard.clocks) {
            if off.is_some_and(|off| off.unsigned_abs() > margin) {
                alarms.insert(format!("our clock and that of source `{}` disagree", report.source));
            }
        }
        for alarm in alarms.difference(&heard.alarms) {
            error!(%issuer, alarm, "alarm");
        }
        for over in heard.alarms.difference(&alarms) {
            info!(%issuer, alarm = over, "alarm is over");
        }
        self.board.issuer(issuer, |status| status.alarms = alarms.iter().cloned().collect());
        heard.alarms = alarms;
    }
}
