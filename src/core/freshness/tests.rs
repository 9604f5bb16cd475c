use proptest::prelude::*;

use super::*;

const NOW: Timestamp = Timestamp::constant(1_796_000_000, 0);
const DAY: i64 = 24 * 3600;

/// `seconds` after now, as an HTTP date.
fn date(seconds: i64) -> String {
    let time = NOW + SignedDuration::from_secs(seconds);
    jiff::fmt::rfc2822::DateTimePrinter::new().timestamp_to_rfc9110_string(&time).expect("in range")
}

/// `Cache-Control` and, in seconds from now, `Expires`, `Date` and `Last-Modified`.
fn fields(cache_control: &str, [expires, sent, modified]: [Option<i64>; 3]) -> CacheFields {
    CacheFields {
        cache_control: (!cache_control.is_empty()).then(|| cache_control.to_owned()),
        expires: expires.map(date),
        date: sent.map(date),
        last_modified: modified.map(date),
    }
}

/// Computed with cachecontrol 0.1.0, as go-oidc 2.5 in kube-apiserver 1.37.1 uses it.
#[test]
fn well_formed_fields_are_counted_as_kube_apiserver_counts_them() {
    let old = Some(-100 * DAY);
    for (cache_control, times, expected) in [
        ("", [None, None, None], 0),
        ("public, max-age=300", [None, None, None], 300),
        ("public, max-age=300", [None, Some(0), old], 300),
        ("max-age=60, s-maxage=86400", [None, None, None], 86400),
        ("s-maxage=30, max-age=86400", [None, None, None], 30),
        ("s-maxage=0, max-age=300", [None, None, None], 0),
        ("no-cache", [None, None, Some(-10 * DAY)], 86400),
        ("no-store", [None, None, old], 86400),
        ("no-cache, no-store, must-revalidate", [None, None, None], 0),
        ("no-store, max-age=300", [None, None, None], 300),
        ("max-age=0", [None, None, old], 0),
        ("", [None, None, old], 86400),
        ("", [None, None, Some(-1000)], 100),
        ("", [None, None, Some(1000)], 0),
        ("", [Some(3600), Some(0), old], 3600),
        ("", [Some(3600), Some(-3600), None], 7200),
        ("", [Some(3600), None, None], 3600),
        ("", [Some(-3600), Some(0), old], 0),
        ("private, max-age=300", [None, None, None], 300),
        ("MAX-AGE=300", [None, None, None], 300),
        ("max-age=\"300\"", [None, None, None], 300),
        ("max-age=99999999999999999999", [None, None, None], 2_147_483_647),
        ("max-age=4294967296", [None, None, None], 2_147_483_647),
        ("max-age=300, max-age=60", [None, None, None], 60),
        ("no-cache=\"set-cookie, max-age=9\", max-age=300", [None, None, None], 300),
        ("max-age=300,", [None, None, None], 300),
        (",,max-age=300", [None, None, None], 300),
        ("foo=bar max-age=300", [None, None, None], 300),
        ("stale-while-revalidate=60, max-age=300", [None, None, None], 300),
        ("immutable, max-age=300", [None, None, None], 300),
    ] {
        let found = fields(cache_control, times).freshness(NOW).lifetime.as_secs();
        assert_eq!(expected, found, "{cache_control:?} {times:?}");
    }
    let unreadable = CacheFields { expires: Some("0".to_owned()), ..fields("", [None, None, old]) };
    assert_eq!(86400, unreadable.freshness(NOW).lifetime.as_secs());
}

/// kube-apiserver does not cache such responses. Others may guess, so the longer time counts.
#[test]
fn fields_that_are_wrong_are_counted_as_if_they_were_not_there() {
    for cache_control in
        ["max-age", "max-age=", "max-age=-1", "max-age=300s", "max-age = 300", "max-age=300;a"]
    {
        let freshness = fields(cache_control, [None, None, Some(-100 * DAY)]).freshness(NOW);
        assert_eq!(Some(Field::LastModified), freshness.by, "{cache_control}");
    }
}

#[test]
fn libraries_that_pass_over_s_maxage_go_by_max_age() {
    let longest = |cache_control| fields(cache_control, [None; 3]).longest(NOW).lifetime.as_secs();
    assert_eq!(86400, longest("s-maxage=30, max-age=86400"));
    assert_eq!(86400, longest("s-maxage=86400, max-age=30"));
}

fn any_fields() -> impl Strategy<Value = CacheFields> {
    let seconds = || prop::option::of(0..3 * DAY);
    let time = || prop::option::of(-400 * DAY..400 * DAY);
    let words = prop::sample::subsequence(vec!["no-cache", "no-store", "public", "private"], 0..4);
    (seconds(), seconds(), words, time(), time(), time()).prop_map(
        |(max_age, s_maxage, words, expires, sent, modified)| {
            let mut directives: Vec<_> = words.into_iter().map(str::to_owned).collect();
            directives.extend(max_age.map(|seconds| format!("max-age={seconds}")));
            directives.extend(s_maxage.map(|seconds| format!("s-maxage={seconds}")));
            fields(&directives.join(", "), [expires, sent, modified])
        },
    )
}

proptest! {
    /// Whenever it is read, and however old the document is.
    #[test]
    fn nothing_is_kept_for_longer_than_the_longest(fields in any_fields(), later in 0..800 * DAY) {
        let then = NOW + SignedDuration::from_secs(later);
        // `Expires` without `Date` shrinks; no explicit lifetime grows.
        prop_assert!(fields.freshness(then).lifetime <= fields.longest(NOW).lifetime);
        prop_assert!(fields.freshness(NOW).lifetime <= fields.longest(NOW).lifetime);
    }

    /// A directive without a time has no effect.
    #[test]
    fn only_numbers_and_dates_count(fields in any_fields()) {
        let text = fields.cache_control.clone().unwrap_or_default();
        let numbers = text.split(", ").filter(|directive| directive.contains('=')).collect::<Vec<_>>();
        let bare = CacheFields { cache_control: Some(numbers.join(", ")), ..fields.clone() };
        prop_assert_eq!(bare.freshness(NOW), fields.freshness(NOW));
    }

    #[test]
    fn any_text_is_counted_somehow(text in "[ -~]{0,60}", date in "[ -~]{0,40}") {
        let date = Some(date);
        let fields = CacheFields {
            cache_control: Some(text),
            expires: date.clone(),
            date: date.clone(),
            last_modified: date,
        };
        prop_assert!(fields.freshness(NOW).lifetime <= fields.longest(NOW).lifetime);
    }
}
