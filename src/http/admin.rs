//! Health, readiness, metrics and status for the operator, on a port of their own. No secrets, no writes.

use std::sync::Arc;

use axum::{
    Router,
    extract::State,
    http::{StatusCode, Uri, header},
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
    /// Whether there is a publication to serve.
    pub ready: Arc<dyn Fn() -> bool + Send + Sync>,
    /// What is wrong, and if asked for what is right as well: whether it is, and the words.
    pub checks: Arc<dyn Fn(bool) -> Vec<(bool, String)> + Send + Sync>,
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

/// Whatever is wrong, and with `?verbose` what is right as well, as `/readyz` of kube-apiserver writes it.
async fn readiness(State(views): State<Views>, uri: Uri) -> Response {
    let verbose = uri.query() == Some("verbose");
    let mut text = String::new();
    for (right, what) in (views.checks)(verbose) {
        text += &format!("[{}]{what}\n", if right { '+' } else { '-' });
    }
    if (views.ready)() {
        (StatusCode::OK, text + "ready\n").into_response()
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, text + "not ready, see /status.json\n").into_response()
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
