//! The identity that a workload asks a token for, as Microsoft's tools print it.

use serde_json::{Map, Value};

/// An application, a managed identity, an agent's identity, or that there is none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// `None`: unknown.
    pub kind: Option<IdentityKind>,
    pub client_id: Option<String>,
    /// The object id of an application or service principal, the principal id of a managed identity.
    pub object_id: Option<String>,
    /// The tenant in which it was made.
    pub tenant: Option<String>,
    pub is_enabled: bool,
    /// Whether Entra expects no secret and no assertion from it.
    pub is_public_client: bool,
    /// Whether other tenants may use it.
    pub is_multi_tenant: bool,
    /// Whether the tenant that is asked has a service principal of it; `None`: unknown.
    pub has_principal: Option<bool>,
    /// The client id of the blueprint of an agent identity.
    pub blueprint: Option<String>,
    /// Number of grants of delegated permissions to it; `None`: unknown.
    pub grants: Option<usize>,
    /// The user that an agent acts as.
    pub user: Option<DirectoryUser>,
}

/// A user, or the agent user of an agent identity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirectoryUser {
    pub object_id: Option<String>,
    pub name: Option<String>,
    /// The agent identity that an agent user belongs to.
    pub parent: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IdentityKind {
    /// Microsoft Graph or Azure Resource Manager did not find it.
    Missing,
    Application,
    ManagedIdentity,
    Blueprint,
    AgentIdentity,
}

impl IdentityKind {
    /// Whether Microsoft Entra Agent ID governs it.
    #[must_use]
    pub fn is_of_an_agent(self) -> bool {
        matches!(self, Self::Blueprint | Self::AgentIdentity)
    }
}

impl Identity {
    /// Reads what `az identity show`, `az ad app show`, `az ad sp show`, `az ad user show` or Microsoft Graph
    /// print, grants of delegated permissions (`oauth2PermissionGrants`) included; `None` if this is something
    /// else.
    #[must_use]
    pub fn of_json(value: &Value) -> Option<Self> {
        let members = value.as_object()?;
        if let Some(grants) =
            members.get("value").and_then(Value::as_array).filter(|_| is_about_grants(members))
        {
            return Some(Self { grants: Some(grants.len()), ..Self::unknown() });
        }
        if let Some(error) = members.get("error") {
            return is_not_found(error)
                .then(|| Self { kind: Some(IdentityKind::Missing), ..Self::unknown() });
        }
        let properties = members.get("properties").and_then(Value::as_object).unwrap_or(members);
        let text = |names: &[&str]| {
            let of = |members: &Map<String, Value>| {
                names.iter().find_map(|name| members.get(*name)?.as_str().map(str::to_owned))
            };
            of(properties).or_else(|| of(members))
        };
        let resource_type = text(&["@odata.type", "type"]).unwrap_or_default().to_lowercase();
        let is = |name: &str| resource_type.ends_with(name);
        let is_managed = text(&["principalId"]).is_some()
            || text(&["servicePrincipalType"]).as_deref() == Some("ManagedIdentity");
        if text(&["userPrincipalName"]).is_some() {
            let (object_id, name) = (text(&["id"]), text(&["userPrincipalName"]));
            let user = DirectoryUser { object_id, name, parent: text(&["identityParentId"]) };
            return Some(Self { user: Some(user), ..Self::unknown() });
        }
        let kind = if is("agentidentityblueprint") || is("agentidentityblueprintprincipal") {
            IdentityKind::Blueprint
        } else if is("agentidentity") || text(&["agentIdentityBlueprintId"]).is_some() {
            IdentityKind::AgentIdentity
        } else if is_managed {
            IdentityKind::ManagedIdentity
        } else if text(&["appId", "clientId"]).is_some() {
            IdentityKind::Application
        } else {
            return None;
        };
        let truth = |name: &str| members.get(name).and_then(Value::as_bool);
        let is_principal = text(&["servicePrincipalType"]).is_some();
        Some(Self {
            kind: Some(kind),
            client_id: text(&["clientId", "appId"])
                .or_else(|| text(&["id"]).filter(|_| kind == IdentityKind::AgentIdentity)),
            object_id: text(&["principalId", "id"]).filter(|id| !id.starts_with('/')),
            tenant: text(&["tenantId", "appOwnerOrganizationId"]),
            is_enabled: truth("accountEnabled") != Some(false)
                && members.get("disabledByMicrosoftStatus").is_none_or(Value::is_null),
            is_public_client: truth("isFallbackPublicClient") == Some(true),
            is_multi_tenant: text(&["signInAudience"]).is_some_and(|it| it != "AzureADMyOrg"),
            has_principal: is_principal.then_some(true),
            blueprint: text(&["agentIdentityBlueprintId"]),
            grants: None,
            user: None,
        })
    }

