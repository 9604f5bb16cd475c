//! The service accounts of a cluster beside the credentials that Entra has for them.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::{DesiredCredential, NearMiss, OtherCredential, Plan, plan};
use crate::core::{
    entra::Credential,
    service_account::ServiceAccount,
    workload::{Pod, Texts},
};

/// The annotation and the label of azure-workload-identity. Source: `pkg/webhook/consts.go` of that project.
const CLIENT_ID: &str = "azure.workload.identity/client-id";
const USE: &str = "azure.workload.identity/use";

/// A service account that uses workload identity, or has pods that do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Account {
    #[serde(serialize_with = "as_text")]
    pub account: ServiceAccount,
    /// The client id that its annotation names.
    pub client_id: Option<String>,
    pub pods: usize,
    /// Pods that the webhook changes: those with the label.
    pub labelled_pods: usize,
}

/// A service account, and what Entra has for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct AccountRow {
    #[serde(flatten)]
    pub account: Account,
    pub trust: Trust,
}

/// What Entra has for a service account.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "trust")]
pub enum Trust {
    /// The name of its credential.
    Trusted {
        credential: String,
    },
    OtherAudience {
        credential: String,
        audiences: Vec<String>,
    },
    Nearly {
        credential: String,
        differs: Vec<NearMiss>,
    },
    /// The identity has no credential for it.
    Missing,
    /// The service account names no identity.
    NoClientId,
    /// The credentials of its identity were not to be had.
    Unknown,
}

/// Everything side by side.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Inventory {
    pub accounts: Vec<AccountRow>,
    /// Credentials of this issuer whose service account does not exist, by client id.
    pub dangling: BTreeMap<String, Vec<String>>,
    /// All other credentials, by client id.
    pub others: BTreeMap<String, Vec<OtherCredential>>,
}

impl Account {
    /// `None` if neither the service account nor one of its pods uses workload identity.
    #[must_use]
    pub fn of(account: &ServiceAccount, annotations: &Texts, pods: &[Pod]) -> Option<Self> {
        let own: Vec<_> = pods.iter().filter(|pod| pod.service_account() == account.name()).collect();
        let labelled =
            own.iter().filter(|pod| pod.metadata.labels.get(USE).is_some_and(|it| it == "true")).count();
        // The same in upper case.
        let client_id =
            annotations.get(CLIENT_ID).map(|it| it.trim().to_ascii_lowercase()).filter(|it| !it.is_empty());
        (client_id.is_some() || labelled > 0).then(|| Self {
            account: account.clone(),
            client_id,
            pods: own.len(),
            labelled_pods: labelled,
        })
    }

    /// The credential that it needs.
    ///
    /// # Errors
    ///
    /// As [`DesiredCredential::of_account`].
    pub fn desired(&self, issuer: &str, audience: &str) -> Result<DesiredCredential, super::InvalidDesired> {
        DesiredCredential::of_account(issuer, &self.account, audience, None)
    }
}

/// Sets the service accounts of a cluster beside the credentials of their identities, by client id.
///
/// # Errors
///
/// As [`DesiredCredential::of_account`].
pub fn inventory(
    issuer: &str,
    audience: &str,
    accounts: &[Account],
    namespace: Option<&str>,
    every_account: &BTreeSet<ServiceAccount>,
    credentials: &BTreeMap<String, Vec<Credential>>,
) -> Result<Inventory, super::InvalidDesired> {
    let mut inventory = Inventory::default();
    let mut desired: BTreeMap<&str, Vec<DesiredCredential>> = BTreeMap::new();
    for account in accounts {
        let wanted = account.desired(issuer, audience)?;
        let trust = match &account.client_id {
            None => Trust::NoClientId,
            Some(id) => match credentials.get(id) {
                None => Trust::Unknown,
                Some(present) => Trust::of(&plan(std::slice::from_ref(&wanted), present, &BTreeSet::new())),
            },
        };
        if let Some(id) = &account.client_id {
            desired.entry(id).or_default().push(wanted);
        }
        inventory.accounts.push(AccountRow { account: account.clone(), trust });
    }
    for (id, present) in credentials {
        let dangling = super::dangling(present, issuer, namespace, every_account);
        let is_dangling = |name: &str| dangling.iter().any(|it| it.name == name);
        let wanted = desired.get(id.as_str()).map_or(&[][..], Vec::as_slice);
        let others: Vec<_> = plan(wanted, present, &BTreeSet::new()).others;
        let others: Vec<_> = others.into_iter().filter(|it| !is_dangling(&it.name)).collect();
        if !dangling.is_empty() {
            inventory.dangling.insert(id.clone(), dangling.into_iter().map(|it| it.name).collect());
        }
        if !others.is_empty() {
            inventory.others.insert(id.clone(), others);
        }
    }
    Ok(inventory)
}

impl Inventory {
    /// Whether every service account has its credential, and every credential of the issuer its service account.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        let is_trusted = |it: &AccountRow| matches!(it.trust, Trust::Trusted { .. });
        self.accounts.iter().all(is_trusted) && self.dangling.is_empty()
    }
}

impl Trust {
    fn of(plan: &Plan) -> Self {
        if let [name] = plan.unchanged.as_slice() {
            return Self::Trusted { credential: name.clone() };
        }
        let corrected = plan.changes.iter().find_map(|change| match change {
            super::Change::SetAudience { name, was, .. } => Some((name.clone(), was.clone())),
            _ => None,
        });
        if let Some((credential, audiences)) = corrected {
            return Self::OtherAudience { credential, audiences };
        }
        let near = plan.others.iter().find(|it| !it.nearly.is_empty());
        near.map_or(Self::Missing, |it| Self::Nearly {
            credential: it.name.clone(),
            differs: it.nearly.clone(),
        })
    }
}

fn as_text<S: serde::Serializer>(account: &ServiceAccount, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(account)
}
