//! An exchange as JSON. The schema is `docs/exchange.schema.json`.

use jiff::Timestamp;
use schemars::{JsonSchema, generate::SchemaSettings};
use serde::Serialize;

use crate::{
    app::exchange::{StepOutcome, Walk, WalkedStep},
    core::{
        entra::{ClaimInWords, Exchange, ExplainedRefusal},
        verification::{Agreement, VerificationReport},
    },
};

/// What `signpost exchange --output json` prints.
#[derive(Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Document<'a> {
    outcome: Outcome,
    tenant: &'a str,
    /// The steps that were asked, in order; the last one decides.
    steps: Vec<StepEntry<'a>>,
}

/// Exit codes 0 and 1.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Outcome {
    Accepted,
    Refused,
}

#[derive(Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct StepEntry<'a> {
    /// `workload`, `blueprint` (T1), `agent` (T2), `on-behalf-of`, `agent-user` or `refresh`.
    leg: &'static str,
    client_id: &'a str,
    scope: &'a str,
    /// How long the answer took.
    seconds: f64,
    /// When the token expires, if Entra says so.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>", extend("format" = "date-time"))]
    expires_at: Option<Timestamp>,
    /// The claims of the token that was issued; empty if it is only for its resource to read.
    #[serde(skip_serializing_if = "Option::is_none")]
    claims: Option<&'a [ClaimInWords]>,
    /// The error, if Entra refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<ExplainedRefusal>,
    /// What was predicted, as `signpost verify` prints it.
    prediction: &'a VerificationReport,
    /// How the answer compares with it: docs/predictions.md.
    agreement: Agreement,
}

pub(super) fn json(exchange: &Exchange, walk: &Walk) -> String {
    let document = Document {
        outcome: if walk.token.is_some() { Outcome::Accepted } else { Outcome::Refused },
        tenant: &exchange.tenant,
        steps: walk.steps.iter().map(StepEntry::of).collect(),
    };
    serde_json::to_string_pretty(&document).expect("strings always serialise") + "\n"
}

impl<'a> StepEntry<'a> {
    fn of(it: &'a WalkedStep) -> Self {
        let (expires_at, claims, error) = match &it.outcome {
            StepOutcome::Issued { expires_at, claims } => (*expires_at, Some(claims.as_slice()), None),
            StepOutcome::Refused(refusal) => (None, None, Some(refusal.clone().into())),
        };
        Self {
            leg: it.step.word(),
            client_id: &it.step.client_id,
            scope: &it.step.scope,
            seconds: it.took.as_secs_f64(),
            expires_at,
            claims,
            error,
            prediction: &it.prediction,
            agreement: it.agreement,
        }
    }
}

/// The JSON Schema of what is printed.
#[must_use]
pub fn schema() -> String {
    let settings = SchemaSettings::draft2020_12().for_serialize();
    let schema = settings.into_generator().into_root_schema_for::<Document>();
    serde_json::to_string_pretty(&schema).expect("a schema always serialises") + "\n"
}
