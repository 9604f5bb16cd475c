use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
};

use axum::{Router, extract::State, response::IntoResponse};
use http::{HeaderMap, StatusCode, Uri};
use tempfile::TempDir;
use tokio::{net::TcpListener, task::JoinSet};

use super::{HttpClients, Place, RemoteJwks};
use crate::core::text::Hint;

const JWKS: &str = r#"{"keys":[{"kty":"EC","crv":"P-256","x":"H6cuzP8XuD5wal6wf9M6xDljTOPLX2i8uIp_C_ASqiI","y":"BlHnikLV9PyEd6gl8k4T_3Wwoh6xd79XLoQTh2PAi1Y"}]}"#;

type Scripted = (u16, &'static str, String);
type Script = Arc<Mutex<(VecDeque<Scripted>, Vec<String>)>>;

/// A server that answers in ways that real servers cannot be forced to: in turn, and then repeats the last
/// answer.
struct Scenario {
    folder: TempDir,
    script: Script,
    jwks: RemoteJwks,
    _running: JoinSet<()>,
}

async fn answer(State(script): State<Script>, uri: Uri, headers: HeaderMap) -> impl IntoResponse {
    let header = |name| headers.get(name).map_or("none", |value| value.to_str().expect("text"));
    let mut script = script.lock().expect("no panic");
    script.1.push(format!("{} {} {}", uri.path(), header("authorization"), header("if-none-match")));
    let answer = script.0.front().expect("a script has an answer").clone();
    if script.0.len() > 1 {
        script.0.pop_front();
    }
    let (status, tag, body) = answer;
    let location = "http://127.0.0.1:1/elsewhere";
    (StatusCode::from_u16(status).expect("a status"), [("etag", tag), ("location", location)], body)
}

impl Scenario {
    async fn new(path: &str, answers: &[Scripted]) -> Self {
        let folder = TempDir::new().expect("a directory");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let place = Place {
            url: format!("http://{}{path}", listener.local_addr().expect("bound")),
            bearer_token_file: Some(folder.path().join("token")),
            ca_file: None,
        };
        let script: Script = Arc::new(Mutex::new((answers.iter().cloned().collect(), Vec::new())));
        let app = Router::new().fallback(answer).with_state(Arc::clone(&script));
        let mut running = JoinSet::new();
        running.spawn(async move { axum::serve(listener, app).await.expect("it serves") });
        std::fs::write(folder.path().join("token"), "first\n").expect("it is ours");
        let jwks = RemoteJwks::new("edge".to_owned(), place, &HttpClients::default());
        Self { folder, script, jwks, _running: running }
    }

    fn seen(&self) -> Vec<String> {
        std::mem::take(&mut self.script.lock().expect("no panic").1)
    }

    async fn refusal(&self) -> String {
        self.jwks.fetch().await.expect_err("no JWKS").to_string()
    }
}

fn jwks(tag: &'static str) -> Scripted {
    (200, tag, JWKS.to_owned())
}

#[tokio::test]
async fn what_has_not_changed_is_not_sent_again() {
    let scenario = Scenario::new("/jwks", &[jwks("\"one\""), (304, "\"one\"", String::new())]).await;
    let first = scenario.jwks.fetch().await.expect("a JWKS");
    let second = scenario.jwks.fetch().await.expect("the same");
    assert_eq!(first.keys, second.keys);
    assert_eq!(vec!["/jwks Bearer first none", "/jwks Bearer first \"one\""], scenario.seen());
}

#[tokio::test]
async fn the_token_is_read_for_every_request_and_never_shown() {
    let scenario = Scenario::new("/jwks", &[jwks("\"one\"")]).await;
    scenario.jwks.fetch().await.expect("a JWKS");
    let token = scenario.folder.path().join("token");
    std::fs::write(&token, "second\r\n").expect("it is ours");
    scenario.jwks.fetch().await.expect("a JWKS");
    assert!(scenario.seen()[1].contains("Bearer second"));
    std::fs::write(&token, "sec\nret").expect("it is ours");
    let reason = format!("token file `{}` has characters that are not valid in a token", token.display());
    assert_eq!(reason, scenario.refusal().await);
    assert!(!format!("{:?}", scenario.jwks).contains("second"));
    std::fs::remove_file(&token).expect("it is ours");
    assert_eq!(format!("cannot read `{}`", token.display()), scenario.refusal().await);
}

#[tokio::test]
async fn a_redirect_is_not_followed_and_nothing_but_a_jwks_will_do() {
    let large = (200, "", " ".repeat(1_048_577));
    let answers =
        [(302, "", String::new()), (304, "", String::new()), large, (200, "", r#"{"keys":[]}"#.to_owned())];
    let scenario = Scenario::new("/jwks", &answers).await;
    let url = scenario.jwks.place.url.clone();
    let redirect = scenario.jwks.fetch().await.expect_err("it leads elsewhere");
    assert_eq!(format!("`{url}` was answered with status 302 Found"), redirect.to_string());
    assert!(redirect.hint().is_some_and(|hint| hint.contains("redirects")));
    assert_eq!(format!("`{url}` was answered with status 304 Not Modified"), scenario.refusal().await);
    assert_eq!(format!("the answer of `{url}` has more than 1048576 bytes"), scenario.refusal().await);
    assert_eq!("cannot use its JWKS", scenario.refusal().await);
    assert_eq!(4, scenario.seen().len());
}

#[tokio::test]
async fn the_document_beside_the_jwks_says_whose_keys_these_are() {
    let document =
        r#"{"issuer":"https://oidc.example/edge","jwks_uri":"https://oidc.example/edge/openid/v1/jwks"}"#;
    let answers =
        [(200, "", document.to_owned()), (403, "", String::new()), jwks(""), (500, "", String::new())];
    let scenario = Scenario::new("/edge/openid/v1/jwks", &answers).await;
    let issuer = scenario.jwks.issuer().await.expect("a document");
    assert_eq!(Some("https://oidc.example/edge"), issuer.as_deref());
    assert_eq!("/edge/.well-known/openid-configuration Bearer first none", scenario.seen()[0]);
    assert_eq!(None, scenario.jwks.issuer().await.expect("it may not be read"));
    let notes = scenario.jwks.fetch().await.expect("a JWKS").notes;
    assert!(notes.len() == 1 && notes[0].starts_with("the issuer of these keys is not checked"), "{notes:?}");
    scenario.jwks.issuer().await.expect_err("it should say");
}

#[tokio::test]
async fn a_url_that_is_not_of_an_api_server_is_noted() {
    let scenario = Scenario::new("/keys.json", &[jwks("")]).await;
    assert_eq!(None, scenario.jwks.issuer().await.expect("nothing was asked"));
    let notes = scenario.jwks.fetch().await.expect("a JWKS").notes;
    assert!(notes.len() == 1 && notes[0].starts_with("the issuer of "), "{notes:?}");
    assert_eq!(1, scenario.seen().len());
}
