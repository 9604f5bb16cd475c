//! `signpost sync`.

mod json;

use clap::Args;

use super::{
    Failure, Output, block_on, eprint,
    error_report::{ExitStatus, render},
    load, print, style,
    table::table,
};
use crate::{
    app::{self, AppError},
    config::{Flags, IssuerConfig},
    core::{
        jose::publication::Document,
        target_plan::WriteRefused,
        text::{Hint, redaction::printable},
    },
    reconcile::{
        issuer::Conditions,
        sync::{Difference, Plan, Polled, SyncReport, TargetOutcome},
        target_sync::{PublicView, SyncError, SyncResult},
    },
    telemetry::as_typed,
};

#[derive(Args)]
#[command(after_help = "\
Examples:
  signpost sync --issuer https://oidc.example.com \\
    --source /etc/kubernetes/pki/sa.pub --target ./public --dry-run
  signpost sync --issuer https://oidc.example.com \\
    --source kubernetes:kind-kind --target 'az://account/$web'
  signpost sync --config signpost.yaml --output json | jq '.issuers[].targets[]'

Exit codes: 0 every target is in sync; 1 only with `--dry-run`, something would be
written; 2 a source or target failed, after the others were done.")]
pub(super) struct SyncFlags {
    #[command(flatten)]
    flags: Flags,

    /// Print what would be written, without writing it; exit code 1 if anything differs
    #[arg(long, conflicts_with = "adopt")]
    dry_run: bool,

    /// Take over targets that belong to another ledger, with their unmanaged keys
    #[arg(long)]
    adopt: bool,

    /// Output format: `text` or `json`
    #[arg(long, value_name = "FORMAT", default_value = "text", hide_possible_values = true)]
    output: Output,
}

pub(super) fn run(flags: &SyncFlags) -> Result<ExitStatus, Failure> {
    let config = load(&flags.flags)?;
    if flags.adopt && flags.flags.keys.config.is_none() && flags.flags.keys.issuer.is_none() {
        return Err(Failure::plain(
            "`--adopt` needs an issuer to take targets over for",
            "pass the flags that Signpost publishes with: `--config FILE`, or `--issuer URL` and the others",
        ));
    }
    if config.issuers.iter().all(IssuerConfig::has_no_target) {
        return Err(Failure::plain(
            "nothing is published: no issuer has a target",
            "pass `--target URL`, or let `signpost run` serve the documents",
        ));
    }
    let mut outcome = ExitStatus::Success;
    let mut told = Vec::new();
    if flags.dry_run {
        for (issuer, plan) in block_on(app::plan(config)) {
            match (flags.output, &plan) {
                (Output::Text, Ok(plan)) => print(&table(&plan_rows(plan))),
                (Output::Json, Ok(plan)) => told.push(json::plan(&issuer, plan)),
                (_, Err(error)) => told.push(json::failed_issuer(&issuer, error)),
            }
            outcome = worse(outcome, plan.map_or_else(tell, |plan| judge_plan(&plan)));
        }
    } else {
        for (issuer, pass) in block_on(app::sync(config, flags.adopt)) {
            match (flags.output, &pass) {
                (Output::Text, Ok(pass)) => print(&as_typed(&table(&pass_rows(pass)))),
                (Output::Json, Ok(pass)) => told.push(json::pass(&issuer, pass)),
                (_, Err(error)) => told.push(json::failed_issuer(&issuer, error)),
            }
            outcome = worse(outcome, pass.map_or_else(tell, |pass| judge_pass(&pass)));
        }
    }
    if flags.output == Output::Json {
        print(&json::report(flags.dry_run, told));
    }
    Ok(outcome)
}

/// Reports an issuer that could not start.
fn tell(error: AppError) -> ExitStatus {
    eprint(&Failure::from(error).text);
    ExitStatus::Failure
}

fn worse(a: ExitStatus, b: ExitStatus) -> ExitStatus {
    if a.code() >= b.code() { a } else { b }
}

fn judge_pass(pass: &SyncReport) -> ExitStatus {
    let failed = tell_failures(&pass.sources, &pass.targets, &pass.conditions);
    if failed { ExitStatus::Failure } else { ExitStatus::Success }
}

fn judge_plan(plan: &Plan) -> ExitStatus {
    if tell_failures(&plan.sources, &plan.targets, &plan.conditions) {
        return ExitStatus::Failure;
    }
    let differs = plan.targets.iter().any(|it| it.outcome.as_ref().is_ok_and(|it| !it.is_empty()));
    if differs { ExitStatus::Negative } else { ExitStatus::Success }
}

