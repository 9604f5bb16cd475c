//! Predictions are compared with what Microsoft Entra really answered: `tests/ground_truth/`.

use std::{
    collections::BTreeMap,
    fs,
    io::{self, Write as _},
    path::Path,
};

use signpost::{
    clock,
    core::{
        entra::{Identity, TokenRequest, credentials},
        jose::token::UnverifiedToken,
        verification::{
            Agreement, Evidence, Expectation, Party, Question, VerificationReport, judge,
            situation::{Evidenced, Situation},
        },
    },
};

mod page;
mod reports;
mod scene;
mod twin;

use crate::docs::is_fresh;
use scene::{Keys, Scene};

/// A file of the corpus.
struct Case {
    /// Its path in the corpus.
    name: String,
    situation: Situation,
}

fn corpus() -> Vec<Case> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/ground_truth");
    let mut cases: Vec<_> = fs::read_dir(&root)
        .expect("the corpus is there")
        .map(|entry| entry.expect("a folder can be listed").path())
        .filter(|path| path.is_dir())
        .flat_map(|folder| fs::read_dir(folder).expect("a folder of the corpus"))
        .map(|entry| entry.expect("a folder can be listed").path())
        .map(|path| {
            let name = path.strip_prefix(&root).expect("below it").display().to_string();
            let text = fs::read_to_string(&path).expect("it can be read");
            let situation = serde_saphyr::from_str(&text).unwrap_or_else(|error| panic!("{name}: {error}"));
            Case { name, situation }
        })
        .collect();
    cases.sort_by(|one, other| one.name.cmp(&other.name));
    cases
}

/// How many people have met each code.
pub(crate) fn witnesses() -> BTreeMap<u32, u32> {
    let mut witnesses = BTreeMap::new();
    for Case { situation, .. } in corpus() {
        if let Some(code) = situation.answer.code() {
            *witnesses.entry(code).or_default() += situation.witnesses.unwrap_or(1);
        }
    }
    witnesses
}

fn evidence(scene: &Scene) -> Evidence {
    let (request, assertion) = TokenRequest::parse(&scene.request()).expect("a request");
    let identity = scene.identity_as_printed().iter().filter_map(Identity::of_json).reduce(Identity::and);
    let printed = serde_json::to_vec(&scene.credentials_as_printed()).expect("JSON");
    Evidence {
        token: assertion.map(|text| UnverifiedToken::parse(&text)),
        discovery: scene.discovery.clone(),
        jwks: scene.jwks.clone(),
        identity,
        credentials: Some(credentials(&printed).expect("credentials")),
        request: Some(request),
        ledger: scene.ledger.clone(),
        ..Evidence::none(scene.now)
    }
}

fn question(scene: &Scene) -> Question {
    Question { party: Party::Entra, cloud: scene.cloud(), expected: Expectation::default() }
}

fn judged(scene: &Scene) -> VerificationReport {
    judge(&evidence(scene), &question(scene))
}

/// A situation and its prediction.
struct Compared {
    case: Case,
    report: VerificationReport,
    agreement: Agreement,
}

fn compared() -> Vec<Compared> {
    let (mut keys, now) = (Keys::default(), clock::now());
    let compare = |case: Case| {
        let report = judged(&Scene::of(&case.situation, &mut keys, now));
        let agreement = Agreement::of(&report, case.situation.answer, &case.situation.also);
        Compared { case, report, agreement }
    };
    corpus().into_iter().map(compare).collect()
}

/// Shows figures even if the test succeeds, when output is captured.
fn show(figures: &str) {
    // Nobody may be reading.
    drop(io::stderr().write_all(figures.as_bytes()));
}

#[test]
fn predictions_agree_with_what_entra_answered() {
    let all = compared();
    show(&format!("\npredictions and what Entra answered\n{}", page::table(&all)));
    let shown: Vec<_> = all.iter().filter(|it| it.case.situation.hidden.is_none()).collect();
    let share =
        |of: &[Agreement]| shown.iter().filter(|it| of.contains(&it.agreement)).count() * 100 / shown.len();
    assert!(share(&[Agreement::First]) >= 85, "{} % first", share(&[Agreement::First]));
    let named = [Agreement::First, Agreement::Listed, Agreement::Warned];
    assert!(share(&named) >= 95, "{} % listed", share(&named));
    let is_wrong = |it: &&&Compared| match it.agreement {
        Agreement::FalseGreen => true,
        Agreement::FalseRed => it.case.situation.certainty != Evidenced::Weak,
        _ => false,
    };
    let wrong: Vec<_> = shown.iter().filter(is_wrong).map(|it| page::line(it)).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_page_of_the_predictions_is_fresh() {
    is_fresh("docs/predictions.md", &page::page(&compared()));
}
