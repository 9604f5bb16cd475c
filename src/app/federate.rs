//! Puts trust in place: what an identity's federated credentials should be, planned and carried out.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
};

use serde_json::Value;
use tokio::time::sleep;
use url::Url;

use crate::{
    azure::AzureError,
    clock,
    core::{
        entra::{Cloud, Credential, is_on_this_machine},
        federation::{
            self, Account, Application, DesiredCredential, Holder, InvalidDesired, Inventory, Plan, Removal,
            ResourceId, ServiceAnswer, Stop, Work, Write, dangling,
            delegation::{self, Consent},
            moved_away,
        },
        service_account::ServiceAccount,
        text::Hint,
    },
    http_client::Trust,
    kubernetes::{Access, KubernetesError, workloads::Workloads},
};

pub use crate::azure::{Azure, SignIn};

/// Microsoft Graph and Azure Resource Manager of a cloud. An authority on this machine stands for both.
#[must_use]
pub fn connect(cloud: Cloud, sign_in: SignIn, authority: &str, ca_file: Option<PathBuf>) -> Azure {
    let local = Url::parse(authority).is_ok_and(|url| is_on_this_machine(&url)).then_some(authority);
    Azure::new(cloud, sign_in, local, ca_file.map_or(Trust::System, Trust::Also))
}

/// How an identity is named.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum IdentityName {
    /// Whatever has this client id.
    ClientId(String),
    ManagedIdentity(ResourceId),
}

/// What an identity's credentials should become.
#[derive(Clone, Debug)]
pub struct Wish {
    pub identity: IdentityName,
    pub desired: Vec<DesiredCredential>,
    /// The issuer moved: what trusts the first is to trust the second as well.
    pub moved: Option<(String, String)>,
    pub removal: RemovalWish,
}

/// Which credentials are to be removed.
#[derive(Clone, Debug, Default)]
pub enum RemovalWish {
    #[default]
    Nothing,
    Named(Vec<String>),
    /// Those of this issuer whose service account is not among these.
    Dangling {
        issuer: String,
        namespace: Option<String>,
        accounts: BTreeSet<ServiceAccount>,
    },
    /// Those of an issuer that have their counterpart at the place that it has moved to.
    MovedAway {
        from: String,
        to: String,
    },
}

const NOTHING_TRUSTS: &str = "nothing here trusts this issuer: compare it with `signpost federate list`";

