//! An event for the operator of the cluster, as a Kubernetes Event: reason, action, note.

use crate::core::{ledger, text::redaction::redact};

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
    AlarmRaised,
    AlarmResolved,
    ConfigurationRejected,
    ConfigurationAccepted,
    CertificateRejected,
    CertificateAccepted,
}

impl Reason {
    pub const ALL: [Self; 28] = [
        Self::KeyAppeared,
        Self::KeyUnlisted,
        Self::KeyReturned,
        Self::KeyRemoved,
        Self::KeyAdopted,
        Self::KeyReplaced,
        Self::KeyOrdered,
        Self::KeyActivated,
        Self::KeyRetired,
        Self::KeyRevoked,
        Self::UnmanagedKeyFound,
        Self::SourceFailed,
        Self::SourceRecovered,
        Self::TargetFailed,
        Self::TargetRecovered,
        Self::LedgerFailed,
        Self::LedgerRecovered,
        Self::IssuerMismatch,
        Self::SigningKeyNotPublic,
        Self::SigningKeyPublic,
        Self::VerificationFailed,
        Self::VerificationRecovered,
        Self::AlarmRaised,
        Self::AlarmResolved,
        Self::ConfigurationRejected,
        Self::ConfigurationAccepted,
        Self::CertificateRejected,
        Self::CertificateAccepted,
    ];

    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::KeyAppeared => "KeyAppeared",
            Self::KeyUnlisted => "KeyUnlisted",
            Self::KeyReturned => "KeyReturned",
            Self::KeyRemoved => "KeyRemoved",
            Self::KeyAdopted => "KeyAdopted",
            Self::KeyReplaced => "KeyReplaced",
            Self::KeyOrdered => "KeyOrdered",
            Self::KeyActivated => "KeyActivated",
            Self::KeyRetired => "KeyRetired",
            Self::KeyRevoked => "KeyRevoked",
            Self::UnmanagedKeyFound => "UnmanagedKeyFound",
            Self::SourceFailed => "SourceFailed",
            Self::SourceRecovered => "SourceRecovered",
            Self::TargetFailed => "TargetFailed",
            Self::TargetRecovered => "TargetRecovered",
            Self::LedgerFailed => "LedgerFailed",
            Self::LedgerRecovered => "LedgerRecovered",
            Self::IssuerMismatch => "IssuerMismatch",
            Self::SigningKeyNotPublic => "SigningKeyNotPublic",
            Self::SigningKeyPublic => "SigningKeyPublic",
            Self::VerificationFailed => "VerificationFailed",
            Self::VerificationRecovered => "VerificationRecovered",
            Self::AlarmRaised => "AlarmRaised",
            Self::AlarmResolved => "AlarmResolved",
            Self::ConfigurationRejected => "ConfigurationRejected",
            Self::ConfigurationAccepted => "ConfigurationAccepted",
            Self::CertificateRejected => "CertificateRejected",
            Self::CertificateAccepted => "CertificateAccepted",
        }
    }

    /// The action that Signpost was taking.
    #[must_use]
    pub fn action(self) -> &'static str {
        match self {
            Self::KeyAppeared
            | Self::KeyUnlisted
            | Self::KeyReturned
            | Self::KeyRemoved
            | Self::KeyAdopted
            | Self::KeyReplaced
            | Self::KeyRevoked
            | Self::LedgerFailed
            | Self::LedgerRecovered => "StoreLedger",
            Self::KeyOrdered | Self::KeyActivated | Self::KeyRetired => "Rotate",
            Self::SourceFailed | Self::SourceRecovered => "FetchKeys",
            Self::UnmanagedKeyFound | Self::TargetFailed | Self::TargetRecovered => "Publish",
            Self::IssuerMismatch | Self::SigningKeyNotPublic | Self::SigningKeyPublic => "ProbeSigningKey",
            Self::VerificationFailed | Self::VerificationRecovered => "Verify",
            Self::AlarmRaised | Self::AlarmResolved => "MergeSources",
            Self::ConfigurationRejected | Self::ConfigurationAccepted => "ReloadConfiguration",
            Self::CertificateRejected | Self::CertificateAccepted => "ReloadCertificate",
        }
    }

    /// Whether an operator should look, now or soon.
    #[must_use]
    pub fn is_warning(self) -> bool {
        matches!(
            self,
            Self::KeyReplaced
                | Self::KeyRevoked
                | Self::UnmanagedKeyFound
                | Self::SourceFailed
                | Self::TargetFailed
                | Self::LedgerFailed
                | Self::IssuerMismatch
                | Self::SigningKeyNotPublic
                | Self::VerificationFailed
                | Self::AlarmRaised
                | Self::ConfigurationRejected
                | Self::CertificateRejected
        )
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
        let note = fitting(&format!("{what} (issuer `{issuer}`)"));
        Self { reason, issuer: issuer.to_owned(), subject: subject.to_owned(), note }
    }

    /// An event of the whole process.
    #[must_use]
    pub fn about_process(reason: Reason, what: &str) -> Self {
        Self { reason, issuer: String::new(), subject: String::new(), note: fitting(what) }
    }

    /// The event of a key change.
    #[must_use]
    pub fn of_key(issuer: &str, change: &ledger::Change) -> Self {
        let kid = &change.kid;
        let (reason, what) = match change.kind {
            ledger::ChangeKind::Appeared => (Reason::KeyAppeared, "appeared and is published"),
            ledger::ChangeKind::WentMissing => (
                Reason::KeyUnlisted,
                "is no longer listed by any source and stays published for its retention",
            ),
            ledger::ChangeKind::Returned => (Reason::KeyReturned, "is listed again"),
            ledger::ChangeKind::Removed => {
                (Reason::KeyRemoved, "is no longer published, its retention is over")
            }
            ledger::ChangeKind::UnmanagedKeyFound => (
                Reason::UnmanagedKeyFound,
                "is at a target but unmanaged: anyone with its private key can impersonate your workloads",
            ),
            ledger::ChangeKind::Adopted => {
                (Reason::KeyAdopted, "was adopted by the operator and is published")
            }
            ledger::ChangeKind::Ordered => (Reason::KeyOrdered, "is ordered to sign for its node"),
            ledger::ChangeKind::Redated => (
                Reason::KeyUnlisted,
                "was unlisted at a time in the future, and its retention counts from when that was noticed",
            ),
            ledger::ChangeKind::Activated => (Reason::KeyActivated, "signs"),
            ledger::ChangeKind::Retired => {
                (Reason::KeyRetired, "no longer signs, and stays published until its last token expires")
            }
            ledger::ChangeKind::Forgotten => {
                (Reason::KeyRetired, "belongs to a node that the operator declared gone")
            }
            ledger::ChangeKind::Revoked => {
                (Reason::KeyRevoked, "was revoked by the operator: its tokens are refused from now on")
            }
            ledger::ChangeKind::Replaced => {
                (Reason::KeyReplaced, "replaced another key with the same kid, which no source listed")
            }
        };
        Self::new(reason, issuer, kid.as_str(), &format!("key `{kid}` {what}"))
    }

    #[must_use]
    pub fn note(&self) -> &str {
        &self.note
    }
}

/// The text in one line without secrets, truncated to the limit of an Event.
fn fitting(text: &str) -> String {
    let mut line: String = redact(text).chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    if line.len() > MAX_NOTE {
        line.truncate(line.floor_char_boundary(MAX_NOTE - "…".len()));
        line.push('…');
    }
    line
}

#[cfg(test)]
mod tests;
