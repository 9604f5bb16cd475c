//! An event for the operator of the cluster, as a Kubernetes Event: reason, action, note.

use crate::core::{
    ledger::{self, ChangeKind},
    text::redaction::redact,
};

/// Largest note that Kubernetes accepts, in bytes.
/// Source: `NoteLengthLimit` in `kubernetes/pkg/apis/core/validation/events.go`.
const MAX_NOTE: usize = 1024;

/// The reason of an Event. The names are stable: alerts and scripts match them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    KeyAppeared,
    KeyUnlisted,
    KeyReturned,
    KeyRemoved,
    KeyAdopted,
    KeyReplaced,
    KeyOrdered,
    KeyActivated,
    KeyRetired,
    KeyRevoked,
    UnmanagedKeyFound,
    SourceFailed,
    SourceRecovered,
    TargetFailed,
    TargetRecovered,
    LedgerFailed,
    LedgerRecovered,
    IssuerMismatch,
    SigningKeyNotPublic,
    SigningKeyPublic,
    VerificationFailed,
    VerificationRecovered,
    ExchangeRefused,
    ExchangeAccepted,
    AlarmRaised,
    AlarmResolved,
    ConfigurationRejected,
    ConfigurationAccepted,
    CertificateRejected,
    CertificateAccepted,
}

const NORMAL: &str = "Normal";
/// An operator should look, now or soon.
const WARNING: &str = "Warning";

/// The type of each reason, and the action that Signpost was taking; in the order of the reasons.
const REASONS: [(Reason, &str, &str); 30] = [
    (Reason::KeyAppeared, NORMAL, "StoreLedger"),
    (Reason::KeyUnlisted, NORMAL, "StoreLedger"),
    (Reason::KeyReturned, NORMAL, "StoreLedger"),
    (Reason::KeyRemoved, NORMAL, "StoreLedger"),
    (Reason::KeyAdopted, NORMAL, "StoreLedger"),
    (Reason::KeyReplaced, WARNING, "StoreLedger"),
    (Reason::KeyOrdered, NORMAL, "Rotate"),
    (Reason::KeyActivated, NORMAL, "Rotate"),
    (Reason::KeyRetired, NORMAL, "Rotate"),
    (Reason::KeyRevoked, WARNING, "StoreLedger"),
    (Reason::UnmanagedKeyFound, WARNING, "Publish"),
    (Reason::SourceFailed, WARNING, "FetchKeys"),
    (Reason::SourceRecovered, NORMAL, "FetchKeys"),
    (Reason::TargetFailed, WARNING, "Publish"),
    (Reason::TargetRecovered, NORMAL, "Publish"),
    (Reason::LedgerFailed, WARNING, "StoreLedger"),
    (Reason::LedgerRecovered, NORMAL, "StoreLedger"),
    (Reason::IssuerMismatch, WARNING, "ProbeSigningKey"),
    (Reason::SigningKeyNotPublic, WARNING, "ProbeSigningKey"),
    (Reason::SigningKeyPublic, NORMAL, "ProbeSigningKey"),
    (Reason::VerificationFailed, WARNING, "Verify"),
    (Reason::VerificationRecovered, NORMAL, "Verify"),
    (Reason::ExchangeRefused, WARNING, "Exchange"),
    (Reason::ExchangeAccepted, NORMAL, "Exchange"),
    (Reason::AlarmRaised, WARNING, "MergeSources"),
    (Reason::AlarmResolved, NORMAL, "MergeSources"),
    (Reason::ConfigurationRejected, WARNING, "ReloadConfiguration"),
    (Reason::ConfigurationAccepted, NORMAL, "ReloadConfiguration"),
    (Reason::CertificateRejected, WARNING, "ReloadCertificate"),
    (Reason::CertificateAccepted, NORMAL, "ReloadCertificate"),
];

impl Reason {
    pub fn all() -> impl Iterator<Item = Self> {
        REASONS.iter().map(|(reason, ..)| *reason)
    }

    /// The name in an Event is that of the variant.
    #[must_use]
    pub fn name(self) -> String {
        format!("{self:?}")
    }

    /// The type of the Event: `Normal` or `Warning`.
    #[must_use]
    pub fn type_name(self) -> &'static str {
        REASONS[self as usize].1
    }

    #[must_use]
    pub fn action(self) -> &'static str {
        REASONS[self as usize].2
    }
}

/// One occurrence. Occurrences with the same reason, issuer and subject form a series.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    pub reason: Reason,
    /// Empty for an event of the process.
    pub issuer: String,
    /// The kid, source, target or alarm that it concerns.
    pub subject: String,
    /// A sentence that fits into an Event.
    note: String,
}

impl Event {
    #[must_use]
    pub fn new(reason: Reason, issuer: &str, subject: &str, what: &str) -> Self {
        let note = note(&format!("{what} (issuer `{issuer}`)"));
        Self { reason, issuer: issuer.to_owned(), subject: subject.to_owned(), note }
    }

    /// An event of the whole process.
    #[must_use]
    pub fn about_process(reason: Reason, what: &str) -> Self {
        Self { reason, issuer: String::new(), subject: String::new(), note: note(what) }
    }

    /// The event of a key change.
    #[must_use]
    pub fn of_key(issuer: &str, change: &ledger::Change) -> Self {
        let (reason, what) = match change.kind {
            ChangeKind::Appeared => (Reason::KeyAppeared, "appeared and is published"),
            ChangeKind::WentMissing => (
                Reason::KeyUnlisted,
                "is no longer listed by any source and stays published for its retention",
            ),
            ChangeKind::Returned => (Reason::KeyReturned, "is listed again"),
            ChangeKind::Removed => (Reason::KeyRemoved, "is no longer published, its retention is over"),
            ChangeKind::UnmanagedKeyFound => (
                Reason::UnmanagedKeyFound,
                "is at a target but unmanaged: anyone with its private key can impersonate your workloads",
            ),
            ChangeKind::Adopted => (Reason::KeyAdopted, "was adopted by the operator and is published"),
            ChangeKind::Ordered => (Reason::KeyOrdered, "is ordered to sign for its node"),
            ChangeKind::Redated => (
                Reason::KeyUnlisted,
                "was unlisted at a time in the future, and its retention counts from when that was noticed",
            ),
            ChangeKind::Activated => (Reason::KeyActivated, "signs"),
            ChangeKind::Retired => {
                (Reason::KeyRetired, "no longer signs, and stays published until its last token expires")
            }
            ChangeKind::Forgotten => {
                (Reason::KeyRetired, "belongs to a node that the operator declared gone")
            }
            ChangeKind::Revoked => {
                (Reason::KeyRevoked, "was revoked by the operator: its tokens are refused from now on")
            }
            ChangeKind::Replaced => {
                (Reason::KeyReplaced, "replaced another key with the same kid, which no source listed")
            }
        };
        let kid = &change.kid;
        Self::new(reason, issuer, kid.as_str(), &format!("key `{kid}` {what}"))
    }

    #[must_use]
    pub fn note(&self) -> &str {
        &self.note
    }

    /// Whether the other one is the same Event again; its note may differ.
    pub(super) fn is_repeated_by(&self, other: &Self) -> bool {
        (self.reason, &self.issuer, &self.subject) == (other.reason, &other.issuer, &other.subject)
    }
}

/// The text in one line without secrets, truncated to the limit of an Event.
fn note(text: &str) -> String {
    let mut line: String = redact(text).chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    if line.len() > MAX_NOTE {
        line.truncate(line.floor_char_boundary(MAX_NOTE - "…".len()));
        line.push('…');
    }
    line
}

#[cfg(test)]
mod tests;
