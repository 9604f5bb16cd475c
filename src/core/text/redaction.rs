//! Removes secrets from text before it is shown.
//!
//! URLs carry them in three places: the user name and password before the host, the query (a shared access
//! signature is `?…&sig=…`) and the fragment (`#access_token=…`). Libraries print whole URLs in their errors.
//! PEM and tokens may be given by mistake, and errors repeat their input; so input is kept [`brief`].

use std::{borrow::Cow, error::Error, ops::Range};

/// Replaces a secret.
const REMOVED: &str = "…";

/// Most characters of the input that a message repeats: enough for an issuer or a path.
const MAX_GIVEN: usize = 250;
/// How many of them come from its end, where JSON parsers put line and column.
const END: usize = 40;

/// Most characters of a line of evidence in a report.
const MAX_SHOWN: usize = 600;

/// Begin and end of a PEM block (RFC 7468).
const PEM_BEGIN: &str = "-----BEGIN ";
const PEM_END: &str = "-----END ";

/// Begin of a JWT: in base64url, a JSON object without white space whose first member has a name.
const TOKEN_BEGIN: &str = "eyJ";
/// Shortest text that counts as a token; a header alone does not.
const TOKEN_LENGTH: usize = 40;

/// Replaces every token, the user, query and fragment of every URL, and all PEM in a text by `…`.
#[must_use]
pub fn redact(text: &str) -> Cow<'_, str> {
    match redact_tokens(text) {
        Cow::Borrowed(text) => redact_pem(text),
        Cow::Owned(text) => Cow::Owned(redact_pem(&text).into_owned()),
    }
}

/// An error and its causes in one line, for a log, a JSON field or an Event.
#[must_use]
pub fn error_line(error: &(dyn Error + 'static)) -> String {
    redact(&causes(error).join(": ")).into_owned()
}

/// The texts of an error and its causes, outermost first and with their secrets. A cause that its parent's
/// text already ends with is left out: some libraries, `object_store` among them, print their source and
/// return it too.
#[must_use]
pub fn causes(error: &(dyn Error + 'static)) -> Vec<String> {
    let mut texts: Vec<String> = Vec::new();
    for error in std::iter::successors(Some(error), |&error| error.source()) {
        let own = error.to_string();
        if !texts.last().is_some_and(|parent| parent.trim_end().ends_with(own.trim_end())) {
            texts.push(own);
        }
    }
    texts
}

/// Replaces the secrets in each string of a JSON text by `…`.
#[must_use]
pub fn redact_json(json: &str) -> Cow<'_, str> {
    let mut shown = String::new();
    let (mut kept, mut at) = (0, 0);
    while let Some(text) = next_text(&json[at..]).map(|text| at + text.start..at + text.end) {
        at = text.end;
        let Ok(plain) = serde_json::from_str::<String>(&json[text.clone()]) else { continue };
        if let Cow::Owned(redacted) = redact(&plain) {
            shown += &json[kept..text.start];
            shown += &serde_json::Value::from(redacted).to_string();
            kept = text.end;
        }
    }
    if kept == 0 { Cow::Borrowed(json) } else { Cow::Owned(shown + &json[kept..]) }
}

/// The range of the first JSON string, with its quotation marks.
fn next_text(json: &str) -> Option<Range<usize>> {
    let start = json.find('"')?;
    let mut escaped = false;
    let end = json[start + 1..].find(|character| {
        let ends = character == '"' && !escaped;
        escaped = character == '\\' && !escaped;
        ends
    })?;
    Some(start..start + 1 + end + 1)
}

/// Replaces every JWT in a text by `…`, complete or truncated.
#[must_use]
pub fn redact_tokens(text: &str) -> Cow<'_, str> {
    let mut shown = String::new();
    let mut rest = text;
    while let Some(token) = token(rest) {
        shown.push_str(&rest[..token.start]);
        shown.push_str(REMOVED);
        rest = &rest[token.end..];
    }
    if shown.is_empty() { Cow::Borrowed(text) } else { Cow::Owned(shown + rest) }
}

