use super::{Known, NothingToJudge};
use crate::core::verification::{Judgement, Outcome, Party};

fn judged(outcome: Outcome) -> Judgement {
    Judgement { party: Party::Local, outcome, likely_code: None, findings: Vec::new() }
}

fn nothing(error: &str) -> NothingToJudge {
    NothingToJudge { error: error.to_owned(), hint: None }
}

/// A second look costs a token and four requests.
#[test]
fn trouble_is_looked_at_a_second_time_unless_it_is_known() {
    let fresh = Known::default();
    assert!(!fresh.is_new_trouble(&Ok(judged(Outcome::Accepted))));
    assert!(fresh.is_new_trouble(&Ok(judged(Outcome::Refused))));
    assert!(fresh.is_new_trouble(&Ok(judged(Outcome::Unknown))));
    assert!(fresh.is_new_trouble(&Err(nothing("away"))));

    let refused = Known { judgement: Some(judged(Outcome::Refused)), error: None };
    assert!(!refused.is_new_trouble(&Ok(judged(Outcome::Refused))));
    assert!(refused.is_new_trouble(&Ok(judged(Outcome::Unknown))));
    assert!(!refused.is_new_trouble(&Ok(judged(Outcome::Accepted))), "a recovery is told at once");

    let away = Known { judgement: None, error: Some("away".to_owned()) };
    assert!(!away.is_new_trouble(&Err(nothing("away"))));
    assert!(away.is_new_trouble(&Err(nothing("forbidden"))));
}
