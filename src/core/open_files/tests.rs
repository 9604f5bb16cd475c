use proptest::prelude::*;

use super::*;

#[test]
fn a_usual_limit_is_enough_for_all() {
    let room = OpenFiles::share(1_048_576, 10, 1000);
    assert_eq!((1000, 64), (room.public, room.operator));
    assert_eq!(1000, OpenFiles::share(u64::MAX, 10, 1000).public);
}

#[test]
fn of_few_files_everybody_gets_some() {
    let room = OpenFiles::share(64, 1, 1000);
    assert_eq!((12, 4), (room.public, room.operator));
    let room = OpenFiles::share(0, 1, 1000);
    assert_eq!((1, 2), (room.public, room.operator));
}

proptest! {
    #[test]
    fn connections_leave_what_the_process_needs(limit in 256_u64..100_000, places in 0_usize..20, wanted in 1_usize..100_000) {
        let room = OpenFiles::share(limit, places, wanted);
        prop_assert!(room.public >= 1 && room.public <= wanted);
        let taken = room.public + 2 * room.operator + OWN + EACH * places;
        prop_assert!(taken as u64 <= limit);
    }

    #[test]
    fn what_is_said_to_be_needed_is_enough(places in 0_usize..2000, wanted in 1_usize..100_000) {
        let needed = OpenFiles::share(64, places, wanted).needed(wanted);
        prop_assert_eq!(wanted, OpenFiles::share(needed as u64, places, wanted).public);
    }
}
