use crate::core::{
    jose::jwk::Jwk,
    ledger::{
        Ledger, Lineage,
        merge::{Merged, SourceAnswer, SourceReport, merge},
    },
    tests::{impostor, known, rsa_key, terms},
};

fn report(source: &str, answer: SourceAnswer) -> SourceReport {
    SourceReport { source: source.to_owned(), answer }
}

fn keys(source: &str, keys: &[Jwk]) -> SourceReport {
    report(source, SourceAnswer::Keys(keys.to_vec()))
}

fn listed(merged: &Merged) -> Vec<Jwk> {
    merged.listed.values().cloned().collect()
}

fn empty() -> Ledger {
    Ledger::new(terms().issuer, Lineage::from_random([1; 8]))
}

#[test]
fn the_union_of_all_answers_is_listed() {
    let merged = merge(&empty(), &[keys("a", &[rsa_key(1), rsa_key(2)]), keys("b", &[rsa_key(1)])]);
    assert_eq!((2, true), (merged.listed.len(), merged.complete));
}

#[test]
fn a_source_that_fails_or_was_not_asked_leaves_the_result_incomplete() {
    for silence in [SourceAnswer::Failed, SourceAnswer::NotYetAsked] {
        let merged = merge(&empty(), &[keys("a", &[rsa_key(1)]), report("b", silence)]);
        assert_eq!((vec![rsa_key(1)], false), (listed(&merged), merged.complete));
    }
}

#[test]
fn an_answer_that_contradicts_the_ledger_is_rejected_as_a_whole_and_both_are_named() {
    let liar = keys("liar", &[impostor(1), rsa_key(2)]);
    let merged = merge(&known(&[], &[rsa_key(1)]), &[liar]);
    assert_eq!((0, false), (merged.listed.len(), merged.complete));
    assert_eq!(
        format!(
            "kid `{}` names two different keys, one from source `liar`, one from the ledger",
            rsa_key(1).kid()
        ),
        merged.conflicts[0].to_string()
    );
}

#[test]
fn of_two_sources_the_one_whose_key_has_the_derived_kid_is_right_in_any_order() {
    let (honest, liar) = (keys("honest", &[rsa_key(1)]), keys("liar", &[impostor(1)]));
    for reports in [[honest.clone(), liar.clone()], [liar, honest]] {
        let merged = merge(&empty(), &reports);
        assert_eq!(vec![rsa_key(1)], listed(&merged));
        assert_eq!(
            ("liar", "source `honest`"),
            (&*merged.conflicts[0].newcomer, &*merged.conflicts[0].incumbent)
        );
    }
}

#[test]
fn a_lie_that_got_into_the_ledger_does_not_keep_the_truth_out() {
    let fooled = known(&[], &[impostor(1)]);
    let merged = merge(&fooled, &[keys("honest", &[rsa_key(1)])]);
    assert_eq!((vec![rsa_key(1)], true), (listed(&merged), merged.complete));
}
