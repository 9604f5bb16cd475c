//! Carries a plan out, one write after the other, as a function of what the service answered.
//!
//! After every answer that leaves something open the credentials are listed again, and what is still to do is
//! decided anew. So a lost answer, another writer and an earlier attempt that broke off are one case.

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

use super::{Change, DesiredCredential, MAX_CREDENTIALS, Pace, Plan, Removal, plan};
use crate::core::entra::Credential;

/// Attempts without any progress after which it stops.
const MAX_ATTEMPTS: u32 = 8;
/// Longest wait before another attempt; a service may demand more.
const MAX_WAIT: SignedDuration = SignedDuration::from_secs(60);
/// Longest wait that a service may demand.
const MAX_RETRY_AFTER: SignedDuration = SignedDuration::from_mins(10);
/// Most writes: more than twice as many as an identity has room for, so somebody else undoes them.
const MAX_WRITES: usize = 3 * MAX_CREDENTIALS;
/// How old a list may be when a credential is changed or removed by its name, which may be another's by now.
const FRESH: SignedDuration = SignedDuration::from_secs(2);

/// The credentials of one identity on their way to what is desired.
pub struct Application {
    desired: Vec<DesiredCredential>,
    removals: BTreeSet<Removal>,
    pace: Pace,
    /// As far as is known; `None`: to be listed.
    present: Option<Vec<Credential>>,
    listed_at: Timestamp,
    not_before: Timestamp,
    /// The wait that ends at `not_before`. A clock that is set back makes no wait longer.
    wait: SignedDuration,
    /// A write whose answer was lost.
    unsure: Option<Write>,
    /// Since the last write that succeeded.
    attempts: u32,
    written: Vec<(Timestamp, Write)>,
    stopped: Option<Stop>,
}

/// A change, as one request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Write {
    Create(DesiredCredential),
    /// The credential of this name becomes this one.
    Update(DesiredCredential),
    Delete(String),
}

/// What to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Work {
    List,
    Write(Write),
    WaitUntil(Timestamp),
    Done,
    Stopped(Stop),
}

/// What a service answered to a write, or to a request for the list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServiceAnswer {
    Done,
    Listed(Vec<Credential>),
    /// There are too many requests, or the service is unwell.
    Busy {
        retry_after: Option<SignedDuration>,
        message: String,
    },
    /// Somebody else writes, has written or has deleted, or what was made a moment ago is not known everywhere.
    Conflict {
        message: String,
    },
    /// Nobody knows whether it was done.
    NoAnswer {
        reason: String,
    },
    /// It will never be done as it is.
    Refused {
        message: String,
        hint: Option<String>,
    },
}

/// Why it ended before everything was done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "reason")]
pub enum Stop {
    /// What is desired cannot be had.
    Conflicts,
    /// The service refused, and what to do about it.
    Refused { message: String, hint: Option<String> },
    /// No progress after several attempts: the last failure.
    NoProgress { message: String },
}

impl Application {
    #[must_use]
    pub fn new(desired: Vec<DesiredCredential>, removals: BTreeSet<Removal>, pace: Pace) -> Self {
        Self {
            desired,
            removals,
            pace,
            present: None,
            listed_at: Timestamp::UNIX_EPOCH,
            not_before: Timestamp::UNIX_EPOCH,
            wait: SignedDuration::ZERO,
            unsure: None,
            attempts: 0,
            written: Vec::new(),
            stopped: None,
        }
    }

    /// What is left to do, once the credentials are known.
    #[must_use]
    pub fn plan(&self) -> Option<Plan> {
        Some(plan(&self.desired, self.present.as_ref()?, &self.removals))
    }

    /// The writes that have succeeded.
    pub fn written(&self) -> impl Iterator<Item = &Write> {
        self.written.iter().map(|(_, write)| write)
    }

    #[must_use]
    pub fn next(&self, now: Timestamp) -> Work {
        if let Some(stop) = &self.stopped {
            return Work::Stopped(stop.clone());
        }
        let until = self.not_before.min(later(now, self.wait));
        let plan = self.plan();
        if plan.as_ref().is_some_and(|plan| !plan.conflicts.is_empty()) {
            return Work::Stopped(Stop::Conflicts);
        }
        let change = plan.as_ref().map(|plan| plan.changes.first());
        match change {
            Some(None) => Work::Done,
            None | Some(Some(_)) if now < until => Work::WaitUntil(until),
            None => Work::List,
            Some(Some(Change::SetAudience { .. } | Change::Remove(_))) if !self.is_fresh(now) => Work::List,
            Some(Some(change)) => Work::Write(Write::of(change)),
        }
    }

    fn is_fresh(&self, now: Timestamp) -> bool {
        self.listed_at <= now && now.duration_since(self.listed_at) <= FRESH
    }

