//! Predictions beside the answers of the twin, step by step: the later steps of agents and users included.
//!
//! What Entra issued itself, and what was granted, is not in evidence: there a prediction may be open, but never
//! accepted where the twin refuses.

use std::collections::BTreeMap;

use base64ct::{Base64UrlUnpadded, Encoding as _};
use serde_json::{Value, json};
use signpost::{
    app::{
        evidence::Documents,
        exchange::{Known, StepOutcome, Tokens, Walk, walk},
    },
    clock,
    core::{
        entra::{Cloud, Exchange, Flow, Identity, TokenOf, UserId},
        jose::token::Token,
        verification::{Agreement, DocumentEvidence, VerificationOutcome},
    },
};

use super::situation::{Keys, Situation};
use crate::support::entra_twin::{EntraTwin, TENANT};

const APPLICATION: &str = "85075aa5-1d73-42de-812a-95348218e4b2";
const BLUEPRINT: &str = "0b1f2f2c-6a1e-4d53-9f7e-5f0a7c9d3e11";
const AGENT: &str = "3f0e5a7b-9c1d-4e2f-8a6b-7d4c2e1f0a99";
const USER: &str = "c7b1f0de-2a48-4c39-9d6e-51a0f3e2d897";
const NOBODY: &str = "9c1f2e3d-0000-4000-8000-000000000000";
const USER_NAME: &str = "agent@team.example";

/// What one exchange is made of.
struct Stage {
    exchange: Exchange,
    /// The clients of the tenant, by id.
    clients: BTreeMap<&'static str, Value>,
    resources: Value,
    user: Value,
    /// In place of the user's token.
    user_text: Option<&'static str>,
}

