//! What an agent needs to act on behalf of users: its blueprint has to offer a scope, and the agent identity has to
//! be granted the scopes of the resource.
//!
//! Source: learn.microsoft.com, "Create an agent identity blueprint"; Microsoft Graph v1.0,
//! `oAuth2PermissionGrant`.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{Method, ServiceRequest};
use crate::core::jose::publication::sha256_hex;

/// The scope that a user's client asks of the blueprint.
pub const ACCESS_AS_USER: &str = "access_as_user";

/// The application id of Microsoft Graph.
pub const MICROSOFT_GRAPH: &str = "00000003-0000-0000-c000-000000000000";

/// A change to make, and what it does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    pub request: ServiceRequest,
    pub does: Vec<String>,
}

/// What a blueprint lacks to be asked for by users; `None` if it lacks nothing.
///
/// Scopes and identifier URIs that are there stay.
#[must_use]
pub fn offer_to_users(application: &Value) -> Option<Step> {
    let (object_id, client_id) = (application["id"].as_str()?, application["appId"].as_str()?);
    let uri = format!("api://{client_id}");
    let mut uris = application["identifierUris"].as_array().cloned().unwrap_or_default();
    let mut scopes = application["api"]["oauth2PermissionScopes"].as_array().cloned().unwrap_or_default();
    let (mut does, mut change) = (Vec::new(), json!({}));
    if !uris.iter().any(|it| it.as_str() == Some(uri.as_str())) {
        does.push(format!("identifier URI `{uri}`"));
        uris.push(json!(uri));
        change["identifierUris"] = json!(uris);
    }
    let scope = scopes.iter_mut().find(|it| it["value"].as_str() == Some(ACCESS_AS_USER));
    let is_changed = match scope {
        Some(scope) if scope["isEnabled"] != json!(false) => false,
        Some(scope) => {
            does.push(format!("scope `{ACCESS_AS_USER}`, which was disabled"));
            scope["isEnabled"] = json!(true);
            true
        }
        None => {
            does.push(format!("scope `{ACCESS_AS_USER}`"));
            scopes.push(access_as_user(client_id));
            true
        }
    };
    if is_changed {
        change["api"] = json!({"oauth2PermissionScopes": scopes});
    }
    let path = format!("/applications/{object_id}");
    (!does.is_empty())
        .then(|| Step { request: ServiceRequest { method: Method::Patch, path, body: Some(change) }, does })
}

fn access_as_user(client_id: &str) -> Value {
    json!({
        "id": scope_id(client_id),
        "value": ACCESS_AS_USER,
        "type": "User",
        "isEnabled": true,
        "adminConsentDisplayName": "Access the agent on behalf of the user",
        "adminConsentDescription": "Lets a client ask this agent to act on behalf of the signed-in user.",
        "userConsentDisplayName": "Access the agent on your behalf",
        "userConsentDescription": "Lets a client ask this agent to act on your behalf.",
    })
}

/// An id that is the same whenever it is made, in the form of a version 8 UUID (RFC 9562 section 5.8).
fn scope_id(client_id: &str) -> String {
    let hex = sha256_hex(format!("{client_id}\n{ACCESS_AS_USER}").as_bytes());
    format!("{}-{}-8{}-8{}-{}", &hex[..8], &hex[8..12], &hex[13..16], &hex[17..20], &hex[20..32])
}

/// Delegated permissions of an agent identity. All ids are object ids of service principals.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Consent {
    pub client: String,
    pub resource: String,
    pub scopes: BTreeSet<String>,
    /// For this user alone: an object id; else for all users.
    pub user: Option<String>,
}

/// What is missing of a consent; `None` if it is there. `grants` are those that the client has.
#[must_use]
pub fn consent(wanted: &Consent, grants: &[Value]) -> Option<Step> {
    let kind = if wanted.user.is_some() { "Principal" } else { "AllPrincipals" };
    let is_it = |grant: &&Value| {
        grant["clientId"].as_str() == Some(wanted.client.as_str())
            && grant["resourceId"].as_str() == Some(wanted.resource.as_str())
            && grant["consentType"].as_str() == Some(kind)
            && grant["principalId"].as_str() == wanted.user.as_deref()
    };
    let words = |scope: &str| scope.split_whitespace().map(str::to_owned).collect::<BTreeSet<_>>();
    let there = grants.iter().find(is_it);
    let has = words(there.and_then(|it| it["scope"].as_str()).unwrap_or_default());
    let missing: Vec<_> = wanted.scopes.difference(&has).map(|scope| format!("scope `{scope}`")).collect();
    if missing.is_empty() {
        return None;
    }
    let all = wanted.scopes.union(&has).cloned().collect::<Vec<_>>().join(" ");
    let request = match there.and_then(|it| it["id"].as_str()) {
        Some(id) => ServiceRequest {
            method: Method::Patch,
            path: format!("/oauth2PermissionGrants/{id}"),
            body: Some(json!({"scope": all})),
        },
        None => ServiceRequest {
            method: Method::Post,
            path: "/oauth2PermissionGrants".to_owned(),
            body: Some(json!({
                "clientId": wanted.client, "consentType": kind, "principalId": wanted.user,
                "resourceId": wanted.resource, "scope": all,
            })),
        },
    };
    Some(Step { request, does: missing })
}
