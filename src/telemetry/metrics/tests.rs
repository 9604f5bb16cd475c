use crate::{
    core::tests::terms,
    telemetry::{
        board::{Board, Traffic},
        notices::Notices,
    },
};

#[test]
fn every_metric_is_named_and_typed_as_prometheus_wants() {
    let board = Board::telling(Notices::default());
    board.issuer(&terms().issuer, |issuer| issuer.ready = true);
    board.source(&terms().issuer, "kubernetes", |source| source.signing_key_public = Some(false));
    board.target(&terms().issuer, "blob", |target| target.writes = 2);
    board.tls(|tls| tls.failures = 3);
    let traffic = Traffic { requests: vec![("jwks", 200, 7)], connections: 2 };
    let page = board.metrics(traffic);
    for line in [
        "# TYPE signpost_ready gauge",
        "signpost_ready{issuer=\"https://issuer.example/c1\"} 1.0",
        "signpost_signing_key_public{issuer=\"https://issuer.example/c1\",source=\"kubernetes\"} 0.0",
        "signpost_target_writes_total{issuer=\"https://issuer.example/c1\",target=\"blob\"} 2",
        "signpost_http_requests_total{document=\"jwks\",code=\"200\"} 7",
        "signpost_http_connections 2.0",
        "signpost_tls_up 1.0",
        "signpost_tls_reload_failures_total 3",
        "signpost_events_told_total 0",
        "# EOF",
    ] {
        assert!(page.lines().any(|found| found == line), "{line} is not in\n{page}");
    }
}
