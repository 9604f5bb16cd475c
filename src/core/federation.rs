//! The federated credentials that an identity should have, against those that it has.
//!
//! A plan adds what is missing, corrects an audience, and removes what was asked to be removed. It leaves
//! every other credential alone.

use std::{collections::BTreeSet, fmt};

use serde::Serialize;

use crate::core::{entra::Credential, service_account::ServiceAccount, verification::Difference};

mod apply;
pub mod delegation;
mod desired;
mod holder;
mod inventory;
mod limits;
mod service_error;

pub use self::{
    apply::{Application, ServiceAnswer, Stop, Work, Write},
    desired::{DesiredCredential, InvalidDesired},
    holder::{ARM_VERSION, Holder, Method, NoHolder, NotAResourceId, ResourceId, ServiceRequest},
    inventory::{Account, AccountRow, Inventory, Trust, inventory},
    limits::{MAX_CREDENTIALS, Pace},
    service_error::ServiceError,
};

/// What an identity's credentials become.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Plan {
    /// In the order in which they are written: removals first, since an identity has room for only so many.
    pub changes: Vec<Change>,
    /// Desired, and there: the names that they have.
    pub unchanged: Vec<String>,
    /// Why some of what is desired cannot be had. Nothing is written then.
    pub conflicts: Vec<Conflict>,
    /// All others: they stay.
    pub others: Vec<OtherCredential>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "change")]
pub enum Change {
    Create(DesiredCredential),
    /// The issuer and the subject are there, with another audience. An identity cannot have them twice.
    SetAudience {
        name: String,
        was: Vec<String>,
        credential: DesiredCredential,
    },
    Remove(Removal),
}

/// A credential to remove, as it was when that was decided.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Removal {
    pub name: String,
    pub issuer: String,
    pub subject: Option<String>,
}

/// A credential that the plan leaves alone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct OtherCredential {
    pub name: String,
    pub issuer: String,
    pub subject: Option<String>,
    /// The expression of a flexible credential, which is listed and never compared.
    pub expression: Option<String>,
    /// It nearly agrees with a desired one: where it differs.
    pub nearly: Vec<NearMiss>,
}

/// A member in which a credential differs from a desired one that it was surely meant to be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NearMiss {
    pub member: &'static str,
    pub difference: Difference,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "conflict")]
pub enum Conflict {
    /// The name belongs to a credential of another issuer or subject.
    NameTaken { credential: DesiredCredential, by: Removal },
    /// There would be more than Entra allows.
    TooMany { there: usize, wanted: usize },
    /// A credential to remove is not what it was when that was decided.
    Changed { removal: Removal },
    /// A credential is desired and to be removed.
    Desired { removal: Removal },
    /// Another desired credential has its name, or its issuer and subject with another audience.
    Contradiction { credential: DesiredCredential },
    /// A credential to change has a name that Entra gives to none.
    OddName { name: String },
}

/// Compares what is desired with what is there.
#[must_use]
pub fn plan(desired: &[DesiredCredential], present: &[Credential], removals: &BTreeSet<Removal>) -> Plan {
    let mut plan = Plan::default();
    for removal in removals {
        match present.iter().find(|it| it.name == removal.name) {
            None => {}
            Some(there) if Removal::of(there) != *removal => {
                plan.conflicts.push(Conflict::Changed { removal: removal.clone() });
            }
            Some(there) if desired.iter().any(|it| it.is_met_by(there)) => {
                plan.conflicts.push(Conflict::Desired { removal: removal.clone() });
            }
            Some(_) => plan.changes.push(Change::Remove(removal.clone())),
        }
    }
    let (desired, contradictions) = without_contradictions(desired);
    plan.conflicts.extend(contradictions);
    let removed = plan.changes.len();
    let stays = |it: &&Credential| !removals.contains(&Removal::of(it));
    let mut creations = 0;
    for credential in &desired {
        match present.iter().filter(stays).find(|it| credential.is_met_by(it)) {
            Some(there) if there.audiences == [credential.audience.as_str()] => {
                plan.unchanged.push(there.name.clone());
            }
            Some(there) => plan.changes.push(Change::SetAudience {
                name: there.name.clone(),
                was: there.audiences.clone(),
                credential: credential.clone(),
            }),
            None => {
                let has_name = |it: &&Credential| it.name.eq_ignore_ascii_case(&credential.name);
                if let Some(there) = present.iter().filter(stays).find(has_name) {
                    let by = Removal::of(there);
                    plan.conflicts.push(Conflict::NameTaken { credential: credential.clone(), by });
                } else {
                    creations += 1;
                    plan.changes.push(Change::Create(credential.clone()));
                }
            }
        }
    }
    // What is written is addressed by its name.
    let written = plan.changes.iter().filter_map(|change| match change {
        Change::Create(_) => None,
        Change::SetAudience { name, .. } => Some(name),
        Change::Remove(removal) => Some(&removal.name),
    });
    let odd = written.filter(|name| !desired::is_name(name)).cloned();
    plan.conflicts.extend(odd.map(|name| Conflict::OddName { name }).collect::<Vec<_>>());
    let wanted = present.len() - removed + creations;
    if creations > 0 && wanted > MAX_CREDENTIALS {
        plan.conflicts.push(Conflict::TooMany { there: present.len() - removed, wanted });
    }
    let others = present.iter().filter(stays).filter(|it| !desired.iter().any(|wanted| wanted.is_met_by(it)));
    plan.others = others.map(|it| OtherCredential::of(it, &desired)).collect();
    plan
}

