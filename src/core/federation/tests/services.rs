//! Who holds credentials, what is sent, and what an error means.

use serde_json::json;

use super::*;

const OBJECT: &str = "3f0e5a7b-9c1d-4e2f-8a6b-7d4c2e1f0a99";
const RESOURCE: &str = "/subscriptions/0b1f2f2c-6a1e-4d53-9f7e-5f0a7c9d3e11/resourcegroups/team/providers/\
    Microsoft.ManagedIdentity/userAssignedIdentities/app";

#[test]
fn requests_are_those_of_the_documentation() {
    let application = Holder::Application { object_id: OBJECT.to_owned(), is_blueprint: false };
    let managed = Holder::ManagedIdentity(RESOURCE.parse().expect("valid"));
    let wanted = desired("app");
    let create = application.write(&Write::Create(wanted.clone()));
    assert_eq!(create.method, Method::Post);
    assert_eq!(create.path, format!("/applications/{OBJECT}/federatedIdentityCredentials"));
    assert_eq!(
        create.body,
        Some(json!({
            "name": wanted.name, "issuer": ISSUER, "subject": "system:serviceaccount:team:app", "audiences": [AUDIENCE],
        }))
    );
    let update = application.write(&Write::Update(wanted.clone()));
    assert_eq!((update.method, update.body), (Method::Patch, Some(json!({"audiences": [AUDIENCE]}))));
    let put = managed.write(&Write::Create(wanted.clone()));
    assert_eq!(put.method, Method::Put);
    let name = &wanted.name;
    assert_eq!(put.path, format!("{RESOURCE}/federatedIdentityCredentials/{name}?api-version=2024-11-30"));
    let delete = managed.write(&Write::Delete("one".to_owned()));
    assert_eq!((delete.method, delete.body), (Method::Delete, None));
}

#[test]
fn an_identity_is_found_by_what_graph_says_of_its_client_id() {
    let application =
        json!({"id": OBJECT, "appId": OBJECT, "@odata.type": "#microsoft.graph.agentIdentityBlueprint"});
    let found = Holder::of_application(&application);
    assert_eq!(found, Some(Holder::Application { object_id: OBJECT.to_owned(), is_blueprint: true }));
    let managed =
        json!({"servicePrincipalType": "ManagedIdentity", "alternativeNames": ["isExplicit=True", RESOURCE]});
    assert!(matches!(Holder::of_principal(&managed), Ok(Holder::ManagedIdentity(id)) if id.name() == "app"));
    let system = json!({"servicePrincipalType": "ManagedIdentity", "alternativeNames": ["isExplicit=False",
        "/subscriptions/0b1f2f2c-6a1e-4d53-9f7e-5f0a7c9d3e11/resourcegroups/team/providers/Microsoft.Compute/virtualMachines/vm"]});
    assert_eq!(Holder::of_principal(&system), Err(NoHolder::SystemAssigned));
    let agent = json!({"@odata.type": "#microsoft.graph.agentIdentity", "agentIdentityBlueprintId": OBJECT});
    assert_eq!(Holder::of_principal(&agent), Err(NoHolder::AgentIdentity { blueprint: OBJECT.to_owned() }));
    assert_eq!(Holder::of_principal(&json!({"servicePrincipalType": "Application"})), Err(NoHolder::Foreign));
}

#[test]
fn a_resource_id_cannot_lead_elsewhere() {
    for text in [
        "",
        "/subscriptions/x",
        &RESOURCE.replace("team", ".."),
        &RESOURCE.replace("/app", "/app?x=1"),
        &RESOURCE.replace("/app", "/a/b"),
        &RESOURCE.replace("userAssignedIdentities", "systemAssignedIdentities"),
    ] {
        assert!(text.parse::<ResourceId>().is_err(), "{text}");
    }
}

#[test]
fn an_error_means_again_look_or_stop() {
    let error = |status, code: &str, message: &str| {
        let body = json!({"error": {"code": code, "message": message, "innerError": {"request-id": "R"}}});
        ServiceError::of(status, Some(9), body.to_string().as_bytes())
    };
    for status in [429, 503] {
        let message = format!("status {status}, Busy, until noon (request R)");
        let busy = ServiceAnswer::Busy { retry_after: Some(SignedDuration::from_secs(9)), message };
        assert_eq!(error(status, "Busy", "until noon").answer(), busy);
    }
    for (status, code, message) in [
        (
            409,
            "Request_MultipleObjectsWithSameKeyValue",
            "FederatedIdentityCredential with name x already exists.",
        ),
        (409, "ConcurrentFederatedIdentityCredentialsWritesForSingleManagedIdentity", "Too many"),
        (400, "InvalidFederatedIdentityCredentialValue", "Issuer and subject combination already exists."),
        (404, "Request_ResourceNotFound", "Object with id x not found"),
    ] {
        assert!(matches!(error(status, code, message).answer(), ServiceAnswer::Conflict { .. }), "{code}");
    }
    let refused = error(403, "Authorization_RequestDenied", "Insufficient privileges.");
    let message = "status 403, Authorization_RequestDenied, Insufficient privileges. (request R)".to_owned();
    assert_eq!(refused.answer(), ServiceAnswer::Refused { message, hint: refused.hint() });
    assert!(refused.hint().expect("a hint").contains("Application.ReadWrite.OwnedBy"));
    assert!(error(400, "AgentBlueprint_NotSupportedOnApiVersion", "").wants_beta());
    for body in ["", "<html>", "[]", "{\"error\": 7}"] {
        assert!(!ServiceError::of(400, None, body.as_bytes()).in_words().is_empty(), "{body}");
    }
}
