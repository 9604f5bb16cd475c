use std::{sync::Arc, time::Duration};

use futures_util::{FutureExt as _, future::join_all};
use tokio::{sync::Notify, time::timeout};

use super::{BATCH_SIZE, Followers};

/// Without a deadline, a walk that wakes no follower would never end the test.
const DEADLINE: Duration = Duration::from_mins(1);

fn followers(count: usize) -> (Followers, Vec<Arc<Notify>>) {
    let (followers, each) = (Followers::default(), (0..count).map(|_| Arc::default()).collect::<Vec<_>>());
    for follower in &each {
        followers.add(follower);
    }
    (followers, each)
}

#[tokio::test]
async fn a_tick_wakes_everybody_but_not_all_at_once() {
    let (followers, each) = followers(BATCH_SIZE * 3);
    let walk = followers.wake();
    tokio::pin!(walk);
    assert!(walk.as_mut().now_or_never().is_none());
    let woken = each.iter().filter(|follower| follower.notified().now_or_never().is_some()).count();
    assert_eq!(woken, BATCH_SIZE);
    walk.await;
    let rest = join_all(each[BATCH_SIZE..].iter().map(|follower| follower.notified()));
    timeout(DEADLINE, rest).await.expect("some were not woken");
}

#[tokio::test]
async fn a_tick_is_not_lost_on_who_is_busy_and_two_count_as_one() {
    let (followers, each) = followers(1);
    followers.wake().await;
    followers.wake().await;
    assert!(each[0].notified().now_or_never().is_some());
    assert!(each[0].notified().now_or_never().is_none());
}

#[tokio::test]
async fn who_is_gone_follows_no_more() {
    let (followers, mut each) = followers(2);
    each.pop();
    assert_eq!(followers.present().len(), 1);
    each.pop();
    assert_eq!(followers.present().len(), 0);
}
