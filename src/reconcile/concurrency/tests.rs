use std::{future::pending, time::Duration};

use futures_util::{FutureExt as _, future::join_all};
use tokio::time::{sleep, timeout};

use super::{Concurrency, Permit};

const PLACES: usize = 4;
const PATIENCE: Duration = Duration::from_millis(20);
/// A broken limit never grants a permit.
const DEADLINE: Duration = Duration::from_mins(1);

fn gate() -> Concurrency {
    Concurrency::new(PLACES, PATIENCE)
}

/// Whether a permit is free right now.
fn is_open(gate: &Concurrency) -> bool {
    gate.permit().run(async {}).now_or_never().is_some()
}

#[tokio::test]
async fn no_more_work_is_under_way_than_there_are_places() {
    let gate = gate();
    let mut passes: Vec<Permit> = (0..PLACES).map(|_| gate.permit()).collect();
    let mut working: Vec<_> = passes.iter_mut().map(|pass| Box::pin(pass.run(pending::<()>()))).collect();
    for work in &mut working {
        assert!(is_open(&gate));
        assert!(work.now_or_never().is_none());
    }
    assert!(!is_open(&gate), "there is one place more");
    drop(working.pop());
    assert!(is_open(&gate));
}

#[tokio::test]
async fn work_that_hangs_keeps_no_place() {
    let gate = gate();
    let hung = join_all((0..PLACES * 3).map(async |_| gate.permit().run(pending::<()>()).await));
    let mut prompt = gate.permit();
    let through = async {
        sleep(PATIENCE).await;
        prompt.run(async {}).await;
    };
    tokio::select! {
        _ = hung => unreachable!("what hangs does not end"),
        through = timeout(DEADLINE, through) => through.expect("what hangs holds the places"),
    }
}

#[tokio::test]
async fn who_dawdled_takes_no_place_until_it_was_prompt_again() {
    let gate = gate();
    let mut slow: Vec<Permit> = (0..PLACES).map(|_| gate.permit()).collect();
    join_all(slow.iter_mut().map(|pass| pass.run(sleep(PATIENCE * 2)))).await;
    let mut again: Vec<_> = slow.iter_mut().map(|pass| Box::pin(pass.run(pending::<()>()))).collect();
    assert!(again.iter_mut().all(|work| work.now_or_never().is_none()));
    assert!(is_open(&gate), "the dawdlers hold the places");
    drop(again);
    join_all(slow.iter_mut().map(|pass| pass.run(async {}))).await;
    let mut prompt: Vec<_> = slow.iter_mut().map(|pass| Box::pin(pass.run(pending::<()>()))).collect();
    assert!(prompt.iter_mut().all(|work| work.now_or_never().is_none()));
    assert!(!is_open(&gate), "the prompt hold no place");
}