/// The range of the first token.
fn token(text: &str) -> Option<Range<usize>> {
    let is_of_token = |character: char| character.is_ascii_alphanumeric() || "-_.=".contains(character);
    let mut begins = text.match_indices(TOKEN_BEGIN).map(|(start, _)| {
        let behind = &text[start..];
        let word = &behind[..behind.find(|character| !is_of_token(character)).unwrap_or(behind.len())];
        start..start + word.trim_end_matches('.').len()
    });
    begins.find(|range| range.len() >= TOKEN_LENGTH && text[range.clone()].contains('.'))
}

fn redact_pem(text: &str) -> Cow<'_, str> {
    match text.find(PEM_BEGIN) {
        // From the first block to the last: the text between may be part of one.
        Some(start) => {
            let last = text[start..].rfind(PEM_END).map_or(text.len(), |end| start + end + PEM_END.len());
            let behind = text[last..].find("-----").map_or("", |label| &text[last + label + "-----".len()..]);
            Cow::Owned(format!("{}{REMOVED}{}", redact_urls(&text[..start]), redact_urls(behind)))
        }
        None => redact_urls(text),
    }
}

/// Input without secrets, shortened to its beginning and end if it is long: it may be a whole file. It is
/// redacted first, because half a secret could not be recognised.
#[must_use]
pub fn brief(given: &str) -> Cow<'_, str> {
    match redact(given) {
        Cow::Borrowed(given) => at_most(MAX_GIVEN, given),
        Cow::Owned(given) => Cow::Owned(at_most(MAX_GIVEN, &given).into_owned()),
    }
}

/// Evidence as a report has it: without secrets, and without its middle if it is very long.
#[must_use]
pub fn evidence(text: &str) -> String {
    at_most(MAX_SHOWN, &redact(text)).into_owned()
}

/// The text, without its middle if it has more than `characters`.
#[must_use]
pub fn at_most(characters: usize, text: &str) -> Cow<'_, str> {
    let length = text.chars().count();
    if length <= characters {
        return Cow::Borrowed(text);
    }
    let at = |character: usize| text.char_indices().nth(character).map_or(text.len(), |(at, _)| at);
    let end = END.min(characters);
    Cow::Owned(format!("{}{REMOVED}{}", &text[..at(characters - end)], &text[at(length - end)..]))
}

/// The text in one line, with control characters and bidirectional formatting escaped: a foreign token could
/// make the terminal show another verdict.
#[must_use]
pub fn printable(text: &str) -> Cow<'_, str> {
    if !text.contains(draws) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        if draws(character) {
            shown += &format!("<U+{:04X}>", u32::from(character));
        } else {
            shown.push(character);
        }
    }
    Cow::Owned(shown)
}

/// Bidirectional formatting as in Unicode Standard Annex 9, section 2.
fn draws(character: char) -> bool {
    character.is_control() || matches!(character, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

fn redact_urls(text: &str) -> Cow<'_, str> {
    if !text.contains("://") {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find("://") {
        let (before, after) = rest.split_at(start + "://".len());
        let (url, behind) = after.split_at(after.find(ends_a_url).unwrap_or(after.len()));
        shown.push_str(before);
        push_redacted(&mut shown, url);
        rest = behind;
    }
    shown.push_str(rest);
    Cow::Owned(shown)
}

/// `url` is what follows `://`.
fn push_redacted(shown: &mut String, url: &str) {
    let (url, behind) = url.split_at(url.find(['?', '#']).unwrap_or(url.len()));
    // The last `@`: a password may contain one too, and a `?` as well; to lose a part of the path is the safe
    // side.
    match url.rsplit_once('@') {
        Some((_, host)) => {
            shown.push_str(REMOVED);
            shown.push('@');
            shown.push_str(host);
        }
        None if behind.contains('@') => return shown.push_str(REMOVED),
        None => shown.push_str(url),
    }
    if let Some(mark) = behind.chars().next() {
        shown.push(mark);
        shown.push_str(REMOVED);
    }
}

fn ends_a_url(character: char) -> bool {
    character.is_whitespace() || matches!(character, '`' | '"' | '\'' | '<' | '>' | ')')
}

#[cfg(test)]
mod tests;
