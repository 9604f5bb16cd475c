use serde_json::json;

use super::*;

const ID: &str = "11111111-1111-4111-8111-111111111111";
const OTHER: &str = "22222222-2222-4222-8222-222222222222";

fn read(value: &Value) -> Identity {
    Identity::of_json(value).expect("an identity")
}

#[test]
fn a_managed_identity_is_read_as_az_and_resource_manager_print_it() {
    let printed = json!({
        "clientId": ID, "principalId": OTHER, "tenantId": "aaaaaaaa-aaaa-4aaa-8aaa-aaaaaaaaaaaa", "name": "app",
        "id": "/subscriptions/s/resourcegroups/g/providers/Microsoft.ManagedIdentity/userAssignedIdentities/app",
        "type": "Microsoft.ManagedIdentity/userAssignedIdentities",
    });
    let wrapped = json!({"id": printed["id"], "properties": {
        "clientId": ID, "principalId": OTHER, "tenantId": printed["tenantId"],
    }});
    for printed in [printed, wrapped] {
        let it = read(&printed);
        assert_eq!(it.kind, Some(IdentityKind::ManagedIdentity));
        assert_eq!((it.client_id.as_deref(), it.object_id.as_deref()), (Some(ID), Some(OTHER)));
        assert!(it.tenant.is_some() && it.is_enabled && !it.is_public_client);
    }
}

#[test]
fn an_application_and_its_principal_are_read_as_one() {
    let application = json!({"appId": ID, "id": OTHER, "isFallbackPublicClient": true, "displayName": "app"});
    let principal = json!({
        "appId": ID, "id": "33333333-3333-4333-8333-333333333333", "servicePrincipalType": "Application",
        "accountEnabled": false, "appOwnerOrganizationId": "aaaaaaaa-aaaa-4aaa-8aaa-aaaaaaaaaaaa",
    });
    for both in [[&application, &principal], [&principal, &application]] {
        let it = read(both[0]).and(read(both[1]));
        assert_eq!(it.kind, Some(IdentityKind::Application));
        assert_eq!(it.client_id.as_deref(), Some(ID));
        assert!(!it.is_enabled && it.is_public_client && it.tenant.is_some());
        assert_eq!(it.has_principal, Some(true));
    }
}

#[test]
fn what_was_not_found_is_told() {
    let missing =
        json!({"error": {"code": "Request_ResourceNotFound", "message": "Resource does not exist."}});
    assert_eq!(read(&missing).kind, Some(IdentityKind::Missing));
    let application = json!({"appId": ID, "id": OTHER});
    for both in [[&application, &missing], [&missing, &application]] {
        let it = read(both[0]).and(read(both[1]));
        assert_eq!((it.kind, it.has_principal), (Some(IdentityKind::Application), Some(false)));
    }
    assert_eq!(read(&missing).and(read(&missing)).has_principal, None);
    let denied = json!({"error": {"code": "Authorization_RequestDenied"}});
    assert_eq!(Identity::of_json(&denied), None, "another error says nothing");
}

#[test]
fn agents_are_told_apart() {
    let kind = |value| read(&value).kind;
    let typed =
        |name: &str| json!({"@odata.type": format!("#microsoft.graph.{name}"), "appId": ID, "id": ID});
    assert_eq!(kind(typed("agentIdentityBlueprint")), Some(IdentityKind::Blueprint));
    assert_eq!(kind(typed("agentIdentityBlueprintPrincipal")), Some(IdentityKind::Blueprint));
    assert_eq!(kind(typed("agentIdentity")), Some(IdentityKind::AgentIdentity));
    let agent =
        json!({"id": ID, "servicePrincipalType": "ServiceIdentity", "agentIdentityBlueprintId": OTHER});
    let agent = read(&agent);
    assert_eq!(agent.kind, Some(IdentityKind::AgentIdentity));
    assert_eq!((agent.client_id.as_deref(), agent.blueprint.as_deref()), (Some(ID), Some(OTHER)));
}

#[test]
fn a_list_of_credentials_is_no_identity() {
    let credential =
        json!({"name": "one", "issuer": "https://oidc.example", "subject": "s", "audiences": ["a"]});
    for value in [json!([credential]), credential.clone(), json!({"value": [credential]}), json!("text")] {
        assert_eq!(Identity::of_json(&value), None, "{value}");
    }
}
