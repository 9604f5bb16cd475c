use proptest::prelude::*;

use super::{Difference, Kind};

#[track_caller]
fn shows(seen: &str, expected: &str, kind: Kind, lines: [&str; 3]) {
    let difference = Difference::between(seen, expected).expect("they differ");
    assert_eq!(kind, difference.kind());
    assert_eq!(lines.map(str::to_owned), difference.lines());
}

#[test]
fn every_kind_of_difference_is_shown_where_it_is() {
    shows(
        "https://a/b",
        "https://a/b/",
        Kind::FinalSlash,
        ["https://a/b", "https://a/b/", "           ^ the final `/` is missing"],
    );
    shows(
        "https://a/",
        "https://a",
        Kind::FinalSlash,
        ["https://a/", "https://a", "         ^ an extra final `/`"],
    );
    shows(
        "team:App",
        "team:app",
        Kind::Case,
        ["team:App", "team:app", "     ^ `A` instead of `a`: case counts"],
    );
    shows(" x", "x", Kind::WhiteSpace, ["␠x", "x", "^ `␠` instead of `x`"]);
    shows("x\n", "x", Kind::WhiteSpace, ["x␊", "x", " ^ extra text from `␊`"]);
    shows("te\u{430}m", "team", Kind::Unusual, ["te<U+0430>m", "team", "  ^ `<U+0430>` instead of `a`"]);
    shows("vault", "team", Kind::Other, ["vault", "team", "^ another text from here on"]);
    shows("x", "xyz", Kind::Other, ["x", "xyz", " ^ missing text from `y`"]);
    shows(
        "\u{200b}ab",
        "\u{200b}ac",
        Kind::Unusual,
        ["<U+200B>ab", "<U+200B>ac", "         ^ `b` instead of `c`"],
    );
}

#[test]
fn no_secret_is_shown_and_of_long_texts_only_what_differs() {
    shows(
        "https://user:secret@a/b",
        "https://user:secret@a/c",
        Kind::Other,
        ["https://<U+2026>@a/b", "https://<U+2026>@a/c", "                   ^ `b` instead of `c`"],
    );
    let difference = Difference::between("https://user:one@a", "https://user:two@a").expect("they differ");
    assert_eq!(difference.to_string(), "in a secret, which is not shown");
    let (before, after) = ("a".repeat(1000), "b".repeat(1000));
    let difference = Difference::between(&format!("{before}x{after}"), &format!("{before}y{after}"));
    let lines = difference.expect("they differ").lines();
    assert!(lines.iter().all(|line| line.chars().count() < 350), "{lines:?}");
    assert!(lines[0].contains('x') && lines[2].ends_with("^ `x` instead of `y`"), "{lines:?}");
}

/// Short texts of few characters are often similar.
fn text() -> impl Strategy<Value = String> {
    prop_oneof![4 => "[ab/A \u{430}]{0,4}", 1 => ".{0,6}"]
}

proptest! {
    #[test]
    fn texts_differ_unless_they_are_the_same(seen in text(), expected in text()) {
        prop_assert_eq!(seen != expected, Difference::between(&seen, &expected).is_some());
    }

    #[test]
    fn the_mark_stands_below_the_first_character_that_differs(seen in text(), expected in text()) {
        let Some(difference) = Difference::between(&seen, &expected) else { return Ok(()) };
        let [seen, expected, mark] = difference.lines();
        let column = mark.chars().take_while(|character| *character == ' ').count();
        let begin = |line: &str| line.chars().take(column).collect::<String>();
        prop_assert_eq!(begin(&seen), begin(&expected));
        let rest = |line: &str| line.chars().skip(column).collect::<String>();
        prop_assert_ne!(rest(&seen), rest(&expected));
        prop_assert!(seen.chars().count() >= column && expected.chars().count() >= column);
    }

    #[test]
    fn it_is_of_the_same_kind_seen_from_the_other_side(seen in text(), expected in text()) {
        let kind = |a: &str, b: &str| Difference::between(a, b).map(|difference| difference.kind());
        prop_assert_eq!(kind(&seen, &expected), kind(&expected, &seen));
    }

    #[test]
    fn what_is_shown_has_no_character_that_cannot_be_seen(seen in text(), expected in text()) {
        let Some(difference) = Difference::between(&seen, &expected) else { return Ok(()) };
        for line in difference.lines() {
            prop_assert!(line.chars().all(|c| matches!(c, ' '..='~' | '␠' | '␉' | '␊' | '␍')), "{line:?}");
        }
    }
}
