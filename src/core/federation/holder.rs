//! Who holds federated credentials, and the requests that read and write them.
//!
//! Source of the requests: Microsoft Graph v1.0, `federatedIdentityCredential`; Azure Resource Manager,
//! `Microsoft.ManagedIdentity` 2024-11-30.

use std::{fmt, str::FromStr};

use serde_json::{Value, json};

use super::{Pace, Write};
use crate::core::entra::is_guid;

/// The version of `Microsoft.ManagedIdentity` whose requests these are.
pub const ARM_VERSION: &str = "2024-11-30";

/// An identity that holds federated credentials.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Holder {
    /// An application or an agent blueprint, in Microsoft Graph.
    Application { object_id: String, is_blueprint: bool },
    /// A user-assigned managed identity, in Azure Resource Manager.
    ManagedIdentity(ResourceId),
}

/// The resource id of a user-assigned managed identity.
///
/// Invariant: it has the form of one, and needs no escaping in a URL path.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ResourceId(String);

/// A request to Microsoft Graph or Azure Resource Manager.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceRequest {
    pub method: Method,
    /// Below the version of Microsoft Graph, or below Azure Resource Manager, with its query.
    pub path: String,
    pub body: Option<Value>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    Get,
    Post,
    Put,
    Patch,
    Delete,
}

impl Holder {
    /// Reads what Microsoft Graph says about an application.
    #[must_use]
    pub fn of_application(application: &Value) -> Option<Self> {
        let kind = application["@odata.type"].as_str().unwrap_or_default();
        Some(Self::Application {
            object_id: application["id"].as_str().filter(|id| is_guid(id))?.to_owned(),
            is_blueprint: kind.to_ascii_lowercase().ends_with(".agentidentityblueprint"),
        })
    }

    /// Reads what Microsoft Graph says about the service principal of a client id for which the tenant has no
    /// application.
    ///
    /// # Errors
    ///
    /// Fails if it holds no federated credentials itself.
    pub fn of_principal(principal: &Value) -> Result<Self, NoHolder> {
        let kind = principal["servicePrincipalType"].as_str().unwrap_or_default();
        let mut names =
            principal["alternativeNames"].as_array().into_iter().flatten().filter_map(Value::as_str);
        let resource = names.find_map(|it| it.parse().ok());
        let odata = principal["@odata.type"].as_str().unwrap_or_default().to_ascii_lowercase();
        if odata.ends_with(".agentidentity") || principal["agentIdentityBlueprintId"].is_string() {
            let blueprint = principal["agentIdentityBlueprintId"].as_str().unwrap_or_default();
            return Err(NoHolder::AgentIdentity { blueprint: blueprint.to_owned() });
        }
        match (kind, resource) {
            ("ManagedIdentity", Some(resource)) => Ok(Self::ManagedIdentity(resource)),
            ("ManagedIdentity", None) => Err(NoHolder::SystemAssigned),
            _ => Err(NoHolder::Foreign),
        }
    }

    #[must_use]
    pub fn pace(&self) -> Pace {
        match self {
            Self::Application { .. } => Pace::Sequential,
            Self::ManagedIdentity(_) => Pace::EveryFourSeconds,
        }
    }

    /// Lists the credentials; further pages are where the answer says.
    #[must_use]
    pub fn list(&self) -> ServiceRequest {
        self.request(Method::Get, "", None)
    }

    /// One write. Microsoft Graph creates only what is not there; Azure Resource Manager makes no difference
    /// between creating and replacing.
    #[must_use]
    pub fn write(&self, write: &Write) -> ServiceRequest {
        match (self, write) {
            (_, Write::Delete(name)) => self.request(Method::Delete, name, None),
            (Self::Application { .. }, Write::Create(wanted)) => {
                let body = json!({
                    "name": wanted.name, "issuer": wanted.issuer, "subject": wanted.subject,
                    "audiences": [wanted.audience],
                });
                self.request(Method::Post, "", Some(body))
            }
            (Self::Application { .. }, Write::Update(wanted)) => {
                self.request(Method::Patch, &wanted.name, Some(json!({"audiences": [wanted.audience]})))
            }
            (Self::ManagedIdentity(_), Write::Create(wanted) | Write::Update(wanted)) => {
                let properties = json!({
                    "issuer": wanted.issuer, "subject": wanted.subject, "audiences": [wanted.audience],
                });
                self.request(Method::Put, &wanted.name, Some(json!({"properties": properties})))
            }
        }
    }

