use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{Router, extract::State};
use http::{StatusCode, Uri};
use k8s_openapi::api::core::v1::ConfigMap;
use tempfile::TempDir;
use tokio::{net::TcpListener, select, sync::mpsc, task::JoinSet, time::timeout};

use super::{Collection, Projection, WatchState};
use crate::kubernetes::{Access, Connection};

const THINGS: Collection =
    Collection { resource: "example.com/things", namespace: "home", label: ("colour", "blue") };

/// Any kind of object works here.
impl Projection for ConfigMap {
    type Part = BTreeMap<String, String>;

    fn part(self) -> Self::Part {
        self.data.unwrap_or_default()
    }
}

type Script = Arc<Mutex<(VecDeque<(StatusCode, String)>, Vec<String>)>>;

async fn answer(State(script): State<Script>, uri: Uri) -> (StatusCode, String) {
    let mut script = script.lock().expect("no panic");
    script.1.push(uri.to_string());
    script.0.pop_front().unwrap_or((StatusCode::FORBIDDEN, r#"{"message":"enough"}"#.to_owned()))
}

/// What is reported when an API server gives these answers in turn, and the requests that it received.
async fn told(answers: &[(u16, String)], count: usize) -> (Vec<String>, Vec<String>) {
    let directory = TempDir::new().expect("a directory");
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let kubeconfig = directory.path().join("kubeconfig");
    let address = listener.local_addr().expect("bound");
    let text = format!(
        "clusters: [{{name: c, cluster: {{server: 'http://{address}'}}}}]\n\
         contexts: [{{name: one, context: {{cluster: c, user: u}}}}]\nusers: [{{name: u, user: {{}}}}]\n\
         current-context: one\n"
    );
    std::fs::write(&kubeconfig, text).expect("it is ours");
    let answers =
        answers.iter().map(|(status, body)| (StatusCode::from_u16(*status).expect("a status"), body.clone()));
    let script: Script = Arc::new(Mutex::new((answers.collect(), Vec::new())));
    let app = Router::new().fallback(answer).with_state(Arc::clone(&script));
    let mut running = JoinSet::new();
    running.spawn(async move { axum::serve(listener, app).await.expect("it serves") });
    let connection = Connection::new(Access { kubeconfig: Some(kubeconfig), ..Access::default() });
    let (sender, mut receiver) = mpsc::unbounded_channel();
    let follow = THINGS.follow::<ConfigMap>(&connection, |sight| {
        let _ = sender.send(match sight {
            WatchState::Objects(objects) => format!("{objects:?}").replace('"', ""),
            WatchState::Unwatched(_) => "unwatched".to_owned(),
            WatchState::Refused(_) => "refused".to_owned(),
            WatchState::Failed(error) => format!("failed: {error}"),
        });
    });
    let mut told = Vec::new();
    let hear = async {
        while told.len() < count {
            told.push(receiver.recv().await.expect("the sender lives"));
        }
    };
    let in_time = async {
        select! { never = follow => match never {}, () = hear => {} }
    };
    timeout(Duration::from_secs(20), in_time).await.expect("everything is told");
    let asked = script.lock().expect("no panic").1.clone();
    (told, asked)
}

fn list(version: u32, items: &str) -> (u16, String) {
    (200, format!(r#"{{"metadata":{{"resourceVersion":"{version}"}},"items":[{items}]}}"#))
}

fn thing(name: &str, value: &str) -> String {
    format!(r#"{{"metadata":{{"name":"{name}"}},"data":{{"v":"{value}"}}}}"#)
}

fn events(events: &[(&str, String)]) -> (u16, String) {
    let line = |(kind, object): &(&str, String)| format!("{{\"type\":\"{kind}\",\"object\":{object}}}\n");
    (200, events.iter().map(line).collect())
}

#[tokio::test]
async fn what_there_is_is_told_and_every_change_of_it_and_nothing_else() {
    let changes = events(&[
        ("MODIFIED", thing("a", "1")),
        ("BOOKMARK", thing("", "")),
        ("ADDED", thing("b", "2")),
        ("MODIFIED", thing("a", "3")),
        ("DELETED", thing("b", "2")),
    ]);
    let (told, asked) = told(&[list(7, &thing("a", "1")), changes], 4).await;
    assert_eq!(vec!["{a: {v: 1}}", "{a: {v: 1}, b: {v: 2}}", "{a: {v: 3}, b: {v: 2}}", "{a: {v: 3}}"], told);
    let path = "/apis/example.com/v1/namespaces/home/things?labelSelector=colour%3Dblue";
    assert_eq!(format!("{path}"), asked[0]);
    assert_eq!(format!("{path}&watch=1&allowWatchBookmarks=true&resourceVersion=7"), asked[1]);
}

#[tokio::test]
async fn after_a_watch_that_ended_or_expired_or_spoke_nonsense_everything_is_listed_anew() {
    let expired = events(&[("ERROR", r#"{"kind":"Status","code":410}"#.to_owned())]);
    for end in [events(&[]), expired, (200, "nonsense\n".to_owned())] {
        let answers = [list(1, &thing("a", "1")), end, list(2, &thing("b", "1")), events(&[])];
        let (told, _) = told(&answers, 2).await;
        assert_eq!(vec!["{a: {v: 1}}", "{b: {v: 1}}"], told);
    }
}

#[tokio::test]
async fn a_refusal_may_be_that_of_a_server_that_has_just_started() {
    let forbidden = || (403, r#"{"message":"not yet"}"#.to_owned());
    let (told, _) = told(&[forbidden(), list(1, ""), forbidden()], 3).await;
    let path = "GET /apis/example.com/v1/namespaces/home/things?labelSelector=colour%3Dblue";
    let reason = format!("failed: `{path}` was answered with status 403 Forbidden: not yet");
    assert_eq!(vec![reason.as_str(), "{}", "unwatched"], told);
}
