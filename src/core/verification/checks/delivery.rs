//! Rules of how the two documents are delivered, once they exist.

use std::time::Duration;

use super::{
    Basis, Check, CheckResult, CheckStage, Context, EVERYBODY, Warning, publication::answers, violated,
};
use crate::core::jose::publication::{MEDIA_TYPE, is_json};

/// Longest cache lifetime without a finding: Entra was observed to use a new key within an hour.
const LONG_LIFE: Duration = Duration::from_hours(1);
/// Longest response time and largest document without a finding: Entra's limits are undocumented.
const LONG_WAIT: Duration = Duration::from_secs(5);
const LARGE: usize = 64 * 1024;

pub(super) const CHECKS: &[Check] = &[
    Check {
        id: "PUB-REDIR",
        rule: "they are served without a redirect: jwks-rsa, PyJWT and jose read no JWKS behind one; whether Entra \
               follows one is not documented",
        level: Warning,
        parties: EVERYBODY,
        codes: &[501_661],
        basis: Basis::inferred("not documented"),
        step: CheckStage::Metadata,
        judge: nothing_redirects,
    },
    Check {
        id: "PUB-SLOW",
        rule: "each comes within 5 s and has at most 64 KiB; what Entra waits for is not documented",
        level: Warning,
        parties: EVERYBODY,
        codes: &[501_661],
        basis: Basis::inferred("not documented"),
        step: CheckStage::Metadata,
        judge: they_are_small_and_quick,
    },
    Check {
        id: "PUB-CTYPE",
        rule: "both are `application/json`: Spring Security and openidconnect (Rust) refuse a discovery document of \
               another type; what Entra demands is not documented",
        level: Warning,
        parties: EVERYBODY,
        codes: &[],
        basis: Basis::inferred("OpenID Connect Discovery 1.0 section 4.2"),
        step: CheckStage::Metadata,
        judge: they_are_json,
    },
    Check {
        id: "PUB-CODING",
        rule: "they are not compressed unless the reader asks for it; whether Entra undoes it is not documented",
        level: Warning,
        parties: EVERYBODY,
        codes: &[501_661],
        basis: Basis::inferred("RFC 9110 section 12.5.3"),
        step: CheckStage::Metadata,
        judge: they_are_not_encoded,
    },
    Check {
        id: "PUB-CACHE",
        rule: "caches keep them for an hour at most, and two reads show the same",
        level: Warning,
        parties: EVERYBODY,
        codes: &[7_000_272],
        basis: Basis::inferred("RFC 9111"),
        step: CheckStage::Key,
        judge: caches_forget_in_time,
    },
];

fn nothing_redirects(case: &Context) -> CheckResult {
    answers(case, |what, answer| {
        let last = answer.redirects.last()?;
        let fix = if what == "JWKS" {
            "serve it without a redirect: jwks-rsa, PyJWT and jose do not follow one"
        } else {
            "serve it without a redirect"
        };
        Some(violated(
            format!("{what} at {} is redirected to {last}", answer.url),
            "the document itself",
            fix,
        ))
    })
}

fn they_are_small_and_quick(case: &Context) -> CheckResult {
    answers(case, |what, answer| {
        let (took, size) = (answer.took, answer.bytes.len());
        (took > LONG_WAIT || size > LARGE).then(|| {
            violated(
                format!("{what} at {}: {size} bytes in {:.1} s", answer.url, took.as_secs_f64()),
                "64 KiB within 5 s at most",
                "serve it from an object store or a CDN, with only the keys in use",
            )
        })
    })
}

fn they_are_json(case: &Context) -> CheckResult {
    answers(case, |what, answer| {
        let found = answer.content_type.as_deref();
        (answer.status == 200 && !is_json(found)).then(|| {
            let found = found.unwrap_or("none");
            violated(
                format!("{what} at {} has content type `{found}`", answer.url),
                format!("`{MEDIA_TYPE}`"),
                "serve it as JSON: `signpost sync` sets the content type in a store; configure it in a web server",
            )
        })
    })
}

fn they_are_not_encoded(case: &Context) -> CheckResult {
    answers(case, |what, answer| {
        let coding = answer.content_coding.as_ref()?;
        Some(violated(
            format!(
                "{what} at {} has `Content-Encoding: {coding}` although it was not requested",
                answer.url
            ),
            "the document as it is",
            "store it without `Content-Encoding`: `signpost sync` does; a proxy must heed `Accept-Encoding`",
        ))
    })
}

fn caches_forget_in_time(case: &Context) -> CheckResult {
    let fix = "send it with `Cache-Control: public, max-age=300`, as `signpost sync` sets it where that is \
               possible, and empty the cache in front; `no-cache` and `no-store` do not help, because \
               kube-apiserver ignores them";
    answers(case, |what, answer| {
        let longest = answer.cache.longest(case.evidence.now);
        let allowed = longest.by.map_or(LONG_LIFE, |_| longest.lifetime);
        let age = answer.age.unwrap_or_default();
        let seen = match () {
            () if longest.lifetime > LONG_LIFE => format!("caches may keep the {what} for {longest}"),
            () if age > allowed => {
                format!("the {what} comes from a cache that has kept it for {} s", age.as_secs())
            }
            () if answer.again.is_some_and(|again| !again.same_bytes) => {
                format!("two reads of the {what}, a moment apart, show two documents")
            }
            () => return None,
        };
        Some(violated(seen, "the same document from every cache, at most one hour old", fix))
    })
}
