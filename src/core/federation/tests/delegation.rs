//! What agents need to act on behalf of users.

use serde_json::{Value, json};

use super::super::delegation::{ACCESS_AS_USER, Consent, consent, offer_to_users};

const BLUEPRINT: &str = "0b1f2f2c-6a1e-4d53-9f7e-5f0a7c9d3e11";

fn applied(application: &Value, change: &Value) -> Value {
    let mut application = application.clone();
    for (name, value) in change.as_object().expect("members") {
        application[name] = value.clone();
    }
    application
}

#[test]
fn a_blueprint_gets_what_it_lacks_and_keeps_what_it_has() {
    let other = json!({"id": "1", "value": "other", "isEnabled": true});
    let bare = json!({
        "id": "ID", "appId": BLUEPRINT, "identifierUris": ["api://mine"], "api": {"oauth2PermissionScopes": [other]},
    });
    let step = offer_to_users(&bare).expect("it lacks both");
    assert_eq!(
        step.does,
        [format!("identifier URI `api://{BLUEPRINT}`"), format!("scope `{ACCESS_AS_USER}`")]
    );
    let change = step.request.body.expect("a change");
    assert_eq!(change["identifierUris"], json!(["api://mine", format!("api://{BLUEPRINT}")]));
    assert_eq!(change["api"]["oauth2PermissionScopes"][0], other);
    let again = offer_to_users(&bare).expect("it lacks both").request.body;
    assert_eq!(again.as_ref(), Some(&change), "the id of the scope is the same whenever it is made");
    let done = applied(&bare, &change);
    assert_eq!(offer_to_users(&done), None);

    let mut disabled = done;
    disabled["api"]["oauth2PermissionScopes"][1]["isEnabled"] = json!(false);
    let change = offer_to_users(&disabled).expect("it is disabled").request.body.expect("a change");
    assert!(change.get("identifierUris").is_none());
    assert_eq!(offer_to_users(&applied(&disabled, &change)), None);
}

#[test]
fn a_consent_is_extended_and_never_narrowed() {
    let wanted = |scopes: &[&str], user: Option<&str>| Consent {
        client: "agent".to_owned(),
        resource: "graph".to_owned(),
        scopes: scopes.iter().map(|it| (*it).to_owned()).collect(),
        user: user.map(str::to_owned),
    };
    let grant = json!({
        "id": "G", "clientId": "agent", "resourceId": "graph", "consentType": "AllPrincipals", "principalId": null,
        "scope": " Mail.Read User.Read",
    });
    let grants = [grant];
    assert_eq!(consent(&wanted(&["User.Read"], None), &grants), None);
    let step = consent(&wanted(&["User.Read", "Files.Read"], None), &grants).expect("one is missing");
    assert_eq!(step.request.path, "/oauth2PermissionGrants/G");
    assert_eq!(step.request.body, Some(json!({"scope": "Files.Read Mail.Read User.Read"})));
    assert_eq!(step.does, ["scope `Files.Read`"]);
    let step = consent(&wanted(&["User.Read"], Some("person")), &grants).expect("not for this user");
    assert_eq!(step.request.body.expect("a body")["principalId"], "person");
}
