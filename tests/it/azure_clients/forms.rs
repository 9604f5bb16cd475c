//! `signpost exchange` sends what the libraries of Microsoft send, and is told what they are told.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::{Clients, SCOPE, request};
use crate::exchange::{AGENT, AUDIENCE, BLUEPRINT, Stage, UPN, USER, WORKLOAD, user_token};

/// The fields of a form; of a token only its name.
type Form = BTreeMap<String, Value>;

/// What the libraries add to scopes.
const OPENID: &str = "openid offline_access profile";
const CLIENT_CREDENTIALS: &str = "client_credentials";

/// How a flow is asked for: of the libraries, and of `signpost exchange` beside the agent.
type Asked<'a> = (Value, &'a [&'a str]);

/// The forms that the twin was sent since the last call. Scopes are words in any order; what a library tells of
/// itself is left out.
fn forms(stage: &Stage) -> Vec<Form> {
    let told = |name: &str| {
        name.starts_with("x-client-") || name == "x-ms-lib-capability" || name == "client-request-id"
    };
    let read = |request: Value| {
        let form = request["form"].as_object()?.clone();
        let kept = form.into_iter().filter(|(name, _)| !told(&name.to_ascii_lowercase()));
        let words = |(name, value): (String, Value)| match value.as_str() {
            Some(text) if name == "scope" => {
                let words: BTreeSet<_> = text.split_ascii_whitespace().collect();
                (name, json!(words))
            }
            _ => (name, value),
        };
        Some(kept.map(words).collect())
    };
    stage.twin.requests().into_iter().filter_map(read).collect()
}

/// What a library sends where `signpost exchange` sends `form`.
fn of(library: &str, mut form: Form) -> Form {
    if form["grant_type"] != CLIENT_CREDENTIALS {
        return form;
    }
    // Users' tokens need both, and some libraries ask for both at any time.
    if matches!(library, "msal" | "msal-go" | "azidentity") {
        form.insert("client_info".to_owned(), json!("1"));
    }
    if matches!(library, "msal-go" | "azidentity") {
        let words = form["scope"].as_array().expect("words").iter().filter_map(Value::as_str);
        let words: BTreeSet<_> = words.chain(OPENID.split(' ')).collect();
        form.insert("scope".to_owned(), json!(words));
    }
    form
}

#[test]
fn an_exchange_sends_the_forms_of_the_libraries() {
    let stage = Stage::set();
    let user_token = stage.write("user", &user_token(BLUEPRINT));
    let mut clients = Clients::start(&stage.twin);
    let token = stage.token(AUDIENCE);
    let flows: [Asked; 5] = [
        (json!({"flow": "workload"}), &["workload"]),
        (json!({"flow": "agent"}), &["agent"]),
        (json!({"flow": "on-behalf-of"}), &["on-behalf-of", "--user-token", &user_token]),
        (json!({"flow": "agent-user", "username": UPN}), &["agent-user", "--username", UPN]),
        (json!({"flow": "agent-user", "user_id": USER}), &["agent-user", "--user-id", USER]),
    ];
    let mut compared = 0;
    for (asked, words) in flows {
        let flow = words[0];
        let (client_id, agent) =
            if flow == "workload" { (WORKLOAD, &[][..]) } else { (BLUEPRINT, &["--agent", AGENT][..]) };
        stage.exchange(client_id, &[words, agent].concat()).expect_code(0);
        let ours = forms(&stage);
        for client in clients.all.iter_mut().filter(|client| client.library.flows.contains(&flow)) {
            let request = request(asked.clone(), &token, &clients.folder);
            assert_eq!(client.ask(&request).0, None, "{request}");
            let name = client.library.name;
            let expected: Vec<_> = ours.iter().map(|form| of(name, form.clone())).collect();
            assert_eq!(forms(&stage), expected, "{name}, {asked}");
            compared += expected.len();
        }
    }
    // Of six libraries one leg, of three the legs of agents.
    assert_eq!(compared, 6 + 3 * (2 + 2 + 3 + 3));
}

#[test]
fn an_exchange_is_told_the_code_that_the_libraries_are_told() {
    let stage = Stage::set();
    let mut clients = Clients::start(&stage.twin);
    let token = stage.token(AUDIENCE);
    let refusal = |client_id, words: &[&str]| {
        let words = [words, &["--scope", SCOPE, "--output", "json"]].concat();
        let told = stage.exchange(client_id, &words).expect_code(1).stdout;
        let told: Value = serde_json::from_str(&told).expect("JSON");
        let steps = told["steps"].as_array().expect("steps");
        steps.last().expect("a step")["error"]["code"].as_str().expect("a code").to_owned()
    };
    stage.twin.replace(&Stage::directory(stage.folder.path(), "system:serviceaccount:team:app"));
    let [workload, blueprint] =
        [refusal(WORKLOAD, &["workload"]), refusal(BLUEPRINT, &["agent", "--agent", AGENT])];
    assert_eq!([&workload, &blueprint], ["AADSTS700213"; 2]);
    for (client, flow, code) in clients.ask(&stage.twin, &token) {
        let expected = if flow == "workload" { &workload } else { &blueprint };
        let code = code.map(|code| format!("AADSTS{code}"));
        assert_eq!(code.as_ref(), Some(expected), "{client}, {flow}");
    }
}
