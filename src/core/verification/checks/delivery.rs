//! Rules of how the two documents are delivered, once they are there.

use std::time::Duration;

use super::{Basis, Case, Check, EVERYBODY, Step, Verdict, Warning, publication::answers, violated};
use crate::core::{publication::MEDIA_TYPE, verification::Answer};

/// Longest `max-age` that is not remarked on: Entra was seen to take up a new key within an hour.
const LONG_MAX_AGE: u64 = 3600;
/// How long a document may take, and how large it may be, before it is remarked on: nobody says what Entra
/// waits for.
const LONG_WAIT: Duration = Duration::from_secs(5);
const LARGE: usize = 64 * 1024;

pub(super) const CHECKS: &[Check] = &[
    Check {
        id: "PUB-REDIR",
        rule: "they are served without a redirect; whether Entra follows one is not documented",
        level: Warning,
        parties: EVERYBODY,
        codes: &[501_661],
        basis: Basis::inferred("not documented"),
        step: Step::Metadata,
        judge: nothing_redirects,
    },
    Check {
        id: "PUB-SLOW",
        rule: "each comes within 5 s and has at most 64 KiB; what Entra waits for is not documented",
        level: Warning,
        parties: EVERYBODY,
        codes: &[501_661],
        basis: Basis::inferred("not documented"),
        step: Step::Metadata,
        judge: they_are_small_and_quick,
    },
    Check {
        id: "PUB-CTYPE",
        rule: "both are `application/json`; what Entra demands is not documented",
        level: Warning,
        parties: EVERYBODY,
        codes: &[],
        basis: Basis::inferred("OpenID Connect Discovery 1.0 section 4.2"),
        step: Step::Metadata,
        judge: they_are_json,
    },
    Check {
        id: "PUB-CACHE",
        rule: "caches keep them for an hour at most, and two reads show the same",
        level: Warning,
        parties: EVERYBODY,
        codes: &[7_000_272],
        basis: Basis::inferred("RFC 9111"),
        step: Step::Key,
        judge: caches_forget_in_time,
    },
];

fn nothing_redirects(case: &Case) -> Verdict {
    answers(case, |what, answer| {
        let last = answer.redirects.last()?;
        Some(violated(
            format!("{what} at {} is redirected to {last}", answer.url),
            "the document itself",
            "serve it without a redirect",
        ))
    })
}

fn they_are_small_and_quick(case: &Case) -> Verdict {
    answers(case, |what, answer| {
        let (took, size) = (answer.took, answer.bytes.len());
        (took > LONG_WAIT || size > LARGE).then(|| {
            violated(
                format!("{what} at {}: {size} bytes in {:.1} s", answer.url, took.as_secs_f64()),
                "64 KiB within 5 s at most",
                "serve it from an object store or a CDN, with the keys that are in use alone",
            )
        })
    })
}

fn they_are_json(case: &Case) -> Verdict {
    answers(case, |what, answer| {
        let found = answer.content_type.as_deref().unwrap_or("none");
        let base = found.split(';').next().unwrap_or(found).trim();
        let is_json = base == MEDIA_TYPE || base == "application/jwk-set+json";
        (answer.status == 200 && !is_json).then(|| {
            violated(
                format!("{what} at {} has content type `{found}`", answer.url),
                format!("`{MEDIA_TYPE}`"),
                "publish it with `signpost sync`, which sets it",
            )
        })
    })
}

/// `max-age` of a `Cache-Control` (RFC 9111 section 5.2.2.1), in seconds.
fn max_age(answer: &Answer) -> Option<u64> {
    let directives = answer.cache_control.as_deref()?.split(',');
    directives
        .filter_map(|directive| directive.trim().strip_prefix("max-age="))
        .find_map(|age| age.parse().ok())
}

fn caches_forget_in_time(case: &Case) -> Verdict {
    let fix =
        "publish with a `max-age` of at most an hour, as `signpost sync` does, and empty the cache in front";
    answers(case, |what, answer| {
        let max_age = max_age(answer);
        let age = answer.age.map_or(0, |age| age.as_secs());
        let seen = match max_age {
            Some(seconds) if seconds > LONG_MAX_AGE => format!("caches may keep the {what} for {seconds} s"),
            _ if age > max_age.unwrap_or(LONG_MAX_AGE) => {
                format!("the {what} comes from a cache that has kept it for {age} s")
            }
            _ if answer.again.is_some_and(|again| !again.same_bytes) => {
                format!("two reads of the {what}, a moment apart, show two documents")
            }
            _ => return None,
        };
        Some(violated(seen, "the same at every edge, an hour old at most", fix))
    })
}
