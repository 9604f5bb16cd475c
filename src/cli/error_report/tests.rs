use std::{error::Error, fmt};

use object_store::{ObjectStore, ObjectStoreExt as _, PutMode, memory::InMemory, path::Path};

use super::{ExitStatus, Style, render};

#[test]
fn each_cause_has_its_own_line_and_the_hint_comes_last() {
    let error =
        chain(&["cannot publish to target `eu`", "cannot write `openid/v1/jwks`", "access denied (403)"]);
    assert_eq!(
        "error: cannot publish to target `eu`
  cause: cannot write `openid/v1/jwks`
  cause: access denied (403)
  hint: the writer needs `s3:PutObject`",
        render(&error, Some("the writer needs `s3:PutObject`"), Style::Plain)
    );
}

#[test]
fn a_cause_that_its_parent_prints_too_is_shown_once() {
    let error = chain(&[
        "upload failed: connection reset: broken pipe",
        "connection reset: broken pipe",
        "broken pipe",
    ]);
    assert_eq!("error: upload failed: connection reset: broken pipe", render(&error, None, Style::Plain));
}

#[test]
fn a_cause_below_one_that_was_left_out_is_shown() {
    let error = chain(&["upload failed: reset", "reset", "the cable is out"]);
    assert_eq!("error: upload failed: reset\n  cause: the cable is out", render(&error, None, Style::Plain));
}

#[tokio::test]
async fn an_error_of_object_store_says_everything_once() {
    let store = InMemory::new();
    let path = Path::from("openid/v1/jwks");
    store.put(&path, "x".into()).await.expect("fresh store");
    let refused = store.put_opts(&path, "y".into(), PutMode::Create.into()).await.expect_err("taken");
    let shown = render(&refused, None, Style::Plain);
    assert_eq!(1, shown.matches("Object already exists at that location").count(), "{shown}");
}

#[test]
fn further_lines_are_indented_below_their_own_paragraph() {
    let error = chain(&["2 problems in `config.yaml`\nlisten: a\n  hint: b\n", "first\n\nsecond"]);
    assert_eq!(
        "error: 2 problems in `config.yaml`
  listen: a
    hint: b
  cause: first
    second
  hint: one
    two",
        render(&error, Some("one\ntwo"), Style::Plain)
    );
}

#[test]
fn signatures_and_passwords_in_urls_are_not_shown() {
    let error = chain(&[
        "cannot read `https://u:pw@a.example/jwks`",
        "GET https://a.example/jwks?se=1&sig=pw2 failed",
    ]);
    assert_eq!(
        "error: cannot read `https://…@a.example/jwks`\n  cause: GET https://a.example/jwks?… failed",
        render(&error, None, Style::Plain)
    );
}

#[test]
fn what_a_stranger_wrote_draws_nothing() {
    let error = chain(&["kid `\u{1b}[2J` is bad\n\u{7}"]);
    assert_eq!("error: kid `<U+001B>[2J` is bad\n  <U+0007>", render(&error, None, Style::Plain));
}

#[test]
fn only_the_word_error_is_coloured() {
    assert_eq!("\u{1b}[1;31merror\u{1b}[0m: no", render(&chain(&["no"]), None, Style::Coloured));
}

#[test]
fn exit_codes_are_zero_one_and_two() {
    assert_eq!(
        [0, 1, 2],
        [ExitStatus::Success, ExitStatus::Negative, ExitStatus::Failure].map(ExitStatus::code)
    );
}

#[derive(Debug)]
struct Layer {
    text: &'static str,
    cause: Option<Box<Self>>,
}

impl fmt::Display for Layer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text)
    }
}

impl Error for Layer {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.cause.as_deref().map(|cause| cause as _)
    }
}

fn chain(texts: &[&'static str]) -> Layer {
    let (text, causes) = texts.split_first().expect("at least one");
    Layer { text, cause: (!causes.is_empty()).then(|| Box::new(chain(causes))) }
}
