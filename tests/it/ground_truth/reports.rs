//! `verify --report` tells what happened, and nothing about whom.

use signpost::{
    clock,
    core::verification::{
        VerificationReport, judge,
        situation::{Situation, anonymous},
    },
};

use super::{
    Case, corpus, evidence, question,
    scene::{Keys, Scene},
};
use crate::support::dice::Dice;

const SITUATIONS: usize = 1000;
/// Words of the corpus that are replaced by the names of somebody.
const NAMES: [&str; 8] =
    ["oidc", "team", "org", "nowhere", "tenant.example", "22222222", "33333333", "44444444"];

/// What decides of a report: the outcome, and each finding with its codes.
fn decisive(report: &VerificationReport) -> (String, Vec<(&'static str, &'static [u32])>) {
    let mut findings: Vec<_> = report.findings.iter().map(|it| (it.id, it.predicted_codes)).collect();
    findings.sort_unstable();
    (report.outcome.name().to_owned(), findings)
}

/// A name that nobody has: letters, or the first digits of an id.
fn secret(dice: &mut Dice, is_id: bool) -> String {
    let letters = if is_id { "0123456789abcdef" } else { "bdfgjkqvwxyz" };
    (0..8).map(|_| char::from(letters.as_bytes()[dice.below(letters.len())])).collect()
}

/// One situation of the corpus, or what two of them have, with names of somebody.
fn generated(cases: &[Case], dice: &mut Dice) -> (Situation, Vec<String>) {
    let [one, other] = [0, 1].map(|_| &cases[dice.below(cases.len())].situation);
    let mut situation = one.clone();
    if dice.below(2) == 0 {
        situation.credentials = situation.credentials.or_else(|| other.credentials.clone());
        situation.token = situation.token.or_else(|| other.token.clone());
        situation.jwks = situation.jwks.or_else(|| other.jwks.clone());
        situation.discovery = situation.discovery.or_else(|| other.discovery.clone());
        situation.request = situation.request.or_else(|| other.request.clone());
    }
    let mut text = serde_saphyr::to_string(&situation).expect("it is YAML");
    let secrets: Vec<_> = NAMES.iter().map(|name| secret(dice, name.starts_with(char::is_numeric))).collect();
    for (name, secret) in NAMES.iter().zip(&secrets) {
        text = text.replace(name, secret);
    }
    (serde_saphyr::from_str(&text).unwrap_or_else(|error| panic!("{error}\n{text}")), secrets)
}

#[test]
fn a_report_names_nobody_and_read_back_has_the_same_verdict() {
    let (cases, mut keys, mut dice) = (corpus(), Keys::default(), Dice::new(20_261_130));
    let now = clock::now();
    let mut differ = Vec::new();
    for number in 0..SITUATIONS {
        let (situation, secrets) = generated(&cases, &mut dice);
        let scene = Scene::of(&situation, &mut keys, now);
        let before = decisive(&judge(&evidence(&scene), &question(&scene)));
        let reported = anonymous(&evidence(&scene), &question(&scene), situation.answer);
        let text = serde_saphyr::to_string(&reported).expect("it is YAML").to_lowercase();
        for secret in &secrets {
            assert!(!text.contains(secret.as_str()), "{secret} of {number} is in:\n{text}");
        }
        let signature =
            scene.form.get("client_assertion").and_then(|token| token.rsplit('.').next()).unwrap_or_default();
        assert!(signature.len() < 10 || !text.contains(&signature.to_lowercase()), "a signature:\n{text}");

        let text = serde_saphyr::to_string(&reported).expect("it is YAML");
        let read: Situation = serde_saphyr::from_str(&text).unwrap_or_else(|error| panic!("{error}\n{text}"));
        assert_eq!(read, reported);
        let scene = Scene::of(&read, &mut keys, now);
        let after = decisive(&judge(&evidence(&scene), &question(&scene)));
        if before != after {
            differ.push(format!("{}\n  before {before:?}\n  after  {after:?}\n{text}", situation.situation));
        }
    }
    assert!(
        differ.is_empty(),
        "{} of {SITUATIONS} differ:\n{}",
        differ.len(),
        differ[..differ.len().min(5)].join("\n")
    );
}
