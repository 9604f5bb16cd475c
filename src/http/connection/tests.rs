use super::{FIRST_REQUEST, IDLE, Patience};

#[test]
fn a_connection_that_brings_no_request_soon_is_ended() {
    let mut patience = Patience::default();
    assert_eq!(Some(FIRST_REQUEST), patience.wait(0));
    assert_eq!(None, patience.wait(0));
}

#[test]
fn a_connection_lives_for_as_long_as_requests_come_now_and_then() {
    let mut patience = Patience::default();
    assert_eq!(Some(FIRST_REQUEST), patience.wait(0));
    for requests in [1, 2, 1000, u32::MAX, 0] {
        assert_eq!(Some(IDLE), patience.wait(requests));
    }
    assert_eq!(None, patience.wait(0));
}