/// One of each issuer and subject, since an identity can have no more; and those that contradict it.
fn without_contradictions(desired: &[DesiredCredential]) -> (Vec<DesiredCredential>, Vec<Conflict>) {
    let (mut kept, mut conflicts): (Vec<DesiredCredential>, Vec<_>) = (Vec::new(), Vec::new());
    for credential in desired {
        let same_trust =
            kept.iter().find(|it| (&it.issuer, &it.subject) == (&credential.issuer, &credential.subject));
        let same_name = kept.iter().find(|it| it.name == credential.name);
        match (same_trust, same_name) {
            (Some(first), _) if first.audience == credential.audience => {}
            (None, None) => kept.push(credential.clone()),
            _ => conflicts.push(Conflict::Contradiction { credential: credential.clone() }),
        }
    }
    (kept, conflicts)
}

impl Plan {
    /// Whether everything is as it should be.
    #[must_use]
    pub fn is_met(&self) -> bool {
        self.changes.is_empty() && self.conflicts.is_empty()
    }
}

impl Removal {
    #[must_use]
    pub fn of(credential: &Credential) -> Self {
        Self {
            name: credential.name.clone(),
            issuer: credential.issuer.clone(),
            subject: credential.subject.clone(),
        }
    }
}

/// The credentials of an issuer whose service account does not exist, in a namespace or anywhere. Whoever creates
/// that service account gets the identity.
#[must_use]
pub fn dangling(
    present: &[Credential],
    issuer: &str,
    namespace: Option<&str>,
    accounts: &BTreeSet<ServiceAccount>,
) -> BTreeSet<Removal> {
    let of_issuer = present.iter().filter(|it| it.issuer == issuer);
    let lost = of_issuer.filter(|it| {
        let account = it.subject.as_deref().and_then(ServiceAccount::of_subject);
        account.is_some_and(|account| {
            namespace.is_none_or(|it| it == account.namespace()) && !accounts.contains(&account)
        })
    });
    lost.map(Removal::of).collect()
}

/// The credentials of an issuer that has moved and have their counterpart at the new one, and the names of those
/// that have none: their workloads would lose their identity. One without a subject never has a counterpart.
#[must_use]
pub fn moved_away(present: &[Credential], old: &str, new: &str) -> (BTreeSet<Removal>, Vec<String>) {
    let has_counterpart = |it: &Credential| {
        let is_it = |other: &Credential| {
            other.issuer == new && other.subject == it.subject && other.audiences == it.audiences
        };
        old != new && it.subject.is_some() && present.iter().any(is_it)
    };
    let (done, left): (Vec<_>, Vec<_>) =
        present.iter().filter(|it| it.issuer == old).partition(|it| has_counterpart(it));
    (done.into_iter().map(Removal::of).collect(), left.into_iter().map(|it| it.name.clone()).collect())
}

impl OtherCredential {
    fn of(credential: &Credential, desired: &[DesiredCredential]) -> Self {
        let nearest = desired.iter().filter_map(|it| it.near_misses(credential)).min_by_key(Vec::len);
        Self {
            name: credential.name.clone(),
            issuer: credential.issuer.clone(),
            subject: credential.subject.clone(),
            expression: credential.expression().map(str::to_owned),
            nearly: nearest.unwrap_or_default(),
        }
    }
}

/// In one clause.
impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Create(credential) => write!(f, "create `{}`", credential.name),
            Self::SetAudience { name, .. } => write!(f, "correct the audience of `{name}`"),
            Self::Remove(removal) => write!(f, "remove `{}`", removal.name),
        }
    }
}

impl fmt::Display for Conflict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NameTaken { credential, by } => write!(
                f,
                "the name `{}` belongs to a credential of issuer `{}` and subject `{}`",
                credential.name,
                by.issuer,
                by.subject.as_deref().unwrap_or("(an expression)")
            ),
            Self::TooMany { there, wanted } => write!(
                f,
                "an identity has room for {MAX_CREDENTIALS} federated credentials: {there} are there, and it \
                 would have {wanted}"
            ),
            Self::Changed { removal } => {
                write!(
                    f,
                    "`{}` is not any more what was to be removed: somebody has changed it",
                    removal.name
                )
            }
            Self::Desired { removal } => write!(f, "`{}` is desired, and was to be removed", removal.name),
            Self::Contradiction { credential } => write!(
                f,
                "`{}` with audience `{}` contradicts another desired credential",
                credential.subject, credential.audience
            ),
            Self::OddName { name } => write!(f, "`{name}` is no name of a federated credential"),
        }
    }
}

impl Conflict {
    /// What to do about it.
    #[must_use]
    pub fn hint(&self) -> String {
        match self {
            Self::NameTaken { by, .. } => format!(
                "pass another `--name`, or remove that one: `signpost federate remove --client-id ID --name {}`",
                by.name
            ),
            Self::TooMany { .. } => {
                "remove some: `signpost federate list` shows all; or use a second identity".to_owned()
            }
            Self::Contradiction { .. } => {
                "an identity can trust an issuer and a subject once: leave one of the two out".to_owned()
            }
            Self::Changed { .. } | Self::Desired { .. } | Self::OddName { .. } => {
                "look at it: `signpost federate list`".to_owned()
            }
        }
    }
}

#[cfg(test)]
mod tests;
