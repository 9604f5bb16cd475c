use super::{Level, Verdict, VerificationOutcome};
use crate::core::verification::{Certainty, Finding, Party};

fn judgement(outcome: VerificationOutcome, reasons: &[(&'static str, Level)]) -> Verdict {
    let finding = |(place, &(id, level)): (usize, &(&'static str, Level))| Finding {
        id,
        level,
        likely_first: place == 0,
        seen: "kid `a` is not in the JWKS".to_owned(),
        expected: "kid `a`".to_owned(),
        difference: None,
        unless: None,
        predicted_codes: &[7_000_272],
        certainty: Certainty::Documented,
        source: "a page",
        fix: "publish it".to_owned(),
    };
    let findings = reasons.iter().enumerate().map(finding).collect();
    Verdict {
        party: Party::Entra,
        outcome,
        likely_code: (!reasons.is_empty()).then_some(7_000_272),
        findings,
    }
}

#[test]
fn only_changes_and_trouble_from_the_start_are_news() {
    let well = judgement(VerificationOutcome::Accepted, &[]);
    let warned = judgement(VerificationOutcome::Accepted, &[("CACHE-WAIT", Level::Warning)]);
    let lost = judgement(VerificationOutcome::Refused, &[("KEY-KID", Level::Error)]);
    let more =
        judgement(VerificationOutcome::Refused, &[("KEY-KID", Level::Error), ("PUB-CTYPE", Level::Warning)]);
    let away = judgement(VerificationOutcome::Unknown, &[("PUB-REACH", Level::Error)]);
    let shut = judgement(VerificationOutcome::Refused, &[("PUB-REACH", Level::Error)]);
    for (before, now, news) in [
        (None, &well, false),
        (None, &warned, false),
        (None, &lost, true),
        (None, &away, true),
        (Some(&well), &well, false),
        (Some(&well), &warned, false),
        (Some(&well), &lost, true),
        (Some(&lost), &lost, false),
        (Some(&lost), &more, false),
        (Some(&lost), &away, true),
        (Some(&away), &shut, true),
        (Some(&shut), &well, true),
        (Some(&lost), &warned, true),
    ] {
        assert_eq!(news, now.is_news_after(before), "{now:?} after {before:?}");
    }
}

#[test]
fn a_judgement_is_told_in_a_line_with_code_check_and_what_was_seen() {
    let said = |outcome, reasons: &[_]| judgement(outcome, reasons).in_words();
    let error = [("KEY-KID", Level::Error)];
    assert_eq!(
        "Microsoft Entra would accept its tokens",
        said(VerificationOutcome::Accepted, &[("CACHE-WAIT", Level::Warning)])
    );
    assert_eq!(
        "Microsoft Entra would refuse its tokens with AADSTS7000272, KEY-KID: kid `a` is not in the JWKS",
        said(VerificationOutcome::Refused, &error)
    );
    assert_eq!(
        "Microsoft Entra may or may not accept its tokens, KEY-KID: kid `a` is not in the JWKS",
        said(VerificationOutcome::Unknown, &error)
    );
    assert_eq!("Microsoft Entra may or may not accept its tokens", said(VerificationOutcome::Unknown, &[]));
}

#[test]
fn findings_are_counted_by_level() {
    let both =
        judgement(VerificationOutcome::Refused, &[("KEY-KID", Level::Error), ("PUB-CTYPE", Level::Warning)]);
    assert_eq!([1, 1, 0], Level::ALL.map(|level| both.count(level)));
}
