//! Health, readiness, metrics and status for the operator, on a port of their own. No secrets, no writes.

use std::sync::Arc;

use axum::{
    Router,
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
    /// Everything about every issuer, in JSON.
    pub status: Arc<dyn Fn() -> String + Send + Sync>,
    /// Whether there is something true to serve.
    pub ready: Arc<dyn Fn() -> bool + Send + Sync>,
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
        .route("/status.json", get(status))
        .with_state(views)
}

async fn readiness(State(views): State<Views>) -> Response {
    if (views.ready)() {
        (StatusCode::OK, "ready\n").into_response()
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "not ready: an issuer has no keys to serve, see /status.json\n")
            .into_response()
    }
}

async fn metrics(State(views): State<Views>) -> Response {
    page("application/openmetrics-text; version=1.0.0; charset=utf-8", views.metrics).await
}

async fn status(State(views): State<Views>) -> Response {
    page("application/json", views.status).await
}

/// Rendering what thousands of issuers have to say takes a while, during which documents are served.
async fn page(media_type: &'static str, render: Arc<dyn Fn() -> String + Send + Sync>) -> Response {
    let text = tokio::task::spawn_blocking(move || render()).await.expect("rendering does not panic");
    ([(header::CONTENT_TYPE, media_type)], text).into_response()
}

#[cfg(test)]
mod tests;
