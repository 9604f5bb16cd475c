use std::{
    sync::atomic::AtomicUsize,
    task::{Wake, Waker},
};

use super::*;

/// Counts its wake-ups.
#[derive(Default)]
struct Woken(AtomicUsize);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn a_connection_that_brings_no_request_soon_is_ended() {
    let mut patience = Deadline::default();
    assert_eq!(Some(FIRST_REQUEST), patience.wait(0));
    assert_eq!(None, patience.wait(0));
}

#[test]
fn a_connection_lives_for_as_long_as_requests_come_now_and_then() {
    let mut patience = Deadline::default();
    assert_eq!(Some(FIRST_REQUEST), patience.wait(0));
    for requests in [1, 2, 1000, u32::MAX, 0] {
        assert_eq!(Some(IDLE), patience.wait(requests));
    }
    assert_eq!(None, patience.wait(0));
}

#[test]
fn a_silent_connection_is_woken_and_told_once_and_one_that_has_not_begun_is_left_alone() {
    let mut pulses = OpenConnections::default();
    let [silent, busy, unborn] = [(); 3].map(|()| pulses.open());
    let woken = Arc::new(Woken::default());
    let (waker, mut known) = (Waker::from(Arc::clone(&woken)), None);
    let mut poll = || silent.poll_close(&mut known, &Context::from_waker(&waker));
    silent.begin();
    busy.begin();
    busy.record();
    let start = Instant::now();
    pulses.check(start);
    pulses.check(start + FIRST_REQUEST - SECOND);
    assert_eq!((Poll::Pending, 0), (poll(), woken.0.load(Ordering::Relaxed)));
    busy.record();
    pulses.check(start + FIRST_REQUEST);
    assert_eq!((Poll::Ready(CloseReason::Silent), 1), (poll(), woken.0.load(Ordering::Relaxed)));
    pulses.check(start + FIRST_REQUEST + IDLE - SECOND);
    assert_eq!((None, None), (busy.close_reason(), unborn.close_reason()));
    pulses.check(start + FIRST_REQUEST + IDLE);
    assert_eq!((Some(CloseReason::Silent), None), (busy.close_reason(), unborn.close_reason()));
    pulses.close();
    assert_eq!(Some(CloseReason::Closing), unborn.close_reason());
    assert_eq!(1, woken.0.load(Ordering::Relaxed), "it knows already");
}

#[test]
fn whoever_has_brought_no_request_makes_room_first_and_then_the_oldest() {
    let mut pulses = OpenConnections::default();
    let [over, first, silent, second] = [(); 4].map(|()| pulses.open());
    drop(over);
    first.record();
    second.record();
    let words = || [&first, &silent, &second].map(|pulse| pulse.close_reason());
    pulses.evict();
    assert_eq!([None, Some(CloseReason::Evicted), None], words());
    pulses.evict();
    assert_eq!([Some(CloseReason::Evicted), Some(CloseReason::Evicted), None], words());
    pulses.evict();
    pulses.evict();
    assert_eq!([Some(CloseReason::Evicted); 3], words());
}

#[test]
fn a_connection_that_is_over_is_forgotten() {
    let mut pulses = OpenConnections::default();
    let open = pulses.open();
    drop(pulses.open());
    pulses.check(Instant::now());
    assert_eq!(1, pulses.0.len());
    drop(open);
    pulses.check(Instant::now());
    assert!(pulses.is_empty());
}

#[test]
fn a_word_reaches_a_task_that_moved() {
    let mut pulses = OpenConnections::default();
    let (pulse, mut known) = (pulses.open(), None);
    let [first, second] = [(); 2].map(|()| Arc::new(Woken::default()));
    for woken in [&first, &first, &second] {
        let waker = Waker::from(Arc::clone(woken));
        assert_eq!(Poll::Pending, pulse.poll_close(&mut known, &Context::from_waker(&waker)));
    }
    pulses.close();
    assert_eq!([0, 1], [first, second].map(|woken| woken.0.load(Ordering::Relaxed)));
}
