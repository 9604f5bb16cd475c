use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

fn holds(expression: &str, claims: &Value) -> bool {
    Expression::parse(expression).expect("an expression").holds(claims.as_object().expect("an object"))
}

/// Microsoft, flexible federated identity credentials: the examples.
#[test]
fn the_documented_examples_are_understood() {
    let claims = json!({
        "sub": "repo:contoso/contoso-repo:ref:refs/heads/main",
        "job_workflow_ref": "foo-org/bar-repo/.github/workflows/build.yml@refs/heads/main",
    });
    assert!(holds("claims['sub'] matches 'repo:contoso/contoso-repo:ref:refs/heads/*'", &claims));
    assert!(holds("claims['sub'] eq 'repo:contoso/contoso-repo:ref:refs/heads/main'", &claims));
    assert!(holds("claims['sub'] matches 'repo:contoso/contoso-rep?:*'", &claims));
    let both = "claims['sub'] matches 'repo:contoso/*' and claims['job_workflow_ref'] matches 'foo-org/bar-repo/.github/workflows/*@refs/heads/main'";
    assert!(holds(both, &claims));
    assert!(!holds("claims['sub'] matches 'repo:contoso/*' and claims['job_workflow_ref'] eq 'x'", &claims));
    assert!(!holds("claims['sub'] eq 'repo:contoso/*'", &claims), "`eq` knows no wildcard");
    assert!(!holds("claims['missing'] matches '*'", &claims));
    assert!(!holds("claims['sub'] matches 'REPO:*'", &claims), "case counts");
}

#[test]
fn another_language_is_not_understood() {
    for text in [
        "",
        "claims['sub']",
        "claims['sub'] like 'x'",
        "claims[sub] eq 'x'",
        "claims['sub'] eq 'x' or claims['sub'] eq 'y'",
        "claims['sub'] eq 'x' and",
        "claims['sub'] eqx 'x'",
        "claims['sub'] eq 'x' claims['sub'] eq 'x'",
    ] {
        assert_eq!(Expression::parse(text), None, "{text}");
    }
}

/// The definition of a match, by recursion.
fn matches_by_definition(pattern: &[char], text: &[char]) -> bool {
    match (pattern, text) {
        ([], []) => true,
        (['*', rest @ ..], _) => (0..=text.len()).any(|taken| matches_by_definition(rest, &text[taken..])),
        (['?', pattern @ ..], [_, text @ ..]) => matches_by_definition(pattern, text),
        ([one, pattern @ ..], [other, text @ ..]) if one == other => matches_by_definition(pattern, text),
        _ => false,
    }
}

proptest! {
    #[test]
    fn a_match_is_what_its_definition_says(pattern in "[ab*?]{0,8}", text in "[ab]{0,10}") {
        let [by, of] = [&pattern, &text].map(|it| it.chars().collect::<Vec<_>>());
        prop_assert_eq!(matches(&pattern, &text), matches_by_definition(&by, &of));
    }

    #[test]
    fn no_text_makes_it_panic(text in "\\PC*") {
        drop(Expression::parse(&text));
    }
}
