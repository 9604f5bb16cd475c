//! An endpoint with scripted answers, which records its requests.
//!
//! Only for the token and metadata services of clouds, which are not available. Every test names the document
//! that its answers follow.

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::Request;
use axum::response::{IntoResponse as _, Response};
use http::StatusCode;
use http_body_util::BodyExt as _;

use super::fault_proxy::Seen;
use super::in_process::InProcess;

pub(crate) struct Scripted {
    server: InProcess,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Scripted {
    /// `answer` returns status and body for every request.
    pub(crate) fn start(answer: impl Fn(&Seen) -> (u16, String) + Send + Sync + 'static) -> Self {
        let seen = Arc::<Mutex<Vec<Seen>>>::default();
        let (answer, log) = (Arc::new(answer), Arc::clone(&seen));
        let router = Router::new().fallback(move |request: Request| {
            let (answer, log) = (Arc::clone(&answer), Arc::clone(&log));
            async move { serve(request, &*answer, &log).await }
        });
        Self { server: InProcess::serve(router), seen }
    }

    /// `http://127.0.0.1:PORT`.
    pub(crate) fn url(&self) -> String {
        self.server.url()
    }

    /// All requests so far, in order of arrival.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().expect("no answer panicked").clone()
    }
}

async fn serve(
    request: Request,
    answer: &(impl Fn(&Seen) -> (u16, String) + Sync),
    log: &Mutex<Vec<Seen>>,
) -> Response {
    let (head, body) = request.into_parts();
    let body = body.collect().await.expect("the client sends it all").to_bytes();
    let seen = Seen {
        method: head.method,
        path: head.uri.path().to_owned(),
        query: head.uri.query().map(str::to_owned),
        headers: head.headers,
        body,
    };
    let (status, body) = answer(&seen);
    log.lock().expect("no answer panicked").push(seen);
    (StatusCode::from_u16(status).expect("a status"), body).into_response()
}