    /// The same for a list, as `az identity list` and Microsoft Graph print it, if all of it are identities.
    #[must_use]
    pub fn of_output(value: &Value) -> Option<Self> {
        let list =
            value.as_array().or_else(|| value.get("value")?.as_array()).filter(|list| !list.is_empty());
        let of_list = |list: &Vec<Value>| {
            let identities: Option<Vec<_>> = list.iter().map(Self::of_json).collect();
            identities?.into_iter().reduce(Self::and)
        };
        Self::of_json(value).or_else(|| of_list(list?))
    }

    /// An identity of which only this is known.
    #[must_use]
    pub fn of_kind(kind: IdentityKind, client_id: &str) -> Self {
        Self { kind: Some(kind), client_id: Some(client_id.to_owned()), ..Self::unknown() }
    }

    /// Joins two views: an application and its service principal. Where one of them was not found, the tenant has
    /// no service principal.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        let is_there = |it: &Self| it.kind.is_some_and(|kind| kind != IdentityKind::Missing);
        let (mut one, other) = if is_there(&self) { (self, other) } else { (other, self) };
        if !is_there(&other) {
            if is_there(&one) && other.kind.is_some() {
                one.has_principal = Some(false);
            }
            one.kind = one.kind.or(other.kind);
            one.grants = one.grants.or(other.grants);
            one.user = one.user.or(other.user);
            return one;
        }
        Self {
            kind: one.kind.filter(|kind| *kind != IdentityKind::Application).or(other.kind),
            client_id: one.client_id.or(other.client_id),
            object_id: one.object_id.or(other.object_id),
            tenant: one.tenant.or(other.tenant),
            is_enabled: one.is_enabled && other.is_enabled,
            is_public_client: one.is_public_client || other.is_public_client,
            is_multi_tenant: one.is_multi_tenant || other.is_multi_tenant,
            has_principal: one.has_principal.or(other.has_principal),
            blueprint: one.blueprint.or(other.blueprint),
            grants: one.grants.or(other.grants),
            user: one.user.or(other.user),
        }
    }

    fn unknown() -> Self {
        Self {
            kind: None,
            client_id: None,
            object_id: None,
            tenant: None,
            is_enabled: true,
            is_public_client: false,
            is_multi_tenant: false,
            has_principal: None,
            blueprint: None,
            grants: None,
            user: None,
        }
    }
}

/// Whether a list of Microsoft Graph is one of grants; an empty one is told by its context.
fn is_about_grants(members: &Map<String, Value>) -> bool {
    let context = members.get("@odata.context").and_then(Value::as_str).unwrap_or_default();
    let first = members.get("value").and_then(|list| list.get(0));
    context.contains("oauth2PermissionGrants")
        || first.is_some_and(|grant| grant.get("consentType").is_some())
}

/// Whether an error of Microsoft Graph or Azure Resource Manager says that there is no such object.
fn is_not_found(error: &Value) -> bool {
    let code = error.get("code").and_then(Value::as_str).unwrap_or_default();
    ["ResourceNotFound", "NotFound"].iter().any(|end| code.ends_with(end))
}

#[cfg(test)]
mod tests;
