//! `signpost sync`.

use clap::Args;

use super::{
    Failure, block_on, load, print,
    report::{Outcome, render},
    say, style,
    table::table,
};
use crate::{
    app,
    config::Flags,
    core::publication::Document,
    workflow::{
        asking::AskError,
        keeper::Concerns,
        placing::{PlaceError, Placed, PublicView},
        sync::{Difference, Pass, Plan},
    },
};

#[derive(Args)]
pub(super) struct SyncFlags {
    #[command(flatten)]
    flags: Flags,

    /// Print what would be written and write nothing; exit code 1 if there is something
    #[arg(long, conflicts_with = "adopt")]
    dry_run: bool,

    /// Take over targets that another ledger owns, with the keys that only they know
    #[arg(long)]
    adopt: bool,
}

pub(super) fn carry_out(flags: &SyncFlags) -> Result<Outcome, Failure> {
    let config = load(&flags.flags)?;
    let mut outcome = Outcome::Success;
    if flags.dry_run {
        for (_, plan) in block_on(app::plan(config))? {
            outcome = worse(outcome, tell_plan(&plan));
        }
    } else {
        for (_, pass) in block_on(app::sync(config, flags.adopt))? {
            outcome = worse(outcome, tell_pass(&pass));
        }
    }
    Ok(outcome)
}

fn worse(a: Outcome, b: Outcome) -> Outcome {
    if a.code() >= b.code() { a } else { b }
}

fn tell_pass(pass: &Pass) -> Outcome {
    let mut rows = told_sources(&pass.sources);
    rows.extend(pass.targets.iter().map(|(name, placed)| {
        let what = placed.as_ref().map_or_else(|_| "failed".to_owned(), describe);
        ["target".to_owned(), name.clone(), what]
    }));
    print(&table(&rows));
    let failed = tell_failures(&pass.sources, &pass.targets, &pass.concerns);
    if failed { Outcome::Failure } else { Outcome::Success }
}

fn describe(placed: &Placed) -> String {
    let mut what = if placed.wrote.is_empty() {
        "unchanged".to_owned()
    } else {
        format!("wrote {}", names(&placed.wrote))
    };
    match placed.strangers.len() {
        0 => {}
        count => what += &format!(", {count} keys that only it knows (see `signpost ledger show`)"),
    }
    if placed.public == PublicView::Behind {
        what += ", its public URL still shows an older publication";
    }
    what
}

fn tell_plan(plan: &Plan) -> Outcome {
    let mut rows = told_sources(&plan.sources);
    let mut differs = false;
    for (name, difference) in &plan.targets {
        let what = match difference {
            Ok(difference) if difference.is_empty() => "is true".to_owned(),
            Ok(difference) => {
                differs = true;
                describe_difference(difference)
            }
            Err(_) => "failed".to_owned(),
        };
        rows.push(["target".to_owned(), name.clone(), what]);
    }
    print(&table(&rows));
    if tell_failures(&plan.sources, &plan.targets, &plan.concerns) {
        Outcome::Failure
    } else if differs {
        Outcome::Negative
    } else {
        Outcome::Success
    }
}

fn describe_difference(difference: &Difference) -> String {
    let mut what = format!("would write {}", names(&difference.documents));
    for kid in &difference.added {
        what += &format!(" +{kid}");
    }
    for kid in &difference.removed {
        what += &format!(" -{kid}");
    }
    what
}

fn names(documents: &[Document]) -> String {
    documents.iter().map(|document| document.name()).collect::<Vec<_>>().join(" and ")
}

fn told_sources(sources: &[(String, Result<usize, AskError>)]) -> Vec<[String; 3]> {
    let told = |listed: &Result<usize, AskError>| match listed {
        Ok(1) => "1 key".to_owned(),
        Ok(count) => format!("{count} keys"),
        Err(_) => "failed".to_owned(),
    };
    sources.iter().map(|(name, listed)| ["source".to_owned(), name.clone(), told(listed)]).collect()
}

/// Tells every failure with its hint; whether there was one.
fn tell_failures<T>(
    sources: &[(String, Result<usize, AskError>)],
    targets: &[(String, Result<T, PlaceError>)],
    concerns: &Concerns,
) -> bool {
    let mut failed = false;
    let mut tell = |error: &(dyn std::error::Error + 'static), hint: Option<String>| {
        failed = true;
        say(&render(error, hint.as_deref(), style()));
    };
    for (_, listed) in sources {
        if let Err(error) = listed {
            tell(error, error.hint());
        }
    }
    for conflict in &concerns.conflicts {
        tell(
            conflict,
            Some("find out which of the two lies; its keys are not taken until it stops".to_owned()),
        );
    }
    if let Some(nothing) = &concerns.nothing_to_publish {
        tell(nothing, Some("Microsoft Entra needs an RS256 key; `--profile all` takes every key".to_owned()));
    }
    for (_, placed) in targets {
        if let Err(error) = placed {
            tell(error, error.hint());
        }
    }
    for kid in concerns.refused.keys() {
        say(&format!("warning: key `{kid}` is listed and not published\n  hint: see `signpost ledger show`"));
    }
    failed
}
