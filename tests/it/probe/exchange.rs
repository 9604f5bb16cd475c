//! The running service exchanges its token at the twin of Entra, as a workload does.

use std::fs;

use serde_json::{Value, json};
use signpost::clock;

use super::{EVENTS, WITHIN, World};
use crate::support::{
    entra_twin::{EntraTwin, TENANT},
    eventually::eventually,
    installation::{DISCOVERY, Installation, JWKS, Service, api_server, directory_target},
    signpost::Signpost,
};

const CLIENT: &str = "85075aa5-1d73-42de-812a-95348218e4b2";

impl World {
    /// What the twin knows, with or without the credential for Signpost's service account.
    fn directory(&self, credential: bool) -> Value {
        let folder = self.folder.path().join("documents");
        if !folder.exists() {
            let key = self.server.options().signing_key.clone().expect("it has one");
            let [issuer, folder, key] = [self.issuer.as_ref(), folder.as_os_str(), key.as_os_str()];
            let arguments = ["jwks".as_ref(), "--issuer".as_ref(), issuer, "--output-dir".as_ref(), folder];
            Signpost::new(arguments.into_iter().chain(["--source".as_ref(), key]))
                .finish(WITHIN)
                .expect_code(0);
        }
        let documents = [DISCOVERY, JWKS].map(|document| {
            let body = fs::read_to_string(folder.join(document)).expect("it was just written");
            (format!("{}/{document}", self.issuer), json!({"body": body}))
        });
        let credentials = credential.then(|| {
            json!({
                "issuer": self.issuer, "subject": "system:serviceaccount:signpost:signpost",
                "audience": "api://AzureADTokenExchange",
            })
        });
        json!({
            "now": clock::now().as_second(),
            "documents": documents.into_iter().collect::<serde_json::Map<_, _>>(),
            "tenants": {TENANT: {CLIENT: credentials.into_iter().collect::<Vec<_>>()}},
        })
    }
}

fn asked(service: &Service) -> f64 {
    service.metric("signpost_exchange_timestamp_seconds", "").unwrap_or_default()
}

fn is_accepted(service: &Service) -> Option<bool> {
    service.metric("signpost_exchange_success", "").map(|value| value > 0.5)
}

#[test]
fn a_credential_that_somebody_removes_is_told_by_entra_itself() {
    let world = World::start();
    let twin = EntraTwin::start_with(&world.directory(true));
    let file = world.kubeconfig();
    let settings = json!({
        "sources": [api_server(&file)],
        "targets": [directory_target(&world.public())],
        "verify": {"every": "1s", "exchange": {"tenant": TENANT, "client_id": CLIENT, "authority": twin.url()}},
    });
    let events = json!({"pod": "signpost/signpost-0", "kubeconfig": file});
    let installation = Installation::with_listener(&world.issuer, &settings, json!({"events": events}));
    let mut service = installation
        .run_as(installation.verb(["run", "--log", "debug"]).env("SSL_CERT_FILE", world.nginx.ca_file()));
    service.until("Entra accepts", |service| is_accepted(service) == Some(true));
    let found = service.status()["exchange"].take();
    assert_eq!((&found["outcome"], &found["failures"]), (&json!("accepted"), &json!(0)), "{found}");
    assert_eq!(found["at"], found["last_accepted"]);
    let ready = service.admin("/readyz?verbose").text();
    assert!(
        ready.contains("[+]") && ready.contains("Microsoft Entra issues a token for its tokens"),
        "{ready}"
    );

    twin.replace(&world.directory(false));
    service.until("Entra refuses", |service| is_accepted(service) == Some(false));
    let found = service.status()["exchange"].take();
    assert_eq!((&found["outcome"], &found["code"]), (&json!("refused"), &json!("AADSTS70025")), "{found}");
    for member in ["meaning", "fix", "trace_id", "correlation_id", "last_accepted"] {
        assert!(found[member].as_str().is_some_and(|text| !text.is_empty()), "{member}: {found}");
    }
    assert!(found["wait"].is_null(), "a key is not the cause: {found}");
    assert_eq!(service.metric("signpost_exchange_refused", "code=\"AADSTS70025\""), Some(1.0));
    let readiness = service.admin("/readyz").expect_status(200).text();
    assert!(readiness.contains("Microsoft Entra refuses its tokens with AADSTS70025"), "{readiness}");
    let (event, _) = eventually("it is told", || world.events("ExchangeRefused").pop());
    assert_eq!((&event["type"], &event["action"]), (&json!("Warning"), &json!("Exchange")));
    let (note, fix) = (event["note"].as_str().expect("text"), found["fix"].as_str().expect("text"));
    assert!(note.contains("AADSTS70025") && note.contains(fix) && note.contains("trace "), "{note}");
    let first = asked(&service);
    service.until("it is asked twice more", |service| asked(service) > first + 1.5);

    twin.replace(&world.directory(true));
    service.until("Entra accepts again", |service| is_accepted(service) == Some(true));
    let (event, _) = eventually("that is told", || world.events("ExchangeAccepted").pop());
    assert_eq!(event["type"], "Normal");
    assert_eq!(service.metric("signpost_exchange_refused", ""), None);
    let told = world.events("ExchangeRefused");
    assert!(told.len() == 1 && told[0]["series"].is_null(), "{told:#?}");

    // That nobody answers is no refusal.
    drop(twin);
    service.until("that nobody answers is seen", |service| {
        service.metric("signpost_exchange_failures_total", "") >= Some(1.0)
    });
    assert_eq!(is_accepted(&service), Some(true));
    let found = service.status()["exchange"].take();
    assert!(found["error"].as_str().is_some_and(|error| error.contains("does not answer")), "{found}");
    assert_eq!(world.events("ExchangeRefused").len(), 1);

    let mut told: Vec<_> =
        ["/status.json", "/metrics", "/readyz?verbose"].map(|path| service.admin(path).body).into();
    told.push(world.server.admin_request("GET", EVENTS).answer().body);
    let log = service.stop().expect_code(0).stderr;
    let lines = |text: &str| log.lines().filter(|line| line.contains(text)).count();
    let count =
        ["Microsoft Entra refuses tokens", "tokens are exchanged again", "Microsoft Entra has not answered"];
    assert_eq!(count.map(lines), [1; 3], "{log}");
    told.push(log.into_bytes());
    for text in told {
        world.assert_silent("what it says", &text);
        assert!(!String::from_utf8_lossy(&text).contains("of-the-twin"), "the token of Entra");
    }
}
