//! Resolves a kid from its full name or a prefix.

use std::collections::BTreeSet;

use super::Failure;
use crate::core::{jose::kid::Kid, text::redaction::printable};

/// Shortest accepted prefix of a kid: a shorter one is more likely a mistake.
const LEAST: usize = 4;

/// The known kid that is meant. `hint` names the command that lists them.
pub(super) fn kid<'a>(
    given: &str,
    known: impl IntoIterator<Item = &'a str>,
    hint: &str,
) -> Result<Kid, Failure> {
    let parsed = |kid: &str| Kid::parse(kid).map_err(|error| Failure::new(&error, Some(hint)));
    // Narrow tables shorten a kid with an ellipsis.
    let beginning = given.strip_suffix('…').unwrap_or(given);
    let known: BTreeSet<&str> = known.into_iter().collect();
    // A kid may be given literally or in its printed form, which may be the literal form of another one.
    if known.contains(given) {
        return parsed(given);
    }
    let shown: Vec<_> = known.iter().filter(|kid| printable(kid) == given).collect();
    if let [only] = shown.as_slice() {
        return parsed(only);
    }
    let is_meant = |kid: &&str| kid.starts_with(beginning) || printable(kid).starts_with(beginning);
    let meant: Vec<&str> = known.into_iter().filter(is_meant).collect();
    match meant.as_slice() {
        [] => Err(Failure::plain(&format!("kid `{given}` is unknown"), hint)),
        _ if beginning.chars().count() < LEAST => {
            let text = format!("`{given}` is too short for a kid, expected at least {LEAST} characters");
            Err(Failure::plain(&text, hint))
        }
        [only] => parsed(only),
        several => {
            let kids: Vec<_> = several.iter().map(|kid| format!("`{}`", printable(kid))).collect();
            let text = format!("`{given}` matches {} kids: {}", kids.len(), kids.join(", "));
            Err(Failure::plain(&text, "pass more characters of it"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picked(given: &str) -> Result<String, String> {
        let known = ["abcd-one", "abcd-two", "abcd", "other-key"];
        kid(given, known, "look").map(|kid| kid.to_string()).map_err(|failure| failure.text)
    }

    #[test]
    fn a_kid_that_cannot_be_typed_is_known_as_it_is_shown() {
        let shown = printable("a\tkey");
        let known = ["a\tkey", "a\tkey-2", "another"];
        let meant =
            |known: &[&str]| kid(&shown, known.iter().copied(), "look").map(|kid| kid.as_str().to_owned());
        assert_eq!(meant(&known).map_err(|failure| failure.text).as_deref(), Ok("a\tkey"));
        let literal = [known.as_slice(), &[&shown]].concat();
        assert_eq!(
            meant(&literal).map_err(|failure| failure.text).as_deref(),
            Ok(&*shown),
            "it is one itself"
        );
    }

    #[test]
    fn a_kid_is_known_by_its_beginning_if_that_is_of_no_other() {
        assert_eq!(picked("other-key").as_deref(), Ok("other-key"));
        assert_eq!(picked("othe").as_deref(), Ok("other-key"));
        assert_eq!(picked("other-k…").as_deref(), Ok("other-key"), "as it is printed where there is no room");
        assert_eq!(picked("abcd").as_deref(), Ok("abcd"), "a whole one is meant as it is");
        let several = picked("abcd-").expect_err("of two");
        assert!(several.contains("`abcd-` matches 2 kids: `abcd-one`, `abcd-two`"), "{several}");
        for (given, why) in [("oth", "too short"), ("", "too short"), ("othr", "is unknown"), ("…", "short")]
        {
            let error = picked(given).expect_err(given);
            assert!(error.contains(why), "{error}");
        }
    }
}
