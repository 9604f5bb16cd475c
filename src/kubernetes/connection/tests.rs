use http::{HeaderMap, HeaderValue, header::DATE};

use super::server_time;

#[test]
fn the_time_of_the_server_is_its_date_header() {
    let read = |text| server_time(&HeaderMap::from_iter([(DATE, HeaderValue::from_static(text))]));
    assert_eq!("2026-11-21T02:24:25Z".parse().ok(), read("Sat, 21 Nov 2026 02:24:25 GMT"));
    assert_eq!(None, read("now"));
    assert_eq!(None, server_time(&HeaderMap::new()));
}
