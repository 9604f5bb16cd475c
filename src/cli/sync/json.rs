//! The output of `sync --output json`.
//!
//! `{"dry_run", "issuers": [{"issuer", "sources": [{"name", "keys" | "error", "notes"}], "targets": [{"name",
//! "required_for_rotation", "result", …}], "conditions": […], "error"}]}`. Members are only ever added. `result` is
//! `unchanged`, `written`, `differs` (a dry run) or `failed`; `documents` lists what was or would be written.

use serde::Serialize;

use crate::{
    app::AppError,
    core::{
        jose::{issuer::Issuer, jwk::Jwk, kid::Kid, publication::Document},
        text::{Hint, redaction::error_line},
    },
    reconcile::{
        issuer::Conditions,
        sync::{Difference, Plan, Polled, SyncReport, TargetOutcome},
        target_sync::{PublicView, SyncError, SyncResult},
    },
    telemetry::as_typed,
};

#[derive(Serialize)]
struct Report {
    dry_run: bool,
    issuers: Vec<IssuerReport>,
}

#[derive(Serialize)]
pub(super) struct IssuerReport {
    issuer: String,
    sources: Vec<SourceReport>,
    targets: Vec<TargetReport>,
    /// Why the pass did not run.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    /// Alarms about the combined sources, as text.
    conditions: Vec<String>,
}

#[derive(Serialize)]
struct SourceReport {
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    keys: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    /// Warnings, as text.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    notes: Vec<String>,
}

#[derive(Default, Serialize)]
struct TargetReport {
    name: String,
    /// Whether a key must be served there before it may sign.
    required_for_rotation: bool,
    result: &'static str,
    documents: Vec<&'static str>,
    /// The keys that are added and removed, in a dry run.
    #[serde(skip_serializing_if = "Option::is_none")]
    added: Option<Vec<Kid>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    removed: Option<Vec<Kid>>,
    /// The keys that only this target has.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    unmanaged_keys: Vec<Kid>,
    /// The previous path of the JWKS, if it moves.
    #[serde(skip_serializing_if = "Option::is_none")]
    moved_from: Option<String>,
    /// Whether the public URL already serves the publication, if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    public_url_in_sync: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<String>,
}

pub(super) fn report(dry_run: bool, issuers: Vec<IssuerReport>) -> String {
    serde_json::to_string_pretty(&Report { dry_run, issuers }).expect("strings always serialise") + "\n"
}

pub(super) fn pass(issuer: &Issuer, pass: &SyncReport) -> IssuerReport {
    issuer_report(issuer, &pass.sources, &pass.targets, synced, &pass.conditions)
}

pub(super) fn plan(issuer: &Issuer, plan: &Plan) -> IssuerReport {
    issuer_report(issuer, &plan.sources, &plan.targets, difference, &plan.conditions)
}

pub(super) fn failed_issuer(issuer: &Issuer, error: &AppError) -> IssuerReport {
    let (issuer, error) = (issuer.to_string(), Some(error_line(error)));
    IssuerReport { issuer, sources: Vec::new(), targets: Vec::new(), error, conditions: Vec::new() }
}

fn issuer_report<T>(
    issuer: &Issuer,
    sources: &[Polled],
    targets: &[TargetOutcome<T>],
    told: impl Fn(&T) -> TargetReport,
    concerns: &Conditions,
) -> IssuerReport {
    let source = |Polled { name, answer, .. }: &Polled| SourceReport {
        name: name.clone(),
        keys: answer.as_ref().ok().map(|observation| observation.answer.len()),
        error: answer.as_ref().err().map(|error| error_line(error)),
        notes: answer.iter().flat_map(|observation| observation.notes.iter().cloned()).collect(),
    };
    let target = |target: &TargetOutcome<T>| TargetReport {
        name: target.name.clone(),
        required_for_rotation: target.required_for_rotation,
        ..target.outcome.as_ref().map_or_else(failed, &told)
    };
    let nothing = concerns.nothing_to_publish.iter().map(|nothing| error_line(nothing));
    let refused = concerns.refused.keys().map(|kid| format!("key `{kid}` is listed but not published"));
    IssuerReport {
        issuer: issuer.to_string(),
        sources: sources.iter().map(source).collect(),
        targets: targets.iter().map(target).collect(),
        error: None,
        conditions: concerns
            .ledger
            .iter()
            .cloned()
            .chain(concerns.conflicts.iter().map(|it| error_line(it)))
            .chain(nothing)
            .chain(refused)
            .chain(concerns.breaks.map(str::to_owned))
            .collect(),
    }
}

fn failed(error: &SyncError) -> TargetReport {
    TargetReport {
        result: "failed",
        error: Some(error_line(error)),
        hint: error.hint().map(|hint| as_typed(&hint)),
        ..TargetReport::default()
    }
}

fn synced(synced: &SyncResult) -> TargetReport {
    TargetReport {
        result: if synced.wrote.is_empty() { "unchanged" } else { "written" },
        documents: names(&synced.wrote),
        unmanaged_keys: synced.unmanaged_keys.iter().map(Jwk::kid).cloned().collect(),
        moved_from: synced.moved_from.clone(),
        public_url_in_sync: match synced.public {
            PublicView::NotConfigured => None,
            PublicView::InSync => Some(true),
            PublicView::Stale => Some(false),
        },
        ..TargetReport::default()
    }
}

fn difference(difference: &Difference) -> TargetReport {
    TargetReport {
        result: if difference.is_empty() { "unchanged" } else { "differs" },
        documents: names(&difference.documents),
        added: Some(difference.added.clone()),
        removed: Some(difference.removed.clone()),
        unmanaged_keys: difference.unmanaged_keys.clone(),
        moved_from: difference.moved_from.clone(),
        ..TargetReport::default()
    }
}

fn names(documents: &[Document]) -> Vec<&'static str> {
    documents.iter().map(|document| document.name()).collect()
}
