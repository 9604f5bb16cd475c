//! Health, readiness, metrics and status for the operator, on a port of their own. No secrets, no writes.

use std::sync::Arc;

use axum::{
    Json, Router,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse as _, Response},
    routing::get,
};
use hyper_util::service::TowerToHyperService;

/// What the operator may look at; each is asked anew for every request.
#[derive(Clone)]
pub struct Views {
    /// The metrics in the text format of OpenMetrics.
    pub metrics: Arc<dyn Fn() -> String + Send + Sync>,
    /// Everything about every issuer, and whether all of them have something true to serve.
    pub status: Arc<dyn Fn() -> Status + Send + Sync>,
}

/// The answer to `/status.json` and `/readyz`.
pub struct Status {
    pub ready: bool,
    pub document: serde_json::Value,
}

/// What the admin listener serves.
#[must_use]
pub fn service(views: Views) -> TowerToHyperService<Router> {
    TowerToHyperService::new(router(views))
}

fn router(views: Views) -> Router {
    Router::new()
        // Alive means that this loop turns; nothing outside the process can make it fail.
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(readiness))
        .route("/metrics", get(metrics))
        .route("/status.json", get(async |State(views): State<Views>| Json((views.status)().document)))
        .with_state(views)
}

async fn readiness(State(views): State<Views>) -> Response {
    if (views.status)().ready {
        (StatusCode::OK, "ready\n").into_response()
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "not ready: an issuer has no keys to serve, see /status.json\n")
            .into_response()
    }
}

async fn metrics(State(views): State<Views>) -> Response {
    let media_type = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, media_type)], (views.metrics)()).into_response()
}

#[cfg(test)]
mod tests;