    fn request(&self, method: Method, name: &str, body: Option<Value>) -> ServiceRequest {
        let below = if name.is_empty() { String::new() } else { format!("/{name}") };
        let path = match self {
            Self::Application { object_id, .. } => {
                format!("/applications/{object_id}/federatedIdentityCredentials{below}")
            }
            Self::ManagedIdentity(id) => {
                format!("{id}/federatedIdentityCredentials{below}?api-version={ARM_VERSION}")
            }
        };
        ServiceRequest { method, path, body }
    }
}

impl ResourceId {
    /// The name of the identity.
    #[must_use]
    pub fn name(&self) -> &str {
        self.0.rsplit('/').next().expect("it has parts")
    }

    /// The name of its resource group.
    #[must_use]
    pub fn resource_group(&self) -> &str {
        self.0.split('/').nth(4).expect("it has nine parts")
    }
}

impl FromStr for ResourceId {
    type Err = NotAResourceId;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let invalid = || NotAResourceId { text: text.chars().take(200).collect() };
        let parts: Vec<_> = text.split('/').collect();
        let ["", subscriptions, subscription, groups, group, providers, provider, kind, name] = parts[..]
        else {
            return Err(invalid());
        };
        let words = [
            (subscriptions, "subscriptions"),
            (groups, "resourceGroups"),
            (providers, "providers"),
            (provider, "Microsoft.ManagedIdentity"),
            (kind, "userAssignedIdentities"),
        ];
        let is_plain = |it: &str| {
            !it.is_empty()
                && it.chars().all(|it| it.is_alphanumeric() || matches!(it, '-' | '_' | '.' | '(' | ')'))
                && it.chars().any(|it| it != '.')
        };
        let is_valid = words.iter().all(|(seen, word)| seen.eq_ignore_ascii_case(word))
            && is_guid(subscription)
            && is_plain(group)
            && is_plain(name);
        if is_valid { Ok(Self(text.to_owned())) } else { Err(invalid()) }
    }
}

impl fmt::Display for ResourceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{text}` is no managed identity, expected \
     `/subscriptions/…/resourceGroups/…/providers/Microsoft.ManagedIdentity/userAssignedIdentities/NAME`"
)]
pub struct NotAResourceId {
    text: String,
}

/// An identity that cannot hold federated credentials, or not here.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoHolder {
    #[error("it is an agent identity: its blueprint holds the federated credentials")]
    AgentIdentity { blueprint: String },
    #[error("it is a system-assigned managed identity, which can hold no federated credentials")]
    SystemAssigned,
    #[error("its application is in another tenant, which holds its federated credentials")]
    Foreign,
    #[error("it is no client id, which is a GUID")]
    NotAnId,
    #[error("this tenant has no application, managed identity or blueprint of this client id")]
    Missing,
}

impl NoHolder {
    #[must_use]
    pub fn hint(&self) -> String {
        match self {
            Self::AgentIdentity { blueprint } if !blueprint.is_empty() => {
                format!("pass `--client-id {blueprint}`")
            }
            Self::AgentIdentity { .. } => "pass the client id of its blueprint".to_owned(),
            Self::SystemAssigned => "create a user-assigned one: `az identity create`".to_owned(),
            Self::Foreign => "sign in to the tenant of the application".to_owned(),
            Self::NotAnId => "correct the annotation `azure.workload.identity/client-id`: `az identity show \
                --query clientId` or `az ad app show --query appId` prints it"
                .to_owned(),
            Self::Missing => "compare with `az account show --query tenantId`; take the client id from \
                `az identity show --query clientId` or `az ad app show --query appId`"
                .to_owned(),
        }
    }
}
