//! Searches all schedules with few deviations, breadth first.
//!
//! Without deviations every party does all that is due, one atomic step at a time, and then the next tick
//! comes. A *deviation* is a misfortune, an operator's command, or a party that does nothing more in this
//! tick, between any two steps; a killed process stays away for the tick. All schedules with so many
//! deviations are searched. Two states are the same if their [`World::fingerprint`] is.

use std::{
    collections::{BTreeSet, HashSet, VecDeque},
    hash::{DefaultHasher, Hash as _, Hasher as _},
};

use super::*;

/// The scope of a search.
pub(super) struct Scope {
    pub(super) rules: Rules,
    /// Most deviations.
    pub(super) deviations: usize,
    /// The only party that may be late; `None`: any.
    pub(super) late: Option<Party>,
    /// The misfortunes that may happen.
    pub(super) misfortunes: Vec<Misfortune>,
    /// The operator's commands, once each.
    pub(super) words: Vec<Word>,
    /// Number of ticks.
    pub(super) ticks: i64,
    /// One in so many states is checked for recovery.
    pub(super) recoveries: usize,
}

/// The result of a search.
pub(super) struct Searched {
    pub(super) states: usize,
    pub(super) recoveries: usize,
    /// States in which a key has been removed.
    pub(super) removals: usize,
    pub(super) broken: Option<(Broken, Vec<Event>)>,
}

/// A step of a schedule.
#[derive(Clone, Copy, Debug)]
#[expect(dead_code, reason = "people read it, as it is printed")]
pub(super) enum Event {
    Action(Action),
    Late(Party),
}

/// A party that may be late.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Party {
    Publisher,
    Place(usize),
    Node(usize),
    ApiServer,
}

impl Party {
    fn of(action: Action) -> Option<Self> {
        match action {
            Action::Hear => Some(Self::Publisher),
            Action::Look(place) | Action::Place(place) | Action::Saw(place) => Some(Self::Place(place)),
            Action::Listen(node) | Action::Stroke(node) | Action::Sign { node, .. } => Some(Self::Node(node)),
            Action::Refresh => Some(Self::ApiServer),
            Action::Tick | Action::Operator(_) | Action::Misfortune(_) => None,
        }
    }
}

#[derive(Clone)]
struct State {
    world: World,
    late: BTreeSet<Party>,
    /// The remaining deviations and commands.
    deviations: usize,
    words: Vec<Word>,
    /// The index of the event that led here.
    trace: usize,
}

/// Searches until a promise is broken or no state is left.
pub(super) fn search(scope: &Scope) -> Searched {
    let world = World::new(scope.rules);
    let end = world.now + scope.ticks * TICK;
    let mut traces: Vec<(usize, Event)> = vec![(0, Event::Action(Action::Tick))];
    let mut known = HashSet::from([world.fingerprint()]);
    let (deviations, words) = (scope.deviations, scope.words.clone());
    let mut queue = VecDeque::from([State { world, late: BTreeSet::new(), deviations, words, trace: 0 }]);
    let mut searched = Searched { states: 0, recoveries: 0, removals: 0, broken: None };
    while let Some(state) = queue.pop_front() {
        searched.states += 1;
        searched.removals += usize::from(state.world.buried != 0);
        if scope.recoveries > 0 && searched.states.is_multiple_of(scope.recoveries) {
            searched.recoveries += 1;
            if let Err(broken) = state.world.check_recovery() {
                searched.broken = Some((broken, path(&traces, state.trace)));
                return searched;
            }
        }
        for (event, next) in state.successors(scope, end) {
            let mut next = match next {
                Ok(next) => next,
                Err(broken) => {
                    traces.push((state.trace, event));
                    searched.broken = Some((broken, path(&traces, traces.len() - 1)));
                    return searched;
                }
            };
            if known.insert(next.fingerprint()) {
                next.trace = traces.len();
                traces.push((state.trace, event));
                queue.push_back(next);
            }
        }
    }
    searched
}

impl State {
    /// The possible next events with their results.
    fn successors(&self, scope: &Scope, end: i64) -> Vec<(Event, Result<Self, Broken>)> {
        let mut successors = Vec::new();
        let due = self.world.ordinary().into_iter().find_map(|action| {
            let party = Party::of(action).filter(|party| !self.late.contains(party))?;
            self.taking(action).map(|next| (party, action, next))
        });
        if self.deviations > 0 {
            let late = due.as_ref().map(|(party, ..)| *party);
            let late = late.filter(|party| scope.late.is_none_or(|late| late == *party));
            successors.extend(late.map(|party| {
                let mut next = Self { deviations: self.deviations - 1, ..self.clone() };
                next.late.insert(party);
                (Event::Late(party), Ok(next))
            }));
            let misfortunes = scope.misfortunes.iter().copied().map(Action::Misfortune);
            let words = self.words.iter().copied().map(Action::Operator);
            successors.extend(
                misfortunes
                    .chain(words)
                    .filter_map(|action| Some((Event::Action(action), self.taking(action)?))),
            );
        }
        match due {
            Some((_, action, next)) => successors.push((Event::Action(action), next)),
            None if self.world.now < end => {
                let next = self.taking(Action::Tick).expect("time always passes");
                successors.push((Event::Action(Action::Tick), next));
            }
            None => {}
        }
        successors
    }

    /// `None` if the action changes nothing.
    fn taking(&self, action: Action) -> Option<Result<Self, Broken>> {
        let mut next = self.clone();
        match next.world.take(action) {
            Ok(false) => return None,
            Ok(true) => {}
            Err(broken) => return Some(Err(broken)),
        }
        match action {
            Action::Tick => next.late.clear(),
            Action::Operator(word) => {
                next.deviations -= 1;
                next.words.retain(|left| *left != word);
            }
            Action::Misfortune(misfortune) => {
                next.deviations -= 1;
                match misfortune {
                    Misfortune::KillNode(node) => drop(next.late.insert(Party::Node(node))),
                    Misfortune::KillPublisher => drop(next.late.insert(Party::Publisher)),
                    Misfortune::Lag => drop(next.late.insert(Party::ApiServer)),
                    _ => {}
                }
            }
            _ => {}
        }
        Some(Ok(next))
    }

    fn fingerprint(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        (self.world.fingerprint(), self.deviations, self.words.len(), &self.late).hash(&mut hasher);
        hasher.finish()
    }
}

/// The events that led to a state.
fn path(traces: &[(usize, Event)], mut last: usize) -> Vec<Event> {
    let mut path = Vec::new();
    while last > 0 {
        path.push(traces[last].1);
        last = traces[last].0;
    }
    path.reverse();
    path
}
