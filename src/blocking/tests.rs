use std::{fs, os::unix::fs::PermissionsExt as _, sync::mpsc};

use tempfile::TempDir;

use super::*;

const SOON: Duration = Duration::from_millis(50);

fn folder() -> TempDir {
    TempDir::new().expect("a temporary folder")
}

#[tokio::test]
async fn a_place_that_hangs_keeps_no_more_than_its_threads_and_holds_up_no_other() {
    let folder = folder();
    let (release, held) = mpsc::channel::<()>();
    let held = Arc::new(Mutex::new(held));
    let begun = Arc::new(Mutex::new(0));
    for _ in 0..3 * AT_ONCE {
        let (held, begun) = (Arc::clone(&held), Arc::clone(&begun));
        let hangs = within(SOON, folder.path(), move || {
            *begun.lock().expect("nobody panics") += 1;
            let _ = held.lock().expect("nobody panics").recv();
        });
        assert_eq!(Err(TimedOut { patience: SOON }), hangs.await);
    }
    assert!(*begun.lock().expect("nobody panics") <= AT_ONCE);
    assert!(places().contains(&folder.path().to_owned()));
    assert_eq!(Ok(1), at(&folder.path().join("other"), || 1).await);
    drop(release);
    assert_eq!(Ok(2), at(folder.path(), || 2).await, "it answers again");
}

#[tokio::test]
async fn whoever_gives_up_early_leaves_no_turn_behind() {
    let folder = folder();
    for _ in 0..3 * AT_ONCE {
        drop(at(folder.path(), || {}));
        assert!(timeout(Duration::ZERO, at(folder.path(), || thread::sleep(SOON))).await.is_err());
    }
    assert_eq!(Ok(()), at(folder.path(), || {}).await);
}

#[tokio::test]
#[should_panic(expected = "of the work")]
async fn a_panic_is_that_of_whoever_waits() {
    let _ = at(Path::new("/"), || panic!("of the work")).await;
}

#[test]
fn a_lock_is_made_with_its_mode_and_held_against_others() {
    let folder = folder();
    let path = folder.path().join("lock");
    let held = lock(&path, 0o600, Duration::ZERO).expect("nobody has it");
    assert_eq!(0o600, fs::metadata(&path).expect("it is there").permissions().mode() & 0o777);
    let refused = lock(&path, 0o600, Duration::ZERO).expect_err("it is held");
    assert_eq!("locked by another process for 0ns", refused.to_string());
    drop(held);
    lock(&path, 0o600, Duration::ZERO).expect("it is free");
}
