//! What Signpost reads from others, as fuzz targets: each takes any bytes and panics when a promise is broken.
//!
//! That nothing panics, hangs or overflows is the least of it: what is accepted keeps its meaning when it is
//! rendered and read again, and an error neither grows with its input nor repeats a key.

use std::error::Error;

use signpost::core::{
    jose::token::{NotAToken, UnverifiedToken},
    ledger::Ledger,
    verification::{
        Cloud, DocumentEvidence, Evidence, Expectation, Party, Question, VerificationOutcome,
        VerificationReport, judge,
    },
};

mod announcement;
mod configuration;
mod discovery;
mod jwks;
mod ledger;
mod pem;
mod token;

/// A reader of hostile input.
#[derive(Clone, Copy)]
pub(crate) struct Target {
    /// That of its folder in `corpus/` too.
    pub(crate) name: &'static str,
    /// Says whether the input was accepted.
    pub(crate) run: fn(&[u8]) -> bool,
}

pub(crate) const ALL: [Target; 7] = [
    Target { name: "announcement", run: announcement::run },
    Target { name: "configuration", run: configuration::run },
    Target { name: "discovery", run: discovery::run },
    Target { name: "jwks", run: jwks::run },
    Target { name: "ledger", run: ledger::run },
    Target { name: "pem", run: pem::run },
    Target { name: "token", run: token::run },
];

/// 2026-11-21T12:00:00Z.
const NOW: i64 = 1_795_262_400;
/// Longest text of an error with its causes, in characters: each names a thing or two, and a key ID alone may
/// have 1024.
const MAX_ERROR: usize = 2500;

fn now() -> jiff::Timestamp {
    jiff::Timestamp::from_second(NOW).expect("a time of this century")
}

/// The error and its causes. It is brief, whatever it is about.
fn told(error: &(dyn Error + 'static)) -> String {
    let causes = std::iter::successors(Some(error), |error| (*error).source());
    let text = causes.map(ToString::to_string).collect::<Vec<_>>().join("\n");
    assert!(text.chars().count() <= MAX_ERROR, "an error of {} characters: {text}", text.len());
    text
}

/// What there is to judge by.
#[derive(Default)]
struct Scene<'a> {
    token: Option<Result<UnverifiedToken, NotAToken>>,
    discovery: Option<&'a [u8]>,
    jwks: Option<&'a [u8]>,
    ledger: Option<Ledger>,
}

/// What everybody says to it. Only a token whose signature was verified is ever accepted.
fn judged(scene: Scene) -> Vec<VerificationReport> {
    let file = |bytes: Option<&[u8]>| {
        bytes.map_or(DocumentEvidence::NotSought, |bytes| DocumentEvidence::File {
            path: "file".to_owned(),
            bytes: bytes.to_owned(),
        })
    };
    let mut evidence = Evidence::none(now());
    evidence.token = scene.token;
    evidence.discovery = file(scene.discovery);
    evidence.jwks = file(scene.jwks);
    evidence.ledger = scene.ledger;
    let judged = Party::ALL.map(|party| {
        let question = Question { party, cloud: Cloud::Public, expected: Expectation::default() };
        let report = judge(&evidence, &question);
        let likely = report.findings.iter().filter(|finding| finding.likely_first).count();
        assert!(likely <= 1, "{likely} answers are the likely first");
        if evidence.token.is_some() && report.outcome == VerificationOutcome::Accepted {
            let proved = report.holds.iter().any(|rule| rule.id == "SIG");
            assert!(proved, "accepted without a verified signature");
        }
        report
    });
    judged.into()
}

/// What a good issuer publishes, for the target that is about something else.
const DISCOVERY: &[u8] = include_bytes!("../corpus/discovery/kubernetes.json");
const JWKS: &[u8] = include_bytes!("../corpus/jwks/rsa_and_ec.json");