/// A name, what is not as it should be, and the twin's answer: the step that it refuses, from 1, and the code.
type Case = (&'static str, fn(&mut Stage), Option<(usize, u32)>);

fn agent() -> String {
    AGENT.to_owned()
}

impl Stage {
    fn client(&mut self, id: &str, member: &str, value: Value) {
        self.clients.get_mut(id).expect("it is a client")[member] = value;
    }

    fn flows(&mut self, flow: Flow) {
        let client = if matches!(flow, Flow::Workload | Flow::OnBehalfOf { agent: None, .. }) {
            APPLICATION
        } else {
            BLUEPRINT
        };
        client.clone_into(&mut self.exchange.client_id);
        self.user["aud"] = json!(client);
        self.exchange.flow = flow;
    }

    fn as_agent(&mut self) {
        self.flows(Flow::Agent { agent: agent() });
    }

    fn for_user(&mut self) {
        self.flows(Flow::OnBehalfOf { agent: Some(agent()), refresh: false });
    }

    fn as_agent_user(&mut self, user: &str) {
        let is_name = user.contains('@');
        let user = if is_name { UserId::Name(user.to_owned()) } else { UserId::ObjectId(user.to_owned()) };
        self.flows(Flow::AgentUser { agent: agent(), user });
    }
}

const CASES: &[Case] = &[
    ("a workload", |it| it.flows(Flow::Workload), None),
    (
        "a workload without credentials",
        |it| {
            it.flows(Flow::Workload);
            it.client(APPLICATION, "credentials", json!([]));
        },
        Some((1, 70_025)),
    ),
    (
        "a workload that is disabled",
        |it| {
            it.flows(Flow::Workload);
            it.client(APPLICATION, "enabled", json!(false));
        },
        Some((1, 7_000_112)),
    ),
    ("T1", |it| it.flows(Flow::Blueprint { agent: agent() }), None),
    (
        "T1 of a disabled blueprint",
        |it| {
            it.flows(Flow::Blueprint { agent: agent() });
            it.client(BLUEPRINT, "enabled", json!(false));
        },
        Some((1, 7_000_112)),
    ),
    (
        "T1 of a blueprint without credentials",
        |it| {
            it.flows(Flow::Blueprint { agent: agent() });
            it.client(BLUEPRINT, "credentials", json!([]));
        },
        Some((1, 70_025)),
    ),
    ("T2", Stage::as_agent, None),
    (
        "T2 of a disabled agent",
        |it| {
            it.as_agent();
            it.client(AGENT, "enabled", json!(false));
        },
        Some((2, 7_000_112)),
    ),
    (
        "T2 of an agent without a principal",
        |it| {
            it.as_agent();
            it.client(AGENT, "service_principal", json!(false));
        },
        Some((2, 7_000_229)),
    ),
    (
        "T2 of another blueprint's agent",
        |it| {
            it.as_agent();
            it.client(AGENT, "blueprint", json!(NOBODY));
        },
        Some((2, 7_002_134)),
    ),
    ("T2 of nobody", |it| it.flows(Flow::Agent { agent: NOBODY.to_owned() }), Some((2, 700_016))),
    (
        "T2 of an application",
        |it| it.flows(Flow::Agent { agent: APPLICATION.to_owned() }),
        Some((2, 700_211)),
    ),
    (
        "T2 of the blueprint itself",
        |it| it.flows(Flow::Agent { agent: BLUEPRINT.to_owned() }),
        Some((2, 7_002_111)),
    ),
    (
        "T2 for a scope that is no default",
        |it| {
            it.as_agent();
            "https://graph.microsoft.com/User.Read".clone_into(&mut it.exchange.scope);
        },
        Some((2, 1_002_012)),
    ),
    (
        "T2 for an unknown resource",
        |it| {
            it.as_agent();
            "https://nobody.example/.default".clone_into(&mut it.exchange.scope);
        },
        Some((2, 500_011)),
    ),
    ("on behalf of a user", Stage::for_user, None),
    (
        "on behalf of a user, refreshed",
        |it| it.flows(Flow::OnBehalfOf { agent: Some(agent()), refresh: true }),
        None,
    ),
    (
        "on behalf of a user, by the application",
        |it| it.flows(Flow::OnBehalfOf { agent: None, refresh: false }),
        None,
    ),
    (
        "on behalf of a user, by the application, refreshed",
        |it| it.flows(Flow::OnBehalfOf { agent: None, refresh: true }),
        None,
    ),
    (
        "the user's token is for another application",
        |it| {
            it.for_user();
            it.user["aud"] = json!(NOBODY);
        },
        Some((2, 500_131)),
    ),
    (
        "the user's token is for the agent",
        |it| {
            it.for_user();
            it.user["aud"] = json!(AGENT);
        },
        Some((2, 500_131)),
    ),
    (
        "the user's token is for Graph",
        |it| {
            it.for_user();
            it.user["aud"] = json!("https://graph.microsoft.com");
        },
        Some((2, 50_013)),
    ),
    (
        "the user's token has expired",
        |it| {
            it.for_user();
            it.user["exp"] = json!(clock::now().as_second() - 60);
        },
        Some((2, 500_133)),
    ),
    (
        "the user's token is not valid yet",
        |it| {
            it.for_user();
            it.user["nbf"] = json!(clock::now().as_second() + 600);
        },
        Some((2, 500_133)),
    ),
    (
        "the user's token is of an application",
        |it| {
            it.for_user();
            it.user["scp"] = Value::Null;
            it.user["idtyp"] = json!("app");
        },
        Some((2, 7_000_114)),
    ),
    (
        "the user's token is an ID token",
        |it| {
            it.for_user();
            it.user["scp"] = Value::Null;
        },
        Some((2, 240_002)),
    ),
    (
        "the user's token is of another cloud",
        |it| {
            it.for_user();
            it.user["iss"] = json!(format!("https://login.microsoftonline.us/{TENANT}/v2.0"));
        },
        Some((2, 900_382)),
    ),
    (
        "the user's token is not of Entra",
        |it| {
            it.for_user();
            it.user["iss"] = json!("https://accounts.example");
        },
        Some((2, 50_013)),
    ),
    (
        "the user's token is none",
        |it| {
            it.for_user();
            it.user_text = Some("no.token");
        },
        Some((2, 50_013)),
    ),
    (
        "nobody consented to the agent",
        |it| {
            it.for_user();
            it.client(AGENT, "grants", json!([]));
        },
        Some((2, 65_001)),
    ),
    (
        "nobody consented to the application",
        |it| {
            it.flows(Flow::OnBehalfOf { agent: None, refresh: false });
            it.client(APPLICATION, "grants", json!([]));
        },
        Some((1, 65_001)),
    ),
    (
        "consent to the blueprint does not count",
        |it| {
            it.for_user();
            it.client(AGENT, "grants", json!([]));
            it.client(BLUEPRINT, "grants", json!(["*"]));
        },
        Some((2, 65_001)),
    ),
    (
        "the blueprint acts on behalf of a user",
        |it| {
            it.flows(Flow::OnBehalfOf { agent: None, refresh: false });
            BLUEPRINT.clone_into(&mut it.exchange.client_id);
            it.user["aud"] = json!(BLUEPRINT);
        },
        Some((1, 82_002)),
    ),
    (
        "on behalf of a user, for an unknown resource",
        |it| {
            it.for_user();
            "https://nobody.example/.default".clone_into(&mut it.exchange.scope);
            it.resources = json!(["https://graph.microsoft.com", "api://AzureADTokenExchange"]);
        },
        Some((2, 650_052)),
    ),
    (
        "on behalf of a user, by a disabled agent",
        |it| {
            it.for_user();
            it.client(AGENT, "enabled", json!(false));
        },
        Some((2, 7_000_112)),
    ),
    ("an agent user by name", |it| it.as_agent_user(USER_NAME), None),
    ("an agent user by id", |it| it.as_agent_user(USER), None),
    ("another user", |it| it.as_agent_user("person@team.example"), Some((3, 7_002_200))),
    (
        "an agent without users",
        |it| {
            it.as_agent_user(USER_NAME);
            it.client(AGENT, "agent_users", json!([]));
        },
        Some((3, 7_002_203)),
    ),
    (
        "an agent user that nobody consented for",
        |it| {
            it.as_agent_user(USER_NAME);
            it.client(AGENT, "grants", json!([]));
        },
        Some((3, 65_001)),
    ),
    (
        "an agent user of a disabled agent",
        |it| {
            it.as_agent_user(USER_NAME);
            it.client(AGENT, "enabled", json!(false));
        },
        Some((2, 7_000_112)),
    ),
    (
        "an agent user of another blueprint's agent",
        |it| {
            it.as_agent_user(USER_NAME);
            it.client(AGENT, "blueprint", json!(NOBODY));
        },
        Some((2, 7_002_134)),
    ),
    (
        "a name as the id of an agent user",
        |it| it.flows(Flow::AgentUser { agent: agent(), user: UserId::ObjectId(USER_NAME.to_owned()) }),
        Some((3, 50_000)),
    ),
];

/// A token of Entra, as far as the twin looks at one.
fn unsigned(claims: &Value) -> String {
    let part = |value: &Value| Base64UrlUnpadded::encode_string(value.to_string().as_bytes());
    format!("{}.{}.AAAA", part(&json!({"alg": "RS256", "kid": "entra"})), part(claims))
}

fn stage(situation: &Situation, twin: &EntraTwin) -> Stage {
    let trust = json!([situation.credential_of_the_token().json()]);
    let now = clock::now().as_second();
    let mut stage = Stage {
        exchange: Exchange {
            cloud: Cloud::Public,
            authority: twin.url(),
            tenant: TENANT.to_owned(),
            client_id: String::new(),
            scope: Cloud::Public.graph_scope().to_owned(),
            flow: Flow::Workload,
        },
        clients: [
            (APPLICATION, json!({"kind": "application", "credentials": trust})),
            (BLUEPRINT, json!({"kind": "blueprint", "credentials": trust})),
            (
                AGENT,
                json!({"kind": "agent-identity", "blueprint": BLUEPRINT, "agent_users": [USER_NAME, USER]}),
            ),
        ]
        .into(),
        resources: Value::Null,
        user: json!({
            "iss": format!("https://login.microsoftonline.com/{TENANT}/v2.0"), "tid": TENANT, "sub": "person",
            "scp": "access_as_user", "nbf": now - 60, "exp": now + 3000,
        }),
        user_text: None,
    };
    stage.flows(Flow::Workload);
    stage
}

/// Asks the twin as `signpost exchange` does.
async fn walked(stage: Stage, situation: &Situation<'_>, twin: &EntraTwin) -> Walk {
    let [discovery, jwks] = [&situation.discovery, &situation.jwks].map(ToString::to_string);
    let uri = situation.discovery["jwks_uri"].as_str().expect("text").to_owned();
    let mut directory = json!({
        "now": clock::now().as_second(), "tenants": {TENANT: stage.clients},
        "documents": {
            (format!("{}/.well-known/openid-configuration", situation.issuer)): {"body": discovery},
            (uri): {"body": jwks},
        },
    });
    if !stage.resources.is_null() {
        directory["resources"] = stage.resources;
    }
    twin.replace(&directory);
    let mut user = stage.user;
    user.as_object_mut().expect("claims").retain(|_, value| !value.is_null());
    let user = stage.user_text.map_or_else(|| unsigned(&user), str::to_owned);
    let tokens = Tokens { service_account: Token::new(situation.token()), user: Some(Token::new(user)) };
    let file = |bytes: String| DocumentEvidence::File { path: "file".to_owned(), bytes: bytes.into_bytes() };
    let documents = Documents::Given { discovery: file(discovery), jwks: file(jwks) };
    // The client and its credentials, as `--credentials` says it; nothing of agents and users.
    let listed =
        directory["tenants"][TENANT][&stage.exchange.client_id]["credentials"].as_array().map_or(0, Vec::len);
    let credentials =
        std::iter::repeat_with(|| situation.credential_of_the_token().credential()).take(listed);
    let client = &directory["tenants"][TENANT][&stage.exchange.client_id];
    let kind =
        if client["kind"] == "blueprint" { "agentIdentityBlueprintPrincipal" } else { "servicePrincipal" };
    let identity = json!({
        "@odata.type": format!("#microsoft.graph.{kind}"), "servicePrincipalType": "Application",
        "appId": stage.exchange.client_id, "accountEnabled": client["enabled"] != false,
    });
    let known = Known { credentials: Some(credentials.collect()), identity: Identity::of_json(&identity) };
    walk(&stage.exchange, tokens, &known, &documents, None).await.expect("the twin answers")
}

#[test]
#[expect(clippy::print_stdout, reason = "the predictions beside the answers")]
fn no_step_of_an_exchange_is_predicted_to_be_accepted_and_refused() {
    assert!(CASES.len() >= 24, "{} exchanges", CASES.len());
    let keys = Keys::generate();
    let situation = Situation::right(&keys, "exchange", clock::now().as_second());
    let twin = EntraTwin::start_with(&json!({"now": 0, "tenants": {}}));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let (mut faults, mut steps, mut told) = (Vec::new(), 0, BTreeMap::<_, usize>::new());
    for (name, change, expected) in CASES {
        let mut stage = stage(&situation, &twin);
        change(&mut stage);
        let walk = runtime.block_on(walked(stage, &situation, &twin));
        let refused = walk.steps.iter().enumerate().find_map(|(number, step)| match &step.outcome {
            StepOutcome::Refused(refusal) => Some((number + 1, refusal.code)),
            StepOutcome::Issued { .. } => None,
        });
        if refused != *expected {
            faults.push(format!("{name}: the twin answers {refused:?}, not {expected:?}"));
        }
        for (number, step) in walk.steps.iter().enumerate() {
            let (predicted, agreement) = (step.prediction.outcome, step.agreement);
            let is_refused = matches!(step.outcome, StepOutcome::Refused(_));
            let line = format!(
                "{name}, step {}: {} predicted, {} got, {agreement:?}: {:?}",
                number + 1,
                predicted.name(),
                if is_refused { "a refusal" } else { "a token" },
                step.prediction.findings.iter().map(|it| (it.id, it.predicted_codes)).collect::<Vec<_>>(),
            );
            println!("{line}");
            steps += 1;
            *told.entry(agreement).or_default() += 1;
            if matches!(agreement, Agreement::FalseGreen | Agreement::FalseRed)
                || (is_refused && predicted == VerificationOutcome::Accepted)
                // The documents of Entra itself are not read.
                || (step.step.assertion() != TokenOf::ServiceAccount && predicted == VerificationOutcome::Accepted)
            {
                faults.push(line);
            }
        }
    }
    println!("{} exchanges, {steps} steps: {told:?}", CASES.len());
    assert!(faults.is_empty(), "{} of {steps} steps:\n{}", faults.len(), faults.join("\n"));
}