    /// Takes an answer to what [`Self::next`] said.
    pub fn record(&mut self, work: &Work, answer: ServiceAnswer, now: Timestamp) {
        match (work, answer) {
            (_, ServiceAnswer::Listed(listed)) => {
                if let Some(write) = self.unsure.take().filter(|it| it.is_done_in(&listed)) {
                    self.written.push((now, write));
                }
                self.present = Some(self.with_own_writes(listed, now));
                self.listed_at = now;
            }
            (Work::Write(write), ServiceAnswer::Done) => {
                if let Some(present) = &mut self.present {
                    write.apply_to(present);
                }
                self.written.push((now, write.clone()));
                self.attempts = 0;
                self.wait_for(self.pace.between_writes(), now);
                if self.written.len() > MAX_WRITES {
                    let message = "somebody else undoes what is written".to_owned();
                    self.stopped = Some(Stop::NoProgress { message });
                }
            }
            (_, ServiceAnswer::Done) => {}
            (_, ServiceAnswer::Refused { message, hint }) => {
                self.stopped = Some(Stop::Refused { message, hint });
            }
            // The identity itself is not there.
            (Work::List, ServiceAnswer::Conflict { message }) if self.written.is_empty() => {
                self.stopped = Some(Stop::Refused { message, hint: None });
            }
            (_, ServiceAnswer::Busy { retry_after, message }) => self.again(message, retry_after, now),
            (_, ServiceAnswer::Conflict { message }) => self.again(message, None, now),
            (work, ServiceAnswer::NoAnswer { reason }) => {
                if let Work::Write(write) = work {
                    self.unsure = Some(write.clone());
                }
                self.again(reason, None, now);
            }
        }
    }

    /// Lists again, later.
    fn again(&mut self, message: String, retry_after: Option<SignedDuration>, now: Timestamp) {
        self.attempts += 1;
        if self.attempts >= MAX_ATTEMPTS {
            self.stopped = Some(Stop::NoProgress { message });
            return;
        }
        self.present = None;
        let backoff = SignedDuration::from_secs(1 << self.attempts).min(MAX_WAIT);
        let wait = retry_after.map_or(backoff, |demanded| demanded.clamp(backoff, MAX_RETRY_AFTER));
        self.wait_for(wait.max(self.pace.between_writes()), now);
    }

    fn wait_for(&mut self, wait: SignedDuration, now: Timestamp) {
        (self.wait, self.not_before) = (wait, later(now, wait));
    }

    /// A list may lag behind what was written a moment ago.
    fn with_own_writes(&self, mut listed: Vec<Credential>, now: Timestamp) -> Vec<Credential> {
        for (at, write) in &self.written {
            if now.duration_since(*at) < self.pace.lag() {
                write.apply_to(&mut listed);
            }
        }
        listed
    }
}

impl ServiceAnswer {
    /// Why it has to be tried again.
    #[must_use]
    pub fn reason(&self) -> Option<&str> {
        match self {
            Self::Busy { message, .. } | Self::Conflict { message } | Self::Refused { message, .. } => {
                Some(message)
            }
            Self::NoAnswer { reason } => Some(reason),
            Self::Done | Self::Listed(_) => None,
        }
    }
}

impl Write {
    fn of(change: &Change) -> Self {
        match change {
            Change::Create(credential) => Self::Create(credential.clone()),
            Change::SetAudience { name, credential, .. } => {
                Self::Update(DesiredCredential { name: name.clone(), ..credential.clone() })
            }
            Change::Remove(removal) => Self::Delete(removal.name.clone()),
        }
    }

    /// Whether a list shows what it was to do.
    fn is_done_in(&self, listed: &[Credential]) -> bool {
        match self {
            Self::Create(wanted) | Self::Update(wanted) => listed.iter().any(|it| {
                it.name == wanted.name && wanted.is_met_by(it) && it.audiences == [wanted.audience.as_str()]
            }),
            Self::Delete(name) => listed.iter().all(|it| it.name != *name),
        }
    }

    fn apply_to(&self, present: &mut Vec<Credential>) {
        match self {
            Self::Create(credential) | Self::Update(credential) => {
                present.retain(|it| it.name != credential.name);
                present.push(credential.into());
            }
            Self::Delete(name) => present.retain(|it| it.name != *name),
        }
    }
}

impl From<&DesiredCredential> for Credential {
    fn from(desired: &DesiredCredential) -> Self {
        Self {
            name: desired.name.clone(),
            issuer: desired.issuer.clone(),
            subject: Some(desired.subject.clone()),
            audiences: vec![desired.audience.clone()],
            expression: None,
            created: None,
        }
    }
}

fn later(now: Timestamp, wait: SignedDuration) -> Timestamp {
    now.checked_add(wait).unwrap_or(Timestamp::MAX)
}