fn pass_rows(pass: &SyncReport) -> Vec<[String; 3]> {
    let mut rows = source_rows(&pass.sources);
    rows.extend(pass.targets.iter().map(|target| {
        target_row(target, target.outcome.as_ref().map_or_else(|_| "failed".to_owned(), describe))
    }));
    rows
}

fn target_row<T>(target: &TargetOutcome<T>, what: String) -> [String; 3] {
    let what =
        if target.required_for_rotation { what } else { format!("{what} (rotation does not wait for it)") };
    ["target".to_owned(), target.name.clone(), what]
}

fn describe(synced: &SyncResult) -> String {
    let mut what = if synced.wrote.is_empty() {
        "unchanged".to_owned()
    } else {
        format!("wrote {}", names(&synced.wrote))
    };
    if let Some(uri) = &synced.moved_from {
        what += &format!(", the JWKS was at `{uri}`");
    }
    match synced.unmanaged_keys.len() {
        0 => {}
        1 => what += ", 1 unmanaged key (see `signpost ledger show`)",
        count => what += &format!(", {count} unmanaged keys (see `signpost ledger show`)"),
    }
    if synced.public == PublicView::Stale {
        what += ", its public URL still shows an older publication";
    }
    what
}

fn plan_rows(plan: &Plan) -> Vec<[String; 3]> {
    let mut rows = source_rows(&plan.sources);
    for target in &plan.targets {
        let what = match &target.outcome {
            Ok(difference) if difference.is_empty() => "unchanged".to_owned(),
            Ok(difference) => format!("would write {}", names(&difference.documents)),
            Err(_) => "failed".to_owned(),
        };
        rows.push(target_row(target, what));
        let changes = target.outcome.iter().flat_map(changes);
        rows.extend(changes.map(|change| [String::new(), String::new(), change]));
    }
    rows
}

/// One line per added, removed or unmanaged key.
fn changes(difference: &Difference) -> Vec<String> {
    let moved = difference.moved_from.iter().map(|uri| format!("the JWKS moves here from `{uri}`"));
    let kept = difference.unmanaged_keys.iter().map(|kid| format!("= {kid} (unmanaged, kept)"));
    let added = difference.added.iter().map(|kid| format!("+ {kid}"));
    let removed = difference.removed.iter().map(|kid| format!("- {kid}"));
    moved.chain(kept).chain(added).chain(removed).collect()
}

fn names(documents: &[Document]) -> String {
    documents.iter().map(|document| document.name()).collect::<Vec<_>>().join(" and ")
}

fn source_rows(sources: &[Polled]) -> Vec<[String; 3]> {
    let told = |polled: &Polled| match polled.answer.as_ref().map(|observation| observation.answer.len()) {
        Ok(1) => "1 key".to_owned(),
        Ok(keys) => format!("{keys} keys"),
        Err(_) => "failed".to_owned(),
    };
    sources.iter().map(|polled| ["source".to_owned(), polled.name.clone(), told(polled)]).collect()
}

/// Reports every failure with its hint; returns whether there was one.
fn tell_failures<T>(sources: &[Polled], targets: &[TargetOutcome<T>], concerns: &Conditions) -> bool {
    let mut failed = false;
    let mut tell = |error: &dyn Hint| {
        failed = true;
        let hint = error.hint().map(|hint| as_typed(&hint));
        eprint(&render(error, hint.as_deref(), style()));
    };
    for Polled { name, answer, .. } in sources {
        match answer {
            Ok(observation) => {
                observation
                    .notes
                    .iter()
                    .for_each(|note| eprint(&format!("warning: {name}: {}", printable(note))));
            }
            Err(error) => tell(error),
        }
    }
    for conflict in &concerns.conflicts {
        tell(conflict);
    }
    let nothing = concerns.nothing_to_publish.as_ref();
    if let Some(nothing) = nothing {
        tell(nothing);
    }
    for target in targets {
        match &target.outcome {
            Err(SyncError::Refused { source: WriteRefused::Nothing(same), .. }) if nothing == Some(same) => {}
            Err(error) => tell(error),
            Ok(_) => {}
        }
    }
    if let Some(breaks) = concerns.breaks {
        eprint(&format!("warning: {breaks}\n  hint: profile `entra` publishes only RS256 keys"));
    }
    if let Some(alarm) = &concerns.ledger {
        eprint(&as_typed(&format!("warning: {alarm}\n  hint: see `signpost ledger show`")));
    }
    for kid in concerns.refused.keys() {
        let hint = as_typed("see `signpost ledger show`");
        eprint(&format!("warning: key `{kid}` is listed but not published\n  hint: {hint}"));
    }
    failed
}
