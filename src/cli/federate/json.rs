//! Plans, and what became of them, as JSON.

use serde_json::{Value, json};

use super::Outcome;
use crate::{
    app::federate::{Done, IdentityName, SideBySide},
    core::{
        entra::Credential,
        federation::Holder,
        text::{Hint as _, redaction::redact_json},
    },
};

pub(super) fn outcomes(outcomes: &[Outcome]) -> String {
    pretty(&json!({"identities": outcomes.iter().map(outcome).collect::<Vec<_>>()}))
}

fn outcome(outcome: &Outcome) -> Value {
    let mut shown = match &outcome.identity {
        IdentityName::ClientId(id) => json!({"client_id": id}),
        IdentityName::ManagedIdentity(id) => json!({"resource_id": id.to_string()}),
    };
    match &outcome.planned {
        Err(error) => shown["error"] = json!({"message": error.to_string(), "hint": error.hint()}),
        Ok(planned) => {
            shown["kind"] = json!(match planned.holder {
                Holder::Application { is_blueprint: true, .. } => "blueprint",
                Holder::Application { .. } => "application",
                Holder::ManagedIdentity(_) => "managed_identity",
            });
            shown["plan"] = json!(planned.plan);
            let kept = planned.kept.iter().map(|(name, why)| json!({"name": name, "reason": why}));
            shown["kept"] = kept.collect();
            if let Some(applied) = &outcome.applied {
                shown["written"] = json!(applied.written);
                shown["stopped"] = json!(applied.stopped);
                shown["left"] = json!(applied.left);
            }
        }
    }
    shown
}

pub(super) fn delegation(done: &Done, is_dry_run: bool) -> String {
    pretty(&json!({"steps": done.steps, "written": !is_dry_run && !done.steps.is_empty()}))
}

pub(super) fn credentials(credentials: &[Credential]) -> String {
    let list: Vec<_> = credentials
        .iter()
        .map(|it| {
            json!({
                "name": it.name, "issuer": it.issuer, "subject": it.subject, "audiences": it.audiences,
                "expression": it.expression(),
            })
        })
        .collect();
    pretty(&json!(list))
}

pub(super) fn side_by_side(issuer: &str, found: &SideBySide) -> String {
    let unasked: Vec<_> = found
        .unasked
        .iter()
        .map(|(id, error)| json!({"client_id": id, "error": error.to_string()}))
        .collect();
    pretty(&json!({"issuer": issuer, "inventory": found.inventory, "unasked": unasked}))
}

fn pretty(document: &Value) -> String {
    let text = serde_json::to_string_pretty(document).expect("strings always serialise");
    redact_json(&text).into_owned() + "\n"
}
