//! For each check a case that violates it, and the nearest case that does not.

mod credential;
mod documents;
mod request;
mod surroundings;
mod token;

use super::scene::Scene;

/// A check, the change that violates its rule, a part of the observation, and the nearest change that does
/// not.
pub(super) struct Pair {
    pub(super) id: &'static str,
    pub(super) trips: fn(&mut Scene),
    pub(super) seen: &'static str,
    pub(super) spares: fn(&mut Scene),
}

const fn pair(id: &'static str, trips: fn(&mut Scene), seen: &'static str, spares: fn(&mut Scene)) -> Pair {
    Pair { id, trips, seen, spares }
}

pub(super) fn pairs() -> impl Iterator<Item = &'static Pair> {
    [token::PAIRS, credential::PAIRS, documents::PAIRS, surroundings::PAIRS, request::PAIRS]
        .into_iter()
        .flatten()
}