/// What is to be done about one identity.
pub struct Planned {
    pub holder: Holder,
    pub present: Vec<Credential>,
    pub desired: Vec<DesiredCredential>,
    pub removals: BTreeSet<Removal>,
    pub plan: Plan,
    /// Names of credentials that were to be removed, and why they are not.
    pub kept: Vec<(String, &'static str)>,
}

/// Something that somebody who waits wants to see.
#[derive(Debug)]
pub enum Progress<'a> {
    Written { write: &'a Write, number: usize, of: usize },
    Waiting { seconds: i128, reason: &'a str },
}

/// How an attempt ended.
pub struct Applied {
    pub written: Vec<Write>,
    /// `None`: everything is as it should be.
    pub stopped: Option<Stop>,
    /// What is left to do, if that is known.
    pub left: Option<Plan>,
}

/// Compares what is wished with what an identity has.
///
/// # Errors
///
/// Fails when there is no such identity, or it cannot be asked.
pub async fn planned(azure: &Azure, wish: &Wish) -> Result<Planned, FederateError> {
    let holder = match &wish.identity {
        IdentityName::ClientId(id) => azure.holder(id).await?,
        IdentityName::ManagedIdentity(id) => Holder::ManagedIdentity(id.clone()),
    };
    let present = azure.credentials(&holder).await?;
    let mut desired = wish.desired.clone();
    let (removals, mut kept) = wish.removal.among(&present);
    if let Some((from, to)) = &wish.moved {
        let of_issuer: Vec<_> = present.iter().filter(|it| it.issuer == *from).collect();
        if of_issuer.is_empty() {
            kept.push((from.clone(), NOTHING_TRUSTS));
        }
        for credential in of_issuer {
            match DesiredCredential::moved(credential, to) {
                Some(moved) => desired.push(moved?),
                None => kept.push((
                    credential.name.clone(),
                    "it has no subject, or several audiences: move it by hand",
                )),
            }
        }
    }
    let plan = federation::plan(&desired, &present, &removals);
    Ok(Planned { holder, present, desired, removals, plan, kept })
}

/// Carries a plan out, and shows progress.
pub async fn apply(azure: &Azure, planned: &Planned, mut tell: impl FnMut(Progress)) -> Applied {
    let mut application =
        Application::new(planned.desired.clone(), planned.removals.clone(), planned.holder.pace());
    let of = planned.plan.changes.len();
    let mut reason = String::new();
    let stopped = loop {
        let now = clock::now();
        let work = application.next(now);
        let answer = match &work {
            Work::Done => break None,
            Work::Stopped(stop) => break Some(stop.clone()),
            Work::WaitUntil(at) => {
                let wait = at.duration_since(now);
                let paced = "Azure takes a write of a managed identity every four seconds";
                let reason = if reason.is_empty() { paced } else { &reason };
                tell(Progress::Waiting { seconds: (wait.as_millis() + 999) / 1000, reason });
                sleep(wait.unsigned_abs()).await;
                continue;
            }
            Work::List => match azure.credentials(&planned.holder).await {
                Ok(listed) => ServiceAnswer::Listed(listed),
                Err(error) => error.answer(),
            },
            Work::Write(write) => azure.write(&planned.holder, write).await,
        };
        answer.reason().unwrap_or_default().clone_into(&mut reason);
        let before = application.written().count();
        application.record(&work, answer, clock::now());
        for (number, write) in application.written().enumerate().skip(before) {
            tell(Progress::Written { write, number: number + 1, of });
        }
    };
    Applied { written: application.written().cloned().collect(), stopped, left: application.plan() }
}

impl RemovalWish {
    /// The credentials to remove, and the names of those that stay although they were named.
    fn among(&self, present: &[Credential]) -> (BTreeSet<Removal>, Vec<(String, &'static str)>) {
        match self {
            Self::Nothing => (BTreeSet::new(), Vec::new()),
            Self::Named(names) => {
                let found = |name: &String| present.iter().find(|it| it.name == *name);
                let kept = names.iter().filter(|name| found(name).is_none());
                let kept = kept.map(|name| (name.clone(), "there is none of this name")).collect();
                (names.iter().filter_map(found).map(Removal::of).collect(), kept)
            }
            Self::Dangling { issuer, namespace, accounts } => {
                (dangling(present, issuer, namespace.as_deref(), accounts), Vec::new())
            }
            Self::MovedAway { from, to } => {
                let (gone, left) = moved_away(present, from, to);
                let why = "the new issuer has no counterpart of it yet";
                let mut kept: Vec<_> = left.into_iter().map(|name| (name, why)).collect();
                if gone.is_empty() && kept.is_empty() {
                    kept.push((from.clone(), NOTHING_TRUSTS));
                }
                (gone, kept)
            }
        }
    }
}

/// The service accounts of a cluster that use workload identity.
pub struct ClusterAccounts {
    /// The cluster's own issuer.
    pub issuer: String,
    /// The only namespace that was read.
    pub namespace: Option<String>,
    pub accounts: Vec<Account>,
    /// All service accounts, also those that do not.
    pub every: BTreeSet<ServiceAccount>,
}

/// Reads the service accounts of a cluster, or of one namespace.
///
/// # Errors
///
/// Fails when the cluster cannot be reached or refuses.
pub async fn in_cluster(
    context: Option<String>,
    namespace: Option<&str>,
) -> Result<ClusterAccounts, FederateError> {
    let workloads = Workloads::new(Access { context, ..Access::default() });
    let issuer = workloads.issuer().await?;
    let found = workloads.accounts(namespace).await?;
    let accounts = found.iter().filter_map(|it| Account::of(&it.account, &it.annotations, &it.pods));
    let accounts = accounts.collect();
    let namespace = namespace.map(str::to_owned);
    Ok(ClusterAccounts {
        issuer,
        namespace,
        accounts,
        every: found.into_iter().map(|it| it.account).collect(),
    })
}

/// The wishes of a cluster's service accounts: one for each identity that an annotation names, or for `only` one.
///
/// # Errors
///
/// Fails if Entra would refuse a credential.
pub fn wishes(
    cluster: &ClusterAccounts,
    audience: &str,
    only: Option<&str>,
    removes_dangling: bool,
) -> Result<Vec<Wish>, InvalidDesired> {
    // An identity that no service account names any more may have credentials that dangle.
    let mut desired: BTreeMap<&str, Vec<DesiredCredential>> =
        only.map(|id| (id, Vec::new())).into_iter().collect();
    for account in &cluster.accounts {
        if let Some(id) = account.client_id.as_deref().filter(|id| only.is_none_or(|only| only == *id)) {
            desired.entry(id).or_default().push(account.desired(&cluster.issuer, audience)?);
        }
    }
    let removal = || {
        if removes_dangling {
            RemovalWish::Dangling {
                issuer: cluster.issuer.clone(),
                namespace: cluster.namespace.clone(),
                accounts: cluster.every.clone(),
            }
        } else {
            RemovalWish::Nothing
        }
    };
    let wish = |(id, desired): (&str, Vec<_>)| Wish {
        identity: IdentityName::ClientId(id.to_owned()),
        desired,
        moved: None,
        removal: removal(),
    };
    Ok(desired.into_iter().map(wish).collect())
}

/// A cluster and Entra side by side, and the identities that could not be asked.
pub struct SideBySide {
    pub inventory: Inventory,
    pub unasked: Vec<(String, FederateError)>,
}

/// Sets the service accounts of a cluster beside what Entra has for them.
///
/// # Errors
///
/// Fails if Entra would accept no credential of this issuer.
pub async fn side_by_side(
    azure: &Azure,
    cluster: &ClusterAccounts,
    audience: &str,
) -> Result<SideBySide, FederateError> {
    let ids: BTreeSet<_> = cluster.accounts.iter().filter_map(|it| it.client_id.clone()).collect();
    let (mut credentials, mut unasked) = (BTreeMap::new(), Vec::new());
    for id in ids {
        let found = match azure.holder(&id).await {
            Ok(holder) => azure.credentials(&holder).await,
            Err(error) => Err(error),
        };
        match found {
            Ok(found) => drop(credentials.insert(id, found)),
            Err(error) => unasked.push((id, error.into())),
        }
    }
    let inventory = federation::inventory(
        &cluster.issuer,
        audience,
        &cluster.accounts,
        cluster.namespace.as_deref(),
        &cluster.every,
        &credentials,
    )?;
    Ok(SideBySide { inventory, unasked })
}

/// What was done, or would be, and to whom.
pub struct Done {
    pub steps: Vec<String>,
}

/// Lets users ask for a token of a blueprint.
///
/// # Errors
///
/// Fails when there is no such blueprint, or Microsoft Graph refuses.
pub async fn offer_to_users(azure: &Azure, blueprint: &str, writes: bool) -> Result<Done, FederateError> {
    let application = azure.optional(&format!("/applications(appId='{blueprint}')")).await?;
    let Some(Holder::Application { is_blueprint: true, .. }) =
        application.as_ref().and_then(Holder::of_application)
    else {
        return Err(FederateError::NoBlueprint { client_id: blueprint.to_owned() });
    };
    done(azure, application.as_ref().and_then(delegation::offer_to_users), writes).await
}

/// Grants an agent identity scopes of a resource, for all users or for one.
///
/// # Errors
///
/// Fails when there is no such agent identity or resource, or Microsoft Graph refuses.
pub async fn consent(
    azure: &Azure,
    agent: &str,
    resource: &str,
    scopes: BTreeSet<String>,
    user: Option<String>,
    writes: bool,
) -> Result<Done, FederateError> {
    let client = principal(azure, agent).await?;
    let kind = client["@odata.type"].as_str().unwrap_or_default().to_ascii_lowercase();
    if !kind.ends_with(".agentidentity") && !client["agentIdentityBlueprintId"].is_string() {
        return Err(FederateError::NoAgent { client_id: agent.to_owned() });
    }
    let resource = principal(azure, resource).await?;
    let id = |it: &Value| it["id"].as_str().unwrap_or_default().to_owned();
    let offered = resource["oauth2PermissionScopes"].as_array().into_iter().flatten();
    let offered: BTreeSet<_> = offered.filter_map(|it| it["value"].as_str()).map(str::to_owned).collect();
    if let Some(scope) = scopes.difference(&offered).next() {
        return Err(FederateError::NoScope { scope: scope.clone(), offered });
    }
    let wanted = Consent { client: id(&client), resource: id(&resource), scopes, user };
    let path = format!("/oauth2PermissionGrants?$filter=clientId%20eq%20'{}'", wanted.client);
    let grants = azure.graph_list(&path).await?;
    done(azure, delegation::consent(&wanted, &grants), writes).await
}

async fn principal(azure: &Azure, client_id: &str) -> Result<Value, FederateError> {
    let found = azure.optional(&format!("/servicePrincipals(appId='{client_id}')")).await?;
    found.ok_or_else(|| FederateError::NoPrincipal { client_id: client_id.to_owned() })
}

async fn done(azure: &Azure, step: Option<delegation::Step>, writes: bool) -> Result<Done, FederateError> {
    let Some(step) = step else { return Ok(Done { steps: Vec::new() }) };
    if writes {
        azure.graph(&step.request).await?;
    }
    Ok(Done { steps: step.does })
}

#[derive(Debug, thiserror::Error)]
pub enum FederateError {
    #[error("`{client_id}` is no agent blueprint of this tenant")]
    NoBlueprint { client_id: String },
    #[error("`{client_id}` is no agent identity")]
    NoAgent { client_id: String },
    #[error("this tenant has no service principal of client id `{client_id}`")]
    NoPrincipal { client_id: String },
    #[error("the resource has no scope `{scope}`")]
    NoScope { scope: String, offered: BTreeSet<String> },
    #[error(transparent)]
    Azure(#[from] AzureError),
    #[error(transparent)]
    Cluster(#[from] KubernetesError),
    #[error(transparent)]
    Desired(#[from] InvalidDesired),
}

impl Hint for FederateError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Azure(error) => error.hint(),
            Self::Cluster(error) => error.hint(),
            Self::Desired(error) => error.hint(),
            Self::NoBlueprint { .. } => {
                Some("pass the client id of the blueprint, not of an agent identity".to_owned())
            }
            Self::NoAgent { .. } => {
                Some("pass the client id of an agent identity, not of its blueprint".to_owned())
            }
            Self::NoPrincipal { .. } => {
                Some("compare it, and the tenant that you have signed in to: `az account show`".to_owned())
            }
            Self::NoScope { scope, offered } => {
                let near = offered.iter().filter(|it| strsim::jaro_winkler(it, scope) > 0.8).take(3);
                let near: Vec<_> = near.map(|it| format!("`{it}`")).collect();
                Some(if near.is_empty() {
                    "name a delegated scope of it, such as `User.Read`".to_owned()
                } else {
                    format!("did you mean {}?", near.join(" or "))
                })
            }
        }
    }
}
