use std::collections::BTreeSet;

use jiff::{SignedDuration, tz::Disambiguation};
use proptest::prelude::*;

use super::*;

const AMSTERDAM: &str = "Europe/Amsterdam";

fn zone(name: &str) -> TimeZone {
    TimeZone::get(name).expect("it is in the database")
}

fn window(opens: &str, zone_name: &str, minutes: u64) -> Window {
    let opens = Calendar::parse(opens).expect("five fields");
    Window::new(opens, zone(zone_name), Duration::from_mins(minutes))
}

fn at(text: &str) -> Timestamp {
    text.parse().expect("a time")
}

#[track_caller]
fn opens(window: &Window, from: &str, expected: &str) {
    assert_eq!(window.open_from(at(from)), Some(at(expected)), "from {from}");
}

#[test]
fn a_window_is_open_from_its_first_second_and_no_more_when_its_time_is_over() {
    let sundays = window("0 2 * * SUN", "UTC", 240);
    opens(&sundays, "2026-11-21T12:00:00Z", "2026-11-22T02:00:00Z");
    opens(&sundays, "2026-11-22T01:59:59.999Z", "2026-11-22T02:00:00Z");
    opens(&sundays, "2026-11-22T02:00:00Z", "2026-11-22T02:00:00Z");
    opens(&sundays, "2026-11-22T05:59:59.999Z", "2026-11-22T05:59:59.999Z");
    opens(&sundays, "2026-11-22T06:00:00Z", "2026-11-29T02:00:00Z");
}

#[test]
fn windows_that_overlap_are_one() {
    let nights = window("0 22-23 * * *", "UTC", 120);
    opens(&nights, "2026-11-21T23:30:00Z", "2026-11-21T23:30:00Z");
    opens(&nights, "2026-11-22T00:59:59Z", "2026-11-22T00:59:59Z");
    opens(&nights, "2026-11-22T01:00:00Z", "2026-11-22T22:00:00Z");
}

#[test]
fn a_window_keeps_the_hour_of_wall_clocks_in_summer_and_in_winter() {
    let nights = window("30 1 * * *", AMSTERDAM, 60);
    opens(&nights, "2027-01-10T12:00:00Z", "2027-01-11T00:30:00Z");
    opens(&nights, "2027-07-10T12:00:00Z", "2027-07-10T23:30:00Z");
}

#[test]
fn an_hour_that_wall_clocks_leave_out_begins_when_they_are_moved() {
    // 2027-03-28: 01:00 UTC is 02:00 and then 03:00.
    let nights = window("30 2 * * *", AMSTERDAM, 60);
    opens(&nights, "2027-03-27T12:00:00Z", "2027-03-28T01:00:00Z");
    opens(&nights, "2027-03-28T01:59:59Z", "2027-03-28T01:59:59Z");
    opens(&nights, "2027-03-28T02:00:00Z", "2027-03-29T00:30:00Z");
    // The first minute that is skipped.
    opens(&window("0 2 * * *", AMSTERDAM, 1), "2027-03-27T12:00:00Z", "2027-03-28T01:00:00Z");
}

#[test]
fn an_hour_that_wall_clocks_show_twice_counts_once() {
    // 2027-10-31: 01:00 UTC is 03:00 and then 02:00.
    let nights = window("30 2 * * *", AMSTERDAM, 20);
    opens(&nights, "2027-10-30T12:00:00Z", "2027-10-31T00:30:00Z");
    opens(&nights, "2027-10-31T00:49:59Z", "2027-10-31T00:49:59Z");
    opens(&nights, "2027-10-31T00:50:00Z", "2027-11-01T01:30:00Z");
    let long = window("30 2 * * *", AMSTERDAM, 90);
    // It lasts as long as any other: local clocks show 02:59 the second time.
    opens(&long, "2027-10-31T01:59:59Z", "2027-10-31T01:59:59Z");
    opens(&long, "2027-10-31T02:00:00Z", "2027-11-01T01:30:00Z");
}

/// Whether a window is open, computed by testing each minute that local clocks may have shown.
fn is_open_by_the_minute(window: &Window, time: Timestamp) -> bool {
    let first = window.zone.to_datetime(time) - jiff::Span::new().hours(30);
    let first = first.with().second(0).subsec_nanosecond(0).build().expect("a time");
    let shown = (0..34 * 60).map(|minute| first + jiff::Span::new().minutes(minute));
    let ticks = shown.filter(|wall| {
        let wall = as_utc(*wall);
        window.opens.first_after(wall - Duration::from_secs(1)) == Some(wall)
    });
    let moments: BTreeSet<_> = ticks
        .map(|wall| match window.zone.to_ambiguous_timestamp(wall).offset() {
            AmbiguousOffset::Gap { .. } => {
                let late = window.zone.to_ambiguous_zoned(wall).disambiguate(Disambiguation::Later);
                // The first skipped minute maps to the very moment of the change.
                let late = late.expect("it is in range").timestamp() + Duration::from_secs(1);
                window.zone.preceding(late).next().expect("wall clocks were just moved").timestamp()
            }
            _ => window.zone.to_ambiguous_zoned(wall).earlier().expect("it is in range").timestamp(),
        })
        .collect();
    moments.iter().any(|opening| *opening <= time && time < *opening + window.open_for)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn looks_that_come_late_or_twice_find_the_same_window(
        second in 0_i64..3600 * 24 * 60,
        later in 0_i64..3600 * 24,
        minutes in 1_u64..60 * 20,
        opens in prop::sample::select(vec!["30 2 * * *", "*/20 1-3 * * *", "0 2 * * SUN", "15 0 1 * *", "* * * * *"]),
        name in prop::sample::select(vec!["UTC", AMSTERDAM, "Australia/Lord_Howe", "America/St_Johns"]),
        // Weeks in which clocks change somewhere.
        month in prop::sample::select(vec!["2027-03-01T00:00:00Z", "2027-09-20T00:00:00Z", "2027-10-15T00:00:00Z"]),
    ) {
        let window = window(opens, name, minutes);
        let time = at(month) + SignedDuration::from_secs(second);
        let open = window.open_from(time).expect("it comes again");
        prop_assert!(open >= time);
        prop_assert_eq!(window.open_from(open), Some(open), "whoever waits for it finds it open");
        // A check in between changes nothing.
        let between = (time + SignedDuration::from_secs(later)).min(open);
        prop_assert_eq!(window.open_from(between), Some(open));
        prop_assert_eq!(open == time, is_open_by_the_minute(&window, time));
    }
}
