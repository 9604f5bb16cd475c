use std::{sync::Arc, time::Duration};

use jiff::Timestamp;

use crate::{
    core::{
        entra::{ExchangeAnswer, answer::tests::refused_by_entra},
        signer::announcement::NodeName,
        tests::terms,
        verification::{self, Party, Verdict},
    },
    telemetry::{
        event_source::EventQueue,
        issuer_status::Traffic,
        signer_metrics::{SignOutcome, SignerMetrics, SignerState},
        status::StatusStore,
    },
};

#[test]
fn every_metric_is_named_and_typed_as_prometheus_wants() {
    let status_store = StatusStore::with_events(EventQueue::default());
    status_store.issuer(&terms().issuer, |issuer| issuer.ready = true);
    status_store.source(&terms().issuer, "kubernetes", |source| source.signing_key_public = Some(false));
    status_store.target(&terms().issuer, "blob", |target| target.writes = 2);
    status_store.tls(|tls| tls.failures = 3);
    let traffic = Traffic { requests: vec![("jwks", 200, 7)], connections: 2 };
    let page = status_store.metrics(Some(traffic));
    for line in [
        "# TYPE signpost_ready gauge",
        "signpost_ready{issuer=\"https://issuer.example/c1\"} 1.0",
        "signpost_signing_key_public{issuer=\"https://issuer.example/c1\",source=\"kubernetes\"} 0.0",
        "signpost_target_writes_total{issuer=\"https://issuer.example/c1\",target=\"blob\"} 2",
        "signpost_http_requests_total{document=\"jwks\",code=\"200\"} 7",
        "signpost_http_connections 2.0",
        "signpost_tls_up 1.0",
        "signpost_tls_reload_failures_total 3",
        "signpost_events_sent_total 0",
        "# EOF",
    ] {
        assert!(page.lines().any(|found| found == line), "{line} is not in\n{page}");
    }
}

#[test]
fn a_node_that_signs_is_measured_and_a_process_without_public_listener_has_no_traffic() {
    let status_store = StatusStore::default();
    let meter = Arc::new(SignerMetrics::new(NodeName::parse("cp-1").expect("a name")));
    status_store.signer(&terms().issuer, Arc::clone(&meter));
    meter.answered(SignOutcome::Signed, Duration::from_micros(750));
    meter.answered(SignOutcome::Refused, Duration::ZERO);
    meter.fetched();
    meter.record_unauthorized();
    meter.record_reconcile(Some("the disk is full".to_owned()));
    let at = |second| Timestamp::from_second(second).expect("a time");
    let keys = [("active", 1), ("standby", 0)].into();
    meter.set_state(SignerState { keys, changed: at(5), observed_order: Some(at(6)), announced: at(7) });
    let page = status_store.metrics(None);
    let of = "issuer=\"https://issuer.example/c1\",node=\"cp-1\"";
    for line in [
        format!("signpost_signer_up{{{of}}} 0.0"),
        format!("signpost_signer_answers_total{{{of},result=\"signed\"}} 1"),
        format!("signpost_signer_answers_total{{{of},result=\"unavailable\"}} 0"),
        format!("signpost_signer_answers_total{{{of},result=\"refused\"}} 1"),
        "# TYPE signpost_signer_signature_duration_seconds histogram".to_owned(),
        format!("signpost_signer_signature_duration_seconds_bucket{{le=\"0.0005\",{of}}} 0"),
        format!("signpost_signer_signature_duration_seconds_bucket{{le=\"0.001\",{of}}} 1"),
        format!("signpost_signer_signature_duration_seconds_bucket{{le=\"+Inf\",{of}}} 1"),
        format!("signpost_signer_signature_duration_seconds_sum{{{of}}} 0.00075"),
        format!("signpost_signer_signature_duration_seconds_count{{{of}}} 1"),
        format!("signpost_signer_key_fetches_total{{{of}}} 1"),
        format!("signpost_signer_refused_connections_total{{{of}}} 1"),
        format!("signpost_signer_keys{{{of},stage=\"active\"}} 1.0"),
        format!("signpost_signer_keys{{{of},stage=\"standby\"}} 0.0"),
        format!("signpost_signer_keys_changed_timestamp_seconds{{{of}}} 5.0"),
        format!("signpost_signer_observed_order_timestamp_seconds{{{of}}} 6.0"),
        format!("signpost_signer_announced_timestamp_seconds{{{of}}} 7.0"),
    ] {
        assert!(page.lines().any(|found| found == line), "{line} is not in\n{page}");
    }
    assert!(!page.contains("signpost_http"), "{page}");
    status_store.forget(&terms().issuer);
    assert!(!status_store.metrics(None).contains("node="));
}

