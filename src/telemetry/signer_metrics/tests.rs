use super::*;

fn meter() -> SignerMetrics {
    SignerMetrics::new(NodeName::parse("cp-1").expect("a name"))
}

#[test]
fn answers_are_counted_by_what_became_of_them_and_signatures_are_timed() {
    let meter = meter();
    meter.answered(SignOutcome::Signed, Duration::from_micros(500));
    meter.answered(SignOutcome::Signed, Duration::from_micros(501));
    meter.answered(SignOutcome::Signed, Duration::from_secs(3));
    meter.answered(SignOutcome::Failed, Duration::from_mins(1));
    let answers: Vec<_> = meter.answers().map(|(outcome, count)| (outcome.name(), count)).collect();
    assert_eq!(answers, [("signed", 3), ("unavailable", 0), ("refused", 0), ("failed", 1)]);
    let Durations { seconds, count, buckets } = meter.durations();
    assert_eq!((count, (seconds * 1e6).round()), (3, 3_001_001.0));
    let counts: Vec<_> = buckets.iter().map(|(_, count)| *count).collect();
    assert_eq!(counts, [1, 1, 0, 0, 0, 0, 0, 0, 1]);
    assert_eq!(buckets.last().map(|(bound, _)| *bound), Some(f64::INFINITY), "no signature takes longer");
}

#[test]
fn bounds_rise() {
    assert!(BOUNDS.is_sorted_by(|a, b| a < b));
}
