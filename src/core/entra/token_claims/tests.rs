use base64ct::{Base64UrlUnpadded, Encoding as _};
use serde_json::json;

use super::*;
use crate::core::entra::encoded_guid;

const TENANT: &str = "aaaaaaaa-aaaa-4aaa-8aaa-aaaaaaaaaaaa";
const BLUEPRINT: &str = "44444444-4444-4444-8444-444444444444";
const AGENT: &str = "11111111-1111-4111-8111-111111111111";

fn words(leg: Leg, claims: &Value) -> Vec<ClaimInWords> {
    let part = |value: &Value| Base64UrlUnpadded::encode_string(value.to_string().as_bytes());
    let token = format!("{}.{}.AAAA", part(&json!({"alg": "RS256"})), part(claims));
    let client_id = if leg == Leg::Blueprint { BLUEPRINT } else { AGENT };
    let asked = Asked { leg, client_id, tenant: TENANT, blueprint: BLUEPRINT, agent: Some(AGENT) };
    claims_in_words(&UnverifiedToken::parse(&token).expect("a token"), &asked)
}

fn unexpected(leg: Leg, claims: &Value) -> Vec<&'static str> {
    words(leg, claims).iter().filter(|it| it.expected.is_some()).map(|it| it.name).collect()
}

fn t1() -> Value {
    let [tenant, blueprint] = [TENANT, BLUEPRINT].map(|id| encoded_guid(id).expect("a GUID"));
    json!({
        "aud": TOKEN_EXCHANGE, "tid": TENANT, "azp": BLUEPRINT, "idtyp": "app",
        "sub": format!("/eid1/c/pub/t/{tenant}/a/{blueprint}/{AGENT}"),
    })
}

fn changed(mut claims: Value, name: &str, value: &str) -> Value {
    claims[name] = json!(value);
    claims
}

/// Microsoft, agent token claims.
#[test]
fn the_tokens_of_each_step_are_as_they_should_be() {
    assert_eq!(unexpected(Leg::Blueprint, &t1()), [""; 0]);
    let told = words(Leg::Blueprint, &t1());
    let subject = told.iter().find(|it| it.name == "sub").expect("it is there");
    assert_eq!(subject.meaning, format!("tenant {TENANT}, application {BLUEPRINT}, for {AGENT}"));

    let graph = "https://graph.microsoft.com";
    let t2 = json!({
        "aud": graph, "tid": TENANT, "appid": AGENT, "idtyp": "app", "sub": AGENT, "xms_act_fct": "3 9 11",
        "xms_sub_fct": "9 11", "xms_par_app_azp": BLUEPRINT, "roles": ["Mail.Read"],
    });
    assert_eq!(unexpected(Leg::Agent, &t2), [""; 0]);
    let of_user = changed(changed(t2.clone(), "idtyp", "user"), "xms_sub_fct", "3");
    assert_eq!(unexpected(Leg::OnBehalfOf, &of_user), [""; 0]);
    assert_eq!(unexpected(Leg::AgentUser, &changed(of_user.clone(), "xms_sub_fct", "3 13")), [""; 0]);

    assert_eq!(unexpected(Leg::AgentUser, &of_user), ["xms_sub_fct"]);
    assert_eq!(unexpected(Leg::Agent, &of_user), ["idtyp", "xms_sub_fct"]);
    assert_eq!(unexpected(Leg::Agent, &changed(t2.clone(), "appid", BLUEPRINT)), ["appid"]);
    assert_eq!(unexpected(Leg::Agent, &changed(t2.clone(), "xms_par_app_azp", AGENT)), ["xms_par_app_azp"]);
    assert_eq!(unexpected(Leg::Agent, &changed(t2, "xms_act_fct", "111")), ["xms_act_fct"]);
    assert_eq!(unexpected(Leg::Blueprint, &changed(t1(), "aud", graph)), ["aud"]);
    let other = t1()["sub"].as_str().expect("text").replace(AGENT, BLUEPRINT);
    assert_eq!(unexpected(Leg::Blueprint, &changed(t1(), "sub", &other)), ["sub"]);
}

#[test]
fn claims_that_are_not_there_are_not_told() {
    assert_eq!(words(Leg::Agent, &json!({})), []);
}