#[test]
fn what_was_found_out_of_tokens_is_measured_and_nothing_is_said_where_nobody_looks() {
    let (status_store, issuer) = (StatusStore::default(), terms().issuer);
    status_store.issuer(&issuer, |issuer| issuer.ready = true);
    assert!(!status_store.metrics(None).contains("signpost_verify_success{"));
    let judged = |outcome| Verdict { party: Party::Local, outcome, likely_code: None, findings: Vec::new() };
    for (outcome, success) in
        [(verification::VerificationOutcome::Accepted, 1), (verification::VerificationOutcome::Unknown, 0)]
    {
        status_store.verified(&issuer, Timestamp::UNIX_EPOCH, judged(outcome));
        status_store.unverified(&issuer, "away");
        let page = status_store.metrics(None);
        for line in [
            format!("signpost_verify_success{{issuer=\"{issuer}\"}} {success}.0"),
            format!("signpost_verify_timestamp_seconds{{issuer=\"{issuer}\"}} 0.0"),
            format!("signpost_verify_findings{{issuer=\"{issuer}\",level=\"error\"}} 0.0"),
            format!("signpost_verify_failures_total{{issuer=\"{issuer}\"}} {}", 2 - success),
        ] {
            assert!(page.lines().any(|found| found == line), "{line} is not in\n{page}");
        }
    }
}

#[test]
fn what_entra_answers_is_measured_apart_from_no_answer() {
    let (status_store, issuer) = (StatusStore::default(), terms().issuer);
    let has = |wanted: &[String], unwanted: &[&str]| {
        let page = status_store.metrics(None);
        for line in wanted {
            assert!(page.lines().any(|found| found == line), "{line} is not in\n{page}");
        }
        for name in unwanted {
            assert!(!page.contains(&format!("{name}{{")), "{name} is in\n{page}");
        }
    };
    let line = |name: &str, value: &str| format!("signpost_exchange_{name}{{issuer=\"{issuer}\"}} {value}");
    status_store.not_exchanged(&issuer, "busy");
    has(&[line("failures_total", "1")], &["exchange_success", "exchange_timestamp_seconds"]);
    status_store.exchanged(&issuer, Timestamp::from_second(7).expect("a time"), ExchangeAnswer::Accepted);
    has(&[line("success", "1.0"), line("timestamp_seconds", "7.0")], &["exchange_refused"]);
    status_store.exchanged(&issuer, Timestamp::from_second(8).expect("a time"), refused_by_entra(12_345_678));
    let code = format!("signpost_exchange_refused{{issuer=\"{issuer}\",code=\"other\"}} 1.0");
    let kept = line("last_accepted_timestamp_seconds", "7.0");
    has(&[line("success", "0.0"), line("timestamp_seconds", "8.0"), kept, code], &[]);
    let told: Vec<_> = status_store.checks(false).into_iter().map(|(_, what)| what).collect();
    assert!(told.iter().any(|what| what.contains("refuses its tokens with AADSTS12345678")), "{told:?}");
}

#[test]
fn what_the_world_sees_is_a_detail_of_readiness_and_does_not_decide_it() {
    let (status_store, issuer) = (StatusStore::default(), terms().issuer);
    status_store.issuer(&issuer, |issuer| issuer.ready = true);
    let mut judgement = Verdict {
        party: Party::Local,
        outcome: verification::VerificationOutcome::Refused,
        likely_code: None,
        findings: Vec::new(),
    };
    status_store.verified(&issuer, Timestamp::UNIX_EPOCH, judgement.clone());
    let told = |right: bool, what: &str| (right, format!("{issuer}: {what}"));
    assert_eq!(status_store.checks(false), [told(false, "a local relying party would refuse its tokens")]);
    assert!(status_store.ready());
    judgement.outcome = verification::VerificationOutcome::Accepted;
    status_store.verified(&issuer, Timestamp::UNIX_EPOCH, judgement);
    assert_eq!(status_store.checks(false), []);
    let all = [told(true, "has keys to serve"), told(true, "a local relying party would accept its tokens")];
    assert_eq!(status_store.checks(true), all);
}
