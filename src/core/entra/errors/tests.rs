use std::collections::BTreeSet;

use super::*;

#[test]
fn each_code_has_one_row() {
    let codes: BTreeSet<_> = ERRORS.iter().map(|row| row.code).collect();
    assert_eq!(codes.len(), ERRORS.len());
}

#[test]
fn a_newer_code_is_read_as_the_one_that_it_refines() {
    let code = |code| explain(code).map(|row| row.code);
    assert_eq!(code(7_002_139), Some(700_213), "a code that nobody knows yet");
    assert_eq!(code(7_002_138), Some(7_002_138), "it has a row of its own");
    assert_eq!(code(70_021), Some(70_021));
    assert_eq!(code(12), None);
    assert_eq!(code(999_999), None);
}

#[test]
fn rows_are_one_line_each_and_say_what_helps() {
    for row in ERRORS {
        let is_line = |text: &str| !text.is_empty() && !text.contains(['\n', '|']) && !text.ends_with('.');
        assert!(is_line(row.meaning) && is_line(row.fix), "{}", row.code);
    }
}
