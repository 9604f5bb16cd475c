use std::{
    collections::VecDeque,
    error::Error as _,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

use axum::{Router, extract::State, response::IntoResponse};
use http::{HeaderMap, StatusCode};
use tempfile::TempDir;
use tokio::{net::TcpListener, task::JoinSet};

use super::{ApiServer, ApiServerError};
use crate::{
    core::text::Hint,
    kubernetes::{Access, KubernetesError},
};

const JWKS: &str = r#"{"keys":[{"kty":"EC","crv":"P-256","x":"H6cuzP8XuD5wal6wf9M6xDljTOPLX2i8uIp_C_ASqiI","y":"BlHnikLV9PyEd6gl8k4T_3Wwoh6xd79XLoQTh2PAi1Y"}]}"#;

/// An API server that misbehaves in ways that the real one cannot be forced to. It gives its answers in turn,
/// and then repeats the last one.
struct Scenario {
    directory: TempDir,
    seen: Arc<Mutex<Vec<String>>>,
    server: ApiServer,
    _running: JoinSet<()>,
}

type Scripted = (StatusCode, &'static str, Vec<u8>);

#[derive(Clone)]
struct Script {
    answers: Arc<Mutex<VecDeque<Scripted>>>,
    seen: Arc<Mutex<Vec<String>>>,
}

async fn answer(State(script): State<Script>, headers: HeaderMap) -> impl IntoResponse {
    let token = headers.get("authorization").map_or("none", |value| value.to_str().expect("text"));
    script.seen.lock().expect("no panic").push(token.to_owned());
    let mut answers = script.answers.lock().expect("no panic");
    let answer = answers.front().expect("a script has an answer").clone();
    if answers.len() > 1 {
        answers.pop_front();
    }
    let (status, content_type, body) = answer;
    (status, [("content-type", content_type)], body)
}

impl Scenario {
    async fn new(answers: impl IntoIterator<Item = Scripted>) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let kubeconfig = kubeconfig(directory.path(), &listener.local_addr().expect("bound").to_string());
        let seen = Arc::default();
        let answers = Arc::new(Mutex::new(answers.into_iter().collect()));
        let app = Router::new().fallback(answer).with_state(Script { answers, seen: Arc::clone(&seen) });
        let mut running = JoinSet::new();
        running.spawn(async move { axum::serve(listener, app).await.expect("it serves") });
        let access = Access { kubeconfig: Some(kubeconfig), ..Access::default() };
        let scenario =
            Self { directory, seen, server: ApiServer::new("test".into(), access), _running: running };
        scenario.write_token("first\n");
        scenario
    }

    fn access(&self) -> Access {
        let kubeconfig = self.directory.path().join("kubeconfig");
        Access { kubeconfig: Some(kubeconfig), ..Access::default() }
    }

    fn write_token(&self, text: &str) {
        std::fs::write(self.directory.path().join("token"), text).expect("it is ours");
    }

    /// Replaces a part of the kubeconfig.
    fn configure(&self, part: &str, new: &str) {
        let path = self.directory.path().join("kubeconfig");
        let text = std::fs::read_to_string(&path).expect("it is there");
        assert!(text.contains(part), "{text}");
        std::fs::write(&path, text.replace(part, new)).expect("it is ours");
    }

    fn seen(&self) -> Vec<String> {
        std::mem::take(&mut self.seen.lock().expect("no panic"))
    }

    async fn refusal(&self) -> ApiServerError {
        self.server.fetch().await.expect_err("no JWKS")
    }
}

fn kubeconfig(directory: &Path, address: &str) -> PathBuf {
    let path = directory.join("kubeconfig");
    let text = format!(
        "clusters: [{{name: c, cluster: {{server: 'http://{address}'}}}}]\n\
         users: [{{name: u, user: {{tokenFile: token}}}}]\n\
         contexts: [{{name: one, context: {{cluster: c, user: u}}}}]\n\
         current-context: one\n"
    );
    std::fs::write(&path, text).expect("it is ours");
    path
}

fn jwks() -> Scripted {
    (StatusCode::OK, "application/jwk-set+json", JWKS.into())
}

fn unauthorized() -> Scripted {
    (StatusCode::UNAUTHORIZED, "application/json", br#"{"message":"Unauthorized"}"#.to_vec())
}

#[tokio::test]
async fn a_quiet_pass_is_one_request_with_the_token_and_without_its_line_break() {
    let scenario = Scenario::new([jwks()]).await;
    scenario.server.fetch().await.expect("a JWKS");
    assert_eq!(vec!["Bearer first"], scenario.seen());
}

#[tokio::test]
async fn a_replaced_token_file_counts_from_the_next_request() {
    let scenario = Scenario::new([jwks()]).await;
    scenario.server.fetch().await.expect("a JWKS");
    scenario.write_token("second\r\n");
    scenario.server.fetch().await.expect("a JWKS");
    assert_eq!(vec!["Bearer first", "Bearer second"], scenario.seen());
}

#[tokio::test]
async fn a_token_file_counts_more_than_a_token() {
    let scenario = Scenario::new([jwks()]).await;
    scenario.configure("tokenFile: token", "tokenFile: token, token: inline");
    scenario.server.fetch().await.expect("a JWKS");
    assert_eq!(vec!["Bearer first"], scenario.seen());
}

#[tokio::test]
async fn a_refused_credential_is_read_anew_once() {
    let scenario = Scenario::new([unauthorized(), jwks()]).await;
    scenario.server.fetch().await.expect("a JWKS");
    assert_eq!(2, scenario.seen().len());

    let scenario = Scenario::new([unauthorized()]).await;
    let refusal = scenario.refusal().await;
    assert_eq!("`GET /openid/v1/jwks` was answered with status 401 Unauthorized", refusal.to_string());
    assert_eq!(2, scenario.seen().len());
}

#[tokio::test]
async fn a_kubeconfig_is_read_anew_when_its_credential_is_refused() {
    let scenario = Scenario::new([jwks(), unauthorized(), jwks()]).await;
    scenario.server.fetch().await.expect("a JWKS");
    let path = scenario.directory.path().join("kubeconfig");
    let text =
        std::fs::read_to_string(&path).expect("it is there").replace("tokenFile: token", "token: inline");
    std::fs::write(&path, text).expect("it is ours");
    scenario.server.fetch().await.expect("a JWKS");
    assert_eq!(vec!["Bearer first", "Bearer first", "Bearer inline"], scenario.seen());
}

#[tokio::test]
async fn a_certificate_that_is_not_checked_is_noted() {
    let scenario = Scenario::new([jwks()]).await;
    assert!(scenario.server.fetch().await.expect("a JWKS").notes.is_empty());
    scenario.configure("cluster: {server", "cluster: {insecure-skip-tls-verify: true, server");
    let fetched = ApiServer::new("test".into(), scenario.access()).fetch().await.expect("a JWKS");
    assert!(fetched.notes.len() == 1 && fetched.notes[0].contains("is not verified"), "{:?}", fetched.notes);
}

#[tokio::test]
async fn an_overloaded_server_is_not_asked_again() {
    let unavailable = (StatusCode::SERVICE_UNAVAILABLE, "text/plain", b"later".to_vec());
    let scenario = Scenario::new([unavailable]).await;
    let refusal = scenario.refusal().await;
    assert_eq!("`GET /openid/v1/jwks` was answered with status 503 Service Unavailable", refusal.to_string());
    assert_eq!(1, scenario.seen().len());
}

#[tokio::test]
async fn an_answer_of_something_else_is_named_by_its_content_type() {
    let html = (StatusCode::OK, "text/html; charset=utf-8", b"<html>sign in</html>".to_vec());
    let scenario = Scenario::new([html]).await;
    let reason = |request: &str| {
        format!(
            "the answer to `{request}` is not the expected JSON, its content type is `text/html; charset=utf-8`"
        )
    };
    assert_eq!(reason("GET /openid/v1/jwks"), scenario.refusal().await.to_string());
    let refusal = scenario.server.issuer().await.expect_err("no document");
    assert_eq!(reason("GET /.well-known/openid-configuration"), refusal.to_string());
    let refusal = scenario.server.service_account().await.expect_err("no review");
    assert_eq!(reason("POST /apis/authentication.k8s.io/v1/selfsubjectreviews"), refusal.to_string());
}

#[tokio::test]
async fn an_empty_or_private_jwks_is_refused() {
    let body = |text: &str| (StatusCode::OK, "application/json", text.as_bytes().to_vec());
    let scenario =
        Scenario::new([body(r#"{"keys":[]}"#), body(&JWKS.replace("\"x\"", "\"d\":\"AA\",\"x\""))]).await;
    let refusal = scenario.refusal().await;
    assert_eq!("cannot use its JWKS", refusal.to_string());
    let cause = refusal.source().expect("a cause").to_string();
    assert_eq!("an empty JWKS, expected at least one key", cause);
    assert!(refusal.hint().is_some_and(|hint| hint.contains("--service-account-key-file")));
    let refusal = scenario.refusal().await;
    assert_eq!("key 1 cannot be used", refusal.source().expect("a cause").to_string());
}

#[tokio::test]
async fn an_endless_answer_is_cut_off() {
    let full = (StatusCode::OK, "application/json", vec![b' '; 1_048_576]);
    let over = (StatusCode::OK, "application/json", vec![b' '; 1_048_577]);
    let scenario = Scenario::new([full, over]).await;
    assert!(matches!(scenario.refusal().await, ApiServerError::Call(KubernetesError::NotJson { .. })));
    let reason = "the answer to `GET /openid/v1/jwks` has more than 1048576 bytes";
    assert_eq!(reason, scenario.refusal().await.to_string());
}

#[tokio::test]
async fn an_unreadable_token_file_is_named_and_not_its_contents() {
    let scenario = Scenario::new([jwks()]).await;
    let path = scenario.directory.path().join("token");
    scenario.write_token("sec\nret");
    let reason = format!("token file `{}` has characters that are not valid in a token", path.display());
    assert_eq!(reason, scenario.refusal().await.to_string());
    std::fs::remove_file(&path).expect("it is ours");
    assert_eq!(format!("cannot read token file `{}`", path.display()), scenario.refusal().await.to_string());
    assert!(scenario.seen().is_empty());
    scenario.write_token("back");
    scenario.server.fetch().await.expect("a JWKS");
}

#[tokio::test]
async fn a_broken_kubeconfig_is_refused_without_quoting_it() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("kubeconfig");
    std::fs::write(&path, "users: [{name: u, user: {token: SECRET}\nx").expect("it is ours");
    let access = Access { kubeconfig: Some(path), ..Access::default() };
    let refusal = ApiServer::new("test".into(), access).fetch().await.expect_err("no kubeconfig");
    assert!(matches!(refusal, ApiServerError::Call(KubernetesError::KubeconfigSyntax { .. })), "{refusal:?}");
    assert!(!format!("{refusal:?}{refusal}").contains("SECRET"));
}

#[tokio::test]
async fn what_a_credential_plugin_prints_is_not_repeated() {
    let expired = r#"{"apiVersion":"client.authentication.k8s.io/v1","kind":"ExecCredential","status":
        {"token":"SECRET","expirationTimestamp":"2020-01-01T00:00:00Z"}}"#;
    let once =
        format!("test -e ran && echo SECRET && exit 3; touch ran; echo '{}'", expired.replace('\n', ""));
    for (script, reason) in [
        ("echo SECRET; exit 3", "failed with exit status: 3"),
        ("echo '{SECRET'", "did not print an `ExecCredential`"),
        // The first token has expired, so the plugin runs again for the request and fails there.
        (once.as_str(), "failed with exit status: 3"),
    ] {
        let scenario = Scenario::new([jwks()]).await;
        let plugin = scenario.directory.path().join("plugin");
        let script = format!("cd '{}'\n{script}\n", scenario.directory.path().display());
        std::fs::write(&plugin, script).expect("it is ours");
        let exec = format!(
            "exec: {{apiVersion: client.authentication.k8s.io/v1, interactiveMode: Never, command: sh, args: ['{}']}}",
            plugin.display()
        );
        scenario.configure("tokenFile: token", &exec);
        let refusal = scenario.refusal().await;
        assert!(refusal.to_string().contains(reason), "{refusal}");
        assert!(!format!("{refusal:?}{refusal}{:?}", refusal.source()).contains("SECRET"), "{refusal:?}");
    }
}

#[tokio::test]
async fn outside_a_cluster_a_kubeconfig_or_context_must_be_named() {
    let refusal = ApiServer::new("test".into(), Access::default()).fetch().await.expect_err("no cluster");
    assert!(matches!(refusal, ApiServerError::Call(KubernetesError::NotInCluster)), "{refusal:?}");
}

#[tokio::test]
async fn an_instance_replaces_the_url_of_the_cluster() {
    let scenario = Scenario::new([jwks()]).await;
    let nobody = TcpListener::bind("127.0.0.1:0").await.expect("a port").local_addr().expect("bound");
    let access = Access { instance: Some(format!("http://{nobody}")), ..scenario.access() };
    let refusal = ApiServer::new("test".into(), access).fetch().await.expect_err("nobody listens");
    assert_eq!(format!("no answer from `http://{nobody}/`"), refusal.to_string());
    assert!(scenario.seen().is_empty());
}
