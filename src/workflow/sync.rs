//! One pass: hear every source, store the ledger, make every target true.

use std::collections::BTreeSet;

use futures_util::future::join_all;

use super::{
    Watched,
    asking::{AskError, Asked},
    keeper::{Concerns, Hearing, Keeper},
    placing::{PlaceError, Placed, Placer, place_current},
};
use crate::{
    clock,
    core::{kid::Kid, placement::shown_kids, publication::Document},
    store::StoreError,
    target::Reading,
};

/// What a pass came to, for one issuer.
pub struct Pass {
    /// By source and API server, in configured order.
    pub sources: Vec<(String, Result<Listed, AskError>)>,
    pub concerns: Concerns,
    /// In configured order.
    pub targets: Vec<AtTarget<Placed>>,
    /// The kids of the publication that is served or would be.
    pub kids: Vec<Kid>,
}

/// What a source lists.
pub struct Listed {
    /// How many keys.
    pub keys: usize,
    /// What to warn about, in words.
    pub notes: Vec<String>,
}

/// What a pass came or would come to at one target.
pub struct AtTarget<T> {
    pub name: String,
    /// Whether a key must be shown there before it may sign.
    pub gates: bool,
    pub outcome: Result<T, PlaceError>,
}

impl<T> AtTarget<T> {
    fn new(placer: &Placer, outcome: Result<T, PlaceError>) -> Self {
        Self { name: placer.name().to_owned(), gates: placer.gates(), outcome }
    }
}

/// What a pass would do, for one issuer.
pub struct Plan {
    pub sources: Vec<(String, Result<Listed, AskError>)>,
    pub concerns: Concerns,
    pub targets: Vec<AtTarget<Difference>>,
}

/// What would be written to one target.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Difference {
    pub documents: Vec<Document>,
    pub added: Vec<Kid>,
    pub removed: Vec<Kid>,
    /// The keys that only this target knows, and which stay there.
    pub strangers: Vec<Kid>,
    /// Where readers find the JWKS today, if it is to be somewhere else.
    pub moved_from: Option<String>,
}

impl Difference {
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.documents.is_empty()
    }
}

/// Does everything once. A source or target that fails does not stop the others.
///
/// # Errors
///
/// Fails when the ledger cannot be stored: then nothing may be published.
pub async fn sync(
    keeper: &Keeper,
    sources: Vec<Watched>,
    placers: &mut [Placer],
    adopt: bool,
) -> Result<Pass, StoreError> {
    keeper.witness(&look_at_all(placers).await).await?;
    let mut outcomes = Vec::new();
    let mut concerns = Concerns::default();
    for (source, name, answer) in ask_all(keeper, sources).await {
        let (hearing, outcome) = split(answer);
        concerns = keeper.hear(source, &name, hearing).await?;
        outcomes.push((name, outcome));
    }
    if adopt {
        adopt_strangers(keeper, placers).await?;
    }
    let ledger = keeper.ledger().borrow().clone();
    let mut targets = Vec::new();
    let ledger = &ledger;
    if ledger.public_keys().next().is_some() {
        let placed = join_all(placers.iter_mut().map(async |placer| {
            let placed = place_current(placer, keeper, ledger).await;
            AtTarget::new(placer, placed)
        }));
        targets = placed.await;
        for target in &targets {
            if let Ok(placed) = &target.outcome {
                keeper.saw(&target.name, &placed.look, &placed.strangers, placed.kept).await?;
            }
        }
    }
    concerns.ledger = keeper.ledger().borrow().alarm(clock::now());
    let shown = keeper.publication().borrow().clone();
    let kids = shown.iter().flat_map(|shown| shown.keys().kids().cloned()).collect();
    Ok(Pass { sources: outcomes, concerns, targets, kids })
}

/// Finds out what [`sync`] would do, and does none of it.
///
/// # Errors
///
/// Fails when the ledger cannot be read.
pub async fn plan(
    keeper: &Keeper,
    sources: Vec<Watched>,
    placers: &mut [Placer],
) -> Result<Plan, StoreError> {
    let mut outcomes = Vec::new();
    let mut hearings = Vec::new();
    for (source, name, answer) in ask_all(keeper, sources).await {
        let (hearing, outcome) = split(answer);
        hearings.push((source, name.clone(), hearing));
        outcomes.push((name, outcome));
    }
    let (ledger, concerns) = keeper.preview(&look_at_all(placers).await, hearings).await?;
    let mut targets = Vec::new();
    if ledger.public_keys().next().is_some() {
        let planned = join_all(placers.iter().map(async |placer| {
            let difference = placer.plan(&ledger).await.map(|(reading, placement)| {
                let before = shown_kids(&reading.found);
                let after: BTreeSet<Kid> = placement.publication.keys().kids().cloned().collect();
                Difference {
                    documents: placement.writes,
                    added: after.difference(&before).cloned().collect(),
                    removed: before.difference(&after).cloned().collect(),
                    strangers: placement.strangers.iter().map(|key| key.kid().clone()).collect(),
                    moved_from: placement.moved_from,
                }
            });
            AtTarget::new(placer, difference)
        }));
        targets = planned.await;
    }
    Ok(Plan { sources: outcomes, concerns, targets })
}

/// What each target says of the ledger that it was written from; one that cannot be read is left to the pass
/// that follows, which reports it.
async fn look_at_all(placers: &mut [Placer]) -> Vec<(String, Reading)> {
    let looks = placers.iter_mut().map(async |placer| {
        let reading = placer.look().await.ok()?;
        Some((placer.name().to_owned(), reading))
    });
    join_all(looks).await.into_iter().flatten().collect()
}

/// Asks whoever speaks for the sources, all at once.
async fn ask_all(keeper: &Keeper, sources: Vec<Watched>) -> Vec<(usize, String, Result<Hearing, AskError>)> {
    let asked = join_all(sources.into_iter().enumerate().map(async |(source, watched)| {
        let (voices, asked) = watched.found(&keeper.charter().terms.issuer).await;
        keeper.expect(source, &voices).await;
        join_all(asked.into_iter().map(async |mut asked: Asked| {
            let answer = asked.ask(keeper).await;
            (source, asked.name().to_owned(), answer)
        }))
        .await
    }));
    asked.await.into_iter().flatten().collect()
}

fn split(asked: Result<Hearing, AskError>) -> (Hearing, Result<Listed, AskError>) {
    match asked {
        Ok(mut hearing) => {
            let listed = Listed { keys: hearing.answer.len(), notes: std::mem::take(&mut hearing.notes) };
            (hearing, Ok(listed))
        }
        Err(error) => (Hearing::failed(), Err(error)),
    }
}

/// A target that cannot be read is left to the pass that follows, which reports it.
async fn adopt_strangers(keeper: &Keeper, placers: &[Placer]) -> Result<(), StoreError> {
    for placer in placers {
        let ledger = keeper.ledger().borrow().clone();
        if let Ok((_, placement)) = placer.plan(&ledger).await {
            keeper.adopt(placer.name(), &placement.strangers).await?;
        }
    }
    Ok(())
}
