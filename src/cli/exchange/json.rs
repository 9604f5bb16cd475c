//! An exchange as JSON.

use serde_json::{Value, json};

use crate::{
    app::exchange::{StepOutcome, Walk, WalkedStep},
    core::entra::{Exchange, errors::explain},
};

pub(super) fn json(exchange: &Exchange, walk: &Walk) -> String {
    let document = json!({
        "outcome": if walk.token.is_some() { "accepted" } else { "refused" },
        "tenant": exchange.tenant,
        "steps": walk.steps.iter().map(step).collect::<Vec<_>>(),
    });
    serde_json::to_string_pretty(&document).expect("strings always serialise") + "\n"
}

fn step(it: &WalkedStep) -> Value {
    let mut step = json!({
        "leg": it.step.leg.word(),
        "client_id": it.step.client_id,
        "scope": it.step.scope,
        "seconds": it.took.as_secs_f64(),
        "prediction": it.prediction,
        "agreement": it.agreement,
    });
    match &it.outcome {
        StepOutcome::Issued { expires_at, claims } => {
            step["expires_at"] = json!(expires_at);
            step["claims"] = claims
                .iter()
                .map(|claim| {
                    json!({"name": claim.name, "value": claim.value, "meaning": claim.meaning, "expected": claim.expected})
                })
                .collect();
        }
        StepOutcome::Refused(refusal) => {
            let row = explain(refusal.code);
            step["error"] = json!({
                "code": format!("AADSTS{}", refusal.code), "error": refusal.error, "text": refusal.text,
                "meaning": row.map(|row| row.meaning), "fix": row.map(|row| row.fix),
                "trace_id": refusal.trace_id, "correlation_id": refusal.correlation_id,
                "timestamp": refusal.timestamp,
            });
        }
    }
    step
}
