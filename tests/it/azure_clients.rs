//! The libraries of Microsoft get tokens from the twin of Entra, with tokens of a real cluster whose documents
//! Signpost publishes: through a rotation, through a move of the issuer, and as `signpost exchange` does.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io::{self, Write as _};

use base64ct::{Base64UrlUnpadded, Encoding as _};
use serde_json::{Value, json};
use signpost::clock;
use tempfile::TempDir;

use crate::exchange::{AGENT, AUDIENCE, BLUEPRINT, Stage, TENANT, UPN, WORKLOAD, tenants, user_token};
use crate::support::api_server::{ApiServer, Options};
use crate::support::azure_client::{AzureClient, LIBRARIES};
use crate::support::clock::Clock;
use crate::support::config_map::ConfigMap;
use crate::support::entra_twin::{Endpoint, EntraTwin, PUBLIC_CLOUD};
use crate::support::etcd::Etcd;
use crate::support::installation::{Installation, JWKS, Service, api_server};
use crate::support::pki::KeyFiles;
use crate::support::relying_party::RelyingParty;
use crate::support::tunnel::Tunnel;
use crate::two_signers::{MAP, Node};

mod forms;
mod management;

const OLD: &str = "https://oidc.example/cluster";
const NEW: &str = "https://oidc.new.example/c2";
const SUBJECT: &str = "system:serviceaccount:shop:till";
const SCOPE: &str = "https://graph.microsoft.com/.default";

/// All clients, and the proxy through which they reach the twin.
struct Clients {
    all: Vec<AzureClient>,
    tunnel: Tunnel,
    folder: TempDir,
    figures: BTreeMap<&'static str, Figures>,
}

/// What a client has cost.
#[derive(Default)]
struct Figures {
    tokens: usize,
    /// As the twin has seen them.
    requests: usize,
    seconds: f64,
}

impl Clients {
    fn start(twin: &EntraTwin) -> Self {
        let tunnel = Tunnel::to(&twin.address());
        let all = LIBRARIES.iter().map(|library| AzureClient::start(library, twin, &tunnel)).collect();
        let folder = TempDir::new().expect("a temporary folder");
        Self { all, tunnel, folder, figures: BTreeMap::new() }
    }

    /// Each client walks each of its flows with this token. Returns the codes of refusals.
    fn ask(&mut self, twin: &EntraTwin, token: &str) -> Vec<(&'static str, &'static str, Option<u64>)> {
        let mut answers = Vec::new();
        for client in &mut self.all {
            for flow in client.library.flows {
                let (code, seconds) =
                    client.ask(&request(json!({"flow": flow, "username": UPN}), token, &self.folder));
                let figures = self.figures.entry(client.library.name).or_default();
                figures.tokens += 1;
                figures.requests += twin.requests().len();
                figures.seconds += seconds;
                answers.push((client.library.name, *flow, code));
            }
        }
        answers
    }

    #[track_caller]
    fn all_accept(&mut self, when: &str, twin: &EntraTwin, token: &str) {
        twin.set_time(clock::now().as_second());
        for (client, flow, code) in self.ask(twin, token) {
            assert_eq!(code, None, "{when}: {client}, {flow}");
        }
    }

    /// Shows what each has cost. None has connected to another host.
    fn finish(self, what: &str) {
        let (connected, public) = (self.tunnel.seen(), format!("CONNECT {PUBLIC_CLOUD}:443 "));
        assert!(connected.iter().all(|head| head.starts_with(&public)), "{connected:?}");
        let mut text = format!("\nlibraries of Microsoft through {what}\n");
        for client in &self.all {
            let Figures { tokens, requests, seconds } = self.figures[client.library.name];
            let started = client.started.as_secs_f64();
            writeln!(
                text,
                "  {:16} {:7} started in {started:.2} s, {tokens} tokens in {seconds:.2} s, {requests} requests",
                client.library.name, client.version
            )
            .expect("a string can be written");
        }
        show(&text);
    }
}

/// A request of a client for this flow and user, with its tokens in files.
fn request(mut of: Value, token: &str, folder: &TempDir) -> Value {
    let write = |name: &str, text: &str| {
        let file = folder.path().join(name);
        fs::write(&file, text).expect("the folder can be written");
        file
    };
    of["client_id"] = json!(if of["flow"] == "workload" { WORKLOAD } else { BLUEPRINT });
    of["tenant"] = json!(TENANT);
    of["agent"] = json!(AGENT);
    of["scope"] = json!(SCOPE);
    of["token_file"] = json!(write("token", token));
    of["user_token_file"] = json!(write("user", &user_token(BLUEPRINT)));
    of
}

fn kid(token: &str) -> String {
    let header = token.split('.').next().expect("a header");
    let header = Base64UrlUnpadded::decode_vec(header).expect("base64url");
    let header: Value = serde_json::from_slice(&header).expect("JSON");
    header["kid"].as_str().expect("a kid").to_owned()
}

