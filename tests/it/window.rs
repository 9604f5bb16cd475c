//! The maintenance window, on real clocks.

use std::fs;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::installation::{Installation, Service};

const NODE: &str = "embedded";

/// The age at which a key is replaced.
const OF_AGE: Duration = Duration::from_secs(5);

fn settings(window: &Value) -> Value {
    json!({
        "jwks_max_age": "1s", "propagation": "2s", "rotate_after": "5s", "margin": "1s", "max_token_lifetime": "10s",
        "rotate_within": window, "sources": [{"kind": "embedded"}],
    })
}

fn signs_with(installation: &Installation) -> String {
    let journal = fs::read(installation.data_dir().join("keys/signer.json")).expect("it signs");
    let journal: Value = serde_json::from_slice(&journal).expect("JSON");
    journal["signing"].as_str().expect("a kid").to_owned()
}

fn node(service: &Service) -> Value {
    service.status()["nodes"][NODE].clone()
}

/// Whether the next key waits only for the window.
fn waits_for_the_window(service: &Service) -> bool {
    let waits = node(service)["blocked_by"].as_array().cloned().unwrap_or_default();
    matches!(&waits[..], [wait] if wait.as_str().expect("text").starts_with("the window opens at "))
}

#[test]
fn a_key_of_age_waits_for_its_window_and_an_order_of_the_operator_does_not() {
    // It opens in a leap year, for a minute.
    let closed = json!({"opens": "0 0 29 2 *", "for": "1m", "time_zone": "Asia/Kolkata"});
    let installation = Installation::new("http://127.0.0.1:8080/window", &settings(&closed));
    let mut service = installation.run_until_ready();
    let signs = || signs_with(&installation);
    let first = signs();
    service.until("it signs for everybody", |service| node(service)["order"]["sign"] == first.as_str());
    let ordered = Instant::now();
    service.until("the key is of age", |_| {
        assert_eq!(signs(), first);
        ordered.elapsed() > OF_AGE + Duration::from_secs(2)
    });
    service.until("nothing else is in the way", waits_for_the_window);
    assert_eq!(signs(), first);
    assert_eq!(service.metric("signpost_signer_up", NODE), Some(1.0));
    assert_eq!(service.metric("signpost_signer_keys", "stage=\"active\""), Some(1.0));
    let status = installation.finish(["rotate", "status"]).expect_code(0).stdout;
    let line = status.lines().find(|line| line.contains("blocked: the window opens at ")).expect(&status);
    // Midnight in India.
    assert!(line.ends_with("-02-28T18:30:00Z"), "{status}");

    installation.finish(["rotate", "start"]).expect_code(0);
    service.until("the operator does not wait", |_| signs() != first);
    let second = signs();
    service.until("the one after waits again", waits_for_the_window);
    assert_eq!(signs(), second);

    installation.configure(&settings(&json!({"opens": "* * * * *", "for": "2m"})));
    service.running.signal(Signal::HUP);
    service.until("the window is open", |_| signs() != second);
    service.stop().expect_code(0);
}
