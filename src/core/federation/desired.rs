//! A federated credential that should exist.

use serde::Serialize;

use super::{
    NearMiss,
    limits::{MAX_TEXT, NAME_LENGTH},
};
use crate::core::{
    entra::{Cloud, Credential},
    jose::{issuer::Issuer, publication::sha256_hex},
    service_account::ServiceAccount,
    text::{Hint, redaction::brief},
    verification::{Difference, Kind, is_public_url},
};

/// A federated credential that should exist.
///
/// Invariant: Entra accepts each member.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct DesiredCredential {
    pub name: String,
    pub issuer: String,
    pub subject: String,
    pub audience: String,
}

impl DesiredCredential {
    /// Trust in a service account. The name follows from issuer and service account, so that the same trust has
    /// the same name whenever and from wherever it is made.
    ///
    /// # Errors
    ///
    /// Fails if Entra would refuse a member, or accept no token of this issuer.
    pub fn of_account(
        issuer: &str,
        account: &ServiceAccount,
        audience: &str,
        name: Option<&str>,
    ) -> Result<Self, InvalidDesired> {
        let subject = account.subject();
        let name = name.map_or_else(
            || usual_name(&format!("{}-{}", account.namespace(), account.name()), issuer, &subject),
            str::to_owned,
        );
        Self { name, issuer: issuer.to_owned(), subject, audience: audience.to_owned() }.checked()
    }

    /// The counterpart of a credential for the place that its issuer has moved to; `None` for one without a
    /// subject or with several audiences.
    ///
    /// # Errors
    ///
    /// As [`Self::of_account`].
    #[must_use]
    pub fn moved(credential: &Credential, issuer: &str) -> Option<Result<Self, InvalidDesired>> {
        let (subject, [audience]) = (credential.subject.as_deref()?, credential.audiences.as_slice()) else {
            return None;
        };
        if let Some(account) = ServiceAccount::of_subject(subject) {
            return Some(Self::of_account(issuer, &account, audience, None));
        }
        let moved = Self {
            name: usual_name(&credential.name, issuer, subject),
            issuer: issuer.to_owned(),
            subject: subject.to_owned(),
            audience: audience.clone(),
        };
        Some(moved.checked())
    }

    fn checked(self) -> Result<Self, InvalidDesired> {
        if !is_name(&self.name) {
            return Err(InvalidDesired::Name { name: brief(&self.name).into_owned() });
        }
        for (member, text) in
            [("issuer", &self.issuer), ("subject", &self.subject), ("audience", &self.audience)]
        {
            if text.trim() != *text {
                return Err(InvalidDesired::Space { member });
            }
            let characters = text.chars().count();
            if characters > MAX_TEXT || characters == 0 {
                return Err(InvalidDesired::Length { member, characters });
            }
        }
        let invalid =
            |reason: String| InvalidDesired::Issuer { issuer: brief(&self.issuer).into_owned(), reason };
        let issuer = Issuer::parse(&self.issuer).map_err(|error| invalid(error.to_string()))?;
        let host = url::Url::parse(&self.issuer).ok().and_then(|url| Some(url.host_str()?.to_owned()));
        if issuer.is_loopback() || !is_public_url(&self.issuer) {
            return Err(invalid("Entra reads the documents of public https URLs only".to_owned()));
        }
        if host.is_some_and(|host| Cloud::of_host(&host).is_some()) {
            return Err(invalid("it is Entra itself".to_owned()));
        }
        Ok(self)
    }

    /// Whether a credential has this issuer and subject. Entra compares byte for byte.
    pub(super) fn is_met_by(&self, credential: &Credential) -> bool {
        credential.issuer == self.issuer && credential.subject.as_deref() == Some(&self.subject)
    }

    /// Where a credential differs that was surely meant to be this one: `None` if it was not, or has no subject.
    pub(super) fn near_misses(&self, credential: &Credential) -> Option<Vec<NearMiss>> {
        let subject = credential.subject.as_deref()?;
        let differ = |member, seen: &str, expected: &str| {
            Difference::between(seen, expected).map(|difference| NearMiss { member, difference })
        };
        let found: Vec<_> = differ("issuer", &credential.issuer, &self.issuer)
            .into_iter()
            .chain(differ("subject", subject, &self.subject))
            .collect();
        let is_near = !found.is_empty() && found.iter().all(|it| it.difference.kind() != Kind::Other);
        is_near.then_some(found)
    }
}

/// `TEXT-HASH`, of what Entra accepts in a name.
fn usual_name(text: &str, issuer: &str, subject: &str) -> String {
    let hash = &sha256_hex(format!("{issuer}\n{subject}").as_bytes())[..8];
    let kept: String = text
        .chars()
        .map(|it| if it.is_ascii_alphanumeric() || it == '-' || it == '_' { it } else { '-' })
        .skip_while(|it| !it.is_ascii_alphanumeric())
        .take(NAME_LENGTH.end() - hash.len() - 1)
        .collect();
    format!("{kept}-{hash}").trim_start_matches('-').to_owned()
}

/// Source: the pattern of `federatedIdentityCredentials` in Azure Resource Manager.
pub(super) fn is_name(name: &str) -> bool {
    NAME_LENGTH.contains(&name.chars().count())
        && name.starts_with(|it: char| it.is_ascii_alphanumeric())
        && name.chars().all(|it| it.is_ascii_alphanumeric() || it == '-' || it == '_')
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidDesired {
    #[error("`{name}` is no name of a federated credential, expected 3 to 120 letters, digits, `-` and `_`")]
    Name { name: String },
    #[error("the {member} has {characters} characters, expected 1 to {MAX_TEXT}")]
    Length { member: &'static str, characters: usize },
    #[error("the {member} begins or ends with white space")]
    Space { member: &'static str },
    #[error("`{issuer}` cannot be the issuer of a federated credential: {reason}")]
    Issuer { issuer: String, reason: String },
}

impl Hint for InvalidDesired {
    fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Name { .. } => "leave out `--name`: one is made from the service account",
            Self::Length { .. } => "shorten it",
            Self::Space { .. } => "remove it: Entra compares every character",
            Self::Issuer { .. } => "pass the public URL of the cluster's keys as `--issuer`",
        };
        Some(hint.to_owned())
    }
}
