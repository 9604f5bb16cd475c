//! The expression of a flexible federated identity credential (`claimsMatchingExpression`).
//!
//! Source: Microsoft, flexible federated identity credentials: `claims['sub'] matches 'repo:org/*:ref:?' and …`,
//! with the operators `eq` and `matches`; `*` stands for any text, `?` for one character.

use serde_json::{Map, Value};

/// Longest expression, in bytes: Microsoft allows 600 characters.
const MAX_LENGTH: usize = 2400;

/// Conditions that all must hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expression(Vec<Condition>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Condition {
    claim: String,
    operator: Operator,
    value: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operator {
    Eq,
    Matches,
}

impl Expression {
    /// Parses an expression; `None` if it is not in the documented language.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        if text.len() > MAX_LENGTH {
            return None;
        }
        let (first, mut rest) = condition(text)?;
        let mut conditions = vec![first];
        while !rest.trim().is_empty() {
            let (next, after) = condition(word(rest, "and")?)?;
            conditions.push(next);
            rest = after;
        }
        Some(Self(conditions))
    }

    /// The names of the claims that it looks at.
    pub fn claims(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|it| it.claim.as_str())
    }

    /// Whether all conditions hold for these claims.
    #[must_use]
    pub fn holds(&self, claims: &Map<String, Value>) -> bool {
        self.0.iter().all(|it| {
            let claim = claims.get(&it.claim).and_then(Value::as_str);
            claim.is_some_and(|claim| match it.operator {
                Operator::Eq => claim == it.value,
                Operator::Matches => matches(&it.value, claim),
            })
        })
    }
}

/// Reads one condition, and returns the text after it.
fn condition(text: &str) -> Option<(Condition, &str)> {
    let (claim, rest) = quoted(text.trim_start().strip_prefix("claims[")?)?;
    let rest = rest.trim_start().strip_prefix(']')?;
    let operators = [("eq", Operator::Eq), ("matches", Operator::Matches)];
    let (operator, rest) = operators.into_iter().find_map(|(name, it)| Some((it, word(rest, name)?)))?;
    let (value, rest) = quoted(rest)?;
    Some((Condition { claim: claim.to_owned(), operator, value: value.to_owned() }, rest))
}

/// The text after this word and the space around it.
fn word<'a>(text: &'a str, word: &str) -> Option<&'a str> {
    let rest = text.trim_start().strip_prefix(word)?;
    rest.starts_with([' ', '\'']).then_some(rest)
}

/// A text in single quotes, and what follows it.
fn quoted(text: &str) -> Option<(&str, &str)> {
    text.trim_start().strip_prefix('\'')?.split_once('\'')
}

/// Whether a text matches a pattern, in time proportional to the product of their lengths at most.
fn matches(pattern: &str, text: &str) -> bool {
    let (pattern, text): (Vec<char>, Vec<char>) = (pattern.chars().collect(), text.chars().collect());
    let (mut at, mut from) = (0, 0);
    // After the last `*`: where the pattern goes on, and the text that it may take next.
    let mut star: Option<(usize, usize)> = None;
    while from < text.len() {
        match pattern.get(at) {
            Some('*') => {
                at += 1;
                star = Some((at, from));
            }
            Some(&one) if one == '?' || one == text[from] => {
                at += 1;
                from += 1;
            }
            _ => {
                let Some((after, taken)) = star else { return false };
                at = after;
                from = taken + 1;
                star = Some((after, from));
            }
        }
    }
    pattern[at..].iter().all(|rest| *rest == '*')
}

#[cfg(test)]
mod tests;
