//! Limits requests to each server of an object store: 32 at once per `HOST:PORT`.
//!
//! Waiting is acceptable: waiting requests go to the same server, which a burst would only slow down. A slot
//! is held for a request and not for a pass, so a slow public URL does not delay the store behind it. API
//! servers need no limit: a source has one connection, and hundreds of issuers do not share an API server.

use std::{
    collections::HashMap,
    pin::Pin,
    sync::{Arc, Mutex},
};

use object_store::client::{HttpClient, HttpError, HttpRequest, HttpResponse, HttpService};
use tokio::sync::Semaphore;

/// Concurrent requests to one server: a store answers within tens of milliseconds, so these are a thousand a
/// second, and ten thousand targets in one bucket open no more connections than this.
const WIDTH: usize = 32;

/// One semaphore per server: `HOST:PORT`. Clones share them.
#[derive(Clone, Debug, Default)]
pub(super) struct RequestLimits(Arc<Mutex<HashMap<String, Arc<Semaphore>>>>);

impl RequestLimits {
    /// The same client with limited requests.
    pub(super) fn over(&self, client: HttpClient) -> HttpClient {
        HttpClient::new(Laned { client, limits: self.clone() })
    }

    /// Entries are never removed: there are no more than servers.
    fn to(&self, server: &str) -> Arc<Semaphore> {
        let mut limits = self.0.lock().expect("nobody panics while holding it");
        let lane = limits.entry(server.to_owned()).or_insert_with(|| Arc::new(Semaphore::new(WIDTH)));
        Arc::clone(lane)
    }
}

#[derive(Debug)]
struct Laned {
    client: HttpClient,
    limits: RequestLimits,
}

impl HttpService for Laned {
    fn call<'life, 'call>(
        &'life self,
        request: HttpRequest,
    ) -> Pin<Box<dyn Future<Output = Result<HttpResponse, HttpError>> + Send + 'call>>
    where
        'life: 'call,
        Self: 'call,
    {
        Box::pin(async move {
            let server = request.uri().authority().map_or("", |authority| authority.as_str());
            let lane = self.limits.to(server);
            let _turn = lane.acquire().await.expect("nobody closes it");
            self.client.execute(request).await
        })
    }
}

#[cfg(test)]
mod tests;
