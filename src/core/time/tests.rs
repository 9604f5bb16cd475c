use std::time::Duration;

use jiff::Timestamp;

use super::later;

#[test]
fn what_is_beyond_the_last_time_never_comes() {
    let last_minute = Timestamp::MAX - Duration::from_mins(1);
    assert_eq!(Timestamp::MAX, later(last_minute, Duration::from_mins(2)));
    assert_eq!(Timestamp::MAX, later(Timestamp::MIN, Duration::MAX));
    assert_eq!(Timestamp::MAX, later(last_minute, Duration::from_mins(1)));
}
