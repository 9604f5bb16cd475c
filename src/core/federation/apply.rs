//! Carries a plan out, one write after the other, as a function of what the service answered.
//!
//! After every answer that leaves something open the credentials are listed again, and what is still to do is
//! decided anew. So a lost answer, another writer and an earlier attempt that broke off are one case.

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

use super::{Change, DesiredCredential, Pace, Plan, Removal, plan};
use crate::core::entra::Credential;

/// Attempts without any progress after which it stops.
const MAX_ATTEMPTS: u32 = 8;
/// Longest wait before another attempt; a service may demand more.
const MAX_WAIT: SignedDuration = SignedDuration::from_secs(60);
/// Longest wait that a service may demand.
const MAX_RETRY_AFTER: SignedDuration = SignedDuration::from_mins(10);
/// How long a list may lag behind a write: Microsoft Graph is eventually consistent.
const LAG: SignedDuration = SignedDuration::from_mins(2);

const BUSY: &str = "the service is busy";

/// The credentials of one identity on their way to what is desired.
pub struct Application {
    desired: Vec<DesiredCredential>,
    removals: BTreeSet<Removal>,
    pace: Pace,
    /// As far as is known; `None`: to be listed.
    present: Option<Vec<Credential>>,
    not_before: Timestamp,
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
            not_before: Timestamp::UNIX_EPOCH,
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
        let Some(plan) = self.plan() else {
            return if now < self.not_before { Work::WaitUntil(self.not_before) } else { Work::List };
        };
        if !plan.conflicts.is_empty() {
            return Work::Stopped(Stop::Conflicts);
        }
        match plan.changes.first() {
            None => Work::Done,
            Some(_) if now < self.not_before => Work::WaitUntil(self.not_before),
            Some(change) => Work::Write(Write::of(change)),
        }
    }

    /// Takes an answer to what [`Self::next`] said.
    pub fn record(&mut self, work: &Work, answer: ServiceAnswer, now: Timestamp) {
        match (work, answer) {
            (_, ServiceAnswer::Listed(listed)) => self.present = Some(self.with_own_writes(listed, now)),
            (Work::Write(write), ServiceAnswer::Done) => {
                if let Some(present) = &mut self.present {
                    write.apply_to(present);
                }
                self.written.push((now, write.clone()));
                self.attempts = 0;
                self.not_before = later(now, self.pace.between_writes());
            }
            (_, ServiceAnswer::Done) => {}
            (_, ServiceAnswer::Refused { message, hint }) => {
                self.stopped = Some(Stop::Refused { message, hint });
            }
            // The identity itself is not there.
            (Work::List, ServiceAnswer::Conflict { message }) if self.written.is_empty() => {
                self.stopped = Some(Stop::Refused { message, hint: None });
            }
            (_, ServiceAnswer::Busy { retry_after }) => self.again(BUSY.to_owned(), retry_after, now),
            (_, ServiceAnswer::Conflict { message } | ServiceAnswer::NoAnswer { reason: message }) => {
                self.again(message, None, now);
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
        self.not_before = later(now, wait.max(self.pace.between_writes()));
    }

    /// A list may lag behind what was written a moment ago.
    fn with_own_writes(&self, mut listed: Vec<Credential>, now: Timestamp) -> Vec<Credential> {
        for (at, write) in &self.written {
            if now.duration_since(*at) < LAG {
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
            Self::Busy { .. } => Some(BUSY),
            Self::Conflict { message } | Self::Refused { message, .. } => Some(message),
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