/// The twin trusts this issuer, and keeps for an hour what it has read of the service.
fn directory(issuer: &str, service: &Service) -> Value {
    let served = format!("http://{}", service.address());
    json!({
        "now": clock::now().as_second(), "jwks_seconds": 3600,
        "internet": {"oidc.example": served, "oidc.new.example": served},
        "tenants": tenants(issuer, SUBJECT),
    })
}

#[test]
fn the_libraries_get_tokens_through_a_rotation() {
    let (etcd, folder, clock) = (Etcd::start(), TempDir::new().expect("a temporary folder"), Clock::right());
    let waits = "margin: 1s, rotate_after: 720h";
    let node = Node::start_by(&clock, "node-1", OLD, waits, &etcd, folder.path());
    node.server.create_namespace("shop");
    node.server.create_service_account("shop", "till");
    let map = ConfigMap::in_new_namespace(&node.server, MAP);
    let settings = json!({
        "jwks_max_age": "1s", "propagation": "2s", "margin": "1s", "rotate_after": "720h", "max_token_lifetime": "10m",
        "sources": [node.source(), {"kind": "announcements", "every": "1s"}],
        "ledger": {"config_map": map.reference(), "kubeconfig": node.kubeconfig},
    });
    let installation = Installation::new(OLD, &settings);
    let mut service = installation.run_until_ready();
    service.until("the node signs for others", |_| node.request(AUDIENCE).status == 201);
    let next = node.signer.standby();
    service.until("the next key is public", |service| service.get(JWKS).text().contains(&next));
    let twin = EntraTwin::start_with(&directory(OLD, &service));
    let mut clients = Clients::start(&twin);

    let before = token(&node.server);
    clients.all_accept("before the rotation", &twin, &before);
    installation.finish(["rotate", "start"]).expect_code(0);
    service.until("the node signs with its next key", |_| node.signer.signing() != kid(&before));
    let after = token(&node.server);
    assert_eq!(kid(&after), next);
    clients.all_accept("with the new key", &twin, &after);
    clients.all_accept("with the old key", &twin, &before);
    clients.finish("a rotation");
}

#[test]
fn the_libraries_get_tokens_through_a_move() {
    let folder = TempDir::new().expect("a temporary folder");
    let (etcd, key) = (Etcd::start(), KeyFiles::rsa(folder.path(), "sa"));
    let mut server = ApiServer::start(&etcd, Options::new(OLD, &key));
    server.create_namespace("shop");
    server.create_service_account("shop", "till");
    let kubeconfig = folder.path().join("kubeconfig");
    server.admin_kubeconfig(&kubeconfig);
    let mut settings = json!({"sources": [api_server(&kubeconfig)]});
    let mut installation = Installation::new(OLD, &settings);
    let service = installation.run_until_ready();
    let twin = EntraTwin::start_with(&directory(OLD, &service));
    let mut clients = Clients::start(&twin);
    let before = token(&server);
    service.stop().expect_code(0);

    installation.rename(NEW);
    settings["previous_issuers"] = json!([{"issuer": OLD}]);
    installation.configure(&settings);
    let service = installation.run_until_ready();
    let both = [NEW, OLD].map(str::to_owned).to_vec();
    server.restart_with(Options { issuers: both, ..Options::new(OLD, &key) });
    let after = token(&server);
    twin.replace(&directory(OLD, &service));
    clients.all_accept("with a token from before the move", &twin, &before);
    let refused = clients.ask(&twin, &after);
    assert!(refused.iter().all(|(_, _, code)| *code == Some(700_211)), "{refused:?}");
    twin.replace(&directory(NEW, &service));
    clients.all_accept("with the new issuer", &twin, &after);
    clients.finish("a move");
}

#[test]
fn the_twin_names_a_user_in_a_token_of_its_own_key() {
    let stage = Stage::set();
    let address = stage.twin.address();
    let (assertion, user) = (stage.token(AUDIENCE), user_token(WORKLOAD));
    let form = [
        ("client_id", WORKLOAD),
        ("grant_type", "urn:ietf:params:oauth:grant-type:jwt-bearer"),
        ("requested_token_use", "on_behalf_of"),
        ("scope", "https://graph.microsoft.com/.default openid offline_access profile"),
        ("client_info", "1"),
        ("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"),
        ("client_assertion", &assertion),
        ("assertion", &user),
    ];
    let answer = stage.twin.ask(&Endpoint { host: &address, tenant: TENANT, query: "" }, &form);
    let answer = answer.expect_status(200).json();
    assert!(answer["client_info"].is_string());
    let issuer = format!("http://{address}/{TENANT}/v2.0");
    let id_token = answer["id_token"].as_str().expect("a token");
    let claims = RelyingParty::GoOidc.verify(&issuer, WORKLOAD, None, id_token).expect("its keys are served");
    assert_eq!(claims["tid"], TENANT);
}

fn token(server: &ApiServer) -> String {
    server.token("shop", "till", &[AUDIENCE], 600)
}

/// Shows figures even if the test succeeds, when output is captured.
fn show(figures: &str) {
    // Nobody may be reading.
    drop(io::stderr().write_all(figures.as_bytes()));
}
