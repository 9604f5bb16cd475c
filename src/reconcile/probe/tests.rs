use super::{ErrorReport, LastVerdict};
use crate::core::verification::{Party, Verdict, VerificationOutcome};

fn judged(outcome: VerificationOutcome) -> Verdict {
    Verdict { party: Party::Local, outcome, likely_code: None, findings: Vec::new() }
}

fn nothing(error: &str) -> ErrorReport {
    ErrorReport { error: error.to_owned(), hint: None }
}

/// A second check costs a token and four requests.
#[test]
fn trouble_is_looked_at_a_second_time_unless_it_is_known() {
    let fresh = LastVerdict::default();
    assert!(!fresh.is_new_trouble(&Ok(judged(VerificationOutcome::Accepted))));
    assert!(fresh.is_new_trouble(&Ok(judged(VerificationOutcome::Refused))));
    assert!(fresh.is_new_trouble(&Ok(judged(VerificationOutcome::Unknown))));
    assert!(fresh.is_new_trouble(&Err(nothing("away"))));

    let refused = LastVerdict { judgement: Some(judged(VerificationOutcome::Refused)), error: None };
    assert!(!refused.is_new_trouble(&Ok(judged(VerificationOutcome::Refused))));
    assert!(refused.is_new_trouble(&Ok(judged(VerificationOutcome::Unknown))));
    assert!(
        !refused.is_new_trouble(&Ok(judged(VerificationOutcome::Accepted))),
        "a recovery is told at once"
    );

    let away = LastVerdict { judgement: None, error: Some("away".to_owned()) };
    assert!(!away.is_new_trouble(&Err(nothing("away"))));
    assert!(away.is_new_trouble(&Err(nothing("forbidden"))));
}
