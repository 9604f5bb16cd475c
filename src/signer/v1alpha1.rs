//! The protocol as Kubernetes 1.32 and 1.33 speak it: the messages of `v1` under another service name.

use std::task::{Context, Poll};

use http::Request;
use tonic::{codegen::Service, server::NamedService};

/// A service of `v1` that answers to `v1alpha1`.
#[derive(Clone)]
pub(super) struct V1Alpha1<S>(pub(super) S);

impl<S> NamedService for V1Alpha1<S> {
    const NAME: &'static str = "v1alpha1.ExternalJWTSigner";
}

impl<S: Service<Request<B>> + NamedService, B> Service<Request<B>> for V1Alpha1<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<B>) -> S::Future {
        let method = request.uri().path().rsplit('/').next().unwrap_or_default();
        if let Ok(stable) = format!("/{}/{method}", S::NAME).parse() {
            *request.uri_mut() = stable;
        }
        self.0.call(request)
    }
}
