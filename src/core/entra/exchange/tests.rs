use std::collections::BTreeMap;

use super::*;

const BLUEPRINT: &str = "44444444-4444-4444-8444-444444444444";
const AGENT: &str = "11111111-1111-4111-8111-111111111111";

fn exchange(flow: Flow) -> Exchange {
    Exchange {
        cloud: Cloud::Public,
        authority: "https://login.microsoftonline.com".to_owned(),
        tenant: "tenant".to_owned(),
        client_id: BLUEPRINT.to_owned(),
        scope: "https://graph.microsoft.com/.default".to_owned(),
        flow,
    }
}

/// The forms of an exchange, with names for the tokens.
fn forms(flow: Flow) -> Vec<BTreeMap<&'static str, String>> {
    let steps = exchange(flow).steps();
    let named = |of| match of {
        TokenOf::ServiceAccount => "SA",
        TokenOf::User => "USER",
        TokenOf::RefreshOf(_) => "REFRESH",
        TokenOf::Step(0) => "T1",
        TokenOf::Step(1) => "T2",
        TokenOf::Step(_) => "FRESH T1",
    };
    let owned = |(name, value): (&'static str, &str)| (name, value.to_owned());
    steps.iter().map(|step| step.form(named).into_iter().map(owned).collect()).collect()
}

fn form(fields: &[(&'static str, &str)]) -> BTreeMap<&'static str, String> {
    let assertion = ("client_assertion_type", ASSERTION_TYPE);
    fields.iter().chain([&assertion]).map(|(name, value)| (*name, (*value).to_owned())).collect()
}

fn t1() -> BTreeMap<&'static str, String> {
    form(&[
        ("grant_type", "client_credentials"),
        ("client_id", BLUEPRINT),
        ("client_assertion", "SA"),
        ("scope", "api://AzureADTokenExchange/.default"),
        ("fmi_path", AGENT),
    ])
}

/// As recorded: msal for Python 1.39.0.
#[test]
fn each_form_is_that_of_microsofts_library() {
    let agent = || AGENT.to_owned();
    let own = form(&[
        ("grant_type", "client_credentials"),
        ("client_id", BLUEPRINT),
        ("client_assertion", "SA"),
        ("scope", "https://graph.microsoft.com/.default"),
    ]);
    assert_eq!(forms(Flow::Workload), [own]);
    assert_eq!(forms(Flow::Blueprint { agent: agent() }), [t1()]);
    let t2 = |scope| {
        form(&[
            ("grant_type", "client_credentials"),
            ("client_id", AGENT),
            ("client_assertion", "T1"),
            ("scope", scope),
        ])
    };
    assert_eq!(forms(Flow::Agent { agent: agent() }), [t1(), t2("https://graph.microsoft.com/.default")]);
    let obo = form(&[
        ("grant_type", "urn:ietf:params:oauth:grant-type:jwt-bearer"),
        ("client_id", AGENT),
        ("client_assertion", "T1"),
        ("assertion", "USER"),
        ("requested_token_use", "on_behalf_of"),
        ("scope", "https://graph.microsoft.com/.default openid offline_access profile"),
        ("client_info", "1"),
    ]);
    let on_behalf_of = |refresh| forms(Flow::OnBehalfOf { agent: Some(agent()), refresh });
    assert_eq!(on_behalf_of(false), [t1(), obo.clone()]);
    let refresh = form(&[
        ("grant_type", "refresh_token"),
        ("client_id", AGENT),
        ("client_assertion", "FRESH T1"),
        ("refresh_token", "REFRESH"),
        ("scope", "https://graph.microsoft.com/.default openid offline_access profile"),
        ("client_info", "1"),
    ]);
    assert_eq!(on_behalf_of(true), [t1(), obo, t1(), refresh]);
    for (user, name, value) in [
        (UserId::Name("agent@team.example".to_owned()), "username", "agent@team.example"),
        (UserId::ObjectId(BLUEPRINT.to_owned()), "user_id", BLUEPRINT),
    ] {
        let last = form(&[
            ("grant_type", "user_fic"),
            ("client_id", AGENT),
            ("client_assertion", "T1"),
            ("user_federated_identity_credential", "T2"),
            (name, value),
            ("scope", "https://graph.microsoft.com/.default openid offline_access profile"),
            ("client_info", "1"),
        ]);
        let t2 = t2("api://AzureADTokenExchange/.default");
        assert_eq!(forms(Flow::AgentUser { agent: agent(), user }), [t1(), t2, last]);
    }
}

#[test]
fn the_cloud_names_the_exchange() {
    let exchange = Exchange { cloud: Cloud::China, ..exchange(Flow::Blueprint { agent: AGENT.to_owned() }) };
    assert_eq!(exchange.steps()[0].scope, "api://AzureADTokenExchangeChina/.default");
    assert_eq!(exchange.endpoint(), "https://login.microsoftonline.com/tenant/oauth2/v2.0/token");
}

/// No step needs a token that comes later, and none is kept as evidence.
#[test]
fn a_step_needs_only_what_is_there() {
    let agent = || AGENT.to_owned();
    for flow in [
        Flow::Workload,
        Flow::Blueprint { agent: agent() },
        Flow::Agent { agent: agent() },
        Flow::OnBehalfOf { agent: None, refresh: true },
        Flow::OnBehalfOf { agent: Some(agent()), refresh: true },
        Flow::AgentUser { agent: agent(), user: UserId::Name("agent".to_owned()) },
    ] {
        let exchange = exchange(flow);
        for (number, step) in exchange.steps().iter().enumerate() {
            assert!(step.tokens.iter().all(|(_, of)| *of < TokenOf::Step(number)), "{step:?}");
            let request = exchange.request(step, "secret");
            assert_eq!(request.leg(exchange.agent() == Some(step.client_id.as_str())), leg_of(step));
            assert!(!format!("{request:?}").contains("secret"));
        }
    }
}

/// A token for a further exchange looks like that of a blueprint.
fn leg_of(step: &Step) -> Leg {
    if step.scope.starts_with("api://AzureADTokenExchange") { Leg::Blueprint } else { step.leg }
}
