//! Random histories of the same model: longer, with more keys, misfortunes and commands, clocks that are off,
//! and parties that act in any order.

use proptest::prelude::*;

use super::*;

/// Most keys that are created; the later ones are rare.
const KEYS: usize = 24;

fn actions(rules: Rules) -> impl Strategy<Value = Vec<Action>> {
    let (place, node, key) = (0..rules.places, 0..rules.nodes, 0..8_usize);
    let any_of = |all: [Action; 2]| prop::sample::select(all.to_vec());
    let skew = -MARGIN / 2..=MARGIN / 2;
    let edit = prop_oneof![Just(Edit::Empty), key.clone().prop_map(Edit::Without), Just(Edit::Foreign)];
    let misfortune = prop_oneof![
        2 => Just(Misfortune::KillPublisher),
        2 => node.clone().prop_map(Misfortune::KillNode),
        1 => Just(Misfortune::Unreadable),
        1 => node.clone().prop_map(Misfortune::Missing),
        1 => node.clone().prop_map(Misfortune::Stale),
        2 => (place.clone(), edit).prop_map(|(place, edit)| Misfortune::Tamper(place, edit)),
        2 => Just(Misfortune::Backup),
        2 => any::<bool>().prop_map(|running| Misfortune::Restore { running }),
        1 => key.clone().prop_map(Misfortune::LoseKey),
        1 => node.clone().prop_map(Misfortune::LoseJournal),
        1 => Just(Misfortune::Lag),
        1 => skew.clone().prop_map(Misfortune::SkewPublisher),
        1 => (node.clone(), skew).prop_map(|(node, skew)| Misfortune::SkewNode(node, skew)),
        1 => (-3_i64..=3).prop_map(Misfortune::WrongClock),
    ];
    let word = prop_oneof![
        3 => Just(Word::Start),
        1 => Just(Word::Abort),
        1 => key.clone().prop_map(Word::Revoke),
        1 => key.prop_map(Word::RevokeAnew),
    ];
    let action = prop_oneof![
        4 => Just(Action::Tick),
        6 => any_of([Action::Hear, Action::Refresh]),
        3 => place.clone().prop_map(Action::Look),
        5 => place.clone().prop_map(Action::Place),
        5 => place.prop_map(Action::Saw),
        4 => node.clone().prop_map(Action::Listen),
        12 => node.clone().prop_map(Action::Stroke),
        3 => (node, any::<bool>()).prop_map(|(node, external)| Action::Sign { node, external }),
        1 => word.prop_map(Action::Operator),
        1 => misfortune.prop_map(Action::Misfortune),
    ];
    prop::collection::vec(action, 1..300)
}

/// Between bursts of such actions every party does all that is due, for some ticks: otherwise a rotation
/// would hardly ever complete.
fn histories(rules: Rules) -> impl Strategy<Value = Vec<(usize, Vec<Action>)>> {
    prop::collection::vec((0..6_usize, actions(rules)), 1..4)
}

fn live(rules: Rules, eager: bool, history: &[(usize, Vec<Action>)]) -> Result<(), (Broken, Action)> {
    let mut world = World::new(rules);
    world.eager = eager;
    for (rounds, actions) in history {
        for _ in 0..*rounds {
            world.round().map_err(|broken| (broken, Action::Tick))?;
        }
        for action in actions {
            world.take(*action).map_err(|broken| (broken, *action))?;
        }
    }
    world.check_recovery().map_err(|broken| (broken, Action::Tick))
}

const ONE_NODE: Rules =
    Rules { nodes: 1, places: 2, keys: KEYS, api_servers: true, by_age: true, fault: None };
const TWO_NODES: Rules = Rules { nodes: 2, places: 2, api_servers: false, ..ONE_NODE };

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    #[test]
    fn no_history_of_one_node_breaks_a_promise(history in histories(ONE_NODE), eager in any::<bool>()) {
        prop_assert_eq!(live(ONE_NODE, eager, &history), Ok(()));
    }

    #[test]
    fn no_history_of_two_nodes_breaks_a_promise(history in histories(TWO_NODES), eager in any::<bool>()) {
        prop_assert_eq!(live(TWO_NODES, eager, &history), Ok(()));
    }
}
